"""Measures what docs/performance.md states of speed and memory, each beside a peer in the same run.

    python benchmarks/performance.py [--quick] [--torch PYTHON] [--write]

Every figure is a ratio. The sides run in processes of their own, in turn, and their medians are compared, so that other
programs on the machine slow all of them alike. The network has convolutions 32-64-128 on pictures of 28 x 28; the
command line trains and exports it. --torch names the Python of an environment with bayesian-torch, which probrt does
not install (docs/performance.md says how). --quick takes fewer rounds and leaves the longest rows out. --write puts the
table into docs/performance.md.

D is one pass at the posterior mean on the same engine, in float32. N1 is TFP's Flipout layers, a call per draw; N3 is
TFP's reparameterization layers with all draws in one function.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compared.command_line import run_probrt
from compared.digits_network import CLASSES, WIDTHS, export_digits_network
from compared.matmul_side import SIDE as MATMUL_SIDE
from compared.sides import Sides
from PIL import Image
from train_step import measure_steps

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured by benchmarks/performance.py -->", "<!-- end of what it measured -->"
ENGINES = ("openvino", "litert", "onnxruntime")
# What `make demo` leaves.
DEMO_MODEL, DEMO_BUNDLE = Path("demo/model"), Path("artifacts/digits")
NO_DEMO = "not measured: run `make demo` first"


@dataclass(frozen=True)
class Row:
    """A row of the table: what was measured, the figure, and the aim."""

    name: str
    figure: str
    aim: str


def compare_draws(bundle: Path, torch: Path | None, rounds: int, seconds: float) -> Iterator[Row]:
    """Times draws of the bundle against TFP and bayesian-torch; yields a row per comparison."""
    python, folder = sys.executable, HERE / "compared"
    probrt = [python, folder / "probrt_side.py", bundle]
    commands: dict[str, list[str | Path]] = {engine: [*probrt, engine, "float32", f"{seconds}"] for engine in ENGINES}
    bfloat16 = has_bfloat16()
    if bfloat16:
        commands["openvino bfloat16"] = [*probrt, "openvino", "bfloat16", f"{seconds}"]
    for engine in ("openvino", "litert"):
        commands[f"{engine} int8"] = [*probrt, engine, "int8", f"{seconds}"]
    for precision in ("float32", "bfloat16") if bfloat16 else ("float32",):
        commands[f"matmul {precision}"] = [python, folder / "matmul_side.py", precision, f"{seconds}"]
    servers = {"serving": "float32"} | ({"serving bfloat16": "bfloat16"} if bfloat16 else {})
    commands |= {side: [*probrt, "serving", precision, f"{seconds}"] for side, precision in servers.items()}
    commands["N1"] = [python, folder / "tfp_side.py", "Convolution2DFlipout", "calls", f"{seconds}"]
    commands["N3"] = [python, folder / "tfp_side.py", "Convolution2DReparameterization", "unrolled", f"{seconds}"]
    if torch:
        for layer in ("Conv2dFlipout", "Conv2dReparameterization"):
            commands[layer] = [torch, folder / "torch_side.py", layer, f"{seconds}"]
    ours = [side for side in commands if side.startswith(ENGINES)]
    requests = {(side, "draws-32", size): (side, "draws-32", size) for side in (*ours, "N1", "N3") for size in (64, 1)}
    requests |= {(side, "mean", size): (side, "mean", size) for side in ENGINES for size in (64, 1)}
    requests |= {(side, "serving", 64): (side, "serving", 64) for side in servers}
    requests |= {(side, "draws-32", 64): (side, "draws-32", 64) for side in commands if side.startswith("Conv2d")}
    products = [side for side in commands if side.startswith("matmul")]
    requests |= {(side, "matmul", 1): (side, "matmul", 1) for side in products}
    with Sides(commands) as sides:
        times = sides.measure({" ".join(map(str, key)): value for key, value in requests.items()}, rounds)
        effective = {}
        for side in ours:
            try:
                effective |= sides.measure({side: (side, "effective", 64)}, rounds)
            except ValueError:  # the side has no draws that are worth as many, and ended
                continue
    time_of = {key: times[" ".join(map(str, key))] for key in requests}
    best = min(ours, key=lambda side: time_of[side, "draws-32", 64])
    draws = time_of[best, "draws-32", 64]
    float32 = best.split()[0]
    passes = f"{draws / time_of[float32, 'mean', 64]:.1f} D"
    if best != float32:
        plain = time_of[float32, "draws-32", 64] / time_of[float32, "mean", 64]
        passes += f"; {plain:.1f} in float32"
    yield Row(f"32 draws, batch 64, {best}", passes, "12 D")
    for side in ours:
        if " " in side:  # a coarser precision
            times_64, times_1 = (
                [time_of[peer, "draws-32", size] / time_of[side, "draws-32", size] for peer in ("N1", "N3")]
                for size in (64, 1)
            )
            passes = time_of[side, "draws-32", 64] / time_of[side.split()[0], "mean", 64]
            figure = f"{passes:.1f} D; to N1 {times_64[0]:.1f}, to N3 {times_64[1]:.1f} times as fast"
            yield Row(f"32 draws, batch 64, {side}", figure, "")
            yield Row(f"32 draws of one image, {side}, to N1", f"{times_1[0]:.0f} times as fast", "")
    for side in products:
        peak = 2 * MATMUL_SIDE**3 / time_of[side, "matmul", 1]
        name = "openvino bfloat16" if "bfloat16" in side else "openvino"
        share = 2 * count_products() * 32 * 64 / time_of[name, "draws-32", 64] / peak
        what = f"32 draws, batch 64, {name}, share of the operations per second of a large matrix product"
        yield Row(what, f"{share:.0%}", "")
    yield Row("the same, to N1", f"{time_of['N1', 'draws-32', 64] / draws:.1f} times as fast", "8")
    yield Row("the same, to N3", f"{time_of['N3', 'draws-32', 64] / draws:.1f} times as fast", "2.5")
    for layer in ("Conv2dFlipout", "Conv2dReparameterization"):
        figure = f"{time_of[layer, 'draws-32', 64] / draws:.1f} times as fast" if torch else "not measured"
        yield Row(f"the same, to bayesian-torch's {layer}", figure, "25" if layer == "Conv2dFlipout" else "")
    fastest = min(ours, key=lambda side: time_of[side, "draws-32", 1])
    ratio = time_of["N1", "draws-32", 1] / time_of[fastest, "draws-32", 1]
    yield Row(f"32 draws of one image, {fastest}, to N1", f"{ratio:.0f} times as fast", "40")
    if effective:
        best = min(effective, key=lambda side: effective[side])
        ratio = time_of["N1", "draws-32", 64] / effective[best]
        yield Row(f"as good as 32 independent draws, batch 64, {best}, to N1", f"{ratio:.1f} times as fast", "30")
        passes = effective[best] / time_of[best.split()[0], "mean", 64]
        yield Row("the same, in passes", f"{passes:.1f} D", "3 D")
    for side, precision in servers.items():
        ratio = time_of["N3", "draws-32", 64] / time_of[side, "serving", 64]
        what = f"`serving_default` by TensorFlow's C++ loader in {precision}, batch 64, to N3"
        yield Row(what, f"{ratio:.2f} times as fast", "1.6")


def count_products() -> int:
    """Returns the multiplications of one draw of one image: those of the convolutions of 3 x 3 and the final one."""
    inputs, side, count = 1, 28, 0
    for width in WIDTHS:
        count += side * side * 9 * inputs * width
        inputs, side = width, side // 2
    return count + inputs * CLASSES * side * side


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16."""
    from probrt.runtime.engines.openvino import has_bfloat16 as can_multiply

    return can_multiply("cpu")


