"""Path patching: one sender's direct contribution to one receiver, made corrupted. And its fast estimate.

Everything runs on the clean input. A receiver reads the residual stream, which is the sum of what the senders
before it wrote. For an edge, the receiver alone is shown the stream with this one sender's part taken from the
corrupted run; all that comes after the receiver then follows freely. Norms at the receiver are computed anew.
Method: Wang et al. 2022, "Interpretability in the Wild"; Goldowsky-Dill et al. 2023, "Localizing Model Behavior
with Path Patching".

Attribution patching estimates activation patching to first order, in two runs and one gradient: Nanda 2023,
"Attribution Patching"; Syed et al. 2023, "Attribution Patching Outperforms Automated Circuit Discovery".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis.attribution import mlp_stream
from jax_revinc.analysis.interventions import Measure, Sites
from jax_revinc.analysis.patching import (
    Family,
    Metric,
    MetricPerPair,
    PatchSweep,
    check_pair,
    checked,
    patch_sweep,
    sweep_families,
)
from jax_revinc.hooks import recording
from jax_revinc.model import HookedTransformer, Tokens, hook_names
from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params
from revinc import HookedTransformerConfig


class Sender(NamedTuple):
    """What writes into the residual stream.

    Attributes:
        name: such as "embed", "L0H1", "L0 attn" (all heads of a layer) or "L0 MLP".
        hook: the activation that holds what it writes, or a head's ``hook_z``.
        head: which head; None if it is none.
    """

    name: str
    hook: str
    head: int | None = None


class Receiver(NamedTuple):
    """What reads from the residual stream.

    Attributes:
        name: such as "L1H0 q", "L1 MLP" or "logits".
        stream: the residual stream that it reads.
        hook: the activation that it makes of it.
        head: which head's part of that activation; None for all of it.
    """

    name: str
    stream: str
    hook: str
    head: int | None = None


class PathPatches(NamedTuple):
    """What `path_patch` finds, with `senders` and `receivers` in their order.

    Attributes:
        clean: the metric of the clean run.
        effects: the metric with an edge corrupted, minus `clean`; 0 where there is no edge, [sender, receiver].
    """

    clean: Float[Array, ""]
    effects: Float[Array, "sender receiver"]


def senders(cfg: HookedTransformerConfig) -> list[Sender]:
    """All that write, in order of execution."""
    found = [Sender("embed", "hook_embed")]
    if cfg.has_positions_in_stream:
        found.append(Sender("pos_embed", "hook_pos_embed"))
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        found += [
            Sender(f"L{layer}H{head}", f"{block}.attn.hook_z", head) for head in range(cfg.n_heads)
        ]
        found.append(Sender(f"L{layer} attn", f"{block}.hook_attn_out"))
        if not cfg.attn_only:
            found.append(Sender(f"L{layer} MLP", f"{block}.hook_mlp_out"))
    return found


def receivers(cfg: HookedTransformerConfig) -> list[Receiver]:
    """All that read, in order of execution."""
    found = []
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        found += [
            Receiver(
                f"L{layer}H{head} {part}",
                f"{block}.hook_resid_pre",
                f"{block}.attn.hook_{part}",
                head,
            )
            for part, n_heads in (("q", cfg.n_heads), ("k", cfg.n_kv_heads), ("v", cfg.n_kv_heads))
            for head in range(n_heads)
        ]
        if not cfg.attn_only:
            found.append(
                Receiver(
                    f"L{layer} MLP", f"{block}.hook_{mlp_stream(cfg)}", f"{block}.mlp.hook_post"
                )
            )
    last = f"blocks.{cfg.n_layers - 1}.hook_resid_post"
    return [*found, Receiver("logits", last, "unembed.hook_out")]


def is_edge(cfg: HookedTransformerConfig, sender: Sender, receiver: Receiver) -> bool:
    """Whether what the sender writes is in the stream that the receiver reads."""
    names = hook_names(cfg)
    return names.index(sender.hook) < names.index(receiver.stream)


@with_numerics
def path_patch(
    model: HookedTransformer, clean_tokens: Tokens, corrupted_tokens: Tokens, metric: Metric
) -> PathPatches:
    """The effect of corrupting each edge from a sender to a receiver, at all positions at once.

    Args:
        model: the model.
        clean_tokens: ids fed in every run that is measured, [batch, pos].
        corrupted_tokens: ids fed in the run that the senders' corrupted values come from, [batch, pos].
        metric: a JAX function from logits [batch, pos, d_vocab_out] to one number. A new function object
            compiles anew.

    Raises:
        UserError: for tokens of different shapes, or a metric that returns anything but one number.
    """
    clean, corrupted = check_pair(model.cfg, clean_tokens, corrupted_tokens)
    return _path_patch(model.cfg, metric, model.params, clean, corrupted)


@partial(jax.jit, static_argnums=(0, 1))
def _path_patch(
    cfg: HookedTransformerConfig,
    metric: Metric,
    params: Params,
    clean: Int[Array, "batch pos"],
    corrupted: Int[Array, "batch pos"],
) -> PathPatches:
    """See `path_patch`."""
    measure = checked(metric, (), "one number")
    model = HookedTransformer(cfg, params=params)
    logits, clean_cache = model.run_with_cache(clean)
    _, corrupted_cache = model.run_with_cache(corrupted)
    changes_SBPM = jnp.stack(
        [
            written(model, corrupted_cache, sender) - written(model, clean_cache, sender)
            for sender in senders(cfg)
        ]
    )
    columns = []
    for receiver in receivers(cfg):
        n_before = sum(is_edge(cfg, sender, receiver) for sender in senders(cfg))
        patched = jax.lax.map(
            partial(patched_edge, model, clean, receiver, measure), changes_SBPM[:n_before]
        )
        effects = patched - measure(logits)
        columns.append(jnp.pad(effects, (0, len(changes_SBPM) - n_before)))
    return PathPatches(measure(logits), jnp.stack(columns, axis=1))


def written(
    model: HookedTransformer, cache: Mapping[str, Array], sender: Sender
) -> Float[Array, "batch pos d_model"]:
    """What a sender adds to the stream. A head's part is without the bias that all heads share."""
    activation = cache[sender.hook]
    if sender.head is None:
        return activation
    W_O_HEM = model.params[sender.hook.replace("hook_z", "W_O")]
    return activation[:, :, sender.head] @ W_O_HEM[sender.head]


