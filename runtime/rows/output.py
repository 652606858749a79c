"""Where the rows of a run go: standard output, or a file that appears when the run has finished."""

import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from probrt.runtime.errors import StorageError, UsageError
from probrt.runtime.rows.journal import JournalWriter, encode_rows, read_journal
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.readers import read_finished_rows
from probrt.runtime.rows.resume import KeptRows, check_rows
from probrt.runtime.rows.run_record import RunRecord, check_same_run, read_record, record_path
from probrt.runtime.rows.unfinished import UnfinishedRun
from probrt.runtime.rows.writers import RowsFile, flat_columns, show_bytes, write_rows_file


class RowOutput(Protocol):
    """Takes the rows of a run in order; `finish` once all are there, and in every case `close`.

    names: the images that still need rows. rows, errors: how many there are already.
    """

    names: Iterator[str]
    rows: int
    errors: int

    def write(self, rows: Sequence[Row]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class OutputRequest:
    """What a run writes.

    settings: the identity of the run, as `RunRecord` holds it. images: the arguments that name the images. names: the
    images themselves. block: the number of images whose batches depend on no image before them. threads: for digests.
    """

    file: RowsFile
    settings: Mapping[str, Any]
    images: Sequence[str]
    names: Iterator[str]
    block: int
    threads: int
    overwrite: bool
    resume: bool


class StandardOutput:
    """Writes JSON lines to standard output."""

    def __init__(self, names: Iterator[str]) -> None:
        self.names, self.rows, self.errors = names, 0, 0

    def write(self, rows: Sequence[Row]) -> None:
        sys.stdout.write(encode_rows(rows).decode("ascii"))
        sys.stdout.flush()

    def finish(self) -> None: ...

    def close(self) -> None: ...


class FileOutput:
    """Writes rows to the journal of an unfinished run, and turns it into the file at the end."""

    def __init__(self, request: OutputRequest, run: UnfinishedRun, kept: KeptRows) -> None:
        self.names, self.rows, self.errors = kept.names, kept.rows, kept.errors
        self._request = request
        self._run = run
        self._journal = JournalWriter(run.rows, kept.size)

    def write(self, rows: Sequence[Row]) -> None:
        self._journal.write(rows)

    def finish(self) -> None:
        """Gives rows and maps their final names; StorageError if that fails. A later run can repeat it."""
        file = self._request.file
        self._journal.close()
        try:
            if file.maps is not None:
                self._run.publish_maps(file.maps.path)
            write_rows_file(file, self._run.rows, self._write_record)
            self._run.remove()
        except OSError as error:
            raise StorageError(f"{error.filename or file.path}: cannot be written: {error.strerror or error}") from None

    def _write_record(self, size: int) -> None:
        """Writes the record of the finished file, so that the file is never without it."""
        request = self._request
        RunRecord(request.settings, request.images, size).write(record_path(request.file.path))

    def close(self) -> None:
        self._journal.close()
        self._run.release()


class CompleteOutput:
    """A finished file that has a row for every image already."""

    def __init__(self, kept: KeptRows) -> None:
        self.names, self.rows, self.errors = kept.names, kept.rows, kept.errors

    def write(self, rows: Sequence[Row]) -> None:
        raise TypeError("a complete output takes no rows")

    def finish(self) -> None: ...

    def close(self) -> None: ...


def resolve_out(out: str) -> Path | None:
    """Returns the file that `--out` means, behind links; None for standard output."""
    return None if out == "-" else Path(os.path.realpath(out))


def check_out(out: str, *, overwrite: bool, resume: bool) -> Path | None:
    """Returns what `resolve_out` returns.

    Raises UsageError if there is something that may be neither replaced nor continued.
    """
    if overwrite and resume:
        raise UsageError("--overwrite and --resume: choose one")
    path = resolve_out(out)
    if path is None:
        if resume:
            raise UsageError("--resume: standard output cannot be continued; name a file with --out")
        return None
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(f"--out {out}: not a plain file; choose another name, or - for standard output")
    if not (overwrite or resume):
        unfinished = UnfinishedRun(path)
        if path.exists():
            raise UsageError(
                f"--out {out} exists: choose another name, replace it with --overwrite or go on with --resume"
            )
        if unfinished.has_rows:
            raise UsageError(
                f"--out {out}: {unfinished.folder} holds a run that has not finished: go on with --resume, "
                "start anew with --overwrite, or choose another name"
            )
    return path


def open_output(request: OutputRequest) -> RowOutput:
    """Opens the file of a run for this process alone.

    Raises UsageError if another process writes it, or if `--resume` finds the rows of another run; StorageError if the
    disk does not take it. Until then nothing that is there has changed.
    """
    path = request.file.path
    run = UnfinishedRun(path)
    try:
        run.lock()
        try:
            return _open_locked(request, run)
        except BaseException:
            run.release()
            raise
    except OSError as error:
        raise StorageError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from None


def _open_locked(request: OutputRequest, run: UnfinishedRun) -> RowOutput:
    path = request.file.path
    if not request.overwrite:  # looked at again, now that no other run can write it
        check_out(str(path), overwrite=False, resume=request.resume)
    if request.resume and run.exists:
        record = read_record(run.record)
        if record is None:
            raise UsageError(f"--resume: {run.record} cannot be read; start anew with --overwrite")
        check_same_run(record, request.settings, path)
        kept = check_rows(
            read_journal(run.rows), request.names, block=request.block, where=str(path), threads=request.threads
        )
        return FileOutput(request, run, kept)
    if request.resume and path.exists():
        return _continue_finished(request, run)
    _start(request, run)
    return FileOutput(request, run, KeptRows(0, 0, 0, request.names, complete=False))


def _start(request: OutputRequest, run: UnfinishedRun) -> None:
    run.clear()
    RunRecord(request.settings, request.images).write(run.record)
    run.rows.touch()


def _continue_finished(request: OutputRequest, run: UnfinishedRun) -> RowOutput:
    """Continues a finished file with the images that have come behind its own."""
    path = request.file.path
    record = read_record(record_path(path))
    if record is None:
        raise UsageError(
            f"--resume: {path} has no readable {record_path(path).name} beside it, which says what run wrote it; "
            "start anew with --overwrite, or choose another name"
        )
    check_same_run(record, request.settings, path)
    if record.size != path.stat().st_size:
        raise UsageError(
            f"--resume: {path} has changed since its run finished; start anew with --overwrite, or choose another name"
        )
    # The journal gets the names of the input: Parquet holds those that are not UTF-8 in another spelling.
    kept = check_rows(
        ((row, 0) for row in _read_finished(request)),
        request.names,
        block=request.block,
        where=str(path),
        threads=request.threads,
        spell=show_bytes if request.file.format == ".parquet" else str,
    )
    if kept.complete:
        run.release()
        return CompleteOutput(kept)
    _start(request, run)
    journal = JournalWriter(run.rows)
    for index, row in enumerate(islice(_read_finished(request), kept.rows)):
        journal.write([row | {"file": kept.respelled.get(index, row["file"])}])
    journal.close()
    return FileOutput(request, run, replace(kept, size=run.rows.stat().st_size))


def _read_finished(request: OutputRequest) -> Iterator[Row]:
    return read_finished_rows(request.file.path, request.file.format, flat_columns(request.file))
