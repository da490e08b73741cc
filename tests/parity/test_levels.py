"""The judge passes what is the same and names what is not, at every level and in both precisions."""

from dataclasses import replace

import numpy as np
import pytest

from jax_revinc import HookedTransformer, Run, TrainConfig, train
from jax_revinc.training import draw_weights
from parity import model_levels, torch_side
from parity.__main__ import make_parser
from parity.bridge import to_torch
from parity.inputs import Inputs
from parity.jax_side import JaxSide
from parity.model_levels import check_level, check_names, most_sequences
from parity.model_pair import Pair
from revinc.command_errors import run_command
from revinc.tasks import eval_positions
from torch_reference import adapter
from torch_reference.installed_transformer_lens import WORLD

CFG = TrainConfig(steps=200)
TASK = CFG.task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(CFG, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def inputs():
    """Eighteen of the sequences: enough to differ on, quick to intervene on."""
    return Inputs(TASK.sequences()[::15], eval_positions(TASK))


@pytest.fixture(scope="module")
def pair(run, inputs):
    ours = run.model()
    return Pair(ours, to_torch(ours), inputs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "n_tensors"), [("L1", 43), ("L2", 78), ("L3", 40)])
def test_a_trained_model_passes(pair, name, n_tensors, dtype):
    level = check_level(name, pair, dtype)
    assert level.passed, level.remarks
    assert len(level.rows) == n_tensors


@pytest.mark.parametrize("name", ["L1", "L2"])
def test_a_fresh_model_passes(run, inputs, name):
    ours = run.model(step=0)
    for dtype in ("float32", "float64"):
        level = check_level(name, Pair(ours, to_torch(ours), inputs), dtype)
        assert level.passed, level.remarks


def test_names_and_shapes_are_the_same(pair):
    level = check_names(pair)
    assert level.passed
    assert len(level.rows) == 78


def test_names_that_one_side_lacks_are_listed(run, inputs):
    smaller = CFG.model.replace(attn_only=True)
    ours = HookedTransformer(
        smaller, params=draw_weights(TrainConfig(model=smaller, task=TASK, steps=1))
    )
    level = check_names(Pair(ours, to_torch(run.model()), inputs))
    assert not level.passed
    assert "blocks.0.mlp.W_in" in level.remarks[0]
    assert "blocks.1.hook_resid_mid" in level.remarks[0]
    assert level.remarks[0].startswith("only in TransformerLens: ")


def test_a_level_looks_at_a_sample_of_many_sequences(pair, monkeypatch):
    monkeypatch.setitem(model_levels.SEQUENCES, "L3", 5)
    level = check_level("L3", pair, "float64")
    assert level.passed, level.remarks
    assert {row.shape[:2] for row in level.rows} == {(4, 5)}
    assert level.remarks == ["on 5 of 18 sequences, drawn at random"]


def test_the_forward_pass_is_compared_on_all_sequences():
    assert [most_sequences(name, "float64") for name in ("L1", "L2", "L3")] == [np.inf, 1024, 64]
    assert [most_sequences(name, "float32") for name in ("L1", "L2", "L3")] == [1024, 1024, 64]


def test_a_sample_is_the_same_every_time_and_has_no_sequence_twice():
    inputs = Inputs(TASK.sequences(), eval_positions(TASK))
    drawn = inputs.sample(64).tokens
    assert len(np.unique(drawn, axis=0)) == 64
    assert (drawn == inputs.sample(64).tokens).all()
    for column, of_all in zip(drawn.T, inputs.tokens.T, strict=True):
        np.testing.assert_array_equal(np.unique(column), np.unique(of_all))
    assert (inputs.sample(1000).tokens == inputs.tokens).all()


def test_edits_of_several_hooks_in_one_pass_are_those_of_one_each(pair, monkeypatch):
    side = pair.torch_side("float64")
    together = side.interventions()
    monkeypatch.setattr(torch_side, "MOST_ROWS", 1)
    alone = side.interventions()
    assert together.keys() == alone.keys()
    for name, logits in alone.items():
        np.testing.assert_allclose(together[name], logits, rtol=0, atol=1e-13, err_msg=name)


def test_jitter_moves_every_parameter_and_is_undone(pair):
    buffers = {"unembed.b_U"} if WORLD == "4.x" else set()  # 4.x does not train it
    side = pair.torch_side("float32")
    before = {name: weight.copy() for name, weight in side.weights().items()}
    with side.jittered(1):
        for name, weight in side.weights().items():
            assert (weight != before[name]).all() == (name not in buffers), name
            np.testing.assert_allclose(weight, before[name], rtol=3e-7, atol=1e-44)
    for name, weight in side.weights().items():
        np.testing.assert_array_equal(weight, before[name])


def test_float64_agrees_far_below_its_bound(pair):
    level = check_level("L1", pair, "float64")
    assert max(row.error for row in level.rows if not row.known) < 1e-13


@pytest.fixture
def spoil(monkeypatch):
    """A function that makes our side report one activation spoiled."""

    def spoil(name, change):
        forward = JaxSide.forward

        def spoiled(side):
            activations = forward(side)
            changed = change(activations.pop(name).copy())
            return activations if changed is None else activations | {name: changed}

        monkeypatch.setattr(JaxSide, "forward", spoiled)

    return spoil