def patched_edge(
    model: HookedTransformer,
    tokens: Int[Array, "batch pos"],
    receiver: Receiver,
    measure: Measure,
    change_BPM: Float[Array, "batch pos d_model"],
) -> Array:
    """The measure when the receiver alone sees the stream moved by `change_BPM`."""

    def moving(name: str, activation: Array) -> Array:
        return activation + change_BPM if name == receiver.stream else activation

    seen: dict[str, Array] = {}
    model(tokens, tap=recording(moving, [receiver.hook], seen))

    def receiving(name: str, activation: Array) -> Array:
        if name != receiver.hook:
            return activation
        if receiver.head is None:
            return seen[name]
        return activation.at[:, :, receiver.head].set(seen[name][:, :, receiver.head])

    return measure(model(tokens, tap=receiving))


def path_table(cfg: HookedTransformerConfig, patches: PathPatches) -> pd.DataFrame:
    """A row for each edge of one model: sender, receiver, effect."""
    effects = np.asarray(patches.effects)
    rows = [
        {"sender": sender.name, "receiver": receiver.name, "effect": float(effects[s, r])}
        for s, sender in enumerate(senders(cfg))
        for r, receiver in enumerate(receivers(cfg))
        if is_edge(cfg, sender, receiver)
    ]
    return pd.DataFrame(rows)


class AttributionPatches(NamedTuple):
    """`attribution_patch`'s estimate of a `PatchSweep`, and how far it is off.

    Attributes:
        exact: the real patching.
        estimated: by activation, the estimate of ``exact.patched``, in its shapes.
        error: by activation, the largest difference of the two over the largest effect (the patched metric
            minus the corrupted run's). 0 is perfect, 1 is as
            far off as to estimate no effect at all.
    """

    exact: PatchSweep
    estimated: dict[str, Array]
    error: dict[str, Float[Array, ""]]


@with_numerics
def attribution_patch(
    model: HookedTransformer,
    clean_tokens: Tokens,
    corrupted_tokens: Tokens,
    metric_per_pair: MetricPerPair,
    sites: Sequence[str] | None = None,
) -> dict[str, Array]:
    """The estimate of `patch_sweep`'s `patched`, for all sites from one gradient.

    To the corrupted run's metric is added, for every site, its gradient there times the difference of the clean
    and the corrupted activation: exact for a metric that is linear in the site.

    Args and errors are those of `patch_sweep`. The metric of a pair must depend on the logits of that pair alone.
    """
    clean, corrupted = check_pair(model.cfg, clean_tokens, corrupted_tokens)
    families = sweep_families(model.cfg, sites)
    return _attribution_patch(model.cfg, families, metric_per_pair, model.params, clean, corrupted)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _attribution_patch(
    cfg: HookedTransformerConfig,
    families: tuple[Family, ...],
    metric: MetricPerPair,
    params: Params,
    clean: Int[Array, "pair pos"],
    corrupted: Int[Array, "pair pos"],
) -> dict[str, Array]:
    """See `attribution_patch`."""
    measure = checked(metric, clean.shape[:1], "one number per pair")
    model = HookedTransformer(cfg, params=params)
    hooks = [sites.hook for family in families for sites in family.in_layers(cfg)]
    _, clean_cache = model.run_with_cache(clean, names_filter=hooks)
    _, corrupted_cache = model.run_with_cache(corrupted, names_filter=hooks)

    def shifted(shifts: dict[str, Array]) -> tuple[Array, Array]:
        def tap(name: str, activation: Array) -> Array:
            return activation + shifts[name] if name in shifts else activation

        metrics = measure(model(corrupted, tap=tap))
        return metrics.sum(), metrics

    zeros = jax.tree.map(jnp.zeros_like, dict(corrupted_cache))
    gradients, metrics = jax.grad(shifted, has_aux=True)(zeros)

    def estimate(sites: Sites) -> Array:
        hook, axes = sites
        differences = clean_cache[hook] - corrupted_cache[hook]
        every = list(range(differences.ndim))
        products = jnp.einsum(gradients[hook], every, differences, every, [*axes, 0])  # pair last
        return metrics + products

    return {
        family.activation: jnp.stack([estimate(sites) for sites in family.in_layers(cfg)])
        for family in families
    }


@with_numerics
def check_attribution_patch(
    model: HookedTransformer,
    clean_tokens: Tokens,
    corrupted_tokens: Tokens,
    metric_per_pair: MetricPerPair,
    sites: Sequence[str] | None = None,
) -> AttributionPatches:
    """`attribution_patch` beside the exact `patch_sweep`, whose arguments and errors these are."""
    arguments = (model, clean_tokens, corrupted_tokens, metric_per_pair, sites)
    estimated, exact = attribution_patch(*arguments), patch_sweep(*arguments)

    def error(name: str) -> Float[Array, ""]:
        effects = exact.patched[name] - exact.corrupted
        return abs(estimated[name] - exact.patched[name]).max() / abs(effects).max()

    return AttributionPatches(exact, estimated, {name: error(name) for name in estimated})
