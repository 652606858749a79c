"""What a run was asked for, kept as a small JSON file beside its rows, so that no other run is continued in them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import UsageError
from probrt.runtime.files import write_atomic

FORMAT = 1
FOLDER_RECORD = "_run.json"


@dataclass(frozen=True)
class RunRecord:
    """The identity of a run.

    settings: everything that its rows depend on besides the images, by name: values of JSON.
    images: the arguments that name the images, for people. They are not compared, because the rows hold every name.
    size: the bytes of the finished file; None while the run goes on.
    """

    settings: Mapping[str, Any]
    images: Sequence[str]
    size: int | None = None

    def encode(self) -> bytes:
        """Returns the record as the bytes of its file."""
        content = {"format": FORMAT, "settings": dict(self.settings), "images": list(self.images), "size": self.size}
        return json.dumps(content, indent=2).encode("ascii") + b"\n"

    def write(self, path: Path) -> None:
        """Writes the record; raises OSError."""
        write_atomic(path, self.encode())


def record_path(out: Path) -> Path:
    """Where the record of a finished file, or of a folder of `predict --ray`, lies."""
    return out / FOLDER_RECORD if out.is_dir() else out.with_name(f"{out.name}.run.json")


def read_record(path: Path) -> RunRecord | None:
    """Reads a record; None if there is none or if it is damaged."""
    try:
        return decode_record(path.read_bytes())
    except OSError:
        return None


def decode_record(data: bytes) -> RunRecord | None:
    """Returns the record in the bytes of its file; None if they are damaged."""
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            return None
        return RunRecord(dict(content["settings"]), list(content["images"]), content["size"])
    except (ValueError, KeyError, TypeError):
        return None


def check_same_run(old: RunRecord, settings: Mapping[str, Any], out: Path | str) -> None:
    """Raises UsageError, which names every difference, if the settings are not those of the record."""
    names = [*old.settings, *(name for name in settings if name not in old.settings)]
    differences = [
        f"{name} was {_describe(old.settings.get(name))}, now {_describe(settings.get(name))}"
        for name in names
        if old.settings.get(name) != settings.get(name)
    ]
    if differences:
        raise UsageError(
            f"--resume: {out} is of another run: {'; '.join(differences)}; "
            "give the same, or start anew with --overwrite"
        )


def _describe(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "on" if value else "off"
        case str():
            return value[:12] if len(value) == 64 else value  # a digest
        case dict():
            return ",".join(f"{name}={_describe(item)}" for name, item in value.items()) or "none"
        case float():
            return f"{value:g}"
    return str(value)
