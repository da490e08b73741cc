"""The transformer: TransformerLens 3.9's semantics, names, hooks and cache."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.components.block import make_block
from jax_revinc.components.embeddings import POS_EMBEDS, Embed, Unembed
from jax_revinc.components.norms import NORMS
from jax_revinc.components.params import within
from jax_revinc.components.scores import make_soft_cap
from jax_revinc.hooks import (
    ActivationCache,
    FwdHooks,
    HookPoint,
    NamesFilter,
    Tap,
    editing,
    identity,
    recording,
    scoped,
    select_names,
    tapped_if,
)
from jax_revinc.init import init_params
from jax_revinc.numerics import numerics, with_numerics
from revinc import HookedTransformerConfig, UserError, weight_processing
from revinc.weights import (
    StateDict,
    check_shapes,
    check_state_dict,
    final_normalization_type,
    parameter_shapes,
)

Tokens: TypeAlias = Int[Array, "batch pos"] | Int[np.ndarray, "batch pos"]
ReturnType = Literal["logits", "loss", "both"] | None


class Output(NamedTuple):
    """What ``return_type="both"`` returns."""

    logits: Float[Array, "batch pos d_vocab_out"]
    loss: Float[Array, ""]


class HookedTransformer(nnx.Module):
    """A decoder-only transformer whose activations can all be seen and edited.

    ``HookedTransformer(cfg, rngs=nnx.Rngs(0))`` draws its weights, ``HookedTransformer(cfg)`` from ``cfg.seed``;
    ``HookedTransformer(cfg, params=params)`` takes them, as a flat dict by TransformerLens names, and
    works on traced arrays, so a pure function of a dict of parameters can build one.

    The model is itself a pytree: pass it through ``jax.jit``, ``jax.vmap`` and ``jax.grad``.
    """

    def __init__(
        self,
        cfg: HookedTransformerConfig,
        *,
        rngs: nnx.Rngs | None = None,
        params: Mapping[str, Array | np.ndarray] | None = None,
    ) -> None:
        if rngs is not None and not isinstance(rngs, nnx.Rngs):
            raise UserError("rngs must be an nnx.Rngs, such as nnx.Rngs(0)")
        if rngs is None and params is None and cfg.seed is not None:
            rngs = nnx.Rngs(cfg.seed)
        if (rngs is None) == (params is None):
            raise UserError("give HookedTransformer either rngs or params, or its config a seed")
        with numerics(cfg):
            drawn = params if rngs is None else init_params(cfg, rngs.params())
            arrays = {name: as_floats(cfg, name, array) for name, array in (drawn or {}).items()}
        check_shapes(cfg, {name: array.shape for name, array in arrays.items()}, "params")
        final_norm = NORMS[final_normalization_type(cfg)]
        self.cfg = cfg
        self.tokens = tapped_if(cfg.use_hook_tokens, "hook_tokens")
        self.embed = Embed(within(arrays, "embed"))
        self.pos_embed = POS_EMBEDS[cfg.positional_embedding_type](within(arrays, "pos_embed"))
        self.blocks = nnx.List(
            make_block(cfg, layer, within(arrays, f"blocks.{layer}"))
            for layer in range(cfg.n_layers)
        )
        self.ln_final = final_norm(cfg.eps, within(arrays, "ln_final"))
        self.unembed = Unembed(within(arrays, "unembed"))
        self.soft_cap = make_soft_cap(cfg.output_logits_soft_cap)

    @with_numerics
    def __call__(
        self,
        tokens: Tokens,
        return_type: ReturnType = "logits",
        loss_per_token: bool = False,
        tap: Tap = identity,
    ) -> Any:
        """Logits, next-token loss, both, or None, as TransformerLens' ``forward``.

        Args:
            tokens: ids [batch, pos], or [pos] for a batch of one. Ids outside the vocabulary raise
                when they are concrete; under jit they can't be seen: JAX wraps negative ids and clamps others.
            return_type: "logits" [batch, pos, d_vocab_out]; "loss", the mean cross-entropy in nats of
                every next token; "both", an `Output`; None runs the blocks for their hooks' sake.
            loss_per_token: the loss as [batch, pos - 1] instead of its mean.
            tap: sees, and may replace, every activation.

        Raises:
            UserError: for tokens of a wrong shape, type or range, or an unknown `return_type`.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise UserError(
                f"return_type must be 'logits', 'loss', 'both' or None, not {return_type!r}"
            )
        tokens_BP = self.tokens(tap, check_tokens(self.cfg, tokens))
        embed_BPM = tap("hook_embed", self.embed(tokens_BP))
        resid_BPM, pos_BPM = self.pos_embed(embed_BPM, tap)
        for layer, block in enumerate(self.blocks):
            resid_BPM = block(resid_BPM, pos_BPM, scoped(tap, f"blocks.{layer}"))
        resid_BPM = self.ln_final(resid_BPM, scoped(tap, "ln_final"))
        if return_type is None:
            return None
        logits_BPV = self.soft_cap(self.unembed(resid_BPM, scoped(tap, "unembed")))
        if return_type == "logits":
            return logits_BPV
        if self.cfg.d_vocab_out < self.cfg.d_vocab:
            check_range(tokens_BP[:, 1:], self.cfg.d_vocab_out, "d_vocab_out")
        loss = next_token_loss(logits_BPV, tokens_BP, loss_per_token)
        return loss if return_type == "loss" else Output(logits_BPV, loss)

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """Every hook point by name, in execution order."""
        return {name: HookPoint(name) for name in hook_names(self.cfg)}

    def run_with_hooks(
        self,
        tokens: Tokens,
        return_type: ReturnType = "logits",
        loss_per_token: bool = False,
        *,
        fwd_hooks: FwdHooks = (),
    ) -> Any:
        """The forward pass with hook functions applied. They last for this call.

        Args:
            tokens: as for calling the model.
            fwd_hooks: pairs of a name (or several, or a predicate on names) and a function
                ``fn(activation, hook)`` that returns the new activation, or None to leave it.
            return_type, loss_per_token: as for calling the model.

        Raises:
            UserError: for an unknown hook name, or a hook that changes an activation's shape.
        """
        tap = editing(fwd_hooks, hook_names(self.cfg))
        return self(tokens, return_type, loss_per_token, tap)

    def run_with_cache(
        self,
        tokens: Tokens,
        return_type: ReturnType = "logits",
        loss_per_token: bool = False,
        *,
        names_filter: NamesFilter = None,
        fwd_hooks: FwdHooks = (),
        remove_batch_dim: bool = False,
    ) -> tuple[Any, ActivationCache]:
        """The forward pass, and the activations that `names_filter` picks (all by default).

        `fwd_hooks` edit as in `run_with_hooks`; the cache holds what they left. With
        `remove_batch_dim` the activations of a batch of one lose that axis.

        Raises:
            UserError: for an unknown hook name, one that `return_type` keeps from being reached, or
                `remove_batch_dim` on a larger batch.
        """
        known = hook_names(self.cfg)
        record: dict[str, Array] = {}
        wanted = select_names(names_filter, known)
        tap = recording(editing(fwd_hooks, known), wanted, record)
        out = self(tokens, return_type, loss_per_token, tap)
        absent = [name for name in wanted if name not in record]
        if absent and names_filter is not None:
            raise UserError(f"return_type={return_type} stops before {', '.join(absent)}")
        if remove_batch_dim:
            if any(len(activation) != 1 for activation in record.values()):
                raise UserError("remove_batch_dim needs a batch of one sequence")
            record = {name: activation[0] for name, activation in record.items()}
        return out, ActivationCache(record, self.cfg.n_layers)

    @property
    def params(self) -> dict[str, Array]:
        """The parameters as a flat dict of arrays, by their TransformerLens names."""
        return {name: find_param(self, name)[...] for name in parameter_shapes(self.cfg)}

    def state_dict(self) -> StateDict:
        """The parameters as numpy arrays, by their TransformerLens names."""
        return {name: np.array(param) for name, param in self.params.items()}

    @with_numerics
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over parameters, cast to ``cfg.dtype``; TransformerLens' buffers are left aside.

        Raises:
            UserError: listing every missing, unexpected and misshapen entry. Nothing is loaded then.
        """
        for name, value in check_state_dict(self.cfg, state_dict).items():
            find_param(self, name)[...] = jnp.asarray(value)

    @with_numerics
    def process_weights(self, **steps: bool) -> HookedTransformer:
        """The same model with other weights, easier to read; see `revinc.weight_processing.process_weights`.

        Args:
            steps: `fold_ln`, `center_writing_weights`, `center_unembed`, `fold_value_biases`; all are taken
                unless they are False, or would change what this model computes.
        """
        params, cfg = weight_processing.process_weights(self.params, self.cfg, **steps)
        return HookedTransformer(cfg, params=params)


def as_floats(cfg: HookedTransformerConfig, name: str, array: Any) -> Array:
    """A floating-point parameter as an array of ``cfg.dtype``; anything else is a UserError."""
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"parameter {name} holds {array.dtype}, not floats")
    return array.astype(cfg.dtype)


def find_param(model: HookedTransformer, name: str) -> nnx.Param[Array]:
    """The parameter at a dotted path such as ``blocks.0.attn.W_Q``."""
    part: Any = model
    for step in name.split("."):
        part = part[int(step)] if step.isdigit() else getattr(part, step)
    return part  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=64)
def hook_names(cfg: HookedTransformerConfig) -> tuple[str, ...]:
    """The names of all activations of a model of config `cfg`, in execution order."""
    names = []

    def note(name: str, activation: Array) -> Array:
        names.append(name)
        return activation

    shapes = parameter_shapes(cfg)
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    jax.eval_shape(lambda p, t: HookedTransformer(cfg, params=p)(t, tap=note), params, tokens)
    return tuple(dict.fromkeys(names))  # a norm may see several inputs


def next_token_loss(
    logits: Float[Array, "batch pos d_vocab_out"], tokens: Int[Array, "batch pos"], per_token: bool
) -> Float[Array, ""] | Float[Array, "batch pos-1"]:
    """Cross-entropy in nats of each next token, as `transformer_lens.utils.lm_cross_entropy_loss`."""
    log_probs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    losses = -jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
    return losses if per_token else losses.mean()


def check_sequences(cfg: HookedTransformerConfig, sequences: Any) -> Int[Array, "batch seq"]:
    """`check_tokens` of whole sequences, whose last token the model is not fed."""
    return check_tokens(cfg, sequences, cfg.n_ctx + 1)


def check_tokens(
    cfg: HookedTransformerConfig, tokens: Any, longest: int | None = None
) -> Int[Array, "batch pos"]:
    """`tokens` as [batch, pos], at most `longest` (n_ctx) of them. Their range is checked where it can be: not on traced values.

    Raises:
        UserError: saying what is wrong with them.
    """
    if not isinstance(tokens, jax.core.Tracer):
        try:
            tokens = np.asarray(tokens)
        except ValueError:
            raise UserError("tokens must be sequences of one length") from None
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens must be integers, not {tokens.dtype}")
    if tokens.ndim == 1:
        tokens = tokens[None]
    if tokens.ndim != 2:
        raise UserError(f"tokens must have shape [batch, pos], not {list(tokens.shape)}")
    if tokens.shape[1] > (longest or cfg.n_ctx):
        raise UserError(f"sequences of {tokens.shape[1]} tokens are longer than n_ctx={cfg.n_ctx}")
    check_range(tokens, cfg.d_vocab, "d_vocab")
    return jnp.asarray(tokens)


def check_range(tokens: Any, size: int, field: str) -> None:
    """Raise a UserError unless all ids lie in ``0..size-1``. Traced ids can't be seen, and pass."""
    if isinstance(tokens, jax.core.Tracer) or not tokens.size:
        return
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= size:
        found = low if low < 0 else high
        raise UserError(f"token ids must lie in 0..{size - 1} ({field}={size}); found {found}")
