"""The transformer, with TransformerLens 3.9's semantics, names, hooks and cache."""

from __future__ import annotations

import functools
import operator
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.activations.activation_cache import ActivationCache
from jax_revinc.compilation.numerical_settings import numerics, with_numerics
from jax_revinc.components.attention_scores import make_soft_cap
from jax_revinc.components.block import make_block
from jax_revinc.components.component import place_components
from jax_revinc.components.embeddings import POS_EMBEDS, Embed, Unembed
from jax_revinc.components.key_value_cache import TransformerLensKeyValueCache
from jax_revinc.components.norms import NORMS
from jax_revinc.components.params import within
from jax_revinc.components.positions import Positions
from jax_revinc.forward.arguments import Asked, Inputs, ReturnType, read_arguments
from jax_revinc.forward.embedding_steps import EmbeddingSteps
from jax_revinc.forward.generation import Generation
from jax_revinc.forward.hooked_forward import Result, Wanted, run_forward
from jax_revinc.forward.next_token import lm_cross_entropy_loss
from jax_revinc.hooks.hook_names import NamesFilter, select_names
from jax_revinc.hooks.hook_points import Contexts, LensHandle, set_handles
from jax_revinc.hooks.hook_switches import HookSwitches
from jax_revinc.hooks.lasting_hooks import LastingHooks, at_positions
from jax_revinc.hooks.taps import (
    FwdHooks,
    Tap,
    applying,
    identity,
    optional_tap,
    scoped,
)
from jax_revinc.module_methods import ModuleMethods
from jax_revinc.placement import Placement
from jax_revinc.slices import SliceInput
from jax_revinc.weights.init import init_params, make_key
from jax_revinc.weights.stacked_weights import StackedWeights
from jax_revinc.weights.weight_folding import WeightFolding
from revinc import HookedTransformerConfig, UserError
from revinc.weights import (
    IncompatibleKeys,
    StateDict,
    check_shapes,
    check_state_dict,
    final_normalization_type,
    incompatible_keys,
    parameter_shapes,
)


class Output(NamedTuple):
    """The logits and the loss of a forward pass with ``return_type="both"``."""

    logits: Float[Array, "batch pos d_vocab_out"]
    loss: Float[Array, ""]


