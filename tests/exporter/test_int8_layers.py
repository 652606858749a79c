"""Which layers of a chunk may compute in int8, and what rounding does to the variance between draws."""

from __future__ import annotations

import numpy as np
import pytest

from probrt.exporter.int8_layers import (
    ACTIVATION_STEPS,
    WEIGHT_STEPS,
    GraphNode,
    MeasuredFile,
    Range,
    compare_weights,
    correct_bias,
    find_layers,
    find_scale,
    measure_layers,
    round_weights,
)

DRAWS = 8
rng = np.random.default_rng(0)


def make_weights(scale: float, shape: tuple[int, int] = (4, 300)) -> list[np.ndarray]:
    """Draws of a posterior N(mean, scale²)."""
    mean = rng.normal(size=shape)
    return [(mean + scale * rng.normal(size=shape)).astype(np.float32) for _ in range(DRAWS)]


def make_nodes(*layers: list[np.ndarray]) -> list[GraphNode]:
    """A network of products for each draw, and one more pass that the novelty is computed from."""
    nodes = []
    for draw in [*range(DRAWS), None]:
        source = "images"
        for place, weights in enumerate(layers):
            result = f"draw{draw}_{place}"
            values = weights[0] if draw is None else weights[draw]
            label = f"model_{draw}/stage{place}_1/Conv2D"
            nodes.append(
                GraphNode(
                    f"Conv {values.shape}", (source,), (result,), label, values, (source, result), terms=values.shape[1]
                )
            )
            source = result
    nodes.append(GraphNode("Distance", (source,), ("novelty.score",), "distance"))
    return nodes


def list_outputs(nodes: list[GraphNode]) -> list[object]:
    """The results of all draws."""
    read = {tensor for node in nodes for tensor in node.inputs}
    return [tensor for node in nodes for tensor in node.outputs if tensor not in {*read, "novelty.score"}]


def run(nodes: list[GraphNode], images: np.ndarray) -> dict[object, np.ndarray]:
    values: dict[object, np.ndarray] = {"images": images}
    for node in nodes:
        if node.weights is not None:
            values[node.outputs[0]] = np.maximum(values[node.inputs[0]] @ node.weights.T, 0)
    return values


@pytest.mark.parametrize("scale", [0.3, 0.05, 0.01])
def test_the_ratio_tells_how_much_rounding_adds_to_the_variance(scale: float) -> None:
    """Rounding to steps s adds s² / 12 to the variance between draws, where s is not far above the deviation."""
    weights = make_weights(scale, (4, 20_000))
    ratio = compare_weights(weights)
    assert ratio is not None
    rounded = []
    for draw in weights:
        integers, scales = round_weights(draw, 0)
        rounded.append(integers * scales[:, None])
    added = np.var(rounded, axis=0, ddof=1).mean() / np.var(weights, axis=0, ddof=1).mean() - 1
    assert added == pytest.approx(ratio**2 / 12, rel=0.15, abs=0.003)


def test_a_layer_of_a_narrow_posterior_stays_in_float() -> None:
    """The middle layer has a posterior far below a step; the others, but for the final one, become int8."""
    layers = [make_weights(scale, shape) for scale, shape in ((0.1, (40, 50)), (1e-4, (40, 40)), (0.1, (40, 40)))]
    final = make_weights(0.1, (5, 40))
    nodes = make_nodes(*layers, final)
    names = ["stage0", "stage1", "stage2", "stage3"]
    listed = find_layers(nodes, list_outputs(nodes), ["novelty.score"], DRAWS, names)
    at_mean = ["stage0 at the mean", "stage1 at the mean", "stage2 at the mean"]  # the pass of the novelty
    assert [layer.name for layer in listed] == ["stage0", "stage1", "stage2", *at_mean]
    assert [len(layer.nodes) for layer in listed] == [DRAWS] * 3 + [1] * 3
    images = rng.normal(size=(6, 50)).astype(np.float32)
    steps, ranges = measure_layers(listed, nodes, lambda image: run(nodes, image), images)
    assert [step.fits for step in steps] == [True, False, True, True, True, True]
    assert steps[1].weights > 100
    measured = MeasuredFile(nodes, listed, steps, ranges)
    assert measured.list_nodes([listed[1].key]) == list(listed[1].nodes)
    largest = max(float(run(nodes, image[None])["draw3_1"].max()) for image in images)
    assert ranges["draw3_1"].high == pytest.approx(largest)


