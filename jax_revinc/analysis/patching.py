"""Activation patching: what of a clean run, put into a corrupted one, brings its answer back.

The functions named ``get_act_patch_*`` are `transformer_lens.patching`'s: the same arguments, numbers and
result shapes. `patch_sweep` gives the same for many kinds of sites at once, and for every pair of
inputs rather than their mean. Each call is one compiled program. It is compiled anew for every new function
object given as metric, so define a metric once and pass that.

Method: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (causal tracing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis.interventions import Measure, Sites, run_in_lanes, sweep
from jax_revinc.hooks import get_act_name
from jax_revinc.model import HookedTransformer, Tokens, check_tokens, hook_names
from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params
from revinc import HookedTransformerConfig, UserError
from revinc.errors import near_names

Metric = Callable[[Float[Array, "batch pos d_vocab_out"]], Float[Array, ""]]
MetricPerPair = Callable[[Float[Array, "batch pos d_vocab_out"]], Float[Array, " batch"]]
ActPatch = Callable[[HookedTransformer, Tokens, Mapping[Any, Array], Metric], Array]

STREAM = {"pos": 1}
PER_HEAD = {"pos": 1, "head": 2}
PATTERN = {"head": 1, "pos": 2, "src_pos": 3}
AXES = {
    "resid_pre": STREAM,
    "resid_mid": STREAM,
    "attn_out": STREAM,
    "mlp_out": STREAM,
    "z": PER_HEAD,
    "q": PER_HEAD,
    "k": PER_HEAD,
    "v": PER_HEAD,
    "pattern": PATTERN,
}
"""What can be patched, and where its activation's axes stand. A pattern's "pos" is the query's."""


class Family(NamedTuple):
    """One kind of site in every layer: an activation of `AXES`, and the axes that tell its sites apart."""

    activation: str
    axes: tuple[str, ...]

    def in_layers(self, cfg: HookedTransformerConfig) -> list[Sites]:
        """Its sites, by layer."""
        axes = tuple(AXES[self.activation][axis] for axis in self.axes)
        return [Sites(get_act_name(self.activation, layer), axes) for layer in range(cfg.n_layers)]

    def shape(self, cfg: HookedTransformerConfig, cache: Mapping[Any, Array]) -> tuple[int, ...]:
        """How many layers there are, and indices along each axis."""
        sizes = cache[get_act_name(self.activation, 0)].shape
        return (cfg.n_layers, *(sizes[AXES[self.activation][axis]] for axis in self.axes))


class PatchSweep(NamedTuple):
    """What `patch_sweep` finds. "pair" counts the pairs of a clean and a corrupted input.

    Attributes:
        clean: the metric of the clean run, [pair].
        corrupted: the metric of the corrupted run, [pair].
        patched: by activation, the metric of the corrupted run with one site made clean:
            [layer, pos, pair], or [layer, pos, head, pair] where there are heads.
    """

    clean: Float[Array, " pair"]
    corrupted: Float[Array, " pair"]
    patched: dict[str, Array]


@with_numerics
def patch_sweep(
    model: HookedTransformer,
    clean_tokens: Tokens,
    corrupted_tokens: Tokens,
    metric_per_pair: MetricPerPair,
    sites: Sequence[str] | None = None,
) -> PatchSweep:
    """Patch every position, and head, of every layer, for all pairs at once.

    Args:
        model: the model.
        clean_tokens: ids fed in the run that is copied from, [pair, pos].
        corrupted_tokens: ids fed in the run that is copied into, [pair, pos].
        metric_per_pair: a JAX function from logits [pair, pos, d_vocab_out] to numbers [pair].
        sites: the activations to patch, of `AXES` (all that the model has by default).

    Raises:
        UserError: for tokens of different shapes, an activation that is unknown or that the model lacks,
            or a metric of another shape.
    """
    clean, corrupted = check_pair(model.cfg, clean_tokens, corrupted_tokens)
    families = sweep_families(model.cfg, sites)
    return _patch_pairs(model.cfg, families, metric_per_pair, model.params, clean, corrupted)


