"""Ablation: the change in loss and accuracy when one component's activation is replaced.

Ablated one at a time: every attention head (``hook_z``), attention layer (``hook_attn_out``), MLP
(``hook_mlp_out``), neuron (``hook_post``) and position of the residual stream before each block
(``hook_resid_pre``). A norm is ablated in two ways: "norm" replaces its output
(``hook_normalized``, before gain and bias); "norm scale" replaces only the divisor
(``hook_scale``), so at its mean the norm is linear. Zero ablation leaves the divisor out: it can't
be zero.

The replacement is zero, the mean over the batch at each position, or the activation on another
input (Chan et al. 2022, "Causal Scrubbing").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis.interventions import Sites, run_in_lanes, sweep
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.token_checks import Tokens, check_predicted, check_sequences
from jax_revinc.model import HookedTransformer, hook_names
from jax_revinc.objective import token_losses
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_choice

KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "position": ("hook_resid_pre", (1,)),
    "norm": ("hook_normalized", ()),
    "norm scale": ("hook_scale", ()),
    "head": ("attn.hook_z", (2,)),
    "attention": ("hook_attn_out", ()),
    "MLP": ("hook_mlp_out", ()),
    "neuron": ("mlp.hook_post", (2,)),
}
"""By kind of component, the end of its activation's name, and the axis that counts components."""

REPLACEMENTS: dict[str, Callable[[Array, Array], Array]] = {
    "zero": lambda x, _: jnp.zeros_like(x),
    "mean": lambda x, _: jnp.broadcast_to(x.mean(0), x.shape),
    "resample": lambda x, order: x[order],
}
"""By method, the function from an activation and an order of sequences to the replacement.

The order gives the index of the sequence that each sequence is resampled from.
"""

METHODS = tuple(REPLACEMENTS)


class Component(NamedTuple):
    """A component of a model that can be ablated, such as a head, a neuron or a norm.

    Attributes:
        kind: one of `KINDS`.
        hook: the name of the activation that is replaced.
        part: the index of the head, neuron or position; None for the whole activation.
    """

    kind: str
    hook: str
    part: int | None


class Ablation(NamedTuple):
    """The effect on loss and accuracy of ablating each component of a model.

    The components are in the order of the function `components`.

    Attributes:
        loss: mean cross-entropy of the intact model over all predicted tokens, in nats.
        accuracy: share of predicted tokens that the intact model gets right.
        loss_change: the loss with a component ablated, minus `loss`, [components].
        accuracy_change: the accuracy with a component ablated, minus `accuracy`, [components].
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    loss_change: Float[Array, " components"]
    accuracy_change: Float[Array, " components"]


@with_numerics
def zero_ablation(model: HookedTransformer, tokens: Tokens, predicted: tuple[int, ...]) -> Ablation:
    """The change in loss and accuracy when each component's activation is replaced by zeros.

    Args:
        model: the model.
        tokens: whole sequences, [batch, seq]; the model is fed all tokens but the last.
        predicted: the positions whose tokens are predicted, such as `revinc.tasks.eval_positions`.

    Raises:
        UserError: for tokens of a wrong shape, or a position that they lack.
    """
    return ablate(model, tokens, predicted, "zero")


@with_numerics
def mean_ablation(model: HookedTransformer, tokens: Tokens, predicted: tuple[int, ...]) -> Ablation:
    """The change in loss and accuracy when each component's activation is replaced by its mean.

    See `zero_ablation` for the arguments and errors.
    """
    return ablate(model, tokens, predicted, "mean")


@with_numerics
def resample_ablation(
    model: HookedTransformer,
    tokens: Tokens,
    predicted: tuple[int, ...],
    permutation: Int[Array, " batch"] | Int[np.ndarray, " batch"],
) -> Ablation:
    """The change in loss and accuracy when each component's activation is from another sequence.

    The activation on sequence i is replaced by that on sequence ``permutation[i]``.

    Args:
        model, tokens, predicted: see `zero_ablation`.
        permutation: indices of sequences [batch], such as ``jax.random.permutation(key, batch)``.

    Raises:
        UserError: as `zero_ablation`, and for a permutation that has not one index per sequence.
    """
    try:
        order = jnp.asarray(permutation)
    except (TypeError, ValueError):
        raise UserError(f"permutation must be an array of integers, not {permutation!r}") from None
    n_sequences = len(check_sequences(model.cfg, tokens))
    if order.shape != (n_sequences,) or not jnp.issubdtype(order.dtype, jnp.integer):
        raise UserError(
            f"permutation must hold one integer for each of the {n_sequences} sequences, "
            f"not {order.dtype} of shape {list(order.shape)}"
        )
    if not isinstance(order, jax.core.Tracer) and set(order.tolist()) - set(range(n_sequences)):
        raise UserError(
            f"permutation must hold indices of sequences in 0..{n_sequences - 1}, not {order}"
        )
    return ablate(model, tokens, predicted, "resample", order)


def components(cfg: HookedTransformerConfig, n_positions: int, method: str) -> list[Component]:
    """The components that a method of ablation can ablate, in order of execution.

    Args:
        cfg: the model's config.
        n_positions: the number of tokens fed: one less than a sequence has.
        method: "zero", "mean" or "resample".

    Raises:
        UserError: for an unknown method.
    """
    require_choice("method", method, METHODS)
    listed = all_components(cfg, n_positions)
    return [listed[place] for place in possible(listed, method)]


def all_components(cfg: HookedTransformerConfig, n_positions: int) -> list[Component]:
    """All components of a model that some method of ablation can ablate, in execution order."""
    sizes = {"position": n_positions, "head": cfg.n_heads, "neuron": cfg.d_mlp}
    return [
        Component(kind, hook, part)
        for kind, (hook, axes) in ablated(cfg)
        for part in (range(sizes[kind]) if axes else [None])
    ]


def possible(listed: Sequence[Component], method: str) -> list[int]:
    """The indices of those components in the list `listed` that a method of ablation can ablate."""
    return [place for place, component in enumerate(listed) if can_ablate(method, component.kind)]


def can_ablate(method: str, kind: str) -> bool:
    """Whether a method of ablation fits a kind of component: a norm's divisor can't be zero."""
    return (method, kind) != ("zero", "norm scale")


def ablated(cfg: HookedTransformerConfig) -> list[tuple[str, Sites]]:
    """The activations that ablation replaces, each with the kind of component it belongs to."""
    return [
        (kind, Sites(hook, axes))
        for hook in hook_names(cfg)
        for kind, (ending, axes) in KINDS.items()
        if hook.endswith(f".{ending}")
    ]


def replacers(kind: str) -> list[Callable[[Array, Array], Array]]:
    """For each method of ablation, a function from a component's activation to its replacement."""
    return [
        replace if can_ablate(method, kind) else lambda x, _: x
        for method, replace in REPLACEMENTS.items()
    ]


