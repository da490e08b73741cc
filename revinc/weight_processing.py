"""TransformerLens' weight processing as pure functions on state dicts.

The processed weights are easier to read, and the model computes the same logits with them; with
`center_unembed` the same log probabilities. Each function returns a new dict, of NumPy or JAX
arrays. They may be traced, so that populations can be mapped over.

Where the processing of TransformerLens 3.9 changes what a model computes, this differs from it. 3.9
folds a norm into the wrong axis of ``W_in`` if d_mlp equals d_model, and of ``W_U`` if d_vocab_out
does. It centres the input of an RMS norm (``final_rms``) and of a soft cap. It drops the bias of a
norm before a gated MLP, and it scales the positions that shortformer adds after a norm. Here such
norms keep their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from revinc.errors import UserError
from revinc.model_config import HookedTransformerConfig
from revinc.weights import parameter_shapes

Weights = Mapping[str, Any]
Step = Callable[[Weights, HookedTransformerConfig], dict[str, Any]]

FOLDED = {"LN": "LNPre", "RMS": "RMSPre"}
"""The type that a norm has after its weights are folded."""

CENTRING = ("LN", "LNPre")


def process_weights(
    state_dict: Weights,
    cfg: HookedTransformerConfig,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
    refactor_factored_attn_matrices: bool = False,
) -> tuple[dict[str, Any], HookedTransformerConfig]:
    """Process weights as TransformerLens does: fold norms and biases, and centre weights.

    Steps that would change what the model computes are left out: see `obstacles`.

    Args:
        state_dict: the weights by TransformerLens' names.
        cfg: the model's config.
        fold_ln: whether to apply `fold_layer_norm`.
        center_writing_weights: whether to apply the step of that name.
        center_unembed: whether to apply the step of that name.
        fold_value_biases: whether to apply the step of that name.
        refactor_factored_attn_matrices: whether to apply the step of that name.

    Returns:
        The processed weights and their config. If all norms were folded, they have no weights.

    Raises:
        UserError: if `refactor_factored_attn_matrices` is true and can't be done to the model.
    """
    asked = {
        "fold_layer_norm": fold_ln,
        "fold_value_biases": fold_value_biases,  # before centring, so that b_O is centred with it
        "center_writing_weights": center_writing_weights,
        "center_unembed": center_unembed,
    }
    weights = dict(state_dict)
    for name, is_asked in asked.items():
        if is_asked and not obstacles(cfg)[name]:
            weights = STEPS[name](weights, cfg)
    if refactor_factored_attn_matrices:
        weights = STEPS["refactor_factored_attn_matrices"](weights, cfg)
    norms = {name for name in weights if name.endswith((".w", ".b"))}
    if fold_ln and norms and norms <= weights_of_folded_norms(cfg):
        cfg = cfg.replace(normalization_type=FOLDED[cfg.normalization_type or ""])
    return {name: weights[name] for name in parameter_shapes(cfg)}, cfg


def weights_of_folded_norms(cfg: HookedTransformerConfig) -> set[str]:
    """The names of the norm weights that `fold_layer_norm` folds."""
    return {f"{norm}.{letter}" for norm in readers_of_norms(cfg) for letter in "wb"}


def obstacles(cfg: HookedTransformerConfig) -> dict[str, str]:
    """For each step of weight processing, why the model's config forbids it, or ``""``."""
    folding = centring = capped = refactoring = ""
    if cfg.normalization_type not in FOLDED:
        folding = f"normalization_type={cfg.normalization_type!r} has no weights to fold"
    if cfg.normalization_type not in CENTRING or cfg.final_rms:
        centring = "norms that do not centre their input would give other outputs"
    if cfg.output_logits_soft_cap is not None:
        capped = "output_logits_soft_cap is not linear, so a constant added to all logits matters"
    if cfg.positional_embedding_type == "rotary":
        refactoring = "rotary positions stand between the queries and the keys"
    elif cfg.n_key_value_heads is not None:
        refactoring = "heads share keys and values, so a head has no factors of its own"
    elif cfg.d_head > cfg.d_model:
        refactoring = "d_head is larger than d_model, the rank of a head's matrices"
    return {
        "fold_layer_norm": folding,
        "center_writing_weights": centring,
        "center_unembed": capped,
        "fold_value_biases": "",
        "refactor_factored_attn_matrices": refactoring,
    }


