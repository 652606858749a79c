"""The chunks of a bank in int8: in all of a format the same layers, those that the first chunk allows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from probrt.exporter import onnx_draws, tflite_draws
from probrt.exporter.drawn_layers import Array, LayerKey, LayerSteps
from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.manifest import Format
from probrt.trainer.keras_internals import flatten_layers


@dataclass(frozen=True)
class Int8Draws:
    """Quantizes chunks and keeps what it measured of the first one.

    images: representative inputs [count, *input.shape]. names: of the network's layers.
    """

    images: Array
    names: Collection[str]
    steps: dict[Format, list[LayerSteps]] = field(default_factory=dict)

    def quantize_onnx(self, model: Any, draws: int) -> Any | None:
        """Returns a chunk with layers in int8; None if no layer allows it. draws: of the chunk."""
        steps = onnx_draws.quantize_draws(model, self.images, draws, self.names, self._chosen("onnx"))
        return model if self._keep("onnx", steps) else None

    def quantize_tflite(self, content: bytes, draws: int) -> bytes | None:
        """Returns a chunk with layers in int8; None if no layer allows it. draws: of the chunk."""
        content, steps = tflite_draws.quantize_draws(content, self.images, draws, self.names, self._chosen("tflite"))
        return content if self._keep("tflite", steps) else None

    def describe(self) -> dict[str, Any]:
        """Returns what the manifest's provenance states: by format, each layer's precision and steps."""
        return {format: [_describe_layer(step) for step in steps] for format, steps in self.steps.items()}

    def _chosen(self, format: Format) -> set[LayerKey] | None:
        """Returns the layers in int8; None while the first chunk has not decided it."""
        return {step.key for step in self.steps[format] if step.fits} if format in self.steps else None

    def _keep(self, format: Format, steps: list[LayerSteps]) -> bool:
        """Keeps what the first chunk has measured; returns whether any layer is in int8."""
        return any(step.fits for step in self.steps.setdefault(format, steps))


def list_layer_names(model: Exportable) -> set[str]:
    """Returns the names of a model's layers with kernels, by which messages call them."""
    layers = [layer for member in model.members for layer in flatten_layers(member.network)]
    return {layer.name for layer in layers if any(len(variable.shape) > 1 for variable in layer.variables)}


def _describe_layer(step: LayerSteps) -> dict[str, Any]:
    ratios = {"weights": step.weights, "activations": step.activations}
    return {
        "layer": step.name,
        "precision": "int8" if step.fits else "float32",
        "terms": step.terms,
        **{f"{name}_step": None if ratio is None else float(f"{ratio:.3g}") for name, ratio in ratios.items()},
    }
