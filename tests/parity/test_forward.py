"""The judge passes what is the same and names what is not, in both precisions."""

import numpy as np
import pytest

from jax_revinc import TrainConfig, train
from jax_revinc.training import draw_weights
from parity.__main__ import make_parser
from parity.forward import compare_forward, jax_forward
from revinc.cli import run_command

CFG = TrainConfig(steps=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(CFG, tmp_path_factory.mktemp("runs") / "run")


def compare(weights, dtype, ours=jax_forward):
    task = CFG.task
    return compare_forward(CFG.model, weights, task.sequences(), task.loss_mask(), dtype, ours)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_trained_and_fresh_weights_pass(run, dtype):
    for weights in (run.state_dict(), run.state_dict(step=0)):
        rows = compare(weights, dtype)
        assert [row.name for row in rows][-2:] == ["logits", "losses"]
        assert len(rows) == 42
        assert all(row.passed for row in rows), [row for row in rows if not row.passed]


def test_float64_agrees_far_below_its_bound(run):
    assert max(row.error for row in compare(run.state_dict(), "float64")) < 1e-13


def spoiled(name, spoil):
    """Our forward pass with one activation spoiled."""

    def forward(*args):
        activations = jax_forward(*args)
        return activations | {name: spoil(activations[name].copy())}

    return forward


def shift_one(activation):
    activation.flat[3] += 1e-4 * np.abs(activation[np.isfinite(activation)]).max()
    return activation


def lose_an_infinity(activation):
    activation[np.isinf(activation)] = 0.0
    return activation


def make_nan(activation):
    activation.flat[0] = np.nan
    return activation


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("blocks.1.attn.hook_z", shift_one),
        ("logits", shift_one),
        ("losses", shift_one),
        ("hook_embed", shift_one),
        ("blocks.0.attn.hook_attn_scores", lose_an_infinity),
        ("blocks.0.mlp.hook_pre", make_nan),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_spoiled_activation_fails_and_is_named(run, name, spoil, dtype):
    rows = compare(run.state_dict(), dtype, spoiled(name, spoil))
    assert [row.name for row in rows if not row.passed] == [name]


def test_a_wrong_weight_fails_everything_after_it(run):
    def forward(cfg, weights, *rest):
        wrong = weights["blocks.1.mlp.W_in"].copy()
        wrong[0, 0] += 1e-3
        return jax_forward(cfg, weights | {"blocks.1.mlp.W_in": wrong}, *rest)

    rows = compare(run.state_dict(), "float64", forward)
    first = next(row.name for row in rows if not row.passed)
    assert first == "blocks.1.mlp.hook_pre"


@pytest.mark.slow
def test_float32_bound_holds_for_many_fresh_models():
    failed = []
    for seed in range(100):
        weights = draw_weights(TrainConfig(init_seed=seed))
        failed += [(seed, row) for row in compare(weights, "float32") if not row.passed]
    assert not failed


def test_the_command_prints_a_line_per_activation_and_exits_with_the_verdict(run, capsys):
    assert run_command(make_parser(), ["check", str(run.path)]) == 0
    printed = capsys.readouterr().out
    assert "PASS  float64: 42 tensors" in printed
    assert "PASS  float32: 42 tensors" in printed
    rows = [line.split()[0] for line in printed.splitlines() if "hook_" in line]
    assert len(rows) == 80
    assert rows[0] == "hook_embed"
    assert rows[39] == "unembed.hook_out"


def test_the_command_fails_when_a_tensor_does(run, capsys, monkeypatch):
    broken = spoiled("blocks.0.attn.hook_z", shift_one)
    monkeypatch.setattr("parity.forward.jax_forward", broken)
    assert run_command(make_parser(), ["check", str(run.path), "--dtype", "float64"]) == 1
    assert "FAIL  float64" in capsys.readouterr().out


def test_a_folder_without_a_run_gets_one_sentence(tmp_path, capsys):
    assert run_command(make_parser(), ["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
