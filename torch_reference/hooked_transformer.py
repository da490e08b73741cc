"""TransformerLens 3.9's `HookedTransformer`, built from our config; its names and layouts are ours."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from revinc import HookedTransformerConfig as OurConfig
from revinc.transformer_lens_fields import in_their_words
from revinc.weights import StateDict, check_state_dict
from torch_reference.adapter import KnownDifference

KNOWN_DIFFERENCES: tuple[KnownDifference, ...] = ()

ROTATIONS = ("hook_rot_q", "hook_rot_k")
"""Hooks of rotations, which a model without positions has in 3.9: they turn nothing there."""


def make_model(cfg: OurConfig, device: str = "cpu", seed: int = 0) -> HookedTransformer:
    fields = in_their_words(cfg.to_dict())
    fields |= {"dtype": getattr(torch, cfg.dtype), "device": device}
    if cfg.positional_embedding_type == "none":
        fields |= {"positional_embedding_type": "rotary", "rotary_dim": 0}  # 3.9 has no other word
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


def shapes(model: HookedTransformer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def trainable(model: HookedTransformer, cfg: OurConfig) -> dict[str, torch.nn.Parameter]:  # noqa: ARG001
    return dict(model.named_parameters())


def to_3_9(cfg: OurConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return tensor


from_3_9 = to_3_9


def in_dtype(model: HookedTransformer, dtype: torch.dtype) -> HookedTransformer:
    other = copy.deepcopy(model).to(dtype, print_details=False)
    other.cfg.dtype = dtype
    return other


def in_3_9(cfg: OurConfig, names: Iterable[str]) -> list[str]:
    without_rotation = cfg.positional_embedding_type == "none"
    return [name for name in names if not (without_rotation and name.endswith(ROTATIONS))]
