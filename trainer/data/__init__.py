"""Training data: a folder of images and its table, checked whole before any training."""

from __future__ import annotations

from probrt.trainer.data.batches import batches, evaluation_batches
from probrt.trainer.data.examples import Dataset, Examples, standardised
from probrt.trainer.data.read import Faulty, folder_of, read
from probrt.trainer.data.summary import summary

__all__ = [
    "Dataset",
    "Examples",
    "Faulty",
    "batches",
    "evaluation_batches",
    "folder_of",
    "read",
    "standardised",
    "summary",
]
