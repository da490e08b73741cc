"""Lines of code as users of TransformerLens write them, and what they give on either side.

The lines are in ``face_lines/``, a file for each class or module that they are about. A line is Python on one
line. Its value is that of its last expression, or else of the name `out`. It may use the names of a side, which
`ours` and `theirs` define: mostly the library's own, and a few helpers where torch and JAX must differ.
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import einops
import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent / "face_lines"

SHAPE = {"n_layers": 2, "d_model": 8, "d_head": 4, "d_mlp": 12, "n_ctx": 8, "d_vocab": 11}
SHAPE |= {"n_heads": 2, "act_fn": "gelu_new", "dtype": "float64", "seed": 0}
CONFIGS = {
    "LN": {},
    "RMS, grouped queries": {
        "normalization_type": "RMS",
        "n_heads": 4,
        "n_key_value_heads": 2,
        "gated_mlp": True,
        "act_fn": "silu",
    },
    "attention only, without norm": {"attn_only": True, "normalization_type": None},
    "LNPre": {"normalization_type": "LNPre", "act_fn": "relu"},
    "parallel, rotary": {
        "parallel_attn_mlp": True,
        "positional_embedding_type": "rotary",
        "act_fn": "gelu",
    },
    "bidirectional, other outputs": {"attention_dir": "bidirectional", "d_vocab_out": 13},
}
"""Model configs by name, as fields beside those of `SHAPE`."""


def lines_by_file() -> dict[str, list[str]]:
    """The lines of every file, by its name without the suffix."""
    return {
        file.stem: [line for line in file.read_text().splitlines() if line and line[0] != "#"]
        for file in sorted(FOLDER.glob("*.txt"))
    }


@dataclass(frozen=True)
class Raised:
    """The value of a line that raises."""

    error: str


@dataclass(frozen=True)
class Side:
    """One library, with a model and all names that a line may use.

    Attributes:
        make: a function without arguments for each name. A line gets its own objects of each.
        context: the context in which the lines are evaluated.
        plain: makes an array of this library a numpy array; other values stay.
    """

    make: Mapping[str, Callable]
    context: Callable
    plain: Callable

    def value(self, line: str):
        """The value of a line as plain Python data and numpy arrays, or a `Raised`."""
        try:
            with self.context(), silence(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return as_data(self.evaluate(line), self.plain)
        except Exception as error:
            return Raised(f"{type(error).__name__}: {error}"[:200])

    def evaluate(self, line: str):
        program = ast.parse(line)
        names = self.names(program)
        *_, last = program.body
        if isinstance(last, ast.Expr):
            program.body.pop()
        exec(compile(program, line, "exec"), names)
        if not isinstance(last, ast.Expr):
            return names["out"]
        return eval(compile(ast.Expression(last.value), line, "eval"), names)

    def names(self, program: ast.AST) -> dict:
        """The objects of the names that a program uses, all of one model."""
        used = {node.id for node in ast.walk(program) if isinstance(node, ast.Name)}
        made: dict = {}

        def get(name):
            if name not in made:
                made[name] = self.make[name](get)
            return made[name]

        for name in sorted(used & self.make.keys()):
            get(name)
        return made


@contextmanager
def silence():
    """A context that prints nothing."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def as_data(value, plain):
    """Nested tuples, dicts by text, numpy arrays, numbers, text and None, to be compared."""
    value = plain(value)
    if isinstance(value, pd.DataFrame):
        return {str(name): np.asarray(column) for name, column in value.items()}
    if hasattr(value, "items"):
        return {str(name): as_data(item, plain) for name, item in value.items()}
    if hasattr(value, "AB"):
        return as_data(value.AB, plain)
    if isinstance(value, tuple | list) or type(value).__name__ in ("dict_keys", "dict_values"):
        return tuple(as_data(item, plain) for item in value)
    if isinstance(value, np.generic | bool | int | float | complex):
        return np.asarray(value)
    return value


