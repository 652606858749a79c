"""Images per second of `predict --ray local` over 1, 2 and 4 workers, beside `predict` on one thread.

    python benchmarks/cluster.py [--bundle artifacts/digits] [--images 4000] [--packages FOLDER] [--plot FILE]

--packages names a folder with Ray and fsspec where they are not installed. Workers beyond the cores of the machine
share them. The start of Ray, which takes seconds, is not counted. --plot draws the figures, such as docs/workers.png.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.predict.predictor import cores

WORKERS = (1, 2, 4)


def write_images(folder: Path, count: int, input: Input) -> None:
    """Writes PNGs of random pixels of the model's size."""
    rng = np.random.default_rng(0)
    sides = [side or 64 for side in input.shape[:2]]
    for index in range(count):
        pixels = rng.integers(0, 256, (*sides, 3) if input.colour == "rgb" else sides, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:06d}.png", compress_level=1)


def measure(words: list[str], environment: dict[str, str]) -> float:
    """Runs `probrt predict` and returns the images per second that it prints."""
    program = [str(Path(sys.executable).parent / "probrt"), "predict", "--engine", "litert", "--maps", "none", *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    speed = re.search(r"([0-9.]+) images/s", done.stderr)
    if done.returncode or speed is None:
        sys.exit(done.stderr)
    return float(speed.group(1))


def draw_speeds(speeds: dict[int, float], alone: float, out: Path) -> None:
    """Draws images per second against workers, beside `predict` on one thread times the workers, up to the cores."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(4.0, 3.0), layout="constrained")
    axis.plot(list(speeds), list(speeds.values()), "o-", label="predict --ray local")
    ideal = [alone * min(workers, cores()) for workers in speeds]
    axis.plot(list(speeds), ideal, "k--", label=f"predict --threads 1, times the workers, {cores()} cores")
    axis.set(xlabel="workers", ylabel="images per second", xticks=list(speeds), ylim=(0, None))
    axis.legend(frameon=False)
    figure.savefig(out, dpi=80)


def main() -> None:
    """Prints a table of images per second."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("artifacts/digits"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    environment = dict(os.environ)
    if options.packages:
        paths = [environment.get("PYTHONPATH", ""), str(options.packages)]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    elif importlib.util.find_spec("ray") is None:
        print("Ray is not installed: pip install 'probrt[ray]', or name its folder with --packages")
        return
    bundle = Bundle.open(options.bundle)
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        images.mkdir()
        write_images(images, options.images, bundle.manifest.input)
        print(f"{bundle.label}, {options.images} images, {cores()} cores")
        print("| workers | images/s |\n|---|---|")
        base = [str(images), "--bundle", str(bundle.path)]
        alone = measure([*base, "--threads", "1", "--out", f"{scratch}/one.parquet"], environment)
        print(f"| none (`predict --threads 1`) | {alone:.0f} |")
        speeds: dict[int, float] = {}
        for workers in WORKERS:
            size = max(options.images // (8 * workers), 1)
            words = ["--ray", "local", "--workers", str(workers), "--shard-size", str(size)]
            speeds[workers] = measure([*base, *words, "--out", f"{scratch}/{workers}"], environment)
            print(f"| {workers} | {speeds[workers]:.0f} |")
    if options.plot:
        draw_speeds(speeds, alone, options.plot)


if __name__ == "__main__":
    main()
