"""Attribution: each component's part of the residual stream and its direct effect on the logits.

The functions of a cache are methods of `transformer_lens.ActivationCache` (3.9) with the same
names, defaults, labels and numbers. Our cache holds no model, so the model is the first argument:
``decompose_resid(model, cache)``.

Three arguments are missing. `batch_slice` and `has_batch_dim`: a cache is a pytree, so the cache of
input 3 alone is ``jax.tree.map(lambda x: x[3], cache)``. `project_output_onto`: multiply the stack
by the matrix.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.analysis.residual import (
    Block,
    Index,
    Stack,
    at_positions,
    concatenate,
    embeddings,
    everywhere,
    fed_layer,
    head_results,
    indices,
    layer_output,
    mlp_stream,
    n_attentions_before,
    neuron_results,
    remainder,
    weight,
)
from jax_revinc.hooks import ActivationCache, identity
from jax_revinc.model import HookedTransformer
from jax_revinc.numerical_settings import with_numerics
from jax_revinc.token_checks import (
    Tokens,
    check_predicted,
    check_range,
    check_sequences,
    require_array,
)
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_choice, require_ints
from revinc.weight_processing import CENTRING
from revinc.weights import final_normalization_type


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
    """The outputs of the embeddings and of all earlier layers, whose sum is the input to `layer`.

    Args:
        model: the model.
        cache: its activations, as from `HookedTransformer.run_with_cache`.
        layer: the layer whose input is split, 0..n_layers; n_layers, -1 and None mean the
            unembedding.
        mlp_input: split the input to the layer's MLP instead of that to its attention.
        mode: "all", or only the "mlp" or the "attn" outputs.
        apply_ln: scale as that layer's norm does (see `apply_ln_to_stack`).
        pos_slice: the positions to keep; an int drops the axis.
        incl_embeds: include the embeddings, in any `mode`.
        return_labels: return ``(stack, labels)``: "embed", "pos_embed", "0_attn_out", "0_mlp_out",
            ...

    Returns:
        The stack [components, batch, pos, d_model].

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
    return make_stack(model, cache, blocks, fed, mlp_input, apply_ln, pos_slice, return_labels)


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
    """The residual stream before each layer up to `layer`; the last layer is the unembedding.

    Args:
        model, cache, layer, pos_slice: see `decompose_resid`.
        incl_mid: include the stream between attention and MLP of every earlier layer.
        apply_ln: normalise as the input to `layer`. At the unembedding, apply the final norm anew
            to each entry, with gain and bias (see `logit_lens`); elsewhere, divide by the cached
            scale.
        mlp_input: include the input to the layer's MLP.
        return_labels: return ``(stack, labels)``: "0_pre", "0_mid", ..., "final_post".

    Returns:
        The stack [components, batch, pos, d_model].

    Raises:
        UserError: for a layer, MLP or position that does not exist.
    """
    fed = fed_layer(model.cfg, layer, mlp_input)
    has_mid = mlp_stream(model.cfg) == "resid_mid"
    if incl_mid and not has_mid:
        raise UserError(
            "incl_mid asks for the residual stream between attention and MLP, which this model "
            "does not have; leave incl_mid out"
        )
    blocks = []
    for earlier in range(min(fed + 1, model.cfg.n_layers)):
        blocks.append(Block((f"{earlier}_pre",), cache["resid_pre", earlier][None]))
        if (incl_mid and earlier < fed) or (mlp_input and has_mid and earlier == fed):
            blocks.append(Block((f"{earlier}_mid",), cache["resid_mid", earlier][None]))
    to_unembed = fed == model.cfg.n_layers
    if to_unembed:
        blocks.append(Block(("final_post",), cache["resid_post", -1][None]))
    stack, labels = make_stack(model, cache, blocks, fed, mlp_input, False, pos_slice, True)
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
def stack_head_results(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int | None = -1,
    return_labels: bool = False,
    incl_remainder: bool = False,
    pos_slice: Index = None,
    apply_ln: bool = False,
) -> Any:
    """The output of every head in the layers before `layer`: its ``hook_z`` times its weight W_O.

    Args:
        model, cache, layer, pos_slice, apply_ln: see `decompose_resid`.
        return_labels: return ``(stack, labels)``: "L0H0", ..., and "remainder".
        incl_remainder: append the rest of the stream, so that the stack sums to the input to
            `layer`.

    Returns:
        The stack [layer * n_heads, batch, pos, d_model], and the remainder.

    Raises:
        UserError: for a layer or position that does not exist, or if nothing is left (layer 0).
    """
    fed = fed_layer(model.cfg, layer)
    blocks = [head_results(model, cache, earlier) for earlier in range(fed)]
    if incl_remainder:
        blocks.append(remainder(cache, blocks, fed))
    return make_stack(model, cache, blocks, fed, False, apply_ln, pos_slice, return_labels)


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
    """The output of every MLP neuron before `layer`: its activation times its row of W_out.

    Args:
        model, cache, layer, pos_slice, apply_ln: see `decompose_resid`.
        neuron_slice: the neurons to keep, in every layer.
        return_labels: return ``(stack, labels)``: "L0N0", ..., and "remainder".
        incl_remainder: see `stack_head_results`.

    Returns:
        The stack [layer * neurons, batch, pos, d_model], and the remainder.

    Raises:
        UserError: for a layer, position or neuron that does not exist, or an attention-only model.
    """
    if model.cfg.attn_only:
        raise UserError("this model is attention-only, so it has no neurons to stack")
    fed = fed_layer(model.cfg, layer)
    kept = np.atleast_1d(indices(neuron_slice, model.cfg.d_mlp, "neuron"))
    blocks = [neuron_results(model, cache, earlier, kept) for earlier in range(fed)]
    if incl_remainder:
        blocks.append(remainder(cache, blocks, fed))
    return make_stack(model, cache, blocks, fed, False, apply_ln, pos_slice, return_labels)


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
    """The outputs of heads, neurons, embeddings and biases, whose sum is the input to `layer`.

    Args:
        model, cache, layer, mlp_input, apply_ln, pos_slice: see `decompose_resid`.
        expand_neurons: split MLPs into neurons; else whole MLPs, with their biases.
        return_labels: return ``(stack, labels)``; the last is "bias".

    Returns:
        The stack [components, batch, pos, d_model].

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
    return make_stack(model, cache, blocks, fed, mlp_input, apply_ln, pos_slice, return_labels)


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
    """Centre and scale components of the residual stream as the norm before `layer` does.

    That is linear, so the results add up to ``hook_normalized``. The norm's gain and bias are left
    out. In a model without norms the stack is returned as it is.

    Args:
        model: the model.
        cache: its activations, as from `HookedTransformer.run_with_cache`.
        residual_stack: the components, [components, batch, pos, d_model].
        layer, mlp_input: the input whose norm is applied (see `decompose_resid`).
        pos_slice: the slice that `residual_stack` was already cut with.
        recompute_ln: apply the final norm anew to each component, with its gain and bias.

    Raises:
        UserError: if layer or MLP do not exist, the stack does not fit the cache, or `recompute_ln`
            is asked for before another layer than the unembedding.
    """
    require_array("residual_stack", residual_stack)
    fed = fed_layer(model.cfg, layer, mlp_input)
    if recompute_ln and fed != model.cfg.n_layers:
        raise UserError(
            "recompute_ln applies the final norm, so it needs layer=None, the input to the "
            f"unembedding, not layer {fed}"
        )
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
            f"residual_stack has shape {list(residual_stack.shape[1:-1])} in batch and pos, but "
            f"the cache has {list(scale.shape[:-1])}; give the pos_slice that residual_stack was "
            "made with"
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
) -> Float[Array, "components batch ..."]:
    """Each component's part of the logits of `tokens`, minus that of `incorrect_tokens` if given.

    As in TransformerLens, the final norm's scale is applied and its gain and bias are not. For a
    norm of type "LN" use `logit_attribution`, whose contributions add up to the model's logits.

    Args:
        model: the model.
        cache: its activations, as from `HookedTransformer.run_with_cache`.
        residual_stack: [components, batch, pos, d_model], or [components, batch, d_model] at one
            position.
        tokens: one id, or one for every entry: [batch, pos], or [batch] at one position.
        incorrect_tokens: of the same shape as `tokens`.
        pos_slice: the slice that `residual_stack` was already cut with.

    Raises:
        UserError: for ids outside the output vocabulary, or shapes that do not fit.
    """
    require_array("residual_stack", residual_stack)
    if incorrect_tokens is not None and np.shape(tokens) != np.shape(incorrect_tokens):
        raise UserError(
            "tokens and incorrect_tokens must have the same shape, not "
            f"{list(np.shape(tokens))} and {list(np.shape(incorrect_tokens))}"
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
    blocks = embeddings(cfg, cache)
    for layer in range(cfg.n_layers):
        blocks.append(head_results(model, cache, layer))
        blocks.append(everywhere(cache, f"{layer}_b_O", weight(model, layer, "attn.b_O")))
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


def make_stack(
    model: HookedTransformer,
    cache: ActivationCache,
    blocks: list[Block],
    fed: int,
    mlp_input: bool,
    apply_ln: bool,
    pos_slice: Index,
    return_labels: bool,
) -> Any:
    """Join components of the residual stream in one array, at the positions of `pos_slice`.

    With `apply_ln`, they are scaled as by the norm before layer `fed`.

    Raises:
        UserError: if there are no blocks, or a position does not exist.
    """
    if not blocks:
        raise UserError(
            f"there are no components to stack: none of those asked for comes before layer {fed}"
        )
    components = concatenate(blocks)
    stack = at_positions(components.stack, pos_slice)
    if apply_ln:
        stack = apply_ln_to_stack(model, cache, stack, fed, mlp_input, pos_slice)
    return (stack, list(components.labels)) if return_labels else stack


def residual_directions(
    model: HookedTransformer, tokens: Any, covered: tuple[int, ...]
) -> Float[Array, "*batch_and_pos d_model"]:
    """Each token's unembedding vector, as in TransformerLens' ``tokens_to_residual_directions``."""
    tokens = tokens if isinstance(tokens, Array) else np.asarray(tokens)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens must be integers, not {tokens.dtype}")
    if tokens.size != 1 and tokens.shape != covered:
        raise UserError(
            f"tokens of shape {list(tokens.shape)} do not fit residual_stack, which has shape "
            f"{list(covered)} in batch and pos; give one token, or one for each entry"
        )
    check_range(tokens, model.cfg.d_vocab_out, "d_vocab_out")
    return model.unembed.W_U.T[tokens.reshape(()) if tokens.size == 1 else tokens]
