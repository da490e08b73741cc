"""Models across the frameworks, both ways."""

from __future__ import annotations

import transformer_lens

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError
from torch_reference.model import make_model, read_weights, write_weights

WITHOUT_EFFECT = ("device", "seed", "n_params", "model_name", "init_weights", "tie_word_embeddings")
"""Fields of a TransformerLens config that change nothing about a model's forward pass."""


def to_transformer_lens(
    model: HookedTransformer, device: str = "cpu"
) -> transformer_lens.HookedTransformer:
    """The same model in TransformerLens 3.9."""
    theirs = make_model(model.cfg, device)
    write_weights(theirs, model.cfg, model.state_dict())
    return theirs


def from_transformer_lens(model: transformer_lens.HookedTransformer) -> HookedTransformer:
    """The same model in JAX.

    Raises:
        UserError: if its config has a field whose value is not implemented here.
    """
    cfg = config_from_transformer_lens(model.cfg)
    return HookedTransformer(cfg, params=read_weights(model, cfg))


def config_from_transformer_lens(
    cfg: transformer_lens.HookedTransformerConfig,
) -> HookedTransformerConfig:
    """Our config for theirs.

    Raises:
        UserError: naming every field whose value is not implemented here.
    """
    theirs = cfg.to_dict() | {"dtype": str(cfg.dtype).removeprefix("torch.")}
    known = HookedTransformerConfig.__dataclass_fields__
    ours = HookedTransformerConfig.from_dict(
        {name: plain(value) for name, value in theirs.items() if name in known}
    )
    rebuilt = transformer_lens.HookedTransformerConfig(
        **ours.to_dict() | {"dtype": cfg.dtype, "device": cfg.device}
    ).to_dict()
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
