"""Path patching (one component's direct effect on another), and attribution patching.

Path patching runs on the clean input. A receiver reads the residual stream, which is the sum of
what the senders before it wrote. For each edge, the receiver alone reads a stream in which the
sender's part comes from the corrupted run; everything after the receiver follows from that. Norms
at the receiver are computed anew. Method: Wang et al. 2022, "Interpretability in the Wild";
Goldowsky-Dill et al. 2023, "Localizing Model Behavior with Path Patching".

Attribution patching estimates activation patching to first order, from two runs and one gradient:
Nanda 2023, "Attribution Patching"; Syed et al. 2023, "Attribution Patching Outperforms Automated
Circuit Discovery".
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

from jax_revinc.activations.residual_stream.layers import mlp_stream
from jax_revinc.analysis.interventions import Measure, Sites
from jax_revinc.analysis.patching import (
    Family,
    Metric,
    MetricPerPair,
    PatchSweep,
    check_metric,
    check_pair,
    checked,
    patch_sweep,
    sweep_families,
)
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.token_checks import Tokens
from jax_revinc.hooks.taps import recording
from jax_revinc.model import HookedTransformer, hook_names
from revinc import HookedTransformerConfig


class Sender(NamedTuple):
    """A component that writes into the residual stream.

    Attributes:
        name: such as "embed", "L0H1", "0_attn_out" (all heads of a layer) or "0_mlp_out".
        hook: the activation that it writes, or a head's ``hook_z``.
        head: the head's index; None for other components.
    """

    name: str
    hook: str
    head: int | None = None


class Receiver(NamedTuple):
    """A component that reads from the residual stream.

    Attributes:
        name: such as "L1H0 q", "1_mlp_in" or "logits".
        stream: the hook of the residual stream that it reads.
        hook: the activation that it computes from it.
        head: the head whose part of that activation it is; None for all of it.
    """

    name: str
    stream: str
    hook: str
    head: int | None = None


class PathPatches(NamedTuple):
    """The effect on a metric of corrupting each edge: a path from one component to a later one.

    Attributes:
        clean: the metric of the clean run.
        effects: the metric with an edge corrupted, minus `clean`, [sender, receiver]; 0 where there
            is no edge.
    """

    clean: Float[Array, ""]
    effects: Float[Array, "sender receiver"]


def senders(cfg: HookedTransformerConfig) -> list[Sender]:
    """All components of a model that write into the residual stream, in execution order."""
    found = [Sender("embed", "hook_embed")]
    if cfg.has_positions_in_stream:
        found.append(Sender("pos_embed", "hook_pos_embed"))
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        found += [
            Sender(f"L{layer}H{head}", f"{block}.attn.hook_z", head) for head in range(cfg.n_heads)
        ]
        found.append(Sender(f"{layer}_attn_out", f"{block}.hook_attn_out"))
        if not cfg.attn_only:
            found.append(Sender(f"{layer}_mlp_out", f"{block}.hook_mlp_out"))
    return found


def receivers(cfg: HookedTransformerConfig) -> list[Receiver]:
    """All components of a model that read from the residual stream, in execution order."""
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
                    f"{layer}_mlp_in", f"{block}.hook_{mlp_stream(cfg)}", f"{block}.mlp.hook_post"
                )
            )
    last = f"blocks.{cfg.n_layers - 1}.hook_resid_post"
    return [*found, Receiver("logits", last, "unembed.hook_out")]


def is_edge(cfg: HookedTransformerConfig, sender: Sender, receiver: Receiver) -> bool:
    """Whether the residual stream that the receiver reads includes what the sender writes."""
    names = hook_names(cfg)
    return names.index(sender.hook) < names.index(receiver.stream)


@with_numerics
def path_patch(
    model: HookedTransformer, clean_tokens: Tokens, corrupted_tokens: Tokens, metric: Metric
) -> PathPatches:
    """The effect on a metric of corrupting each path between two components, at all positions.

    Args:
        model: the model.
        clean_tokens: ids of every run that is measured, [batch, pos].
        corrupted_tokens: ids of the run that the senders' corrupted parts come from, [batch, pos].
        metric: a JAX function from logits [batch, pos, d_vocab_out] to one number. A new function
            object compiles anew.

    Raises:
        UserError: for tokens of different shapes, or a metric that does not return one number.
    """
    check_metric(metric)
    clean, corrupted = check_pair(model.cfg, clean_tokens, corrupted_tokens)
    return _path_patch(model, metric, clean, corrupted)


@partial(jax.jit, static_argnames="metric")
def _path_patch(
    model: HookedTransformer,
    metric: Metric,
    clean: Int[Array, "batch pos"],
    corrupted: Int[Array, "batch pos"],
) -> PathPatches:
    measure = checked(metric, (), "one number")
    runs = model.run_with_cache(clean), model.run_with_cache(corrupted)
    return patch_paths(model, clean, measure, *runs)


def patch_paths(
    model: HookedTransformer,
    clean: Int[Array, "batch pos"],
    measure: Measure,
    clean_run: tuple[Array, Mapping[str, Array]],
    corrupted_run: tuple[Array, Mapping[str, Array]],
) -> PathPatches:
    """The result of `path_patch`, as a function that can be traced: two forward passes in a loop.

    Args:
        model: the model.
        clean: ids of every run that is measured.
        measure: a function from logits to one number.
        clean_run, corrupted_run: logits and activations of both runs.
    """
    cfg = model.cfg
    (logits, clean_cache), (_, corrupted_cache) = clean_run, corrupted_run
    intact = measure(logits)
    changes_SBPM = jnp.stack(
        [
            written(model, corrupted_cache, sender) - written(model, clean_cache, sender)
            for sender in senders(cfg)
        ]
    )
    is_edge_SR = [[is_edge(cfg, s, r) for r in receivers(cfg)] for s in senders(cfg)]

    def of_sender(inputs: tuple[Array, Array]) -> Array:
        change_BPM, is_edge_R = inputs
        seen = changed_activations(model, clean, clean_cache, change_BPM)

        def of_receiver(inputs: tuple[Array, Array]) -> Array:
            number, is_edge = inputs
            return jax.lax.cond(
                is_edge,
                lambda: measure(with_activation_of(model, clean, number, seen)) - intact,
                lambda: jnp.zeros_like(intact),
            )

        return jax.lax.map(of_receiver, (jnp.arange(len(is_edge_R)), is_edge_R))

    return PathPatches(intact, jax.lax.map(of_sender, (changes_SBPM, jnp.array(is_edge_SR))))


def written(
    model: HookedTransformer, cache: Mapping[str, Array], sender: Sender
) -> Float[Array, "batch pos d_model"]:
    """What a component writes into the residual stream; for a head, without the bias b_O."""
    activation = cache[sender.hook]
    if sender.head is None:
        return activation
    W_O_HEM = model.params[sender.hook.replace("hook_z", "W_O")]
    return activation[:, :, sender.head] @ W_O_HEM[sender.head]


def changed_activations(
    model: HookedTransformer,
    tokens: Int[Array, "batch pos"],
    cache: Mapping[str, Array],
    change_BPM: Float[Array, "batch pos d_model"],
) -> dict[str, Array]:
    """The activation of every receiver, by hook, if `change_BPM` is added to what it alone reads.

    One forward pass serves all receivers: each residual stream is that of the clean run's `cache`
    plus the change, whatever was computed before it.
    """
    streams = {receiver.stream for receiver in receivers(model.cfg)}

    def add_change(name: str, activation: Array) -> Array:
        return cache[name] + change_BPM if name in streams else activation

    seen: dict[str, Array] = {}
    hooks = [receiver.hook for receiver in receivers(model.cfg)]
    model(tokens, tap=recording(add_change, hooks, seen))
    return seen


def with_activation_of(
    model: HookedTransformer,
    tokens: Int[Array, "batch pos"],
    number: Int[Array, ""],
    seen: Mapping[str, Array],
) -> Float[Array, "batch pos d_vocab_out"]:
    """The logits if the receiver of that number has its activation in `seen`."""

    def tap(name: str, activation: Array) -> Array:
        for i, receiver in enumerate(receivers(model.cfg)):
            if receiver.hook == name:
                is_part = number == i
                if receiver.head is not None:
                    heads = jax.lax.broadcasted_iota(int, activation.shape, 2)
                    is_part &= heads == receiver.head
                activation = jnp.where(is_part, seen[name], activation)
        return activation

    return model(tokens, tap=tap)


def path_table(cfg: HookedTransformerConfig, patches: PathPatches) -> pd.DataFrame:
    """A table of path patching's effects, with a row for each path: sender, receiver, effect."""
    effects = np.asarray(patches.effects)
    rows = [
        {"sender": sender.name, "receiver": receiver.name, "effect": float(effects[s, r])}
        for s, sender in enumerate(senders(cfg))
        for r, receiver in enumerate(receivers(cfg))
        if is_edge(cfg, sender, receiver)
    ]
    return pd.DataFrame(rows)


