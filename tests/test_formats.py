"""The table of formats: what the options accept, what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from probrt.exporter.formats import FORMATS, KINDS, VARIANTS, chosen, graph_files
from probrt.runtime.errors import UsageError


def test_lists_are_read_in_the_order_of_the_table() -> None:
    assert chosen("onnx, savedmodel", FORMATS, "--formats") == ("savedmodel", "onnx")
    with pytest.raises(UsageError, match="--formats tflight: choose from savedmodel, tflite, onnx"):
        chosen("tflight", FORMATS, "--formats")
    with pytest.raises(UsageError, match="choose from"):
        chosen(",", FORMATS, "--formats")


def test_which_files_a_choice_means() -> None:
    names = {graph.name(0 if graph.variant == "draws" else None) for graph in graph_files(
        FORMATS, ("float32", "float16", "int8"), VARIANTS, VARIANTS)}  # fmt: skip
    stems = ("mean", "mean.fp16", "mean.int8", "draws-00", "draws-00.fp16", "sampled")
    assert names == {f"{stem}.{format}" for stem in stems for format in ("tflite", "onnx")}
    with pytest.raises(UsageError, match="nothing to write; this model has mean, draws"):
        graph_files(("onnx",), ("int8",), ("draws",), ("mean", "draws"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.precision)
def test_the_page_has_the_table(root: Path, kind: object) -> None:
    line = next(
        line for line in (root / "docs/export.md").read_text().splitlines() if line.startswith(f"| `{kind.precision}`")
    )
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1].split(", ") == list(kind.variants)
    assert cells[2] == ", ".join(f"`{kind.suffix}.{format}`" for format in ("tflite", "onnx"))
    assert [float(cell) for cell in cells[3:5]] == [kind.tolerance, kind.ranking]
    assert cells[5] == kind.meaning
