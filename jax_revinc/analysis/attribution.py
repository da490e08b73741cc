"""Attribution: each component's part of the residual stream and its direct effect on the logits.

The methods of `ActivationCache` are functions of a model and a cache here: ``decompose_resid(model,
cache)`` is ``cache.decompose_resid()`` with the weights of `model`. Caches without a model, such as
those that left jit, need no other form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.activations.activation_cache import ActivationCache
from jax_revinc.activations.residual_stream.components import (
    Block,
    concatenate,
    embeddings,
    everywhere,
    head_results,
    layer_output,
)
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.token_checks import Tokens, check_predicted, check_range, check_sequences
from jax_revinc.hooks.taps import identity
from jax_revinc.model import HookedTransformer
from jax_revinc.slices import SliceInput
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_ints

P = ParamSpec("P")
R = TypeVar("R")


def with_model(model: HookedTransformer, cache: ActivationCache) -> ActivationCache:
    """A cache of the same activations that holds `model`; what is added to it is not to `cache`."""
    return ActivationCache(dict(cache.cache_dict), model, cache.has_batch_dim)


def of_model_and_cache(
    method: Callable[Concatenate[ActivationCache, P], R],
) -> Callable[..., R]:
    """A method of a cache as a function of a model and a cache."""

    @with_numerics
    def function(
        model: HookedTransformer, cache: ActivationCache, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return method(with_model(model, cache), *args, **kwargs)

    function.__name__, function.__doc__ = method.__name__, method.__doc__
    return function


decompose_resid = of_model_and_cache(ActivationCache.decompose_resid)
accumulated_resid = of_model_and_cache(ActivationCache.accumulated_resid)
stack_head_results = of_model_and_cache(ActivationCache.stack_head_results)
stack_neuron_results = of_model_and_cache(ActivationCache.stack_neuron_results)
get_full_resid_decomposition = of_model_and_cache(ActivationCache.get_full_resid_decomposition)
apply_ln_to_stack = of_model_and_cache(ActivationCache.apply_ln_to_stack)
logit_attrs = of_model_and_cache(ActivationCache.logit_attrs)


@with_numerics
def logit_lens(
    model: HookedTransformer,
    cache: ActivationCache,
    incl_mid: bool = False,
    pos_slice: SliceInput = None,
    return_labels: bool = False,
) -> Any:
    """The logit lens: the residual stream before each layer, turned into logits.

    Each stream of `accumulated_resid` passes the final norm, the unembedding and its soft cap.
    nostalgebraist 2020, "interpreting GPT: the logit lens".

    Args:
        model, cache, incl_mid, pos_slice, return_labels: see `accumulated_resid`.

    Returns:
        Logits [components, batch, pos, d_vocab_out], of which the last are the model's own; with
        `return_labels` also the labels.

    Raises:
        UserError: for a position that does not exist, or `incl_mid` in an attention-only model.
    """
    stack, labels = accumulated_resid(model, cache, None, incl_mid, True, pos_slice, False, True)
    logits = model.soft_cap(model.unembed(stack, identity))
    return (logits, labels) if return_labels else logits


@with_numerics
def logit_attribution(
    model: HookedTransformer,
    tokens: Tokens,
    predicted: tuple[int, ...],
    among: tuple[int, ...] | None = None,
) -> tuple[list[str], Float[Array, "components batch n_predicted"]]:
    """Direct logit attribution: each component's part of the right token's logit margin.

    The margin is the right token's logit minus the mean logit of the others.
    With the final norm's scale held fixed, the logits are affine in what each component writes, so
    the parts add up to exactly that difference. (Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits".)

    The components, in execution order: "embed", "pos_embed"; for each layer its heads "L0H0", ...,
    its "0_b_O" and its "0_mlp_out" (with its bias, as a head includes that of its values); and
    "b_U", the unembedding's bias plus that of the final norm.

    Args:
        model: the model.
        tokens: whole sequences [batch, seq]; the model is fed all but the last token.
        predicted: the positions whose token is predicted, each from the position before it.
        among: the ids whose mean logit the right one is compared with; by default all output
            tokens. Give ``task.answers`` to ignore tokens that are never an answer, such as BOS.

    Returns:
        The labels, and the contributions [components, batch, n_predicted].

    Raises:
        UserError: for misshapen or unknown tokens, a position that can't be predicted, or fewer
            than two ids in `among`.
    """
    cfg = model.cfg
    tokens = check_sequences(cfg, tokens)
    predicted = check_predicted(predicted, tokens.shape[1])
    positions = np.array(predicted)
    check_range(tokens[:, positions], cfg.d_vocab_out, "d_vocab_out")
    ids = range(cfg.d_vocab_out) if among is None else require_ints("among", among)
    compared = np.unique(ids)
    check_range(compared, cfg.d_vocab_out, "d_vocab_out")
    if len(compared) < 2:
        raise UserError(
            f"the argument `among` must hold at least two different token ids to compare, not {among}"
        )
    among_V = np.isin(np.arange(cfg.d_vocab_out), compared)
    contributions = _logit_attribution(model, tokens, positions, among_V)
    return list(contributions.labels), contributions.stack


@jax.jit
def _logit_attribution(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"],
    predicted: Int[Array, " n_predicted"],
    among_V: Bool[Array, " d_vocab_out"],
) -> Block:
    _, cache = model.run_with_cache(tokens[:, :-1])
    return attribute_logits(model, cache, tokens, predicted, among_V)


def attributed_components(cfg: HookedTransformerConfig) -> tuple[str, ...]:
    """The labels of the components of `logit_attribution`, in its order."""
    found = ["embed", "pos_embed"] if cfg.has_positions_in_stream else ["embed"]
    for layer in range(cfg.n_layers):
        found += [*(f"L{layer}H{head}" for head in range(cfg.n_heads)), f"{layer}_b_O"]
        found += [] if cfg.attn_only else [f"{layer}_mlp_out"]
    return (*found, "b_U")


def attribute_logits(
    model: HookedTransformer,
    cache: ActivationCache,
    tokens: Int[Array, "batch seq"],
    predicted: Int[Array, " n_predicted"] | Int[np.ndarray, " n_predicted"],
    among_V: Bool[Array, " d_vocab_out"] | Bool[np.ndarray, " d_vocab_out"],
) -> Block:
    """The result of `logit_attribution`, as a function that can be traced.

    Args:
        model, tokens, predicted: see `logit_attribution`.
        cache: the model's activations on the sequences.
        among_V: a mask of the ids whose mean logit the right one is compared with.
    """
    cfg = model.cfg
    cache = with_model(model, cache)
    blocks = embeddings(cache)
    for layer, block in enumerate(model.blocks):
        blocks.append(head_results(cache, layer))
        b_O = block.attn.b_O[...]
        blocks.append(everywhere(f"{layer}_b_O", b_O, cache["hook_embed"].shape))
        if not cfg.attn_only:
            blocks.append(layer_output(cache, layer, "mlp_out"))
    components = concatenate(blocks)

    def final_norm(x: Array) -> Array:
        """Apply the final norm to `x` with its scale taken from the cached run, so it is affine."""
        return model.ln_final(x, lambda name, a: cache["scale"] if name == "hook_scale" else a)

    bias_1BPM = final_norm(jnp.zeros_like(components.stack[:1]))
    linear_CBPM = final_norm(components.stack) - bias_1BPM
    normalized_CBPM = jnp.concatenate([linear_CBPM, bias_1BPM])

    right_BPV = jax.nn.one_hot(tokens[:, predicted], cfg.d_vocab_out, dtype=cfg.dtype)
    others_BPV = among_V * (1 - right_BPV)
    contrast_BPV = right_BPV - others_BPV / others_BPV.sum(-1, keepdims=True)
    directions_BPM = contrast_BPV @ model.unembed.W_U.T
    contributions_CBP = jnp.einsum(
        "cbpm,bpm->cbp", normalized_CBPM[:, :, predicted - 1], directions_BPM
    )
    contributions_CBP = contributions_CBP.at[-1].add(contrast_BPV @ model.unembed.b_U)
    return Block((*components.labels, "b_U"), contributions_CBP)
