"""Data for a model's page: what the model does on each sequence, and on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.analysis.attribution import attribute_logits, attributed_components
from jax_revinc.compilation.kept_programs import keepable, run_kept
from jax_revinc.model import HookedTransformer
from jax_revinc.report.subject import Subject
from revinc import HookedTransformerConfig, Task
from revinc.number_format import percentage
from revinc.tasks import eval_positions
from revinc.token_labels import sequence_labels, token_label, which_sequences
from revinc.weights import parameter_count

MOST_NUMBERS = 200_000
"""Activations that all sequences of a page may hold together, to keep it small."""
BATCH = 1024
"""Sequences that the model is fed at a time."""


@keepable
class Activity(NamedTuple):
    """A model's answers, attention patterns and MLP outputs, on sequences or on average.

    With a batch axis they are those of each sequence; without it, of one sequence or a mean.

    Attributes:
        right: whether each answer is right, as 0 or 1.
        probability: the probability of each right token.
        patterns: the attention pattern of every layer.
        mlp_outs: the MLP output of every layer; empty for a model without MLPs.
        attribution: what each component adds to the right token's logit minus the mean of the
            others'.
    """

    right: Float[np.ndarray, "*batch n_predicted"]
    probability: Float[np.ndarray, "*batch n_predicted"]
    patterns: tuple[Float[np.ndarray, "*batch n_heads query key"], ...]
    mlp_outs: tuple[Float[np.ndarray, "*batch pos d_model"], ...]
    attribution: Float[np.ndarray, "*batch component n_predicted"]


@dataclass(frozen=True, eq=False)
class View:
    """What a model does on one sequence, or on average over all, as its page shows it.

    Attributes:
        name: the sequence in words.
        split: its split; empty for the mean.
        labels: names of the positions fed to the model, such as "x3=2" or, for the mean, "x3".
        components: names of the rows of `activity.attribution`.
        activity: the arrays.
        answers: rows of a table: by title, a text for each predicted token.
        right: which answers are right; None for the mean.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    components: tuple[str, ...]
    activity: Activity
    answers: dict[str, list[str]]
    right: Bool[np.ndarray, " n_predicted"] | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the model gives any wrong answer on the sequence of this view."""
        return self.right is not None and not self.right.all()

    @property
    def rows(self) -> dict[str, list[Any]]:
        """The page's table of answers, as rows by title: target, predicted, probability, right."""
        return self.answers | ({} if self.right is None else {"right": self.right.tolist()})


def sample_views(subject: Subject) -> list[View]:
    """What a model does on single sequences, in the order of their splits.

    They are as many as the page has room for.
    """
    cfg, task, tokens = subject.cfg, subject.task, subject.tokens
    numbered = [(row, split) for split, rows in subject.splits.items() for row in rows]
    shown = numbered[: n_samples(cfg, task)]
    rows = [row for row, _ in shown]
    predicted, activity = observe(subject, tokens[rows])
    return [
        sample_view(
            task,
            split,
            tokens[row],
            predicted[i],
            attributed_components(cfg),
            jax.tree.map(itemgetter(i), activity),
        )
        for i, (row, split) in enumerate(shown)
    ]


def sample_view(
    task: Task,
    split: str,
    tokens: Int[np.ndarray, " seq"],
    predicted: Int[np.ndarray, " n_predicted"],
    components: tuple[str, ...],
    activity: Activity,
) -> View:
    """Build the `View` of one sequence from the model's predicted tokens and its activations."""
    mask = task.loss_mask()
    return View(
        name=" ".join(given_words(task, tokens)),
        split=split,
        labels=tuple(sequence_labels(task, tokens[:-1])),
        components=components,
        activity=activity,
        answers={
            "target": words_of(task, tokens[mask]),
            "predicted": words_of(task, predicted),
            "probability of the target": [percentage(p) for p in activity.probability],
        },
        right=activity.right.astype(bool),
    )


