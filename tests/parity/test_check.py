"""The judge as a library and as a command: two models, a run, and what bad input gets."""

import json
import shutil
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from flax import nnx

import parity
from jax_revinc import HookedTransformer, Run, TrainConfig, UserError, train
from parity.__main__ import make_parser
from parity.check import LEVELS
from parity.comparison import Comparison
from parity.levels import TITLES, Level
from revinc.command_errors import run_command
from torch_reference.__main__ import make_parser as torch_parser
from torch_reference.installed_transformer_lens import VERSION, WORLD
from torch_reference.threads import threads

of_3_9 = pytest.mark.skipif(WORLD != "3.9", reason="4.x keeps weights and hooks otherwise")

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
        ({"predicted": 3}, "predicted"),
        ({"predicted": [1.5]}, "predicted"),
        ({"predicted": [True]}, "predicted"),
        ({"tokens": TOKENS[:0]}, "batch at least 1"),
        ({"tokens": [[1, 2], [3]]}, "tokens must be an array of ids"),
        ({"tokens": None}, "shape"),
        ({"tokens": "ids"}, "shape"),
        ({"levels": None}, "levels"),
        ({"levels": 1}, "levels"),
        ({"levels": [["L0"]]}, "levels"),
        ({"levels": iter(())}, "levels"),
        ({"dtypes": [np.float32]}, "dtypes"),
        ({"dtypes": None}, "dtypes"),
        ({"jax_model": 3}, "jax_model must be a jax_revinc.HookedTransformer, not builtins.int"),
        ({"torch_model": None}, "torch_model must be a .* of TransformerLens"),
        ({"torch_model": torch.nn.Linear(1, 1)}, "torch_model must be .*, not torch.nn.modules"),
    ],
)
def test_bad_questions_get_one_sentence(model, theirs, changes, said):
    with pytest.raises(UserError, match=said):
        parity.compare(**{"jax_model": model, "torch_model": theirs, "tokens": TOKENS} | changes)


def test_models_the_wrong_way_round_are_named(model, theirs):
    with pytest.raises(
        UserError, match=r"jax_model must be a jax_revinc\.HookedTransformer, not tr"
    ):
        parity.compare(theirs, model, TOKENS)


def test_tokens_beyond_the_other_models_vocabulary_are_refused(model):
    smaller = parity.to_torch(other_model(d_vocab=3, d_vocab_out=5))
    with pytest.raises(UserError, match=r"0\.\.2"):
        parity.compare(model, smaller, TOKENS)


@of_3_9
def test_a_model_with_hooks_of_its_own_is_refused_until_they_are_gone(model):
    theirs = parity.to_torch(model)
    theirs.add_hook("blocks.0.hook_resid_mid", lambda activation, hook: 2 * activation)
    with pytest.raises(UserError, match=r"has hooks of its own at blocks\.0\.hook_resid_mid"):
        parity.compare(model, theirs, TOKENS)
    theirs.reset_hooks()
    parity.assert_parity(model, theirs, TOKENS, levels=["L1"], dtypes=["float64"])


def test_a_model_without_values_is_refused(model):
    nowhere = parity.to_torch(model).to("meta", print_details=False)
    for call in (parity.from_torch, lambda theirs: parity.compare(model, theirs, TOKENS)):
        with pytest.raises(UserError, match="meta device"):
            call(nowhere)


@of_3_9
def test_a_model_in_training_and_half_precision_is_judged_by_its_weights(model):
    half = parity.to_torch(model).to(torch.bfloat16, print_details=False).train()
    weights = {n: p.detach().float().numpy() for n, p in half.named_parameters()}
    same = HookedTransformer(CFG.model, params=weights)
    parity.assert_parity(same, half, TOKENS, levels=["L1"], dtypes=["float64"])
    assert not parity.compare(model, half, TOKENS, ["L1"], dtypes=["float64"]).passed
    with pytest.raises(UserError, match="dtype"):
        parity.from_torch(half)


@pytest.mark.parametrize("given", [None, "run", 3, CFG, CFG.model])
def test_what_is_no_model_cannot_move_to_another_framework(given):
    for move in (parity.to_torch, parity.from_torch):
        with pytest.raises(UserError, match=r"^model must be a "):
            move(given)


def test_our_own_model_is_not_torchs(model):
    with pytest.raises(UserError, match="model must be a "):
        parity.from_torch(model)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", 1.5])
def test_a_device_that_torch_cannot_use_is_named(model, device):
    with pytest.raises(UserError, match="can't be used"):
        parity.to_torch(model, device)


