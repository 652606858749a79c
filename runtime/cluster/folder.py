"""The folder of a run on many machines: shards of rows in Parquet, `_run.json` and, once complete, `_shards.json`.

Names that begin with `_` are no data for the readers of Parquet folders (Spark, pandas, DuckDB). A file appears as a
whole: local ones are renamed, object stores show an object when all of it has arrived.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probrt.runtime.cluster.shards import ShardRecord
from probrt.runtime.cluster.stores import open_local, open_store
from probrt.runtime.errors import StorageError, UsageError, one_line
from probrt.runtime.files import write_atomic
from probrt.runtime.images.inputs import is_url
from probrt.runtime.rows.readers import SHARD_LIST as MANIFEST
from probrt.runtime.rows.run_record import FOLDER_RECORD as RUN
from probrt.runtime.rows.run_record import RunRecord, check_same_run, decode_record

MAPS = "_maps"
FORMAT = 1
_SHARD = re.compile(r"part-\d{6,}\.parquet")


class ShardFolder:
    """A local folder, or one at an address.

    Raises UsageError if `out` cannot be a folder; its methods raise StorageError.
    """

    def __init__(self, out: str) -> None:
        if out == "-" or Path(out).suffix.lower() in (".jsonl", ".ndjson", ".csv", ".parquet"):
            raise UsageError(f"--out {out}: --ray writes a folder of Parquet files; name a folder")
        self.out = out.removeprefix("file://").rstrip("/")
        self._store, self._path = open_store(self.out) if is_url(self.out) else open_local(self.out)

    @property
    def local(self) -> Path | None:
        """The folder in the local file system; None if it is elsewhere."""
        return None if is_url(self.out) else Path(self.out)

    def read(self, name: str) -> bytes | None:
        """Returns the bytes of a file; None if there is none."""
        try:
            return bytes(self._store.cat_file(f"{self._path}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # every driver has exceptions of its own
            raise self._fail(name, "read", error) from None

    def write(self, name: str, data: bytes) -> None:
        """Writes a file as a whole, and checks that a store has all of it."""
        try:
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)
                write_atomic(self.local / name, data)
                return
            path = f"{self._path}/{name}"
            self._store.pipe_file(path, data)
            self._store.invalidate_cache(self._path)
            size = self._store.info(path)["size"]
        except Exception as error:
            raise self._fail(name, "written", error) from None
        if size != len(data):
            raise StorageError(f"{self.out}/{name}: the store took {size} of {len(data)} bytes; go on with --resume")

    def list_files(self) -> list[str]:
        """Returns the names of the files of a run that are there: shards, `_run.json`, `_shards.json`."""
        try:
            if not self._store.exists(self._path):
                return []
            if not self._store.isdir(self._path):
                raise UsageError(f"--out {self.out}: not a folder; choose another name")
            names = [str(path).rpartition("/")[2] for path in self._store.ls(self._path, detail=False)]
        except UsageError:
            raise
        except Exception as error:
            raise self._fail("", "listed", error) from None
        return sorted(name for name in names if name in (RUN, MANIFEST) or _SHARD.fullmatch(name))

    def remove(self, names: Sequence[str]) -> None:
        """Removes files."""
        for name in names:
            try:
                self._store.rm_file(f"{self._path}/{name}")
            except Exception as error:
                raise self._fail(name, "removed", error) from None

    def start(self, settings: Mapping[str, Any], images: Sequence[str], *, overwrite: bool, resume: bool) -> None:
        """Begins a run, or continues one.

        Raises UsageError if the folder holds a run that may be neither replaced nor continued, before anything is
        changed.
        """
        names = self.list_files()
        begun = any(name != RUN for name in names)
        if begun and not (overwrite or resume):
            raise UsageError(
                f"--out {self.out} holds a run: choose another name, replace it with --overwrite or go on with --resume"
            )
        if begun and resume:
            record = decode_record(self.read(RUN) or b"")
            if record is None:
                raise UsageError(f"--resume: {self.out}/{RUN} cannot be read; start anew with --overwrite")
            check_same_run(record, settings, self.out)
            return
        self.remove(names)
        if self.local is not None:
            shutil.rmtree(self.local / MAPS, ignore_errors=True)
        self.write(RUN, RunRecord(settings, images).encode())

    def finish(self, records: Sequence[ShardRecord], bundle: str) -> list[str]:
        """Writes the list of shards, in order, and removes those of an earlier run that are not in it.

        Returns the names of the removed files.
        """
        shards = [{name: value for name, value in asdict(record).items() if name != "kept"} for record in records]
        total = {
            name: sum(shard[name] for shard in shards) for name in ("rows", "errors", "unknown", "review", "bytes")
        }
        content = {"format": FORMAT, "bundle": bundle, **total, "shards": shards}
        listed = {record.file for record in records} | {RUN, MANIFEST}
        stale = [name for name in self.list_files() if name not in listed]
        self.remove(stale)
        self.write(MANIFEST, json.dumps(content, indent=1).encode() + b"\n")
        return stale

    def _fail(self, name: str, what: str, error: Exception) -> StorageError:
        return StorageError(f"{self.out}/{name}: cannot be {what}: {one_line(error)}")