def given_words(task: Task, tokens: Int[np.ndarray, " seq"]) -> list[str]:
    """The names of a sequence's tokens that a model is given, without BOS."""
    return [word for word in words_of(task, tokens[~task.loss_mask()]) if word != "BOS"]


def mean_view(subject: Subject) -> View:
    """Build the `View` of what a model does on average over all sequences of the task."""
    task, tokens = subject.task, subject.task.sequences()
    starts = range(0, len(tokens), BATCH)
    observed = (observe(subject, tokens[i : i + BATCH]) for i in starts)
    totals = [jax.tree.map(partial(np.sum, axis=0), activity) for _, activity in observed]
    activity = jax.tree.map(lambda *parts: sum(parts) / len(tokens), *totals)
    return View(
        name=f"mean of {which_sequences(task)}",
        split="",
        labels=task.position_labels[:-1],
        components=attributed_components(subject.cfg),
        activity=activity,
        answers={
            "predicted right": [percentage(share) for share in activity.right],
            "mean probability of the target": [percentage(p) for p in activity.probability],
        },
    )


def observe(
    subject: Subject, tokens: Int[np.ndarray, "batch seq"]
) -> tuple[Int[np.ndarray, "batch n_predicted"], Activity]:
    """Run a model on sequences, and return its predicted tokens and its activity.

    One kept program serves all blocks of sequences: a shorter one is filled up.
    """
    cfg, task = subject.cfg, subject.task
    width = min(BATCH, len(task.sequences()))
    settings = {"predicted": eval_positions(task)}
    blocks = []
    for start in range(0, len(tokens), width):
        rows = np.arange(start, start + width).clip(max=len(tokens) - 1)
        block = tokens[rows].astype(np.int32)
        arguments = {"params": subject.weights, "tokens": block}
        work = parameter_count(cfg) * block.size
        found = run_kept(observe_block, cfg, settings, arguments, work)
        blocks.append(jax.tree.map(itemgetter(np.s_[: len(tokens) - start]), found))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)


def observe_block(
    cfg: HookedTransformerConfig,
    *,
    predicted: Sequence[int],
    params: Mapping[str, Array],
    tokens: Int[Array, "batch seq"],
) -> tuple[Int[Array, "batch n_predicted"], Activity]:
    """The result of `observe` on one block, as a function that can be traced."""
    model, at = HookedTransformer(cfg, params=params), np.array(predicted)
    logits, cache = model.run_with_cache(tokens[:, :-1])
    targets = tokens[:, at]
    probs = jax.nn.softmax(logits[:, at - 1], axis=-1)
    answers = probs.argmax(axis=-1)
    every_token = np.ones(cfg.d_vocab_out, dtype=bool)
    votes = attribute_logits(model, cache, tokens, at, every_token).stack
    layers = range(cfg.n_layers)
    found: dict[str, Any] = {
        "right": (answers == targets).astype(probs.dtype),
        "probability": jnp.take_along_axis(probs, targets[..., None], axis=-1)[..., 0],
        "patterns": tuple(cache["pattern", layer] for layer in layers),
        "mlp_outs": tuple(cache["mlp_out", layer] for layer in layers if not cfg.attn_only),
        "attribution": jnp.moveaxis(votes, 0, 1),
    }
    return answers, Activity(**found)


def n_samples(cfg: HookedTransformerConfig, task: Task) -> int:
    """The number of sequences that the page shows one by one: fewer for a large model."""
    sequences = task.sequences()
    fed = sequences.shape[1] - 1
    per_sample = cfg.n_layers * fed * (cfg.n_heads * fed + cfg.d_model)
    return int(np.clip(MOST_NUMBERS // per_sample, 1, len(sequences)))


def words_of(task: Task, tokens: Int[np.ndarray, " n"]) -> list[str]:
    """The list of names that a task gives to the token ids `tokens`."""
    return [token_label(task, int(token)) for token in tokens]
