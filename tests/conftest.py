"""What all tests share: quiet engines, one exported bundle per conformance case."""

import ast
import os
import shutil
import signal
import tempfile

# A run in the background ignores SIGINT, and the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# What passed a trial is remembered here, and not in the home of whoever runs the tests.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="probrt-tests-")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cases import BY_NAME, Case
from exported_cases import ExportedCase, load_case
from rich.console import Console
from stress_table import collect_lines, print_lines, write_lines

from probrt.runtime import cli


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    """The case that the test is parametrised with, by name."""
    return BY_NAME[request.param]


pytest_plugins = ["pytester"]

_EXPORTED: dict[str, ExportedCase] = {}


@pytest.fixture(scope="module")
def bundle(case: Case) -> ExportedCase:
    """The case saved, loaded again and exported, once for all modules."""
    if case.name not in _EXPORTED:
        _EXPORTED[case.name] = load_case(case)
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


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Adds a line to the table that `make stress` prints: `measured(what was tried, what was measured)`."""

    def add(tried: str, result: str) -> None:
        record_property("measured", (tried, result))

    return add


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stress-table", metavar="PAGE", help="write the table of what was tried into this page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table of what was tried, and writes it into the page of `--stress-table`."""
    lines = collect_lines(terminalreporter.getreports("passed") + terminalreporter.getreports("failed"))
    if lines:
        print_lines(lines, Console(highlight=False))
        if page := config.getoption("--stress-table"):
            write_lines(lines, Path(page))


# A test module that imports one of these starts processes or exports models, which `make quick` leaves out.
_SLOW_IMPORTS = {"subprocess", "processes", "stopping", "exported_cases", "probrt.exporter.export"}


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the quick tests, groups those of one case, and orders them.

    Tests of one case go to one worker, which exports it once. The runtime's, all short, come last, so that no worker
    waits at the end for another's long one.
    """
    items.sort(key=lambda item: "runtime" in item.path.parts)
    slow_modules: dict[Path, bool] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        has_case = callspec is not None and "case" in callspec.params
        if callspec is not None and has_case:
            item.add_marker(pytest.mark.xdist_group(callspec.params["case"]))
        if item.path not in slow_modules:
            slow_modules[item.path] = bool(_imported_modules(item.path) & _SLOW_IMPORTS)
        if not (has_case or slow_modules[item.path] or item.get_closest_marker("slow")):
            item.add_marker(pytest.mark.quick)


def _imported_modules(path: Path) -> set[str]:
    """Returns the modules that a test file imports at its top."""
    modules: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules
