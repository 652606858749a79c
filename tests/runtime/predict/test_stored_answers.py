"""`verify --answers`: what every file answers on every engine is compared with what it answered at export."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from bundle_damage import damage_bytes
from shapes import GOLDEN

from probrt.runtime import cli
from probrt.runtime.bundle import answers
from probrt.runtime.bundle.arrays import enlarge, store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import ANSWERS, NAME, DocumentRecord, ParityRecord
from probrt.runtime.bundle.manifest_file import encode
from probrt.runtime.engines import BUILT_IN
from probrt.runtime.errors import BundleError
from probrt.runtime.predict.stored_answers import compare_answers

LITERT = next(engine for engine in BUILT_IN if engine.name == "litert")


def write_answers(bundle: Bundle, changed: answers.Answers) -> Bundle:
    """Returns the bundle with these stored answers."""
    content = answers.encode_answers(changed)
    (bundle.path / ANSWERS).write_bytes(content)
    record = DocumentRecord(path=ANSWERS, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = msgspec.structs.replace(bundle.manifest, documents=[record])
    (bundle.path / NAME).write_bytes(encode(manifest))
    return Bundle.open(bundle.path)


def replace_file(bundle: Bundle, content: bytes) -> Bundle:
    """Returns the bundle with another mean.tflite, its digest computed anew."""
    (bundle.path / "mean.tflite").write_bytes(content)
    (file,) = (file for file in bundle.manifest.files if file.path == "mean.tflite")
    changed = msgspec.structs.replace(file, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    files = [changed if known is file else known for known in bundle.manifest.files]
    (bundle.path / NAME).write_bytes(encode(msgspec.structs.replace(bundle.manifest, files=files)))
    return Bundle.open(bundle.path)


@pytest.fixture
def stored(rewrite: Callable[..., Bundle], tmp_path: Path) -> Bundle:
    """mean and sampled in TFLite with stored answers, as an export writes them."""
    folder = tmp_path / "shapes" / "1"
    folder.mkdir(parents=True)
    for name in ("mean.tflite", "sampled.tflite"):
        shutil.copy(GOLDEN / "shapes" / "1" / name, folder)
    bundle = rewrite(folder)
    grids = answers.make_grids([12, 12, 1], 0, 255)
    calls = []
    for file in bundle.manifest.files:
        scalars = {"seed": 7, "start": 4} if file.variant == "sampled" else {}
        inputs = {name: np.array([value], np.int32) for name, value in scalars.items()}
        outputs = LITERT.load_graph(bundle, [file], "cpu", 1)({"images": grids, **inputs})
        calls.append(
            answers.CallAnswer(
                file=file.path,
                signature="serving_default",
                scalars=scalars,
                outputs=answers.store_outputs(outputs),
            )
        )
    return write_answers(bundle, answers.Answers(shape=[12, 12, 1], grids=store_array(grids), calls=calls))


def test_answers_as_at_export(stored: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["verify", "--answers", str(stored.path)]) == 0
    assert capsys.readouterr().out.endswith("all as exported; 2 calls answer as at export (litert)\n")


def test_other_answers_are_refused(stored: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """A weight is another, and every digest is right."""
    weights = np.frombuffer((GOLDEN / "shapes" / "1" / "mean.tflite").read_bytes(), np.uint8)
    places = [
        place for place in range(0, len(weights) - 4, 4) if 0.1 < abs(weights[place : place + 4].view("<f4")[0]) < 2
    ]
    changed = weights.copy()
    changed[places[len(places) // 2] + 3] ^= 128  # the sign
    replace_file(stored, changed.tobytes())
    assert cli.call(["verify", str(stored.path)]) == 0
    assert cli.call(["verify", "--answers", str(stored.path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("probrt: mean.tflite: on litert ")
    assert "from its value at export, allowed" in error
    assert error.count("\n") == 1


def test_the_tolerance_is_that_of_the_parity_gate(stored: Bundle) -> None:
    file = stored.manifest.files[0].path
    read = answers.read_answers(stored)
    moved = {
        name: store_array(array.read() + np.float32(0.003)) if name == "slant.mean" else array
        for name, array in read.calls[0].outputs.items()
    }
    calls = [msgspec.structs.replace(read.calls[0], outputs=moved), *read.calls[1:]]
    changed = write_answers(stored, msgspec.structs.replace(read, calls=calls))
    (fault,) = compare_answers(changed).faults
    assert fault.startswith(f"{file}: on litert slant.mean differs by 0.003 from its value at export, allowed 0.0001")
    row = ParityRecord(file=file, head="slant", quantity="mean", absolute=0, relative=0, tolerance=0.01)
    loose = Bundle(changed.path, msgspec.structs.replace(changed.manifest, parity=[row]))
    assert compare_answers(loose).faults == ()


def test_a_bundle_without_answers_says_so(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["verify", "--answers", str(bundle.path)]) == 2
    assert "holds no stored answers, because it was exported before probrt stored them" in capsys.readouterr().err


def test_damaged_and_incomplete_answers_are_refused(stored: Bundle) -> None:
    read = answers.read_answers(stored)
    for changed, message in (
        (msgspec.structs.replace(read, calls=read.calls[1:]), r"answers\.json: has none of mean\.tflite"),
        (msgspec.structs.replace(read, shape=[12, 13, 1]), r"answers\.json: its images have another shape"),
        (
            msgspec.structs.replace(read, grids=msgspec.structs.replace(read.grids, shape=[99, 12, 12, 1])),
            r"answers\.json: an array of shape",
        ),
    ):
        with pytest.raises(BundleError, match=message):
            compare_answers(write_answers(stored, changed))
    (stored.path / ANSWERS).write_bytes((stored.path / ANSWERS).read_bytes()[:-9])
    assert cli.call(["verify", str(stored.path)]) == 2


@pytest.mark.parametrize("shape", [[28, 28, 1], [224, 224, 3], [1000, 2], [7], [64, 64, 64, 1], [3000, 3000, 3]])
def test_stored_images_are_small_and_fill_the_input(shape: list[int]) -> None:
    grids = answers.make_grids(shape, 0, 255)
    assert grids.size <= 3 * answers.GRID_VALUES
    images = enlarge(grids[:1], shape)
    assert images.shape == (1, *shape)
    assert (images >= 0).all()
    assert (images <= 255).all()
    np.testing.assert_array_equal(store_array(grids).read(), grids)


@pytest.mark.stress
def test_damaged_weights_are_found_by_their_answers(stored: Bundle, measured: Callable[[str, str], None]) -> None:
    """Of damaged files that still answer, those that answer otherwise by more than the tolerance are all found."""
    content = (stored.path / "mean.tflite").read_bytes()
    images = np.random.default_rng(1).integers(0, 256, (8, 12, 12, 1)).astype(np.float32)
    (file,) = (file for file in stored.manifest.files if file.path == "mean.tflite")
    expected = LITERT.load_graph(stored, [file], "cpu", 1)({"images": images})
    outcomes: Counter[str] = Counter()
    for seed in range(405):
        changed = replace_file(stored, damage_bytes(content, seed))
        (file,) = (file for file in changed.manifest.files if file.path == "mean.tflite")
        faults = compare_answers(changed).faults
        try:
            given = LITERT.load_graph(changed, [file], "cpu", 1)({"images": images})
            apart = max(float(np.abs(given[name] - values).max()) for name, values in expected.items())
        except (BundleError, KeyError, ValueError, RuntimeError):
            assert faults
            outcomes["do not run"] += 1
            continue
        if apart > 0.01 or np.isnan(apart):
            outcomes["answer otherwise, found" if faults else "answer otherwise, not found"] += 1
        else:
            outcomes["answer alike"] += 1
    assert not outcomes["answer otherwise, not found"]
    assert outcomes["answer otherwise, found"]
    measured("405 damaged TFLite files, verify --answers", ", ".join(f"{n} {what}" for what, n in outcomes.items()))
