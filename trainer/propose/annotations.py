"""Turns annotation files of COCO and YOLO into rows: class, box and count of each image, and a mask from polygons."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from probrt.runtime.errors import DataError
from probrt.runtime.images.inputs import is_image_name
from probrt.trainer.data.examples import SPLIT_WORDS
from probrt.trainer.data.table import FILE

_SIDES = ("x_min", "y_min", "x_max", "y_max")
_NAME_LISTS = ("classes.txt", "obj.names", "data.names")


@dataclass(frozen=True)
class Annotated:
    """Rows of annotated images. kind: what the annotations are, for people."""

    kind: str
    rows: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Thing:
    """An annotated object: its class, its box and its outlines, in fractions of the image's sides."""

    label: str
    box: tuple[float, float, float, float]
    outlines: list[list[tuple[float, float]]] = field(default_factory=list)

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def find_annotations(root: Path, masks_out: Path) -> Annotated | None:
    """Returns the rows of COCO files (*.json) or YOLO files (labels/*.txt) in a folder; None if there are none.

    masks_out: the folder that masks are written to; it is made only if the annotations have outlines.
    Raises DataError for a file that is no such annotation.
    """
    coco = [path for path in sorted(root.rglob("*.json")) if _looks_like_coco(path)]
    if coco:
        images, notes = _read_coco(root, coco)
        kind = "COCO annotations"
    else:
        images, notes = _read_yolo(root)
        kind = "YOLO annotations"
    if not any(things for _, things in images.values()):
        return None
    several = sum(len(things) > 1 for _, things in images.values())
    if several:
        notes.append(f"{several} images hold several objects: class and box are those of the largest")
    rows = _make_rows(root, images, masks_out)
    return Annotated(f"{kind}, {len(rows)} images", rows, notes)


