"""Which engine, device and files answer a request, and why: the fastest that can honour it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, PosteriorRecord
from probrt.runtime.engines import BUILT_IN, Engine, engines
from probrt.runtime.errors import MissingError, UsageError

FEW = 256
VARIANTS = ("mean", "draws", "sampled")
PRECISIONS = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True)
class PredictRequest:
    """What a person asked for; None and "auto" leave the choice open.

    few: there are so few images that starting quickly matters more than speed.
    """

    samples: int | None = None
    seed: int | None = None
    variant: str | None = None
    engine: str = "auto"
    device: str = "auto"
    precision: str = "float32"
    few: bool = False


@dataclass(frozen=True)
class Plan:
    """What answers: `files` are the chunks in the order of their draws (one file for mean and sampled).

    samples: draws per image, 0 for the posterior mean; chunk: draws of one call, 0 where one call makes any number.
    why: this engine, and why none before it in the order.
    """

    engine: Engine
    device: str
    variant: str
    files: tuple[FileRecord, ...]
    samples: int
    seed: int
    chunk: int
    why: str = ""

    @property
    def line(self) -> str:
        """The choice in a few words."""
        draws = f"{self.samples} draws" if self.samples else "posterior mean, no epistemic uncertainty"
        return f"{self.engine.name} on {self.device}, {self.variant}, {draws}"


def choose(bundle: Bundle, request: PredictRequest) -> Plan:
    """The plan for a request; UsageError says what is possible, MissingError what to install."""
    _check(bundle, request)
    reasons: list[str] = []
    missing: list[Engine] = []
    for engine in _candidates(request):
        found = _files(bundle, engine, request)
        if isinstance(found, str):
            reasons.append(f"{engine.name}: {found}")
        elif not engine.installed:
            missing.append(engine)
        else:
            device = _device(engine, request.device)
            if device is not None:
                return replace(_plan(bundle, engine, device, request, *found), why=_why(request, reasons, missing))
            reasons.append(f"{engine.name}: no device {request.device} here")
    if missing:
        raise MissingError(
            f"{bundle.label}: needs {' or '.join(engine.name for engine in missing)}, not installed; "
            f"{' or '.join(engine.install for engine in missing)}"
        )
    if request.device != "auto" and any(reason.endswith("here") for reason in reasons):
        raise MissingError(f"{bundle.label}: device {request.device}: {'; '.join(reasons)}; see `probrt doctor`")
    raise UsageError(f"{bundle.label}: nothing can do this: {'; '.join(reasons)}")


def _why(request: PredictRequest, reasons: Sequence[str], missing: Sequence[Engine]) -> str:
    if request.engine != "auto":
        return "as asked"
    first = "starts soonest, for few images" if request.few else "the fastest that can"
    return "; ".join([first, *reasons, *(f"{engine.name}: not installed" for engine in missing)])


def _posterior(bundle: Bundle) -> PosteriorRecord | None:
    """The draws that the bundle gives; None if all its files hold the posterior mean."""
    return bundle.manifest.posterior if any(file.variant != "mean" for file in bundle.manifest.files) else None


def _check(bundle: Bundle, request: PredictRequest) -> None:
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
        what = "--variant mean" if posterior else f"{bundle.label}"
        raise UsageError(
            f"{what} holds no draws and so no epistemic uncertainty: --samples {request.samples} has no meaning there"
        )
    if posterior is None and request.variant not in (None, "mean"):
        raise UsageError(f"{bundle.label} holds no draws: only --variant mean can be had")
    if posterior and (request.samples or 0) > posterior.max_samples:
        raise UsageError(f"--samples {request.samples}: {bundle.label} gives at most {posterior.max_samples}")


def _candidates(request: PredictRequest) -> Sequence[Engine]:
    if request.engine != "auto":
        table = BUILT_IN if request.engine in {engine.name for engine in BUILT_IN} else engines()
        named = [engine for engine in table if engine.name == request.engine]
        if not named:
            names = ", ".join(engine.name for engine in table)
            raise UsageError(f"--engine {request.engine}: choose auto or one of {names}")
        return named
    if request.few:
        return sorted(BUILT_IN, key=lambda engine: engine.start)
    if request.device == "auto" and _gpu_seen():
        return sorted(BUILT_IN, key=lambda engine: "cuda" not in engine.devices)
    return BUILT_IN


def _gpu_seen() -> bool:
    """Whether an NVIDIA driver shows a device, without importing any engine."""
    return Path("/dev/nvidia0").exists()


def _device(engine: Engine, wanted: str) -> str | None:
    """The device to compute on, or None if the engine has it not; only GPUs are asked for by importing."""
    if wanted == "cpu" or (wanted == "auto" and not ("cuda" in engine.devices and _gpu_seen())):
        return "cpu" if "cpu" in engine.devices else None
    if wanted not in ("auto", *engine.devices):
        return None
    here = engine.load_module().devices()
    return here[0] if wanted == "auto" else (wanted if wanted in here else None)


def _files(bundle: Bundle, engine: Engine, request: PredictRequest) -> tuple[str, tuple[FileRecord, ...]] | str:
    """The variant and files that honour a request in an engine's format, or why there are none."""
    posterior = _posterior(bundle)
    if request.precision == "int8" and len(bundle.manifest.input.shape) == 2 and not engine.int8_sequences:
        return "runs no int8 files of one-dimensional inputs"
    if posterior is None or request.variant == "mean":
        files = _listed(bundle, engine, "mean", request.precision)
        return ("mean", files) if files else f"no {_kind(engine, request)} file of variant mean"
    reasons = []
    for variant, fit in (("draws", _bank), ("sampled", _sampled)):
        if request.variant not in (None, variant):
            continue
        if variant == "sampled" and not engine.words:
            reasons.append("computes no 32-bit words, so no draws in the graph")
            continue
        files = _listed(bundle, engine, variant, request.precision)
        if not files:
            reasons.append(f"no {_kind(engine, request)} file of variant {variant}")
            continue
        found = fit(files, posterior, request, engine.format)
        if not isinstance(found, str):
            return variant, found
        reasons.append(found)
    return ", ".join(reasons)


