"""The public members of TransformerLens 3.9, and what stands for each of them here.

The verdicts are in ``face_members/``, a file for each class or module. A line is ``names | verdict | note``:
members that go together, a key of `VERDICTS`, and, unless they are the same, how it is done here or why it
is not. The note of what is the same may say what to look out for.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "face_members"

VERDICTS = {"same": "the same", "here": "here like this", "none": "not for toy models"}
"""The words of the docs for each verdict."""

CLASSES = (
    "HookedTransformer", "ActivationCache", "HookPoint", "HookedTransformerConfig", "FactoredMatrix", "SVDInterpreter",
)  # fmt: skip
MODULES = ("patching", "utils", "head_detector")

OF_TORCH = (
    "training", "train", "eval", "to", "cpu", "cuda", "half", "float", "double", "bfloat16", "parameters", "named_parameters",
    "buffers", "state_dict", "load_state_dict", "zero_grad", "requires_grad_", "modules", "named_modules", "children", "apply",
    "register_forward_hook", "register_full_backward_hook", "register_buffer", "compile",
)  # fmt: skip
"""What people use of `torch.nn.Module` on a `HookedTransformer`."""


@dataclass(frozen=True)
class Row:
    """Members of one class or module that have one verdict."""

    names: tuple[str, ...]
    verdict: str
    note: str


def rows(owner: str) -> list[Row]:
    """The rows about a class or module, in the order of its file."""
    lines = (FOLDER / f"{owner}.txt").read_text().splitlines()
    return [row_of(line) for line in lines if line and line[0] != "#"]


def row_of(line: str) -> Row:
    names, verdict, *note = (part.strip() for part in line.split("|", 2))
    assert verdict in VERDICTS, line
    assert note or verdict == "same", f"say how, or why not: {line}"
    return Row(tuple(names.split()), verdict, *(note or [""]))


def named(owner: str, *verdicts: str) -> list[str]:
    """The members of a class or module with one of some verdicts; by default all."""
    return [
        name for row in rows(owner) if row.verdict in (verdicts or VERDICTS) for name in row.names
    ]


def public(names) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def their_members(owner: str) -> set[str]:
    """The public members of a class or module of the installed TransformerLens."""
    if owner in MODULES:
        return of_module(owner)
    names = of_class(their_class(owner)) | public(of_object(their_object(owner)))
    return names | set(OF_TORCH) if owner == "HookedTransformer" else names


def of_class(cls: type) -> set[str]:
    """What a class and those above it in TransformerLens define or annotate."""
    above = [base for base in cls.__mro__ if base.__module__.startswith("transformer_lens")]
    return public(name for base in above for name in (*vars(base), *annotations(base)))


def annotations(cls: type) -> dict:
    return vars(cls).get("__annotations__", {})


def of_object(thing: object) -> Iterator[str]:
    """The attributes of an object; for a torch module, the modules in it too."""
    yield from vars(thing)
    yield from (name for name, _ in getattr(thing, "named_children", list)())


def of_module(name: str) -> set[str]:
    """What the source of a module defines: functions, classes and values, not what it imports.

    The names of `utils` are those of the modules of `transformer_lens.utilities` that it collects.
    """
    module = their_module(name)
    if name != "utils":
        return defined_in(Path(inspect.getfile(module)))
    from transformer_lens import utilities

    files = Path(inspect.getfile(utilities)).parent.glob("*.py")
    return public(vars(module)) & set().union(*map(defined_in, files))


def defined_in(file: Path) -> set[str]:
    """The public names that a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return public(names)


def their_class(owner: str) -> type:
    import transformer_lens
    from transformer_lens.hook_points import HookPoint

    return HookPoint if owner == "HookPoint" else getattr(transformer_lens, owner)


def their_module(name: str):
    from transformer_lens import head_detector, patching, utils

    return {"patching": patching, "utils": utils, "head_detector": head_detector}[name]


FIELDS = {"n_layers": 1, "d_model": 4, "d_head": 2, "n_ctx": 3, "d_vocab": 5, "act_fn": "relu"}
FIELDS |= {"gated_mlp": True, "use_hook_tokens": True, "seed": 0}
"""A model that has every part."""


def their_object(owner: str):
    """One object of a class of TransformerLens."""
    import torch
    import transformer_lens

    model = transformer_lens.HookedTransformer(
        transformer_lens.HookedTransformerConfig(**FIELDS, device="cpu")
    )
    return objects(model, torch.tensor([[0, 1]]), transformer_lens)[owner]


def our_object(owner: str):
    """One object of a class of ours, or a module."""
    import jax.numpy as jnp

    import jax_revinc
    from jax_revinc import head_detector, utils
    from jax_revinc.analysis import patching

    if owner in MODULES:
        return {"patching": patching, "utils": utils, "head_detector": head_detector}[owner]
    model = jax_revinc.HookedTransformer(jax_revinc.HookedTransformerConfig(**FIELDS))
    return objects(model, jnp.array([[0, 1]]), jax_revinc)[owner]


def objects(model, tokens, library) -> dict:
    return {
        "HookedTransformer": model,
        "ActivationCache": model.run_with_cache(tokens)[1],
        "HookPoint": model.hook_dict["hook_embed"],
        "HookedTransformerConfig": model.cfg,
        "FactoredMatrix": model.OV,
        "SVDInterpreter": library.SVDInterpreter(model),
    }
