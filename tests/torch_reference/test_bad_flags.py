"""Whatever a flag is given, the command ends in a sentence, before it trains or writes anything."""

from __future__ import annotations

import dataclasses

import pytest
from bad_values import assert_refused, flags_of, trials

from revinc import UserError
from revinc.command_errors import run_command
from torch_reference import __main__ as command
from torch_reference import train_many_seeds, training
from torch_reference.train_many_seeds import train_population

BESIDE = {"train": ["--steps", "20"], "population": ["--seeds", "2"]}


def would_train(*args, **flags):
    raise UserError("these would be trained")


@pytest.fixture
def run_cli(capsys):
    """A function that runs the command line in this process: its status, and what it said."""

    def run(*argv):
        capsys.readouterr()
        try:
            status = run_command(command.make_parser(), list(map(str, argv)))
        except SystemExit as stop:  # argparse
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return run


@pytest.mark.parametrize("name", BESIDE)
def test_no_text_for_a_flag_ends_in_a_traceback(run_cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "train", would_train)
    monkeypatch.setattr(command, "train_population", would_train)
    monkeypatch.setattr(command.torch, "set_num_threads", lambda n: None)
    for flag, text in trials(flags_of(run_cli, name), per_flag=3):
        out = [] if flag == "--out" else ["--out", tmp_path / "out"]
        assert_refused(run_cli, name, *out, *BESIDE[name], f"{flag}={text}")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        ("population --seeds 0", "seeds must be at least 1"),
        ("population --seeds 1000000000000", "seeds must be below 2**32"),
        ("population --seeds 4294967295", "the outcomes of 4,294,967,295 seeds needs at least"),
        ("population --seeds 2 --jobs 1000000000", "jobs must be below 1024"),
        ("train --threads 0", "threads must be at least 1"),
        ("train --threads 1000000000", "threads must be below 1024"),
        ("train --d-model 1000000000 --d-head 2 --n-heads 1", "training needs at least"),
        ("train --device nowhere", "device 'nowhere' can't be used"),
        ("train --device cuda:99", "device 'cuda:99' can't be used"),
    ],
)
def test_odd_values_are_refused(run_cli, tmp_path, argv, phrase):
    status, _, err = run_cli(*argv.split(), "--out", tmp_path / "out")
    assert status == 2
    assert phrase in err[-1]
    assert list(tmp_path.iterdir()) == []


def test_no_more_processes_are_started_than_there_are_seeds(tutorial, tmp_path, monkeypatch):
    class Context:
        def Pool(self, jobs, *rest):
            raise UserError(f"{jobs} processes")

    monkeypatch.setattr(train_many_seeds.multiprocessing, "get_context", lambda how: Context())
    with pytest.raises(UserError, match=r"^2 processes"):
        train_population(tutorial, range(2), tmp_path / "out", jobs=1000, command="")


def test_a_model_that_can_not_fit_is_not_trained(tutorial, tmp_path):
    wide = dataclasses.replace(
        tutorial, model=tutorial.model.replace(d_model=10**9, d_head=2, n_heads=1)
    )
    with pytest.raises(UserError, match=r"training needs at least .* GB"):
        training.train(wide, tmp_path / "out")
