"""What all tests share: quiet engines, one exported bundle per conformance case."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cases import BY_NAME, Case, Exported, exported

from probrt.runtime import cli


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    """The case that the test is parametrised with, by name."""
    return BY_NAME[request.param]


_EXPORTED: dict[str, Exported] = {}


@pytest.fixture(scope="module")
def bundle(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The case saved, loaded again and exported, once for all modules."""
    if case.name not in _EXPORTED:
        _EXPORTED[case.name] = exported(case, tmp_path_factory.mktemp(case.name))
    return _EXPORTED[case.name]


@dataclass(frozen=True)
class Called:
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Runs `probrt` with some words in a folder, in this process: TensorFlow need not start for every refusal."""

    def call(*words: object, cwd: Path) -> Called:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        code = cli.call([str(word) for word in words])
        return Called(code, *capsys.readouterr())

    return call


@pytest.fixture
def root() -> Path:
    """The repository's root."""
    return Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one case go to one worker, which exports it once; the runtime's, all short, come last.

    So no worker waits at the end for another's long one.
    """
    items.sort(key=lambda item: "runtime" in item.path.parts)
    for item in items:
        found = getattr(item, "callspec", None)
        if found is not None and "case" in found.params:
            item.add_marker(pytest.mark.xdist_group(found.params["case"]))
