"""Ablation: how much worse the model gets when a component says nothing, the usual, or something else.

Components are ablated one at a time: every attention head (at its ``hook_z``), attention layer
(``hook_attn_out``), MLP (``hook_mlp_out``), neuron (``hook_post``) and position of the residual stream
before each block (``hook_resid_pre``). A layer norm is ablated in two ways: "norm" replaces what it passes on
(``hook_normalized``, before gain and bias), so its readers are blind to the stream; "norm scale" replaces only the
divisor (``hook_scale``), so that, at its mean, the norm is linear. The divisor can't be zero, so zero ablation leaves that out.

What it is replaced by: zero; the mean over the batch, position by position; or its value on another input
(Chan et al. 2022, "Causal Scrubbing").
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
from jax_revinc.model import HookedTransformer, Tokens, check_sequences, hook_names
from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params, token_losses
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
"""By kind of component, how its activation's name ends, and the axis along which there are several."""


REPLACEMENTS: dict[str, Callable[[Array, Array], Array]] = {
    "zero": lambda activation, order: jnp.zeros_like(activation),  # noqa: ARG005
    "mean": lambda activation, order: jnp.broadcast_to(activation.mean(0), activation.shape),  # noqa: ARG005
    "resample": lambda activation, order: activation[order],
}
"""By method, what replaces an activation. `order` names the sequence that each sequence is resampled from."""

METHODS = tuple(REPLACEMENTS)


class Component(NamedTuple):
    """One thing that is ablated.

    Attributes:
        kind: one of `KINDS`.
        hook: the activation that is replaced.
        part: which head, neuron or position of it; None if all of it.
    """

    kind: str
    hook: str
    part: int | None


