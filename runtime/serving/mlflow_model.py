"""The loader of a bundle for MLflow: a table of pictures in, a table with uncertainties out.

MLflow imports this module by the name in the file MLmodel and calls `_load_pyfunc`. Nothing here imports MLflow.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NOVELTY_MAP, HeadRecord, Input
from probrt.runtime.errors import InputError
from probrt.runtime.hush import hush_libraries
from probrt.runtime.images.loader import LoadedImage, Reader, load_image
from probrt.runtime.predict.draw_policy import FixedDraws
from probrt.runtime.predict.predictor import Predictor, load_predictor
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.kinds import Values
from probrt.runtime.rows.novelty import choose_novelty
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.pipeline import RowMaker, Run, predict_files
from probrt.runtime.rows.writers import flatten_row

COLUMN = "image"
# Columns of rows that say nothing of pictures without a name.
_LEFT_OUT = ("file", "sha256")


class ListedMaps:
    """Keeps the answers of per-position heads in the rows, as lists inside each other."""

    def save(
        self, head: HeadRecord, quantities: Mapping[str, Values], *, row: int, input: Input, image: LoadedImage
    ) -> dict[str, Any]:
        """Returns the quantities of one image as lists [positions..., outputs]."""
        del head, row, input, image
        return {name: values.tolist() for name, values in quantities.items()}

    def save_novelty(self, scores: Values, *, row: int, input: Input, image: LoadedImage) -> dict[str, Any]:
        """Returns the novelty of each position of one image as lists [height, width]."""
        del row, input, image
        return {NOVELTY_MAP: scores.tolist()}


class TableModel:
    """Answers tables of pictures with tables of rows, as `probrt predict` writes them."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._predictor(None, None).load()

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Returns a pandas DataFrame with one row per picture.

        model_input: a DataFrame with the column `image`, or a list: the bytes of files (PNG, JPEG, ... or .npy).
        params: `samples` and `seed`; None, or a name that is missing, means the bundle's own.
        A picture that cannot be read is a row with the status `error`. Raises InputError for another table.
        """
        import pandas as pd

        contents = _list_contents(model_input)
        given = params or {}
        with hush_libraries():
            predictor = self._predictor(given.get("samples"), given.get("seed"))
            rows = self._make_rows(predictor, contents)
        return pd.DataFrame([flatten_row(row) for row in rows], index=getattr(model_input, "index", None)).drop(
            columns=list(_LEFT_OUT)
        )

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one model lives as long as its server)
    def _predictor(self, samples: int | None, seed: int | None) -> Predictor:
        posterior = self._bundle.manifest.posterior
        if posterior is None:
            return load_predictor(self._bundle)
        return load_predictor(
            self._bundle,
            samples=None if samples is None else int(samples),
            seed=None if seed is None else int(seed),
        )

    def _make_rows(self, predictor: Predictor, contents: Sequence[bytes]) -> list[Row]:
        manifest = self._bundle.manifest
        rows: list[Row] = []
        maker = RowMaker(
            bundle=self._bundle,
            plan=predictor.plan,
            thresholds=choose_thresholds(manifest),
            maps=ListedMaps(),
            novelty=choose_novelty(manifest, None),
        )
        predict_files(
            Run(
                names=map(str, range(len(contents))),
                predictor=predictor,
                answering=FixedDraws(predictor),
                rows=maker,
                write=rows.extend,
                on_rows=lambda written: None,
                open_reader=_open_reader(contents),
                more=True,
            )
        )
        return rows


def _open_reader(contents: Sequence[bytes]) -> Callable[[Input], AbstractContextManager[Reader]]:
    """Returns what opens a reader of pictures in memory, whose names are their positions."""

    @contextlib.contextmanager
    def open_reader(input: Input) -> Iterator[Reader]:
        yield lambda index, name, reserve: load_image(index, name, input, reserve, lambda name: contents[int(name)])

    return open_reader


def _list_contents(model_input: Any) -> list[bytes]:
    columns = getattr(model_input, "columns", None)
    if columns is not None:
        if COLUMN not in columns:
            raise InputError(f"the table has no column {COLUMN}, the bytes of picture files; it has {list(columns)}")
        model_input = model_input[COLUMN]
    contents = list(model_input)
    wrong = next((type(item).__name__ for item in contents if not isinstance(item, (bytes, bytearray))), None)
    if wrong is not None:
        raise InputError(f"column {COLUMN}: holds {wrong}, not the bytes of picture files")
    return [bytes(content) for content in contents]


def _load_pyfunc(path: str) -> TableModel:
    """Opens the bundle in a folder; MLflow calls this."""
    return TableModel(Bundle.open(Path(path)))
