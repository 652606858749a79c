"""Writes tiles of a real microscope image of cell nuclei and masks of the nuclei.

    python examples/nuclei/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) receives metadata.csv and images/ and masks/ of 64 x 64 pixels. The image is
the 512 x 512 fluorescence image with instance labels that the package stardist (Schmidt et al. 2018) contains. Its left
320 columns give overlapping tiles for training, the next 64 columns validation tiles and the last 128 test tiles. No
pixel is in two splits.
"""

import csv
import io
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from packaged import read_package_files

TILE = 64
_IMAGE, _MASK = "stardist/data/images/img2d.tif", "stardist/data/images/mask2d.tif"
_DIGESTS = {
    _IMAGE: "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    _MASK: "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
}
SPLITS = (("train", 0, 320, 32), ("validation", 320, 384, 64), ("test", 384, 512, 64))


def main(folder: Path) -> None:
    """Writes the data below `folder` and replaces what is there."""
    contents = read_package_files("stardist==0.9.2", _DIGESTS)
    image, instances = (np.asarray(Image.open(io.BytesIO(contents[path]))) for path in (_IMAGE, _MASK))
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    tile_count = 0
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "nucleus"])
        for split, left, right, step in SPLITS:
            for y in range(0, image.shape[0] - TILE + 1, step):
                for x in range(left, right - TILE + 1, step):
                    name = f"{tile_count:04d}.png"
                    window = (slice(y, y + TILE), slice(x, x + TILE))
                    Image.fromarray(image[window].astype(np.uint8)).save(folder / "images" / name)
                    Image.fromarray((instances[window] > 0).astype(np.uint8) * 255).save(folder / "masks" / name)
                    table.writerow([f"images/{name}", split, f"masks/{name}"])
                    tile_count += 1
    print(f"{folder}: {tile_count} tiles")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
