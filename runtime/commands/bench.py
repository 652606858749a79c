"""`probrt bench`: every engine and variant of a bundle at several batch sizes, each in a process of its own."""

import json
import statistics
import subprocess
import sys
import time
from typing import Annotated, Any

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.commands.doctor import fits, sample_images
from probrt.runtime.engines import engines
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import cores, load_predictor

SECONDS = 1.0
MIN_CALLS = 5


def bench(
    bundle: Annotated[str, typer.Argument(help="A version folder, or a model folder (newest version).")],
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8,64",
    engine: Annotated[str, typer.Option(help="One engine; default: all that are installed.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: this machine's cores.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to time each.")] = SECONDS,
) -> int:
    """Time a bundle: median latency, images/s, resident memory, and the ratio to the mean variant."""
    opened = Bundle.open(bundle)
    sizes = _sizes(batch)
    print(f"{opened.label}, {threads or cores()} threads")
    print(f"{'engine':12} {'variant':8} {'draws':>5} {'batch':>5} {'median ms':>10} {'images/s':>9} {'MB':>5}  x mean")
    table = [one for one in engines() if engine in ("", one.name)]
    if not table:
        raise UsageError(f"--engine {engine}: choose one of {', '.join(one.name for one in engines())}")
    for one in table:
        means: dict[int, float] = {}
        for variant in ("mean", "draws", "sampled"):
            if not one.installed or not fits(opened, one, variant):
                continue
            job = json.dumps([str(opened.path), one.name, variant, sizes, threads, seconds])
            # A fresh process: resident memory is this variant's own, and threads of one engine disturb no other.
            ran = subprocess.run(
                [sys.executable, "-m", "probrt.runtime.commands.bench", job],
                capture_output=True,
                text=True,
                check=False,
            )
            if ran.returncode != 0:
                print(f"{one.name:12} {variant:8} failed: {ran.stderr.strip().splitlines()[-1:]}")
                continue
            for row in json.loads(ran.stdout):
                if variant == "mean":
                    means[row["batch"]] = row["ms"]
                ratio = f"{row['ms'] / means[row['batch']]:7.1f}" if row["batch"] in means else f"{'':7}"
                rate = row["batch"] / row["ms"] * 1000
                print(
                    f"{one.name:12} {variant:8} {row['draws']:5} {row['batch']:5} {row['ms']:10.2f} {rate:9.0f} "
                    f"{row['mb']:5.0f} {ratio}"
                )
    return 0


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--batch {text}: batch sizes separated by commas, such as 1,8,64")
    return sizes


def measure(path: str, engine: str, variant: str, sizes: list[int], threads: int | None, seconds: float) -> list[Any]:
    """Rows of one engine and variant: batch, draws, median ms of a call, resident MB so far."""
    bundle = Bundle.open(path)
    rows = []
    for size in sizes:
        predictor = load_predictor(bundle, engine=engine, variant=variant, batch_size=size, threads=threads)
        images = sample_images(bundle.manifest, size)
        predictor(images)
        times: list[float] = []
        while len(times) < MIN_CALLS or sum(times) < seconds:
            start = time.perf_counter()
            predictor(images)
            times.append(time.perf_counter() - start)
        ms = statistics.median(times) * 1000
        rows.append({"batch": size, "draws": predictor.plan.samples, "ms": ms, "mb": resident()})
    return rows


def resident() -> float:
    """This process's resident memory in MB now, or its peak where only that is known."""
    try:
        with open("/proc/self/statm") as stream:  # noqa: PTH123 (no path of ours)
            return int(stream.read().split()[1]) * 4096 / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
