"""Files in int8: which layers are in int8, by what their rounding does, and which stay float32.

Layers that fit (`int8_layers.py`) are tried together. If an answer to the representative images then differs by too
much of what the precision allows, the layers that change it most stay float32, as few as possible. Of the draws of the
bank, the first chunk of a format decides for all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from probrt.exporter import onnx_int8, tflite_int8
from probrt.exporter.exportable import Exportable
from probrt.exporter.file_answers import concatenate
from probrt.exporter.formats import GraphSpec, PrecisionSpec
from probrt.exporter.int8_layers import LEAST_TERMS, Array, LayerKey, LayerSteps, MeasuredFile
from probrt.exporter.spread import share_of_spread
from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_MAP, Format, Precision
from probrt.runtime.engines import Graph
from probrt.trainer.keras_internals import flatten_layers

# The part of what the gate allows that a file may differ by here, on these images and on the gate's.
LARGEST_SHARE = 0.9
# About how many images order the layers, by what each of them alone changes: each layer takes a run.
_ORDERING_IMAGES = 8
_BATCH = 32

Answer = Mapping[str, npt.NDArray[Any]]
GraphKey = tuple[str, Precision, Format]


class _FormatModule(Protocol):
    """What `tflite_int8.py` and `onnx_int8.py` have."""

    def measure_file(self, content: Any, images: Array, passes: int, names: Collection[str]) -> MeasuredFile: ...

    def quantize(
        self, content: Any, measured: MeasuredFile, keys: Collection[LayerKey], precision: Precision
    ) -> Any: ...

    def load(self, content: Any) -> Graph: ...


_MODULES: dict[Format, _FormatModule] = {"tflite": tflite_int8, "onnx": onnx_int8}


@dataclass(frozen=True)
class Int8Files:
    """Makes files in int8 of float32 ones, and keeps what it chose.

    images: representative inputs [count, *input.shape]; the ranges are theirs. checked: the gate's images.
    names: of the network's layers.
    """

    images: Array
    checked: Array
    names: Collection[str]
    _layers: dict[GraphKey, list[LayerSteps]] = field(default_factory=dict)
    _chosen: dict[GraphKey, set[LayerKey]] = field(default_factory=dict)

    def quantize(self, content: Any, graph: GraphSpec, draws: int | None) -> Any | None:
        """Returns a file with layers in int8; None if no layer can be.

        content: the float32 file, bytes of TFLite or an ONNX model. draws: of a chunk; None of the mean.
        """
        key, module = (graph.variant, graph.precision.name, graph.format), _MODULES[graph.format]
        measured = module.measure_file(content, self.images, draws or 1, self.names)
        if key not in self._chosen:
            self._layers[key] = list(measured.steps)
            self._chosen[key] = self._choose(content, module, measured, graph.precision)
        if not self._chosen[key]:
            return None
        return module.quantize(content, measured, self._chosen[key], graph.precision.name)

    def describe(self) -> list[dict[str, Any]]:
        """Returns what the manifest's provenance states: the layers of each kind of file in int8."""
        return [
            {
                "variant": variant,
                "precision": precision,
                "format": format,
                "layers": [_describe_layer(step, self._chosen[variant, precision, format]) for step in steps],
            }
            for (variant, precision, format), steps in self._layers.items()
        ]

    def _choose(
        self, content: Any, module: _FormatModule, measured: MeasuredFile, precision: PrecisionSpec
    ) -> set[LayerKey]:
        """Returns the layers that can be in int8 together."""
        keys = [step.key for step in measured.steps if step.fits]
        whole = module.load(content)

        def compute_share(chosen: Collection[LayerKey], *sets: Array) -> float:
            graph = module.load(module.quantize(content, measured, chosen, precision.name))
            return max(share_of_allowed(_answer(graph, images), _answer(whole, images), precision) for images in sets)

        if not keys or compute_share(keys, self.images, self.checked) <= LARGEST_SHARE:
            return set(keys)
        alone = {
            key: compute_share([key], self.checked[:: max(1, len(self.checked) // _ORDERING_IMAGES)]) for key in keys
        }
        keys.sort(key=lambda key: alone[key], reverse=True)
        # The fewest of those that change most stay float32.
        low, high = 1, len(keys)
        while low < high:
            middle = (low + high) // 2
            if compute_share(keys[middle:], self.images, self.checked) <= LARGEST_SHARE:
                high = middle
            else:
                low = middle + 1
        return set(keys[low:])


def share_of_allowed(answer: Answer, expected: Answer, precision: PrecisionSpec) -> float:
    """Returns the largest difference of any output, as a part of what the gate allows (`parity.py`)."""
    shares = [0.0]
    for name, targets in expected.items():
        differences = np.abs(np.asarray(answer[name], np.float64) - targets)
        if name == f"{NOVELTY}.score":
            shares.append(float((differences / np.maximum(1.0, np.abs(targets))).max()) / precision.novelty_tolerance)
        elif name == f"{NOVELTY}.{NOVELTY_MAP}":
            squares = np.square(differences / np.maximum(1.0, np.abs(targets)))
            shares.append(float(np.sqrt(squares.mean(axis=(1, 2))).max()) / precision.map_tolerance)
        elif not name.startswith(f"{NOVELTY}."):  # the p-value follows from the score
            if name.endswith(".epistemic"):
                shares.append(share_of_spread(np.asarray(answer[name], np.float64), np.asarray(targets), precision))
            shares.append(float(differences.max()) / max(1.0, float(np.abs(targets).max())) / precision.tolerance)
    return max(shares)


def _answer(graph: Graph, images: Array) -> Answer:
    """Runs the images in small batches: maps of features take far more memory than their image."""
    return concatenate([graph({"images": images[first : first + _BATCH]}) for first in range(0, len(images), _BATCH)])


def list_layer_names(model: Exportable) -> set[str]:
    """Returns the names of a model's layers with kernels, by which messages call them."""
    layers = [layer for member in model.members for layer in flatten_layers(member.network)]
    return {
        layer.name
        for layer in layers
        if not isinstance(layer, keras.Model) and any(len(variable.shape) > 1 for variable in layer.variables)
    }


def _describe_layer(step: LayerSteps, chosen: Collection[LayerKey]) -> dict[str, Any]:
    ratios = {"weights_step": step.weights, "activations_step": step.activations}
    record = {
        "layer": step.name,
        "precision": "int8" if step.key in chosen else "float32",
        "terms": step.terms,
        **{name: float(f"{ratio:.3g}") for name, ratio in ratios.items() if ratio is not None},
    }
    return record if step.key in chosen else record | {"reason": _explain(step)}


def _explain(step: LayerSteps) -> str:
    """Returns why a layer stays float32."""
    if step.terms < LEAST_TERMS:
        return f"sums of only {step.terms} products"
    if step.fits:
        return "its rounding changes the answers too much"
    ratios = {"weights": step.weights, "activations": step.activations}
    steps = [f"{ratio:.2g} of {name}" for name, ratio in ratios.items() if ratio is not None]
    return f"steps of {' and '.join(steps)} standard deviations between draws"