class AttributionPatches(NamedTuple):
    """Attribution patching's estimate of activation patching, its exact result, and the error.

    Attributes:
        exact: the exact patching.
        estimated: by activation, the estimate of ``exact.patched``, in its shapes.
        error: by activation, the largest difference between estimate and exact patching, divided by
            the largest effect (the patched metric minus the corrupted run's). 0 is perfect; an
            estimate of no effect has 1.
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
    """Attribution patching: estimate the results of activation patching from one gradient.

    The estimate of each metric of `patch_sweep` is the corrupted run's metric plus, for each site,
    the gradient there times the difference of the clean and the corrupted activation: exact for a
    metric that is linear in the site.

    Arguments and errors are those of `patch_sweep`. The metric of a pair must depend on that pair's
    logits alone.
    """
    check_metric(metric_per_pair)
    clean, corrupted = check_pair(model.cfg, clean_tokens, corrupted_tokens)
    families = sweep_families(model.cfg, sites)
    return _attribution_patch(model, families, metric_per_pair, clean, corrupted)


@partial(jax.jit, static_argnames=("families", "metric"))
def _attribution_patch(
    model: HookedTransformer,
    families: tuple[Family, ...],
    metric: MetricPerPair,
    clean: Int[Array, "pair pos"],
    corrupted: Int[Array, "pair pos"],
) -> dict[str, Array]:
    cfg = model.cfg
    measure = checked(metric, clean.shape[:1], "one number per pair")
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
    """Compare attribution patching's estimate with the exact result of activation patching.

    Arguments and errors are those of `attribution_patch` and `patch_sweep`.
    """
    arguments = (model, clean_tokens, corrupted_tokens, metric_per_pair, sites)
    estimated, exact = attribution_patch(*arguments), patch_sweep(*arguments)

    def error(name: str) -> Float[Array, ""]:
        effects = exact.patched[name] - exact.corrupted
        return abs(estimated[name] - exact.patched[name]).max() / abs(effects).max()

    return AttributionPatches(exact, estimated, {name: error(name) for name in estimated})