@pytest.mark.parametrize("subject", ["runs/a", None, CFG.model])
def test_what_is_no_run_cannot_be_checked(subject):
    with pytest.raises(UserError, match="the parity check takes a Run or a TrainConfig, not a"):
        parity.check(subject)


@pytest.mark.parametrize("engine", ["XLA", "torch", None, []])
def test_an_unknown_engine_is_refused(engine):
    with pytest.raises(UserError, match="engine"):
        parity.check(CFG, ["L0"], engine=engine)


def test_what_was_found_is_json(model, theirs):
    report = parity.compare(model, theirs, TOKENS, ["L0", "L1"])
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert record["passed"] is True
    assert record["versions"]["jax"]
    row = record["levels"][1]["rows"][0]
    assert row["name"] == "hook_embed"
    assert row["passed"] is True
    assert row["error"] <= row["bound"]


def spoiled(name, value):
    """A model with one number of a weight spoiled."""
    weights = other_model().state_dict()
    weights[name] = weights[name].copy()
    weights[name].flat[0] = value
    return HookedTransformer(CFG.model, params=weights)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_without_a_finite_value_fail_by_name_though_both_sides_have_them(value):
    ours = spoiled("unembed.W_U", value)
    with pytest.raises(AssertionError) as failed:
        parity.assert_parity(ours, parity.to_torch(ours), TOKENS, levels=["L1"])
    said = "unembed.W_U has NaN or infinite numbers: 1 of 20 in JAX, 1 of 20 in TransformerLens"
    assert said in str(failed.value)


@of_3_9
def test_weights_that_one_side_lost_are_named(model):
    theirs = parity.to_torch(model)
    with torch.no_grad():
        theirs.get_parameter("blocks.0.attn.b_Q").fill_(np.nan)
    report = parity.compare(model, theirs, TOKENS, ["L1"])
    (level,) = report.levels
    assert [row.name for row in level.failures] == ["blocks.0.attn.b_Q"]
    assert "2 of 2 in TransformerLens" in str(report)


def test_infinite_errors_are_json_too(theirs):
    report = parity.compare(spoiled("embed.W_E", np.nan), theirs, TOKENS, ["L1"])
    assert not report.passed
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is False


def test_a_run_of_nan_fails_whatever_level_it_is_asked(run, monkeypatch):
    monkeypatch.setattr(Run, "model", lambda run: spoiled("unembed.W_U", np.nan))
    report = parity.check(run, ["L4"])
    assert [level.name for level in report.levels] == ["L0"]
    assert not report.passed


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


@pytest.fixture
def checked(monkeypatch):
    """The levels that the command checks, which here compare nothing, and a function that runs it."""
    levels = []

    def level(name):
        def check(case):
            levels.append(name)
            return [Level(name, "any", [Comparison("x", (), 0.0, 1.0)])]

        return check

    for name in TITLES:
        monkeypatch.setitem(LEVELS, name, level(name))
    return levels


def test_the_command_checks_the_levels_that_take_seconds_and_says_what_it_left_out(
    run, checked, capsys, tmp_path
):
    assert run_command(make_parser(), ["check", str(run.path), "--out", str(tmp_path)]) == 0
    assert checked == ["L0", "L1", "L2", "L3", "L4"]
    said = "Not checked: L5, L6, which take minutes; --all checks them too."
    assert said in capsys.readouterr().out


def test_all_is_all_that_can_be_checked(run, checked, capsys, tmp_path):
    argv = ["check", str(run.path), "--all", "--out", str(tmp_path)]
    assert run_command(make_parser(), argv) == 0
    assert checked == ["L0", "L1", "L2", "L3", "L4", "L5", "L6"]
    assert "Not checked: L7; torch has nothing to compare" in capsys.readouterr().out


def test_levels_that_are_named_are_all_that_is_checked(run, checked, capsys, tmp_path):
    argv = ["check", str(run.path), "--levels", "L5", "L0", "--out", str(tmp_path)]
    assert run_command(make_parser(), argv) == 0
    assert checked == ["L5", "L0"]
    assert "Not checked" not in capsys.readouterr().out


def test_a_result_is_given_before_the_next_level_begins(checked):
    order = []
    parity.check(CFG, ["L1", "L0"], found=lambda level: order.append((level.name, [*checked])))
    assert order == [("L1", ["L1"]), ("L0", ["L1", "L0"])]


