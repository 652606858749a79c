"""Shards cover the images once and in order; without the extra, `--ray` is one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.cluster.shards import cut_shards, round_up
from probrt.runtime.images.inputs import SkippedFiles, find_images


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_shards_hold_every_image_once(count: int) -> None:
    names = [f"{index}.png" for index in range(count)]
    shards = list(cut_shards(iter(names), 4))
    assert [name for shard in shards for name in shard.names] == names
    assert [shard.first for shard in shards] == [4 * index for index in range(len(shards))]
    assert len({shard.file for shard in shards}) == len({shard.digest for shard in shards}) == len(shards)


def test_shards_are_whole_blocks() -> None:
    assert [round_up(size, 64) for size in (1, 64, 65, 2048)] == [64, 64, 128, 2048]


def test_names_are_read_one_shard_ahead_only() -> None:
    taken = []
    shards = cut_shards((taken.append(name) or name for name in map(str, range(100))), 10)
    next(shards)
    assert len(taken) == 10


def test_addresses_in_a_list_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\ns3://bucket/b.png\n")
    names = list(find_images([str(tmp_path / "list.txt")], SkippedFiles()))
    assert names == [f"{tmp_path}/a.png", "s3://bucket/b.png"]


@pytest.mark.parametrize("module", ["ray", "fsspec"])
def test_without_the_extra(
    called: Callable[..., Any],
    bundle: Bundle,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = called(
        "predict", pictures, "--bundle", bundle.path, "--ray", "local", "--out", "rows", "--maps", "none", cwd=tmp_path
    )
    assert done.code == 2
    assert "pip install 'probrt[ray]'" in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", 2], "only with --ray"),
        (["--shard-size", 64], "only with --ray"),
        (["--ray", "local"], "name a folder"),
        (["--ray", "local", "--out", "rows.csv"], "name a folder"),
    ],
)
def test_refusals(
    called: Callable[..., Any],
    bundle: Bundle,
    pictures: Path,
    tmp_path: Path,
    words: list[object],
    message: str,
) -> None:
    done = called("predict", pictures, "--bundle", bundle.path, *words, cwd=tmp_path)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
