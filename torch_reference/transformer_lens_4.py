"""The adapter of TransformerLens 4.x, whose `TransformerBridge` lays out weights differently.

The layouts are those of torch's ``nn.Linear``. TransformerLens converts 3.9's layouts to them by
`convert_tl_checkpoint`. Applied to numbered entries it shows where each entry goes, so that no
second table of layouts is needed here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from revinc import HookedTransformerConfig as OurConfig
from revinc import UserError
from revinc.transformer_lens_fields import WITHOUT_EFFECT, in_their_words, is_not_set
from revinc.weights import StateDict, check_state_dict, parameter_shapes
from torch_reference.adapter import KnownDifference

MODEL = TransformerBridge

UNTRAINED = "unembed.b_U"
"""The bias that is a buffer in 4.x: loaded and used, but not trained."""

NEW_HOOKS = (".hook_in", ".hook_out", "hook_unembed")
"""Ends of 4.x's hooks around every component; 3.9 has only the two around the unembedding."""

OLD_HOOKS = ("unembed.hook_in", "unembed.hook_out")

IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "act_fn": (
        "relu",
        "gelu",
        "gelu_new",
        "silu",
        "solu",
    ),  # others unknown, or without their norm's names
    "positional_embedding_type": ("standard",),  # rotates other pairs, in float32; knows no others
    "gated_mlp": (False,),  # without biases
    "n_key_value_heads": (None,),  # under other names
    "parallel_attn_mlp": (False,),
    "use_local_attn": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "use_attn_scale": (True,),
    "use_attn_result": (False,),
    "use_split_qkv_input": (False,),
    "use_attn_in": (False,),
    "use_hook_mlp_in": (False,),
    "use_hook_tokens": (False,),
}
"""Values that 4.x computes like 3.9, of fields that it ignores or takes to mean something else."""

LEFT_OUT = ("ungroup_grouped_query_attention", "rotary_adjacent_pairs")
"""Fields that 4.x does not know, and that have no effect with the values of `IMPLEMENTED`."""

AFTER_SOFTMAX = "it hooks a copy of the pattern, made after the attention, and not the scores"
BESIDE_THE_SKIP = "it hooks the input of ln2, which the skip connection goes around"
NO_PARAMETER = "it is a buffer, and is not trained"

KNOWN_DIFFERENCES = (
    KnownDifference("L1", "hook_attn_scores", AFTER_SOFTMAX),
    KnownDifference("L2", "hook_attn_scores", AFTER_SOFTMAX),
    KnownDifference("L2", "hook_resid_mid", BESIDE_THE_SKIP),
    KnownDifference("L2", UNTRAINED, NO_PARAMETER),
    KnownDifference("L3", "hook_attn_scores", AFTER_SOFTMAX),
    KnownDifference("L3", "hook_resid_mid", BESIDE_THE_SKIP),
    KnownDifference("L5", UNTRAINED, NO_PARAMETER),
    KnownDifference("L6", "all seeds", "the unembedding's bias is not trained"),
)


def make_config(cfg: OurConfig, dtype: torch.dtype, **more: Any) -> TransformerBridgeConfig:
    refused = [
        f"{name}={getattr(cfg, name)!r}"
        for name, implemented in IMPLEMENTED.items()
        if getattr(cfg, name) not in implemented
    ]
    if refused:
        raise UserError(
            f"TransformerLens 4.x can't compute a model with {', '.join(refused)} as 3.9 does; "
            "install TransformerLens 3.9"
        )
    fields = in_their_words(cfg.to_dict()) | {"dtype": dtype} | more
    known = {name: value for name, value in fields.items() if name not in LEFT_OUT}
    return TransformerBridgeConfig(**known)


def make_model(cfg: OurConfig, device: str = "cpu", seed: int = 0) -> TransformerBridge:
    dtype = getattr(torch, cfg.dtype)
    return TransformerBridge.boot_native(
        make_config(cfg, dtype, seed=seed), device=device, dtype=dtype
    )


def our_config(cfg: TransformerBridgeConfig) -> OurConfig:
    fields = {name: value for name, value in cfg.to_dict().items() if name != "seed"}
    known = {field.name for field in dataclasses.fields(OurConfig)}
    ours = OurConfig.from_dict({name: value for name, value in fields.items() if name in known})
    booted = TransformerBridge.boot_native(
        make_config(ours, cfg.dtype), device=cfg.device, dtype=cfg.dtype
    )
    rebuilt = booted.cfg.to_dict()
    unset = {name for name, value in fields.items() if is_not_set(name, value)}
    lost = [
        f"{name}={value!r}"
        for name, value in fields.items()
        if name not in WITHOUT_EFFECT.keys() | unset and rebuilt[name] != value
    ]
    if lost:
        raise UserError(f"the model config has values that are not implemented: {', '.join(lost)}")
    return ours


def read_weights(model: TransformerBridge, cfg: OurConfig) -> StateDict:
    entries = model.state_dict()
    arrays = {
        name: to_3_9(cfg, name, entries[key].detach().cpu()).numpy()
        for name, (key, _) in layout(cfg).items()
    }
    return dict(check_state_dict(cfg, arrays))


def write_weights(model: TransformerBridge, cfg: OurConfig, weights: StateDict) -> None:
    checked = check_state_dict(cfg, weights)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in checked.items()}
    model.load_state_dict(convert_tl_checkpoint(tensors, model.cfg))


def parameters(model: TransformerBridge) -> dict[str, torch.Tensor]:
    return dict(model.tl_named_parameters())


def trainable(model: TransformerBridge, cfg: OurConfig) -> dict[str, torch.nn.Parameter]:
    by_address = {parameter.data_ptr(): parameter for parameter in model.parameters()}
    entries = model.state_dict()
    return {
        name: by_address[entries[key].data_ptr()]
        for name, (key, _) in layout(cfg).items()
        if name != UNTRAINED
    }


@functools.lru_cache(maxsize=64)
def layout(cfg: OurConfig) -> dict[str, tuple[str, torch.Tensor]]:
    """By parameter name in TransformerLens 3.9: the name in 4.x, and where each entry goes."""
    theirs = make_config(cfg, torch.float32)
    places = {}
    for name, shape in parameter_shapes(cfg).items():
        numbered = torch.arange(math.prod(shape)).reshape(shape)
        ((key, place),) = convert_tl_checkpoint({name: numbered}, theirs).items()
        places[name] = (key, place)
    return places


def to_3_9(cfg: OurConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:
    _, place = layout(cfg)[name]
    moved = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
    moved[place.flatten()] = tensor.flatten()
    return moved.reshape(parameter_shapes(cfg)[name])


def from_3_9(cfg: OurConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:
    _, place = layout(cfg)[name]
    return tensor.flatten()[place]


def in_dtype(model: TransformerBridge, dtype: torch.dtype) -> TransformerBridge:
    # A bridge that has run holds activations, which can't be copied, so it is built again. No model
    # that `IMPLEMENTED` allows holds floats derived from its config.
    other = TransformerBridge.boot_native(model.cfg, device="cpu", dtype=dtype)
    other.load_state_dict(model.state_dict())
    return other


def in_3_9(cfg: OurConfig, names: Iterable[str]) -> list[str]:  # noqa: ARG001
    return [name for name in names if name in OLD_HOOKS or not name.endswith(NEW_HOOKS)]