def _looks_like_coco(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(1 << 20)
    return start.lstrip().startswith(b"{") and (b'"annotations"' in start or b'"images"' in start)


Images = dict[str, tuple[str, list[_Thing]]]


def _read_coco(root: Path, paths: Sequence[Path]) -> tuple[Images, list[str]]:
    """Returns the split and the things of each image file, and notes."""
    by_name: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        if is_image_name(path.name):
            by_name.setdefault(path.name, []).append(path.relative_to(root).as_posix())
    images: Images = {}
    masked = 0
    for path in paths:
        split = _find_split(path.relative_to(root).with_suffix("")) if len(paths) > 1 else ""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            labels = {category["id"]: str(category["name"]) for category in content["categories"]}
            files = {image["id"]: image for image in content["images"]}
            for image in files.values():
                images.setdefault(_locate(path, str(image["file_name"]), root, by_name), (split, []))
            for annotation in content["annotations"]:
                image = files[annotation["image_id"]]
                masked += isinstance(annotation.get("segmentation"), dict)
                thing = _coco_thing(annotation, labels, float(image["width"]), float(image["height"]))
                if thing.area > 0:
                    images[_locate(path, str(image["file_name"]), root, by_name)][1].append(thing)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a COCO file of boxes ({type(error).__name__}: {error})") from None
    notes = [f"{masked} run-length masks are not read: only boxes and polygons are"] if masked else []
    return images, notes


def _locate(path: Path, name: str, root: Path, by_name: dict[str, list[str]]) -> str:
    for folder in (root, path.parent):
        if (folder / name).is_file():
            return os.path.relpath(folder / name, root).replace(os.sep, "/")
    places = by_name.get(Path(name).name, [])
    if len(places) != 1:
        raise DataError(f"{path}: the image {name!r} is {'in several folders' if places else 'not there'}")
    return places[0]


def _coco_thing(annotation: dict[str, Any], labels: dict[Any, str], width: float, height: float) -> _Thing:
    left, top, wide, high = (float(value) for value in annotation["bbox"])
    segmentation = annotation.get("segmentation")
    outlines = [
        [(x / width, y / height) for x, y in zip(outline[::2], outline[1::2], strict=True)]
        for outline in (segmentation if isinstance(segmentation, list) else [])
    ]
    box = _clip(left / width, top / height, (left + wide) / width, (top + high) / height)
    return _Thing(labels[annotation["category_id"]], box, outlines)


def _clip(*values: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = (min(1.0, max(0.0, value)) for value in values)
    return left, top, right, bottom


def _find_split(path: Path) -> str:
    words = [word for part in path.parts for word in part.lower().replace("-", "_").replace(".", "_").split("_")]
    words += [word.rstrip("0123456789") for word in words]
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")


def _read_yolo(root: Path) -> tuple[Images, list[str]]:
    """Reads a text file per image, of lines `class x y width height` or `class x y x y x y …`, as fractions."""
    files = sorted(path for path in root.rglob("*") if is_image_name(path.name) and path.is_file())
    labels = _read_names(root)
    images: Images = {}
    for path in files:
        parts = ["labels" if part == "images" else part for part in path.relative_to(root).parts[:-1]]
        candidates = [root.joinpath(*parts, f"{path.stem}.txt"), path.with_suffix(".txt")]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        things = [] if file is None else _read_yolo_file(file, labels)
        images[path.relative_to(root).as_posix()] = (_find_split(path.parent.relative_to(root)), things)
    return images, []


def _read_names(root: Path) -> dict[int, str]:
    """Returns the class names of classes.txt, or of the `names` of a data.yaml with one name a line or in brackets."""
    for path in [root / name for name in _NAME_LISTS if (root / name).is_file()]:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return dict(enumerate(line for line in lines if line))
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        names = _parse_yaml_names(path.read_text(encoding="utf-8"))
        if names:
            return names
    return {}


def _parse_yaml_names(text: str) -> dict[int, str]:
    """Reads the three forms in which YOLO's files write `names`: a list in brackets, with dashes, or numbered."""
    lines = [line.split(" #")[0].rstrip() for line in text.splitlines()]
    start = next((place for place, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return {}
    inline = lines[start].removeprefix("names:").strip()
    if inline:
        return dict(enumerate(name.strip(" '\"") for name in inline.strip("[]").split(",")))
    names: dict[int, str] = {}
    for line in lines[start + 1 :]:
        entry = line.strip()
        if entry.startswith("- "):
            names[len(names)] = entry[2:].strip(" '\"")
        elif line.startswith(" ") and entry.partition(":")[0].isdigit():
            names[int(entry.partition(":")[0])] = entry.partition(":")[2].strip(" '\"")
        elif entry:
            break
    return names


def _read_yolo_file(path: Path, labels: dict[int, str]) -> list[_Thing]:
    things = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            words = line.split()
            number, values = int(words[0]), [float(word) for word in words[1:]]
            if not all(-0.01 <= value <= 1.01 for value in values) or len(values) < 4 or len(values) % 2:
                raise ValueError
        except ValueError:
            raise DataError(
                f"{path}: line {line_number}: not `class x y width height` in fractions of the image's sides"
            ) from None
        label = labels.get(number, str(number))
        if len(values) == 4:
            x, y, wide, high = values
            things.append(_Thing(label, _clip(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)))
        else:
            outline = list(zip(values[::2], values[1::2], strict=True))
            box = _clip(min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
            things.append(_Thing(label, box, [outline]))
    return [thing for thing in things if thing.area > 0]


def _make_rows(root: Path, images: Images, masks_out: Path) -> list[dict[str, str]]:
    outlined = any(thing.outlines for _, things in images.values() for thing in things)
    splits = all(split for split, _ in images.values())
    rows = []
    for place, (name, (split, things)) in enumerate(images.items()):
        largest = max(things, key=lambda thing: thing.area, default=None)
        cells = {FILE: name} | ({"split": split} if splits else {})
        cells["label"] = largest.label if largest else ""
        for side, value in zip(_SIDES, largest.box if largest else ("",) * 4, strict=True):
            cells[f"box_{side}"] = f"{value:.6g}" if largest else ""
        cells["count"] = str(len(things))
        if outlined:
            cells["mask"] = _draw_mask(root, name, things, masks_out / f"{place:06d}.png")
        rows.append(cells)
    if len(Counter(cells["label"] for cells in rows if cells["label"])) < 2:
        for cells in rows:
            del cells["label"]
    if len({cells["count"] for cells in rows}) < 2:
        for cells in rows:
            del cells["count"]
    return rows


def _draw_mask(root: Path, name: str, things: Sequence[_Thing], path: Path) -> str:
    """Fills the outlines of all things of an image, writes them as a picture and returns its path from the root."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(root / name) as picture:
        width, height = picture.size
        if picture.getexif().get(0x0112, 1) >= 5:  # outlines belong to the upright picture
            width, height = height, width
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    for thing in things:
        for outline in thing.outlines:
            draw.polygon([(x * width, y * height) for x, y in outline], fill=255)
    mask.save(path)
    return os.path.relpath(path.resolve(), root.resolve()).replace(os.sep, "/")
