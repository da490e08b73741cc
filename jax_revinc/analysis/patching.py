"""Activation patching: a metric of the corrupted run with one activation copied from the clean run.

The functions named ``get_act_patch_*`` are those of `transformer_lens.patching`, with the same
arguments, numbers and result shapes. `patch_sweep` patches many kinds of sites at once, and
measures every pair of inputs rather than their mean. Each call is one compiled program. Every new
function object given as metric compiles anew, so define a metric once and reuse it.

Method: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (causal tracing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis.generic_patching import (
    generic_activation_patch,
    layer_head_dest_src_pos_pattern_patch_setter,
    layer_head_pattern_patch_setter,
    layer_head_pos_pattern_patch_setter,
    layer_head_vector_patch_setter,
    layer_pos_head_vector_patch_setter,
    layer_pos_patch_setter,
    make_df_from_ranges,
)
from jax_revinc.analysis.interventions import Measure, Sites, run_in_lanes, sweep
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.token_checks import Tokens, check_tokens
from jax_revinc.hooks.hook_names import get_act_name
from jax_revinc.model import HookedTransformer, hook_names
from revinc import HookedTransformerConfig, UserError
from revinc.errors import near_names

__all__ = [
    "PatchSweep",
    "generic_activation_patch",
    "get_act_patch_attn_head_all_pos_every",
    "get_act_patch_attn_head_by_pos_every",
    "get_act_patch_attn_head_k_all_pos",
    "get_act_patch_attn_head_k_by_pos",
    "get_act_patch_attn_head_out_all_pos",
    "get_act_patch_attn_head_out_by_pos",
    "get_act_patch_attn_head_pattern_all_pos",
    "get_act_patch_attn_head_pattern_by_pos",
    "get_act_patch_attn_head_pattern_dest_src_pos",
    "get_act_patch_attn_head_q_all_pos",
    "get_act_patch_attn_head_q_by_pos",
    "get_act_patch_attn_head_v_all_pos",
    "get_act_patch_attn_head_v_by_pos",
    "get_act_patch_attn_out",
    "get_act_patch_block_every",
    "get_act_patch_mlp_out",
    "get_act_patch_resid_mid",
    "get_act_patch_resid_pre",
    "layer_head_dest_src_pos_pattern_patch_setter",
    "layer_head_pattern_patch_setter",
    "layer_head_pos_pattern_patch_setter",
    "layer_head_vector_patch_setter",
    "layer_pos_head_vector_patch_setter",
    "layer_pos_patch_setter",
    "make_df_from_ranges",
    "patch_sweep",
]

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
"""The activations that can be patched, and their axes by name. A pattern's "pos" is the query."""


class Family(NamedTuple):
    """The parts of one activation to patch in every layer, such as its positions or its heads."""

    activation: str
    axes: tuple[str, ...]

    def in_layers(self, cfg: HookedTransformerConfig) -> list[Sites]:
        """For each layer, this activation's full name and the axes along which it is patched."""
        axes = tuple(AXES[self.activation][axis] for axis in self.axes)
        return [Sites(get_act_name(self.activation, layer), axes) for layer in range(cfg.n_layers)]

    def shape(self, cfg: HookedTransformerConfig, cache: Mapping[Any, Array]) -> tuple[int, ...]:
        """The shape of the results of patching: layers, then the indices along each axis."""
        sizes = cache[get_act_name(self.activation, 0)].shape
        return (cfg.n_layers, *(sizes[AXES[self.activation][axis]] for axis in self.axes))


