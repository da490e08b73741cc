"""Measure on a model what the tutorial claims: attention reverses the tokens, an MLP adds 1."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.activations.activation_cache import ActivationCache
from jax_revinc.analysis.attention import reversal_score
from jax_revinc.analysis.increment import (
    Increment,
    component_labels,
    heads_among_components,
    score_increments,
)
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.hooks.hook_points import HookPoint
from jax_revinc.model import HookedTransformer
from revinc import HookedTransformerConfig, Task, UserError
from revinc.number_format import percentage, whole_percentage
from revinc.tasks import eval_positions

Acts = dict[str, Array]

WRITTEN = ("hook_embed", "hook_z", "hook_mlp_out")
"""The activations that components write."""

Records = dict[str, dict[str, Any]]

MOST_OF_ATTENTION = 0.5
"""A head reads a cell with at least this attention: more than on all other positions together."""

MOST_OF_INCREMENT = 0.5
"""A component increments if it makes this share of the answers' logits: more than all others."""

MOST_OF_SKILL = 0.5
"""A share of the way from guessing's accuracy (0) to the intact model's (1).

A component is necessary if less is left without it, sufficient if as much comes back with it alone.
"""


class Claims(NamedTuple):
    """Whether a model's attention reverses tokens and an MLP adds 1, with the numbers behind it.

    In a model that is no better than guessing, no component increments, is necessary or sufficient.

    Components are in the order of `component_labels`: ``embed`` (the direct path), heads, MLPs.
    Cells are those of `revinc.tasks.reading_cells`, one for each predicted token.

    Attributes:
        accuracy: the share of predicted tokens, over all sequences of the task, that are right.
        solved: whether `accuracy` reaches `revinc.tasks.Task.solved`.
        reading: each head's attention from the row that predicts a token to the position that
            decides it, mean over all sequences.
        head_reverses: the mean of `reading` over the cells is at least `MOST_OF_ATTENTION`.
        attention_reverses: for every cell off the diagonal, the `reading` of some head is at least
            `MOST_OF_ATTENTION`. (On the diagonal the deciding token stands at the predicting row,
            and attention need not fetch it.)
        increment: `increment_score`'s ``increment``: how well the component maps the deciding token
            to its answer.
        increment_share: the share of the answers' logits that the component makes. The part that
            heads copy from the embeddings counts as ``embed``'s: it lies in ``W_E`` and ``W_U``.
        increments: `increment_share` is at least `MOST_OF_INCREMENT`. Often no component's is.
        accuracy_without: the accuracy if the component always writes its mean over all sequences
            (mean ablation).
        necessary: `accuracy_without` is less than `MOST_OF_SKILL` of the way from guessing.
        accuracy_restored: the share of the original answers that come back on a sequence whose
            deciding tokens were all changed, if the component alone writes its original output.
        sufficient: `accuracy_restored` is at least `MOST_OF_SKILL` of the way from guessing. A
            component that carries all information about the answer is sufficient, whether or not it
            increments; so the head before a sufficient MLP is too.
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
        """The claims about one model in plain Python: a record for each head and each component.

        Args:
            cfg: the model's config.
        """
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
        """The claims about one model as sentences, each with the numbers that it rests on.

        Args:
            cfg: the model's config.
        """
        told = self.to_dict(cfg)
        components = told["components"]
        right = f"{percentage(told['accuracy'], 1)} of the predicted tokens are right"
        reading = listed(told["heads"], "mean_reading", "reverses")
        needed = listed(components, "accuracy_without", "necessary")
        enough = listed(components, "accuracy_restored", "sufficient")
        return [
            f"The model {'solves' if told['solved'] else 'does not solve'} the task: {right}.",
            f"Attention {'fetches' if told['attention_reverses'] else 'does not fetch'} the right "
            f"token for every answer. Most of a head's attention is on it in {reading or 'none'}.",
            *([made_by(components)] if told["solved"] else []),
            f"Needed, with the accuracy that is left without it: {needed or 'none'}.",
            f"Enough on its own, with the share of answers that it restores: {enough or 'none'}.",
        ]


@with_numerics
def claims(model: HookedTransformer, task: Task) -> Claims:
    """Measure on a model what the tutorial claims: attention reverses tokens, an MLP adds 1.

    Args:
        model: the model.
        task: the task that it was trained on.

    Raises:
        UserError: for a task whose answers are not each decided by one token, or in which the
            deciding tokens can't all be changed at once.
    """
    if not isinstance(task, Task):
        raise UserError(f"task must be a Task, such as Copy(length=4), not {type(task).__name__}")
    return _claims(
        model,
        jnp.asarray(task.sequences()),
        jnp.asarray(partners(task)),
        eval_positions(task),
        task.sources,
        task.answers,
        task.solved,
    )


def partners(task: Task) -> Int[np.ndarray, " n_sequences"]:
    """The index of each sequence's partner, where each token t that decides an answer is t + 1.

    Raises:
        UserError: if no single token decides each answer, or there is no such sequence.
    """
    if not task.sources:
        raise UserError(
            "claims and patching need a task in which one token decides each answer; in the task "
            f"{task.name}, no single token does (the task has no sources)"
        )
    deciding = task.sequences()[:, sorted(set(task.sources))]
    index = {tuple(tokens): i for i, tokens in enumerate(deciding.tolist())}
    try:
        changed = ((deciding + 1) % len(task.answers)).tolist()
        return np.array([index[tuple(tokens)] for tokens in changed])
    except KeyError as missing:
        raise UserError(
            "claims and patching compare every sequence with one in which t + 1 replaces each "
            "token t that decides an answer; no sequence of the task has the deciding tokens "
            f"{list(missing.args[0])}"
        ) from None


def why_none(task: Task) -> str:
    """The reason why the tutorial's claims can't be measured on a task; empty if they can."""
    try:
        partners(task)
    except UserError as error:
        return str(error)
    return ""


def fewest_right(solved: float, n: int) -> int:
    """The least number of right answers, out of `n`, whose share is at least `solved`."""
    near = math.ceil(solved * n)  # may be 1 too large: the product is rounded
    return next(k for k in itertools.count(near - 1) if k / n >= solved)


@functools.partial(jax.jit, static_argnames=("predicted", "sources", "answers", "solved"))
def _claims(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"],
    partner: Int[Array, " batch"],
    predicted: tuple[int, ...],
    sources: tuple[int, ...],
    answers: tuple[int, ...],
    solved: float,
) -> Claims:
    run = model.run_with_cache(tokens[:, :-1])
    score = score_increments(model, tokens, predicted, sources, answers, run)
    return measure_claims(model, tokens, partner, predicted, sources, solved, run, score)


def measure_claims(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"],
    partner: Int[Array, " batch"],
    predicted: tuple[int, ...],
    sources: tuple[int, ...],
    solved: float,
    run: tuple[Array, ActivationCache],
    score: Increment,
) -> Claims:
    """The result of `claims`, as a function that can be traced.

    Args:
        model: the model.
        tokens: all sequences of the task.
        partner: from `partners`.
        predicted: the task's eval positions.
        sources, solved: the task's.
        run: the logits and the activations on these sequences.
        score: the increment score on them.
    """
    cfg = model.cfg
    rows, columns = jnp.array(predicted) - 1, jnp.array(sources)
    fed, targets = tokens[:, :-1], tokens[:, jnp.array(predicted)]
    logits, cache = run

    def is_right(logits: Array) -> Bool[Array, "batch cells"]:
        return logits[:, rows].argmax(-1) == targets

    def accuracies(inputs: tuple[Array, Acts]) -> Array:
        """For each component, the accuracy if its output is replaced by the one given."""
        fed, others = inputs
        one_by_one = jnp.eye(len(component_labels(cfg)), dtype=bool)
        logits = jax.vmap(lambda which: with_written(model, fed, others, which))(one_by_one)
        return jax.vmap(is_right)(logits).mean((1, 2), dtype=cfg.dtype)

    acts = {name: activation for name, activation in cache.items() if name.endswith(WRITTEN)}
    means = {name: jnp.broadcast_to(act.mean(0), act.shape) for name, act in acts.items()}
    right = is_right(logits)
    intact = right.mean(dtype=cfg.dtype)
    both = jax.tree.map(lambda *pair: jnp.stack(pair), (fed, means), (fed[partner], acts))
    without, restored = jax.lax.map(accuracies, both)
    guessing = 1 / score.writes.shape[-2]
    necessary, sufficient = judge(intact, guessing, without, restored)

    patterns_LBHQK = jnp.stack([cache["pattern", layer] for layer in range(cfg.n_layers)])
    cells = [(position - 1, source) for position, source in zip(predicted, sources, strict=True)]
    reading_LHI = reversal_score(patterns_LBHQK, cells).attention
    fetched = rows != columns
    passed_on = score.passed_on[heads_among_components(cfg)].sum()
    share = score.share.at[0].add(passed_on)
    return Claims(
        accuracy=intact,
        solved=right.sum() >= fewest_right(solved, right.size),
        reading=reading_LHI,
        head_reverses=reading_LHI.mean(-1) >= MOST_OF_ATTENTION,
        attention_reverses=((reading_LHI >= MOST_OF_ATTENTION).any((0, 1)) | ~fetched).all(),
        increment=score.increment,
        increment_share=share,
        increments=(intact > guessing) & (share >= MOST_OF_INCREMENT),
        accuracy_without=without,
        necessary=necessary,
        accuracy_restored=restored,
        sufficient=sufficient,
    )


def judge(
    intact: Float[Array, ""],
    guessing: float,
    without: Float[Array, " components"],
    restored: Float[Array, " components"],
) -> tuple[Bool[Array, " components"], Bool[Array, " components"]]:
    """Decide from accuracies which components are necessary and which sufficient; return two masks.

    Args:
        intact: the accuracy of the intact model.
        guessing: the accuracy of guessing.
        without: the accuracy without each component.
        restored: the accuracy that each component alone restores.
    """
    skilled, enough = intact > guessing, guessing + MOST_OF_SKILL * (intact - guessing)
    return skilled & (without < enough), skilled & (restored >= enough)


def with_written(
    model: HookedTransformer,
    fed: Int[Array, "batch pos"],
    others: Acts,
    which: Bool[Array, " components"],
) -> Float[Array, "batch pos d_vocab_out"]:
    """The logits of a forward pass in which some components' outputs come from another pass.

    The direct path is changed at its end: the last residual stream gets the other embedding instead
    of its own, and heads and MLPs read the original one.

    Args:
        model: the model.
        fed: the ids fed.
        others: the activations of the other forward pass by hook name, [batch or 1, ...].
        which: the components to replace, in the order of `component_labels`.
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
    """Turn named columns, with an entry for each label, into a dict by column name per label."""
    return {
        label: {name: column[i].tolist() for name, column in columns.items()}
        for i, label in enumerate(labels)
    }


def made_by(components: Records) -> str:
    """A sentence on which component makes the answers of a model that solves its task."""
    makers = listed(components, "increment_share", "increments")
    if not makers:
        return f"No component alone makes the answers: {listed(components, 'increment_share')}."
    against = any(of["increment_share"] > 1 for of in components.values() if of["increments"])
    but = " (other components work against it)" if against else ""
    return f"The answers are made by {makers}{but}."


def listed(records: Records, number: str, claim: str | None = None) -> str:
    """Format a number of each record as a percentage, such as ``"L0H0 83%, 1_mlp_out 40%"``.

    With `claim`, only the records in which that claim holds are listed.
    """
    return ", ".join(
        f"{label} {whole_percentage(record[number])}"
        for label, record in records.items()
        if claim is None or record[claim]
    )
