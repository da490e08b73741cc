"""What a page is about: a model with its task, from a run or from anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jax_revinc.model import HookedTransformer
from jax_revinc.training import Run
from revinc import HookedTransformerConfig, Task
from revinc.dataset import make_dataset
from revinc.weights import StateDict

UNSPLIT = "sequences"
"""The only split of a model whose training is unknown."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, its task, and the sequences from which a page shows some one by one.

    Attributes:
        cfg: the model's config.
        weights: the model's.
        task: the task that it was trained on.
        tokens: the sequences.
        splits: by the name of each split, in the order of the page, its rows of `tokens`.
    """

    cfg: HookedTransformerConfig
    weights: StateDict
    task: Task
    tokens: Int[np.ndarray, "n_sequences seq"]
    splits: Mapping[str, Int[np.ndarray, " rows"]]


def subject_of_run(run: Run) -> Subject:
    """The final model of a run, with the sequences of its splits: holdout first."""
    dataset = make_dataset(run.config)
    splits = {"holdout": dataset.holdout_rows, "train": dataset.train_rows}
    return Subject(run.config.model, run.state_dict(), run.config.task, dataset.tokens, splits)


def subject_of_model(model: HookedTransformer, task: Task) -> Subject:
    """A model whose training is unknown, with all sequences of a task."""
    tokens = task.sequences()
    splits = {UNSPLIT: np.arange(len(tokens))}
    return Subject(model.cfg, model.state_dict(), task, tokens, splits)
