"""The effect of components of the residual stream on logits, through the norm before a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.activations.cached_activations import CachedActivations
from jax_revinc.activations.residual_stream.components import Stack
from jax_revinc.activations.residual_stream.layers import fed_layer
from jax_revinc.activations.residual_stream.norms import norm_before
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.token_checks import check_range, require_array
from jax_revinc.hooks.taps import identity
from jax_revinc.slices import Slice, SliceInput
from revinc import UserError


class LogitAttribution(CachedActivations):
    """The methods of a cache that apply norms and the unembedding to components."""

    @with_numerics
    def apply_ln_to_stack(
        self,
        residual_stack: Stack,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: SliceInput = None,
        batch_slice: SliceInput = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Stack:
        """Centre and scale components of the residual stream as the norm before `layer` does.

        That is linear, so the results add up to ``hook_normalized``. The norm's gain and bias are
        left out. In a model without norms the stack is returned as it is.

        Args:
            residual_stack: the components, [..., batch, pos, d_model].
            layer, mlp_input: the input whose norm is applied (see `decompose_resid`).
            pos_slice: the slice that `residual_stack` was already cut with.
            batch_slice: the inputs to keep of the batch, of the stack and of the scale.
            has_batch_dim: whether the second axis of the stack is the batch. If not, `batch_slice`
                cuts only the scale.
            recompute_ln: apply the final norm anew to each component, with its gain and bias.

        Raises:
            UserError: if layer, MLP or inputs do not exist, the stack does not fit the cache, or
                `recompute_ln` is asked for before another layer than the unembedding.
            KeyError: if the cache lacks the norm's ``hook_scale``.
        """
        require_array("residual_stack", residual_stack)
        fed = fed_layer(self.cfg, layer, mlp_input)
        if recompute_ln and fed != self.cfg.n_layers:
            raise UserError(
                "recompute_ln applies the final norm, so it needs layer=None, the input to the "
                f"unembedding, not layer {fed}"
            )
        if self.cfg.normalization_type is None:
            return residual_stack
        inputs = Slice(batch_slice)
        if has_batch_dim:
            residual_stack = inputs.apply(residual_stack, 1, "input")
        if recompute_ln:
            return self.known_model().ln_final(residual_stack, identity)
        norm = norm_before(self, fed, mlp_input)
        scale = Slice(pos_slice).apply(norm.scale, -2, "position")
        if self.has_batch_dim:
            scale = inputs.apply(scale, 0, "input")
        covered = residual_stack.shape[: residual_stack.ndim - 1]
        if covered[len(covered) - scale.ndim + 1 :] != scale.shape[:-1]:
            raise UserError(
                f"residual_stack has shape {list(residual_stack.shape)}, but the cache's norm has "
                f"{list(scale.shape[:-1])} in batch and pos; give the pos_slice that residual_stack "
                "was made with"
            )
        return norm.centred(residual_stack) / scale

    @with_numerics
    def logit_attrs(
        self,
        residual_stack: Stack,
        tokens: int | Int[Array, "batch ..."],
        incorrect_tokens: int | Int[Array, "batch ..."] | None = None,
        pos_slice: SliceInput = None,
        batch_slice: SliceInput = None,
        has_batch_dim: bool = True,
    ) -> Float[Array, "components batch ..."]:
        """Each component's part of the logits of `tokens`, minus that of `incorrect_tokens`, if any.

        As in TransformerLens, the final norm's scale is applied and its gain and bias are not. For
        a norm of type "LN" use `jax_revinc.analysis.attribution.logit_attribution`, whose
        contributions add up to the model's logits.

        Args:
            residual_stack: [components, batch, pos, d_model], or [components, batch, d_model] at
                one position.
            tokens: one id, or one for every entry: [batch, pos], or [batch] at one position.
            incorrect_tokens: of the same shape as `tokens`.
            pos_slice, batch_slice, has_batch_dim: see `apply_ln_to_stack`. The tokens are those of
                the inputs that `batch_slice` keeps.

        Raises:
            UserError: for ids outside the output vocabulary, shapes that do not fit, or a cache
                without a model.
            KeyError: if the cache lacks the final norm's ``hook_scale``.
        """
        scaled = self.apply_ln_to_stack(
            residual_stack, None, False, pos_slice, batch_slice, has_batch_dim
        )
        if incorrect_tokens is not None and np.shape(tokens) != np.shape(incorrect_tokens):
            raise UserError(
                "tokens and incorrect_tokens must have the same shape, not "
                f"{list(np.shape(tokens))} and {list(np.shape(incorrect_tokens))}"
            )
        directions = residual_directions(self.known_model(), tokens, scaled.shape[:-1])
        if incorrect_tokens is not None:
            directions -= residual_directions(self.model, incorrect_tokens, scaled.shape[:-1])
        return (scaled * directions).sum(-1)


def residual_directions(
    model: Any, tokens: Any, covered: tuple[int, ...]
) -> Float[Array, "*batch_and_pos d_model"]:
    """Each token's unembedding vector, as in TransformerLens' ``tokens_to_residual_directions``.

    Args:
        model: the model.
        tokens: one id, or an array of ids.
        covered: the shape, up to d_model, of the stack that the vectors are for.

    Raises:
        UserError: for ids that are no integers or outside the output vocabulary, or that do not fit
            the stack.
    """
    tokens = tokens if isinstance(tokens, Array) else np.asarray(tokens)
    if tokens.dtype.kind == "U":
        raise UserError("tokens must be ids: a toy model has no tokenizer that knows text")
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens must be integers, not {tokens.dtype}")
    if tokens.size != 1 and not fits(tokens.shape, covered):
        raise UserError(
            f"tokens of shape {list(tokens.shape)} do not fit residual_stack, which has shape "
            f"{list(covered)} up to d_model; give one token, or one for each entry"
        )
    check_range(tokens, model.cfg.d_vocab_out, "d_vocab_out")
    return model.tokens_to_residual_directions(tokens)  # type: ignore[no-any-return]


def fits(shape: tuple[int, ...], covered: tuple[int, ...]) -> bool:
    """Whether an array of `shape` can be repeated to the shape `covered`."""
    try:
        return np.broadcast_shapes(shape, covered) == covered
    except ValueError:
        return False