class HookedTransformer(
    StackedWeights,
    WeightFolding,
    EmbeddingSteps,
    LastingHooks,
    HookSwitches,
    Generation,
    Placement,
    ModuleMethods,
    nnx.Module,
    pytree=False,
):
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
        tokenizer, move_to_device, default_padding_side: TransformerLens' arguments, without effect.

    Raises:
        UserError: for arguments of other types, params that do not fit the config, both of rngs and
            params, or a tokenizer.
    """

    def __init__(
        self,
        cfg: HookedTransformerConfig | Mapping[str, Any],
        *,
        rngs: nnx.Rngs | None = None,
        params: Mapping[str, Array | np.ndarray] | None = None,
        tokenizer: None = None,
        move_to_device: bool = True,  # noqa: ARG002
        default_padding_side: str | None = None,  # noqa: ARG002
    ) -> None:
        cfg = HookedTransformerConfig.unwrap(cfg)
        if tokenizer is not None:
            raise UserError("toy models have no tokenizer: give token ids instead of text")
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
            arrays = params if rngs is None else init_params(cfg, rngs.params())
            if not isinstance(arrays, Leaves):
                arrays = {name: as_floats(cfg, name, x) for name, x in (arrays or {}).items()}
                check_shapes(cfg, {name: x.shape for name, x in arrays.items()}, "params")
        self._handles = ()
        self._contexts = Contexts()
        self._level = 0
        self._build(cfg, arrays)

    def _build(self, cfg: HookedTransformerConfig, arrays: Mapping[str, Any]) -> None:
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
        place_components(self)

    def compute(self, inputs: Inputs, asked: Asked, tap: Tap = identity) -> Any:
        """The forward pass as a pure function of arrays: what calling the model computes.

        Args:
            inputs: token ids or a residual stream, and what is known of their positions.
            asked: the blocks to run, and what to return.
            tap: sees, and may replace, every activation.
        """
        positions = inputs.positions()
        tokens_BP: Any = inputs.tokens
        resid_BPM: Any = inputs.residual
        pos_BPM = inputs.shortformer_pos_embed
        if asked.start_at_layer is None:
            tokens_BP, resid_BPM, pos_BPM = self.embed_tokens(tokens_BP, positions, tap)
        for layer in range(self.cfg.n_layers)[asked.layers]:
            within_block = scoped(tap, f"blocks.{layer}")
            resid_BPM = self.blocks[layer](resid_BPM, pos_BPM, positions, within_block)
        if asked.stop_at_layer is not None:
            return resid_BPM
        resid_BPM = self.ln_final(resid_BPM, scoped(tap, "ln_final"))
        if asked.return_type is None:
            return None
        logits_BPV = self.soft_cap(self.unembed(resid_BPM, scoped(tap, "unembed")))
        if asked.return_type == "logits":
            return logits_BPV
        mask_BP = inputs.attention_mask
        loss = lm_cross_entropy_loss(logits_BPV, tokens_BP, mask_BP, asked.loss_per_token)
        return loss if asked.return_type == "loss" else Output(logits_BPV, loss)

    def embed_tokens(
        self, tokens_BP: Int[Array, "batch pos"], positions: Positions, tap: Tap
    ) -> tuple[Array, Array, Array | None]:
        """The tokens, the first block's input, and vectors for queries and keys alone, if any."""
        tokens_BP = self.tap_tokens(tap, tokens_BP)
        embed_BPM = tap("hook_embed", self.embed(tokens_BP))
        return tokens_BP, *self.pos_embed.add(embed_BPM, positions, tap)

    @with_numerics
    def input_to_embed(
        self,
        input: Any,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        attention_mask: Any = None,
        past_kv_cache: TransformerLensKeyValueCache | None = None,
    ) -> tuple[Array, Array, Array | None, Array | None]:
        """What the blocks are given: the residual stream, and what belongs to it.

        Args:
            input, prepend_bos, padding_side, attention_mask, past_kv_cache: as for calling the model.

        Returns:
            The residual stream [batch, pos, d_model], the tokens [batch, pos], the positional
            embeddings of a shortformer model, or None, and the attention mask, of cached tokens too,
            or None.
        """
        inputs, _ = read_arguments(
            self.cfg,
            input,
            prepend_bos=prepend_bos,
            padding_side=padding_side,
            attention_mask=attention_mask,
            past_kv_cache=past_kv_cache,
        )
        positions, tap = inputs.positions(), applying(self._handles, self.hook_point)
        tokens: Any = inputs.tokens
        tokens_BP, resid_BPM, pos_BPM = self.embed_tokens(tokens, positions, tap)
        return resid_BPM, tokens_BP, pos_BPM, positions.attention_mask

    @with_numerics
    def __call__(
        self,
        input: Any,
        return_type: ReturnType = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        start_at_layer: int | None = None,
        tokens: Any = None,
        shortformer_pos_embed: Any = None,
        attention_mask: Any = None,
        stop_at_layer: int | None = None,
        past_kv_cache: TransformerLensKeyValueCache | None = None,
        *,
        tap: Tap | None = None,
    ) -> Any:
        """The forward pass: logits, next-token loss, both or None, as TransformerLens' ``forward``.

        Args:
            input: token ids [batch, pos], or [pos] for a batch of one, of any integer type. Negative
                ids count from the end of the vocabulary, as in torch. Concrete ids outside it
                raise. Traced ids can't be checked: JAX replaces too large ones by the last id; as
                targets, they have a loss of NaN. With `start_at_layer`, a residual stream [batch,
                pos, d_model] instead.
            return_type: "logits" [batch, pos, d_vocab_out]; "loss", the mean cross-entropy in nats
                of every next token; "both", an `Output`; None runs the blocks only for their hooks.
            loss_per_token: return the loss as [batch, pos - 1] instead of its mean.
            prepend_bos, padding_side: without effect, as there is no text to tokenize.
            start_at_layer: start before this block, with `input` as its residual stream.
            tokens: the token ids of a loss with `start_at_layer`.
            shortformer_pos_embed: with `start_at_layer`, the positional embeddings [batch, pos,
                d_model] of a shortformer model.
            attention_mask: 1 for tokens and 0 for padding [batch, pos]. Padding is not attended to
                (by a causal model), has no loss, and positions are counted without it.
            stop_at_layer: return the residual stream before this block, or after the last one;
                nothing later is computed. Layers may be negative, as in a Python slice.
            past_kv_cache: keys and values of earlier tokens; the new ones are appended in place.
            tap: sees, and may replace, every activation; the model's hooks are left out then.

        Raises:
            UserError: for arguments of a wrong shape, type or range, or that exclude each other.
        """
        inputs, asked = read_arguments(
            self.cfg,
            input,
            return_type,
            loss_per_token,
            prepend_bos,
            padding_side,
            start_at_layer,
            tokens,
            shortformer_pos_embed,
            attention_mask,
            stop_at_layer,
            past_kv_cache,
        )
        if tap is not None:
            return self.compute(inputs, asked, tap)
        return self._run(inputs, asked, self._handles).output

    forward = __call__

    def _run(
        self,
        inputs: Inputs,
        asked: Asked,
        handles: Sequence[LensHandle],
        wanted: Wanted = Wanted(),  # noqa: B008 (immutable)
    ) -> Result:
        result = run_forward(self, inputs, asked, wanted, handles)
        if inputs.past_kv_cache is not None and result.inputs.past_kv_cache is not None:
            inputs.past_kv_cache.become(result.inputs.past_kv_cache)
        return result

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The names of all hook points, in execution order."""
        return hook_names(self.cfg)

    @with_numerics
    def run_with_hooks(
        self,
        *model_args: Any,
        fwd_hooks: FwdHooks = (),
        bwd_hooks: FwdHooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **model_kwargs: Any,
    ) -> Any:
        """The forward pass with more hooks, for this call only.

        Args:
            model_args, model_kwargs: as for calling the model.
            fwd_hooks: pairs of a name (or several, or a predicate on names) and a function
                ``fn(activation, hook)`` that returns the new activation, or None to keep the old
                one.
            bwd_hooks: the same for gradients, if the call is differentiated.
            reset_hooks_end: False keeps the hooks until ``reset_hooks``.
            clear_contexts: empty every ``hook.ctx`` at the end.

        Raises:
            UserError: for an unknown hook name, or a hook that changes an activation's shape.
        """
        inputs, asked = read_arguments(self.cfg, *model_args, **model_kwargs)
        handles = self.with_handles(fwd_hooks, bwd_hooks)
        if not reset_hooks_end:
            set_handles(self, handles)
        try:
            return self._run(inputs, asked, handles).output
        finally:
            if clear_contexts and reset_hooks_end:
                self.clear_contexts()

    @with_numerics
    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: NamesFilter = None,
        device: object = None,  # noqa: ARG002
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        reset_hooks_end: bool = True,  # noqa: ARG002
        clear_contexts: bool = False,
        pos_slice: SliceInput = None,
        return_cache_object: bool = True,
        fwd_hooks: FwdHooks = (),
        **model_kwargs: Any,
    ) -> tuple[Any, Any]:
        """The forward pass, and a cache of its activations.

        Args:
            model_args, model_kwargs: as for calling the model.
            names_filter: the activations to cache: a name, several names, a predicate on names, or
                None for all.
            device: without effect, as JAX places arrays itself.
            remove_batch_dim: drop the batch axis of the cached activations, of a batch of one.
            incl_bwd: cache the gradients of the loss, too, by name with ``_grad``.
            reset_hooks_end: without effect, as caching adds no hooks.
            clear_contexts: empty every ``hook.ctx`` at the end.
            pos_slice: the positions to cache.
            return_cache_object: return an `ActivationCache`, or else a dict.
            fwd_hooks: as in `run_with_hooks`; the cache holds the edited activations.

        Raises:
            UserError: for an unknown hook name, one that a forward pass of this `return_type` does
                not reach, or `remove_batch_dim` on a larger batch.
        """
        inputs, asked = read_arguments(self.cfg, *model_args, **model_kwargs)
        names = tuple(select_names(names_filter, self.hook_names))
        handles = self.with_handles(fwd_hooks)
        wanted = Wanted(names, incl_bwd)
        out, record, _ = self._run(inputs, asked, handles, wanted)
        absent = [name for name in names if name not in record]
        if absent and names_filter is not None:
            raise UserError(
                f"this forward pass does not compute {', '.join(absent)}; choose another "
                "return_type or other layers, or do not cache these activations"
            )
        if remove_batch_dim:
            if any(len(activation) != 1 for activation in record.values()):
                raise UserError(
                    "remove_batch_dim needs a batch of one sequence; give one, or leave "
                    "remove_batch_dim out"
                )
            record = OrderedDict((name, x[0]) for name, x in record.items())
        if pos_slice is not None:
            record = OrderedDict((n, at_positions(n, x, pos_slice)) for n, x in record.items())
        if clear_contexts:
            self.clear_contexts()
        kept = dict(record)
        if not return_cache_object:
            return out, kept
        return out, ActivationCache(kept, self, has_batch_dim=not remove_batch_dim)

    def __reduce__(self) -> tuple[Callable[[], HookedTransformer], tuple[()]]:
        """Pickle a model as its config and its parameters, without hooks."""
        return functools.partial(type(self), self.cfg, params=self.state_dict()), ()

    def __deepcopy__(self, memo: Any = None) -> HookedTransformer:
        copied = type(self)(self.cfg, params={name: x.copy() for name, x in self.params.items()})
        set_handles(copied, self._handles)
        return copied

    @property
    def params(self) -> dict[str, Array]:
        """The parameters as a flat dict of arrays, by their TransformerLens names."""
        return {name: v.get_raw_value() for name, v in self.param_variables().items()}

    def param_variables(self) -> dict[str, nnx.Param[Array]]:
        """The modules' variables that hold the parameters, by their TransformerLens names."""
        return dict(zip(param_names(self.cfg), find_params(self), strict=True))

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
            UserError: if an array has another shape, holds no floats or is traced, or names do not
                fit a strict load. Nothing is loaded then.
        """
        if any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(state_dict)):
            raise UserError(
                "traced arrays can't be loaded into a model; build one of them, by "
                "HookedTransformer(cfg, params=...)"
            )
        variables = self.param_variables()
        for name, value in check_state_dict(self.cfg, state_dict, strict=strict).items():
            variables[name][...] = jnp.asarray(value)
        return incompatible_keys(self.cfg, state_dict)


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


class Leaves(dict[str, Any]):
    """What `jax.tree` makes of a model's parameters: anything, which is not checked."""


