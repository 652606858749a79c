"""TensorBoard logs of a fit: terms of the loss, metrics, KL and signal to noise of each weight, example predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from probrt.trainer.data import Examples
from probrt.trainer.fit.loop import EpochReport
from probrt.trainer.fit.step import StepResult
from probrt.trainer.model import Model, compile_answer

_STEP_INTERVAL = 20
_EXAMPLES = 8
_DRAWS = 4


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
        self.answer = compile_answer(model, seed=0, draws=_DRAWS)

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
            mean, total = (answers[head.name][quantity].numpy() for quantity in ("mean", "total"))
            target = self.examples.targets[head.name]
            if head.per_position:
                maps = mean[:, :, None] if mean.ndim == 3 else mean  # a signal is a picture one pixel wide
                if maps.ndim == 4:
                    tf.summary.image(f"examples/{head.name}", np.float32(head.draw_mean(maps)), max_outputs=_EXAMPLES)
                continue
            for row, file in enumerate(self.examples.files):
                truth, answer = head.describe_target(target[row]), head.describe_mean(mean[row])
                lines.append(f"| {file} | {head.name} | {truth} | {answer} | {np.mean(total[row]):.3g} |")
        tf.summary.text("examples/predictions", "\n".join(lines))


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
