"""The tables of a comparison of two runs: configs, outcomes, claims, weights and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jax_revinc.report.model_behaviour import given_words, observe, words_of
from jax_revinc.report.model_findings import find
from jax_revinc.report.subject import subject_of_run
from jax_revinc.training import Run
from revinc.dataset import make_dataset
from revinc.number_format import percentage
from revinc.weights import StateDict

ABSENT = "none"
"""The cell of a run that lacks a field, a component or a parameter."""

ENGINES = {
    "xla": "JAX, compiled by XLA",
    "fused": "the fused engine",
    "torch": "torch_reference, by TransformerLens in torch",
}
"""What trains a run, in words, by the engine's name."""

MOST_VALUES = 8
"""Values of a list that are written one by one."""

MOST_LISTED = 32
"""Sequences that are listed one by one."""

Rows = dict[str, list[Any]]
"""The rows of a table: by title, a cell for each column."""


class Predictions(NamedTuple):
    """What two models predict on all sequences of a task.

    Attributes:
        answers: each model's predicted tokens.
        right: which of each model's answers are right.
    """

    answers: Int[np.ndarray, "two n_sequences n_predicted"]
    right: Bool[np.ndarray, "two n_sequences n_predicted"]

    @property
    def all_right(self) -> Bool[np.ndarray, "two n_sequences"]:
        """On which sequences each model predicts every token right."""
        return np.asarray(self.right.all(axis=-1))

    @property
    def differ(self) -> Bool[np.ndarray, " n_sequences"]:
        """On which sequences the two models predict different tokens."""
        one, other = self.answers
        return (one != other).any(axis=1)


def engine_in_words(run: Run) -> str:
    """The engine that trained a run, in words."""
    name = run.engine["name"]
    return ENGINES.get(name, name)


def differing_fields(runs: Sequence[Run]) -> Rows:
    """The fields of two runs' configs and engines that differ, with the value of each run."""
    here, there = ({**run.config.to_dict(), "engine": run.engine} for run in runs)
    return {
        "engine" if (section, field) == ("engine", "name") else field: [
            shown_value(fields.get(field, ABSENT)) for fields in (here[section], there[section])
        ]
        for section in here
        for field in {**here[section], **there[section]}
        if here[section].get(field) != there[section].get(field)
    }


def shown_value(value: Any) -> Any:
    """A config's value as a cell of a table; a long list by its length."""
    if isinstance(value, list | tuple):
        few = len(value) <= MOST_VALUES
        return ", ".join(map(str, value)) or ABSENT if few else f"{len(value)} values"
    return str(value)


def final_metrics(runs: Sequence[Run], predictions: Predictions) -> Rows:
    """The final accuracy and loss of two runs on each split, and on all sequences of the task."""
    last = [run.metrics.iloc[-1] for run in runs]
    rows: Rows = {}
    for split in ("train", "holdout"):
        rows[f"{split} accuracy"] = [percentage(row[f"{split}_accuracy"]) for row in last]
        rows[f"{split} loss"] = [f"{row[f'{split}_loss']:.4g}" for row in last]
    rows["accuracy on the whole task"] = [percentage(right.mean()) for right in predictions.right]
    return rows


def claim_rows(runs: Sequence[Run]) -> Rows:
    """The tutorial's claims about the models of two runs, side by side: numbers and verdicts."""
    tables = [claim_cells(run) for run in runs]
    titles = dict.fromkeys(title for table in tables for title in table)
    return {title: [table.get(title, ABSENT) for table in tables] for title in titles}


def claim_cells(run: Run) -> dict[str, Any]:
    """The claims about the model of a run, by title; numbers have their verdict behind them."""
    cfg = run.config.model
    found = find(cfg, run.state_dict(), run.config.task).claims
    if found is None:
        return {}
    told = found.to_dict(cfg)
    cells = {
        "solves the task": told["solved"],
        "attention fetches the token for every answer": told["attention_reverses"],
    }
    for head, record in told["heads"].items():
        cells[f"{head}: attention on the needed token"] = judged(
            f"{record['mean_reading']:.2f}", record["reverses"]
        )
    for title, number, verdict in (
        ("share of the answer", "increment_share", "increments"),
        ("accuracy without it", "accuracy_without", "necessary"),
        ("answers that it restores", "accuracy_restored", "sufficient"),
    ):
        for component, record in told["components"].items():
            cells[f"{component}: {title}"] = judged(percentage(record[number]), record[verdict])
    return cells