def sweep_families(
    cfg: HookedTransformerConfig, sites: Sequence[str] | None = None
) -> tuple[Family, ...]:
    """The families of `patch_sweep`: by position, and by head where there are heads.

    Raises:
        UserError: for an activation that is unknown or that the model lacks.
    """
    if sites is None:
        sites = [name for name in AXES if get_act_name(name, 0) in hook_names(cfg)]
    for name in sites:
        check_activation(cfg, name)
    return tuple(
        Family(name, tuple(axis for axis in ("pos", "head") if axis in AXES[name]))
        for name in sites
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _patch_pairs(
    cfg: HookedTransformerConfig,
    families: tuple[Family, ...],
    metric: MetricPerPair,
    params: Params,
    clean: Int[Array, "pair pos"],
    corrupted: Int[Array, "pair pos"],
) -> PatchSweep:
    """See `patch_sweep`."""
    measure = checked(metric, clean.shape[:1], "one number per pair")
    model = HookedTransformer(cfg, params=params)
    logits, clean_cache = run_in_lanes(HookedTransformer.run_with_cache, model, clean)
    corrupted_logits = run_in_lanes(HookedTransformer.__call__, model, corrupted)

    def patched(family: Family) -> Array:
        by_layer = [
            sweep(model, corrupted, [sites], clean_cache, measure)
            for sites in family.in_layers(cfg)
        ]
        measured = jnp.concatenate(by_layer)
        return measured.reshape(*family.shape(cfg, clean_cache), *measured.shape[1:])

    return PatchSweep(
        measure(logits),
        measure(corrupted_logits),
        {family.activation: patched(family) for family in families},
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _patch_batch(
    cfg: HookedTransformerConfig,
    families: tuple[Family, ...],
    metric: Metric,
    params: Params,
    corrupted: Int[Array, "batch pos"],
    clean_cache: dict[str, Array],
) -> list[Array]:
    """For each family the metric of the patched logits, [layer, *axes]."""
    sites = [sites for family in families for sites in family.in_layers(cfg)]
    model = HookedTransformer(cfg, params=params)
    measured = sweep(model, corrupted, sites, clean_cache, checked(metric, (), "one number"))
    shapes = [family.shape(cfg, clean_cache) for family in families]
    parts = jnp.split(measured, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def check_pair(
    cfg: HookedTransformerConfig, clean_tokens: Tokens, corrupted_tokens: Tokens
) -> tuple[Int[Array, "batch pos"], Int[Array, "batch pos"]]:
    """Both as [batch, pos].

    Raises:
        UserError: if one is no batch of tokens, or they differ in shape.
    """
    clean, corrupted = check_tokens(cfg, clean_tokens), check_tokens(cfg, corrupted_tokens)
    if clean.shape != corrupted.shape:
        raise UserError(
            f"clean tokens {list(clean.shape)} and corrupted tokens {list(corrupted.shape)} must have "
            "one shape: a corrupted sequence of equal length for every clean one"
        )
    return clean, corrupted


def check_activation(cfg: HookedTransformerConfig, name: str) -> None:
    """Raise a UserError unless `name` is an activation of `AXES` that the model has."""
    if name not in AXES:
        hint = near_names(str(name), AXES)
        raise UserError(f"{name!r} can't be patched{hint} (known: {', '.join(AXES)})")
    if get_act_name(name, 0) not in hook_names(cfg):
        raise UserError(
            f"the model has no {name} to patch: attn_only={cfg.attn_only}, "
            f"parallel_attn_mlp={cfg.parallel_attn_mlp}"
        )


def checked(metric: Measure, shape: tuple[int, ...], wanted: str) -> Measure:
    """The metric, which raises a UserError when its result has another shape than `shape`."""

    def measure(logits: Float[Array, "batch pos d_vocab_out"]) -> Array:
        value = jnp.asarray(metric(logits))
        if value.shape != shape:
            raise UserError(f"the metric must return {wanted}, not shape {list(value.shape)}")
        return value

    return measure


def clean_activations(
    model: HookedTransformer,
    families: Sequence[Family],
    corrupted: Int[Array, "batch pos"],
    clean_cache: Mapping[Any, Array],
) -> dict[str, Array]:
    """The part of the cache that the families patch in.

    Raises:
        UserError: if it is missing, or is not of the shape that the corrupted run has.
    """
    shapes = jax.eval_shape(lambda: model.run_with_cache(corrupted)[1].cache_dict)
    needed = {}
    for family in families:
        for layer in range(model.cfg.n_layers):
            hook = get_act_name(family.activation, layer)
            if hook not in clean_cache:
                raise UserError(
                    f"clean_cache lacks {hook}; take it from model.run_with_cache(clean_tokens)"
                )
            if clean_cache[hook].shape != shapes[hook].shape:
                raise UserError(
                    f"{hook} has shape {list(clean_cache[hook].shape)} in clean_cache and "
                    f"{list(shapes[hook].shape)} on corrupted_tokens: clean and corrupted tokens "
                    "must have one shape"
                )
            needed[hook] = clean_cache[hook]
    return needed


def act_patches(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    patching_metric: Metric,
    families: tuple[Family, ...],
) -> list[Array]:
    """Check the arguments of a ``get_act_patch_*`` function, then patch the families."""
    for family in families:
        check_activation(model.cfg, family.activation)
    corrupted = check_tokens(model.cfg, corrupted_tokens)
    clean = clean_activations(model, families, corrupted, clean_cache)
    return _patch_batch(model.cfg, families, patching_metric, model.params, corrupted, clean)


def act_patch(activation: str, *axes: str) -> ActPatch:
    """A function that patches an activation at every index of `axes`, in every layer."""

    @with_numerics
    def get_act_patch(
        model: HookedTransformer,
        corrupted_tokens: Tokens,
        clean_cache: Mapping[Any, Array],
        patching_metric: Metric,
    ) -> Array:
        families = (Family(activation, axes),)
        (patched,) = act_patches(model, corrupted_tokens, clean_cache, patching_metric, families)
        return patched

    get_act_patch.__doc__ = f"""The metric with clean `{activation}` patched in, [{", ".join(("layer", *axes))}].

    As in `transformer_lens.patching`.

    Args:
        model: the model.
        corrupted_tokens: ids fed in the run that is patched, [batch, pos].
        clean_cache: the activations of the clean run, as from `run_with_cache`.
        patching_metric: a JAX function from logits [batch, pos, d_vocab_out] to one number.

    Raises:
        UserError: for an activation that the model or the cache lacks, clean and corrupted runs of
            different shapes, or a metric that returns anything but one number.
    """
    return get_act_patch


get_act_patch_resid_pre = act_patch("resid_pre", "pos")
get_act_patch_resid_mid = act_patch("resid_mid", "pos")
get_act_patch_attn_out = act_patch("attn_out", "pos")
get_act_patch_mlp_out = act_patch("mlp_out", "pos")
get_act_patch_attn_head_out_by_pos = act_patch("z", "pos", "head")
get_act_patch_attn_head_q_by_pos = act_patch("q", "pos", "head")
get_act_patch_attn_head_k_by_pos = act_patch("k", "pos", "head")
get_act_patch_attn_head_v_by_pos = act_patch("v", "pos", "head")
get_act_patch_attn_head_pattern_by_pos = act_patch("pattern", "head", "pos")
get_act_patch_attn_head_pattern_dest_src_pos = act_patch("pattern", "head", "pos", "src_pos")
get_act_patch_attn_head_out_all_pos = act_patch("z", "head")
get_act_patch_attn_head_q_all_pos = act_patch("q", "head")
get_act_patch_attn_head_k_all_pos = act_patch("k", "head")
get_act_patch_attn_head_v_all_pos = act_patch("v", "head")
get_act_patch_attn_head_pattern_all_pos = act_patch("pattern", "head")

HEAD_ACTIVATIONS = ("z", "q", "k", "v", "pattern")


@with_numerics
def get_act_patch_block_every(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    metric: Metric,
) -> Float[Array, "patch_type layer pos"]:
    """The metric with clean resid_pre, attn_out and mlp_out patched in. See `get_act_patch_resid_pre`."""
    families = tuple(Family(name, ("pos",)) for name in ("resid_pre", "attn_out", "mlp_out"))
    return jnp.stack(act_patches(model, corrupted_tokens, clean_cache, metric, families))


@with_numerics
def get_act_patch_attn_head_all_pos_every(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    metric: Metric,
) -> Float[Array, "patch_type layer head"]:
    """The metric with a head's clean z, q, k, v and pattern patched in. See `get_act_patch_resid_pre`."""
    families = tuple(Family(name, ("head",)) for name in HEAD_ACTIVATIONS)
    return jnp.stack(act_patches(model, corrupted_tokens, clean_cache, metric, families))


@with_numerics
def get_act_patch_attn_head_by_pos_every(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    metric: Metric,
) -> Float[Array, "patch_type layer pos head"]:
    """The same at each position (for a pattern, of the query). See `get_act_patch_resid_pre`."""
    families = tuple(Family(name, ("pos", "head")) for name in HEAD_ACTIVATIONS)
    return jnp.stack(act_patches(model, corrupted_tokens, clean_cache, metric, families))