class Ablation(NamedTuple):
    """What ablation costs, over all predicted tokens. Components come in the order of `components`.

    Attributes:
        loss: mean cross-entropy of the intact model, in nats.
        accuracy: share of predicted tokens that the intact model gets right.
        loss_change: the loss with a component ablated, minus `loss`, [component].
        accuracy_change: the same for the accuracy, [component].
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    loss_change: Float[Array, " component"]
    accuracy_change: Float[Array, " component"]


@with_numerics
def zero_ablation(model: HookedTransformer, tokens: Tokens, predicted: tuple[int, ...]) -> Ablation:
    """Replace each component's activation by zeros.

    Args:
        model: the model.
        tokens: whole sequences, [batch, seq]; the model is fed all tokens but the last.
        predicted: the positions whose tokens count, as `revinc.tasks.predicted_positions` gives them.

    Raises:
        UserError: for tokens of a wrong shape, or a predicted position that they lack.
    """
    return ablate(model, tokens, predicted, "zero", np.arange(len(tokens)))


@with_numerics
def mean_ablation(model: HookedTransformer, tokens: Tokens, predicted: tuple[int, ...]) -> Ablation:
    """Replace each component's activation by its mean over the batch, at every position for itself.

    See `zero_ablation` for the arguments and errors.
    """
    return ablate(model, tokens, predicted, "mean", np.arange(len(tokens)))


@with_numerics
def resample_ablation(
    model: HookedTransformer,
    tokens: Tokens,
    predicted: tuple[int, ...],
    permutation: Int[Array, " batch"] | Int[np.ndarray, " batch"],
) -> Ablation:
    """Replace each component's activation on a sequence by the one on sequence ``permutation[i]``.

    See `zero_ablation` for the other arguments. ``jax.random.permutation(key, len(tokens))`` draws a permutation.

    Raises:
        UserError: as `zero_ablation`, and for a permutation that doesn't name one sequence for each.
    """
    order = jnp.asarray(permutation)
    n_sequences = len(tokens)
    if order.shape != (n_sequences,) or not jnp.issubdtype(order.dtype, jnp.integer):
        raise UserError(
            f"permutation must hold one integer for each of the {n_sequences} sequences, "
            f"not {order.dtype} {list(order.shape)}"
        )
    if not isinstance(order, jax.core.Tracer) and set(order.tolist()) - set(range(n_sequences)):
        raise UserError(f"permutation must name sequences 0..{n_sequences - 1}, not {order}")
    return ablate(model, tokens, predicted, "resample", order)


def components(cfg: HookedTransformerConfig, n_positions: int, method: str) -> list[Component]:
    """What a method ablates, in order of execution.

    Args:
        cfg: the model's config.
        n_positions: how many tokens the model is fed: one less than a sequence has.
        method: "zero", "mean" or "resample".

    Raises:
        UserError: for an unknown method.
    """
    require_choice("method", method, METHODS)
    listed = all_components(cfg, n_positions)
    return [listed[place] for place in possible(listed, method)]


def all_components(cfg: HookedTransformerConfig, n_positions: int) -> list[Component]:
    """What is ablated by any method, in order of execution."""
    sizes = {"position": n_positions, "head": cfg.n_heads, "neuron": cfg.d_mlp}
    return [
        Component(kind, hook, part)
        for kind, (hook, axes) in ablated(cfg)
        for part in (range(sizes[kind]) if axes else [None])
    ]


def possible(listed: Sequence[Component], method: str) -> list[int]:
    """The places in `listed` of what a method can ablate."""
    return [
        place
        for place, component in enumerate(listed)
        if (method, component.kind) != ("zero", "norm scale")
    ]


def ablated(cfg: HookedTransformerConfig) -> list[tuple[str, Sites]]:
    """Kind and sites of every activation that is replaced, in order of execution."""
    return [
        (kind, Sites(hook, axes))
        for hook in hook_names(cfg)
        for kind, (ending, axes) in KINDS.items()
        if hook.endswith(f".{ending}")
    ]


def ablate(
    model: HookedTransformer,
    tokens: Tokens,
    predicted: tuple[int, ...],
    method: str,
    order: Int[Array, " batch"] | Int[np.ndarray, " batch"],
) -> Ablation:
    """Check the arguments, then ablate in one compiled call."""
    sequences = check_sequences(model.cfg, tokens)
    last = sequences.shape[1] - 1
    if not predicted or not all(1 <= position <= last for position in predicted):
        raise UserError(f"predicted must name positions in 1..{last}, not {predicted}")
    number = METHODS.index(method)
    found = _ablate(model.cfg, tuple(predicted), number, model.params, sequences, order)
    kept = np.array(possible(all_components(model.cfg, last), method))
    return found._replace(
        loss_change=found.loss_change[kept], accuracy_change=found.accuracy_change[kept]
    )


@partial(jax.jit, static_argnums=(0, 1))
def _ablate(
    cfg: HookedTransformerConfig,
    predicted: tuple[int, ...],
    method: Int[Array, ""],
    params: Params,
    tokens: Int[Array, "batch seq"],
    order: Int[Array, " batch"],
) -> Ablation:
    """Ablate everything by the method of that number in `METHODS`: one program to compile for all of them."""
    at = np.array(predicted)
    fed, targets = tokens[:, :-1], tokens[:, at]

    def measure(logits: Float[Array, "batch pos d_vocab_out"]) -> tuple[Array, Array]:
        answers = logits[:, at - 1]
        return token_losses(answers, targets).mean(), (answers.argmax(-1) == targets).mean()

    model = HookedTransformer(cfg, params=params)
    logits, cache = run_in_lanes(HookedTransformer.run_with_cache, model, fed)
    sites = [sites for _, sites in ablated(cfg)]
    replacements = {
        hook: jax.lax.switch(method, list(REPLACEMENTS.values()), cache[hook], order)
        for hook, _ in sites
    }
    losses, accuracies = sweep(model, fed, sites, replacements, measure)
    loss, accuracy = measure(logits)
    return Ablation(loss, accuracy, losses - loss, accuracies - accuracy)


def ablation_table(
    cfg: HookedTransformerConfig, n_positions: int, ablations: Mapping[str, Ablation]
) -> pd.DataFrame:
    """A row for each method and component, with the changes in loss and accuracy.

    Args:
        cfg: the model's config.
        n_positions: how many tokens the model was fed.
        ablations: by method ("zero", "mean", "resample"), its result on one model.
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
