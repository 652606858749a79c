"""Functions by name, from a folder or installed."""

import sys
from pathlib import Path

import pytest

from probrt.runtime.functions import load_function


def test_a_function_is_loaded_from_a_folder_and_the_search_path_stays(tmp_path: Path) -> None:
    (tmp_path / "module_of_a_test.py").write_text("def answer():\n    return 42\n")
    before = list(sys.path)
    assert load_function("module_of_a_test:answer", tmp_path)() == 42
    with pytest.raises(ModuleNotFoundError):
        load_function("no_such_module:answer", tmp_path)
    assert sys.path == before
    assert load_function("json:loads")("1") == 1


@pytest.mark.parametrize(
    ("name", "error"), [("json:fly", AttributeError), ("nowhere_at_all:x", ImportError), (":x", ValueError)]
)
def test_what_is_not_there_is_an_error(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        load_function(name)
