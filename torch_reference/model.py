"""TransformerLens' model, built from our config and exchanging our state dicts."""

from __future__ import annotations

import warnings

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from revinc import HookedTransformerConfig as OurConfig
from revinc.weights import StateDict, check_state_dict


def make_model(cfg: OurConfig, device: str = "cpu", seed: int = 0) -> HookedTransformer:
    """TransformerLens 3.9's `HookedTransformer` with its own initialisation, drawn from `seed`."""
    fields = cfg.to_dict() | {"dtype": getattr(torch, cfg.dtype), "device": device}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        torch.manual_seed(seed)
        return HookedTransformer(HookedTransformerConfig(**fields))


def read_weights(model: HookedTransformer, cfg: OurConfig) -> StateDict:
    """A copy of the model's parameters as numpy arrays, without TransformerLens' buffers.

    Raises:
        UserError: if they are not those of `cfg`.
    """
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return {name: array.copy() for name, array in check_state_dict(cfg, arrays).items()}


def write_weights(model: HookedTransformer, cfg: OurConfig, weights: StateDict) -> None:
    """Load `weights` into the model.

    Raises:
        UserError: if they are not those of `cfg`.
    """
    checked = check_state_dict(cfg, weights)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in checked.items()}
    model.load_state_dict(model.state_dict() | tensors)
