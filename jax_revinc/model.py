"""The transformer, with TransformerLens 3.9's semantics, names, hooks and cache."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.components.attention_scores import make_soft_cap
from jax_revinc.components.block import make_block
from jax_revinc.components.embeddings import POS_EMBEDS, Embed, Unembed
from jax_revinc.components.norms import NORMS
from jax_revinc.components.params import within
from jax_revinc.hooks import (
    ActivationCache,
    FwdHooks,
    HookPoint,
    NamesFilter,
    Tap,
    editing,
    identity,
    optional_tap,
    recording,
    scoped,
    select_names,
)
from jax_revinc.init import init_params, make_key
from jax_revinc.numerical_settings import numerics, with_numerics
from revinc import HookedTransformerConfig, UserError, weight_processing
from revinc.validation import require_ints
from revinc.weights import (
    IncompatibleKeys,
    StateDict,
    check_shapes,
    check_state_dict,
    final_normalization_type,
    incompatible_keys,
    parameter_shapes,
)

Tokens: TypeAlias = Int[Array, "batch pos"] | Int[np.ndarray, "batch pos"]
ReturnType = Literal["logits", "loss", "both"] | None


class Output(NamedTuple):
    """The logits and the loss of a forward pass with ``return_type="both"``."""

    logits: Float[Array, "batch pos d_vocab_out"]
    loss: Float[Array, ""]


class HookedTransformer(nnx.Module):
    """A decoder-only transformer whose activations can all be read and edited.

    The model is a pytree: pass it through ``jax.jit``, ``jax.vmap`` and ``jax.grad``.

    Args:
        cfg: the model's config, or a dict of its fields, as `HookedTransformerConfig.from_dict`
            takes.
        rngs: a generator to draw the weights from, such as ``nnx.Rngs(0)``; by default
            ``cfg.seed``'s. Without a seed either, the operating system's random numbers give one,
            so the weights differ from call to call.
        params: the weights instead, a flat dict by TransformerLens names. They may be traced
            arrays, so a pure function of a dict of parameters can build a model.

    Raises:
        UserError: for arguments of other types, params that do not fit the config, or both of rngs
            and params.
    """

    def __init__(
        self,
        cfg: HookedTransformerConfig | Mapping[str, Any],
        *,
        rngs: nnx.Rngs | None = None,
        params: Mapping[str, Array | np.ndarray] | None = None,
    ) -> None:
        cfg = HookedTransformerConfig.unwrap(cfg)
        if not isinstance(rngs, nnx.Rngs | None):
            raise UserError("rngs must be an nnx.Rngs, such as nnx.Rngs(0)")
        if not isinstance(params, Mapping | None):
            raise UserError(f"params must be a dict of arrays, not {type(params).__name__}")
        if rngs is not None and params is not None:
            raise UserError(
                "give either rngs, to draw the weights, or params, which are the weights"
            )
        with numerics(cfg):
            if rngs is None and params is None:
                rngs = nnx.Rngs(make_key(secrets.randbits(64) if cfg.seed is None else cfg.seed))
            drawn = params if rngs is None else init_params(cfg, rngs.params())
            arrays = {name: as_floats(cfg, name, array) for name, array in (drawn or {}).items()}
        check_shapes(cfg, {name: array.shape for name, array in arrays.items()}, "params")
        final_norm = NORMS[final_normalization_type(cfg)]
        self.cfg = cfg
        self.tap_tokens = optional_tap(cfg.use_hook_tokens, "hook_tokens")
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
        """The forward pass: logits, next-token loss, both or None, as TransformerLens' ``forward``.

        Args:
            tokens: ids [batch, pos], or [pos] for a batch of one, of any integer type. Concrete ids
                outside the vocabulary raise. Traced ids can't be checked: JAX counts negative ids
                from the end, and replaces too large ones by the last id; as targets, too large ids
                have a loss of NaN.
            return_type: "logits" [batch, pos, d_vocab_out]; "loss", the mean cross-entropy in nats
                of every next token; "both", an `Output`; None runs the blocks only for their hooks.
            loss_per_token: return the loss as [batch, pos - 1] instead of its mean.
            tap: sees, and may replace, every activation.

        Raises:
            UserError: for tokens of a wrong shape, type or range, or an unknown `return_type`.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise UserError(
                f"return_type must be 'logits', 'loss', 'both' or None, not {return_type!r}"
            )
        tokens_BP = self.tap_tokens(tap, check_tokens(self.cfg, tokens))
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
        """The forward pass with hook functions applied, for this call only.

        Args:
            tokens: as for calling the model.
            fwd_hooks: pairs of a name (or several, or a predicate on names) and a function
                ``fn(activation, hook)`` that returns the new activation, or None to keep the old
                one.
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
        """The forward pass, and a cache of its activations.

        Args:
            tokens, return_type, loss_per_token: as for calling the model.
            names_filter: the activations to cache: a name, several names, a predicate on names, or
                None for all.
            fwd_hooks: as in `run_with_hooks`; the cache holds the edited activations.
            remove_batch_dim: drop the batch axis of the cached activations, of a batch of one.

        Raises:
            UserError: for an unknown hook name, one that a forward pass of this `return_type` does
                not reach, or `remove_batch_dim` on a larger batch.
        """
        known = hook_names(self.cfg)
        record: dict[str, Array] = {}
        wanted = select_names(names_filter, known)
        tap = recording(editing(fwd_hooks, known), wanted, record)
        out = self(tokens, return_type, loss_per_token, tap)
        absent = [name for name in wanted if name not in record]
        if absent and names_filter is not None:
            raise UserError(
                f"a forward pass with return_type={return_type} does not compute "
                f"{', '.join(absent)}; choose another return_type, or do not cache these "
                "activations"
            )
        if remove_batch_dim:
            if any(len(activation) != 1 for activation in record.values()):
                raise UserError(
                    "remove_batch_dim needs a batch of one sequence; give one, or leave "
                    "remove_batch_dim out"
                )
            record = {name: activation[0] for name, activation in record.items()}
        return out, ActivationCache(record, self.cfg.n_layers)

    def __reduce__(self) -> tuple[Callable[[], HookedTransformer], tuple[()]]:
        """Copy and pickle a model as its config and its parameters."""
        return functools.partial(type(self), self.cfg, params=self.state_dict()), ()

    def __deepcopy__(self, memo: Any = None) -> HookedTransformer:
        make, _ = self.__reduce__()
        return make()

    @property
    def params(self) -> dict[str, Array]:
        """The parameters as a flat dict of arrays, by their TransformerLens names."""
        return {name: find_param(self, name)[...] for name in parameter_shapes(self.cfg)}

    def state_dict(self) -> StateDict:
        """The parameters as numpy arrays, by their TransformerLens names."""
        return {name: np.array(param) for name, param in self.params.items()}

    @with_numerics
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Load parameters by TransformerLens names, cast to ``cfg.dtype``; buffers are ignored.

        Args:
            state_dict: arrays or torch tensors by name, of floats of any width.
            strict: whether a missing or unexpected name is an error. If not, parameters without a
                name in `state_dict` keep their values.

        Returns:
            The names that are missing in `state_dict`, and those that are unexpected.

        Raises:
            UserError: if an array has another shape or holds no floats, or names do not fit a
                strict load. Nothing is loaded then.
        """
        for name, value in check_state_dict(self.cfg, state_dict, strict=strict).items():
            find_param(self, name)[...] = jnp.asarray(value)
        return incompatible_keys(self.cfg, state_dict)

    @with_numerics
    def process_weights(self, **steps: bool) -> HookedTransformer:
        """A model that computes the same, with weights that are easier to interpret.

        See `revinc.weight_processing.process_weights`.

        Args:
            steps: `fold_ln`, `center_writing_weights`, `center_unembed`, `fold_value_biases`. Each
                is done unless it is False, or would change what this model computes.
        """
        params, cfg = weight_processing.process_weights(self.params, self.cfg, **steps)
        return HookedTransformer(cfg, params=params)


