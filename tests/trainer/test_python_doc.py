"""The page on one's own model: its code runs, and it names all that the model can do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from probrt.trainer.keras_model import BayesianModel

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
# What Keras calls.
_HOOKS = {"train_step", "test_step"}


@pytest.mark.slow
def test_the_code_runs_from_arrays_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    exec(compile(code, "docs/python.md", "exec"), {})
    assert (tmp_path / "artifacts" / "digits" / "1" / "probrt.json").is_file()


def test_the_page_has_every_method() -> None:
    for name in vars(BayesianModel):
        if not name.startswith("_") and name not in _HOOKS:
            assert f"| `{name}" in PAGE, name
