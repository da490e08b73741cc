"""The tutorial's claims, tested on any model: attention reverses, the MLP increments."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.analysis.attention import reversal_score
from jax_revinc.analysis.increment import component_labels, heads_among_components, increment_score
from jax_revinc.hooks import HookPoint
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params
from revinc import HookedTransformerConfig, Task, UserError
from revinc.tasks import predicted_positions

Acts = dict[str, Array]
Records = dict[str, dict[str, Any]]

MOST_OF_ATTENTION = 0.5
"""A head reads a cell if it gives it this much: more, then, than to all other positions together."""

MOST_OF_INCREMENT = 0.5
"""A component increments if it makes this share of the answers' logits: more, then, than the others net."""

MOST_OF_SKILL = 0.5
"""Accuracies are judged on the way from guessing (0) to the intact model (1): a component is necessary if
less than this is left without it, sufficient if this much comes back with it alone."""


class Claims(NamedTuple):
    """What holds of a model, with the evidence. Arrays, so that `claims` runs under jit and vmap.

    Of a model that is no better than guessing, no component increments, is necessary or is sufficient.

    Components are in the order of `component_labels`: ``embed`` (the direct path), heads, MLPs. Cells are those
    of `revinc.tasks.reading_cells`, one for each predicted token.

    Attributes:
        accuracy: of the predicted tokens of all sequences of the task.
        solved: as many of them are right as solve the task, `revinc.tasks.Task.solved`.
        reading: each head's attention from the row that predicts a token to the position that decides it, mean
            over all sequences.
        head_reverses: mean `reading` over the cells is `MOST_OF_ATTENTION` or more.
        attention_reverses: of every cell off the diagonal, some head reads that much. (On the diagonal the
            deciding token stands at the predicting row, and nothing needs to be fetched.)
        increment: the component's map from deciding token to logits is the answer's; see `increment_score`.
        increment_share: the share of the answers' logits that it makes. What heads pass on, having read it in the
            embeddings, is counted as ``embed``'s: it lies in ``W_E`` and ``W_U``.
        increments: that share is `MOST_OF_INCREMENT` or more. Often this holds of no component.
        accuracy_without: accuracy if the component always writes its mean over all sequences (mean ablation).
        necessary: `accuracy_without` keeps less than `MOST_OF_SKILL`.
        accuracy_restored: how often, on a sequence all of whose deciding tokens were changed, the original answers
            come back if the component alone writes what it wrote on the original sequence.
        sufficient: `accuracy_restored` has `MOST_OF_SKILL` or more. What carries all information about the answer
            is sufficient, whether or not it increments; so the head before a sufficient MLP is too.
    """

    accuracy: Float[Array, ""]
    solved: Bool[Array, ""]
    reading: Float[Array, "n_layers n_heads cells"]
    head_reverses: Bool[Array, "n_layers n_heads"]
    attention_reverses: Bool[Array, ""]
    increment: Float[Array, " components"]
    increment_share: Float[Array, " components"]
    increments: Bool[Array, " components"]
    accuracy_without: Float[Array, " components"]
    necessary: Bool[Array, " components"]
    accuracy_restored: Float[Array, " components"]
    sufficient: Bool[Array, " components"]

    def to_dict(self, cfg: HookedTransformerConfig) -> dict[str, Any]:
        """The claims on one model of config `cfg` in plain Python: a record per head and per component."""
        found = jax.tree.map(np.asarray, self)  # numpy keeps float64 outside `numerics` too
        components = component_labels(cfg)
        heads = components[heads_among_components(cfg)]
        by_head = {
            "reading": found.reading.reshape(len(heads), -1),
            "mean_reading": found.reading.mean(-1).reshape(-1),
            "reverses": found.head_reverses.reshape(-1),
        }
        by_component = {
            name: getattr(found, name)
            for name in (
                "increment",
                "increment_share",
                "increments",
                "accuracy_without",
                "necessary",
                "accuracy_restored",
                "sufficient",
            )
        }
        return {
            "accuracy": found.accuracy.item(),
            "solved": found.solved.item(),
            "attention_reverses": found.attention_reverses.item(),
            "heads": records(heads, by_head),
            "components": records(components, by_component),
        }

    def sentences(self, cfg: HookedTransformerConfig) -> list[str]:
        """The claims on one model of config `cfg` in words, each with its evidence."""
        told = self.to_dict(cfg)
        components = told["components"]
        solves = "solves" if told["solved"] else "does not solve"
        reads = "reads" if told["attention_reverses"] else "does not read"
        reading = listed(told["heads"], "mean_reading", "reverses")
        made = listed(components, "increment_share", "increments")
        no_maker = f"no component alone ({listed(components, 'increment_share')})"
        return [
            f"The model {solves} the task: {told['accuracy']:.1%} of the predicted tokens are right.",
            f"Attention {reads} every deciding position. "
            f"Heads that give them most of their attention: {reading or 'none'}.",
            f"Most of the increment is made by {made or no_maker}.",
            "Necessary (with what accuracy without it): "
            f"{listed(components, 'accuracy_without', 'necessary') or 'none'}.",
            "Sufficient (with what share of the answers restored by it alone): "
            f"{listed(components, 'accuracy_restored', 'sufficient') or 'none'}.",
        ]


@with_numerics
def claims(model: HookedTransformer, task: Task) -> Claims:
    """Put the tutorial's claims to a model: what holds of it, over all sequences of the task.

    Raises:
        UserError: for a task whose answers do not each hang on one token, or in which the tokens that
            decide the answers can't all be changed at once.
    """
    return _claims(
        model.cfg,
        model.params,
        jnp.asarray(task.sequences()),
        jnp.asarray(partners(task)),
        predicted_positions(task),
        task.sources,
        task.answers,
        task.solved,
    )


