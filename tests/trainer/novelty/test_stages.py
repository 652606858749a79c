"""The stages of networks of every kind, found by their graphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from cases import DIGIT, SLANT, TISSUE, sides_of

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import backbones, heads, layers
from probrt.trainer.build import build_model
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.novelty.pool import join_sets
from probrt.trainer.novelty.stages import (
    StageRef,
    final_inputs,
    find_pooled_stages,
    find_stages,
    stage_tensors,
)


def build(shape: list[int | None], backbone: backbones.AnyBackbone, *chosen: heads.AnyHead) -> Model:
    input = Input(shape=shape, colour="none", resize="none", range=(-1.0, 1.0))
    return build_model("net", input, chosen or (DIGIT,), backbone=backbone, weights=WeightSettings())


def names(model: Model) -> list[str]:
    return [str(ref) for ref in find_stages(model.without_auxiliary().network, np.zeros((1, *sides_of(model.input))))]


@pytest.mark.parametrize("shape", [[16, 1], [16, 16, 2], [8, 8, 8, 1], [None, None, 1]])
def test_the_stages_of_a_stack_of_convolutions(shape: list[int | None]) -> None:
    backbone = backbones.ConvStack(widths=(4, 6, 8), depth=2, residual=False)
    assert names(build(shape, backbone)) == [f"stage{level}_conv2_relu" for level in (1, 2, 3)]


def test_the_stages_of_the_other_backbones() -> None:
    assert names(build([6], backbones.DenseStack(widths=(8, 4)))) == ["stage1_dense_relu", "stage2_dense_relu"]
    assert names(build([16, 16, 1], backbones.ConvStack(widths=(4, 6)))) == ["stage1_conv2_add", "stage2_conv2_add"]
    residual = backbones.Residual(widths=(4, 6), blocks=1)
    assert names(build([9, 8, 2], residual)) == ["stage1_block1_relu", "stage2_block1_relu"]
    unet = backbones.UNet(widths=(4, 6, 8), depth=1)
    expected = ["encoder1_conv1_relu", "encoder2_conv1_relu", "bottom_conv1_relu", "decoder2_conv1_relu"]
    assert names(build([None, None, 2], unet, TISSUE)) == [*expected, "decoder1_conv1_relu"]


def test_heads_on_several_stages_and_with_layers_of_their_own() -> None:
    chosen = (
        heads.Normal(name="slant", stage="stage1"),
        heads.Normal(name="size", own=heads.Own(widths=(3,))),
        heads.Normal(name="help", auxiliary=True, own=heads.Own(widths=(5,))),
    )
    model = build([16, 16, 1], backbones.ConvStack(widths=(4, 6), depth=1), *chosen)
    assert names(model) == ["stage1_conv1_relu", "head--size--relu1"]


def pooled_names(network: keras.Model, image: np.ndarray) -> dict[str, list[str]]:
    refs = find_pooled_stages(network, image)
    return {pooling: [str(ref) for ref in refs if ref.pooling == pooling] for pooling in {ref.pooling for ref in refs}}


@pytest.mark.parametrize("shape", [[16, 1], [16, 16, 2], [None, None, 1]])
def test_novelty_compares_the_first_and_the_last_map_of_a_resolution(shape: list[int | None]) -> None:
    model = build(shape, backbones.ConvStack(widths=(4, 6), depth=2))
    assert pooled_names(model.network, np.zeros((1, *sides_of(model.input)))) == {
        "root mean square": ["stage1_conv1_relu", "stage2_conv1_relu"],
        "maximum": ["stage2_pool", "stage2_conv2_add"],
    }


def test_where_novelty_compares_one_map_of_a_resolution_or_a_vector() -> None:
    assert pooled_names(lenet(), np.zeros((1, 28, 28, 1))) == {
        "average": ["conv1", "conv2"],
        "maximum": ["max_pooling2d", "max_pooling2d_1"],
        "average and maximum": ["dense1", "dense2"],  # as they are
    }
    refs = find_pooled_stages(lenet(), np.zeros((1, 28, 28, 1)))
    names_by_set = [[str(ref) for ref in group] for group in join_sets(refs, refs)]
    assert names_by_set == [["conv1", "max_pooling2d"], ["conv2", "max_pooling2d_1"], ["dense1"], ["dense2"]]
    unet = build([16, 16, 2], backbones.UNet(widths=(4, 6), depth=2), TISSUE)
    first, last = (
        pooled_names(unet.network, np.zeros((1, 16, 16, 2)))[pooling] for pooling in ("root mean square", "maximum")
    )
    assert last == ["encoder1_pool", "bottom_conv2_relu", "decoder1_conv2_relu"]
    assert first[:2] == ["encoder1_conv1_relu", "bottom_conv1_relu"]
    residual = build([9, 8, 2], backbones.Residual(widths=(4, 6), blocks=1))
    assert pooled_names(residual.network, np.zeros((1, 9, 8, 2)))["maximum"] == names(residual)


@pytest.mark.slow
def test_a_pretrained_network_has_few_stages() -> None:
    model = build([32, 32, 3], backbones.Pretrained(model="EfficientNetB0"))
    assert 3 <= len(names(model)) <= 8


def lenet() -> keras.Model:
    images = keras.Input((28, 28, 1))
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(images)
    x = keras.layers.MaxPooling2D(2, name="max_pooling2d")(x)
    x = layers.Conv2D(16, 5, padding="valid", activation="relu", name="conv2")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(2, name="max_pooling2d_1")(x))
    x = layers.Dense(20, activation="relu", name="dense1")(x)
    x = layers.Dense(10, activation="relu", name="dense2")(x)
    split = HeadSplit([("digit", 3, 0)], name="heads")
    return keras.Model(images, split(keras.layers.Reshape((1, 3))(layers.Dense(3, name="final")(x))))


def test_a_network_of_the_user() -> None:
    refs = find_stages(lenet(), np.zeros((1, 28, 28, 1)))
    assert [ref.layer for ref in refs] == ["conv1", "conv2", "dense1", "dense2"]


def test_a_head_that_reads_the_images() -> None:
    images = keras.Input((6,), name="images")
    split = HeadSplit([("digit", 3, 0)], name="heads")
    network = keras.Model(images, split(keras.layers.Reshape((1, 3))(keras.layers.Dense(3)(images))))
    assert final_inputs(network) == [images]
    assert find_stages(network, np.zeros((1, 6))) == [StageRef("images")]
    assert stage_tensors(network, [StageRef("images")]) == [images]


def test_a_layer_that_is_called_twice() -> None:
    images = keras.Input((8, 8, 2))
    shared = layers.Conv2D(2, 3, activation="relu", name="shared")
    x = shared(keras.layers.MaxPooling2D(2)(shared(images)))
    split = HeadSplit([("digit", 3, 0)], name="heads")
    network = keras.Model(images, split(layers.Conv2D(3, 1, name="final")(x)))
    refs = find_stages(network, np.zeros((1, 8, 8, 2)))
    assert refs == [StageRef("shared"), StageRef("shared", call=1)]
    assert [tensor.shape[1] for tensor in stage_tensors(network, refs)] == [8, 4]


def test_novelty_is_a_reserved_name() -> None:
    with pytest.raises(ConfigError, match="the name novelty is reserved"):
        build([6], backbones.DenseStack(widths=(8,)), SLANT, heads.Normal(name="novelty"))
