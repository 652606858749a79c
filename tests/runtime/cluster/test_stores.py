"""Images and shards in an object store: fsspec's own store in memory, and one that answers half of a file."""

from pathlib import Path
from typing import Any

import pytest

from probrt.runtime.cluster.folder import ShardFolder
from probrt.runtime.cluster.stores import TRIES, find_stored_images, read_anywhere
from probrt.runtime.errors import ImageError, InputError, MissingError, StorageError, UsageError
from probrt.runtime.images.inputs import SkippedFiles, find_images

pytestmark = pytest.mark.stress


def list_names(*names: str, recursive: bool = True) -> list[str]:
    return list(find_stored_images(names, SkippedFiles(), recursive=recursive))


def test_a_folder_has_the_images_of_the_local_one(store: Any, pictures: Path) -> None:
    skipped = SkippedFiles()
    names = list(find_stored_images(["memory://bucket"], skipped))
    local = list(find_images([str(pictures)], SkippedFiles()))
    assert [name.removeprefix("memory:///bucket/") for name in names] == [
        name.removeprefix(f"{pictures}/") for name in local
    ]
    assert skipped.suffixes == {".csv": 1}
    assert [read_anywhere(name) for name in names] == [read_anywhere(name) for name in local]


def test_globs_files_and_folders(store: Any, pictures: Path) -> None:
    assert len(list_names("memory://bucket/0*.png")) == 10
    assert list_names("memory://bucket/03.png", str(pictures / "04.png")) == [
        "memory://bucket/03.png",
        str(pictures / "04.png"),
    ]
    assert len(list_names("memory://bucket", recursive=False)) == 15


@pytest.mark.parametrize("name", ["memory://bucket/no.png", "memory://no", "memory://bucket/metadata.csv"])
def test_what_is_no_image_is_refused(store: Any, name: str) -> None:
    with pytest.raises(InputError, match=name):
        list_names(name)


def test_stores_without_a_driver(store: Any) -> None:
    with pytest.raises(MissingError, match="s3://"):
        list_names("s3://bucket/a.png")
    with pytest.raises(UsageError, match="nowhere"):
        list_names("nowhere://bucket/a.png")


def test_half_a_file_is_an_error_row(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = type(store).cat_file, []

    def half(self: Any, path: str, *more: Any, **options: Any) -> bytes:
        asked.append(path)
        data = whole(self, path, *more, **options)
        return data[: len(data) // 2] if len(asked) <= broken else data

    monkeypatch.setattr(type(store), "cat_file", half)
    broken = TRIES
    with pytest.raises(ImageError, match=r"the store answers \d+ of \d+ bytes"):
        read_anywhere("memory://bucket/00.png")
    assert len(asked) == TRIES
    asked.clear()
    broken = TRIES - 1
    assert read_anywhere("memory://bucket/00.png").startswith(b"\x89PNG")
    with pytest.raises(ImageError, match="no such file"):
        read_anywhere("memory://bucket/no.png")


def test_half_a_shard_is_a_fault(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ShardFolder("memory://rows")
    folder.write("part-000000.parquet", b"0123456789")
    assert folder.read("part-000000.parquet") == b"0123456789"
    assert folder.read("part-000001.parquet") is None
    assert folder.list_files() == ["part-000000.parquet"]
    put = type(store).pipe_file
    monkeypatch.setattr(type(store), "pipe_file", lambda self, path, data: put(self, path, data[:4]))
    with pytest.raises(StorageError, match="took 4 of 10 bytes"):
        folder.write("part-000001.parquet", b"0123456789")
