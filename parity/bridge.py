"""Conversion of models between JAX and the installed TransformerLens, both ways."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from jax_revinc import HookedTransformer, Run, UserError
from torch_reference import adapter
from torch_reference.installed_transformer_lens import VERSION


def to_torch(model: HookedTransformer | Run, device: str = "cpu") -> Module:
    """Convert a JAX model to the model class of the installed TransformerLens, with equal weights.

    Args:
        model: a model in JAX, or a finished run.
        device: a torch device.

    Raises:
        UserError: for another argument, an unfinished run, or a device that torch can't use.
    """
    ours = model.model() if isinstance(model, Run) else model
    require_ours("model", ours)
    require_device(device)
    theirs = adapter.make_model(ours.cfg, device)
    adapter.write_weights(theirs, ours.cfg, ours.state_dict())
    return theirs


def from_torch(model: Any) -> HookedTransformer:
    """Convert a TransformerLens model to a `HookedTransformer` of jax_revinc.

    Its config has no `seed`: the weights are given, not drawn.

    Args:
        model: a model of the installed TransformerLens.

    Raises:
        UserError: for another argument (see `require_theirs`), or a config with a value that is not
            implemented here.
    """
    require_theirs("model", model)
    cfg = adapter.our_config(model.cfg).replace(seed=None)
    return HookedTransformer(cfg, params=adapter.read_weights(model, cfg))


def require_ours(name: str, given: Any) -> None:
    """Raise a UserError unless an argument is a `HookedTransformer` of jax_revinc."""
    if not isinstance(given, HookedTransformer):
        raise UserError(f"{name} must be a jax_revinc.HookedTransformer, not {described(given)}")


def require_theirs(name: str, given: Any) -> None:
    """Raise a UserError unless an argument is a TransformerLens model with weights."""
    if not isinstance(given, adapter.MODEL):
        kind = adapter.MODEL.__name__
        raise UserError(
            f"{name} must be a {kind} of TransformerLens {VERSION}, not {described(given)}"
        )
    if any(parameter.is_meta for parameter in given.parameters()):
        raise UserError(
            f"{name} is on torch's meta device, where weights have no values; load it on a real device"
        )


def require_no_hooks(name: str, given: Any) -> None:
    """Raise a UserError if a TransformerLens model has hooks, which may change its outputs."""
    hooked = [point.name for point in given.hook_points() if point.fwd_hooks or point.bwd_hooks]
    if hooked:
        raise UserError(
            f"{name} has hooks of its own at {', '.join(hooked)}, which may change its "
            "outputs; call its reset_hooks first"
        )


def require_device(device: Any) -> None:
    """Raise a UserError unless torch can use a device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f"device {device!r} can't be used: {error}") from error


def described(given: Any) -> str:
    """The full name of a value's class, for error messages."""
    return f"{type(given).__module__}.{type(given).__qualname__}"
