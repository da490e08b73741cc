"""Every public member of TransformerLens 3.9 has a verdict, and `docs/face.md` is the table of them.

After a change to ``tests/shared/face_members/``:

    WRITE_DOCS=1 python -m pytest tests/parity/test_face_members.py
"""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path

import pytest
from face_exceptions import paragraphs
from face_members import (
    CLASSES,
    MODULES,
    OF_TORCH,
    VERDICTS,
    named,
    our_object,
    rows,
    their_members,
)
from face_sides import lines_by_file

from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="the table is of TransformerLens 3.9")

OWNERS = (*CLASSES, *MODULES)
PAGE = Path(__file__).parents[2] / "docs" / "face.md"


@cache
def names_in_lines(owner: str) -> set[str]:
    """Attributes, names and keywords of the lines about a class or module."""
    nodes = [node for line in lines_by_file()[owner] for node in ast.walk(ast.parse(line))]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg}


@pytest.mark.parametrize("owner", OWNERS)
def test_every_member_has_one_verdict(owner):
    members = named(owner)
    assert sorted(their_members(owner) - set(members)) == [], "without a verdict"
    assert sorted(set(members) - their_members(owner)) == [], "not in TransformerLens 3.9"
    assert sorted(members) == sorted(set(members)), "more than one verdict"


def test_the_members_that_torch_defines_are_torchs():
    import torch

    assert [name for name in OF_TORCH if not hasattr(torch.nn.Module(), name)] == []


@pytest.mark.parametrize("owner", OWNERS)
def test_what_is_the_same_is_here(owner):
    ours = our_object(owner)
    assert [name for name in named(owner, "same") if not hasattr(ours, name)] == []


@pytest.mark.parametrize("owner", OWNERS)
def test_what_is_the_same_has_a_line_that_is_evaluated_on_both_sides(owner):
    assert sorted(set(named(owner, "same")) - names_in_lines(owner)) == []


def test_the_page_is_the_table_of_the_verdicts():
    text = page()
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def page() -> str:
    n_lines = len({line for lines in lines_by_file().values() for line in lines})
    tables = "\n".join(f"## {owner}\n\n{table(owner)}" for owner in OWNERS)
    return (
        HEAD.format(
            n_lines=n_lines,
            summary=summary(),
            exceptions=exceptions_table(),
            jit=reasons_against_jit(),
        )
        + tables
    )


def summary() -> str:
    counts = [[len(named(owner, verdict)) for verdict in VERDICTS] for owner in OWNERS]
    lines = [
        f"| [{owner}](#{owner.lower()}) | {' | '.join(map(str, numbers))} |"
        for owner, numbers in zip(OWNERS, counts, strict=True)
    ]
    totals = " | ".join(str(sum(column)) for column in zip(*counts, strict=True))
    head = (
        f"| class or module | {' | '.join(VERDICTS.values())} |\n|---|{'---:|' * len(VERDICTS)}\n"
    )
    return head + "\n".join(lines) + f"\n| together | {totals} |"


def exceptions_table() -> str:
    words = {"raises": "raises there", "differs": "differs", "refused": "refused here"}
    heads = [
        (*(part.strip() for part in head.split("|")), len(lines))
        for head, lines in paragraphs("face_exceptions.txt")
    ]
    lines = [f"| {words[kind]} | {configs} | {n} | {why} |" for kind, configs, why, n in heads]
    return "| | models | lines | why |\n|---|---|---:|---|\n" + "\n".join(lines)


def reasons_against_jit() -> str:
    return "\n".join(f"- {head}." for head, _ in paragraphs("face_not_jitted.txt"))


def table(owner: str) -> str:
    lines = [
        f"| {' '.join(f'`{name}`' for name in row.names)} | {verdict_cell(row)} |"
        for row in rows(owner)
    ]
    return f"| {owner} | |\n|---|---|\n" + "\n".join(lines) + "\n"


def verdict_cell(row) -> str:
    separator = "; " if row.verdict == "same" else ": "
    words = [CELLS[row.verdict], row.note.replace("|", "\\|")]
    return separator.join(filter(None, words))


CELLS = {"same": "the same", "here": "here", "none": "not for toy models"}

HEAD = """\
# The face of TransformerLens

Code that was written for a toy model in TransformerLens 3.9 runs here after a few changes, with equal numbers.
This page says what to change, what is compiled when, and, for every public member of TransformerLens' classes and
modules, whether it is the same. [Examples](transformer_lens.md#code-that-was-written-for-transformerlens)

Tests make this page and keep it true. One walks TransformerLens' classes, and fails if a member is missing here. The
others evaluate {n_lines} lines of TransformerLens code on both sides, with the same weights in float64, for six kinds of
model, and a spread of them inside `jax.jit` too: what both compute differs by 1e-10 at most, or by 1e-4 where
TransformerLens computes in float32. Every member that is *the same* is in at least one line.
[Exceptions](#exceptions) have a reason each.

## What to change in your code

| in TransformerLens | here |
|---|---|
| `from transformer_lens import HookedTransformer` | `from jax_revinc import HookedTransformer`; so for every class |
| `from transformer_lens import patching, utils` | `from jax_revinc import utils`, `from jax_revinc.analysis import patching` |
| `torch.tensor(x)`, `x.detach().cpu().numpy()` | `jnp.array(x)`, `np.asarray(x)`; `einops` works on arrays of JAX |
| `z[:, :, 3] = 0` in a hook | `return z.at[:, :, 3].set(0)` |
| `scores[mask] = -1e5` in a hook | `return jnp.where(mask, -1e5, scores)` |
| `with torch.no_grad():` | nothing |
| `loss.backward()`, `parameter.grad` | `jax.grad(lambda model: model(tokens, return_type="loss"))(model)` |
| `torch.manual_seed(0)` before a draw | `key=jax.random.key(0)` as an argument of what draws |
| text and `prepend_bos` | token ids |
| `model.cfg.use_attn_result = True` | `model.set_use_attn_result(True)`; a config is frozen |
| `HookedTransformerConfig(...)`, then `cfg.d_mlp = 64` | `cfg.replace(d_mlp=64)`, another config |
| `model.embed.W_E.data = x` | `model = HookedTransformer(model.cfg, params=model.params \\| {{"embed.W_E": x}})` |

## What is compiled when

| call | how it runs | compiled anew |
|---|---|---|
| `model(tokens)`, `run_with_cache` | one compiled program | for a config, shapes, arguments and cached names that are new |
| with hooks of activations | compiled pieces between the hooks, which see concrete arrays, in order | also for other hooked names |
| with hooks of gradients | one operation after the other | an operation for a new shape |
| inside `jit`, `vmap`, `grad` | as part of the caller's program, hooks included | with it |

Small models are compiled without LLVM's optimizations, which takes a fraction of the time.
`python -m benchmarks --only interactive` times all of these [beside TransformerLens](benchmarks/interactive/README.md).

## How much is the same

{summary}

Of `torch.nn.Module` this page has what people use. The rest is not here: a model is a module of Flax NNX.

## Exceptions

Lines that are evaluated on both sides, and do not give the same:

{exceptions}

Lines that do not run inside `jax.jit`:

{jit}

"""
