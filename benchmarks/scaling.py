"""Draws time against draws, batch, side of the images and width, and memory, beside TFP's layers.

    python benchmarks/scaling.py [--quick] [--out FILE]

The network has convolutions 32-64-128; the command line trains and exports it for draws, batches and memory. For other
sides and widths it has the weights it begins with, which take as long. 32 draws of 64 images, where nothing else is
said. The sides are timed in turn, in processes of their own, and their medians are drawn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from compared.digits_network import WIDTHS, export_digits_network
from compared.sides import Sides
from compared.untrained_network import export_untrained_network

HERE = Path(__file__).parent
BANK, SERVING, FLIPOUT, UNROLLED = (
    "probrt, bank on OpenVINO",
    "probrt, SavedModel in the C++ loader",
    "TFP Flipout, a call per draw",
    "TFP reparameterization, one graph",
)
Line = dict[float, float]
"""The values along one axis."""


def make_commands(bundle: Path, seconds: float, side: int = 28, widths: Sequence[int] = WIDTHS) -> dict[str, list]:
    """Returns the command of each side."""
    probrt = [sys.executable, HERE / "compared" / "probrt_side.py", bundle]
    tfp = [sys.executable, HERE / "compared" / "tfp_side.py"]
    size = [str(side), *map(str, widths)]
    return {
        BANK: [*probrt, "openvino", "float32", f"{seconds}"],
        SERVING: [*probrt, "serving", "float32", f"{seconds}"],
        FLIPOUT: [*tfp, "Convolution2DFlipout", "calls", f"{seconds}", *size],
        UNROLLED: [*tfp, "Convolution2DReparameterization", "unrolled", f"{seconds}", *size],
    }


def measure_draws_and_batches(bundle: Path, rounds: int, seconds: float) -> tuple[dict[str, Line], dict[str, Line]]:
    """Returns the milliseconds per image against the number of draws, and against the size of the batch."""
    commands = make_commands(bundle, seconds)
    by_draws: dict[str, Line] = {side: {} for side in commands}
    by_batch: dict[str, Line] = {side: {} for side in commands}
    with Sides(commands) as sides:
        for draws in (8, 16, 32):
            for side, elapsed in sides.measure(
                {side: (side, f"draws-{draws}", 64) for side in commands}, rounds
            ).items():
                by_draws[side][draws] = elapsed / 64
        for size in (1, 4, 16, 64, 256):
            for side, elapsed in sides.measure({side: (side, "draws-32", size) for side in commands}, rounds).items():
                by_batch[side][size] = elapsed / size
    return by_draws, by_batch


def measure_networks(
    folder: Path, rounds: int, seconds: float, kinds: dict[float, tuple[int, Sequence[int]]]
) -> dict[str, Line]:
    """Returns the milliseconds per image of networks of other sides and widths, by the value on the axis."""
    lines: dict[str, Line] = {BANK: {}, FLIPOUT: {}, UNROLLED: {}}
    for value, (side, widths) in kinds.items():
        bundle = export_untrained_network(folder, side, widths)
        commands = make_commands(bundle, seconds, side, widths)
        with Sides({name: commands[name] for name in lines}) as sides:
            for name, elapsed in sides.measure({name: (name, "draws-32", 64) for name in lines}, rounds).items():
                lines[name][value] = elapsed / 64
    return lines


def measure_memory(bundle: Path) -> dict[str, Line]:
    """Returns the peak memory of a process, in MB, against the number of draws of 64 images."""
    lines: dict[str, Line] = {name: {} for name in make_commands(bundle, 0.0)}
    for name, line in lines.items():
        for draws in (8, 32) if name == BANK else (8, 32, 128):
            with Sides({name: make_commands(bundle, 0.0)[name]}) as sides:
                sides.measure({name: (name, f"draws-{draws}", 64)}, 1)
                line[draws] = sides.measure({name: (name, "memory", 0)}, 1)[name]
    return lines


def draw_panels(panels: dict[str, tuple[str, dict[str, Line]]], out: Path) -> None:
    """Draws a panel per title: the label of its vertical axis, and its lines."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.4), layout="constrained")
    for axis, (title, (label, lines)) in zip(axes, panels.items(), strict=True):
        for index, name in enumerate((BANK, SERVING, FLIPOUT, UNROLLED)):
            if line := lines.get(name):
                axis.plot(list(line), list(line.values()), "o-", color=f"C{index}", label=name, markersize=4)
        values = sorted({value for line in lines.values() for value in line})
        axis.set(
            title=title, ylabel=label, xscale="log", yscale="log", xticks=values, xticklabels=[f"{v:g}" for v in values]
        )
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(out, dpi=80)


def main() -> None:
    """Measures all panels, prints their values and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, two points per panel")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "scaling.png")
    options = parser.parse_args()
    rounds, seconds = (2, 0.3) if options.quick else (3, 0.5)
    sides = (28, 56) if options.quick else (28, 56, 112)
    factors = (0.5, 1.0) if options.quick else (0.5, 1.0, 2.0)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = export_digits_network(folder, epochs=1, tune=False)
        by_draws, by_batch = measure_draws_and_batches(bundle, rounds, seconds)
        widths = {factor: (28, tuple(int(width * factor) for width in WIDTHS)) for factor in factors}
        panels = {
            "draws": ("ms per image", by_draws),
            "batch": ("ms per image", by_batch),
            "side of the images": (
                "ms per image",
                measure_networks(folder, rounds, seconds, {float(side): (side, WIDTHS) for side in sides}),
            ),
            "width, in 32-64-128": ("ms per image", measure_networks(folder, rounds, seconds, widths)),
            "draws, memory": ("peak MB", measure_memory(bundle)),
        }
    for title, (label, lines) in panels.items():
        for name, line in lines.items():
            print(f"{title}, {label}, {name}: " + ", ".join(f"{x:g}: {y:.3g}" for x, y in line.items()))
    draw_panels(panels, options.out)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
