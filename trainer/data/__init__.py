"""Training data: a folder of images and its table, checked as a whole before any training."""

from __future__ import annotations

from probrt.trainer.data.batches import Batch, evaluation_batches, training_batches
from probrt.trainer.data.examples import Dataset, Examples, standardise_heads
from probrt.trainer.data.faults import FaultyData
from probrt.trainer.data.read import read_dataset, read_folder
from probrt.trainer.data.summary import summarise

__all__ = [
    "Batch",
    "Dataset",
    "Examples",
    "FaultyData",
    "evaluation_batches",
    "read_dataset",
    "read_folder",
    "standardise_heads",
    "summarise",
    "training_batches",
]
