"""A transformer's shape and parts, with the field names and defaults of TransformerLens 3.9."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from revinc.errors import UserError
from revinc.fields import DERIVED, checked_fields, described
from revinc.transformer_lens_fields import in_our_words
from revinc.validation import require_bool, require_choice, require_int, require_number

ACT_FNS = (
    "relu",
    "relu2",
    "gelu",
    "gelu_new",
    "gelu_fast",
    "gelu_pytorch_tanh",
    "silu",
    "solu",
    "solu_ln",
)
NORMALIZATION_TYPES = ("LN", "LNPre", "RMS", "RMSPre", None)
POSITIONAL_EMBEDDING_TYPES = ("standard", "rotary", "shortformer", "alibi", "none")
ATTENTION_DIRS = ("causal", "bidirectional")
ATTENTION_TYPES = ("global", "local")
INIT_MODES = ("gpt2", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal")
DTYPES = ("float32", "float64")


class Rule(NamedTuple):
    """A field that has an effect only beside others.

    Attributes:
        field: its name.
        default: the value that asks for nothing.
        has_effect: whether it has one, in a config.
        unless: the condition, in words.
    """

    field: str
    default: Any
    has_effect: Callable[[Any], bool]
    unless: str


def _is_rotary(cfg: Any) -> bool:
    return cfg.positional_embedding_type == "rotary"


def _has_mlp(cfg: Any) -> bool:
    return not cfg.attn_only


ROTARY = (_is_rotary, "positional_embedding_type='rotary'")
MLP = (_has_mlp, "attn_only=False")
LOCAL = (lambda cfg: cfg.use_local_attn, "use_local_attn=True")

RULES = (
    Rule("rotary_dim", None, *ROTARY),
    Rule("rotary_base", 10000.0, *ROTARY),
    Rule("rotary_adjacent_pairs", False, *ROTARY),
    Rule("gated_mlp", False, *MLP),
    Rule("parallel_attn_mlp", False, *MLP),
    Rule("use_hook_mlp_in", False, *MLP),
    Rule("window_size", None, *LOCAL),
    Rule("attn_types", None, *LOCAL),
    Rule(
        "use_local_attn",
        False,
        lambda cfg: cfg.attention_dir == "causal",
        "attention_dir='causal'",
    ),
    Rule("attn_scale", None, lambda cfg: cfg.use_attn_scale, "use_attn_scale=True"),
    Rule(
        "final_rms",
        False,
        lambda cfg: cfg.normalization_type is not None,
        "there is a normalization_type",
    ),
    Rule(
        "ungroup_grouped_query_attention",
        False,
        lambda cfg: cfg.n_key_value_heads is not None,
        "n_key_value_heads is set",
    ),
)
"""The fields that are refused where they would be ignored."""


@dataclass(frozen=True, kw_only=True)
class HookedTransformerConfig:
    """A transformer's shape and parts, with the field names and defaults of TransformerLens 3.9.

    Only what is implemented exists as a field. A value that is not implemented, a combination that can't be
    computed, and a field that has no effect beside the others are refused by name.

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
    gated_mlp: bool = described(False, help="act_fn(x @ W_gate) * (x @ W_in) in the MLP")
    attn_only: bool = described(False, help="leave the MLPs out")
    parallel_attn_mlp: bool = described(
        False, help="let the MLP read what the attention reads, not what it wrote"
    )
    normalization_type: str | None = described(
        "LN", help="LN or RMS, LNPre or RMSPre (the same without weights), or None"
    )
    final_rms: bool = described(False, help="make the last norm an RMS norm")
    eps: float = described(1e-5, help="added to the variance in every norm")
    positional_embedding_type: str = described(
        "standard",
        help="standard: learned and added; shortformer: added to queries and keys alone; rotary; alibi; none",
    )
    rotary_dim: int | None = described(
        DERIVED, help="dimensions of a head that are rotated (left out of a config: d_head)"
    )
    rotary_base: float = described(10000.0, help="longest wavelength of a rotation, over 2 pi")
    rotary_adjacent_pairs: bool = described(
        False, help="rotate neighbouring dimensions together, not those half a head apart"
    )
    n_key_value_heads: int | None = described(
        None, help="key and value heads that the query heads share in groups; none: one for each"
    )
    ungroup_grouped_query_attention: bool = described(
        False, help="hook shared keys and values once for every head that uses them"
    )
    attention_dir: str = described(
        "causal", help="causal: no position sees a later one; bidirectional: each sees all"
    )
    use_local_attn: bool = described(False, help="let layers see window_size positions only")
    window_size: int | None = described(None, help="positions that a local layer sees")
    attn_types: tuple[str, ...] | None = described(
        None, help="global or local, for every layer: global,local,..."
    )
    use_attn_scale: bool = described(True, help="divide attention scores by attn_scale")
    attn_scale: float | None = described(
        DERIVED, help="divides attention scores (left out of a config: sqrt(d_head))"
    )
    scale_attn_by_inverse_layer_idx: bool = described(
        False, help="divide attention scores by the layer's number too, from 1 on"
    )
    attn_scores_soft_cap: float | None = described(
        None, help="bound of attention scores: cap * tanh(scores / cap)"
    )
    output_logits_soft_cap: float | None = described(
        None, help="bound of logits: cap * tanh(logits / cap)"
    )
    use_attn_result: bool = described(False, help="hook what every head adds: hook_result")
    use_split_qkv_input: bool = described(
        False, help="hook the inputs of queries, keys and values by head: hook_q_input, ..."
    )
    use_attn_in: bool = described(False, help="hook the attention's input by head: hook_attn_in")
    use_hook_mlp_in: bool = described(False, help="hook the MLP's input: hook_mlp_in")
    use_hook_tokens: bool = described(False, help="hook the tokens: hook_tokens")
    init_mode: str = described("gpt2", help=f"initial weights: {', '.join(INIT_MODES)}")
    initializer_range: float = described(
        DERIVED,
        help="standard deviation of initial weights, gain in other modes than gpt2 "
        "(follows d_model: 0.8 / sqrt(d_model), a gain of 1 in other modes)",
    )
    seed: int | None = described(None, help="of a model that is built without weights or rngs")
    dtype: str = described("float32", help="float32 or float64")

    def __post_init__(self) -> None:
        for size in ("n_layers", "d_model", "d_head", "n_ctx", "d_vocab"):
            require_int(size, getattr(self, size), at_least=1)
        if self.n_heads is None and self.d_model % self.d_head:
            raise UserError(
                f"n_heads can't be derived: d_model={self.d_model} is no multiple of "
                f"d_head={self.d_head}; set n_heads"
            )
        if isinstance(self.attn_types, list):
            object.__setattr__(self, "attn_types", tuple(self.attn_types))
        for field, value in self._derivations().items():
            if getattr(self, field) is None:
                object.__setattr__(self, field, value)
        self._check_values()
        for rule in RULES:
            if getattr(self, rule.field) != rule.default and not rule.has_effect(self):
                raise UserError(
                    f"{rule.field}={getattr(self, rule.field)!r} has no effect unless {rule.unless}; "
                    "leave it out"
                )
        self._check_combinations()

    def _derivations(self) -> dict[str, int | float | None]:
        return {
            "n_heads": self.d_model // self.d_head,
            "d_mlp": 4 * self.d_model,
            "d_vocab_out": self.d_vocab,
            "rotary_dim": self.d_head if self.positional_embedding_type == "rotary" else None,
            "attn_scale": math.sqrt(self.d_head) if self.use_attn_scale else None,
            "initializer_range": 0.8 / math.sqrt(self.d_model) if self.init_mode == "gpt2" else 1.0,
        }

    def _check_values(self) -> None:
        for size in ("n_heads", "d_mlp", "d_vocab_out"):
            require_int(size, getattr(self, size), at_least=1)
        for optional in ("rotary_dim", "n_key_value_heads", "window_size"):
            if getattr(self, optional) is not None:
                require_int(optional, getattr(self, optional), at_least=1)
        for number in ("eps", "initializer_range"):
            require_number(number, getattr(self, number))
        require_number("rotary_base", self.rotary_base, above=True)
        for optional in ("attn_scale", "attn_scores_soft_cap", "output_logits_soft_cap"):
            if getattr(self, optional) is not None:
                require_number(optional, getattr(self, optional), above=True)
        for field in dataclasses.fields(self):
            if field.type == "bool":
                require_bool(field.name, getattr(self, field.name))
        require_choice("act_fn", self.act_fn, ACT_FNS)
        require_choice("normalization_type", self.normalization_type, NORMALIZATION_TYPES)
        require_choice(
            "positional_embedding_type", self.positional_embedding_type, POSITIONAL_EMBEDDING_TYPES
        )
        require_choice("attention_dir", self.attention_dir, ATTENTION_DIRS)
        require_choice("init_mode", self.init_mode, INIT_MODES)
        require_choice("dtype", self.dtype, DTYPES)
        if self.seed is not None:
            require_int("seed", self.seed, at_least=0)

    def _check_combinations(self) -> None:
        if self.gated_mlp and self.act_fn == "solu_ln":
            raise UserError(
                "act_fn='solu_ln' and gated_mlp=True exclude each other: TransformerLens drops W_in there"
            )
        if self.rotary_dim is not None and (self.rotary_dim % 2 or self.rotary_dim > self.d_head):
            raise UserError(
                f"rotary_dim must be even and at most d_head={self.d_head}, not {self.rotary_dim}"
            )
        if self.n_key_value_heads is not None and self.n_heads % self.n_key_value_heads:
            raise UserError(
                f"n_key_value_heads={self.n_key_value_heads} does not divide n_heads={self.n_heads}"
            )
        if self.n_kv_heads < self.n_heads:
            if self.use_attn_in and not self.use_split_qkv_input:
                raise UserError(
                    "use_attn_in hooks one input for all heads, and n_key_value_heads makes fewer of keys; "
                    "set use_split_qkv_input or ungroup_grouped_query_attention"
                )
            if self.use_split_qkv_input and self.positional_embedding_type == "shortformer":
                raise UserError(
                    "use_split_qkv_input with n_key_value_heads and positional_embedding_type='shortformer' "
                    "fails in TransformerLens; set ungroup_grouped_query_attention"
                )
        if self.use_local_attn:
            self._check_local_attention()

    def _check_local_attention(self) -> None:
        if self.window_size is None:
            raise UserError("use_local_attn needs a window_size, in positions")
        kinds = self.attn_types
        if kinds is None or len(kinds) != self.n_layers or not set(kinds) <= set(ATTENTION_TYPES):
            raise UserError(
                f"use_local_attn needs attn_types: {self.n_layers} of global or local, one for each layer, "
                f"not {kinds!r}"
            )

    @property
    def n_kv_heads(self) -> int:
        """Heads of keys and values, as they are projected and hooked."""
        if self.n_key_value_heads is None or self.ungroup_grouped_query_attention:
            return self.n_heads
        return self.n_key_value_heads

    @property
    def has_positions_in_stream(self) -> bool:
        """Whether positions are added to the residual stream; elsewhere attention alone tells them apart, or nothing."""
        return self.positional_embedding_type == "standard"

    def replace(self, **changes: Any) -> HookedTransformerConfig:
        """A copy with other values. Fields that hold their derived value are derived anew.

        (``dataclasses.replace`` would keep, say, the `initializer_range` of the old `d_model`.)
        """
        derived = self._derivations()
        kept = {k: v for k, v in self.to_dict().items() if k not in derived or v != derived[k]}
        return HookedTransformerConfig(**checked_fields(HookedTransformerConfig, kept | changes))

    def to_dict(self) -> dict[str, Any]:
        """The fields as a flat dict that JSON can hold."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> HookedTransformerConfig:
        """The inverse of `to_dict`, which also takes what ``cfg.to_dict()`` of TransformerLens 3.9 gives.

        Fields without effect are ignored: those of tokenizers and devices, and those that have none
        beside the others, such as a `window_size` without `use_local_attn`.

        Raises:
            UserError: for a field that does not exist, is not implemented, or is missing.
        """
        ours = checked_fields(cls, in_our_words(fields))
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        given = SimpleNamespace(**defaults | ours)
        ignored = {rule.field for rule in RULES if not rule.has_effect(given)}
        return cls(**{name: value for name, value in ours.items() if name not in ignored})
