"""Models across the frameworks, both ways, in whichever TransformerLens is installed."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from jax_revinc import HookedTransformer, Run
from torch_reference import adapter


def to_torch(model: HookedTransformer | Run, device: str = "cpu") -> Module:
    """The same model in TransformerLens: a `HookedTransformer` of 3.9, a `TransformerBridge` of 4.x.

    Args:
        model: ours, or a finished run.
        device: a torch device.
    """
    ours = model.model() if isinstance(model, Run) else model
    theirs = adapter.make_model(ours.cfg, device)
    adapter.write_weights(theirs, ours.cfg, ours.state_dict())
    return theirs


def from_torch(model: Any) -> HookedTransformer:
    """The same model in JAX, from the installed TransformerLens' own.

    Raises:
        UserError: if its config has a field whose value is not implemented here.
    """
    cfg = adapter.our_config(model.cfg)
    return HookedTransformer(cfg, params=adapter.read_weights(model, cfg))
