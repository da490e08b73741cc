"""Helpers for tests of the fused engine: the project's loss, and an interpreter of programs."""

from __future__ import annotations

import operator

import jax
import numpy as np
import pytest
from scipy import special

from jax_revinc.engines.fused.errors import CannotBuild
from jax_revinc.engines.fused.graph import Node
from jax_revinc.engines.fused.toolchain import find_compiler
from jax_revinc.objective import mean_loss
from revinc.objective import Objective
from revinc.weights import parameter_shapes

OBJECTIVE = Objective(train_positions=(5, 6, 7, 8), label_smoothing=0.0)
LENGTH, N_TOKENS = 9, 5


def require_compiler():
    """Skip the test where nothing can be compiled."""
    try:
        find_compiler()
    except CannotBuild as why:
        pytest.skip(str(why))


def loss_of(cfg, objective=OBJECTIVE):
    return lambda params, tokens: mean_loss(cfg, params, tokens, objective)


def one_layer_of(cfg):
    """A model of the family with one layer, that speaks the tokens here."""
    kinds = cfg.attn_types and cfg.attn_types[:1]
    return cfg.replace(d_vocab_out=N_TOKENS, n_layers=1, attn_types=kinds)


def draw(cfg, n_examples, seed=0, scale=1.0):
    """Random parameters and tokens."""
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(cfg)
    params = {name: rng.normal(0, scale, shapes[name]).astype(cfg.dtype) for name in shapes}
    return params, rng.integers(0, N_TOKENS, (n_examples, LENGTH), np.int32)


def flat(tree):
    """All numbers of a pytree, in float64."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(float)


OPERATIONS = {
    **{op: getattr(operator, op) for op in ("add", "sub", "mul", "neg")},
    **{op: getattr(operator, op) for op in ("lt", "le", "gt", "ge", "eq", "ne")},
    **{op: getattr(np, op) for op in ("sqrt", "exp", "log", "tanh")},
    "rcp": np.reciprocal,
    "erfc": special.erfc,
    "max": np.maximum,
    "and": np.logical_and,
    "not": np.logical_not,
    "select": lambda which, if_false, if_true: np.where(which, if_true, if_false),
    "add_where": lambda total, which, term: total + np.where(which, term, 0),
    "to_float": lambda x: np.asarray(x, float),
}


def evaluate(nodes, parameters, tokens):
    """The value of every node by its id, for tokens whose last axis is position."""
    values = {}
    for node in nodes:
        if node.op == "parameter":
            values[node.id] = np.float64(parameters[node.args[0]])
        elif node.op == "token":
            values[node.id] = np.asarray(tokens)[..., node.args[0]]
        else:
            args = [values[a.id] if isinstance(a, Node) else a for a in node.args]
            values[node.id] = OPERATIONS[node.op](*args)
    return values


def outputs(program, parameters, tokens):
    """A program's outputs, means over the examples."""
    values = evaluate(program.nodes(), parameters, tokens)
    each = [values[o.id] if isinstance(o, Node) else o for o in program.outputs]
    return np.array([np.mean(value) for value in each])
