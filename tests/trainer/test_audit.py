"""Python's own audit events show that loading runs nothing which a file brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "format-1"

AUDITED = """
import pickle
import sys
from pathlib import Path
import numpy as np
from probrt.runtime import Bundle, load_predictor
from probrt.trainer import store
model, bundle, out = map(Path, sys.argv[1:])

def load(folder):
    store.load_model(folder); store.load_images(folder); store.load_targets(folder)
    opened = Bundle.open(bundle)
    shape = [4 if side is None else side for side in opened.manifest.input.shape]
    for engine in ("litert", "onnxruntime", "tensorflow"):
        load_predictor(opened, engine=engine)(np.zeros([1, *shape], np.float32))

load(model)  # whatever is imported on the way has been imported now
WATCHED = ("pickle.find_class", "marshal.", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork",
           "subprocess.Popen", "socket.", "import", "code.")
events, armed = [], False

def record(name, arguments):
    # NumPy parses the header of a .npy file as a literal: into a syntax tree, not into code.
    is_literal = name == "compile" and str(arguments[0]).startswith("b\\"{'descr'")
    if armed and name.startswith(WATCHED) and not is_literal:
        events.append((name, repr(arguments)[:200]))

sys.addaudithook(record)
armed = True
load(model)
loaded = len(events)
pickle.loads(pickle.dumps(Path))
assert [name for name, _ in events[loaded:]] == ["pickle.find_class"]  # the hook sees what it looks for
out.write_text("".join(f"{name} {arguments}\\n" for name, arguments in events[:loaded]))
"""


def test_loading_runs_nothing_that_a_file_brings(tmp_path: Path) -> None:
    """No pickle, marshalled or compiled code, process or socket while a model directory and a bundle load."""
    out = tmp_path / "events"
    words = [GOLDEN / "model", GOLDEN / "bundle", out]
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert out.read_text() == ""
