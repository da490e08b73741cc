"""The judge as a library and as a command: two models, a run, and what bad input gets."""

import json

import numpy as np
import pytest
from flax import nnx

import parity
from jax_revinc import HookedTransformer, TrainConfig, UserError, train
from parity.__main__ import make_parser
from revinc.cli import run_command
from torch_reference.installed import VERSION, WORLD

CFG = TrainConfig(steps=30)
TOKENS = CFG.task.sequences()[::16]


@pytest.fixture(scope="module")
def model():
    return HookedTransformer(CFG.model, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def theirs(model):
    return parity.to_torch(model)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(CFG, tmp_path_factory.mktemp("runs") / "run")


def other_model(**changes):
    return HookedTransformer(CFG.model.replace(**changes), rngs=nnx.Rngs(0))


def test_two_equal_models_pass_at_every_level(model, theirs):
    report = parity.compare(model, theirs, TOKENS)
    assert report.passed
    assert [level.name for level in report.levels] == ["L0", "L1", "L1", "L2", "L2", "L3", "L3"]
    assert VERSION in report.subject


def test_the_one_line_for_a_test(model, theirs):
    parity.assert_parity(model, theirs, TOKENS, levels=["L1"])


def test_the_one_line_fails_with_the_table_of_what_differs(theirs):
    with pytest.raises(AssertionError) as failed:
        parity.assert_parity(other_model(act_fn="gelu"), theirs, TOKENS, levels=["L0", "L1"])
    assert "first divergence: blocks.0.mlp.hook_post" in str(failed.value)
    assert "L0" not in str(failed.value)


def test_a_model_of_the_users_own_question_and_precision(model, theirs):
    report = parity.compare(
        model, theirs, TOKENS[:, :4].tolist(), ["L2"], dtypes=["float64"], predicted=[3]
    )
    assert report.passed
    (level,) = report.levels
    gradient = {row.name: row for row in level.rows}["unembed.hook_out"]
    assert gradient.shape == (len(TOKENS), 3, CFG.model.d_vocab_out)


def test_the_users_models_are_left_as_they_were(model, theirs):
    before = [parameter.detach().clone() for parameter in theirs.parameters()]
    parity.compare(model, theirs, TOKENS, ["L1", "L2"])
    for parameter, was in zip(theirs.parameters(), before, strict=True):
        assert parameter.dtype == was.dtype
        assert (parameter == was).all()
        assert parameter.grad is None


def test_models_of_other_shapes_fail_at_names_and_go_no_further(theirs):
    report = parity.compare(other_model(attn_only=True), theirs, TOKENS, ["L1"])
    assert not report.passed
    assert [level.name for level in report.levels] == ["L0"]
    assert "blocks.0.mlp.W_in" in str(report)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": TOKENS[0]}, "shape"),
        ({"tokens": TOKENS + 0.5}, "integers"),
        ({"tokens": TOKENS + 4}, "0..4"),
        ({"levels": ["L9"]}, "L0, L1, L2, L3"),
        ({"levels": ["L5"]}, "L0, L1, L2, L3"),
        ({"levels": []}, "levels"),
        ({"levels": "L1"}, "levels"),
        ({"dtypes": ["float16"]}, "float32"),
        ({"predicted": [0]}, "predicted"),
        ({"predicted": [9]}, "predicted"),
        ({"predicted": []}, "predicted"),
    ],
)
def test_bad_questions_get_one_sentence(model, theirs, changes, said):
    with pytest.raises(UserError, match=said):
        parity.compare(model, theirs, **{"tokens": TOKENS} | changes)


def test_what_was_found_is_json(model, theirs):
    report = parity.compare(model, theirs, TOKENS, ["L0", "L1"])
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert record["passed"] is True
    assert record["versions"]["jax"]
    row = record["levels"][1]["rows"][0]
    assert row["name"] == "hook_embed"
    assert row["passed"] is True
    assert row["error"] <= row["bound"]


def test_infinite_errors_are_json_too(theirs):
    broken = HookedTransformer(
        CFG.model,
        params={n: np.full_like(w, np.nan) for n, w in other_model().state_dict().items()},
    )
    report = parity.compare(broken, theirs, TOKENS, ["L1"], dtypes=["float64"])
    assert not report.passed
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is False


def test_a_recipe_is_checked_on_its_fresh_model():
    report = parity.check(CFG, ["L0", "L1"], ["float64"])
    assert report.passed
    assert report.subject.startswith("a fresh model")


def test_the_command_keeps_what_it_found_in_the_run(run, capsys):
    argv = ["check", str(run.path), "--levels", "L1", "--dtype", "float64"]
    assert run_command(make_parser(), argv) == 0
    record = json.loads((run.path / "parity.json").read_text())
    assert record["passed"] is True
    assert record["config"]["train"]["steps"] == CFG.steps
    verdict, page = capsys.readouterr().out.splitlines()[-2:]
    assert verdict.startswith("PASS")
    assert page == f"Page to open: {run.path / 'parity.html'}"
    assert "No difference found" in (run.path / "parity.html").read_text()


def test_the_command_without_a_run_checks_a_fresh_model(tmp_path, capsys):
    argv = ["check", "--levels", "L0", "--out", str(tmp_path / "new" / "folder")]
    assert run_command(make_parser(), argv) == 0
    assert (tmp_path / "new" / "folder" / "parity.json").exists()
    assert "a fresh model" in capsys.readouterr().out


def test_the_other_transformer_lens_is_refused_with_one_sentence(tmp_path, capsys):
    other = {"3.9": "4.x", "4.x": "3.9"}[WORLD]
    argv = ["check", "--against", other, "--out", str(tmp_path)]
    assert run_command(make_parser(), argv) == 2
    assert capsys.readouterr().err.startswith(f"parity: TransformerLens {VERSION} is installed")
    assert list(tmp_path.iterdir()) == []


def test_the_installed_transformer_lens_can_be_asked_for(tmp_path):
    argv = ["check", "--against", WORLD, "--levels", "L0", "--out", str(tmp_path)]
    assert run_command(make_parser(), argv) == 0


def test_a_folder_that_cannot_be_written_gets_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    argv = ["check", "--levels", "L0", "--out", str(tmp_path / "file")]
    assert run_command(make_parser(), argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
