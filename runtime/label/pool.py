"""What a model says of each image of a pool: its label under every draw, and its novelty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.engines.formats import DrawSignature
from probrt.runtime.errors import UsageError
from probrt.runtime.images.batches import ImageBatch, load_batches
from probrt.runtime.label.batchbald import entropy, information
from probrt.runtime.predict.answer import Novelty, read_novelty
from probrt.runtime.predict.choose import PredictRequest, choose
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.kinds import KINDS
from probrt.runtime.rows.novelty import NoveltyRows, choose_novelty
from probrt.runtime.rows.numbers import Row

# Of a large pool only these many images keep their labels under every draw: those whose own information is largest.
KEPT = 5000


@dataclass(frozen=True)
class PoolImage:
    """An image of the pool. probabilities: float32 [draws, classes]. row: as `predict` writes it, of one head."""

    file: str
    information: float
    probabilities: npt.NDArray[np.float32]
    row: Row


@dataclass
class Pool:
    """The images of a pool.

    informative: those whose own information is largest, with their probabilities; the most informative first.
    novel: rows of the images that are farthest from the training images, the farthest first; none without novelty.
    images, faults: how many were read, and how many of them could not be.
    """

    informative: list[PoolImage] = field(default_factory=list)
    novel: list[Row] = field(default_factory=list)
    images: int = 0
    faults: int = 0


def choose_head(bundle: Bundle, name: str) -> HeadRecord:
    """Returns the head that is to be labelled: the named one, or the only one of classes.

    Raises UsageError if there is none of that name, or none whose labels are classes.
    """
    heads = [head for head in bundle.manifest.heads if _is_of_classes(head)]
    names = ", ".join(head.name for head in heads)
    if not heads:
        raise UsageError(f"{bundle.label}: has no head of classes, or of one yes or no per image, to choose images for")
    if not name and len(heads) > 1:
        raise UsageError(f"{bundle.label}: choose one of its heads with --head: {names}")
    chosen = next((head for head in heads if head.name == (name or heads[0].name)), None)
    if chosen is None:
        raise UsageError(f"--head {name}: choose one of {names}")
    return chosen


def _is_of_classes(head: HeadRecord) -> bool:
    return not head.per_position and (head.kind == "class" or (head.kind == "binary" and head.outputs["mean"] == [1]))


def read_pool(
    bundle: Bundle,
    head: HeadRecord,
    names: Iterator[str],
    *,
    draws: int,
    seed: int | None,
    novel: int,
    on_images: Callable[[int], None],
) -> Pool:
    """Reads the images of a pool and asks the model for their labels under the draws of a seed, and their novelty.

    novel: how many rows of novel images to keep. on_images: is told of each batch that is done.
    Raises UsageError or MissingError where the bundle or this machine cannot give single draws.
    """
    if not bundle.files("savedmodel"):
        raise UsageError(
            f"{bundle.label}: holds no SavedModel, which alone gives single draws; export it again with "
            "--formats savedmodel among others"
        )
    request = PredictRequest(samples=draws, seed=seed, variant="sampled", engine="tensorflow")
    plan = replace(choose(bundle, request), source=DrawSignature())
    predictor = Predictor(bundle, plan)
    novelty = choose_novelty(bundle.manifest, None)
    pool = Pool()
    input = bundle.manifest.input
    for item in load_batches(names, input, predictor.batch_size, predictor.threads):
        if item is None:
            continue
        if not isinstance(item, ImageBatch):
            pool.images, pool.faults = pool.images + 1, pool.faults + 1
            on_images(1)
            continue
        pixels = np.stack([image.pixels for image in item.images if image.pixels is not None])
        outputs = predictor.run(pixels, plan.calls[0], item.last)
        labels, novelties = outputs[f"{head.name}.mean"], read_novelty(outputs)
        for index, image in enumerate(item.images):
            pool.images += 1
            if not np.isfinite(labels[index]).all():
                pool.faults += 1
                continue
            pool_image = _make_image(bundle, head, image.name, labels[index], novelty, novelties, index)
            pool.informative.append(pool_image)
            if "novelty" in pool_image.row:
                pool.novel.append(pool_image.row)
        _prune(pool, novel)
        on_images(len(item.images))
    _prune(pool, novel, finished=True)
    return pool


def _make_image(
    bundle: Bundle,
    head: HeadRecord,
    name: str,
    means: npt.NDArray[np.float32],
    novelty: NoveltyRows | None,
    novelties: Novelty | None,
    index: int,
) -> PoolImage:
    probabilities = means if head.kind == "class" else np.concatenate([1 - means, means], -1)
    exact = probabilities.astype(np.float64)
    total, expected = entropy(exact.mean(0)), entropy(exact).mean()
    uncertainties = {"total": total, "aleatoric": expected, "epistemic": total - expected}
    quantities = {"mean": means.mean(0)} | {name: np.float32(value) for name, value in uncertainties.items()}
    row: Row = {"file": name, "status": "ok", "error": None, "bundle": bundle.label, "draws": len(means)}
    if novelty is not None and novelties is not None and np.isfinite(novelties.p_value[index]):
        row["novelty"] = novelty.make(novelties, index)
    row["heads"] = {head.name: KINDS[head.kind].row(head, quantities, None)}
    return PoolImage(name, float(information(exact[None])[0]), probabilities, row)


def _prune(pool: Pool, novel: int, finished: bool = False) -> None:
    """Drops what cannot be chosen any more, from time to time and at the end."""
    if finished or len(pool.informative) > 2 * KEPT:
        pool.informative = sorted(pool.informative, key=lambda image: (-image.information, image.file))[:KEPT]
    if finished or len(pool.novel) > 2 * KEPT:
        pool.novel = sorted(pool.novel, key=lambda row: (-row["novelty"]["score"], row["file"]))[: max(novel, 0)]
