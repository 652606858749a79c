"""A bundle on disk: found, opened, and every byte checked before it is used."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probrt.runtime.bundle.manifest import MAX_BYTES, NAME, SIGNATURE, FileRecord, Manifest, decode
from probrt.runtime.errors import BundleError, UsageError

if TYPE_CHECKING:
    from probrt.runtime.predict.predictor import Predictor


@dataclass(frozen=True)
class Bundle:
    """One exported model version: a folder with a manifest.

    Opening reads and checks the manifest and the folder's listing; a file's digest is checked when
    the file is read (`read`), all of them by `verify`.
    """

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: str | os.PathLike[str]) -> "Bundle":
        """The bundle in a version folder, or the newest version in a model folder.

        Raises BundleError for a folder that is no bundle, and for links or files that the manifest
        does not list.
        """
        folder = _version_folder(Path(path))
        manifest = decode(_manifest_bytes(folder), str(folder / NAME))
        bundle = Bundle(folder, manifest)
        bundle._check_listing()
        return bundle

    def predictor(
        self,
        *,
        samples: int | None = None,
        seed: int | None = None,
        variant: str | None = None,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> "Predictor":
        """A function from images [batch, *input.shape] of raw values to a Prediction.

        Raises UsageError for what the bundle cannot give, MissingError for an engine that is not installed.
        """
        from probrt.runtime.predict.choose import PredictRequest, choose
        from probrt.runtime.predict.predictor import Predictor

        plan = choose(self, PredictRequest(samples, seed, variant, engine, device, precision))
        return Predictor(self, plan, batch_size, threads)

    @property
    def label(self) -> str:
        """`name/version`, as rows and messages name it."""
        return f"{self.manifest.model.name}/{self.manifest.model.version}"

    def files(self, format: str, variant: str | None = None, precision: str = "float32") -> list[FileRecord]:
        """Files of one format (and variant) in the order of their draws."""
        found = [
            file
            for file in self.manifest.files
            if file.format == format and variant in (None, file.variant) and file.precision == precision
        ]
        return sorted(found, key=lambda file: file.draws[0] if file.draws else 0)

    def read(self, file: FileRecord) -> bytes:
        """A file's bytes, after their size and digest were checked; BundleError if they differ."""
        try:
            data = (self.path / file.path).read_bytes()
        except FileNotFoundError:
            raise BundleError(f"{self.path / file.path}: missing; export the bundle again") from None
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise BundleError(
                f"{self.path / file.path}: was altered after export (its digest differs from the manifest's); "
                "export or copy the bundle again"
            )
        return data

    def check(self, file: FileRecord) -> None:
        """Checks a file's digest without holding it in memory; BundleError if it differs."""
        digest = hashlib.sha256()
        try:
            with (self.path / file.path).open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            raise BundleError(f"{self.path / file.path}: missing; export the bundle again") from None
        if digest.hexdigest() != file.sha256:
            raise BundleError(
                f"{self.path / file.path}: was altered after export (its digest differs from the manifest's); "
                "export or copy the bundle again"
            )

    def _check_listing(self) -> None:
        listed = {file.path for file in self.manifest.files}
        for path in _walk(self.path):
            name = path.relative_to(self.path).as_posix()
            if not stat.S_ISREG(path.lstat().st_mode):
                raise BundleError(f"{path}: a bundle holds plain files only, no links or devices")
            if name not in listed and name not in (NAME, SIGNATURE):
                raise BundleError(f"{path}: not listed in {NAME}; remove it or export the bundle again")


def default_bundle(root: Path = Path("artifacts")) -> Path:
    """The only model in `artifacts/`; UsageError if there is none, or several to choose from."""
    models = sorted(path for path in root.iterdir() if _versions(path)) if root.is_dir() else []
    if not models:
        raise UsageError(
            f"no bundle in {root.absolute()}: make one with `probrt export model/`, or name one with --bundle"
        )
    if len(models) > 1:
        names = ", ".join(str(path) for path in models)
        raise UsageError(f"several models in {root}: choose one with --bundle ({names})")
    return models[0]


def _versions(folder: Path) -> list[Path]:
    """Version folders of a model folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit() and path.is_dir()]
    return sorted((path for path in found if (path / NAME).exists()), key=lambda path: int(path.name))


def _version_folder(path: Path) -> Path:
    if (path / NAME).exists():
        return path
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle folder")
    versions = _versions(path)
    if not versions:
        raise BundleError(f"{path}: no bundle here (no {NAME}, no version folder with one)")
    return versions[-1]


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / NAME
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BundleError(f"{path}: must be a plain file")
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is not itself a real folder; links are not followed."""
    waiting = [folder]
    while waiting:  # not recursion: a hostile bundle may be nested deeper than Python's stack
        for path in sorted(waiting.pop().iterdir()):
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
            else:
                yield path
