"""Answers requests of the Open Inference Protocol (V2) from a bundle, on whatever engine is installed.

It knows no server: an adapter such as `mlserver_model.py` hands it arrays and gets arrays. Every request is answered by
itself, so a bad image refuses its own request, with the reason, and no other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import ImageError, UsageError
from probrt.runtime.images.decode import fit_array, read_image
from probrt.runtime.predict.answer import Prediction
from probrt.runtime.predict.choose import Plan, PredictRequest, choose
from probrt.runtime.predict.predictor import Predictor

IMAGES, IMAGE_BYTES = "images", "image_bytes"
# How many combinations of draws, seed and variant keep their plan.
_PLANS = 64

Values = npt.NDArray[np.generic] | Sequence[bytes]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as the metadata of a model states it; -1 marks a side of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class InferResponse:
    """What a request is answered with.

    outputs: by name, in the order of the request. parameters: the draws, seed, engine and bundle behind them.
    """

    outputs: Mapping[str, npt.NDArray[np.float32]]
    parameters: Mapping[str, int | str]


class OpenInference:
    """A bundle that answers V2 requests. Several threads may use it at once.

    A request has one input: `images`, raw values [batch, *input.shape], or `image_bytes`, picture files [batch]. Its
    parameters `samples`, `seed` and `variant` mean what they mean for `predict`.
    """

    def __init__(
        self, bundle: Bundle, *, engine: str = "auto", device: str = "auto", precision: str = "float32"
    ) -> None:
        self.bundle = bundle
        self._request = PredictRequest(engine=engine, device=device, precision=precision)
        self._find_predictor = functools.lru_cache(_PLANS)(self._make_predictor)
        self._loaded: dict[tuple[str, str], Predictor] = {}  # by engine and device
        self._find_predictor(None, None, None).load()

    @property
    def inputs(self) -> list[TensorSpec]:
        """The inputs that a request may have one of."""
        manifest = self.bundle.manifest
        specs = [TensorSpec(IMAGES, "FP32", (-1, *(side or -1 for side in manifest.input.shape)))]
        if manifest.input.colour != "none" and len(manifest.input.shape) == 3:
            specs.append(TensorSpec(IMAGE_BYTES, "BYTES", (-1,)))
        return specs

    @property
    def outputs(self) -> list[TensorSpec]:
        """All outputs; at the posterior mean `total` and `epistemic` are absent."""
        manifest = self.bundle.manifest
        shapes = {
            f"{head.name}.{quantity}": shape for head in manifest.heads for quantity, shape in head.outputs.items()
        }
        if manifest.novelty is not None:
            shapes |= manifest.novelty.outputs
        return [TensorSpec(name, "FP32", (-1, *(side or -1 for side in shape))) for name, shape in shapes.items()]

    def infer(
        self, inputs: Mapping[str, Values], parameters: Mapping[str, object], outputs: Sequence[str] = ()
    ) -> InferResponse:
        """Answers a request. outputs: the names that it asks for; none asks for all.

        Raises ImageError with the row of an image that the model cannot take, another Refused for a wrong request, and
        Fault if the engine fails.
        """
        images = self._read_images(inputs)
        predictor = self._find_predictor(
            _read_number(parameters, "samples"), _read_number(parameters, "seed"), _read_variant(parameters)
        )
        prediction = predictor(images)
        for row, fault in enumerate(prediction.faults):
            if fault:
                raise ImageError(f"row {row}: {fault}")
        available = _name_outputs(prediction)
        for name in outputs:
            if name not in available:
                raise UsageError(f"output {name}: choose from {', '.join(available)}")
        plan = predictor.plan
        seeds = {call.draws.seed for call in plan.calls if call.draws}
        described: dict[str, int | str] = {"engine": plan.engine.name, "bundle": self.bundle.label}
        if seeds:
            described |= {"samples": plan.samples, "seed": seeds.pop()}
        return InferResponse({name: available[name] for name in outputs or available}, described)

    def _read_images(self, inputs: Mapping[str, Values]) -> npt.NDArray[np.float32]:
        allowed = [spec.name for spec in self.inputs]
        if len(inputs) != 1 or next(iter(inputs)) not in allowed:
            raise UsageError(f"inputs {', '.join(inputs) or 'none'}: send one, {' or '.join(allowed)}")
        ((name, values),) = inputs.items()
        if not len(values):
            raise UsageError(f"input {name}: has no rows")
        rows = []
        for row, value in enumerate(values):
            try:
                if name == IMAGE_BYTES:
                    rows.append(read_image(bytes(value), self.bundle.manifest.input))
                else:
                    rows.append(fit_array(np.asarray(value), self.bundle.manifest.input))
            except ImageError as error:
                raise ImageError(f"input {name}, row {row}: {error}") from None
        if len({image.shape for image in rows}) > 1:
            raise UsageError(f"input {name}: its images differ in size; send one request per size")
        return np.stack(rows)

    def _make_predictor(self, samples: int | None, seed: int | None, variant: str | None) -> Predictor:
        request = PredictRequest(
            samples, seed, variant, self._request.engine, self._request.device, self._request.precision
        )
        plan: Plan = choose(self.bundle, request)
        key = plan.engine.name, plan.device
        if key not in self._loaded:
            self._loaded[key] = Predictor(self.bundle, plan)
        return self._loaded[key].with_plan(plan)


def _read_number(parameters: Mapping[str, object], name: str) -> int | None:
    value = parameters.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UsageError(f"parameter {name}: is {value!r}; it has to be an integer")


def _read_variant(parameters: Mapping[str, object]) -> str | None:
    value = parameters.get("variant")
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"parameter variant: is {value!r}; it has to be mean, draws or sampled")


def _name_outputs(prediction: Prediction) -> dict[str, npt.NDArray[np.float32]]:
    named = {
        f"{head}.{quantity}": values
        for head, answer in prediction.heads.items()
        for quantity, values in answer.quantities.items()
    }
    if prediction.novelty is not None:
        named |= prediction.novelty.outputs
    return named
