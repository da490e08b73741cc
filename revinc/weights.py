"""Weights as a state dict: names and shapes, a strict check, safetensors files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from revinc.atomic_files import write_bytes
from revinc.errors import UserError, several
from revinc.foreign_arrays import as_array
from revinc.model_config import HookedTransformerConfig
from revinc.tensor_file import TensorFile
from revinc.weight_layouts import layout_hint, require_by_name

StateDict = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

BUFFER_SUFFIXES = (".attn.mask", ".attn.IGNORE", ".attn.rotary_sin", ".attn.rotary_cos")
"""Ends of the names in TransformerLens' state dict that are buffers, not parameters."""


def parameter_shapes(cfg: HookedTransformerConfig) -> Shapes:
    """The name and shape of every parameter, as in TransformerLens 3.9, embedding first."""
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
    """The names and shapes of a norm layer's parameters, for activations of `width` numbers."""
    names = {"LN": ("w", "b"), "RMS": ("w",)}.get(normalization_type or "", ())
    return dict.fromkeys(names, (width,))


def attention_shapes(cfg: HookedTransformerConfig) -> Shapes:
    """The names and shapes of an attention layer's parameters, as in TransformerLens.

    Keys and values that heads share have an underscore.
    """
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
    """The names and shapes of an MLP's parameters, without those of its norm."""
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
    """The names of parameters that exist as in TransformerLens, but that the model never uses."""
    return frozenset({"pos_embed.W_pos"} if cfg.positional_embedding_type == "alibi" else ())


@lru_cache(maxsize=64)
def parameter_count(cfg: HookedTransformerConfig) -> int:
    """The number of scalar parameters of a model."""
    return sum(map(math.prod, parameter_shapes(cfg).values()))


class IncompatibleKeys(NamedTuple):
    """The names in which a state dict differs from a model, as torch's `load_state_dict` returns.

    Attributes:
        missing_keys: the parameters of the model that the state dict lacks.
        unexpected_keys: the names in the state dict that are no parameters or buffers.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def incompatible_keys(cfg: HookedTransformerConfig, names: Iterable[Any]) -> IncompatibleKeys:
    """The names in which a state dict of these names differs from a model of config `cfg`."""
    expected, given = parameter_shapes(cfg), dict.fromkeys(names)
    return IncompatibleKeys(
        [name for name in expected if name not in given],
        [name for name in given if name not in expected and not is_buffer(name)],
    )


def check_shapes(
    cfg: HookedTransformerConfig,
    given: Mapping[str, tuple[int, ...]],
    source: str,
    other_problems: Iterable[str] = (),
    strict: bool = True,
) -> None:
    """Raise a UserError that lists every misshapen parameter, if any, or names another layout.

    If `strict`, missing and unexpected parameters are listed too.
    """
    expected = parameter_shapes(cfg)
    problems = [
        f"{name} has shape {list(given[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    problems += other_problems
    if strict:
        missing, unexpected = incompatible_keys(cfg, given)
        absent = folded_norms(cfg, missing) or [f"missing {name}" for name in missing]
        problems = [*absent, *(f"unexpected {name}" for name in unexpected), *problems]
    if problems:
        what = layout_hint(given) or several(problems, "; ", most=20)
        raise UserError(f"{source} does not fit the config: {what}")


def folded_norms(cfg: HookedTransformerConfig, missing: list[str]) -> list[str]:
    """What to do if exactly the weights of all norms are missing, as one phrase; else nothing."""
    without_weights = {"LN": "LNPre", "RMS": "RMSPre"}.get(cfg.normalization_type or "")
    if without_weights is None or not missing:
        return []
    others = parameter_shapes(cfg.replace(normalization_type=without_weights))
    norms = [name for name in parameter_shapes(cfg) if name not in others]
    if missing != norms:
        return []
    return [
        f"it has no weights of norms, such as {norms[0]}; if they are folded into the weights after "
        f"them, choose normalization_type={without_weights!r}, and None for a model without norms"
    ]


def check_state_dict(
    cfg: HookedTransformerConfig,
    state_dict: Mapping[str, Any],
    source: str = "the state dict",
    strict: bool = True,
) -> StateDict:
    """Check a state dict against a model's config; returns its weights as numpy arrays.

    Args:
        cfg: the config of the model that the weights are for.
        state_dict: arrays of floats of any width, bfloat16 included, or torch tensors, by name.
        source: where the arrays come from, for errors.
        strict: whether missing and unexpected names are errors; if not, what fits is returned.

    Raises:
        UserError: listing every missing, unexpected and misshapen entry at once.
    """
    require_by_name(state_dict, source)
    expected = parameter_shapes(cfg)
    entries = {
        k: v for k, v in state_dict.items() if (not is_buffer(k) if strict else k in expected)
    }
    given = {name: as_array(value) for name, value in entries.items()}
    shapes = {name: array.shape for name, array in given.items()}
    odd = [f"{k} holds {a.dtype}, not floats" for k, a in given.items() if not holds_floats(a)]
    check_shapes(cfg, shapes, source, odd, strict)
    with np.errstate(over="ignore"):  # `check_finite` reports it
        return {name: given[name].astype(cfg.dtype) for name in expected if name in given}


def is_buffer(name: object) -> bool:
    """Whether a name in TransformerLens' state dict is a buffer's, such as the causal mask's."""
    return isinstance(name, str) and name.endswith(BUFFER_SUFFIXES)


def holds_floats(array: np.ndarray) -> bool:
    """Whether an array holds floats of any width, bfloat16 included, which numpy does not know."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def check_finite(state_dict: Mapping[str, Any], source: str = "the state dict") -> None:
    """Raise a UserError that names every tensor with NaN or infinite values, if there is one.

    Args:
        state_dict: arrays of floats, by name.
        source: where the arrays come from, for the error.
    """
    counts = {name: int(np.sum(~np.isfinite(array))) for name, array in state_dict.items()}
    broken = [
        f"{name} holds {n} {'value that is' if n == 1 else 'values that are'} NaN or infinite"
        for name, n in counts.items()
        if n
    ]
    if broken:
        raise UserError(f"{source} can't be used: {several(broken, '; ', most=3)}")


def to_safetensors(state_dict: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a safetensors file that holds the arrays of a state dict."""
    return save({name: np.asarray(array, order="C") for name, array in state_dict.items()})


def save_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
    """Write a state dict to a safetensors file, whole or not at all."""
    write_bytes(path, to_safetensors(state_dict))


def read_safetensors(path: Path) -> StateDict:
    """Read all arrays of a safetensors file, bfloat16 as float32.

    Raises:
        UserError: if the file is missing, truncated, of another format or too large, or holds a
            type that numpy lacks.
    """
    return TensorFile.open(path).read()


def load_state_dict(path: Path, cfg: HookedTransformerConfig) -> StateDict:
    """Read weights from a file, checked to fit the config `cfg`. They may be NaN or infinite.

    Raises:
        UserError: if the file is unreadable, or its entries do not fit the config.
    """
    file = TensorFile.open(path)
    parameters = {k: tensor.shape for k, tensor in file.tensors.items() if not is_buffer(k)}
    check_shapes(cfg, parameters, str(path))  # before reading: it may be huge
    return check_state_dict(cfg, file.read(parameters), source=str(path))
