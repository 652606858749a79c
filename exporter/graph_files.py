"""The float32 files of one graph, from which every precision starts."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from probrt.exporter.constants import freeze_variables
from probrt.exporter.converted_file import (
    read_onnx_graph,
    read_tflite_graph,
    remove_onnx_outputs,
    remove_tflite_outputs,
    replace_onnx_constants,
    replace_tflite_constants,
)
from probrt.exporter.drawn_constants import Draws, Floats, Rules, find_rules
from probrt.exporter.graphs import GraphFunction
from probrt.exporter.onnx_convert import convert_to_onnx
from probrt.exporter.tflite_convert import convert_to_tflite
from probrt.runtime.bundle.manifest import NOVELTY, Input


@dataclass(frozen=True)
class ChunkTemplate:
    """The float32 models of one chunk of the bank, and the rules by which they become those of another.

    Rules are None where there is no such model, or where its weights cannot be told from its other constants.
    """

    onnx_model: Any = None
    onnx_rules: Rules | None = None
    tflite_model: bytes = b""
    tflite_rules: Rules | None = None


@dataclass
class GraphFiles:
    """One graph, traced and converted when a file of it is asked for.

    make: traces it. compute_draws: computes the weights of a chunk that has the graph of others; None for any other
    graph. template: of an earlier chunk.
    """

    make: Callable[[], GraphFunction]
    compute_draws: Callable[[], Draws] | None = None
    template: ChunkTemplate = field(default_factory=ChunkTemplate)
    _onnx_model: Any = None
    _tflite_model: bytes | None = None

    def copy_onnx(self, name: str) -> Any:
        """Returns a copy of the ONNX model; `name` is that of the file, for messages."""
        if self._onnx_model is None:
            if self.template.onnx_rules is None:
                self._onnx_model = convert_to_onnx(self._function, name)
            else:
                self._onnx_model = copy.deepcopy(self.template.onnx_model)
                replace_onnx_constants(self._onnx_model, self._make_constants(self.template.onnx_rules))
        return copy.deepcopy(self._onnx_model)

    def convert_to_tflite(self, name: str) -> bytes:
        """Returns the TFLite model; `name` is that of the file, for messages."""
        if self._tflite_model is None:
            if self.template.tflite_rules is None:
                self._tflite_model = convert_to_tflite(self._function, name)
            else:
                constants = self._make_constants(self.template.tflite_rules)
                self._tflite_model = replace_tflite_constants(self.template.tflite_model, constants)
        return self._tflite_model

    def make_template(self, input: Input) -> ChunkTemplate:
        """Returns a template of what was converted, without the novelty, which only the first chunk has.

        input: of the model; its range gives the scale of the images.
        """
        low, high = input.range or (0.0, 1.0)
        find = functools.partial(find_rules, draws=self._draws, factor=1.0 / (high - low))
        onnx, tflite = copy.deepcopy(self._onnx_model), self._tflite_model
        if onnx is not None:
            remove_onnx_outputs(onnx, f"{NOVELTY}.")
        if tflite is not None:
            tflite = remove_tflite_outputs(tflite, f"{NOVELTY}.")
        return ChunkTemplate(
            onnx_model=onnx,
            onnx_rules=None if onnx is None else find(read_onnx_graph(onnx)),
            tflite_model=tflite or b"",
            tflite_rules=None if tflite is None else find(read_tflite_graph(tflite)),
        )

    def _make_constants(self, rules: Rules) -> Mapping[Hashable, Floats]:
        return {key: rule.make_constant(self._draws) for key, rule in rules.items()}

    @cached_property
    def _function(self) -> GraphFunction:
        return freeze_variables(self.make())

    @cached_property
    def _draws(self) -> Draws:
        return self.compute_draws() if self.compute_draws else ()