def judged(number: str, holds: bool) -> str:
    """A number with a mark: whether the claim that rests on it holds."""
    return f"{number} {'✓' if holds else '✗'}"


def weight_rows(one: StateDict, other: StateDict) -> Rows:
    """For each parameter, the largest difference of two models and the first one's largest weight.

    A parameter that only one model has, or that has another shape, is named with its shapes.
    """
    rows: Rows = {}
    for name in {**one, **other}:
        shapes = [
            " by ".join(map(str, weights[name].shape)) if name in weights else ABSENT
            for weights in (one, other)
        ]
        if shapes[0] != shapes[1]:
            rows[name] = [f"shapes {shapes[0]} and {shapes[1]}", ""]
        else:
            rows[name] = [f"{apart(one[name], other[name]):.2g}", f"{np.abs(one[name]).max():.2g}"]
    return rows


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of the elements of two arrays."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def weight_sentence(which: str, one: StateDict, other: StateDict) -> str:
    """A sentence on how far the weights of two models are apart.

    Args:
        which: the weights in words, such as "The final weights".
        one: weights by name.
        other: those of the other model.
    """
    if {name: w.shape for name, w in one.items()} != {name: w.shape for name, w in other.items()}:
        return f"{which} have other shapes."
    if all(one[name].tobytes() == other[name].tobytes() for name in one):
        return f"{which} are equal, bit for bit."
    distances = {name: apart(one[name], other[name]) for name in one}
    furthest = max(distances, key=lambda name: distances[name])
    return f"{which} differ by {distances[furthest]:.2g} at most, in {furthest}."


def predict(runs: Sequence[Run]) -> Predictions:
    """What the models of two runs predict on all sequences of their task."""
    tokens = runs[0].config.task.sequences()
    found = [observe(subject_of_run(run), tokens) for run in runs]
    answers = np.stack([np.asarray(predicted) for predicted, _ in found])
    right = np.stack([np.asarray(activity.right).astype(bool) for _, activity in found])
    return Predictions(answers, right)


def right_counts(predictions: Predictions, names: Sequence[str]) -> dict[str, str]:
    """How many sequences both models, only one, or neither predict right, as text by title."""
    one, other = predictions.all_right
    counts = {
        "both right": one & other,
        f"only {names[0]} right": one & ~other,
        f"only {names[1]} right": ~one & other,
        "both wrong": ~one & ~other,
    }
    return {title: f"{mask.sum():,}" for title, mask in counts.items()}


def differing_rows(runs: Sequence[Run], predictions: Predictions) -> Rows:
    """The sequences that two models predict differently, with target, both answers and the split.

    They are at most `MOST_LISTED`; those that are in the holdout of both runs come first.
    """
    task, splits = runs[0].config.task, splits_of(runs)
    which = np.flatnonzero(predictions.differ)
    if len(splits):
        which = which[np.argsort(splits[which] != "holdout", kind="stable")]
    rows: Rows = {}
    for i in which[:MOST_LISTED]:
        tokens = task.sequences()[i]
        answers = zip(predictions.answers[:, i], predictions.all_right[:, i], strict=True)
        rows[" ".join(given_words(task, tokens))] = [
            " ".join(words_of(task, tokens[task.loss_mask()])),
            *(judged(" ".join(words_of(task, answer)), right) for answer, right in answers),
            *splits[i : i + 1],
        ]
    return rows


def splits_of(runs: Sequence[Run]) -> np.ndarray:
    """The split of every sequence of the task, or both splits of two runs that differ in it.

    The array is empty if examples are drawn, which belong to no split.
    """
    if runs[0].config.task.is_drawn:
        return np.array([])
    one, other = (make_dataset(run.config).train_mask for run in runs)
    splits = np.where(one, "train / holdout", "holdout / train")
    splits[one & other], splits[~one & ~other] = "train", "holdout"
    return splits