def flatten(model: HookedTransformer) -> tuple[list[Any], tuple[object, ...]]:
    """The parameters of a model, and its static data: config, hooks and their contexts."""
    static = (model.cfg, model._handles, model._contexts)
    return [variable.get_raw_value() for variable in find_params(model)], static


def flatten_with_keys(model: HookedTransformer) -> tuple[list[Any], tuple[object, ...]]:
    """As `flatten`, with each parameter's name."""
    leaves, static = flatten(model)
    names = map(jax.tree_util.DictKey, param_names(model.cfg))
    return list(zip(names, leaves, strict=True)), static


def unflatten(static: tuple[Any, ...], leaves: Iterable[Any]) -> HookedTransformer:
    """The model of static data and of leaves, which may be anything that JAX puts there."""
    cfg, handles, contexts = static
    model = HookedTransformer(cfg, params=Leaves(zip(param_names(cfg), leaves, strict=True)))
    set_handles(model, handles)
    object.__setattr__(model, "_contexts", contexts)
    return model


jax.tree_util.register_pytree_with_keys(HookedTransformer, flatten_with_keys, unflatten, flatten)


@functools.lru_cache(maxsize=64)
def param_names(cfg: HookedTransformerConfig) -> tuple[str, ...]:
    """The names of a model's parameters, as `revinc.weights.parameter_shapes` orders them."""
    return tuple(parameter_shapes(cfg))


@functools.lru_cache(maxsize=64)
def param_finders(cfg: HookedTransformerConfig) -> tuple[tuple[int, Callable[[Any], Any]], ...]:
    """For each parameter a function that finds its variable in a block, or in the model.

    Before it stands the block's number, counted from 1; 0 is the model.
    """

    def make_finder(name: str) -> tuple[int, Callable[[Any], Any]]:
        first, *rest = name.split(".")
        if first != "blocks":
            return 0, operator.attrgetter(name)
        return int(rest[0]) + 1, operator.attrgetter(".".join(rest[1:]))

    return tuple(map(make_finder, param_names(cfg)))


def find_params(model: HookedTransformer) -> list[nnx.Param[Array]]:
    """The variables that hold a model's parameters, in the order of `param_names`."""
    owners = [model, *model.blocks]  # each found once, as this runs in every call
    return [find(owners[owner]) for owner, find in param_finders(model.cfg)]


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
