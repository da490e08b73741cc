"""The page about tasks: its table is what there is, and its own tasks train by its own command."""

import re
import shlex
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from revinc.command_errors import run_command
from revinc.errors import UserError
from revinc.runs import Run
from revinc.tasks import TASKS, make_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()


@pytest.fixture
def own_tasks(tmp_path, monkeypatch):
    """The page's file in the current directory."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "largest.py").write_text("\n\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobodys"))
    yield
    sys.modules.pop("largest", None)


def jax_revinc(*words):
    from jax_revinc.__main__ import make_parser

    assert run_command(make_parser(), [*map(str, words)]) == 0


def test_the_table_has_every_task_with_its_fields_and_defaults():
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", PAGE, flags=re.MULTILINE))
    assert rows.keys() >= TASKS.keys()
    for name, task_type in TASKS.items():
        told = dict(re.findall(r"`(\w+)` \((\w+)\)", rows[name]))
        assert told == {f.name: str(f.default).lower() for f in fields(task_type)}
        assert all(f.default is not MISSING for f in fields(task_type))


@pytest.fixture
def command():
    """The words of the page's command."""
    (line,) = re.findall(r"^jax-revinc (train .*largest:Largest.*)$", PAGE, flags=re.MULTILINE)
    return shlex.split(line)


@pytest.fixture
def report():
    """The words of the command that opens its run again."""
    (line,) = re.findall(r"^jax-revinc (report .*largest:Largest.*)$", PAGE, flags=re.MULTILINE)
    return shlex.split(line)


def test_the_pages_command_trains_its_task_and_the_run_is_found_again(
    own_tasks, command, report, monkeypatch, capsys
):
    monkeypatch.setattr(
        "jax_revinc.report.page.write_report", lambda run: run.path
    )  # takes longest
    jax_revinc(*command)
    assert "Accuracy on all 64 sequences after 200 steps" in capsys.readouterr().out
    del sys.modules["largest"]
    with pytest.raises(
        UserError, match=r"config.json can't be used: task 'largest:Largest' is not imported"
    ):
        Run.load("runs/largest")
    run = Run.load("runs/largest", task="largest:Largest")
    assert run.config.task.name == "largest:Largest"
    assert run.config.task.sequences()[11].tolist() == [1, 3, 8, 3]
    assert run.metrics["train_loss"].iloc[-1] < run.metrics["train_loss"].iloc[0]
    jax_revinc("train", "--out", run.path, "--resume")
    assert "is finished already" in capsys.readouterr().out
    jax_revinc(*report)
    Path("largest.py").unlink()
    del sys.modules["largest"]
    with pytest.raises(
        UserError, match=r"config.json can't be used: task 'largest:Largest' can't be imported"
    ):
        Run.load("runs/largest", task="largest:Largest")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Largest", "LargestOfMany"])
def test_own_tasks_have_pages_and_populations(own_tasks, task, capsys):
    recipe = ["--task", f"largest:{task}", "--n", 8, "--steps", 20, "--eval-every", 10]
    jax_revinc("train", "--out", "run", *recipe)
    assert "The model predicts" in Path("run/report.html").read_text()
    jax_revinc("population", "--out", "store", "--seeds", 3, "--width", 2, *recipe)
    jax_revinc("atlas", "store")
    capsys.readouterr()
    jax_revinc("report", "run")
    jax_revinc("population", "--out", "store", "--resume", "--seeds", 4)
    assert "4/4 models" in capsys.readouterr().out


def test_the_pages_drawn_task_is_one(own_tasks):
    task = make_task("largest:LargestOfMany", length=3)
    sample = task.sequences()
    assert task.is_drawn
    assert (sample[:, :3].max(axis=1) == sample[:, 4]).all()
    assert (sample[:, 3] == 64).all()
