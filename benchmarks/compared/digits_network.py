"""The network of the speed benchmarks: convolutions 32-64-128 on digits, trained and exported by the command line."""

from __future__ import annotations

from pathlib import Path

from compared import folders
from compared.command_line import run_probrt

WIDTHS, CLASSES, DRAWS = (32, 64, 128), 10, 32
# The layers of the peers: one convolution of 3 x 3 per stage and a max-pool, a global mean, one final convolution.
CONFIG = """name = "net"
seed = 1

[data]
folder = "."
table = "fold0.csv"

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
name = "kind"
likelihood = "categorical"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[fit]
epochs = {epochs}
"""


def export_digits_network(folder: Path, epochs: int, precisions: str = "float32", tune: bool = True) -> Path:
    """Trains the network on 4,000 digits and exports 32 draws of it, tuned or not; returns the bundle."""
    data = folder / "digits"
    folders.write_mnist(data)
    config = data / "net.toml"
    config.write_text(CONFIG.replace("{epochs}", str(epochs)), encoding="utf-8")
    run_probrt("train", config, "--out", folder / "model", "--overwrite")
    options = ["--draws", DRAWS, "--precisions", precisions, *([] if tune else ["--no-tune"])]
    run_probrt("export", folder / "model", "--artifacts", folder / "artifacts", *options)
    return folder / "artifacts" / "net"