def test_torch_has_its_threads_again_after_a_check(checked):
    before = torch.get_num_threads()
    with threads(2):
        parity.check(CFG, ["L0"])
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("make", [make_parser, torch_parser])
def test_the_version_is_the_packages(make, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(make(), ["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"jax-revinc {metadata.version('jax-revinc')}\n"


@pytest.mark.parametrize("make", [make_parser, torch_parser])
def test_help_is_plain_text_of_a_command_that_exists(make, capsys):
    with pytest.raises(SystemExit):
        run_command(make(), ["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m ")
    assert "`" not in said


def test_the_command_without_a_run_checks_a_fresh_model(tmp_path, capsys):
    argv = ["check", "--levels", "L0", "--out", str(tmp_path / "new" / "folder")]
    assert run_command(make_parser(), argv) == 0
    assert (tmp_path / "new" / "folder" / "parity.json").exists()
    assert "a fresh model" in capsys.readouterr().out


def test_the_other_transformer_lens_is_refused_with_one_sentence(tmp_path, capsys):
    other = {"3.9": "4.x", "4.x": "3.9"}[WORLD]
    argv = ["check", "--against", other, "--out", str(tmp_path)]
    assert run_command(make_parser(), argv) == 2
    assert capsys.readouterr().err.startswith(
        f"python -m parity: TransformerLens {VERSION} is installed"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_installed_transformer_lens_can_be_asked_for(tmp_path):
    argv = ["check", "--against", WORLD, "--levels", "L0", "--out", str(tmp_path)]
    assert run_command(make_parser(), argv) == 0


def test_a_folder_that_cannot_be_written_gets_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, said = status_and_sentence(capsys, "--levels", "L0", "--out", tmp_path / "file")
    assert status == 2
    assert "is a file; choose a folder" in said


@pytest.fixture
def foreign(run, tmp_path, monkeypatch):
    """A current folder with a module of a task that leaves a file where it is imported, and a run that names it."""
    (tmp_path / "foreign_task.py").write_text(
        "import pathlib\nfrom dataclasses import dataclass\nfrom revinc.tasks import ReverseIncrement\n"
        "pathlib.Path('PWNED').touch()\n@dataclass(frozen=True)\nclass Class(ReverseIncrement):\n    pass\n"
    )
    shutil.copytree(run.path, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(
        config.read_text().replace('"name": "reverse_increment"', '"name": "foreign_task:Class"')
    )
    (tmp_path / "run" / "checksums.jsonl").unlink(missing_ok=True)  # older runs have none
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])  # as ``python -m`` has it
    yield tmp_path
    sys.modules.pop("foreign_task", None)


def test_a_run_from_elsewhere_imports_its_task_only_where_it_is_named(foreign, capsys):
    judge = ["check", "run", "--levels", "L0", "--task"]
    reference = ["train", "--like", "run", "--out", "torch", "--steps", "2"]
    for parser, words in (
        (make_parser, judge[:-1]),
        (make_parser, [*judge, "copy"]),
        (torch_parser, reference),
    ):
        assert run_command(parser(), words) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert "foreign_task:Class" in sentence
        assert not (foreign / "PWNED").exists()
        assert not (foreign / "torch").exists()
    assert run_command(make_parser(), [*judge, "foreign_task:Class"]) == 0
    assert (foreign / "PWNED").exists()
    del sys.modules["foreign_task"]
    assert run_command(torch_parser(), [*reference, "--task", "foreign_task:Class"]) == 0


def test_a_task_without_a_run_is_refused(capsys):
    assert run_command(make_parser(), ["check", "--task", "copy"]) == 2
    assert "no run folder is given" in capsys.readouterr().err


def status_and_sentence(capsys, *flags):
    """The exit status of a check that is refused, and the one line that it said."""
    try:
        status = run_command(make_parser(), ["check", *map(str, flags)])
    except SystemExit as refused:
        status = refused.code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return status, said.strip().splitlines()[-1]


def test_a_run_that_is_not_finished_gets_one_sentence(run, tmp_path, capsys):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    status, said = status_and_sentence(capsys, tmp_path / "run", "--levels", "L0")
    assert status == 2
    assert said.startswith("python -m parity: ")


@pytest.mark.parametrize(
    "flags", [["--levels", "L9"], ["--levels"], ["--dtype", "float16"], ["--all", "--levels", "L0"]]
)
def test_bad_flags_get_one_sentence(run, capsys, flags):
    status, said = status_and_sentence(capsys, run.path, *flags)
    assert status == 2
    assert said.startswith("python -m parity check: error: ")


def test_a_folder_that_is_no_run_gets_one_sentence(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"format_version": 1}')
    for folder in (tmp_path, tmp_path / "config.json", tmp_path / "none"):
        status, said = status_and_sentence(capsys, folder)
        assert status == 2
        assert said.startswith("python -m parity: ")


def test_every_level_has_a_title_and_a_function():
    assert LEVELS.keys() == TITLES.keys()
