"""Finds and opens a bundle on disk, and checks every byte before it is used."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from probrt.runtime.bundle.manifest import MAX_BYTES, NAME, SIGNATURE, DocumentRecord, FileRecord, Manifest
from probrt.runtime.bundle.manifest_file import decode
from probrt.runtime.errors import BundleError, UsageError


@dataclass(frozen=True)
class Bundle:
    """One exported model version: a folder with a manifest.

    `open` reads and checks the manifest and the list of files in the folder. `read` checks the digest of a file, and
    the command `verify` those of all files.
    """

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: str | os.PathLike[str]) -> "Bundle":
        """Opens the bundle in a version folder, or the newest version in a model folder.

        Raises BundleError for a folder that is no bundle, and for links or files that the manifest does not list.
        """
        folder = _find_version(Path(path))
        manifest = decode(_read_manifest(folder), str(folder / NAME))
        bundle = Bundle(folder, manifest)
        bundle._check_listing()
        return bundle

    @property
    def label(self) -> str:
        """`name/version`, as rows and messages name it."""
        return f"{self.manifest.model.name}/{self.manifest.model.version}"

    def files(self, format: str, variant: str | None = None, precision: str = "float32") -> list[FileRecord]:
        """The files of one format, and of one variant if it is given, in the order of their draws."""
        matching = [
            file
            for file in self.manifest.files
            if file.format == format and variant in (None, file.variant) and file.precision == precision
        ]
        return sorted(matching, key=lambda file: file.draws[0] if file.draws else 0)

    def read(self, file: FileRecord | DocumentRecord) -> bytes:
        """Returns the bytes of a file; BundleError if their size or digest differs from the manifest's."""
        with self._open(file) as stream:
            content = stream.read(file.bytes)
        self._check_digest(file, hashlib.sha256(content).hexdigest())
        return content

    def check(self, file: FileRecord | DocumentRecord) -> None:
        """Checks the size and digest of a file without holding it in memory; BundleError if they differ."""
        with self._open(file) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._check_digest(file, digest)

    def _open(self, file: FileRecord | DocumentRecord) -> BufferedReader:
        """Opens a file of the size that the manifest states: a sparse file of terabytes is refused unread."""
        path = self.path / file.path
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            draws = file.draws if isinstance(file, FileRecord) else None
            fewer = "ask for the draws that are there with --samples, or " if draws and draws[0] else ""
            raise BundleError(f"{path}: missing; {fewer}export the bundle again") from None
        size = os.fstat(stream.fileno()).st_size
        if size != file.bytes:
            stream.close()
            raise self._altered(file, f"it has {size} bytes, not {file.bytes}")
        return stream

    def _check_digest(self, file: FileRecord | DocumentRecord, digest: str) -> None:
        if digest != file.sha256:
            raise self._altered(file, "its digest differs from the manifest's")

    def _altered(self, file: FileRecord | DocumentRecord, difference: str) -> BundleError:
        return BundleError(
            f"{self.path / file.path}: was altered after export ({difference}); export or copy the bundle again"
        )

    def _check_listing(self) -> None:
        listed = {file.path for file in self.manifest.listed}
        for path in _walk_folder(self.path):
            name = path.relative_to(self.path).as_posix()
            if not stat.S_ISREG(path.lstat().st_mode):
                raise BundleError(f"{path}: a bundle holds plain files only, no links or devices")
            if name not in listed and name not in (NAME, SIGNATURE):
                raise BundleError(f"{path}: not listed in {NAME}; remove it or export the bundle again")


def find_default_bundle(root: Path = Path("artifacts")) -> Path:
    """Returns the folder of the only model in `artifacts/`; UsageError if there are none or several."""
    models = sorted(path for path in root.iterdir() if _list_versions(path)) if root.is_dir() else []
    if not models:
        raise UsageError(
            f"no bundle in {root.absolute()}: make one with `probrt export model/`, or name one with --bundle"
        )
    if len(models) > 1:
        names = ", ".join(str(path) for path in models)
        raise UsageError(f"several models in {root}: choose one with --bundle ({names})")
    return models[0]


def _list_versions(folder: Path) -> list[Path]:
    """Returns the version folders of a model folder, oldest first."""
    if not folder.is_dir():
        return []
    numbered = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit() and path.is_dir()]
    return sorted((path for path in numbered if (path / NAME).exists()), key=lambda path: int(path.name))


def _find_version(path: Path) -> Path:
    if (path / NAME).exists():
        return path
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle folder")
    versions = _list_versions(path)
    if not versions:
        raise BundleError(f"{path}: no bundle here (no {NAME}, no version folder with one)")
    return versions[-1]


def _read_manifest(folder: Path) -> bytes:
    path = folder / NAME
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BundleError(f"{path}: must be a plain file")
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _walk_folder(folder: Path) -> Iterator[Path]:
    """Yields every path below a folder that is not itself a folder; does not follow links."""
    waiting = [folder]
    while waiting:  # no recursion: a hostile bundle may be nested deeper than Python's stack
        for path in sorted(waiting.pop().iterdir()):
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
            else:
                yield path