def difference(ours, theirs) -> str | None:
    """How two values of a line differ, in words; None if they are equal.

    Numbers may differ by 1e-10 of the largest, or 1e-4 where TransformerLens computes in float32.
    """
    if isinstance(theirs, Raised) or isinstance(ours, Raised):
        if isinstance(theirs, Raised) and isinstance(ours, Raised):
            return None
        return ours.error if isinstance(ours, Raised) else f"no error, but there: {theirs.error}"
    if isinstance(theirs, np.ndarray):
        return of_arrays(np.asarray(ours), theirs)
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            odd = sorted(ours.keys() ^ theirs.keys())
            return f"names differ: {', '.join(odd[:5])}"
        pairs = [(ours[name], theirs[name], name) for name in theirs]
    elif isinstance(theirs, tuple) and isinstance(ours, tuple):
        if len(ours) != len(theirs):
            return f"{len(ours)} items instead of {len(theirs)}"
        pairs = [(*pair, str(i)) for i, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        return (
            None
            if type(ours) is type(theirs) and ours == theirs
            else f"{ours!r:.80} is not {theirs!r:.80}"
        )
    found = ((difference(a, b), name) for a, b, name in pairs)
    return next((f"{name}: {how}" for how, name in found if how), None)


def of_arrays(ours: np.ndarray, theirs: np.ndarray) -> str | None:
    if ours.shape != theirs.shape:
        return f"shape {ours.shape} instead of {theirs.shape}"
    if ours.dtype == object or ours.dtype.kind in "SU" or theirs.dtype.kind in "SU":
        return None if np.array_equal(ours, theirs) else f"{ours!r:.80} is not {theirs!r:.80}"
    if not theirs.size:
        return None
    bound = 1e-4 if theirs.dtype == np.float32 else 1e-10
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return "other infinite numbers"
    a, b = (x[finite].astype(complex) for x in (ours, theirs))
    error = np.abs(a - b).max(initial=0)
    largest = max(1, np.abs(b).max(initial=0))
    return None if error <= bound * largest else f"differs by {error:.3g}"


def inputs() -> dict[str, np.ndarray]:
    """Arrays that both sides get."""
    rng = np.random.default_rng(0)
    mask = np.ones((3, 6), int)
    mask[0, 4:] = mask[2, 5:] = 0
    return {
        "tokens": rng.integers(0, 11, (3, 6)),
        "other_tokens": rng.integers(0, 11, (3, 6)),
        "mask": mask,
        "left_mask": np.array([[1] * 6, [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]),
        "left": rng.normal(size=(6, 4)),
        "right": rng.normal(size=(4, 6)),
        "lefts": rng.normal(size=(2, 3, 6, 4)),
        "rights": rng.normal(size=(2, 3, 4, 6)),
    }


def common_names() -> dict[str, Callable]:
    """What a line may use on both sides in the same way."""
    return {
        "np": lambda get: np,
        "einops": lambda get: einops,
        "copy": lambda get: copy,
        "partial": lambda get: partial,
        "cfg": lambda get: get("model").cfg,
        "logits": lambda get: get("model")(get("tokens")),
        "cache": lambda get: get("model").run_with_cache(get("tokens"))[1],
        "other_cache": lambda get: get("model").run_with_cache(get("other_tokens"))[1],
        "metric": lambda get: mean_difference,
        "matrix": lambda get: get("FactoredMatrix")(get("left"), get("right")),
        "stack": lambda get: get("FactoredMatrix")(get("lefts"), get("rights")),
        "spectrum": lambda get: (
            lambda values: np.sort_complex(get("utils").to_numpy(values).round(9))
        ),
    }


def mean_difference(logits):
    """A metric of patching: how much output 1 is above output 3 at the last position."""
    return (logits[:, -1, 1] - logits[:, -1, 3]).mean()


def ours(model, arrays: Mapping | None = None) -> Side:
    """Our side, with a model of jax_revinc.

    Args:
        model: the model. A line gets its own copy.
        arrays: `inputs`, made if left out. They and the model may be traced.
    """
    import jax
    import jax.numpy as jnp

    import jax_revinc
    from jax_revinc import HookedTransformer, numerics

    def module(name):
        return lambda get: __import__(f"jax_revinc.{name}", fromlist=["_"])

    def in_float32(model):
        weights = {name: np.float32(weight) for name, weight in model.state_dict().items()}
        return HookedTransformer(model.cfg.replace(dtype="float32"), params=weights)

    def set_at(x, where, value):
        return x.at[where].set(value)

    def plain(value):
        concrete = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
        return np.asarray(value) if concrete else value

    public = (
        "HookedTransformer", "HookedTransformerConfig", "ActivationCache", "FactoredMatrix", "SVDInterpreter",
        "TransformerLensKeyValueCache",
    )  # fmt: skip
    arrays = arrays or inputs()
    make = common_names()
    make |= {name: lambda get, name=name: getattr(jax_revinc, name) for name in public}
    make |= {name: lambda get, array=array: jnp.asarray(array) for name, array in arrays.items()}
    make |= {
        "model": lambda get: HookedTransformer(model.cfg, params=model.params),
        "utils": module("utils"),
        "patching": module("analysis.patching"),
        "head_detector": module("head_detector"),
        "detect_head": lambda get: get("head_detector").detect_head,
        "float32": lambda get: in_float32,
        "array": lambda get: jnp.array,
        "where": lambda get: jnp.where,
        "softmax": lambda get: jax.nn.softmax,
        "log_softmax": lambda get: jax.nn.log_softmax,
        "set_at": lambda get: set_at,
    }
    return Side(make, partial(numerics, model.cfg), plain)


def theirs(model) -> Side:
    """TransformerLens' side, with a model of 3.9."""
    import torch
    import transformer_lens
    from transformer_lens import head_detector, patching, utils

    def in_float32(model):
        cfg = copy.copy(model.cfg)
        cfg.dtype = torch.float32
        small = transformer_lens.HookedTransformer(cfg)
        small.load_state_dict(model.state_dict())
        return small

    def set_at(x, where, value):
        x = x.clone()
        x[where] = value
        return x

    def detect_head(model, tokens, *args, **kwargs):
        model.to_tokens = lambda tokens: tokens  # which asks for a tokenizer otherwise
        return head_detector.detect_head(model, tokens, *args, **kwargs)

    def plain(value):
        return value.detach().numpy() if isinstance(value, torch.Tensor) else value

    @contextmanager
    def in_float64():
        """Some methods add up in torch's default type. A line may switch gradients off."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.enable_grad():
                yield
        finally:
            torch.set_default_dtype(before)

    public = (
        "HookedTransformer", "HookedTransformerConfig", "ActivationCache", "FactoredMatrix", "SVDInterpreter",
    )  # fmt: skip
    make = common_names()
    make |= {name: lambda get, name=name: getattr(transformer_lens, name) for name in public}
    make |= {name: lambda get, array=array: torch.tensor(array) for name, array in inputs().items()}
    make |= {
        "model": lambda get: copy.deepcopy(model).requires_grad_(True),
        "TransformerLensKeyValueCache": lambda get: key_value_cache(),
        "utils": lambda get: utils,
        "patching": lambda get: patching,
        "head_detector": lambda get: head_detector,
        "detect_head": lambda get: detect_head,
        "float32": lambda get: in_float32,
        "array": lambda get: torch.tensor,
        "where": lambda get: torch.where,
        "softmax": lambda get: partial(torch.softmax, dim=-1),
        "log_softmax": lambda get: partial(torch.log_softmax, dim=-1),
        "set_at": lambda get: set_at,
    }
    return Side(make, in_float64, plain)


def key_value_cache():
    """The class as 2.x names it, which 3.9 renamed."""
    import transformer_lens
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    return getattr(transformer_lens, "TransformerLensKeyValueCache", TransformerLensKeyValueCache)
