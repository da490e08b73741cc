"""The names of hooks: TransformerLens' full and short names, and filters that pick among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from revinc.errors import UserError, near_names, shown

NamesFilter = str | Sequence[str] | Callable[[str], bool] | None

ATTN_NAMES = ("q", "k", "v", "z", "rot_q", "rot_k", "result", "pattern", "attn_scores")
MLP_NAMES = ("pre", "post", "mid", "pre_linear")
NORM_NAMES = ("scale", "normalized")
NAME_ALIASES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "query": "q",
    "key": "k",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_mid": "mid",
    "mlp_post": "post",
}
LAYER_TYPE_ALIASES = {
    "a": "attn",
    "attention": "attn",
    "m": "mlp",
    "b": "",
    "block": "",
    "blocks": "",
}


def get_act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full name of a hook from its short name, as `transformer_lens.utils.get_act_name`.

    ``("pattern", 0)`` is ``blocks.0.attn.hook_pattern``; ``"k6"`` is ``("k", 6)``; ``"scale4ln1"``
    is ``("scale", 4, "ln1")``; ``"scale"`` alone is the final layer norm's. Full names are returned
    unchanged.

    Args:
        name: the activation's short name, or its full name.
        layer: the block's index.
        layer_type: "attn", "mlp", "ln1", "ln2", or one of `LAYER_TYPE_ALIASES`.
    """
    is_full = "." in name or name.startswith("hook_")
    if is_full and layer is None and layer_type is None:
        return name
    if match := re.match(r"([a-z]+)(\d+)([a-z]?.*)", name):
        name, layer, layer_type = match.groups()
    name = NAME_ALIASES.get(name, name)
    if name in ATTN_NAMES:
        part = "attn"
    elif name in MLP_NAMES:
        part = "mlp"
    elif name in NORM_NAMES and layer is None:
        return f"ln_final.hook_{name}"
    else:
        part = LAYER_TYPE_ALIASES.get(layer_type or "", layer_type or "")
    parts = ["" if layer is None else f"blocks.{layer}", part, f"hook_{name}"]
    return ".".join(filter(None, parts))


def select_names(names_filter: NamesFilter, known: Sequence[str]) -> list[str]:
    """The names among `known`, the model's hook names, that `names_filter` picks.

    Args:
        names_filter: a name, several names, a predicate on names, or None for all.
        known: the model's hook names.

    Raises:
        UserError: for an unknown name, or a predicate that picks no name.
    """
    if names_filter is None:
        return list(known)
    if callable(names_filter):
        picked = [name for name in known if names_filter(name)]
        if not picked:
            raise UserError(f"names_filter picks none of the model's {len(known)} hook names")
        return picked
    names = [names_filter] if isinstance(names_filter, str) else names_filter
    if not isinstance(names, list | tuple | set) or not all(isinstance(n, str) for n in names):
        raise UserError(
            "names_filter must be a hook name, a list of names or a function of a name, "
            f"not {names_filter!r}"
        )
    for name in names:
        if name not in known:
            full = get_act_name(name)  # shorthands such as "pattern0" are for caches only
            hint = f"; did you mean {full}?" if full in known else near_names(name, known)
            raise UserError(f"the model has no hook {shown(name)}{hint}")
    return list(names)
