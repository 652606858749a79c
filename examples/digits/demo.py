"""Runs the whole path on real digits: data, `probrt train`, `export`, `predict` with every engine, and scores.

    python examples/digits/demo.py

Run it from the root of the repository, or with `make demo`. It prints each command before it runs it, as a person would
type it. It writes to demo/, to artifacts/digits and to data/ beside this file.
"""

import importlib.util
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path("examples/digits")
DATA = HERE / "data"
OUT = Path("demo")
ENGINES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "openvino": "openvino", "tensorflow": "tensorflow"}


def run(*words: str | Path) -> float:
    """Prints and runs a command of this environment and returns its seconds. Ends the demo if the command fails."""
    line = shlex.join(str(word) for word in words)
    print(f"\n$ {line}", flush=True)
    program = Path(sys.executable).parent / str(words[0])
    start = time.monotonic()
    code = subprocess.run([program, *words[1:]], check=False).returncode
    if code:
        sys.exit(f"demo: `{line}` ended with exit code {code}")
    return time.monotonic() - start


def main() -> None:
    """Runs all commands of the demo and prints the total time."""
    start = time.monotonic()
    OUT.mkdir(exist_ok=True)
    run("python", HERE / "prepare.py")
    run("probrt", "train", HERE / "config.toml", "--out", OUT / "model", "--overwrite")
    run("probrt", "export", OUT / "model")
    seconds = {}
    for engine, package in ENGINES.items():
        if importlib.util.find_spec(package) is None:
            continue
        for folder in ("test", "shifted"):
            rows = OUT / f"{folder}.{engine}.jsonl"
            seconds[engine, folder] = run(
                *("probrt", "predict", "--samples", "32", "--bundle", "artifacts/digits", "--engine", engine),
                *("--out", rows, "--overwrite", DATA / folder),
            )
    timings = [f"{engine}={duration:.2f}" for (engine, folder), duration in seconds.items() if folder == "test"]
    run("python", HERE / "score.py", OUT, *timings)
    print(f"\nthe whole path took {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