def compare_start(rounds: int) -> Iterator[Row]:
    """Times a whole `predict` of one picture with the demo's bundle, and its memory, against the TensorFlow engine."""
    if not DEMO_BUNDLE.exists():
        yield Row("start and memory of `predict`", NO_DEMO, "")
        return
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(picture)
        words = ["predict", "--bundle", DEMO_BUNDLE, "--samples", "32", picture]
        measured: dict[str, list[tuple[float, float]]] = {"auto": [], "litert": [], "tensorflow": []}
        for _ in range(1 + rounds):
            for engine, values in measured.items():
                out = Path(folder) / "rows.jsonl"
                values.append(run_and_watch([*map(str, words), "--engine", engine, "--out", str(out), "--overwrite"]))
    medians = {engine: np.median(np.array(values[1:]), axis=0) for engine, values in measured.items()}
    for place, (what, aim) in enumerate(
        (("start of `predict` to the row of one image", "1/20"), ("its memory", "1/12"))
    ):
        for engine in ("litert", "auto"):
            ratio = medians["tensorflow"][place] / medians[engine][place]
            yield Row(f"{what}, `--engine {engine}`, to the TensorFlow engine", f"1/{ratio:.1f}", aim)


# A new process counts the memory of the one that started it: so a small one starts and watches the command.
WATCH = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(status, time.perf_counter() - start, usage.ru_maxrss / 1024)
"""


def run_and_watch(words: list[str]) -> tuple[float, float]:
    """Runs a command of probrt; returns its seconds and its peak resident memory in MB."""
    program = str(Path(sys.executable).parent / "probrt")
    # Installed packages have their bytecode; that of this tree is written by the first run.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", WATCH, program, *words], env=environment, capture_output=True, text=True, check=True
    )
    status, seconds, memory = map(float, done.stdout.split())
    if status:
        raise SystemExit(f"probrt {' '.join(words)} failed")
    return seconds, memory


def compare_training(rounds: int) -> Iterator[Row]:
    """Times training steps against TFP's Flipout."""
    times = measure_steps(batch=64, rounds=rounds, steps=20)
    yield Row("training step with Flipout, to TFP's", f"{times['flipout'] / times['tfp']:.2f}", "0.9")
    yield Row("training step with IVON, to TFP's Flipout", f"{times['ivon'] / times['tfp']:.2f}", "0.65")