def shift_one(activation):
    activation.flat[3] += 1e-4 * np.abs(activation[np.isfinite(activation)]).max()
    return activation


def lose_an_infinity(activation):
    activation[np.isinf(activation)] = 0.0
    return activation


def turn_an_infinity(activation):
    activation[np.isinf(activation)] *= -1
    return activation


def make_nan(activation):
    activation.flat[0] = np.nan
    return activation


SCORES_ARE_SCORES = pytest.mark.skipif(WORLD != "3.9", reason="4.x hooks no attention scores")

SPOILED = [
    ("blocks.1.attn.hook_z", shift_one),
    ("logits", shift_one),
    ("losses", shift_one),
    ("hook_embed", shift_one),
    pytest.param("blocks.0.attn.hook_attn_scores", lose_an_infinity, marks=SCORES_ARE_SCORES),
    pytest.param("blocks.0.attn.hook_attn_scores", turn_an_infinity, marks=SCORES_ARE_SCORES),
    ("blocks.0.mlp.hook_pre", make_nan),
    ("blocks.0.mlp.hook_pre", lambda activation: activation[..., :1]),
    ("blocks.0.mlp.hook_pre", lambda activation: None),
]


@pytest.mark.parametrize(("name", "change"), SPOILED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_spoiled_activation_fails_and_is_named(pair, spoil, name, change, dtype):
    spoil(name, change)
    level = check_level("L1", pair, dtype)
    assert [row.name for row in level.failures] == [name]
    assert f"first divergence: {name}" in level.remarks[0]


def test_an_activation_that_only_we_have_fails(pair, monkeypatch):
    forward = JaxSide.forward
    monkeypatch.setattr(JaxSide, "forward", lambda side: forward(side) | {"more": np.zeros(1)})
    level = check_level("L1", pair, "float64")
    assert [row.name for row in level.failures] == ["more"]


@pytest.mark.parametrize(
    ("level", "first"),
    [("L1", "blocks.1.mlp.hook_pre"), ("L2", None), ("L3", None)],
)
def test_a_wrong_weight_is_a_bug_at_every_level(run, inputs, level, first):
    weights = run.state_dict()
    theirs = to_torch(run.model())
    weights["blocks.1.mlp.W_in"][0, 0] += 1e-2
    ours = HookedTransformer(CFG.model, params=weights)
    for dtype in ("float32", "float64"):
        found = check_level(level, Pair(ours, theirs, inputs), dtype)
        assert not found.passed
        assert found.remarks[1].endswith("this is a bug")
        if first:
            assert f"first divergence: {first}" in found.remarks[0]


def test_rounding_is_told_from_a_bug(pair, monkeypatch):
    """With no room for rounding at all, float32 fails, and the other precision says why."""
    monkeypatch.setattr("parity.comparison.FLOAT32_FACTOR", 0.0)
    level = check_level("L1", pair, "float32")
    assert not level.passed
    assert level.remarks[1].endswith("this is rounding")


@pytest.mark.slow
def test_float32_bound_holds_for_many_fresh_models(inputs):
    failed = []
    for seed in range(30):
        ours = HookedTransformer(CFG.model, params=draw_weights(TrainConfig(init_seed=seed)))
        pair = Pair(ours, to_torch(ours), inputs)
        for name in ("L1", "L2"):
            failed += check_level(name, pair, "float32").failures
    assert not failed


def test_the_command_prints_a_line_per_activation_and_exits_with_the_verdict(run, capsys):
    argv = ["check", str(run.path), "--levels", "L0", "L1"]
    assert run_command(make_parser(), argv) == 0
    printed = capsys.readouterr().out
    assert "PASS  L1 forward: activations, logits, losses, float64: 43 compared" in printed
    assert "PASS  L1 forward: activations, logits, losses, float32: 43 compared" in printed
    rows = [line.split()[0] for line in printed.splitlines() if "hook_" in line and "[" in line]
    assert len(rows) == 80
    assert rows[0] == "hook_embed"
    assert rows[39] == "unembed.hook_out"


def test_the_command_fails_when_a_tensor_does(run, capsys, spoil):
    spoil("blocks.0.attn.hook_z", shift_one)
    argv = ["check", str(run.path), "--dtype", "float64", "--levels", "L1"]
    assert run_command(make_parser(), argv) == 1
    printed = capsys.readouterr().out
    assert "FAIL  L1" in printed
    assert "first divergence: blocks.0.attn.hook_z" in printed


def test_a_folder_without_a_run_gets_one_sentence(tmp_path, capsys):
    assert run_command(make_parser(), ["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_of_the_reference_can_be_checked(tmp_path, capsys):
    import torch_reference

    reference = torch_reference.train(TrainConfig(steps=3), tmp_path / "run", device="cpu")
    argv = ["check", str(Run.load(reference.path).path), "--levels", "L1", "--dtype", "float64"]
    assert run_command(make_parser(), argv) == 0


def test_what_is_known_to_differ_is_asserted_to_differ(pair):
    for name in ("L1", "L2", "L3"):
        level = check_level(name, pair, "float64")
        known = [d for d in adapter.KNOWN_DIFFERENCES if d.level == name]
        marked = [row for row in level.rows if row.known]
        assert all(any(row.name.endswith(d.name) for row in marked) for d in known)
        for row in marked:
            assert row.passed
            assert replace(row, error=0.0, bound=1.0).passed is False
