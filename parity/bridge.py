"""Models across the frameworks, both ways, in whichever TransformerLens is installed."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from jax_revinc import HookedTransformer, HookedTransformerConfig, Run, UserError
from torch_reference import adapter

WITHOUT_EFFECT = ("device", "seed", "n_params", "model_name", "init_weights", "tie_word_embeddings")
"""Fields of a TransformerLens config that change nothing about a model's forward pass."""


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
    cfg = config_from_torch(model.cfg)
    return HookedTransformer(cfg, params=adapter.read_weights(model, cfg))


def config_from_torch(cfg: Any) -> HookedTransformerConfig:
    """Our config for TransformerLens'.

    Raises:
        UserError: naming every field whose value is not implemented here.
    """
    theirs = cfg.to_dict() | {"dtype": str(cfg.dtype).removeprefix("torch.")}
    known = HookedTransformerConfig.__dataclass_fields__
    ours = HookedTransformerConfig.from_dict(
        {name: plain(value) for name, value in theirs.items() if name in known}
    )
    rebuilt = adapter.rebuilt_config(ours, cfg)
    lost = [
        f"{name}={value!r}"
        for name, value in cfg.to_dict().items()
        if name not in WITHOUT_EFFECT and rebuilt[name] != value
    ]
    if lost:
        raise UserError(f"not implemented here: {', '.join(lost)}")
    return ours


def plain(value: object) -> object:
    """A numpy scalar as the Python number it holds; anything else as it is."""
    return value.item() if hasattr(value, "item") else value
