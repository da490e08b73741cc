"""The model config: a transformer's shape and parts, in the field names of TransformerLens 3.9."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from revinc.config_fields import (
    DERIVED,
    SIZE,
    Condition,
    check_effects,
    checked_fields,
    checks_names,
    described,
    fields_without_effect,
    hold_plain_values,
    parse_fields,
    short_repr,
    translates_names,
)
from revinc.errors import UserError, shown
from revinc.transformer_lens_fields import NOT_STORED, in_our_words

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

DEPTH: dict[str, Any] = {"at_least": 1, "below": 2**10}
"""The bounds of a number of layers: each has parameter names and code of its own."""

ROTARY = Condition(
    "positional_embedding_type='rotary'", lambda cfg: cfg.positional_embedding_type == "rotary"
)
MLP = Condition("attn_only=False", lambda cfg: not cfg.attn_only)
LOCAL = Condition("use_local_attn=True", lambda cfg: cfg.use_local_attn)
CAUSAL = Condition("attention_dir='causal'", lambda cfg: cfg.attention_dir == "causal")
SCALED = Condition("use_attn_scale=True", lambda cfg: cfg.use_attn_scale)
NORMALIZED = Condition(
    "there is a normalization_type", lambda cfg: cfg.normalization_type is not None
)
GROUPED = Condition("n_key_value_heads is set", lambda cfg: cfg.n_key_value_heads is not None)


@translates_names(in_our_words)
@checks_names
@dataclass(frozen=True, kw_only=True)
class HookedTransformerConfig:
    """A transformer's shape and parts, with the field names and defaults of TransformerLens 3.9.

    Its other arguments are understood too, and not stored: those of devices, downloads and
    tokenizers have no effect here and show 3.9's defaults, and -1 means what it means there, mostly
    "not set". Unknown
    values, what is not implemented, combinations that can't be computed, and fields that would have
    no effect are refused with an error that names the field.

    Raises:
        UserError: a ValueError that names the field.
    """

    n_layers: int = described(help="number of transformer blocks", **DEPTH)
    d_model: int = described(help="width of the residual stream", **SIZE)
    d_head: int = described(help="width of each attention head", **SIZE)
    n_ctx: int = described(help="longest sequence, in tokens", **SIZE)
    d_vocab: int = described(help="number of input tokens", **SIZE)
    n_heads: int = described(
        DERIVED, help="attention heads (left out of a config: d_model // d_head)", **SIZE
    )
    d_mlp: int = described(
        DERIVED, help="width of the MLP (left out of a config: 4 * d_model)", **SIZE
    )
    d_vocab_out: int = described(DERIVED, help="number of output tokens (follows d_vocab)", **SIZE)
    act_fn: str = described("relu", help="MLP activation", choices=ACT_FNS)
    gated_mlp: bool = described(False, help="act_fn(x @ W_gate) * (x @ W_in) in the MLP", needs=MLP)
    attn_only: bool = described(False, help="leave the MLPs out")
    parallel_attn_mlp: bool = described(
        False, help="the MLP reads the attention's input, not its output", needs=MLP
    )
    normalization_type: str | None = described(
        "LN",
        help="layer or RMS norm; LNPre and RMSPre have no weights",
        choices=NORMALIZATION_TYPES,
    )
    final_rms: bool = described(False, help="make the last norm an RMS norm", needs=NORMALIZED)
    eps: float = described(1e-5, help="added to the variance in every norm", at_least=0)
    positional_embedding_type: str = described(
        "standard",
        help="standard: learned, added to the embeddings; shortformer: added to queries and keys",
        choices=POSITIONAL_EMBEDDING_TYPES,
    )
    rotary_dim: int | None = described(
        DERIVED,
        help="rotated dimensions of a head (left out of a config: d_head)",
        needs=ROTARY,
        **SIZE,
    )
    rotary_base: float = described(
        10000.0, help="longest wavelength of a rotation, over 2 pi", needs=ROTARY, above=0
    )
    rotary_adjacent_pairs: bool = described(
        False,
        help="rotate neighbouring dimensions together, not those half a head apart",
        needs=ROTARY,
    )
    n_key_value_heads: int | None = described(
        None,
        help="key and value heads that the query heads share in groups; none: one for each",
        **SIZE,
    )
    ungroup_grouped_query_attention: bool = described(
        False, help="hook shared keys and values once for every head that uses them", needs=GROUPED
    )
    attention_dir: str = described(
        "causal",
        help="causal: no position sees a later one; bidirectional: each sees all",
        choices=ATTENTION_DIRS,
    )
    use_local_attn: bool = described(
        False, help="some layers see only window_size positions", needs=CAUSAL
    )
    window_size: int | None = described(
        None, help="positions that a local layer sees", needs=LOCAL, **SIZE
    )
    attn_types: tuple[str, ...] | None = described(
        None,
        help="the type of every layer, separated by commas",
        needs=LOCAL,
        choices=ATTENTION_TYPES,
    )
    use_attn_scale: bool = described(True, help="divide attention scores by attn_scale")
    attn_scale: float | None = described(
        DERIVED,
        help="divides attention scores (left out of a config: sqrt(d_head))",
        needs=SCALED,
        above=0,
    )
    scale_attn_by_inverse_layer_idx: bool = described(
        False, help="also divide attention scores by the layer's number, counted from 1"
    )
    attn_scores_soft_cap: float | None = described(
        None, help="bound of attention scores: cap * tanh(scores / cap)", above=0
    )
    output_logits_soft_cap: float | None = described(
        None, help="bound of logits: cap * tanh(logits / cap)", above=0
    )
    use_attn_result: bool = described(False, help="hook the output of every head: hook_result")
    use_split_qkv_input: bool = described(
        False, help="hook the inputs of queries, keys and values by head: hook_q_input, ..."
    )
    use_attn_in: bool = described(False, help="hook the attention's input by head: hook_attn_in")
    use_hook_mlp_in: bool = described(False, help="hook the MLP's input: hook_mlp_in", needs=MLP)
    use_hook_tokens: bool = described(False, help="hook the tokens: hook_tokens")
    init_mode: str = described(
        "gpt2", help="distribution of the initial weights", choices=INIT_MODES
    )
    initializer_range: float = described(
        DERIVED,
        help="standard deviation of initial weights, or the gain if init_mode is not gpt2 "
        "(left out of a config: 0.8 / sqrt(d_model), or a gain of 1)",
        at_least=0,
    )
    seed: int | None = described(
        None, help="seed of a model built without weights or rngs", at_least=0, below=2**64
    )
    dtype: str = described("float32", help="type of weights and activations", choices=DTYPES)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        hold_plain_values(self)
        if self.n_heads is None and self.d_model % self.d_head:
            raise UserError(
                f"n_heads can't be derived: d_model={self.d_model} is not a multiple of "
                f"d_head={self.d_head}; set n_heads"
            )
        derived = {k: v for k, v in self._derivations().items() if getattr(self, k) is None}
        hold_plain_values(self, derived)
        check_effects(self)
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

    def _check_combinations(self) -> None:
        if self.gated_mlp and self.act_fn == "solu_ln":
            raise UserError(
                "act_fn='solu_ln' and gated_mlp=True exclude each other, because TransformerLens "
                "would ignore the weights W_in; choose one"
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
                    "use_attn_in=True needs as many key heads as query heads, but "
                    "n_key_value_heads makes fewer; set use_split_qkv_input or "
                    "ungroup_grouped_query_attention"
                )
            if self.use_split_qkv_input and self.positional_embedding_type == "shortformer":
                raise UserError(
                    "use_split_qkv_input with n_key_value_heads and "
                    "positional_embedding_type='shortformer' fails in TransformerLens; set "
                    "ungroup_grouped_query_attention"
                )
        if self.use_local_attn:
            self._check_local_attention()

    def _check_local_attention(self) -> None:
        if self.window_size is None:
            raise UserError(
                "use_local_attn=True needs a window_size: how many positions a local layer sees"
            )
        kinds = self.attn_types
        if kinds is None or len(kinds) != self.n_layers:
            raise UserError(
                f"use_local_attn=True needs attn_types, global or local for each of the "
                f"{self.n_layers} layers, not {shown(kinds)}"
            )

    @property
    def n_kv_heads(self) -> int:
        """The number of key and value heads that have activations (and hooks) of their own."""
        if self.n_key_value_heads is None or self.ungroup_grouped_query_attention:
            return self.n_heads
        return self.n_key_value_heads

    @property
    def n_params(self) -> int:
        """The number of weights of attention and MLPs, as TransformerLens counts them.

        Keys and values are counted for every head, even where heads share them. Biases, norms,
        embeddings and the unembedding are not counted: see `revinc.weights.parameter_count`.
        """
        per_layer = 4 * self.n_heads * self.d_head * self.d_model
        if not self.attn_only:
            per_layer += (2 + self.gated_mlp) * self.d_model * self.d_mlp
        return self.n_layers * per_layer

    def is_layer_norm_activation(self) -> bool:
        """Whether the MLP's activation function is followed by a norm of its own."""
        return self.act_fn.endswith("_ln")

    @property
    def has_positions_in_stream(self) -> bool:
        """Whether positional embeddings are added to the residual stream."""
        return self.positional_embedding_type == "standard"

    def __getattr__(self, name: str) -> Any:
        """3.9's default for a field of 3.9 that has no effect here; any other name is an error."""
        if name in NOT_STORED:
            return NOT_STORED[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def replace(self, **changes: Any) -> HookedTransformerConfig:
        """A copy of the config with other values; fields derived from them are derived again.

        (``dataclasses.replace`` would keep, say, the `initializer_range` of the old `d_model`.)
        """
        derived = self._derivations()
        kept = {k: v for k, v in self.to_dict().items() if k not in derived or v != derived[k]}
        return HookedTransformerConfig(**kept | changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a flat dict that JSON can hold."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> HookedTransformerConfig:
        """Make a config from a dict of `to_dict`, or of ``cfg.to_dict()`` in TransformerLens 3.9.

        Fields without effect are ignored: those of tokenizers and devices, and those that have no
        effect beside the others, such as a `window_size` without `use_local_attn`.

        Args:
            fields: values by field name.

        Raises:
            UserError: for a missing field, an unknown field or value, or a field of
                TransformerLens that is not implemented here.
        """
        ours = parse_fields(cls, checked_fields(cls, in_our_words(fields)))
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        ignored = fields_without_effect(cls, SimpleNamespace(**defaults | ours))
        return cls(**{name: value for name, value in ours.items() if name not in ignored})

    @classmethod
    def unwrap(cls, config: Any) -> HookedTransformerConfig:
        """Make a config of what stands for one.

        Args:
            config: a config, which is returned; a dict of fields, as `from_dict` takes; or a config
                of TransformerLens.

        Raises:
            UserError: for anything else, or as `from_dict`.
        """
        if isinstance(config, cls):
            return config
        if hasattr(config, "d_model") and hasattr(config, "to_dict"):
            config = config.to_dict()
        if not isinstance(config, Mapping):
            raise UserError(
                "cfg must be a HookedTransformerConfig, or a dict of its fields, not "
                f"{type(config).__name__}"
            )
        return cls.from_dict(dict(config))
