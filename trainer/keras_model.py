"""A keras.Model of one's own with probabilistic layers: fitted with `fit`, calibrated, scored, saved as a directory."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import msgspec
import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.calibration.calibrate import calibrate_model
from probrt.trainer.calibration.novelty import add_novelty, describe_novelty
from probrt.trainer.card import make_python_card
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.data.arrays import Targets, count_examples, digest_examples, make_examples
from probrt.trainer.data.examples import Dataset
from probrt.trainer.evaluate.answers import compute_answers
from probrt.trainer.evaluate.measures import measure_head
from probrt.trainer.fit.measure import measure_model
from probrt.trainer.fit.objective import resolve_kl_weight, total_kl
from probrt.trainer.heads import AnyHead
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.model import Model, compile_answer
from probrt.trainer.save_trained import read_versions, save_trained
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import MeanHandler, use_handler


class BayesianModel(keras.Model):
    """A functional Keras model whose layers may have random weights, with heads on some of its tensors.

    inputs: `keras.Input` of raw images [batch, *shape]. outputs: by head, the tensor with its `channels`,
    [batch, channels] or, for a pooled head, also [batch, *positions, channels]. heads: a record for each output.
    name: of the model and its bundles. input: what the images are; by default pictures of 0 to 255 where the shape is
    [height, width, 1 or 3], else arrays. seed: of draws.

    `compile(optimizer)` takes the heads' negative log-likelihoods for losses unless it is given others, and `fit` adds
    kl_weight KL(posterior || prior) / N to them (Blundell et al. 2015, eq. 8). Raises ConfigError for outputs that do
    not fit the heads.
    """

    def __init__(
        self,
        inputs: keras.KerasTensor,
        outputs: Mapping[str, keras.KerasTensor],
        heads: Sequence[AnyHead],
        *,
        name: str,
        input: Input | None = None,
        seed: int = 0,
    ) -> None:
        channels = {head.name: _attach(head, outputs) for head in heads}
        super().__init__(inputs, channels, name=name)
        # Inside one object that Keras does not track: the variables are this model's own.
        self._trained = _Trained(
            Model(name, input or _guess_input(inputs), tuple(heads), keras.Model(inputs, channels, name="network"))
        )
        self._seed = seed
        self._kl_factor = 0.0

    @property
    def model(self) -> Model:
        """The model as the command line's own functions take it, with its calibration and novelty."""
        return self._trained.model

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """Configures `fit`; loss: by head, in place of its negative log-likelihood."""
        if loss is None:
            loss = {head.name: HeadLoss(head) for head in self.model.heads}
            kwargs.setdefault("loss_weights", {head.name: head.weight or 1.0 for head in self.model.heads})
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        kl_weight: float | Literal["auto"] = "auto",
        train_count: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Fits the model; all other arguments are Keras's.

        x, y: arrays, with y by head; or a tf.data.Dataset or keras.utils.PyDataset of such batches. kl_weight: as in a
        training config. train_count: N, the number of training examples; needed where the data do not tell it.
        """
        count = train_count or count_examples(x)
        settings = resolve_kl_weight(FitSettings(kl_weight=kl_weight), self.model, count)
        self._trained.kl_weight = settings.kl_factor
        self._kl_factor = settings.kl_factor / count
        self.train_function = None  # the factor is a constant of its graph
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # a data set has its own order, and Keras warns of its default
        return super().fit(x, y, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of `fit`: a draw of every weight, the losses, and the KL."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        handler = TrainingHandler(self._seed, tf.cast(self.optimizer.iterations.value, tf.int32))
        with use_handler(handler), tf.GradientTape() as tape:
            predictions = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=weight, training=True)
            loss += self._kl_factor * total_kl(self.model, handler)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
        variables = self.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
        self.optimizer.apply(gradients, variables)
        return dict(self.compute_metrics(x, y, predictions, sample_weight=weight))

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of `evaluate`, at the posterior mean."""
        with use_handler(MeanHandler()):
            return dict(super().test_step(data))

    def predict(self, x: np.ndarray, *, draws: int = 32, batch_size: int = 64) -> dict[str, dict[str, np.ndarray]]:
        """Returns by head `mean`, `total`, `aleatoric` and `epistemic` over some draws, calibrated."""
        answer = compile_answer(self.model, self._seed, draws)
        parts = [answer(tf.constant(x[i : i + batch_size], tf.float32)) for i in range(0, len(x), batch_size)]
        first: dict[str, dict[str, Any]] = parts[0]
        return {
            head: {name: np.concatenate([part[head][name].numpy() for part in parts]) for name in quantities}
            for head, quantities in first.items()
        }

    def calibrate(self, x: np.ndarray, y: Targets, *, familiar: np.ndarray | None = None) -> None:
        """Fits temperatures, scales and thresholds to examples that the fit did not see.

        familiar: the training images; novelty then tells how far an image lies from them. Raises NoNovelty where they
        are too few.
        """
        examples = make_examples(x, y, self.model.heads)
        calibrated = calibrate_model(self.model, examples, self._seed)
        if familiar is not None:
            calibrated = add_novelty(calibrated, make_examples(familiar, {}, ()), examples, self._seed)
        self._trained.model, self._trained.held_out = calibrated, examples

    def score(self, x: np.ndarray, y: Targets, *, draws: int = 32) -> dict[str, dict[str, float]]:
        """Returns by head the scores of `probrt evaluate` that need no intervals, over some draws."""
        examples = make_examples(x, y, self.model.heads)
        answers = compute_answers(self.model, examples, seed=self._seed, draws=draws)
        every = np.arange(len(examples))
        scores = {}
        for head in self.model.heads:
            measures = measure_head(head, answers[head.name], examples.targets[head.name], None)
            scores[head.name] = {name: score(every) for name, score in measures.scores.items()}
        return scores

    def save_directory(self, folder: str | Path, x: np.ndarray, y: Targets | None = None) -> Path:
        """Writes a model directory, as `probrt train` does, for `probrt export`; returns it.

        x, y: training examples, of which some are kept for checks at export. Where y has the targets of all heads, the
        directory has a model card, scored on the examples given to `calibrate`; a head that has learned nothing is a
        warning.
        """
        train = make_examples(x, y or {}, self.model.heads)
        complete = len(train.targets) == len(self.model.heads)
        splits = {"train": train} | ({"validation": self._trained.held_out} if self._trained.held_out else {})
        measured = measure_model(self.model, splits if complete else {}, self._seed)
        dataset = Dataset(splits, digest_examples(splits.values()), {})
        provenance = {
            "versions": read_versions(),
            "data_digest": dataset.digest,
            **({} if self._trained.kl_weight is None else {"kl_weight": self._trained.kl_weight}),
            "kl": [msgspec.to_builtins(report) for report in measured.weights],
            "metrics": measured.metrics,
            "novelty": describe_novelty(self.model) or "none: calibrate(…, familiar=images) adds it",
        }
        card = make_python_card(self.model, dataset, provenance) if complete else ""
        save_trained(self.model, Path(folder), train, provenance, card)
        for note in measured.unlearned:
            warnings.warn(note, stacklevel=2)
        return Path(folder)