def test_activations_that_hardly_differ_stay_in_float() -> None:
    """One large activation, alike in all draws, makes the step large beside what the draws differ by."""
    weights = make_weights(0.1, (40, 50))
    for draw in weights:
        draw[0] = 50.0
    nodes = make_nodes(weights, make_weights(0.1, (40, 40)), make_weights(0.1, (5, 40)))
    listed = find_layers(nodes, list_outputs(nodes), ["novelty.score"], DRAWS, [])
    images = np.abs(rng.normal(size=(6, 50))).astype(np.float32)
    steps, _ = measure_layers(listed, nodes, lambda image: run(nodes, image), images)
    assert not steps[1].fits
    assert steps[1].activations > 3


def test_a_layer_of_few_products_stays_in_float() -> None:
    """A grey image's first convolution of 3 x 3 sums nine products."""
    nodes = make_nodes(make_weights(0.1, (40, 9)), make_weights(0.1, (40, 40)), make_weights(0.1, (5, 40)))
    listed = find_layers(nodes, list_outputs(nodes), ["novelty.score"], DRAWS, [])
    images = np.abs(rng.normal(size=(6, 9))).astype(np.float32)
    steps, _ = measure_layers(listed, nodes, lambda image: run(nodes, image), images)
    assert [step.fits for step in steps] == [False, True, True]  # of the draws, and of the pass at the mean


def test_of_one_pass_each_layer_is_by_itself() -> None:
    """Two branches alike are two layers of the mean; what the novelty alone needs, and the final ones, stay float32."""
    first, left, right, final, distances = (
        make_weights(0.1, shape)[0] for shape in ((40, 50), (40, 40), (40, 40), (5, 40), (9, 40))
    )

    def make_product(source: str, result: str, weights: np.ndarray) -> GraphNode:
        kind = f"Conv {weights.shape}"
        return GraphNode(kind, (source,), (result,), result, weights, (source, result), terms=weights.shape[1])

    nodes = [
        make_product("images", "first", first),
        make_product("first", "left", left),
        make_product("first", "right", right),
        GraphNode("Add", ("left", "right"), ("sum",), "sum"),
        make_product("sum", "digit.mean", final),
        make_product("sum", "novelty.distances", distances),
        GraphNode("Distance", ("novelty.distances",), ("novelty.score",), "distance"),
    ]
    listed = find_layers(nodes, ["digit.mean"], ["novelty.score"], 1, ["first", "left", "right"])
    assert [layer.name for layer in listed] == ["first", "left", "right"]
    images = rng.normal(size=(6, 50)).astype(np.float32)

    def compute(image: np.ndarray) -> dict[object, np.ndarray]:
        features = image @ first.T
        return {"images": image, "first": features, "left": features @ left.T, "right": features @ right.T}

    steps, _ = measure_layers(listed, nodes, compute, images)
    assert all(step.weights is None and step.activations is None and step.fits for step in steps)


def test_the_bias_takes_the_average_shift_of_rounding() -> None:
    """With inputs of one sign, rounding the weights shifts each output; the corrected bias takes that back."""
    weights = make_weights(0.1, (40, 50))[0]
    inputs = np.abs(rng.normal(size=(500, 50)) + 2).astype(np.float32)
    values = Range()
    values.add(inputs)
    integers, scales = round_weights(weights, 0)
    errors = weights - integers * scales[:, None]
    shift = correct_bias(errors, values)
    assert shift is not None
    exact, rounded = inputs @ weights.T, inputs @ (integers * scales[:, None]).T
    assert np.abs((rounded + shift - exact).mean(0)).max() < 1e-4 < np.abs((rounded - exact).mean(0)).max()
    assert correct_bias(errors[:, :25], values) is None  # in groups


def test_what_no_draw_changes_has_no_ratio() -> None:
    weights = [make_weights(0.1)[0]] * DRAWS
    assert compare_weights(weights) is None


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-30])
def test_constant_images_give_finite_scales(value: float) -> None:
    """0 is always in the range, and is a step exactly."""
    values = Range()
    values.add(np.full((1, 4, 4, 1), value, np.float32))
    scale, zero = find_scale(values)
    assert 0 < scale < np.inf
    assert 0 <= zero <= ACTIVATION_STEPS
    assert (np.clip(round(value / scale) + zero, 0, 255) - zero) * scale == pytest.approx(value, abs=1e-9, rel=0.01)


def test_weights_of_zero_and_large_biases_have_scales() -> None:
    integers, scales = round_weights(np.zeros((3, 5), np.float32), 0, np.array([0.0, 1e-6, 0.5], np.float32))
    assert not integers.any()
    assert scales == pytest.approx([1e-12, 1e-6, 0.5])
    integers, scale = round_weights(np.array([[1.0, -4.0]], np.float32), None)
    assert scale == pytest.approx(4 / WEIGHT_STEPS)
    assert integers.tolist() == [[32, -127]]