class PatchSweep(NamedTuple):
    """Metrics of runs with a patched activation, for every pair of a clean and a corrupted input.

    Attributes:
        clean: the metric of the clean run, [pair].
        corrupted: the metric of the corrupted run, [pair].
        patched: by activation, the metric of the corrupted run with one site patched, [n_layers,
            pos, pair], or [n_layers, pos, n_heads, pair] for activations of heads.
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
    """Patch each position and head of each layer in turn, for pairs of clean and corrupted inputs.

    Args:
        model: the model.
        clean_tokens: ids of the run that is copied from, [pair, pos].
        corrupted_tokens: ids of the run that is copied into, [pair, pos].
        metric_per_pair: a JAX function from logits [pair, pos, d_vocab_out] to numbers [pair].
        sites: the activations to patch, of `AXES` (all that the model has by default).

    Raises:
        UserError: for tokens of different shapes, an activation that is unknown or that the model
            lacks, or a metric of another shape.
    """
    check_metric(metric_per_pair)
    clean, corrupted = check_pair(model.cfg, clean_tokens, corrupted_tokens)
    families = sweep_families(model.cfg, sites)
    return _patch_pairs(model, families, metric_per_pair, clean, corrupted)


def sweep_families(
    cfg: HookedTransformerConfig, sites: Sequence[str] | None = None
) -> tuple[Family, ...]:
    """The parts of activations to patch: every position or, where there are heads, each head there.

    Args:
        cfg: the model's config.
        sites: names of activations, of `AXES`; all that the model has by default.

    Raises:
        UserError: for an activation that is unknown or that the model lacks.
    """
    if sites is None:
        sites = [name for name in AXES if get_act_name(name, 0) in hook_names(cfg)]
    if not isinstance(sites, tuple | list):
        raise UserError(f"sites must be a list of activations' names, not {sites!r}")
    for name in sites:
        check_activation(cfg, name)
    return tuple(
        Family(name, tuple(axis for axis in ("pos", "head") if axis in AXES[name]))
        for name in sites
    )


@partial(jax.jit, static_argnames=("families", "metric"))
def _patch_pairs(
    model: HookedTransformer,
    families: tuple[Family, ...],
    metric: MetricPerPair,
    clean: Int[Array, "pair pos"],
    corrupted: Int[Array, "pair pos"],
) -> PatchSweep:
    measure = checked(metric, clean.shape[:1], "one number per pair")
    logits, clean_cache = run_in_lanes(HookedTransformer.run_with_cache, model, clean)
    corrupted_logits = run_in_lanes(HookedTransformer.__call__, model, corrupted)

    def patched(family: Family) -> Array:
        by_layer = [
            sweep(model, corrupted, [sites], clean_cache, measure)
            for sites in family.in_layers(model.cfg)
        ]
        measured = jnp.concatenate(by_layer)
        return measured.reshape(*family.shape(model.cfg, clean_cache), *measured.shape[1:])

    return PatchSweep(
        measure(logits),
        measure(corrupted_logits),
        {family.activation: patched(family) for family in families},
    )


def patch_together(
    model: HookedTransformer,
    families: tuple[Family, ...],
    measure: Measure,
    corrupted: Int[Array, "pair pos"],
    clean_run: tuple[Array, Mapping[str, Array]],
    corrupted_run: tuple[Array, Mapping[str, Array]],
) -> PatchSweep:
    """The result of `patch_sweep`, by one sweep over all sites: compiles faster, and runs slower.

    Args:
        model: the model.
        families: the parts of activations to patch.
        measure: the metric per pair.
        corrupted: ids of the run that is copied into.
        clean_run, corrupted_run: logits and activations of both runs.
    """
    measured = measure_families(model, families, measure, corrupted, clean_run[1], in_lanes=False)
    patched = {family.activation: part for family, part in zip(families, measured, strict=True)}
    return PatchSweep(measure(clean_run[0]), measure(corrupted_run[0]), patched)


@partial(jax.jit, static_argnames=("families", "metric"))
def _patch_batch(
    model: HookedTransformer,
    families: tuple[Family, ...],
    metric: Metric,
    corrupted: Int[Array, "batch pos"],
    clean_cache: dict[str, Array],
) -> list[Array]:
    """For each family (parts of one activation), the metric of each run with one part patched."""
    measure = checked(metric, (), "one number")
    return measure_families(model, families, measure, corrupted, clean_cache, in_lanes=True)


def measure_families(
    model: HookedTransformer,
    families: tuple[Family, ...],
    measure: Measure,
    corrupted: Int[Array, "batch pos"],
    clean_cache: Mapping[Any, Array],
    in_lanes: bool,
) -> list[Array]:
    """For each family, the metric of each run with one part patched, by one sweep over them all."""
    cfg = model.cfg
    sites = [sites for family in families for sites in family.in_layers(cfg)]
    measured = sweep(model, corrupted, sites, clean_cache, measure, in_lanes)
    shapes = [family.shape(cfg, clean_cache) for family in families]
    parts = jnp.split(measured, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [
        part.reshape(*shape, *part.shape[1:]) for part, shape in zip(parts, shapes, strict=True)
    ]


def check_pair(
    cfg: HookedTransformerConfig, clean_tokens: Tokens, corrupted_tokens: Tokens
) -> tuple[Int[Array, "batch pos"], Int[Array, "batch pos"]]:
    """Check clean and corrupted tokens, and return them as [batch, pos].

    Raises:
        UserError: if one is no batch of tokens, or their shapes differ.
    """
    clean, corrupted = check_tokens(cfg, clean_tokens), check_tokens(cfg, corrupted_tokens)
    if clean.shape != corrupted.shape:
        raise UserError(
            f"clean tokens {list(clean.shape)} and corrupted tokens {list(corrupted.shape)} must "
            "have one shape: a corrupted sequence of equal length for every clean one"
        )
    return clean, corrupted


def check_activation(cfg: HookedTransformerConfig, name: str) -> None:
    """Raise a UserError unless the activation `name` can be patched and the model has it."""
    if not isinstance(name, str) or name not in AXES:
        hint = near_names(str(name), AXES)
        raise UserError(
            f"there is no activation {name!r} to patch{hint} (known: {', '.join(AXES)})"
        )
    if get_act_name(name, 0) not in hook_names(cfg):
        raise UserError(
            f"the model has no activation {name} to patch, because of its config: "
            f"attn_only={cfg.attn_only}, parallel_attn_mlp={cfg.parallel_attn_mlp}"
        )


def check_metric(metric: Any) -> None:
    """Raise a UserError unless `metric` is a hashable function: it is a static argument of jit."""
    if not callable(metric) or not isinstance(metric, Hashable):
        raise UserError(f"the metric must be a hashable function of the logits, not {metric!r}")


def checked(metric: Measure, shape: tuple[int, ...], wanted: str) -> Measure:
    """Wrap a metric so that it raises a UserError if its result has another shape than `shape`.

    Args:
        metric: a function of the logits.
        shape: the shape that its result must have.
        wanted: that shape in words, for the error.
    """

    def measure(logits: Float[Array, "batch pos d_vocab_out"]) -> Array:
        found = metric(logits)
        try:
            value = jnp.asarray(found)
        except (TypeError, ValueError):
            raise UserError(f"the metric must return {wanted}, not {found!r}") from None
        if value.shape != shape:
            raise UserError(
                f"the metric must return {wanted}, not an array of shape {list(value.shape)}"
            )
        return value

    return measure


def clean_activations(
    model: HookedTransformer,
    families: Sequence[Family],
    corrupted: Int[Array, "batch pos"],
    clean_cache: Mapping[Any, Array],
) -> dict[str, Array]:
    """Those activations in the clean run's cache that patching copies into the corrupted run.

    Raises:
        UserError: if one is missing, or has another shape than in the corrupted run.
    """
    if not isinstance(clean_cache, Mapping):
        kind = type(clean_cache).__name__
        raise UserError(
            f"clean_cache must be an ActivationCache or a dict of activations by name, not a {kind}"
        )
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
    """Check the arguments of a ``get_act_patch_*`` function, then patch the parts in `families`."""
    check_metric(patching_metric)
    for family in families:
        check_activation(model.cfg, family.activation)
    corrupted = check_tokens(model.cfg, corrupted_tokens)
    clean = clean_activations(model, families, corrupted, clean_cache)
    return _patch_batch(model, families, patching_metric, corrupted, clean)


def act_patch(activation: str, *axes: str) -> ActPatch:
    """Make a function that patches an activation at each index of `axes` in turn, in each layer."""

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

    shape = ", ".join(("layer", *axes))
    get_act_patch.__doc__ = f"""The metric of the corrupted run with the clean run's `{activation}`
    patched in, [{shape}].

    As in `transformer_lens.patching`.

    Args:
        model: the model.
        corrupted_tokens: ids of the run that is patched, [batch, pos].
        clean_cache: the activations of the clean run, as from `run_with_cache`.
        patching_metric: a JAX function from logits [batch, pos, d_vocab_out] to one number.

    Raises:
        UserError: for an activation that the model or the cache lacks, clean and corrupted runs of
            different shapes, or a metric that does not return one number.
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
) -> Float[Array, "patch_type n_layers pos"]:
    """The corrupted run's metric with clean resid_pre, attn_out or mlp_out at one position.

    See `get_act_patch_resid_pre` for the arguments.
    """
    families = tuple(Family(name, ("pos",)) for name in ("resid_pre", "attn_out", "mlp_out"))
    return jnp.stack(act_patches(model, corrupted_tokens, clean_cache, metric, families))


