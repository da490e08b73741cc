"""A state dict as data: TransformerLens' names and shapes, a strict check, safetensors in and out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from revinc.atomic import write_atomically
from revinc.errors import UserError
from revinc.model_config import HookedTransformerConfig

StateDict = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

BUFFER_SUFFIXES = (".attn.mask", ".attn.IGNORE", ".attn.rotary_sin", ".attn.rotary_cos")
"""Entries of TransformerLens' state dict that are no parameters: dropped when reading."""


def parameter_shapes(cfg: HookedTransformerConfig) -> Shapes:
    """Name and shape of every parameter, as in TransformerLens 3.9, embedding first."""
    norm = norm_shapes(cfg.normalization_type, cfg.d_model)
    block_parts: dict[str, Shapes] = {"ln1": norm, "attn": attention_shapes(cfg)}
    if not cfg.attn_only:
        block_parts |= {"ln2": norm, "mlp": mlp_shapes(cfg)}
        if cfg.act_fn == "solu_ln" and cfg.normalization_type == "LN":
            block_parts["mlp.ln"] = norm_shapes("LN", cfg.d_mlp)

    parts: dict[str, Shapes] = {"embed": {"W_E": (cfg.d_vocab, cfg.d_model)}}
    if cfg.positional_embedding_type not in ("rotary", "none"):
        parts["pos_embed"] = {"W_pos": (cfg.n_ctx, cfg.d_model)}
    for layer in range(cfg.n_layers):
        parts |= {f"blocks.{layer}.{part}": shapes for part, shapes in block_parts.items()}
    parts |= {
        "ln_final": norm_shapes(final_normalization_type(cfg), cfg.d_model),
        "unembed": {"W_U": (cfg.d_model, cfg.d_vocab_out), "b_U": (cfg.d_vocab_out,)},
    }
    return {
        f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()
    }


def norm_shapes(normalization_type: str | None, width: int) -> Shapes:
    """The parameters of a norm over `width` numbers."""
    names = {"LN": ("w", "b"), "RMS": ("w",)}.get(normalization_type or "", ())
    return dict.fromkeys(names, (width,))


def attention_shapes(cfg: HookedTransformerConfig) -> Shapes:
    """An attention's parameters. Keys and values that heads share are named with an underscore."""
    n_kv_heads = cfg.n_key_value_heads or cfg.n_heads
    _ = "" if cfg.n_key_value_heads is None else "_"
    return {
        "W_Q": (cfg.n_heads, cfg.d_model, cfg.d_head),
        f"{_}W_K": (n_kv_heads, cfg.d_model, cfg.d_head),
        f"{_}W_V": (n_kv_heads, cfg.d_model, cfg.d_head),
        "W_O": (cfg.n_heads, cfg.d_head, cfg.d_model),
        "b_Q": (cfg.n_heads, cfg.d_head),
        f"{_}b_K": (n_kv_heads, cfg.d_head),
        f"{_}b_V": (n_kv_heads, cfg.d_head),
        "b_O": (cfg.d_model,),
    }


def mlp_shapes(cfg: HookedTransformerConfig) -> Shapes:
    """An MLP's parameters but for its norm's, where it has one."""
    gate = {"W_gate": (cfg.d_model, cfg.d_mlp)} if cfg.gated_mlp else {}
    return {
        **gate,
        "W_in": (cfg.d_model, cfg.d_mlp),
        "b_in": (cfg.d_mlp,),
        "W_out": (cfg.d_mlp, cfg.d_model),
        "b_out": (cfg.d_model,),
    }


def final_normalization_type(cfg: HookedTransformerConfig) -> str | None:
    """The type of the norm before the unembedding."""
    as_rms = {"LN": "RMS", "LNPre": "RMSPre"}
    return (
        as_rms.get(cfg.normalization_type or "", cfg.normalization_type)
        if cfg.final_rms
        else cfg.normalization_type
    )


def without_effect(cfg: HookedTransformerConfig) -> frozenset[str]:
    """Parameters that the model has, as in TransformerLens, and never reads: torch leaves them as they are."""
    return frozenset({"pos_embed.W_pos"} if cfg.positional_embedding_type == "alibi" else ())


def parameter_count(cfg: HookedTransformerConfig) -> int:
    """How many numbers training adjusts."""
    return sum(map(math.prod, parameter_shapes(cfg).values()))


def check_shapes(
    cfg: HookedTransformerConfig,
    given: Mapping[str, tuple[int, ...]],
    source: str,
    other_problems: Iterable[str] = (),
) -> None:
    """Raise a UserError that lists every missing, unexpected and misshapen parameter, if any."""
    expected = parameter_shapes(cfg)
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    problems += [
        f"{name} has shape {list(given[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    problems += other_problems
    if problems:
        raise UserError(f"{source} does not fit the config: {'; '.join(problems)}")


def check_state_dict(
    cfg: HookedTransformerConfig, state_dict: Mapping[str, Any], source: str = "the state dict"
) -> StateDict:
    """`state_dict` as numpy arrays of ``cfg.dtype``, in canonical order, without buffers.

    Raises:
        UserError: listing every missing, unexpected and misshapen entry at once.
    """
    given = {k: np.asarray(v) for k, v in state_dict.items() if not k.endswith(BUFFER_SUFFIXES)}
    shapes = {name: array.shape for name, array in given.items()}
    odd = (f"{k} holds {a.dtype}, not floats" for k, a in given.items() if a.dtype.kind != "f")
    check_shapes(cfg, shapes, source, odd)
    return {name: given[name].astype(cfg.dtype) for name in parameter_shapes(cfg)}


def save_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file, whole or not at all."""
    arrays = {name: np.asarray(array, order="C") for name, array in state_dict.items()}
    write_atomically(path, lambda temporary: temporary.write_bytes(save(arrays)))


def read_safetensors(path: Path) -> StateDict:
    """Every array of a safetensors file.

    Raises:
        UserError: if the file is missing, truncated or of another format.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        return load_file(path)
    except (SafetensorError, AttributeError) as error:  # numpy has no float8
        raise UserError(
            f"{path} is no readable safetensors file; it is truncated or of another format ({error})"
        ) from error


def load_state_dict(path: Path, cfg: HookedTransformerConfig) -> StateDict:
    """The weights of a model of config `cfg`.

    Raises:
        UserError: if the file is unreadable, or its entries are not those of the config.
    """
    return check_state_dict(cfg, read_safetensors(path), source=str(path))
