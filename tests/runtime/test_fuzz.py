"""Damaged files of every kind that the runtime reads: each is read or refused. `make fuzz` searches for longer."""

import contextlib
import json
import multiprocessing
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import measure_peak
from fuzz import FINDINGS, GREY, TARGETS, VOLUME, make_images, mutate, try_file

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import read_image
from probrt.runtime.images.loader import load_image

FILES = {"images": 200, "manifest": 60, "vetting": 20, "rows": 60}


@pytest.mark.parametrize("name", list(TARGETS))
def test_seeds_findings_and_mutations_are_read_or_refused(name: str) -> None:
    target, rng = TARGETS[name], random.Random(17)
    seeds = target.make_seeds()
    assert seeds
    findings = [path.read_bytes() for path in sorted((FINDINGS / name).glob("*"))]
    mutated = [mutate(seeds, rng) for _ in range(FILES[name])]
    for data in (*seeds, *findings, *mutated):
        assert not try_file(target, data)


@pytest.mark.stress
@pytest.mark.slow
def test_20000_damaged_images(bundle: Bundle, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    """One row each, none over 5 s, growth under 250 MB."""
    rng, seeds = random.Random(23), make_images()
    for i in range(20_000):
        (tmp_path / f"{i:05}.png").write_bytes(mutate(seeds, rng))
    names = sorted(str(path) for path in tmp_path.iterdir())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        slowest, growth, refused = pool.apply(read_all, (names,))
        rows = tmp_path.parent / "rows.jsonl"
        words = ["predict", "--bundle", str(bundle.path), "--engine", "litert", "--quiet", "--maps", "none"]
        assert pool.apply(cli.call, ([*words, "--out", str(rows), str(tmp_path)],)) == 1
    written = [json.loads(line)["file"] for line in rows.read_text().splitlines()]
    measured("20,000 damaged images", f"{refused} refused, slowest {slowest:.2f} s, growth {growth:.0f} MB")
    assert written == names
    assert slowest < 5
    assert growth < 250


def read_all(names: list[str]) -> tuple[float, float, int]:
    """Returns the seconds of the slowest file, the growth of the memory in MB, and how many files are refused."""
    slowest, refused = 0.0, 0
    load_image(0, names[0], GREY)
    with measure_peak() as cost:
        for index, name in enumerate(names):
            begin = time.perf_counter()
            refused += bool(load_image(index, name, GREY).error)
            slowest = max(slowest, time.perf_counter() - begin)
    return slowest, cost.growth, refused


class _Payload:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('pickled code ran')",)


def test_reading_an_image_runs_no_code_of_it(tmp_path: Path) -> None:
    """An audit hook sees every name that is unpickled, every code object that is loaded or executed, every import."""
    array = np.array([_Payload()], dtype=object)
    np.save(tmp_path / "payload.npy", array, allow_pickle=True)
    (tmp_path / "payload.pickle").write_bytes(pickle.dumps(_Payload()))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        events = pool.apply(read_under_audit, (sorted(str(path) for path in tmp_path.iterdir()),))
    assert events == []


def read_under_audit(names: list[str]) -> list[str]:
    """Reads all seeds and files twice, the second time under the hook: the first imports Pillow's plug-ins."""
    events: list[str] = []
    # Not "compile": NumPy parses the header of an array as a literal, which runs nothing.
    watched = ("pickle.find_class", "marshal.loads", "exec", "import", "subprocess.Popen", "socket.connect")
    files = [*make_images(), *(Path(name).read_bytes() for name in names)]
    for audited in (False, True):
        if audited:
            sys.addaudithook(lambda event, _: events.append(event) if event in watched else None)
        for data in files:
            for input in (GREY, VOLUME):
                try_reading(data, input)
    return list(events)


def try_reading(data: bytes, input: Input) -> None:
    with contextlib.suppress(ImageError):
        read_image(data, input)


@pytest.mark.stress
def test_the_tests_of_images_pass_without_a_network(root: Path, measured: Callable[[str, str], None]) -> None:
    """A network namespace of its own has no device but an idle loopback."""
    probe = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("namespaces cannot be made here")
    tests = ["tests/runtime/images", "tests/runtime/bundle", "tests/runtime/rows", "tests/runtime/predict"]
    command = ["unshare", "-rn", sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not stress"]
    done = subprocess.run([*command, *tests], cwd=root, capture_output=True, text=True, check=False)
    measured("tests of the runtime without a network", done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-2000:]
