"""Graphs of a bundle that nobody vouches for run in a process of their own first: they cost a line and no hang."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import endless_graphs
import msgspec
import pytest
from shapes import GOLDEN, write_manifest

from probrt.runtime import cli
from probrt.runtime.bundle import passed_files
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines import BUILT_IN
from probrt.runtime.errors import BundleError
from probrt.runtime.predict import trial
from probrt.runtime.predict.predictor import load_predictor

LITERT = next(engine for engine in BUILT_IN if engine.name == "litert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty memory of passed trials."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "probrt"


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Makes a bundle of the mean alone, in TFLite and ONNX; one of the files may have another content."""

    def make(name: str = "", content: bytes = b"", **changes: Any) -> Bundle:
        folder = tmp_path / "shapes" / "1"
        folder.mkdir(parents=True)
        for file in ("mean.tflite", "mean.onnx"):
            shutil.copy(GOLDEN / "shapes" / "1" / file, folder)
        if name:
            (folder / name).write_bytes(content)
        return write_manifest(folder, **changes)

    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started."""
    processes: list[Any] = []
    start = subprocess.Popen

    def record(*words: Any, **options: Any) -> Any:
        processes.append(start(*words, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    return processes


ENDLESS = [
    ("litert", "mean.tflite", endless_graphs.endless_tflite),
    ("onnxruntime", "mean.onnx", endless_graphs.endless_onnx),
]


@pytest.mark.parametrize(("engine", "name", "make_content"), ENDLESS)
def test_a_graph_without_an_end_is_refused(
    make_bundle: Callable[..., Bundle],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
    name: str,
    make_content: Callable[[], bytes],
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 1)
    bundle = make_bundle(name, make_content())
    rows = tmp_path / "p.jsonl"
    words = ["predict", pictures, "--bundle", bundle.path, "--engine", engine, "--out", rows, "--quiet"]
    for command in (words, ["verify", bundle.path]):
        assert cli.call([str(word) for word in command]) == 2
        message = f"probrt: {name}: does not come to an end within 1 s; export the bundle again\n"
        assert capsys.readouterr().err == message
    assert not rows.exists()


def test_a_graph_that_eats_memory_is_refused(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle("mean.onnx", endless_graphs.greedy_onnx())
    with pytest.raises(BundleError, match=r"^mean\.onnx: cannot be run: .*ConstantOfShape"):
        load_predictor(bundle, engine="onnxruntime")


def test_a_file_that_is_no_graph_is_refused(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle("mean.tflite", b"no graph")
    with pytest.raises(BundleError, match=r"^mean\.tflite: cannot be loaded: "):
        load_predictor(bundle, engine="litert")


def changed_heads(bundle: Bundle, outputs: dict[str, Any]) -> list[Any]:
    head = bundle.manifest.heads[1]
    changed = msgspec.structs.replace(head, outputs=outputs, labels=["slant"] * (outputs["mean"] or [1])[-1])
    return [bundle.manifest.heads[0], changed, bundle.manifest.heads[2]]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"mean": [2], "aleatoric": [1]}, r"answers slant\.mean of shape \[1, 1\], the manifest states \[1, 2\]"),
        ({"mean": [1, 1], "aleatoric": [1]}, r"answers slant\.mean of shape \[1, 1\], the manifest states \[1, 1, 1\]"),
        ({"mean": [1], "aleatoric": [1], "width": [1]}, r"does not answer slant\.width, which the manifest states"),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_answers_that_the_manifest_does_not_state_are_refused(
    bundle: Bundle, make_bundle: Callable[..., Bundle], outputs: dict[str, Any], message: str, signed: bool
) -> None:
    """Whether the graph is tried first, or the bundle is trusted and its first answer is looked at."""
    changed = make_bundle(heads=changed_heads(bundle, outputs))
    if signed:
        trial.trust_files(changed)
    with pytest.raises(BundleError, match=rf"^mean\.tflite: {message.replace('[1, ', '[[0-9]+, ')}"):
        load_predictor(changed, engine="litert")(make_images())


def make_images() -> Any:
    import numpy as np

    return np.zeros((1, 12, 12, 1), np.float32)


def test_a_file_is_tried_once(make_bundle: Callable[..., Bundle], cache: Path, started: list[Any]) -> None:
    bundle = make_bundle()
    for _ in range(2):
        load_predictor(bundle, engine="litert")
        assert len(started) == 1
    load_predictor(bundle, engine="onnxruntime")
    assert len(started) == 2
    assert (cache.stat().st_mode & 0o777, (cache / "passed").stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_file_that_failed_is_tried_again(make_bundle: Callable[..., Bundle], started: list[Any]) -> None:
    bundle = make_bundle("mean.tflite", b"no graph")
    for count in (1, 2):
        with pytest.raises(BundleError, match="cannot be loaded"):
            load_predictor(bundle, engine="litert")
        assert len(started) == count


def test_a_trusted_bundle_is_not_tried(make_bundle: Callable[..., Bundle], started: list[Any]) -> None:
    bundle = make_bundle()
    trial.trust_files(bundle)
    load_predictor(bundle, engine="litert")
    assert cli.call(["verify", str(bundle.path)]) == 0
    assert not started


@pytest.mark.parametrize("harm", ["open folder", "open file", "link", "folder", "no home", "file for a folder"])
def test_an_unsafe_memory_is_not_used(
    make_bundle: Callable[..., Bundle], cache: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    bundle = make_bundle()
    trial.trust_files(bundle)
    if harm == "open folder":
        cache.chmod(0o777)
    elif harm == "open file":
        (cache / "passed").chmod(0o622)
    elif harm == "link":
        (cache / "passed").rename(cache / "elsewhere")
        (cache / "passed").symlink_to(cache / "elsewhere")
    elif harm == "folder":
        (cache / "passed").unlink()
        (cache / "passed").mkdir()
    elif harm == "no home":
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setenv("HOME", "/proc/nothing")
    else:
        shutil.rmtree(cache)
        cache.write_text("")
    for count in (1, 2):
        load_predictor(bundle, engine="litert")
        assert len(started) == count


def test_the_memory_stays_small(cache: Path) -> None:
    for _ in range(3):
        passed_files.remember_passed("0" * 63 + "1" for _ in range(9000))
    assert (cache / "passed").stat().st_size <= 1 << 20
    passed_files.remember_passed(["f" * 64])
    assert "f" * 64 in passed_files.read_passed()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("engine", "name", "make_content"), ENDLESS)
def test_a_signal_ends_a_run_inside_a_native_call(
    make_bundle: Callable[..., Bundle],
    pictures: Path,
    tmp_path: Path,
    engine: str,
    name: str,
    make_content: Callable[[], bytes],
    number: signal.Signals,
) -> None:
    """A graph may pass its trial and loop on other images: here the trial is left out."""
    bundle = make_bundle(name, make_content())
    trial.trust_files(bundle)
    # A short grace, so that the test is short: what the command does after it is the same.
    code = (
        "import sys, time; from probrt.runtime.commands import stuck; stuck.GRACE = 1.0\n"
        "from probrt.runtime.cli import main; main()"
    )
    words = ["predict", pictures, "--bundle", bundle.path, "--engine", engine, "--out", tmp_path / "p.jsonl", "--quiet"]
    with subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, text=True) as process:
        wait_until_busy(process.pid, 4.0)
        process.send_signal(number)
        start = time.monotonic()
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert error == f"probrt: {word} inside a call that does not come to an end\n"
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    print(f"ended {time.monotonic() - start:.1f} s after the signal")


def wait_until_busy(pid: int, seconds: float) -> None:
    """Waits until a process has computed for some seconds, more than starting takes."""
    ticks = os.sysconf("SC_CLK_TCK")
    while sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) / ticks < seconds:
        time.sleep(0.1)


def test_a_graph_that_ends_its_process_is_refused(make_bundle: Callable[..., Bundle], started: list[Any]) -> None:
    bundle = make_bundle("mean.tflite", endless_graphs.endless_tflite())
    with trial.Trial(bundle, LITERT, trial.list_graphs(bundle, LITERT)) as tried:
        started[0].send_signal(signal.SIGSEGV)
        (fault,) = tried.find_faults()
    assert str(fault) == "mean.tflite: ends the process that runs it (SIGSEGV); export the bundle again"
