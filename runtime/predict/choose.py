"""Chooses the engine, the device and the files that answer a request: the fastest that can honour it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import PosteriorRecord, RunPrecision, Variant
from probrt.runtime.engines.formats import FORMATS, Call, CannotAnswer, Draws, Source
from probrt.runtime.engines.table import BUILT_IN, Engine, engines
from probrt.runtime.errors import MissingError, UsageError
from probrt.runtime.predict.timings import rank_engines

FEW = 256
VARIANTS: tuple[Variant, ...] = get_args(Variant)
PRECISIONS: tuple[RunPrecision, ...] = get_args(RunPrecision)


@dataclass(frozen=True)
class PredictRequest:
    """What the user asks for; None and "auto" leave the choice open.

    few: whether there are so few images that a quick start matters more than speed.
    """

    samples: int | None = None
    seed: int | None = None
    variant: str | None = None
    engine: str = "auto"
    device: str = "auto"
    precision: str = "float32"
    few: bool = False

    @property
    def file_precision(self) -> str:
        """That of the files: bfloat16 is arithmetic with float32 files."""
        return "float32" if self.precision == "bfloat16" else self.precision


@dataclass(frozen=True)
class Plan:
    """How a request is answered.

    calls: of the source's graphs, one after another for every batch.
    precision: of the files, or of the arithmetic.
    why: the reason for this engine, and why none before it in the order.
    """

    engine: Engine
    device: str
    source: Source
    calls: tuple[Call, ...]
    why: str = ""
    precision: RunPrecision = "float32"

    @property
    def variant(self) -> Variant:
        return self.source.variant

    @property
    def samples(self) -> int:
        """The number of draws per image; 0 for the posterior mean."""
        return sum(call.draws.count for call in self.calls if call.draws)

    @property
    def has_many_graphs(self) -> bool:
        """Whether the calls load different files."""
        return len({call.files[0].path for call in self.calls}) > 1

    @property
    def line(self) -> str:
        """The choice in a few words."""
        draws = f"{self.samples} draws" if self.samples else "posterior mean, no epistemic uncertainty"
        return f"{self.engine.name} on {self.device}, {self.precision}, {self.variant}, {draws}"


def choose(bundle: Bundle, request: PredictRequest) -> Plan:
    """Returns the plan for a request.

    Raises UsageError, which says what is possible, or MissingError, which says what to install.
    """
    _check_request(bundle, request)
    reasons: list[str] = []
    missing: list[Engine] = []
    measured = _rank_measured(bundle, request)
    for engine in sorted(_list_candidates(request), key=lambda engine: _place(engine, measured)):
        try:
            source, calls = _find_calls(bundle, engine, request)
        except CannotAnswer as error:
            reasons.append(f"{engine.name}: {error}")
            continue
        if not engine.installed:
            missing.append(engine)
            continue
        device = _find_device(engine, request.device)
        if device is None:
            reasons.append(f"{engine.name}: no device {request.device} here")
        elif request.precision == "bfloat16" and not engine.has_bfloat16(device):
            reasons.append(f"{engine.name}: the {device} of this machine does not compute in bfloat16")
        else:
            (precision,) = (name for name in PRECISIONS if name == request.precision)
            return Plan(
                engine, device, source, calls, _explain(request, reasons, missing, engine.name in measured), precision
            )
    if missing:
        raise MissingError(
            f"{bundle.label}: needs {' or '.join(engine.name for engine in missing)}, not installed; "
            f"{' or '.join(engine.install for engine in missing)}"
        )
    if request.device != "auto" and any(reason.endswith("here") for reason in reasons):
        raise MissingError(f"{bundle.label}: device {request.device}: {'; '.join(reasons)}; see `probrt doctor`")
    raise UsageError(f"{bundle.label}: nothing can do this: {'; '.join(reasons)}")


def _explain(request: PredictRequest, reasons: Sequence[str], missing: Sequence[Engine], was_measured: bool) -> str:
    if request.engine != "auto":
        return "as asked"
    first = "starts soonest, for few images" if request.few else "the fastest that can"
    if was_measured:
        first = "the fastest by `probrt bench --save`"
    return "; ".join([first, *reasons, *(f"{engine.name}: not installed" for engine in missing)])


def _rank_measured(bundle: Bundle, request: PredictRequest) -> list[str]:
    """Returns the engines that this machine has measured for such a request, the fastest first.

    Empty where the choice is not open, where an engine's start takes longer than the images, and where another device
    than the CPU may answer, on which nothing is measured.
    """
    on_cpu = request.device == "cpu" or (request.device == "auto" and not _has_nvidia_gpu())
    if request.engine != "auto" or request.few or not on_cpu:
        return []
    posterior = _posterior(bundle)
    if posterior is None or request.variant == "mean":
        variants: Sequence[str] = ("mean",)
    elif request.variant is not None:
        variants = (request.variant,)
    else:
        variants = ("draws", "sampled") if request.seed in (None, posterior.seed) else ("sampled",)
    return rank_engines(bundle, request.precision, variants)


def _place(engine: Engine, measured: Sequence[str]) -> int:
    """Returns where an engine comes among the candidates; those that were not measured keep their order."""
    return measured.index(engine.name) if engine.name in measured else len(measured)


def _posterior(bundle: Bundle) -> PosteriorRecord | None:
    """The posterior whose draws the bundle gives; None if all its files hold the posterior mean."""
    return bundle.manifest.posterior if any(file.variant != "mean" for file in bundle.manifest.files) else None


def _check_request(bundle: Bundle, request: PredictRequest) -> None:
    posterior = _posterior(bundle)
    if request.samples is not None and request.samples < 1:
        raise UsageError(f"--samples {request.samples}: a number of draws, at least 1")
    if request.seed is not None and not 0 <= request.seed < 2**31:
        raise UsageError(f"--seed {request.seed}: from 0 to {2**31 - 1}")
    for name, value, allowed in (
        ("--variant", request.variant, VARIANTS),
        ("--precision", request.precision, PRECISIONS),
    ):
        if value is not None and value not in allowed:
            raise UsageError(f"{name} {value}: choose one of {', '.join(allowed)}")
    if request.samples is not None and (posterior is None or request.variant == "mean"):
        mean = "--variant mean" if posterior else f"{bundle.label}"
        raise UsageError(
            f"{mean} holds no draws and so no epistemic uncertainty: --samples {request.samples} has no meaning there"
        )
    if posterior is None and request.variant not in (None, "mean"):
        raise UsageError(f"--variant {request.variant}: {bundle.label} holds no draws; choose --variant mean")
    if posterior and (request.samples or 0) > posterior.max_samples:
        raise UsageError(f"--samples {request.samples}: {bundle.label} gives at most {posterior.max_samples}")


def _list_candidates(request: PredictRequest) -> Sequence[Engine]:
    if request.engine != "auto":
        table = BUILT_IN if request.engine in {engine.name for engine in BUILT_IN} else engines()
        matching = [engine for engine in table if engine.name == request.engine]
        if not matching:
            names = ", ".join(engine.name for engine in table)
            raise UsageError(f"--engine {request.engine}: choose auto or one of {names}")
        return matching
    if request.few:
        return sorted(BUILT_IN, key=lambda engine: engine.start)
    if request.device == "auto" and _has_nvidia_gpu():
        return sorted(BUILT_IN, key=lambda engine: "cuda" not in engine.devices)
    return BUILT_IN


def _has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver shows a device; imports no engine."""
    return Path("/dev/nvidia0").exists()