def _kind(engine: Engine, request: PredictRequest) -> str:
    return engine.format if request.precision == "float32" else f"{request.precision} {engine.format}"


def _listed(bundle: Bundle, engine: Engine, variant: str, precision: str) -> tuple[FileRecord, ...]:
    if engine.format == "savedmodel" and variant == "mean":  # a signature of every SavedModel
        return tuple(bundle.files(engine.format, None, precision))
    return tuple(bundle.files(engine.format, variant, precision))


def _bank(
    files: tuple[FileRecord, ...], posterior: PosteriorRecord, request: PredictRequest, format: str
) -> tuple[FileRecord, ...] | str:
    del format
    if request.seed not in (None, posterior.seed):
        return f"its bank answers for seed {posterior.seed} only"
    possible = list(accumulate(file.draws[1] for file in files if file.draws))
    wanted = request.samples or posterior.samples
    if wanted not in possible:
        return f"its bank gives --samples {', '.join(map(str, possible))}, not {wanted}"
    return files[: possible.index(wanted) + 1]


def _sampled(
    files: tuple[FileRecord, ...], posterior: PosteriorRecord, request: PredictRequest, format: str
) -> tuple[FileRecord, ...] | str:
    wanted = request.samples or posterior.samples
    if format == "savedmodel":
        return files
    chunk = files[0].draws[1] if files[0].draws else posterior.chunk
    if wanted % chunk:
        return f"its sampled file gives multiples of {chunk}, not {wanted} (the tensorflow engine gives any number)"
    return files[:1]


def _plan(
    bundle: Bundle, engine: Engine, device: str, request: PredictRequest, variant: str, files: tuple[FileRecord, ...]
) -> Plan:
    posterior = _posterior(bundle)
    if posterior is None or variant == "mean":
        return Plan(engine, device, variant, files, samples=0, seed=0, chunk=0)
    chunk = 0 if engine.format == "savedmodel" else (files[0].draws[1] if files[0].draws else posterior.chunk)
    seed = posterior.seed if request.seed is None else request.seed
    return Plan(engine, device, variant, files, request.samples or posterior.samples, seed, chunk)