def as_floats(cfg: HookedTransformerConfig, name: str, array: Any) -> Array:
    """A parameter as an array of ``cfg.dtype``; it must hold floating-point numbers.

    Raises:
        UserError: if it is no array of floats.
    """
    try:
        array = jnp.asarray(array)
    except (TypeError, ValueError):
        raise UserError(f"the parameter {name} is not an array of numbers") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"the parameter {name} must hold floats, not {array.dtype}")
    return array.astype(cfg.dtype)


def find_param(model: HookedTransformer, name: str) -> nnx.Param[Array]:
    """The parameter of a model by its dotted name, such as ``blocks.0.attn.W_Q``."""
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
    """The cross-entropy in nats of the next tokens: of each if `per_token`, else the mean."""
    log_probs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    losses = -jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
    return losses if per_token else losses.mean()


def check_sequences(cfg: HookedTransformerConfig, sequences: Any) -> Int[Array, "batch seq"]:
    """Check sequences of up to ``n_ctx + 1`` tokens, of which the last is predicted but not fed."""
    return check_tokens(cfg, sequences, cfg.n_ctx + 1)


def check_tokens(
    cfg: HookedTransformerConfig, tokens: Any, longest: int | None = None
) -> Int[Array, "batch pos"]:
    """Check token ids, and return them as [batch, pos] of JAX's default integer type.

    A shorter integer type could overflow.

    Args:
        cfg: the model's config.
        tokens: ids [batch, pos] or [pos]; traced ids are not checked for their range.
        longest: the most tokens a sequence may have; n_ctx by default.

    Raises:
        UserError: for a wrong shape or type, or an id outside the vocabulary.
    """
    if not isinstance(tokens, jax.core.Tracer):
        try:
            tokens = np.asarray(tokens)
        except (TypeError, ValueError):
            raise UserError(
                "tokens must be an array of token ids, or a list of sequences of equal length"
            ) from None
    if tokens.ndim == 1:
        tokens = tokens[None]
    if tokens.ndim != 2 or not tokens.size:
        kind = "" if tokens.size else ", and not be empty"
        raise UserError(f"tokens must have shape [batch, pos]{kind}, not {list(tokens.shape)}")
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens must be integers, not {tokens.dtype}")
    if tokens.shape[1] > (longest or cfg.n_ctx):
        raise UserError(
            f"sequences of {tokens.shape[1]} tokens are longer than n_ctx={cfg.n_ctx}, the model's "
            "context"
        )
    check_range(tokens, cfg.d_vocab, "d_vocab")
    return jnp.asarray(tokens) if tokens.dtype == np.int32 else jnp.asarray(tokens).astype(int)


def check_predicted(predicted: Any, length: int) -> tuple[int, ...]:
    """Check the positions whose tokens a model predicts in sequences of `length`, and return them.

    Raises:
        UserError: if there are none, or one is the first or after the last.
    """
    positions = require_ints("predicted", predicted)
    if not positions or not all(1 <= position < length for position in positions):
        raise UserError(
            f"predicted must hold the positions of the tokens to predict, at least one and each in "
            f"1..{length - 1}, not {positions}"
        )
    return positions


def require_array(what: str, value: Any) -> None:
    """Raise a UserError unless `value` is a JAX or numpy array."""
    if not isinstance(value, Array | np.ndarray):
        raise UserError(f"{what} must be an array, not {type(value).__name__}")


def check_range(tokens: Any, size: int, field: str) -> None:
    """Raise a UserError unless all token ids lie in ``0..size-1``. Traced ids pass unchecked."""
    if isinstance(tokens, jax.core.Tracer) or not tokens.size:
        return
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= size:
        found = low if low < 0 else high
        raise UserError(f"token ids must lie in 0..{size - 1} ({field}={size}); found {found}")
