"""The adapter of TransformerLens 3.9, whose `HookedTransformer` names weights as we do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from revinc import HookedTransformerConfig as OurConfig
from revinc.transformer_lens_fields import in_their_words
from revinc.weights import StateDict, check_state_dict
from torch_reference.adapter import KnownDifference

MODEL = HookedTransformer

KNOWN_DIFFERENCES: tuple[KnownDifference, ...] = ()

PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The precisions that a model may have been made in."""

Attention = Any
"""One of 3.9's rotary attentions."""

Tables = tuple[torch.Tensor, torch.Tensor]
"""Sines and cosines [position, rotary_dim]."""

ROTATIONS = ("hook_rot_q", "hook_rot_k")
"""Hooks of rotations. In 3.9 a model without positions has them too, and they rotate nothing."""


def make_model(cfg: OurConfig, device: str = "cpu", seed: int = 0) -> HookedTransformer:
    fields = in_their_words(cfg.to_dict())
    fields |= {"dtype": getattr(torch, cfg.dtype), "device": device}
    if cfg.positional_embedding_type == "none":
        fields |= {"positional_embedding_type": "rotary", "rotary_dim": 0}  # how 3.9 spells it
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        torch.manual_seed(seed)
        return HookedTransformer(HookedTransformerConfig(**fields))


def our_config(cfg: HookedTransformerConfig) -> OurConfig:
    return OurConfig.from_dict(dict(cfg.to_dict()))


def read_weights(model: HookedTransformer, cfg: OurConfig) -> StateDict:
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return {name: array.copy() for name, array in check_state_dict(cfg, arrays).items()}


def write_weights(model: HookedTransformer, cfg: OurConfig, weights: StateDict) -> None:
    checked = check_state_dict(cfg, weights)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in checked.items()}
    model.load_state_dict(model.state_dict() | tensors)


def parameters(model: HookedTransformer) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def trainable(model: HookedTransformer, cfg: OurConfig) -> dict[str, torch.nn.Parameter]:  # noqa: ARG001
    return dict(model.named_parameters())


def to_3_9(cfg: OurConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return tensor


from_3_9 = to_3_9


def in_dtype(model: HookedTransformer, dtype: torch.dtype) -> HookedTransformer:
    other = copy.deepcopy(model).to("cpu", print_details=False)
    made_anew = [(attention, tables(attention, dtype)) for attention in with_own_tables(other)]
    other.to(dtype, print_details=False)
    for attention, (sin, cos) in made_anew:
        attention.rotary_sin, attention.rotary_cos = sin, cos
    return other


def with_own_tables(model: HookedTransformer) -> list[Attention]:
    """The attention layers with the rotary sines and cosines that TransformerLens 3.9 made.

    These tables are the only floats that a model derives from its config: cast to a wider type they
    would keep their rounding. Tables that somebody changed belong to the model, like weights.
    """
    return [
        attention
        for attention in model.modules()
        if hasattr(attention, "rotary_sin")
        and any(same_tables(attention, tables(attention, dtype)) for dtype in PRECISIONS)
    ]


def tables(attention: Attention, dtype: torch.dtype) -> Tables:
    """The sines and cosines that TransformerLens 3.9 makes for a rotary attention layer."""
    n_positions, rotary_dim = attention.rotary_sin.shape
    base = attention._rotary_base()
    return attention.calculate_sin_cos_rotary(rotary_dim, n_positions, base=base, dtype=dtype)


def same_tables(attention: Attention, made: Tables) -> bool:
    """Whether an attention layer's rotary tables equal `made`, rounded to the same precision."""
    held = (attention.rotary_sin, attention.rotary_cos)
    return all(torch.equal(new.to(old.dtype), old) for new, old in zip(made, held, strict=True))


def in_3_9(cfg: OurConfig, names: Iterable[str]) -> list[str]:
    without_rotation = cfg.positional_embedding_type == "none"
    return [name for name in names if not (without_rotation and name.endswith(ROTATIONS))]
