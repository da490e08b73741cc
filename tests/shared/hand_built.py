"""Models of the tutorial's task whose weights are set by hand, so that where they increment is known.

The residual stream holds, in dimensions of its own: a token (5), a position (9), and a private code (4). A
head finds the reversed position by position alone. Unless said otherwise, W_U reads the token dimensions, so
that ``W_E @ W_U`` copies.
"""

from __future__ import annotations

import numpy as np

from jax_revinc import HookedTransformer, HookedTransformerConfig, ReverseIncrement
from revinc.weights import parameter_shapes

TASK = ReverseIncrement()
TOKENS, POSITIONS, CODE = slice(0, 4), slice(5, 14), slice(14, 18)
BLOCKS = {
    "ov": {"ov": "shift"},
    "mlp": {"ov": "copy", "mlp": "replace"},
    "ov, and an mlp that amplifies": {"ov": "shift", "mlp": "amplify"},
    "mlp, from a code that attention writes": {"ov": "encode", "mlp": "decode"},
    "unembedding": {"ov": "copy"},
}
"""What the one block of each model does. See `hand_built`."""

ONE_HOT = np.eye(4)
SHIFT = np.roll(ONE_HOT, 1, axis=1)  # row t has its one in column t + 1


def hand_built(where: str, normalization_type: str | None = None) -> HookedTransformer:
    """A model that solves the task, with the increment in one place.

    Args:
        where: a key of `BLOCKS`, or "mlp, before attention moves it": of two blocks, the first increments
            by its MLP at every position, and the second moves that.
        normalization_type: with LN, gains undo each norm's average scale, so that it does almost nothing.
    """
    n_layers = 1 if where in BLOCKS else 2
    cfg = HookedTransformerConfig(
        n_layers=n_layers,
        d_model=18,
        d_head=9,
        n_heads=1,
        d_mlp=4,
        d_vocab=5,
        n_ctx=9,
        normalization_type=normalization_type,
    )
    params = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(cfg).items()}
    params["embed.W_E"][:, :5] = np.eye(5)
    params["pos_embed.W_pos"][:, POSITIONS] = np.eye(9)
    params["unembed.W_U"][TOKENS, :4] = SHIFT if where == "unembedding" else ONE_HOT
    if where in BLOCKS:
        attend(params, layer=0, ov=BLOCKS[where]["ov"])
        if "mlp" in BLOCKS[where]:
            transform(params, layer=0, kind=BLOCKS[where]["mlp"], threshold=5)
    else:
        transform(params, layer=0, kind="replace", threshold=0.5)
        attend(params, layer=1, ov="copy")
    if normalization_type == "LN":
        undo_norms(cfg, params)
    return HookedTransformer(cfg, params=params)


def attend(params, layer, ov):
    """Row r looks at column 8 - r, and adds ten times what the OV circuit makes of the token there."""
    attn = f"blocks.{layer}.attn"
    params[f"{attn}.W_Q"][0, POSITIONS] = 10 * np.eye(9)
    params[f"{attn}.W_K"][0, POSITIONS] = 10 * np.fliplr(np.eye(9))
    params[f"{attn}.W_V"][0, TOKENS, :4] = ONE_HOT
    target = CODE if ov == "encode" else TOKENS
    params[f"{attn}.W_O"][0, :4, target] = 10 * (SHIFT if ov == "shift" else ONE_HOT)


def transform(params, layer, kind, threshold):
    """A neuron for each token t, which fires where t (or its code) exceeds the threshold."""
    mlp = f"blocks.{layer}.mlp"
    read = CODE if kind == "decode" else TOKENS
    written = {"replace": SHIFT - ONE_HOT, "amplify": ONE_HOT, "decode": SHIFT}[kind]
    params[f"{mlp}.W_in"][read] = ONE_HOT
    params[f"{mlp}.b_in"][:] = -threshold
    params[f"{mlp}.W_out"][:, TOKENS] = 20 / threshold * written


def undo_norms(cfg, params):
    """Set each norm's gain to its average scale on the task, from the first norm to the last."""
    norms = [name.removesuffix(".w") for name in params if name.endswith(("1.w", "2.w", "final.w"))]
    for norm in norms:
        model = HookedTransformer(cfg, params=params)
        _, cache = model.run_with_cache(TASK.sequences()[:, :-1])
        params[f"{norm}.w"][:] = np.asarray(cache[f"{norm}.hook_scale"]).mean()