class HeadLoss(keras.losses.Loss):
    """A head's negative log-likelihood in nats per example, [batch]; 0 where the target is missing."""

    def __init__(self, head: AnyHead) -> None:
        super().__init__(name=head.name)
        self.head = head

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        targets = tf.cast(y_true, tf.int32) if self.head.kind == "class" else tf.cast(y_true, tf.float32)
        return -self.head.fit_log_prob(tf.cast(y_pred, tf.float32), targets)


@dataclasses.dataclass
class _Trained:
    """The current model, which calibration replaces, the weight of its KL, and what it was calibrated on."""

    model: Model
    kl_weight: float | None = None
    held_out: Examples | None = None


def _attach(head: AnyHead, outputs: Mapping[str, keras.KerasTensor]) -> Any:
    """Returns the head's channels, pooled over positions and with those that are the same for all images."""
    if head.name not in outputs:
        raise ConfigError(f"outputs: no tensor for the head {head.name!r}; they name {', '.join(outputs) or 'none'}")
    tensor = outputs[head.name]
    if tensor.shape[-1] != head.channels:
        raise ConfigError(
            f"outputs: {head.name} has {tensor.shape[-1]} channels, the head needs {head.channels}: end with a layer "
            f"such as layers.Dense({head.channels})"
        )
    learned = {head.name: head.learned} if head.learned else {}
    split = HeadSplit([(head.name, head.channels, int(head.per_position))], learned, name=f"heads_{head.name}")
    return split(tensor)[head.name]


def _guess_input(images: keras.KerasTensor) -> Input:
    shape = list(images.shape[1:])
    if len(shape) == 3 and shape[-1] in (1, 3):
        resize: Literal["bilinear", "none"] = "none" if None in shape else "bilinear"
        colour: Literal["grey", "rgb"] = "grey" if shape[-1] == 1 else "rgb"
        return Input(shape=shape, colour=colour, resize=resize, range=(0.0, 255.0))
    return Input(shape=shape, colour="none", resize="none")
