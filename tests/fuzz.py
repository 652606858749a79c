"""Searches for files that the runtime neither reads nor refuses: `make fuzz`, or `python tests/fuzz.py --minutes 10`.

Each target runs in a process of its own on mutated seeds, and notes each file before it tries it. A file that raises
something else than a ProbrtError, gives a wrong answer, ends the process or takes longer than SLOW seconds is a
finding. It lies in tests/fuzz_findings/<target>/ from then on, and tests/runtime/test_fuzz.py tries it.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import random
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from damage import encode_image, halve_jpegs, make_adam7_rows, make_bombs, make_grey_png, make_photo
from PIL import Image
from shapes import GOLDEN

from probrt.runtime.bundle import manifest_file
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.bundle.vet_onnx import vet_onnx
from probrt.runtime.bundle.vet_saved_model import vet_saved_model
from probrt.runtime.errors import ImageError, ProbrtError
from probrt.runtime.images.decode import read_image
from probrt.runtime.rows.readers import read_rows

FINDINGS = Path(__file__).parent / "fuzz_findings"
SLOW = 20.0
GREY = Input(shape=[12, 12, 1], colour="grey", resize="bilinear", range=(0, 255))
RGB = Input(shape=[None, None, 3], colour="rgb", resize="none", range=(0, 255))
VOLUME = Input(shape=[None, None, None, 1], colour="none", resize="none")
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True)
class Target:
    """What is tried: makes its seeds, and tries one file. `attempt` raises for a finding."""

    make_seeds: Callable[[], list[bytes]]
    attempt: Callable[[bytes], None]


def make_images() -> list[bytes]:
    """Small pictures of every format and form."""
    photo = make_photo(24, 30)
    animation = {"save_all": True, "append_images": [photo, photo]}
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [encode_image(photo, format) for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")]
    seeds += [encode_image(photo, format, **animation) for format in ("PNG", "WEBP", "TIFF", "GIF")]
    seeds += [encode_image(photo, format, exif=exif) for format in ("PNG", "JPEG", "WEBP", "TIFF")]
    seeds += [encode_image(photo.convert(mode)) for mode in ("1", "L", "LA", "RGBA")]
    seeds += [encode_image(photo.quantize(9), "PNG", transparency=2), encode_image(photo.quantize(9), "BMP")]
    seeds += [encode_image(photo, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    seeds += [encode_image(photo.convert("1"), "TIFF", compression="group4")]
    seeds += [encode_image(photo, "JPEG", progressive=True), encode_image(photo.convert("CMYK"), "JPEG")]
    seeds += [encode_image(photo, "JPEG", restart_marker_blocks=2), encode_image(photo, "WEBP", lossless=True)]
    grey = np.asarray(photo.convert("L"))
    seeds += [make_grey_png(24, 30, make_adam7_rows(grey), interlaced=True)]
    seeds += [b"P2\n3 2\n255\n0 1 2 3 4 255\n", b"P5 3 2 65535\n" + bytes(12), b"P3 1 1 9 1 2 3 "]
    seeds += [data for name, data in halve_jpegs() if "0.5" in name][:6]
    seeds += [data for _, data in make_bombs() if len(data) < 10_000]
    with tempfile.TemporaryFile() as stream:
        np.save(stream, grey[:12, :12])
        stream.seek(0)
        seeds.append(stream.read())
    with contextlib.suppress(ImportError):
        import nibabel

        seeds.append(nibabel.Nifti1Image(np.ones((3, 4, 5), np.float32), np.eye(4)).to_bytes())
    return seeds


def attempt_image(data: bytes) -> None:
    """Reads an image for three models: values of the right shape and range, or an ImageError of one line."""
    for input in (GREY, RGB, VOLUME):
        try:
            values = read_image(data, input)
        except ImageError as error:
            reason = str(error)
            if not reason or "\n" in reason:
                raise ValueError(f"a refusal in {reason.count(chr(10)) + bool(reason)} lines") from error
            continue
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        for side, expected in zip(values.shape, input.shape, strict=True):
            assert expected in (None, side), f"values of shape {values.shape}"
        if input.range is not None:
            assert input.range[0] <= values.min() <= values.max() <= input.range[1]


def make_manifests() -> list[bytes]:
    """Two manifests; without their own digest, which would refuse every change."""
    manifests = [json.loads((GOLDEN / name / "probrt.json").read_bytes()) for name in ("bundle", "shapes/1")]
    return [json.dumps(manifest | {"sha256": None}, indent=1).encode() for manifest in manifests]


def attempt_manifest(data: bytes) -> None:
    """Decodes a manifest; what is accepted can be written and read again."""
    manifest = manifest_file.decode(data, "probrt.json")
    assert manifest_file.decode(manifest_file.encode(manifest), "probrt.json").heads == manifest.heads


def make_graphs() -> list[bytes]:
    folder = GOLDEN / "shapes" / "1"
    return [(folder / name).read_bytes() for name in ("saved_model.pb", "draws-00.onnx")]


def attempt_graph(data: bytes) -> None:
    """Vets a file as a SavedModel and as an ONNX model."""
    for vet in (vet_saved_model, vet_onnx):
        with contextlib.suppress(ProbrtError):
            vet(data, "graph")


def make_rows() -> list[bytes]:
    """Rows of predictions as JSON lines and as CSV."""
    row = {"file": "a.png", "sha256": "0" * 64, "status": "ok", "error": None, "draws": 8, "engine": "litert"}
    heads = {"shape": {"mean": [0.1, 0.9], "total": 0.5, "label": "flat", "set": ["flat"]}, "slant": {"mean": -1.5e-7}}
    lines = [json.dumps(row | {"bundle": "b/1", "heads": heads}), json.dumps(row | {"heads": None})]
    table = 'file,status,draws,shape.mean,shape.label\na.png,ok,8,"[0.1, 0.9]",flat\n"b\n.png",error,,,\n'
    return ["\n".join(lines).encode(), table.encode()]


def attempt_rows(data: bytes) -> None:
    """Reads a file as rows of both text formats."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".jsonl", ".csv"):
            path = Path(folder) / f"rows{suffix}"
            path.write_bytes(data)
            with contextlib.suppress(ProbrtError):
                for row in read_rows(path):
                    assert isinstance(row["file"], str)


