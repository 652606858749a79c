"""Builds the page that runs a bundle in a browser: docs/web/ with ONNX Runtime Web beside it.

    python docs/build_web.py [--out build/web]

npm brings the library, one version by its digest; nothing of it is in the repository.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "web"
NAME, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The build without WebGPU and WebGL: all operations on the processor.
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def get_library() -> Path:
    """Returns a folder with the library's files and its licence, below build/; npm fills it at the first call.

    Raises OSError if there is no npm, RuntimeError if npm fails or brings other bytes.
    """
    folder = ROOT / "build" / f"{NAME}-{VERSION}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unfinished = Path(scratch) / NAME
            unfinished.mkdir()
            _unpack(_download(Path(scratch)), unfinished)
            shutil.copy(PAGE / f"{NAME}.LICENSE", unfinished / "LICENSE")
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.exists():  # otherwise another process was first
                    raise
    return folder


def _download(folder: Path) -> Path:
    command = ["npm", "pack", f"{NAME}@{VERSION}", "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"npm pack {NAME}@{VERSION}: {lines[0] if lines else f'exit code {done.returncode}'}")
    archive = folder / f"{NAME}-{VERSION}.tgz"
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise RuntimeError(f"npm pack {NAME}@{VERSION}: other bytes than expected (sha512 {digest})")
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        for name in FILES:
            stream = opened.extractfile(f"package/dist/{name}")
            assert stream is not None
            (folder / name).write_bytes(stream.read())


def build_page(out: Path) -> None:
    """Writes the page and the library to a folder, over what an earlier build left there."""
    library = get_library()
    shutil.copytree(PAGE, out, dirs_exist_ok=True)
    shutil.copytree(library, out / NAME, dirs_exist_ok=True)


def main() -> None:
    """Builds the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "web")
    out = parser.parse_args().out
    try:
        build_page(out)
    except (OSError, RuntimeError) as error:
        sys.exit(f"{error}; the page needs npm, once, and the package {NAME} {VERSION}")
    print(f"{out}: put a bundle beside the page and serve both, e.g. with python -m http.server -d {out}")


if __name__ == "__main__":
    main()
