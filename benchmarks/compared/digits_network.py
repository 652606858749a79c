"""The network of the speed benchmarks: convolutions 32-64-128 on digits, trained and exported by the command line."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

WIDTHS, CLASSES, DRAWS = (32, 64, 128), 10, 32
# The layers of the peers: one convolution of 3 x 3 per stage and a max-pool, a global mean, one final convolution.
CONFIG = """name = "net"
seed = 1

[data]
folder = "."

[input]
shape = [28, 28, 1]
colour = "grey"
resize = "none"
range = [0, 255]

[backbone]
name = "conv"
widths = [32, 64, 128]
depth = 1
residual = false
normalisation = "none"

[[heads]]
name = "digit"
likelihood = "categorical"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[fit]
epochs = {epochs}
"""


def run_probrt(*words: str | Path) -> None:
    """Runs a command of probrt silently; raises CalledProcessError with its output on stderr if it fails."""
    program = Path(sys.executable).parent / "probrt"
    subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def export_digits_network(folder: Path, epochs: int) -> Path:
    """Trains the network on 4,000 digits and exports 32 draws of it; returns the bundle."""
    from compared.pictures import read_digits
    from PIL import Image

    data = folder / "digits"
    (data / "images").mkdir(parents=True, exist_ok=True)
    images, labels, folds = read_digits()
    with (data / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "digit"])
        for index, (image, label, fold) in enumerate(zip(images, labels, folds, strict=True)):
            name = f"images/{index:05d}.png"
            Image.fromarray(image[..., 0]).save(data / name, compress_level=1)
            split = "test" if fold == 0 else "validation" if index % 10 == 1 else "train"
            table.writerow([name, split, label])
    config = data / "net.toml"
    config.write_text(CONFIG.replace("{epochs}", str(epochs)), encoding="utf-8")
    run_probrt("train", config, "--out", folder / "model", "--overwrite")
    run_probrt("export", folder / "model", "--artifacts", folder / "artifacts", "--draws", DRAWS)
    return folder / "artifacts" / "net"
