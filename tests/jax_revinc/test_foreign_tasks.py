"""A run or a store from elsewhere that names a module: no command imports it unless it is told to."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import jax
import pytest
from populations import FLAGS, RECIPE, WIDTH

from jax_revinc import Run, UserError
from jax_revinc.population import load, train_population
from revinc.sweep import sweep

MODULE = """
from dataclasses import dataclass
from pathlib import Path
from revinc.tasks import ReverseIncrement

Path("PWNED").touch()

@dataclass(frozen=True, kw_only=True)
class Class(ReverseIncrement):
    pass
"""

NAME = "foreign_task:Class"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("populations") / "store"
    return train_population(RECIPE, sweep(RECIPE, seeds=range(2)), out, width=WIDTH, engine="xla")


@pytest.fixture
def foreign(short_run, store, tmp_path, monkeypatch):
    """A current folder that holds the module, and beside it a run and a store that name it."""
    jax.devices()
    (tmp_path / "foreign_task.py").write_text(MODULE)
    for name, there, file in (
        ("run", short_run.path, "config.json"),
        ("store", store.path, "population.json"),
    ):
        shutil.copytree(there, tmp_path / name)
        text = (tmp_path / name / file).read_text()
        assert '"name": "reverse_increment"' in text
        (tmp_path / name / file).write_text(text.replace('"reverse_increment"', f'"{NAME}"'))
        (tmp_path / name / "checksums.jsonl").unlink(missing_ok=True)  # older runs have none
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])  # as ``python -m`` has it
    yield tmp_path
    sys.modules.pop("foreign_task", None)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


COMMANDS = {
    "inspect": ["inspect", "run", "--tables"],
    "report": ["report", "run"],
    "resumed run": ["train", "--resume", "--out", "run", "--engine", "xla"],
    "atlas": ["atlas", "store"],
    "resumed store": ["population", "--resume", "--out", "store", *FLAGS[-2:]],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_in_one_sentence_and_changes_nothing(run_cli, foreign, command):
    before = contents(foreign)
    outcome = run_cli(*COMMANDS[command])
    assert outcome.status == 2
    (sentence,) = outcome.err
    assert f"task '{NAME}' is not imported" in sentence
    assert f"--task '{NAME}'" in sentence
    assert contents(foreign) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_names_the_task_goes_on(run_cli, foreign, monkeypatch, command):
    monkeypatch.setattr(
        "jax_revinc.commands.report.write_report", lambda run: run.path
    )  # takes longest
    monkeypatch.setattr(
        "jax_revinc.commands.atlas.write_atlas", lambda population, _: population.path
    )
    outcome = run_cli(*COMMANDS[command], "--task", NAME)
    assert Path("PWNED").exists()
    if command == "resumed store":  # its chunks say that they are of the task that it was made of
        assert outcome.status == 2
        assert f"name: reverse_increment there, not {NAME}" in outcome.err[0]
    else:
        assert (outcome.status, outcome.err) == (0, [])


@pytest.mark.parametrize("command", ["inspect", "report", "atlas"])
def test_a_command_that_names_another_task_is_refused(run_cli, foreign, command):
    outcome = run_cli(*COMMANDS[command], "--task", "copy")
    assert outcome.status == 2
    assert f"the recorded task is '{NAME}', not 'copy'" in outcome.err[0]
    assert not Path("PWNED").exists()


@pytest.mark.parametrize(("opens", "folder"), [(Run.load, "run"), (load, "store")])
def test_in_python_the_argument_allows_it(foreign, opens, folder):
    with pytest.raises(UserError, match=f"task='{NAME}'"):
        opens(folder)
    assert not Path("PWNED").exists()
    task = opens(folder, task=NAME).config.task
    assert task.name == NAME
    assert opens(folder).config.task == task  # for it is imported by now
    assert opens(folder, task=type(task)).config.task == task


def test_a_run_that_was_stopped_says_how_to_allow_it(foreign, run_cli, monkeypatch):
    def stop(cfg, engine, begin):
        raise KeyboardInterrupt

    monkeypatch.setattr("revinc.trainer.points", stop)
    outcome = run_cli("train", "--task", NAME, "--engine", "xla", "--out", "new")
    assert outcome.status == 130
    assert outcome.err[-1].endswith(f"--out new --resume --task {NAME}")
