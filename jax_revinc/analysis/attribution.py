"""Who wrote what into the residual stream, and what that does to the logits.

The functions on a cache are methods of `transformer_lens.ActivationCache` (3.9): same names, defaults,
labels and numbers. Our cache holds no model, so the model comes first: ``decompose_resid(model, cache)``.

Three arguments are missing. `batch_slice` and `has_batch_dim`: a cache is a pytree, so its input 3 alone is
``jax.tree.map(lambda x: x[3], cache)``. `project_output_onto`: multiply the stack by the matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.hooks import ActivationCache, identity
from jax_revinc.model import HookedTransformer, check_range, check_sequences, find_param
from jax_revinc.numerics import with_numerics
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_choice, require_index
from revinc.weight_processing import CENTRING
from revinc.weights import final_normalization_type

Index = int | slice | tuple[int, ...] | Sequence[int] | None
"""What to keep of an axis, as in TransformerLens: an int drops the axis, a tuple is a slice's arguments
((1, 4) keeps 1, 2, 3), a list holds indices, None keeps all."""

Stack = Float[Array, "component *batch pos d_model"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["stack"], meta_fields=["labels"])
@dataclass(frozen=True)
class Block:
    """Some components and their names. A pytree, so that a compiled function can return the names too."""

    labels: tuple[str, ...]
    stack: Stack


@with_numerics
def decompose_resid(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int | None = None,
    mlp_input: bool = False,
    mode: Literal["all", "mlp", "attn"] = "all",
    apply_ln: bool = False,
    pos_slice: Index = None,
    incl_embeds: bool = True,
    return_labels: bool = False,
) -> Any:
    """The outputs of the embeddings and of all earlier layers. Their sum is the input to `layer`.

    Args:
        layer: the layer that is fed, 0..n_layers; n_layers, -1 and None mean the unembedding.
        mlp_input: split the input to the layer's MLP instead of that to its attention.
        mode: "all", or only the "mlp" or the "attn" outputs.
        apply_ln: scale as that layer's norm does (see `apply_ln_to_stack`).
        pos_slice: the positions to keep; an int drops the axis.
        incl_embeds: whether `mode` leaves the embeddings in.
        return_labels: return ``(stack, labels)``: "embed", "pos_embed", "0_attn_out", "0_mlp_out", ...

    Returns:
        The stack [component, batch, pos, d_model].

    Raises:
        UserError: for a layer, MLP, mode or position that does not exist, or if nothing is left.
    """
    require_choice("mode", mode, ("all", "mlp", "attn"))
    fed = fed_layer(model.cfg, layer, mlp_input)
    blocks = embeddings(model.cfg, cache) if incl_embeds else []
    for earlier in range(model.cfg.n_layers):
        if mode != "mlp" and earlier < n_attentions_before(model.cfg, fed, mlp_input):
            blocks.append(layer_output(cache, earlier, "attn_out"))
        if mode != "attn" and earlier < fed and not model.cfg.attn_only:
            blocks.append(layer_output(cache, earlier, "mlp_out"))
    return joined(model, cache, blocks, fed, mlp_input, apply_ln, pos_slice, return_labels)


@with_numerics
def accumulated_resid(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int | None = None,
    incl_mid: bool = False,
    apply_ln: bool = False,
    pos_slice: Index = None,
    mlp_input: bool = False,
    return_labels: bool = False,
) -> Any:
    """The residual stream before each layer up to `layer`, and after the last if that is the unembedding.

    Args:
        layer, pos_slice: see `decompose_resid`.
        incl_mid: also the stream between attention and MLP of every earlier layer.
        apply_ln: normalise as the input to `layer`: by the final norm, anew for each entry and with its
            gain and bias, at the unembedding (that is the logit lens: see `logit_lens`); elsewhere by the
            cached scale.
        mlp_input: also the stream that is fed to the layer's MLP.
        return_labels: return ``(stack, labels)``: "0_pre", "0_mid", ..., "final_post".

    Returns:
        The stack [component, batch, pos, d_model].

    Raises:
        UserError: for a layer, MLP or position that does not exist.
    """
    fed = fed_layer(model.cfg, layer, mlp_input)
    has_mid = mlp_stream(model.cfg) == "resid_mid"
    if incl_mid and not has_mid:
        raise UserError(
            "incl_mid needs MLPs after the attention; this model has nothing in the middle"
        )
    blocks = []
    for earlier in range(min(fed + 1, model.cfg.n_layers)):
        blocks.append(Block((f"{earlier}_pre",), cache["resid_pre", earlier][None]))
        if (incl_mid and earlier < fed) or (mlp_input and has_mid and earlier == fed):
            blocks.append(Block((f"{earlier}_mid",), cache["resid_mid", earlier][None]))
    to_unembed = fed == model.cfg.n_layers
    if to_unembed:
        blocks.append(Block(("final_post",), cache["resid_post", -1][None]))
    stack, labels = joined(model, cache, blocks, fed, mlp_input, False, pos_slice, True)
    if apply_ln:
        stack = apply_ln_to_stack(model, cache, stack, fed, mlp_input, pos_slice, to_unembed)
    return (stack, labels) if return_labels else stack


@with_numerics
def logit_lens(
    model: HookedTransformer,
    cache: ActivationCache,
    incl_mid: bool = False,
    pos_slice: Index = None,
    return_labels: bool = False,
) -> Any:
    """The logits that the final norm and the unembedding make of every `accumulated_resid`.

    Returns:
        [component, batch, pos, d_vocab_out], the last entry being the model's own logits; with
        `return_labels` also the labels. (nostalgebraist 2020, "interpreting GPT: the logit lens".)

    Raises:
        UserError: for a position that does not exist, or `incl_mid` in an attention-only model.
    """
    stack, labels = accumulated_resid(model, cache, None, incl_mid, True, pos_slice, False, True)
    logits = model.unembed(stack, identity)
    return (logits, labels) if return_labels else logits


@with_numerics
def stack_head_results(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int | None = -1,
    return_labels: bool = False,
    incl_remainder: bool = False,
    pos_slice: Index = None,
    apply_ln: bool = False,
) -> Any:
    """What every head before `layer` writes: its z through its W_O. A layer's heads and b_O make attn_out.

    Args:
        layer, pos_slice, apply_ln: see `decompose_resid`.
        return_labels: return ``(stack, labels)``: "L0H0", ..., and "remainder".
        incl_remainder: append the rest of the stream, so that the stack sums to the input to `layer`.

    Returns:
        The stack [layer * n_heads, batch, pos, d_model], and the remainder.

    Raises:
        UserError: for a layer or position that does not exist, or if nothing is left (layer 0).
    """
    fed = fed_layer(model.cfg, layer)
    blocks = [head_results(model, cache, earlier) for earlier in range(fed)]
    if incl_remainder:
        blocks.append(remainder(cache, blocks, fed))
    return joined(model, cache, blocks, fed, False, apply_ln, pos_slice, return_labels)


@with_numerics
def stack_neuron_results(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int | None,
    pos_slice: Index = None,
    neuron_slice: Index = None,
    return_labels: bool = False,
    incl_remainder: bool = False,
    apply_ln: bool = False,
) -> Any:
    """What every MLP neuron before `layer` writes: its activation times its row of W_out.

    Args:
        layer, pos_slice, apply_ln: see `decompose_resid`.
        neuron_slice: the neurons to keep, in every layer.
        return_labels: return ``(stack, labels)``: "L0N0", ..., and "remainder".
        incl_remainder: see `stack_head_results`.

    Returns:
        The stack [layer * neurons, batch, pos, d_model], and the remainder.

    Raises:
        UserError: for a layer, position or neuron that does not exist, or an attention-only model.
    """
    if model.cfg.attn_only:
        raise UserError("an attention-only model has no neurons")
    fed = fed_layer(model.cfg, layer)
    kept = np.atleast_1d(indices(neuron_slice, model.cfg.d_mlp, "neuron"))
    blocks = [neuron_results(model, cache, earlier, kept) for earlier in range(fed)]
    if incl_remainder:
        blocks.append(remainder(cache, blocks, fed))
    return joined(model, cache, blocks, fed, False, apply_ln, pos_slice, return_labels)


@with_numerics
def get_full_resid_decomposition(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int | None = None,
    mlp_input: bool = False,
    expand_neurons: bool = True,
    apply_ln: bool = False,
    pos_slice: Index = None,
    return_labels: bool = False,
) -> Any:
    """Every head, every neuron, the embeddings and the sum of all biases. Their sum is the input to `layer`.

    Args:
        layer, mlp_input, apply_ln, pos_slice: see `decompose_resid`.
        expand_neurons: whole MLPs, with their biases, if False.
        return_labels: return ``(stack, labels)``; the last is "bias".

    Returns:
        The stack [component, batch, pos, d_model].

    Raises:
        UserError: for a layer, MLP or position that does not exist.
    """
    cfg = model.cfg
    fed = fed_layer(cfg, layer, mlp_input)
    attentions = range(n_attentions_before(cfg, fed, mlp_input))
    blocks = [head_results(model, cache, earlier) for earlier in attentions]
    biases = [weight(model, earlier, "attn.b_O") for earlier in attentions]
    for earlier in range(0 if cfg.attn_only else fed):
        if expand_neurons:
            blocks.append(neuron_results(model, cache, earlier, np.arange(cfg.d_mlp)))
            biases.append(weight(model, earlier, "mlp.b_out"))
        else:
            blocks.append(layer_output(cache, earlier, "mlp_out"))
    blocks += embeddings(cfg, cache)
    blocks.append(everywhere(cache, "bias", sum(biases, jnp.zeros(cfg.d_model, cfg.dtype))))
    return joined(model, cache, blocks, fed, mlp_input, apply_ln, pos_slice, return_labels)


@with_numerics
def apply_ln_to_stack(
    model: HookedTransformer,
    cache: ActivationCache,
    residual_stack: Stack,
    layer: int | None = None,
    mlp_input: bool = False,
    pos_slice: Index = None,
    recompute_ln: bool = False,
) -> Stack:
    """Components as the norm before `layer` scales their sum: over the cached scale, centred unless it is an RMS norm.

    That is linear, so the results add up to ``hook_normalized``. The norm's gain and bias are left out.
    A model without norms leaves the stack as it is.

    Args:
        residual_stack: [component, batch, pos, d_model].
        layer, mlp_input: the norm is the one before this input (see `decompose_resid`).
        pos_slice: the slice that `residual_stack` was already cut with.
        recompute_ln: the final norm itself, anew for each component and with its gain and bias.

    Raises:
        UserError: if layer or MLP do not exist, the stack does not fit the cache, or `recompute_ln` is
            asked for before another layer than the unembedding.
    """
    fed = fed_layer(model.cfg, layer, mlp_input)
    if recompute_ln and fed != model.cfg.n_layers:
        raise UserError(f"recompute_ln is for the final norm, not that of layer {fed}")
    if recompute_ln:
        return model.ln_final(residual_stack, identity)
    if model.cfg.normalization_type is None:
        return residual_stack
    at_end = fed == model.cfg.n_layers
    kind = final_normalization_type(model.cfg) if at_end else model.cfg.normalization_type
    norm = "ln2" if mlp_input else "ln1"
    scale = cache["scale"] if at_end else cache["scale", fed, norm]
    scale = at_positions(scale, pos_slice)
    if residual_stack.shape[1:-1] != scale.shape[:-1]:
        raise UserError(
            f"the stack covers {list(residual_stack.shape[1:-1])} (batch, pos), the cache "
            f"{list(scale.shape[:-1])}; give the pos_slice that the stack was cut with"
        )
    if kind in CENTRING:
        residual_stack = residual_stack - residual_stack.mean(-1, keepdims=True)
    return residual_stack / scale


@with_numerics
def logit_attrs(
    model: HookedTransformer,
    cache: ActivationCache,
    residual_stack: Stack,
    tokens: int | Int[Array, "batch ..."],
    incorrect_tokens: int | Int[Array, "batch ..."] | None = None,
    pos_slice: Index = None,
) -> Float[Array, "component batch ..."]:
    """What each component adds to the logit of `tokens`, minus that of `incorrect_tokens` if given.

    As in TransformerLens the final norm's scale counts and its gain and bias do not: on a norm of type
    "LN" use `logit_attribution`, whose contributions add up to the model's logits.

    Args:
        residual_stack: [component, batch, pos, d_model], or [component, batch, d_model] at one position.
        tokens: one id, or one for every entry: [batch, pos], or [batch] at one position.
        incorrect_tokens: of the same shape as `tokens`.
        pos_slice: the slice that `residual_stack` was already cut with.

    Raises:
        UserError: for ids outside the output vocabulary, or shapes that do not fit.
    """
    if incorrect_tokens is not None and np.shape(tokens) != np.shape(incorrect_tokens):
        raise UserError(
            f"tokens and incorrect_tokens must have one shape, not {list(np.shape(tokens))} and "
            f"{list(np.shape(incorrect_tokens))}"
        )
    covered = residual_stack.shape[1:-1]
    directions = residual_directions(model, tokens, covered)
    if incorrect_tokens is not None:
        directions = directions - residual_directions(model, incorrect_tokens, covered)
    scaled = apply_ln_to_stack(model, cache, residual_stack, pos_slice=pos_slice)
    return (scaled * directions).sum(-1)


@with_numerics
def logit_attribution(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"],
    predicted: tuple[int, ...],
    among: tuple[int, ...] | None = None,
) -> tuple[list[str], Float[Array, "component batch n_predicted"]]:
    """What each component adds directly to the right token's logit minus the mean of the others'.

    With the final norm's scale held fixed the logits are affine in what each component writes, so the
    contributions add up to exactly that difference. ("Direct logit attribution": Elhage et al. 2021, "A
    Mathematical Framework for Transformer Circuits".)

    The components, in execution order: "embed", "pos_embed"; for each layer its heads "L0H0", ...,
    its "0_b_O" and its "0_mlp_out" (with its own bias, as a head has that of its values); and "b_U", the
    unembedding's bias with the final norm's folded in.

    Args:
        tokens: whole sequences; the model is fed all but the last token.
        predicted: the positions whose token is predicted, each from the position before it.
        among: the ids whose mean logit the right one is compared with; by default all that can be put out.
            Give ``task.answers`` to compare answers with answers: that a model never says BOS is no merit.

    Returns:
        The labels, and the contributions [component, batch, n_predicted].

    Raises:
        UserError: for misshapen or unknown tokens, a position that can't be predicted, or fewer than two
            ids in `among`.
    """
    cfg = model.cfg
    tokens = check_sequences(cfg, tokens)
    for position in predicted:
        if not 1 <= position < tokens.shape[1]:
            raise UserError(
                f"position {position} can't be predicted; choose among 1..{tokens.shape[1] - 1}"
            )
    positions = np.array(predicted, int)
    check_range(tokens[:, positions], cfg.d_vocab_out, "d_vocab_out")
    compared = np.arange(cfg.d_vocab_out) if among is None else np.unique(among)
    check_range(compared, cfg.d_vocab_out, "d_vocab_out")
    if len(compared) < 2:
        raise UserError(f"comparing tokens takes two; among={among} has too few")
    among_V = np.isin(np.arange(cfg.d_vocab_out), compared)
    contributions = _logit_attribution(cfg, model.params, tokens, positions, among_V)
    return list(contributions.labels), contributions.stack


@functools.partial(jax.jit, static_argnames="cfg")
def _logit_attribution(
    cfg: HookedTransformerConfig,
    params: dict[str, Array],
    tokens: Int[Array, "batch seq"],
    predicted: Int[Array, " n_predicted"],
    among_V: Bool[Array, " d_vocab_out"],
) -> Block:
    model = HookedTransformer(cfg, params=params)
    _, cache = model.run_with_cache(tokens[:, :-1])
    blocks = embeddings(cfg, cache)
    for layer in range(cfg.n_layers):
        blocks.append(head_results(model, cache, layer))
        blocks.append(everywhere(cache, f"{layer}_b_O", weight(model, layer, "attn.b_O")))
        if not cfg.attn_only:
            blocks.append(layer_output(cache, layer, "mlp_out"))
    components = concatenated(blocks)

    def final_norm(x: Array) -> Array:
        """The final norm with the scale it had in this run: affine in `x`, whatever its type."""
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


def fed_layer(cfg: HookedTransformerConfig, layer: int | None, mlp_input: bool = False) -> int:
    """`layer` with n_layers for the unembedding, once it and its MLP are known to exist."""
    fed = cfg.n_layers if layer is None or layer == -1 else layer
    require_index("layer", fed, cfg.n_layers + 1)
    if mlp_input and (cfg.attn_only or fed == cfg.n_layers):
        where = "an attention-only model" if cfg.attn_only else "the unembedding"
        raise UserError(f"mlp_input needs an MLP, and {where} has none")
    return fed


def mlp_stream(cfg: HookedTransformerConfig) -> str | None:
    """The name of the stream that MLPs read: behind the attention or, if they are parallel, before it."""
    if cfg.attn_only:
        return None
    return "resid_pre" if cfg.parallel_attn_mlp else "resid_mid"


def n_attentions_before(cfg: HookedTransformerConfig, fed: int, mlp_input: bool) -> int:
    """How many attentions have written into the input of layer `fed` or of its MLP."""
    return fed + (mlp_input and not cfg.parallel_attn_mlp)


def embeddings(cfg: HookedTransformerConfig, cache: ActivationCache) -> list[Block]:
    """What the stream begins with: positions are in it if they are added there."""
    names = ["embed", "pos_embed"] if cfg.has_positions_in_stream else ["embed"]
    return [Block((name,), cache[f"hook_{name}"][None]) for name in names]


def layer_output(cache: ActivationCache, layer: int, name: str) -> Block:
    return Block((f"{layer}_{name}",), cache[name, layer][None])


def weight(model: HookedTransformer, layer: int, name: str) -> Array:
    return find_param(model, f"blocks.{layer}.{name}")[...]


def everywhere(cache: ActivationCache, label: str, bias: Float[Array, " d_model"]) -> Block:
    """A bias as a component: the same at every position of every input."""
    return Block((label,), jnp.broadcast_to(bias, (1, *cache["hook_embed"].shape)))


def head_results(model: HookedTransformer, cache: ActivationCache, layer: int) -> Block:
    W_O_HEM = weight(model, layer, "attn.W_O")
    labels = tuple(f"L{layer}H{head}" for head in range(model.cfg.n_heads))
    return Block(labels, jnp.einsum("...he,hem->h...m", cache["z", layer], W_O_HEM))


def neuron_results(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int,
    neurons: Int[np.ndarray, " neuron"],
) -> Block:
    post, W_out_FM = cache["post", layer][..., neurons], weight(model, layer, "mlp.W_out")[neurons]
    labels = tuple(f"L{layer}N{neuron}" for neuron in neurons)
    return Block(labels, jnp.einsum("...f,fm->f...m", post, W_out_FM))


def remainder(cache: ActivationCache, blocks: list[Block], fed: int) -> Block:
    """The input to layer `fed` less all `blocks`. (At layer 0 TransformerLens takes the *last* stream.)"""
    resid = cache["resid_post", fed - 1] if fed else cache["resid_pre", 0]
    return Block(("remainder",), (resid - sum(block.stack.sum(0) for block in blocks))[None])


def joined(
    model: HookedTransformer,
    cache: ActivationCache,
    blocks: list[Block],
    fed: int,
    mlp_input: bool,
    apply_ln: bool,
    pos_slice: Index,
    return_labels: bool,
) -> Any:
    """The blocks as one stack at the positions asked for, scaled and labelled as asked."""
    if not blocks:
        raise UserError(f"no component of this kind comes before layer {fed}")
    components = concatenated(blocks)
    stack = at_positions(components.stack, pos_slice)
    if apply_ln:
        stack = apply_ln_to_stack(model, cache, stack, fed, mlp_input, pos_slice)
    return (stack, list(components.labels)) if return_labels else stack


def concatenated(blocks: list[Block]) -> Block:
    return Block(
        tuple(label for block in blocks for label in block.labels),
        jnp.concatenate([block.stack for block in blocks]),
    )


def at_positions(activation: Float[Array, "*rest pos last"], pos_slice: Index) -> Array:
    positions = indices(pos_slice, activation.shape[-2], "position")
    return jnp.take(activation, positions, axis=-2)


def indices(index: Index, n: int, what: str) -> Int[np.ndarray, "*kept"]:
    """The elements of ``0..n-1`` that `index` keeps.

    Raises:
        UserError: if one does not exist (JAX would take the nearest).
    """
    if index is None:
        return np.arange(n)
    try:
        return np.asarray(np.arange(n)[slice(*index) if isinstance(index, tuple) else index])
    except (IndexError, TypeError):
        raise UserError(
            f"{what} {index!r} does not exist; choose among 0..{n - 1} by an int, a list, a slice, or a "
            "tuple of a slice's arguments"
        ) from None


def residual_directions(
    model: HookedTransformer, tokens: Any, covered: tuple[int, ...]
) -> Float[Array, "*batch_and_pos d_model"]:
    """The unembedding vector of every token, as ``HookedTransformer.tokens_to_residual_directions``."""
    tokens = tokens if isinstance(tokens, Array) else np.asarray(tokens)
    if tokens.size != 1 and tokens.shape != covered:
        raise UserError(
            f"tokens of shape {list(tokens.shape)} do not fit a stack over {list(covered)}; give one "
            "token, or one for each of these"
        )
    check_range(tokens, model.cfg.d_vocab_out, "d_vocab_out")
    return model.unembed.W_U.T[tokens.reshape(()) if tokens.size == 1 else tokens]
