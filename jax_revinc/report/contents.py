"""What a report shows of a trained model, as arrays: its views of single sequences and of all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.analysis.attribution import logit_attribution
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import numerics
from jax_revinc.training import Run
from revinc import Task, TrainConfig
from revinc.dataset import make_dataset
from revinc.labels import sequence_labels, token_label, which_sequences
from revinc.tasks import predicted_positions

MOST_NUMBERS = 200_000
"""How many activations the sequences of one report may hold together, to keep the page small."""
MOST_WEIGHTS = 2**14
"""The largest weight matrix that is shown."""
BATCH = 1024
"""How many sequences the model sees at a time."""


class Activity(NamedTuple):
    """What a model did on sequences: with a leading axis for each, or for one, or on average.

    `mlp_outs` is empty for a model without MLPs. `attribution` is what each component adds to the right token's
    logit beyond the others'; a view names its components.
    """

    right: Float[np.ndarray, "*batch n_predicted"]
    probability: Float[np.ndarray, "*batch n_predicted"]
    patterns: tuple[Float[np.ndarray, "*batch n_heads query key"], ...]
    mlp_outs: tuple[Float[np.ndarray, "*batch pos d_model"], ...]
    attribution: Float[np.ndarray, "*batch component n_predicted"]


@dataclass(frozen=True, eq=False)
class View:
    """One sequence, or the mean over all sequences, as the model saw it.

    `split` is the sequence's, and empty in the mean. `labels` name the positions fed to the model, as "x3=2" or,
    in the mean, "x3"; `components` those of its attribution. `answers` is a small table, row title to one text per
    predicted token. `right` is absent from the mean.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    components: tuple[str, ...]
    activity: Activity
    answers: dict[str, list[str]]
    right: Bool[np.ndarray, " n_predicted"] | None = None


def sample_views(model: HookedTransformer, cfg: TrainConfig) -> list[View]:
    """The views of all sequences, holdout first; of a large task or model, as many as there is room for."""
    dataset = make_dataset(cfg)
    splits = {"holdout": dataset.holdout_rows, "train": dataset.train_rows}
    numbered = [(row, split) for split, rows in splits.items() for row in rows]
    shown = numbered[: n_samples(cfg)]
    rows = [row for row, _ in shown]
    predicted, components, activity = observe(cfg, model, dataset.tokens[rows])
    return [
        sample_view(
            cfg.task,
            split,
            dataset.tokens[row],
            predicted[i],
            components,
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
    """The view of one sequence, from the tokens that the model predicted and its activity there."""
    mask = task.loss_mask()
    given = [token for token in words_of(task, tokens[~mask]) if token != "BOS"]
    return View(
        name=" ".join(given),
        split=split,
        labels=tuple(sequence_labels(task, tokens[:-1])),
        components=components,
        activity=activity,
        answers={
            "target": words_of(task, tokens[mask]),
            "predicted": words_of(task, predicted),
            "probability of the target": [percent(p) for p in activity.probability],
        },
        right=activity.right.astype(bool),
    )


def mean_view(model: HookedTransformer, cfg: TrainConfig) -> View:
    """The view that averages over every sequence of the task, both splits."""
    tokens = cfg.task.sequences()
    starts = range(0, len(tokens), BATCH)
    observed = [observe(cfg, model, tokens[i : i + BATCH]) for i in starts]
    totals = [jax.tree.map(partial(np.sum, axis=0), activity) for _, _, activity in observed]
    activity = jax.tree.map(lambda *parts: sum(parts) / len(tokens), *totals)
    return View(
        name=f"mean of {which_sequences(cfg.task)}",
        split="",
        labels=cfg.task.position_labels[:-1],
        components=observed[0][1],
        activity=activity,
        answers={
            "predicted right": [percent(share) for share in activity.right],
            "mean probability of the target": [percent(p) for p in activity.probability],
        },
    )


def observe(
    cfg: TrainConfig, model: HookedTransformer, tokens: Int[np.ndarray, "batch seq"]
) -> tuple[Int[np.ndarray, "batch n_predicted"], tuple[str, ...], Activity]:
    """The tokens that the model predicts where the task asks for one, its components, its activity."""
    predicted_at = predicted_positions(cfg.task)
    with numerics(cfg.model):
        predicted, *activity = jax.tree.map(np.asarray, _observe(model, tokens, predicted_at))
    components, votes = logit_attribution(model, jnp.asarray(tokens), predicted_at)
    activity.append(np.moveaxis(np.asarray(votes), 0, 1))
    return predicted, tuple(components), Activity(*activity)


@partial(jax.jit, static_argnums=2)
def _observe(
    model: HookedTransformer, tokens: Int[Array, "batch seq"], positions: tuple[int, ...]
) -> tuple[Any, ...]:
    logits, cache = model.run_with_cache(tokens[:, :-1])
    targets = tokens[:, jnp.array(positions)]
    probs = jax.nn.softmax(logits[:, jnp.array(positions) - 1], axis=-1)
    predicted = probs.argmax(axis=-1)
    right = (predicted == targets).astype(probs.dtype)
    probability = jnp.take_along_axis(probs, targets[..., None], axis=-1)[..., 0]
    layers = range(model.cfg.n_layers)
    patterns = tuple(cache["pattern", layer] for layer in layers)
    mlp_outs = tuple(cache["mlp_out", layer] for layer in layers if not model.cfg.attn_only)
    return predicted, right, probability, patterns, mlp_outs


def mlp_weights(run: Run) -> list[dict[str, Float[np.ndarray, "rows columns"]]]:
    """W_in [d_model, d_mlp] and W_out [d_mlp, d_model] of every layer; none if absent or too large."""
    cfg = run.config.model
    if cfg.attn_only or cfg.d_model * cfg.d_mlp > MOST_WEIGHTS:
        return []
    weights = run.state_dict()
    return [
        {name: weights[f"blocks.{layer}.mlp.{name}"] for name in ("W_in", "W_out")}
        for layer in range(cfg.n_layers)
    ]


def n_samples(cfg: TrainConfig) -> int:
    """How many sequences are shown: all, or fewer the larger the model, but at least one."""
    sequences = cfg.task.sequences()
    fed = sequences.shape[1] - 1
    per_sample = cfg.model.n_layers * fed * (cfg.model.n_heads * fed + cfg.model.d_model)
    return int(np.clip(MOST_NUMBERS // per_sample, 1, len(sequences)))


def words_of(task: Task, tokens: Int[np.ndarray, " n"]) -> list[str]:
    """The vocabulary's words for token ids."""
    return [token_label(task, int(token)) for token in tokens]


def percent(share: float) -> str:
    """A share as a percentage that says 100 only of a whole."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"
