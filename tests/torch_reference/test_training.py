"""The reference writes the same run folder as the product, from a config or from another run."""

import subprocess
import sys

import numpy as np
import pytest

import torch_reference
from revinc import HookedTransformerConfig, TrainConfig, UserError
from revinc.command_errors import run_command
from revinc.runs import Run
from torch_reference import adapter
from torch_reference.__main__ import make_parser

CFG = TrainConfig(steps=20, eval_every=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return torch_reference.train(CFG, tmp_path_factory.mktemp("runs") / "reference", device="cpu")


def test_the_run_folder_is_whole(run):
    assert run.finished
    assert run.config == CFG
    assert run.engine["name"] == "torch"
    assert run.metrics["step"].tolist() == [0, 10, 20]
    assert len(run.losses) == 20
    assert run.snapshot_steps == [0, 20]
    assert not all(
        np.array_equal(first, last)
        for first, last in zip(run.state_dict(0).values(), run.state_dict().values(), strict=True)
    )


def test_a_resume_of_a_finished_run_changes_nothing(run):
    before = run.state_dict()
    again = torch_reference.train(CFG, run.path, resume=True, device="cpu")
    for name, weight in before.items():
        np.testing.assert_array_equal(again.state_dict()[name], weight)


def test_like_takes_config_batches_and_initial_weights(run, tmp_path):
    out = tmp_path / "like"
    argv = ["train", "--out", str(out), "--like", str(run.path), "--device", "cpu"]
    assert run_command(make_parser(), argv) == 0
    copy = Run.load(out)
    assert copy.config == run.config
    for name, weight in run.state_dict().items():
        np.testing.assert_array_equal(copy.state_dict()[name], weight)


def test_initial_weights_of_another_model_are_refused(tmp_path):
    other = HookedTransformerConfig(n_layers=1, d_model=4, d_head=2, n_ctx=9, d_vocab=5)
    weights = adapter.read_weights(adapter.make_model(other), other)
    with pytest.raises(UserError, match=r"missing blocks\.1\.ln1\.w"):
        torch_reference.train(CFG, tmp_path / "run", init=weights, device="cpu")
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_unusable_device_gets_one_sentence(tmp_path, capsys):
    argv = ["train", "--out", str(tmp_path / "run"), "--device", "abacus"]
    assert run_command(make_parser(), argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m torch_reference: device 'abacus' can't be used")
    assert error.count("\n") == 1


def test_it_never_imports_jax():
    script = "import sys, torch_reference; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