def ablate(
    model: HookedTransformer,
    tokens: Tokens,
    predicted: tuple[int, ...],
    method: str,
    order: Int[Array, " batch"] | None = None,
) -> Ablation:
    """Check the arguments, then ablate every component in turn, in one compiled call.

    Only "resample" uses `order`.
    """
    sequences = check_sequences(model.cfg, tokens)
    order = jnp.arange(len(sequences)) if order is None else order
    last = sequences.shape[1] - 1
    predicted = check_predicted(predicted, sequences.shape[1])
    number = METHODS.index(method)
    found = _ablate(model, predicted, number, sequences, order)
    kept = np.array(possible(all_components(model.cfg, last), method))
    return found._replace(
        loss_change=found.loss_change[kept], accuracy_change=found.accuracy_change[kept]
    )


@partial(jax.jit, static_argnames="predicted")
def _ablate(
    model: HookedTransformer,
    predicted: tuple[int, ...],
    method: Int[Array, ""],
    tokens: Int[Array, "batch seq"],
    order: Int[Array, " batch"],
) -> Ablation:
    """Ablate every component by the method with index `method`; one program serves all methods."""
    intact = run_in_lanes(HookedTransformer.run_with_cache, model, tokens[:, :-1])
    found = ablate_by(model, predicted, jnp.asarray(method)[None], tokens, order, intact, True)
    return jax.tree.map(lambda x: x[0], found)


def ablate_by(
    model: HookedTransformer,
    predicted: tuple[int, ...],
    methods: Int[Array, " methods"],
    tokens: Int[Array, "batch seq"],
    order: Int[Array, " batch"],
    intact: tuple[Array, Mapping[str, Array]],
    in_lanes: bool,
) -> Ablation:
    """Ablate all of `all_components` by several methods, as a function that can be traced.

    Args:
        model, predicted, tokens: see `zero_ablation`.
        methods: indices in `METHODS`.
        order: for "resample", the sequence that each sequence is resampled from.
        intact: the logits and the activations of the intact model.
        in_lanes: see `sweep`.

    Returns:
        The changes [methods, components]. Those of methods that do not fit a component are 0.
    """
    at = np.array(predicted)
    fed, targets = tokens[:, :-1], tokens[:, at]
    logits, cache = intact

    def measure(logits: Float[Array, "batch pos d_vocab_out"]) -> tuple[Array, Array]:
        answers = logits[:, at - 1]
        return token_losses(answers, targets).mean(), (answers.argmax(-1) == targets).mean()

    sites = [sites for _, sites in ablated(model.cfg)]

    def by_method(method: Int[Array, ""]) -> tuple[Array, Array]:
        replacements = {
            sites.hook: jax.lax.switch(method, replacers(kind), cache[sites.hook], order)
            for kind, sites in ablated(model.cfg)
        }
        return sweep(model, fed, sites, replacements, measure, in_lanes)

    losses, accuracies = jax.lax.map(by_method, methods)
    loss, accuracy = measure(logits)
    n_methods = methods.shape
    return Ablation(
        jnp.broadcast_to(loss, n_methods),
        jnp.broadcast_to(accuracy, n_methods),
        losses - loss,
        accuracies - accuracy,
    )


def split_methods(
    cfg: HookedTransformerConfig, n_positions: int, found: Ablation
) -> dict[str, Ablation]:
    """The result of `ablate_by` for all `METHODS`, as the ablation by each, of what it can ablate."""
    listed = all_components(cfg, n_positions)
    by_method = {}
    for number, method in enumerate(METHODS):
        kept = np.array(possible(listed, method))
        loss, accuracy, *changes = (np.asarray(array)[number] for array in found)
        by_method[method] = Ablation(loss, accuracy, *(change[kept] for change in changes))
    return by_method


def ablation_table(
    cfg: HookedTransformerConfig, n_positions: int, ablations: Mapping[str, Ablation]
) -> pd.DataFrame:
    """A table of the changes in loss and accuracy by ablation, a row per method and component.

    Args:
        cfg: the model's config.
        n_positions: the number of tokens fed.
        ablations: by method ("zero", "mean", "resample"), the ablations of one model.
    """
    rows = [
        {
            "method": method,
            **component._asdict(),
            "loss_change": float(loss),
            "accuracy_change": float(accuracy),
        }
        for method, ablation in ablations.items()
        for component, loss, accuracy in zip(
            components(cfg, n_positions, method),
            np.asarray(ablation.loss_change),
            np.asarray(ablation.accuracy_change),
            strict=True,
        )
    ]
    return pd.DataFrame(rows).astype({"part": "Int64"})
