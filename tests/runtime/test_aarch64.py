"""The wheel and its base dependencies on aarch64, emulated by qemu: the same rows as on this machine.

Needs `qemu-aarch64-static` (Debian's qemu-user-static), `apt-get` for an aarch64 Python, and a package index.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle

TOP = Path(__file__).parents[2]
QEMU = shutil.which("qemu-aarch64-static")
PYTHON = f"python3.{sys.version_info.minor}"
LIBRARIES = ["libc6", "zlib1g", "libexpat1", "libssl3", "libffi8", "libgcc-s1", "libstdc++6", "libbz2-1.0", "liblzma5"]
# LiteRT reads the processor there, and stops at the host's: one Cortex-A72 takes its place.
PROCESSOR = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


def run(words: Sequence[object], **settings: Any) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, f"{words[0]}: {done.stderr[-2000:]}"


def unpack_system(root: Path, scratch: Path) -> None:
    """Unpacks an aarch64 Python and its libraries into `root`."""
    options = ["-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64", "-o", "Dir::State::status=/dev/null"]
    options += ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
    options += ["-o", "APT::Sandbox::User=root"]
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (scratch / folder).mkdir(parents=True)
    run(["apt-get", *options, "-qq", "update"])
    names = [f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib", *LIBRARIES]
    run(["apt-get", *options, "-qq", "download", *names], cwd=scratch / "debs")
    for package in (scratch / "debs").iterdir():
        run(["dpkg", "-x", package, root])
    processors = root / "sys" / "devices" / "system" / "cpu"
    processors.mkdir(parents=True)
    for name in ("possible", "present"):
        (processors / name).write_text("0\n")
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(PROCESSOR)


def unpack_site(folder: Path, scratch: Path) -> None:
    """Unpacks the wheel of this tree, and the aarch64 wheels that a bare install of it needs, into `folder`."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    tree = scratch / "tree"  # a copy: building leaves folders behind
    for name in ("runtime", "trainer", "exporter"):
        shutil.copytree(TOP / name, tree / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, tree)
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", scratch / "wheel", tree])
    (wheel,) = (scratch / "wheel").iterdir()
    platforms = [word for tag in ("2_17", "2_27", "2_28") for word in ("--platform", f"manylinux_{tag}_aarch64")]
    platforms += ["--platform", "manylinux2014_aarch64", "--python-version", f"3.{sys.version_info.minor}"]
    run([*pip, "download", "--only-binary=:all:", *platforms, "-d", scratch / "wheels", wheel])
    for path in (scratch / "wheels").glob("*.whl"):
        zipfile.ZipFile(path).extractall(folder)


@pytest.mark.stress
@pytest.mark.skipif(QEMU is None or shutil.which("apt-get") is None, reason="needs qemu-user-static and apt-get")
def test_aarch64_gives_the_rows_of_this_machine(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    unpack_system(tmp_path / "root", tmp_path / "apt")
    unpack_site(tmp_path / "site", tmp_path / "pip")
    words = ["predict", pictures, "--bundle", bundle.path, "--engine", "litert", "--quiet", "--out"]
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert cli.call([str(word) for word in (*words, here)]) == 0
    code = "import platform; assert platform.machine() == 'aarch64'; from probrt.runtime.cli import main; main()"
    python = [tmp_path / "root" / "usr" / "bin" / PYTHON, "-c", code]
    paths = {"PYTHONHOME": str(tmp_path / "root" / "usr"), "PYTHONPATH": str(tmp_path / "site")}
    emulator = [str(QEMU), "-cpu", "cortex-a72", "-L", tmp_path / "root"]
    run([*emulator, *python, *words, there], env=os.environ | paths)
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (here, there)]
    assert len(rows[0]) == 20
    for ours, theirs in zip(*rows, strict=True):
        assert (ours["file"], ours["sha256"], ours["draws"]) == (theirs["file"], theirs["sha256"], theirs["draws"])
        shape, other = ours["heads"]["shape"], theirs["heads"]["shape"]
        # The tolerance between any two engines.
        assert other["mean"] == pytest.approx(shape["mean"], abs=1e-4)
        assert (other["label"], other["set"]) == (shape["label"], shape["set"])
        for quantity in ("mean", "total", "epistemic"):
            assert theirs["heads"]["slant"][quantity] == pytest.approx(ours["heads"]["slant"][quantity], abs=1e-4)