def partners(task: Task) -> Int[np.ndarray, " n_sequences"]:
    """For each sequence the index of one in which every deciding token is another (the next token).

    Raises:
        UserError: if no single token decides each answer, or there is no such sequence.
    """
    if not task.sources:
        raise UserError(
            f"this needs a task in which one token decides each answer; {task.name} names no sources"
        )
    deciding = task.sequences()[:, sorted(set(task.sources))]
    index = {tuple(tokens): i for i, tokens in enumerate(deciding.tolist())}
    try:
        changed = ((deciding + 1) % len(task.answers)).tolist()
        return np.array([index[tuple(tokens)] for tokens in changed])
    except KeyError as missing:
        raise UserError(
            f"this needs, for every sequence, one whose deciding tokens are all the next ones; "
            f"no sequence has {list(missing.args[0])}"
        ) from None


def why_none(task: Task) -> str:
    """Why no claims can be put to models of a task, and no answers patched; empty if they can."""
    try:
        partners(task)
    except UserError as error:
        return str(error)
    return ""


@functools.partial(jax.jit, static_argnames=("cfg", "predicted", "sources", "answers", "solved"))
def _claims(
    cfg: HookedTransformerConfig,
    params: Params,
    tokens: Int[Array, "batch seq"],
    partner: Int[Array, " batch"],
    predicted: tuple[int, ...],
    sources: tuple[int, ...],
    answers: tuple[int, ...],
    solved: float,
) -> Claims:
    model = HookedTransformer(cfg, params=params)
    rows, columns = jnp.array(predicted) - 1, jnp.array(sources)
    fed, targets = tokens[:, :-1], tokens[:, jnp.array(predicted)]
    logits, cache = model.run_with_cache(fed)

    def is_right(logits: Array) -> Bool[Array, "batch cells"]:
        return logits[:, rows].argmax(-1) == targets

    def accuracies(fed: Array, others: Acts) -> Array:
        """Accuracy if one component after the other writes as in `others`."""
        one_by_one = jnp.eye(len(component_labels(cfg)), dtype=bool)
        logits = jax.vmap(lambda which: with_written(model, fed, others, which))(one_by_one)
        return jax.vmap(is_right)(logits).mean((1, 2), dtype=cfg.dtype)

    acts = dict(cache)
    means = {name: activation.mean(0, keepdims=True) for name, activation in acts.items()}
    right = is_right(logits)
    intact = right.mean(dtype=cfg.dtype)
    without = accuracies(fed, means)
    restored = accuracies(fed[partner], acts)
    guessing = 1 / len(answers)
    skilled, enough = intact > guessing, guessing + MOST_OF_SKILL * (intact - guessing)

    patterns_LBHQK = jnp.stack([cache["pattern", layer] for layer in range(cfg.n_layers)])
    cells = [(position - 1, source) for position, source in zip(predicted, sources, strict=True)]
    reading_LHC = reversal_score(patterns_LBHQK, cells).attention
    fetched = rows != columns
    score = increment_score(model, tokens, predicted, sources, answers)
    passed_on = score.passed_on[heads_among_components(cfg)].sum()
    share = score.share.at[0].add(passed_on)
    return Claims(
        accuracy=intact,
        solved=right.sum() >= math.ceil(solved * right.size),
        reading=reading_LHC,
        head_reverses=reading_LHC.mean(-1) >= MOST_OF_ATTENTION,
        attention_reverses=((reading_LHC >= MOST_OF_ATTENTION).any((0, 1)) | ~fetched).all(),
        increment=score.increment,
        increment_share=share,
        increments=skilled & (share >= MOST_OF_INCREMENT),
        accuracy_without=without,
        necessary=skilled & (without < enough),
        accuracy_restored=restored,
        sufficient=skilled & (restored >= enough),
    )


def with_written(
    model: HookedTransformer,
    fed: Int[Array, "batch pos"],
    others: Acts,
    which: Bool[Array, " components"],
) -> Float[Array, "batch pos d_vocab_out"]:
    """The logits if components write what they wrote in another forward pass.

    The direct path is changed where it ends: the last residual stream has the other embedding in place of
    its own; what heads and MLPs make of the embedding stays.

    Args:
        fed: ids.
        others: the activations to take over, [batch or 1, ...].
        which: of the components, in the order of `component_labels`.
    """
    cfg = model.cfg
    heads = heads_among_components(cfg)
    heads_LH = which[heads].reshape(cfg.n_layers, cfg.n_heads)
    mlps_L = which[heads.stop :]
    last = f"blocks.{cfg.n_layers - 1}.hook_resid_post"

    def tap(name: str, activation: Array) -> Array:
        if name.endswith("hook_z"):
            taken = heads_LH[HookPoint(name).layer(), :, None]
            return jnp.where(taken, others[name], activation)
        if name.endswith("hook_mlp_out"):
            return jnp.where(mlps_L[HookPoint(name).layer()], others[name], activation)
        if name == last:
            return activation + which[0] * (others["hook_embed"] - model.embed(fed))
        return activation

    return model(fed, tap=tap)


def records(labels: tuple[str, ...], columns: dict[str, Array]) -> Records:
    """One dict per label from columns of one value (or row of values) per label."""
    return {
        label: {name: column[i].tolist() for name, column in columns.items()}
        for i, label in enumerate(labels)
    }


def listed(records: Records, number: str, claim: str | None = None) -> str:
    """``"L0H0 83%, 1_mlp_out 40%"``: a number of every record, or of those of which a claim holds."""
    return ", ".join(
        f"{label} {record[number]:.0%}"
        for label, record in records.items()
        if claim is None or record[claim]
    )
