"""Manifests that an earlier version wrote, and fields that contradict each other."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Manifest, ParityRecord
from probrt.runtime.bundle.manifest_file import decode, encode
from probrt.runtime.bundle.upgrade import upgrade_manifest
from probrt.runtime.errors import BundleError

NUMBERS = {"absolute": 1e-6, "relative": 1e-5, "tolerance": 1e-4}


def raw_manifest(bundle: Bundle) -> dict[str, Any]:
    """The manifest as JSON without its own digest, as older versions wrote it, so that a test may change it."""
    raw: dict[str, Any] = json.loads(encode(bundle.manifest))
    return {key: value for key, value in raw.items() if key != "sha256"}


def without_digest(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, sha256=None)


def decode_raw(raw: object) -> Any:
    return decode(json.dumps(raw).encode(), "old.json")


def test_an_older_manifest_gets_the_kinds_of_its_heads(bundle: Bundle) -> None:
    raw = raw_manifest(bundle)
    for head in raw["heads"]:
        del head["kind"]
    assert decode_raw(raw) == without_digest(bundle.manifest)
    assert [head.kind for head in bundle.manifest.heads] == ["class", "real", "binary"]


def test_an_older_manifest_gets_its_parity_split_into_fields(bundle: Bundle) -> None:
    outputs = ["encoded:shape.mean", "slant.epistemic", "ink box IoU"]
    raw = raw_manifest(bundle) | {"parity": [{"file": "f", "output": output, **NUMBERS} for output in outputs]}
    assert decode_raw(raw).parity == [
        ParityRecord(file="f", signature="encoded", head="shape", quantity="mean", **NUMBERS),
        ParityRecord(file="f", head="slant", quantity="epistemic", **NUMBERS),
        ParityRecord(file="f", head="ink", metric="box IoU", **NUMBERS),
    ]
    assert [row.label for row in decode_raw(raw).parity] == ["shape.mean", "slant.epistemic", "ink box IoU"]


def test_an_older_manifest_tells_what_its_chosen_draws_are_worth(bundle: Bundle) -> None:
    """n draws with a part r of the error of independent ones are worth n / r², less what the pool itself is off."""
    raw = raw_manifest(bundle)
    errors = [
        {
            "draws": draws,
            "images": images,
            "mean": 0.1,
            "spread": spread,
            "independent_mean": 0.2,
            "independent_spread": 0.3,
        }
        for draws, images, spread in (
            (4, "training", 0.1),
            (4, "shifted", 0.2),
            (8, "training", 0.3),
            (8, "shifted", 0.1),
        )
    ]
    selection = {"pool": 1024, "kept": True, "errors": errors}
    del raw["posterior"]["effective"]
    raw["posterior"]["selection"] = selection
    posterior = decode_raw(raw).posterior
    four, eight = posterior.effective
    assert (four.precision, four.draws, four.mean, four.spread) == ("float32", 4, (0.1, 0.1), (0.1, 0.2))
    assert four.effective == pytest.approx(1 / ((0.2 / 0.3) ** 2 / 4 + 1 / 1024), rel=1e-2)
    assert eight.effective == pytest.approx(1 / (1 / 8 + 1 / 1024), rel=1e-2)
    raw["posterior"]["selection"] = selection | {"kept": False}
    assert decode_raw(raw).posterior.effective == []
    for damaged in ([{}], [3], [{**errors[0], "independent_mean": 0}], [{**errors[0], "mean": "x"}]):
        raw["posterior"]["selection"] = selection | {"errors": damaged}
        assert "effective" not in upgrade_manifest(raw)["posterior"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([("float32", 4), ("float32", 4)], "4 draws in float32 is listed twice"),
        ([("int8", 9)], "more draws than the 8"),
    ],
)
def test_a_worth_that_cannot_be_is_refused(bundle: Bundle, records: list[tuple[str, int]], message: str) -> None:
    raw = raw_manifest(bundle)
    raw["posterior"]["effective"] = [
        {"precision": precision, "draws": draws, "mean": [0, 0], "spread": [0, 0], "effective": 3}
        for precision, draws in records
    ]
    with pytest.raises(BundleError, match=message):
        decode_raw(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 2**31}, "2147483648 draws by default, but at most 64"),
        ({"samples": 2**31, "max_samples": 2**31}, "at most 65536 are supported"),
    ],
)
def test_draws_without_an_end_are_refused(bundle: Bundle, change: dict[str, int], message: str) -> None:
    raw = raw_manifest(bundle)
    raw["posterior"] |= change
    with pytest.raises(BundleError, match=message):
        decode_raw(raw)


def test_todays_manifest_stays_as_it_is(bundle: Bundle) -> None:
    raw = raw_manifest(bundle) | {"parity": [{"file": "f", "head": "ink", "quantity": "mean", **NUMBERS}]}
    assert upgrade_manifest(raw) == raw


@pytest.mark.parametrize("output", [None, 3, "", "shape", ".mean", "shape.", "Shape.mean", "a:b:c.d", ["shape.mean"]])
def test_a_parity_output_of_an_unknown_form_is_refused(bundle: Bundle, output: object) -> None:
    raw = raw_manifest(bundle) | {"parity": [{"file": "f", "output": output, **NUMBERS}]}
    with pytest.raises(BundleError, match=r"^old\.json: .*`\$\.parity"):
        decode_raw(raw)


@pytest.mark.parametrize("odd", [None, 3, "x", [], {}, [3], [[]], [None], [{"combine": 3}], [{"outputs": {"mean": 1}}]])
@pytest.mark.parametrize("key", ["heads", "parity"])
def test_records_of_odd_types_are_refused(bundle: Bundle, key: str, odd: object) -> None:
    raw = raw_manifest(bundle) | {key: odd}
    if key == "parity" and odd == []:
        assert decode_raw(raw).parity == []
    else:
        with pytest.raises(BundleError, match=r"^old\.json: .*\$"):
            decode_raw(raw)


@pytest.mark.parametrize("data", [b"[]", b"3", b"null", b'{"format": 1}', b'{"format": 1, "heads": ' + b"[" * 5000])
def test_json_that_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"^old\.json: "):
        decode(data, "old.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "real"}, "head shape is of kind real, whose uncertainties combine as variance, not as entropy"),
        ({"kind": "binary"}, "head shape is of kind binary, but its mean has an axis of classes"),
        (
            {"outputs": {"mean": [], "aleatoric": []}},
            "head shape is of kind class, but its mean lacks the axis of classes",
        ),
        ({"kind": "ordinal"}, "Invalid enum value 'ordinal'"),
        ({"outputs": {"mean": [3]}}, "head shape has no output aleatoric"),
    ],
)
def test_a_kind_that_contradicts_its_head_is_refused(bundle: Bundle, change: dict[str, Any], message: str) -> None:
    raw = raw_manifest(bundle)
    raw["heads"][0] |= change
    with pytest.raises(BundleError, match=message):
        decode_raw(raw)


@pytest.mark.parametrize("names", [{}, {"quantity": "mean", "metric": "accuracy"}])
def test_a_parity_row_compares_a_quantity_or_a_metric(bundle: Bundle, names: dict[str, str]) -> None:
    raw = raw_manifest(bundle) | {"parity": [{"file": "f", "head": "shape", **names, **NUMBERS}]}
    with pytest.raises(BundleError, match="parity of f: a row of shape names a quantity or a metric"):
        decode_raw(raw)


@pytest.mark.parametrize(
    ("text", "replacement", "message"),
    [
        ('"sha256": ', '"sha256": "0", "sha256": ', "the key 'sha256' is given twice"),
        (
            '"training": {}',
            '"training": ' + '{"a": ' * 900 + "1" + "}" * 900,
            "nested 90[0-9] deep, a manifest at most 64",
        ),
    ],
)
def test_json_that_says_a_thing_twice_or_too_deep_is_refused(
    bundle: Bundle, text: str, replacement: str, message: str
) -> None:
    content = json.dumps(raw_manifest(bundle))
    assert text in content
    with pytest.raises(BundleError, match=message):
        decode(content.replace(text, replacement, 1).encode(), "probrt.json")


def test_brackets_in_strings_do_not_count(bundle: Bundle) -> None:
    raw = raw_manifest(bundle) | {"provenance": {"training": {"note": "[{" * 100 + '"\\'}, "export": {}}}
    assert decode_raw(raw).provenance.training["note"].startswith("[{[{")


@pytest.mark.parametrize("shape", [[100_000, 100_000, 1], [100_000, 100_000, None], [1 << 40, 1]])
def test_an_input_of_absurd_size_is_refused(bundle: Bundle, shape: list[int | None]) -> None:
    raw = raw_manifest(bundle)
    raw["input"]["shape"] = shape
    with pytest.raises(BundleError, match="at most 268435456"):
        decode_raw(raw)


def change_file(name: str, **changes: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        next(file for file in raw["files"] if file["path"] == name).update(changes)

    return change


def change_key(key: str, value: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        raw[key] = value

    return change


def repeat_file_in_capitals(raw: dict[str, Any]) -> None:
    raw["files"].append({**raw["files"][0], "path": raw["files"][0]["path"].upper()})


def shorten_labels(raw: dict[str, Any]) -> None:
    raw["heads"][0]["labels"].pop()


def bend_range(raw: dict[str, Any]) -> None:
    raw["input"]["range"] = [255, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_file("saved_model.pb", format="onnx", variant="mean"), "is listed as onnx, which its name is not"),
        (change_file("saved_model.pb", precision="float16"), "is listed as float16; a SavedModel is float32"),
        (change_file("mean.onnx", format="savedmodel"), "is listed as savedmodel, which its name is not"),
        (change_file("saved_model.pb", path="saved_model.pbtxt"), "a place or form that a bundle may not have"),
        (change_file("saved_model.pb", path="inner/saved_model.pb"), "a place or form that a bundle may not have"),
        (change_file("draws-01.onnx", draws=[0, 4]), "begins with draw 0 where draw 4 is due"),
        (change_key("calibration", [{"head": "other"}]), "calibration: there is no head other"),
        (repeat_file_in_capitals, "is listed twice"),
        (shorten_labels, "has 2 labels for the 3 entries of its mean"),
        (bend_range, "is empty or has no end"),
    ],
)
def test_contradictions_are_refused(bundle: Bundle, change: Any, message: str) -> None:
    raw = raw_manifest(bundle)
    change(raw)
    with pytest.raises(BundleError, match=message):
        decode_raw(raw)


def small_manifest(bundle: Bundle) -> bytes:
    return encode(msgspec.structs.replace(bundle.manifest, files=bundle.files("tflite", "mean")))


def assert_flips_are_refused(content: bytes, bits: Iterable[int]) -> None:
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BundleError, match=r"^probrt\.json: "):
            decode(bytes(flipped), "probrt.json")


def test_a_flipped_bit_is_refused(bundle: Bundle) -> None:
    content = small_manifest(bundle)
    assert decode(content, "probrt.json").sha256
    place = content.index(b'"sha256"')
    bits = np.random.default_rng(0).integers(0, 8 * len(content), 300)
    assert_flips_are_refused(content, [*bits.tolist(), *range(8 * place, 8 * (place + 78))])


@pytest.mark.stress
def test_every_flipped_bit_is_refused(bundle: Bundle) -> None:
    content = small_manifest(bundle)
    assert_flips_are_refused(content, range(8 * len(content)))
    print(f"{8 * len(content)} single flipped bits of a manifest of {len(content)} bytes: all refused")


@pytest.mark.parametrize("factor", ["temperature", "scale"])
@pytest.mark.parametrize("value", [1e308, 1e-9, 0.0, -1.0])
def test_a_calibration_that_leaves_no_answer_is_refused(bundle: Bundle, factor: str, value: float) -> None:
    raw = raw_manifest(bundle)
    raw["calibration"][0][factor] = value
    with pytest.raises(BundleError, match=rf"Expected `float` [<>]= [0-9.]+ - at `\$.calibration\[0\].{factor}`"):
        decode_raw(raw)


@pytest.mark.parametrize(
    ("sides", "fault"),
    [
        (True, "the map is true; state its sides"),
        ([8], "length"),
        ([8, 0], "novelty.map"),
        ([8, 8, 1], "length"),
        ([8, "8"], "novelty.map"),
        ([1 << 20, 1 << 20], "values are supported"),
    ],
)
def test_the_map_of_novelty_has_two_sides(bundle: Bundle, sides: Any, fault: str) -> None:
    novelty = {"images": 99, "fitted": 500, "method": "any", "stages": ["a"]}
    raw = raw_manifest(bundle)
    for stated, given in (([8, None], {"map": [8, None]}), (False, {}), (False, {"map": False})):
        assert decode_raw(raw | {"novelty": novelty | given}).novelty.map == stated
    with pytest.raises(BundleError, match=fault):
        decode_raw(raw | {"novelty": novelty | {"map": sides}})
    pooled = [head for head in raw["heads"] if not head["per_position"]]
    with pytest.raises(BundleError, match="has a map, but no head answers for positions in two dimensions"):
        decode_raw(raw | {"heads": pooled, "calibration": [], "parity": [], "novelty": novelty | {"map": [8, 8]}})
