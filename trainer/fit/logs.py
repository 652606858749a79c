"""TensorBoard logs of a fit: terms of the loss, metrics, KL and signal to noise of each weight, example predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from probrt.trainer.data import Examples
from probrt.trainer.fit.loop import EpochReport
from probrt.trainer.fit.step import StepResult
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.categorical import ClassHead
from probrt.trainer.model import Model

_STEP_INTERVAL = 20
_EXAMPLES = 8
_DRAWS = 4

Answers = dict[str, dict[str, tf.Tensor]]


class TensorBoardLogs:
    """Writes logs to `folder`, for `tensorboard --logdir`; call `close` at the end."""

    def __init__(self, folder: Path, model: Model, examples: Examples) -> None:
        self.model = model
        self.writer = tf.summary.create_file_writer(str(folder))
        count = min(_EXAMPLES, len(examples))
        self.examples = Examples(
            examples.files[:count],
            examples.images[:count],
            {name: values[:count] for name, values in examples.targets.items()},
        )
        self.measure_weights = make_weight_report(model)
        self.answer = make_answer_function(model)

    def log_step(self, step: int, result: StepResult) -> None:
        """Logs the terms of the loss, at every 20th step."""
        if step % _STEP_INTERVAL:
            return
        with self.writer.as_default(step):
            tf.summary.scalar("step/loss", result.loss)
            tf.summary.scalar("step/kl", result.kl)
            tf.summary.scalar("step/gradient norm", result.norm)
            for name, nats in result.log_likelihood.items():
                tf.summary.scalar(f"step/log-likelihood/{name}", nats)

    def log_epoch(self, report: EpochReport) -> None:
        """Logs metrics of the validation split, KL and signal to noise of each weight, and some predictions."""
        with self.writer.as_default(report.step):
            tf.summary.scalar("validation/elbo", report.elbo)
            for head in self.model.heads:
                tf.summary.scalar(f"validation/{head.name} {head.metric_name}", report.metrics[head.name])
            for name, (nats, ratio) in self.measure_weights().items():
                tf.summary.scalar(f"kl/{name}", nats)
                tf.summary.scalar(f"signal to noise/{name}", ratio)
            self._log_predictions()
        self.writer.flush()

    def close(self) -> None:
        """Closes the log file."""
        self.writer.close()

    def _log_predictions(self) -> None:
        images = tf.constant(self.examples.images.astype(np.float32))
        answers = self.answer(images)
        if len(images.shape) == 4 and images.shape[-1] in (1, 3):
            low, high = self.model.input.range or (float(np.min(images)), float(np.max(images)))
            tf.summary.image("examples/image", (images - low) / max(high - low, 1e-9), max_outputs=_EXAMPLES)
        lines = ["| file | head | truth | mean | total |", "|---|---|---|---|---|"]
        for head in self.model.heads:
            answer = {name: value.numpy() for name, value in answers[head.name].items()}
            target = self.examples.targets[head.name]
            if head.per_position:
                mean = answer["mean"] if answer["mean"].ndim == 4 else answer["mean"][..., None]
                if mean.ndim == 4:
                    likeliest = mean.argmax(-1)[..., None] / max(1, mean.shape[-1] - 1)
                    picture = likeliest if isinstance(head, ClassHead) else mean[..., :1]
                    tf.summary.image(f"examples/{head.name}", np.float32(picture), max_outputs=_EXAMPLES)
                continue
            for row, file in enumerate(self.examples.files):
                lines.append(f"| {file} | {head.name} | {_describe_answer(head, target, answer, row)} |")
        tf.summary.text("examples/predictions", "\n".join(lines))


def make_answer_function(model: Model) -> Callable[[tf.Tensor], Answers]:
    """Returns a function of raw images that computes each head's quantities over 4 draws."""

    def answer(images: tf.Tensor) -> Answers:
        return model.combine_draws(images, model.draw_handlers(0, tf.range(_DRAWS), _DRAWS))

    traced: Callable[[tf.Tensor], Answers] = tf.function(answer, autograph=False)
    return traced


def make_weight_report(model: Model) -> Callable[[], dict[str, tuple[float, float]]]:
    """Returns a function that computes each weight's KL in nats and its signal to noise.

    The signal to noise is the median of |mean| / standard deviation over 4 draws.
    """

    @tf.function(autograph=False)
    def measure() -> list[tuple[tf.Tensor, tf.Tensor]]:
        measures = []
        for weight in model.weights:
            noises = tf.unstack(weight.noise(0, tf.range(_DRAWS)), num=_DRAWS)
            values = [weight.from_noise(noise) for noise in noises]
            deviation = tf.math.reduce_std(tf.stack(values), 0)
            ratio = tf.abs(weight.mean()) / tf.maximum(deviation, 1e-12)
            measures.append((weight.kl(values[0], noises[0]), ratio))
        return measures

    def weight_report() -> dict[str, tuple[float, float]]:
        return {
            weight.name: (float(nats), float(np.median(ratio)))
            for weight, (nats, ratio) in zip(model.weights, measure(), strict=True)
        }

    return weight_report


def _describe_answer(head: AnyHead, target: np.ndarray, answer: dict[str, np.ndarray], row: int) -> str:
    mean, total = answer["mean"][row], float(np.mean(answer["total"][row]))
    if isinstance(head, ClassHead):
        truth = head.labels[target[row]] if target[row] >= 0 else ""
        return f"{truth} | {head.labels[int(mean.argmax())]} ({mean.max():.3f}) | {total:.3g}"
    return f"{np.round(target[row], 4).tolist()} | {np.round(mean, 4).tolist()} | {total:.3g}"
