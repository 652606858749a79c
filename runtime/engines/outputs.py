"""What a graph must answer: the outputs that the manifest states, by name, type and shape."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from probrt.runtime.bundle.manifest import FileRecord, Manifest, Variant
from probrt.runtime.errors import BundleError

# How far answers in bfloat16 may lie from those in float32, as a part of the largest value or of 1. It keeps 8 bits of
# a number; the largest difference seen is 0.02 of a mask and 0.005 of a novelty score.
BFLOAT16_TOLERANCE = 0.05

# What one pass at the posterior mean cannot know.
_SPREAD = ("total", "epistemic")


class Shaped(Protocol):
    """An array, or what stands for one: its shape and the name of its type."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...


def expected_outputs(manifest: Manifest, file: FileRecord, variant: Variant) -> dict[str, list[int | None]]:
    """Returns the outputs of a graph of one variant by name: their shapes without the batch."""
    outputs = {
        f"{head.name}.{quantity}": shape
        for head in manifest.heads
        for quantity, shape in head.outputs.items()
        if variant != "mean" or quantity not in _SPREAD
    }
    # Later chunks of a bank add draws to an answer that has its novelty already.
    is_later_chunk = variant == "draws" and file.draws is not None and file.draws[0] > 0
    if manifest.novelty is not None and not is_later_chunk:
        outputs |= manifest.novelty.outputs
    return outputs


def check_outputs(
    name_of_graph: str, expected: Mapping[str, Sequence[int | None]], outputs: Mapping[str, Shaped], batch: int
) -> None:
    """Raises BundleError unless a graph answered a batch with the outputs that the manifest states.

    expected: of `expected_outputs`.
    """
    for name in sorted(expected.keys() | outputs.keys()):
        if name not in outputs:
            raise BundleError(
                f"{name_of_graph}: does not answer {name}, which the manifest states; export the bundle again"
            )
        if name not in expected:
            raise BundleError(
                f"{name_of_graph}: answers {name}, which the manifest does not state; export the bundle again"
            )
        shape, dtype = outputs[name].shape, str(outputs[name].dtype)
        wanted = [batch, *expected[name]]
        if len(shape) != len(wanted) or any(
            size is not None and size != side for side, size in zip(shape, wanted, strict=True)
        ):
            raise BundleError(
                f"{name_of_graph}: answers {name} of shape {list(shape)}, the manifest states {_format(wanted)}; "
                "export the bundle again"
            )
        if dtype != "float32":
            raise BundleError(f"{name_of_graph}: answers {name} in {dtype}, not in float32; export the bundle again")


def _format(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"