def require_harmless(step: str, cfg: HookedTransformerConfig) -> None:
    """Raise a UserError if a step of weight processing would change the outputs of a model."""
    if obstacle := obstacles(cfg)[step]:
        raise UserError(f"{step} can't be applied to this model: {obstacle}")


def fold_layer_norm(
    state_dict: Weights,
    cfg: HookedTransformerConfig,
    fold_biases: bool = True,
    center_weights: bool = True,
) -> dict[str, Any]:
    """Fold the gains and biases of norms into the weights that read the norms' outputs.

    The weights that read a layer norm are centred too. The norms get gains of 1 and biases of 0.
    Two kinds of norms can't be folded and stay as they are: ln1 with shortformer, which adds
    positions after it, and a layer norm before a gated MLP, whose gate has no bias.

    Args:
        state_dict: the weights by TransformerLens' names.
        cfg: the model's config.
        fold_biases: whether to fold the biases of layer norms. If not, they stay as they are; unless
            they are 0, the model then computes something else.
        center_weights: whether to centre the weights that read a layer norm.

    Raises:
        UserError: if no norm has weights.
    """
    require_harmless("fold_layer_norm", cfg)
    weights = dict(state_dict)
    for norm, readers in readers_of_norms(cfg).items():
        gain = weights[f"{norm}.w"][:, None]
        shift: Any = weights.get(f"{norm}.b")
        is_layer_norm = shift is not None
        weights[f"{norm}.w"] = gain[:, 0] * 0 + 1
        for weight, bias in readers:
            if is_layer_norm and fold_biases:
                weights[bias] = weights[bias] + (shift[:, None] * weights[weight]).sum(-2)
            weights[weight] = gain * weights[weight]
            if is_layer_norm and center_weights:
                weights[weight] = weights[weight] - weights[weight].mean(-2, keepdims=True)
        if is_layer_norm and fold_biases:
            weights[f"{norm}.b"] = shift * 0
    return weights


def readers_of_norms(cfg: HookedTransformerConfig) -> dict[str, list[tuple[str, str]]]:
    """For every norm that can be folded, the weights that read its output, with their biases."""
    _ = "" if cfg.n_key_value_heads is None else "_"
    names = ("W_Q", "b_Q"), (f"{_}W_K", f"{_}b_K"), (f"{_}W_V", f"{_}b_V")
    gate = [("mlp.W_gate", "")] if cfg.gated_mlp else []
    in_block = {
        "ln1": [(f"attn.{weight}", f"attn.{bias}") for weight, bias in names],
        "ln2": [("mlp.W_in", "mlp.b_in"), *gate],
        "mlp.ln": [("mlp.W_out", "mlp.b_out")],
    }
    if cfg.positional_embedding_type == "shortformer":
        del in_block["ln1"]
    if cfg.gated_mlp and cfg.normalization_type == "LN":
        del in_block["ln2"]
    readers = {
        f"blocks.{layer}.{norm}": [(f"blocks.{layer}.{w}", f"blocks.{layer}.{b}") for w, b in pairs]
        for layer in range(cfg.n_layers)
        for norm, pairs in in_block.items()
    }
    readers["ln_final"] = [("unembed.W_U", "unembed.b_U")]
    shapes = parameter_shapes(cfg)
    return {norm: pairs for norm, pairs in readers.items() if f"{norm}.w" in shapes}