def _find_device(engine: Engine, wanted: str) -> str | None:
    """Returns the device to compute on, or None if the engine lacks it. Imports the engine only to look for GPUs."""
    if wanted == "cpu" or (wanted == "auto" and not ("cuda" in engine.devices and _has_nvidia_gpu())):
        return "cpu" if "cpu" in engine.devices else None
    if wanted not in ("auto", *engine.devices):
        return None
    available = engine.load_module().devices()
    if wanted == "auto":
        return available[0]
    return wanted if wanted in available else None


def _find_calls(bundle: Bundle, engine: Engine, request: PredictRequest) -> tuple[Source, tuple[Call, ...]]:
    """Returns the calls that honour a request with files of the engine's format; CannotAnswer says why none can."""
    posterior = _posterior(bundle)
    if request.precision == "bfloat16" and not engine.bfloat16:
        raise CannotAnswer("does not compute in bfloat16")
    if request.precision == "int8" and len(bundle.manifest.input.shape) == 2 and not engine.int8_sequences:
        raise CannotAnswer("runs no int8 files of one-dimensional inputs")
    variants: Sequence[Variant] = ("draws", "sampled")
    wanted = None
    if posterior is None or request.variant == "mean":
        variants = ("mean",)
    else:
        seed = posterior.seed if request.seed is None else request.seed
        wanted = Draws(seed, 0, request.samples or posterior.samples)
    reasons = []
    for variant in variants:
        if request.variant not in (None, variant):
            continue
        source = FORMATS[engine.format].get(variant)
        if source is not None and source.needs_words and not engine.words:
            reasons.append("computes no 32-bit words, so no draws in the graph")
            continue
        files = source.find_files(bundle, engine.format, request.file_precision) if source else ()
        if source is None or not files:
            format = engine.format if request.file_precision == "float32" else f"{request.precision} {engine.format}"
            reasons.append(f"no {format} file of variant {variant}")
            continue
        try:
            return source, source.plan_calls(files, wanted, posterior)
        except CannotAnswer as error:
            reasons.append(str(error))
    raise CannotAnswer(", ".join(reasons))
