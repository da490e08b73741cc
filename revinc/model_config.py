"""A transformer's shape, with the field names and defaults of TransformerLens 3.9."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from revinc.errors import UserError
from revinc.fields import DERIVED, checked_fields, described
from revinc.validation import require_bool, require_choice, require_int, require_number

ACT_FNS = ("relu", "gelu", "gelu_new", "silu")
NORMALIZATION_TYPES = ("LN", "LNPre", None)
DTYPES = ("float32", "float64")


@dataclass(frozen=True, kw_only=True)
class HookedTransformerConfig:
    """A transformer's shape, with the field names and defaults of TransformerLens 3.9.

    Only what is implemented exists as a field, and every other value is refused by name.

    Raises:
        UserError: a ValueError that names the field.
    """

    n_layers: int = described(help="number of transformer blocks")
    d_model: int = described(help="width of the residual stream")
    d_head: int = described(help="width of each attention head")
    n_ctx: int = described(help="longest sequence, in tokens")
    d_vocab: int = described(help="number of input tokens")
    n_heads: int = described(
        DERIVED, help="attention heads (left out of a config: d_model // d_head)"
    )
    d_mlp: int = described(DERIVED, help="width of the MLP (left out of a config: 4 * d_model)")
    d_vocab_out: int = described(DERIVED, help="number of output tokens (follows d_vocab)")
    act_fn: str = described("relu", help=f"MLP activation: {', '.join(ACT_FNS)}")
    attn_only: bool = described(False, help="leave the MLPs out")
    normalization_type: str | None = described("LN", help="LN, LNPre (no weights) or None")
    eps: float = described(1e-5, help="added to the variance in every layer norm")
    positional_embedding_type: str = described("standard", help="standard: learned and added")
    attention_dir: str = described("causal", help="causal: no position sees a later one")
    init_mode: str = described("gpt2", help="gpt2: weights normal, biases zero")
    initializer_range: float = described(
        DERIVED, help="standard deviation of initial weights (follows d_model: 0.8 / sqrt(d_model))"
    )
    dtype: str = described("float32", help="float32 or float64")

    def __post_init__(self) -> None:
        for size in ("n_layers", "d_model", "d_head", "n_ctx", "d_vocab"):
            require_int(size, getattr(self, size), at_least=1)
        if self.n_heads is None and self.d_model % self.d_head:
            raise UserError(
                f"n_heads can't be derived: d_model={self.d_model} is no multiple of "
                f"d_head={self.d_head}; set n_heads"
            )
        for field, value in self._derivations().items():
            if getattr(self, field) is None:
                object.__setattr__(self, field, value)
        for size in ("n_heads", "d_mlp", "d_vocab_out"):
            require_int(size, getattr(self, size), at_least=1)
        require_number("eps", self.eps)
        require_number("initializer_range", self.initializer_range)
        require_bool("attn_only", self.attn_only)
        require_choice("act_fn", self.act_fn, ACT_FNS)
        require_choice("normalization_type", self.normalization_type, NORMALIZATION_TYPES)
        require_choice("positional_embedding_type", self.positional_embedding_type, ("standard",))
        require_choice("attention_dir", self.attention_dir, ("causal",))
        require_choice("init_mode", self.init_mode, ("gpt2",))
        require_choice("dtype", self.dtype, DTYPES)

    def _derivations(self) -> dict[str, int | float]:
        return {
            "n_heads": self.d_model // self.d_head,
            "d_mlp": 4 * self.d_model,
            "d_vocab_out": self.d_vocab,
            "initializer_range": 0.8 / math.sqrt(self.d_model),
        }

    def replace(self, **changes: Any) -> HookedTransformerConfig:
        """A copy with other values. Fields that hold their derived value are derived anew.

        (``dataclasses.replace`` would keep, say, the `initializer_range` of the old `d_model`.)
        """
        derived = self._derivations()
        kept = {k: v for k, v in self.to_dict().items() if k not in derived or v != derived[k]}
        return HookedTransformerConfig.from_dict(kept | changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a flat dict that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> HookedTransformerConfig:
        """The inverse of `to_dict`.

        Raises:
            UserError: for a field that does not exist or is missing.
        """
        return cls(**checked_fields(cls, fields))