def center_writing_weights(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """Subtract the mean over d_model from the weights that write to the residual stream.

    Raises:
        UserError: if a norm does not centre its input, so that this changes the model.
    """
    require_harmless("center_writing_weights", cfg)
    writers = ["embed.W_E", ".attn.W_O", ".attn.b_O", ".mlp.W_out", ".mlp.b_out"]
    if cfg.has_positions_in_stream:
        writers.append("pos_embed.W_pos")
    return {
        name: weight - weight.mean(-1, keepdims=True) if name.endswith(tuple(writers)) else weight
        for name, weight in state_dict.items()
    }


def center_unembed(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """Subtract the mean over the logits, which softmax ignores, from ``W_U`` and ``b_U``.

    Raises:
        UserError: if the logits have a soft cap.
    """
    require_harmless("center_unembed", cfg)
    centred = {
        name: state_dict[name] - state_dict[name].mean(-1, keepdims=True)
        for name in ("unembed.W_U", "unembed.b_U")
    }
    return {**state_dict, **centred}


def fold_value_biases(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """Fold ``b_V`` into ``b_O``: as attention patterns sum to 1, ``b_V`` only adds a constant."""
    weights = dict(state_dict)
    name = "b_V" if cfg.n_key_value_heads is None else "_b_V"
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn"
        b_V_HE, W_O_HEM = weights[f"{attn}.{name}"], weights[f"{attn}.W_O"]
        group_size = cfg.n_heads // len(b_V_HE)
        for_every_head = b_V_HE[:, None].repeat(group_size, 1).reshape(cfg.n_heads, cfg.d_head)
        written_M = (for_every_head[..., None] * W_O_HEM).sum((0, 1))
        weights[f"{attn}.b_O"] = weights[f"{attn}.b_O"] + written_M
        weights[f"{attn}.{name}"] = b_V_HE * 0
    return weights


def refactor_factored_attn_matrices(
    state_dict: Weights, cfg: HookedTransformerConfig
) -> dict[str, Any]:
    """Choose other factors of each head's QK and OV matrices: products of their singular vectors.

    ``W_Q`` and ``W_K`` get orthogonal columns, and each column of one has the norm of the other's;
    their biases are factored with them, as weights of an input that is 1. ``W_V`` gets orthogonal
    columns, and ``W_O`` orthonormal rows, so that a head's ``z`` is as long as its result. ``b_V`` is
    folded into ``b_O``. The sign of each pair of vectors is arbitrary.

    Raises:
        UserError: for rotary positions, grouped queries, or a d_head above d_model.
    """
    require_harmless("refactor_factored_attn_matrices", cfg)
    weights = fold_value_biases(state_dict, cfg)
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn"
        W_Q_HME, W_K_HME, b_Q_HE, b_K_HE, W_V_HME, W_O_HEM = (
            weights[f"{attn}.{name}"] for name in ("W_Q", "W_K", "b_Q", "b_K", "W_V", "W_O")
        )
        concat = W_Q_HME.__array_namespace__().concat
        queries = concat([W_Q_HME, b_Q_HE[:, None]], axis=1)
        keys = concat([W_K_HME, b_K_HE[:, None]], axis=1)
        left, S_HE, right = singular_vectors(queries, keys.mT)
        queries, keys = left * S_HE[:, None] ** 0.5, right.mT * S_HE[:, None] ** 0.5
        left, S_HE, right = singular_vectors(W_V_HME, W_O_HEM)
        weights |= {
            f"{attn}.W_Q": queries[:, :-1],
            f"{attn}.b_Q": queries[:, -1],
            f"{attn}.W_K": keys[:, :-1],
            f"{attn}.b_K": keys[:, -1],
            f"{attn}.W_V": left * S_HE[:, None],
            f"{attn}.W_O": right,
        }
    return weights


def singular_vectors(A: Any, B: Any) -> tuple[Any, Any, Any]:
    """The singular value decomposition of products ``A @ B`` to the rank of their factors.

    Args:
        A: NumPy or JAX arrays [..., rows, rank].
        B: arrays of the same kind [..., rank, columns].

    Returns:
        The left vectors [..., rows, rank], the values [..., rank], and the right vectors [...,
        rank, columns].
    """
    rank = A.shape[-1]
    U, S, Vh = A.__array_namespace__().linalg.svd(A @ B, full_matrices=False)
    return U[..., :rank], S[..., :rank], Vh[..., :rank, :]


STEPS: dict[str, Step] = {
    "fold_layer_norm": fold_layer_norm,
    "center_writing_weights": center_writing_weights,
    "center_unembed": center_unembed,
    "fold_value_biases": fold_value_biases,
    "refactor_factored_attn_matrices": refactor_factored_attn_matrices,
}
