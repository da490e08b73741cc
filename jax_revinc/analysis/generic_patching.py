"""Activation patching with a function of one's own, as `transformer_lens.patching` has it.

A patch setter ``(corrupted_activation, index, clean_activation)`` returns the patched activation,
where index is [layer, ...]. Arrays can't be changed in place: use ``.at[...].set(...)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float
from rich.progress import Progress

from jax_revinc.compilation.numerical_settings import keeps_precision, with_numerics
from jax_revinc.forward.token_checks import Tokens, check_tokens
from jax_revinc.hooks.hook_names import get_act_name
from jax_revinc.hooks.hook_points import HookPoint
from jax_revinc.model import HookedTransformer
from revinc import UserError
from revinc.terminal import PlainConsole
from revinc.validation import require_choice

PatchSetter = Callable[[Array, Sequence[int], Array], Array]


def make_df_from_ranges(
    column_max_ranges: Sequence[int], column_names: Sequence[str]
) -> pd.DataFrame:
    """A table of all combinations of indices below some sizes; the last column changes fastest.

    Args:
        column_max_ranges: the size of each column.
        column_names: the name of each column.
    """
    rows = list(itertools.product(*map(range, column_max_ranges)))
    return pd.DataFrame(rows, columns=list(column_names))


@with_numerics
def generic_activation_patch(
    model: HookedTransformer,
    corrupted_tokens: Tokens,
    clean_cache: Mapping[Any, Array],
    patching_metric: Callable[[Float[Array, "batch pos d_vocab_out"]], Float[Array, ""]],
    patch_setter: PatchSetter,
    activation_name: str,
    index_axis_names: Sequence[str] | None = None,
    index_df: pd.DataFrame | None = None,
    return_index_df: bool = False,
) -> Any:
    """The metric of the corrupted run, with one patch of an activation at a time.

    Each patch is a call of ``run_with_hooks``, so the functions may do what they like. The functions
    named ``get_act_patch_*`` make all patches in one compiled program, and are faster.

    Args:
        model: the model.
        corrupted_tokens: ids of the run that is patched, [batch, pos].
        clean_cache: the activations of the clean run, as from `run_with_cache`.
        patching_metric: a function from logits [batch, pos, d_vocab_out] to one number.
        patch_setter: a function ``(corrupted_activation, index, clean_activation)`` that returns the
            patched activation.
        activation_name: the activation's short name, such as "resid_pre".
        index_axis_names: the axes of the indices, the first of which is "layer": also "pos",
            "src_pos", "dest_pos", "head" and "head_index".
        index_df: a table of indices instead, a row for each patch.
        return_index_df: return the table of indices, too.

    Returns:
        The metrics, with an axis for each of `index_axis_names`, or one for each row of `index_df`.

    Raises:
        UserError: for both or neither of `index_axis_names` and `index_df`, an unknown axis, or an
            activation that the model or the cache lacks.
    """
    if (index_axis_names is None) == (index_df is None):
        raise UserError("give either index_axis_names or index_df, to say what is patched")
    if index_axis_names is not None:
        sizes = index_sizes(model, activation_name, check_tokens(model.cfg, corrupted_tokens))
        for axis in index_axis_names:
            require_choice("index_axis_names", axis, tuple(sizes))
        shape = [sizes[axis] for axis in index_axis_names]
        index_df = make_df_from_ranges(shape, index_axis_names)
    else:
        assert index_df is not None
        shape = [len(index_df)]

    def patched(index: list[int]) -> Any:
        name = get_act_name(activation_name, index[0])
        if name not in clean_cache:
            raise UserError(f"clean_cache lacks {name}; take it from model.run_with_cache(tokens)")
        clean = clean_cache[name]

        def patch(corrupted_activation: Array, hook: HookPoint) -> Array:  # noqa: ARG001
            return patch_setter(corrupted_activation, index, clean)

        logits = model.run_with_hooks(corrupted_tokens, fwd_hooks=[(name, patch)])
        return patching_metric(logits)

    indices = index_df.to_numpy().tolist()
    with PlainConsole().progress(*Progress.get_default_columns()) as bar:
        values = [patched(index) for index in bar.track(indices, description="patching")]
    metrics = jnp.asarray(values, model.cfg.dtype).reshape(shape)
    return (metrics, index_df) if return_index_df else metrics


def index_sizes(model: HookedTransformer, activation_name: str, tokens: Array) -> dict[str, int]:
    """The number of indices along each axis that can be patched."""
    cfg, n_pos = model.cfg, tokens.shape[-1]
    n_heads = cfg.n_kv_heads if activation_name in ("k", "v") else cfg.n_heads
    sizes = {"layer": cfg.n_layers, "pos": n_pos, "src_pos": n_pos, "dest_pos": n_pos}
    return sizes | {"head": n_heads, "head_index": n_heads}


def patch_setter(*axes: int) -> PatchSetter:
    """Make a patch setter that copies the clean activation at an index of some axes.

    Args:
        axes: the axis of the activation that each part of an index, after its layer, belongs to.
    """

    @keeps_precision
    def set_patch(
        corrupted_activation: Array, index: Sequence[int], clean_activation: Array
    ) -> Array:
        if len(index) != 1 + len(axes):
            raise UserError(
                f"the index {list(index)} must hold a layer and {len(axes)} more, for the axes "
                f"{list(axes)} of the activation"
            )
        where: list[Any] = [slice(None)] * np.ndim(clean_activation)
        for axis, position in zip(axes, index[1:], strict=True):
            where[axis] = position
        at = tuple(where)
        return jnp.asarray(corrupted_activation).at[at].set(clean_activation[at])

    return set_patch


layer_pos_patch_setter = patch_setter(1)
layer_pos_head_vector_patch_setter = patch_setter(1, 2)
layer_head_vector_patch_setter = patch_setter(2)
layer_head_pattern_patch_setter = patch_setter(1)
layer_head_pos_pattern_patch_setter = patch_setter(1, 2)
layer_head_dest_src_pos_pattern_patch_setter = patch_setter(1, 2, 3)