TARGETS = {
    "images": Target(make_images, attempt_image),
    "manifest": Target(make_manifests, attempt_manifest),
    "vetting": Target(make_graphs, attempt_graph),
    "rows": Target(make_rows, attempt_rows),
}


def mutate(seeds: list[bytes], rng: random.Random) -> bytes:
    """Changes a seed in one to eight places: bits, bytes, numbers, parts removed, repeated or of another seed."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            break
        place = rng.randrange(min(len(data), 200)) if rng.random() < 0.5 else rng.randrange(len(data))
        end = min(len(data), place + rng.choice((1, 2, 4, 16, 200)))
        match rng.randrange(8):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.randrange(256)
            case 2:
                number = struct.pack(rng.choice("<>") + "I", rng.choice(_INTERESTING))[: rng.choice((1, 2, 4))]
                data[place : place + len(number)] = number
            case 3:
                del data[place:end]
            case 4:
                data[place:place] = data[place:end] * rng.choice((1, 2, 50))
            case 5:
                del data[place:]
            case 6:
                other = rng.choice(seeds)
                start = rng.randrange(max(1, len(other)))
                data[place:end] = other[start : start + rng.choice((4, 64, 1000))]
            case _:
                data[place:end] = rng.randbytes(end - place)
    return bytes(data)


def try_file(target: Target, data: bytes) -> str:
    """Tries one file; returns what is wrong, or nothing."""
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.attempt(data)
    except ProbrtError:
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - begin
    return f"took {seconds:.1f} s" if seconds > SLOW else ""


def save_finding(name: str, data: bytes, reason: str) -> None:
    folder = FINDINGS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    print(f"{name}: {reason[:200]} -> {path}", flush=True)


def search(name: str, seed: int, minutes: float, note: Path, counter: Path) -> None:
    """Tries mutated files until the time is over; for a process of its own."""
    target, rng = TARGETS[name], random.Random(f"{name} {seed}")
    seeds = target.make_seeds()
    end, count = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        data = mutate(seeds, rng)
        note.write_bytes(data)
        if reason := try_file(target, data):
            save_finding(name, data, reason)
        count += 1
        counter.write_text(str(count))


def watch(process: BaseProcess, note: Path) -> str:
    """Waits for the end of a search; returns how it died or that it hangs, else nothing."""
    while process.is_alive():
        process.join(1)
        if process.is_alive() and note.exists() and time.time() - note.stat().st_mtime > 3 * SLOW:
            process.kill()
            process.join()
            return "hangs"
    return f"ends the process (exit code {process.exitcode})" if process.exitcode else ""


def main() -> int:
    """Searches with every target in turn; returns 1 if there are findings."""
    parser = argparse.ArgumentParser(description="Search for files that the runtime neither reads nor refuses.")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    before = {*FINDINGS.rglob("*")}
    for name in options.targets:
        end = time.monotonic() + 60 * options.minutes / len(options.targets)
        counts, round_number = 0, 0
        while (left := end - time.monotonic()) > 0:
            with tempfile.TemporaryDirectory() as folder:
                note, counter = Path(folder) / "file", Path(folder) / "count"
                arguments = (name, seed + round_number, left / 60, note, counter)
                process = multiprocessing.get_context("spawn").Process(target=search, args=arguments)
                process.start()
                if reason := watch(process, note):
                    save_finding(name, note.read_bytes(), reason)
                counts += int(counter.read_text()) if counter.exists() else 0
            round_number += 1
        print(f"{name}: {counts} files with seed {seed}", flush=True)
    return 1 if {*FINDINGS.rglob("*")} - before else 0


if __name__ == "__main__":
    sys.exit(main())
