"""Verification: a compiled program may differ from XLA by rounding, and by no more."""

from __future__ import annotations

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fused_examples import LENGTH, N_TOKENS, draw, loss_of, one_layer_of, require_compiler
from model_family import COMBINED, case

from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines.fused import gradient, verify
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.gradient import build_value_and_grad
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.verify import require_agreement

X = np.random.default_rng(0).uniform(0.5, 1.5, 100).astype(np.float32)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def n_asked():
    """A function that compares two functions that agree. It returns how often they were run."""
    computed = []

    def ask(*evidence):
        def found(x):
            computed.append(x)  # while it is traced, once
            return 2 * x

        require_agreement("result", found, lambda x: x + x, (X,), evidence)
        return len(computed)

    return ask


def test_what_agreed_is_not_asked_again_until_what_decides_changes(n_asked, monkeypatch):
    assert n_asked("a program") == n_asked("a program") == 1
    assert n_asked("another program") == 2
    for name, other in (
        ("EPSILONS", verify.EPSILONS / 2),
        ("TIMES_XLAS_ROUNDING", 1.0),
        ("cpu_features", lambda: {"another"}),
        ("metadata", types.SimpleNamespace(version=lambda package: f"another {package}")),
    ):
        before = n_asked("a program")
        monkeypatch.setattr(verify, name, other)
        assert n_asked("a program") == n_asked("a program") == before + 1, name


def test_a_mark_that_others_may_have_left_counts_for_nothing(n_asked, tmp_path):
    assert n_asked() == 1
    (mark,) = (tmp_path / "cache" / "fused").glob("*.agrees")
    mark.chmod(0o666)
    assert n_asked() == 2


@pytest.mark.parametrize("times", [1 + 1e-4, 1 + 1e-5, 1 - 1e-5, np.nan, np.inf, 0])
def test_what_rounding_does_not_explain_is_refused(times):
    with pytest.raises(NotFusible, match=r"result differs from XLA's by .* rounding explains"):
        require_agreement("result", lambda x: times * x * x, lambda x: x**2, (X,), ())


def test_what_rounding_explains_agrees():
    """A difference of large numbers has lost digits, in whatever order it was computed."""

    def expected(x):
        return (x * 1e4 + 1) - x * 1e4

    require_agreement("result", jnp.ones_like, expected, (X,), ())
    with pytest.raises(NotFusible):
        require_agreement("result", lambda x: 1.1 * jnp.ones_like(x), expected, (X,), ("more off",))


def test_nothing_but_zeros_agrees():
    require_agreement("result", jnp.zeros_like, lambda x: x - x, (X,), ())


def square_loss(params, tokens):
    return ((params["a"][tokens] * params["b"]) ** 2).sum((1, 2)).mean()


@pytest.mark.parametrize(
    ("dtype", "fault"), [("float32", 1e-4), ("float32", 1e-5), ("float64", 1e-12)]
)
@pytest.mark.parametrize("of", [range(1, 8), [7]], ids=["all", "one parameter's"])
def test_a_gradient_that_is_off_by_little_is_refused(dtype, fault, of, monkeypatch):
    require_compiler()
    right = gradient.gradient_source

    def faulty(*args):
        def scaled(line):
            return f"g[{line[1]}] += F({1 + fault!r}) *" if int(line[1]) in of else line[0]

        return re.sub(r"g\[(\d+)\] \+=", scaled, right(*args))

    params = {"a": np.ones((3, 2), dtype), "b": np.ones((), dtype)}
    with jax.enable_x64(dtype == "float64"):
        build_value_and_grad(square_loss, Spec(params, 2, 3))
        monkeypatch.setattr(gradient, "gradient_source", faulty)
        with pytest.raises(NotFusible, match="gradient differs from XLA's by"):
            build_value_and_grad(square_loss, Spec(params, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINED)
def test_every_model_of_the_family_is_within_rounding(name):
    require_compiler()
    cfg = one_layer_of(case(name, n_ctx=LENGTH, dtype="float32"))
    with numerics(cfg):
        build_value_and_grad(loss_of(cfg), Spec(draw(cfg, 1)[0], LENGTH, N_TOKENS))