def compare_pipeline(small: int, large: int) -> Iterator[Row]:
    """Compares whole runs of `predict` with decoding and computing one after the other.

    With the bundle of the demo, which takes pictures of any size.
    """
    from throughput import measure_overlap

    if not DEMO_BUNDLE.exists():
        yield Row("whole runs, to 1 / (1/decode + 1/model)", NO_DEMO, "")
        return
    for label, ratio in measure_overlap(DEMO_BUNDLE, small, large).items():
        yield Row(
            f"whole runs, {label}, to 1 / (1/decode + 1/model)",
            f"{ratio:.2f}",
            "1.5" if "JPEG" in label else "" if "maps" in label else "1.0",
        )


def time_export(folder: Path) -> Iterator[Row]:
    """Times the export of the demo's model: every variant and format, in float32 and float16, and in every precision.

    The gate may refuse int8 files of this model, once all files are written and checked.
    """
    from probrt.exporter.formats import PRECISIONS

    for which, precisions in {
        "float32 and float16": "float32,float16",
        "every precision": ",".join(precision.name for precision in PRECISIONS),
    }.items():
        name = f"export of the demo, all variants and formats, in {which}"
        if not DEMO_MODEL.exists():
            yield Row(name, NO_DEMO, "60 s")
            continue
        start = time.perf_counter()
        artifacts = folder / precisions
        run_probrt("export", DEMO_MODEL, "--artifacts", artifacts, "--precisions", precisions, codes=(0, 3))
        seconds = f"{time.perf_counter() - start:.0f} s"
        refused = "" if list(artifacts.rglob("probrt.json")) else ", which ends with the gate's refusal of an int8 file"
        yield Row(name, seconds + refused, "60 s")


def write_table(rows: list[Row], page: Path = PAGE) -> None:
    """Puts the table between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page}: the marks of the table are missing")
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n{format_table(rows)}\n{END}", text), encoding="utf-8")


def format_table(rows: list[Row]) -> str:
    """Formats the table as Markdown."""
    lines = [f"| {row.name} | {row.figure} | {row.aim} |" for row in rows]
    return "\n".join(["| what | measured | aim |", "|---|---|---|", *lines])


def main() -> None:
    """Measures all rows and prints them as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--torch", type=Path, metavar="PYTHON")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    start, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = export_digits_network(folder, epochs=2 if options.quick else 10, precisions="float32,int8")
        rounds, seconds = (3, 0.3) if options.quick else (7, 1.0)
        steps: list[Callable[[], Iterator[Row]]] = [
            lambda: compare_draws(bundle, options.torch, rounds, seconds),
            lambda: compare_start(2 if options.quick else 5),
        ]
        if not options.quick:
            steps += [
                lambda: compare_training(rounds),
                lambda: compare_pipeline(10_000, 400),
                lambda: time_export(folder),
            ]
        for step in steps:
            for row in step():
                print(f"{row.name}: {row.figure}" + (f" (aim {row.aim})" if row.aim else ""), flush=True)
                rows.append(row)
    print(f"{time.monotonic() - start:.0f} s")
    if options.write:
        write_table(rows)


if __name__ == "__main__":
    main()
