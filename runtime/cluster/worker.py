"""One worker of a run on many machines: predicts a shard and writes its file. It needs no cluster to run in."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME, Input
from probrt.runtime.cluster.folder import MAPS, ShardFolder
from probrt.runtime.cluster.shards import Shard, ShardRecord
from probrt.runtime.cluster.stores import read_anywhere
from probrt.runtime.errors import ImageError
from probrt.runtime.files import write_whole
from probrt.runtime.hush import hush_libraries
from probrt.runtime.images.inputs import is_url
from probrt.runtime.images.loader import LoadedImage, Reader, load_image
from probrt.runtime.predict.choose import PredictRequest, choose
from probrt.runtime.predict.draw_policy import AdaptiveDraws, DrawPolicy, FixedDraws, parse_tolerances
from probrt.runtime.predict.predictor import Predictor, best_batch
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.novelty import choose_novelty
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.pipeline import RowMaker, Run, predict_files
from probrt.runtime.rows.review import choose_review
from probrt.runtime.rows.writers import RowsFile, flat_columns, write_parquet

_KEY = "probrt.shard"
# Threads that read from a store, most of the time waiting for it.
READERS = 32


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker of a run does alike.

    cwd: the working directory of the command, where relative names begin.
    bundle: its folder on the machine that started the run. manifest: SHA-256 of the bundle's manifest. out: the folder
    of the shards. run: a digest of all settings that rows depend on. resume: whether finished shards are kept. The
    rest is as `PredictOptions` has it.
    """

    bundle: Path
    manifest: str
    out: str
    run: str
    request: PredictRequest
    batch_size: int
    threads: int = 1
    tolerance: str = ""
    unknown: str | None = None
    max_risk: float | None = None
    coverage: float | None = None
    conformal: str | None = None
    maps: str = "none"
    overlay: bool = False
    resume: bool = False
    cwd: str = "."


def make_job(bundle: Bundle, out: str, run: str, request: PredictRequest = PredictRequest(), threads: int = 1) -> Job:
    """Returns the job of a run without Ray, as in a pipeline of Beam or Spark.

    run: what tells its settings from those of other runs, for `resume`.
    """
    return Job(
        bundle=bundle.path.absolute(),
        manifest=hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest(),
        out=out,
        run=run,
        request=request,
        batch_size=best_batch(bundle.manifest.input.shape),
        threads=threads,
    )


