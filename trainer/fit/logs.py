"""TensorBoard logs of a fit: loss terms, metrics, what each weight costs and knows, example predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from probrt.trainer.data import Examples
from probrt.trainer.fit.loop import EpochReport
from probrt.trainer.fit.step import Stepped
from probrt.trainer.heads.categorical import ClassHead
from probrt.trainer.model import Model

_EVERY = 20
_EXAMPLES = 8
_DRAWS = 4


class Logs:
    """Writes `folder`, for `tensorboard --logdir`; call `close` at the end."""

    def __init__(self, folder: Path, model: Model, examples: Examples) -> None:
        self.model = model
        self.writer = tf.summary.create_file_writer(str(folder))
        shown = min(_EXAMPLES, len(examples))
        self.examples = Examples(
            examples.files[:shown],
            examples.images[:shown],
            {name: values[:shown] for name, values in examples.targets.items()},
        )
        self.costs = costs(model)
        self.answers = answers(model)

    def step(self, number: int, stepped: Stepped) -> None:
        """Every 20th step: the terms of the loss."""
        if number % _EVERY:
            return
        with self.writer.as_default(number):
            tf.summary.scalar("step/loss", stepped.loss)
            tf.summary.scalar("step/kl", stepped.kl)
            tf.summary.scalar("step/gradient norm", stepped.norm)
            for name, nats in stepped.log_likelihood.items():
                tf.summary.scalar(f"step/log-likelihood/{name}", nats)

    def epoch(self, progress: EpochReport) -> None:
        """Metrics on the validation split, each weight's KL and signal to noise, and some predictions."""
        with self.writer.as_default(progress.step):
            tf.summary.scalar("validation/elbo", progress.elbo)
            for head in self.model.heads:
                tf.summary.scalar(f"validation/{head.name} {head.metric_name}", progress.metrics[head.name])
            for name, (nats, ratio) in self.costs().items():
                tf.summary.scalar(f"kl/{name}", nats)
                tf.summary.scalar(f"signal to noise/{name}", ratio)
            self._predictions()
        self.writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self.writer.close()

    def _predictions(self) -> None:
        images = tf.constant(self.examples.images.astype(np.float32))
        answered = self.answers(images)
        if len(images.shape) == 4 and images.shape[-1] in (1, 3):
            low, high = self.model.input.range or (float(np.min(images)), float(np.max(images)))
            tf.summary.image("examples/image", (images - low) / max(high - low, 1e-9), max_outputs=_EXAMPLES)
        lines = ["| file | head | truth | mean | total |", "|---|---|---|---|---|"]
        for head in self.model.heads:
            answer = {name: value.numpy() for name, value in answered[head.name].items()}
            target = self.examples.targets[head.name]
            if head.per_position:
                shown = answer["mean"] if answer["mean"].ndim == 4 else answer["mean"][..., None]
                if shown.ndim == 4:
                    kind = shown.argmax(-1)[..., None] / max(1, shown.shape[-1] - 1)
                    picture = kind if isinstance(head, ClassHead) else shown[..., :1]
                    tf.summary.image(f"examples/{head.name}", np.float32(picture), max_outputs=_EXAMPLES)
                continue
            for row, file in enumerate(self.examples.files):
                lines.append(f"| {file} | {head.name} | {_told(head, target, answer, row)} |")
        tf.summary.text("examples/predictions", "\n".join(lines))


def answers(model: Model) -> Callable[[tf.Tensor], dict[str, dict[str, tf.Tensor]]]:
    """A function of raw images that gives each head's quantities over 4 draws."""

    @tf.function(autograph=False)
    def answered(images: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        return model.combine_draws(images, model.draw_handlers(0, tf.range(_DRAWS), _DRAWS))

    return answered


def costs(model: Model) -> Callable[[], dict[str, tuple[float, float]]]:
    """A function that gives each weight's KL in nats and its median |mean| / standard deviation over 4 draws."""

    @tf.function(autograph=False)
    def found() -> list[tuple[tf.Tensor, tf.Tensor]]:
        each = []
        for weight in model.weights:
            made = tf.unstack(weight.noise(0, tf.range(_DRAWS)), num=_DRAWS)
            values = [weight.from_noise(one) for one in made]
            spread = tf.math.reduce_std(tf.stack(values), 0)
            each.append((weight.kl(values[0], made[0]), tf.abs(weight.mean()) / tf.maximum(spread, 1e-12)))
        return each

    def told() -> dict[str, tuple[float, float]]:
        return {
            weight.name: (float(nats), float(np.median(ratio)))
            for weight, (nats, ratio) in zip(model.weights, found(), strict=True)
        }

    return told


def _told(head: object, target: np.ndarray, answer: dict[str, np.ndarray], row: int) -> str:
    mean, total = answer["mean"][row], float(np.mean(answer["total"][row]))
    if isinstance(head, ClassHead):
        truth = head.labels[target[row]] if target[row] >= 0 else ""
        return f"{truth} | {head.labels[int(mean.argmax())]} ({mean.max():.3f}) | {total:.3g}"
    return f"{np.round(target[row], 4).tolist()} | {np.round(mean, 4).tolist()} | {total:.3g}"