@with_numerics
def get_act_patch_attn_head_all_pos_every(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    metric: Metric,
) -> Float[Array, "patch_type n_layers n_heads"]:
    """The corrupted run's metric with a head's clean z, q, k, v or pattern at all positions.

    See `get_act_patch_resid_pre` for the arguments. If heads share keys and values, there are fewer
    k and v than heads: the rest are zeros, which mean nothing.
    """
    families = tuple(Family(name, ("head",)) for name in HEAD_ACTIVATIONS)
    patched = act_patches(model, corrupted_tokens, clean_cache, metric, families)
    return stacked_heads(patched, model.cfg.n_heads)


@with_numerics
def get_act_patch_attn_head_by_pos_every(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    metric: Metric,
) -> Float[Array, "patch_type n_layers pos n_heads"]:
    """The corrupted run's metric with a head's clean z, q, k, v or pattern at one position."""
    families = tuple(Family(name, ("pos", "head")) for name in HEAD_ACTIVATIONS)
    patched = act_patches(model, corrupted_tokens, clean_cache, metric, families)
    return stacked_heads(patched, model.cfg.n_heads)


def stacked_heads(
    patched: Sequence[Float[Array, "*layer_and_pos kind_heads"]], n_heads: int
) -> Float[Array, "patch_type *layer_and_pos n_heads"]:
    """Stack results of patching z, q, k, v and pattern; if heads share k and v, pad with zeros."""
    widths = [[(0, 0)] * (one.ndim - 1) + [(0, n_heads - one.shape[-1])] for one in patched]
    return jnp.stack([jnp.pad(one, width) for one, width in zip(patched, widths, strict=True)])