class ShardWorker:
    """Predicts shards, one after another, with a predictor that it loads at the first.

    files: the bundle's files by their paths, for a machine that does not have the bundle's folder.
    """

    def __init__(self, job: Job, files: Mapping[str, bytes]) -> None:
        self._job = job
        self._files = files
        self._folder = ShardFolder(job.out)

    def predict(self, shard: Shard) -> ShardRecord:
        """Writes the file of a shard, unless it is there already, and returns what is known of it.

        Images that cannot be read become error rows. Raises the other faults of a run.
        """
        with hush_libraries():
            kept = self._find_kept(shard) if self._job.resume else None
            return kept or self._predict(shard)

    @functools.cached_property
    def _bundle(self) -> Bundle:
        job = self._job
        copy = Path(tempfile.gettempdir()) / f"probrt-bundle-{job.manifest[:16]}"
        if not _is_bundle(job.bundle, job.manifest) and not _is_bundle(copy, job.manifest):
            copy_files(self._files, copy)
        return Bundle.open(job.bundle if _is_bundle(job.bundle, job.manifest) else copy)

    @functools.cached_property
    def _predictor(self) -> Predictor:
        job = self._job
        predictor = Predictor(self._bundle, choose(self._bundle, job.request), job.batch_size, job.threads)
        predictor.load()
        return predictor

    @functools.cached_property
    def _answering(self) -> DrawPolicy:
        if not self._job.tolerance:
            return FixedDraws(self._predictor)
        return AdaptiveDraws(self._predictor, parse_tolerances(self._job.tolerance, self._bundle.manifest))

    def _predict(self, shard: Shard) -> ShardRecord:
        job, bundle, predictor = self._job, self._bundle, self._predictor
        novelty = choose_novelty(bundle.manifest, job.unknown)
        review = None if job.max_risk is None else choose_review(bundle.manifest, job.max_risk, predictor.plan.samples)
        maps = None
        if self._folder.local is not None and job.maps != "none":
            maps = MapFolder(self._folder.local / MAPS, job.maps, job.overlay)
        rows: list[Row] = []
        maker = RowMaker(
            bundle=bundle,
            plan=predictor.plan,
            thresholds=choose_thresholds(bundle.manifest, job.coverage, job.conformal),
            maps=maps,
            novelty=novelty,
            review=review,
            first=shard.first,
        )
        tally = predict_files(
            Run(
                names=iter(shard.names),
                predictor=predictor,
                answering=self._answering,
                rows=maker,
                write=rows.extend,
                on_rows=lambda rows: None,
                open_reader=open_store_reader,
                more=True,
                readers=max(READERS, job.threads) if any(map(is_url, shard.names)) else None,
            )
        )
        counts = {"rows": tally.rows, "errors": tally.errors, "unknown": tally.unknown, "review": tally.review}
        file = RowsFile(
            path=Path(shard.file),
            format=".parquet",
            manifest=bundle.manifest,
            novelty=novelty,
            review=review is not None,
            maps=maps,
        )
        stream = io.BytesIO()
        metadata = {_KEY: json.dumps({"run": job.run, "names": shard.digest, **counts})}
        write_parquet(stream, iter(rows), flat_columns(file), metadata)
        data = stream.getvalue()
        self._folder.write(shard.file, data)
        return _describe(shard, counts, data)

    def _find_kept(self, shard: Shard) -> ShardRecord | None:
        """Returns the record of a shard that an earlier run has written, if its images are still the same."""
        data = self._folder.read(shard.file)
        if data is None:
            return None
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(io.BytesIO(data))
            written = json.loads((table.schema_arrow.metadata or {})[_KEY.encode()])
            digests = table.read(columns=["sha256"])["sha256"].to_pylist()
            counts = {name: int(written[name]) for name in ("rows", "errors", "unknown", "review")}
            same = written["run"] == self._job.run and written["names"] == shard.digest
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            return None  # damaged, or not of this program
        if not same or digests != [_compute_digest(name) for name in shard.names]:
            return None
        return _describe(shard, counts, data, kept=True)


def _is_bundle(folder: Path, digest: str) -> bool:
    """Whether a folder holds the bundle with this manifest; its digests vouch for the rest."""
    manifest = folder / NAME
    return manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() == digest


def copy_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes files into a new folder that appears as a whole: all workers of a machine share it, and later runs too."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    for name, data in files.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(scratch / name, data)
    try:
        scratch.rename(folder)
    except OSError:  # another worker was faster
        shutil.rmtree(scratch)


def _describe(shard: Shard, counts: Mapping[str, int], data: bytes, *, kept: bool = False) -> ShardRecord:
    return ShardRecord(
        index=shard.index,
        first=shard.first,
        file=shard.file,
        **counts,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        kept=kept,
    )


def _compute_digest(name: str) -> str | None:
    try:
        return hashlib.sha256(read_anywhere(name)).hexdigest()
    except (ImageError, MemoryError):
        return None


@contextlib.contextmanager
def open_store_reader(input: Input) -> Iterator[Reader]:
    """Opens a reader of local files and of addresses, which decodes in the thread that calls it."""

    def read(index: int, name: str, reserve: Callable[[int], None]) -> LoadedImage:
        return load_image(index, name, input, reserve, read_anywhere)

    yield read


def digest_run(settings: Mapping[str, object]) -> str:
    """Returns a digest of the settings of a run, which each shard keeps."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
