"""`probrt bench`: times every engine and variant of a bundle at several batch sizes, each in a process of its own."""

import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.commands.sample_images import sample_images
from probrt.runtime.engines import Engine, engines
from probrt.runtime.errors import ProbrtError, UsageError
from probrt.runtime.predict.choose import VARIANTS, PredictRequest, choose
from probrt.runtime.predict.effective import count_effective_draws
from probrt.runtime.predict.predictor import cores, load_predictor
from probrt.runtime.predict.timings import Timing, save_timings

SECONDS = 1.0
MIN_CALLS = 5
_HEADINGS = f"{'draws':>5} {'like':>5} {'batch':>5} {'median ms':>10} {'images/s':>9} {'MB':>5}  x mean"


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """What one process times, for `seconds` at each batch size: one way to answer from the bundle at `path`."""

    path: str
    engine: str
    precision: str
    variant: str
    sizes: list[int]
    threads: int | None
    seconds: float


def bench(
    bundle: Annotated[str, typer.Argument(help="A version folder, or a model folder (newest version).")],
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8,64",
    engine: Annotated[str, typer.Option(help="One engine; default: all that are installed.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: the cores of this machine.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to time each.")] = SECONDS,
    save: Annotated[bool, typer.Option("--save", help="Keep what is measured; `predict` chooses by it.")] = False,
) -> int:
    """Time a bundle: median latency, images/s, memory, the ratio to the mean variant, and what its draws are worth."""
    opened = Bundle.open(bundle)
    sizes = _parse_sizes(batch)
    print(f"{opened.label}, {threads or cores()} threads")
    print(f"{'engine':12} {'precision':9} {'variant':8} {_HEADINGS}")
    chosen = [known for known in engines() if engine in ("", known.name)]
    if not chosen:
        raise UsageError(f"--engine {engine}: choose one of {', '.join(known.name for known in engines())}")
    timings: list[Timing] = []
    for timed_engine, precision in itertools.product(chosen, ("float32", "bfloat16", "int8")):
        mean_ms: dict[int, float] = {}  # by batch size
        for variant in VARIANTS:
            if not timed_engine.installed or not _can_run(opened, timed_engine, precision, variant):
                continue
            job = BenchJob(
                path=str(opened.path),
                engine=timed_engine.name,
                precision=precision,
                variant=variant,
                sizes=sizes,
                threads=threads,
                seconds=seconds,
            )
            rows = _measure_apart(job)
            rates = [row["batch"] / row["ms"] * 1000 for row in rows if "ms" in row]
            timings += [Timing(timed_engine.name, precision, variant, max(rates))] if rates else []
            for row in rows:
                if variant == "mean" and "batch" in row:
                    mean_ms[row["batch"]] = row["ms"]
                print(f"{timed_engine.name:12} {precision:9} {variant:8} {_format(row, mean_ms)}")
    if save:
        print(f"saved {save_timings(opened, timings)}; `probrt predict` goes by it for many images")
    return 0


def _parse_sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--batch {text}: batch sizes separated by commas, such as 1,8,64")
    return sizes


def _can_run(bundle: Bundle, engine: Engine, precision: str, variant: str) -> bool:
    """Whether an installed engine can answer with a variant of the bundle in a precision."""
    try:
        choose(bundle, PredictRequest(variant=variant, engine=engine.name, precision=precision))
    except ProbrtError:
        return False
    return True


def _measure_apart(job: BenchJob) -> list[dict[str, Any]]:
    """The rows of `measure` from a process of its own, or one row with its `fault`.

    In a fresh process the resident memory is that of one variant, and the threads of one engine disturb no other.
    """
    process = subprocess.run(
        [sys.executable, "-m", "probrt.runtime.commands.bench", json.dumps(asdict(job))],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        return [{"fault": process.stderr.strip().splitlines()[-1:]}]
    rows: list[dict[str, Any]] = json.loads(process.stdout)
    return rows


def _format(row: dict[str, Any], mean_ms: dict[int, float]) -> str:
    if "fault" in row:
        return f"failed: {row['fault']}"
    ratio = f"{row['ms'] / mean_ms[row['batch']]:7.1f}" if row["batch"] in mean_ms else f"{'':7}"
    rate = row["batch"] / row["ms"] * 1000
    worth = "" if row["effective"] is None else f"{row['effective']:.3g}"
    return f"{row['draws']:5} {worth:>5} {row['batch']:5} {row['ms']:10.2f} {rate:9.0f} {row['mb']:5.0f} {ratio}"


def measure(job: BenchJob) -> list[dict[str, Any]]:
    """Times one engine and variant: a row per batch size with batch, draws, median ms of a call, resident MB so far."""
    bundle = Bundle.open(job.path)
    rows = []
    for size in job.sizes:
        predictor = load_predictor(
            bundle,
            engine=job.engine,
            precision=job.precision,
            variant=job.variant,
            batch_size=size,
            threads=job.threads,
        )
        images = sample_images(bundle.manifest, size)
        predictor(images)
        times: list[float] = []
        while len(times) < MIN_CALLS or sum(times) < job.seconds:
            start = time.perf_counter()
            predictor(images)
            times.append(time.perf_counter() - start)
        ms = statistics.median(times) * 1000
        draws = predictor.plan.samples
        effective = count_effective_draws(bundle.manifest, predictor.plan, draws)
        rows.append({"batch": size, "draws": draws, "effective": effective, "ms": ms, "mb": resident_megabytes()})
    return rows


def resident_megabytes() -> float:
    """The resident memory of this process in MB now, or its peak where only that is known."""
    try:
        with open("/proc/self/statm") as stream:  # noqa: PTH123 (no path of ours)
            return int(stream.read().split()[1]) * 4096 / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    print(json.dumps(measure(BenchJob(**json.loads(sys.argv[1])))))
