"""What a file names is imported only where the person allowed it: by name, or in settings of the person's own."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from revinc import TrainConfig, UserError
from revinc.parquet_tables import write_table
from revinc.runs import Run
from revinc.seed_outcomes import COLUMNS, Outcomes
from revinc.tasks import find_task, recorded_task
from revinc.user_settings import settings_file, trusted_modules

MODULE = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from revinc.tasks import Task

Path("PWNED").touch()

@dataclass(frozen=True)
class Twice(Task):
    n: int = 3
    vocabulary = ("a", "b", "c")

    def sequences(self):
        return [[a, a] for a in range(self.n)]

    def loss_mask(self):
        return np.array([False, True])
"""

NAME = "evil_task:Twice"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A function that writes the person's settings; there are none before."""
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))

    def write(text, mode=0o600):
        file = settings_file()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    return write


@pytest.fixture
def evil(tmp_path, monkeypatch, settings):
    """A module in the current directory, which Python looks into first, that leaves a file where it is imported."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "evil_task.py").write_text(MODULE)
    (here / "sub" / "f2").mkdir(parents=True)
    (here / "sub" / "f2" / "evil_task.py").write_text(MODULE)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    yield here
    for name in ("evil_task", "sub", "sub.f2", "sub.f2.evil_task"):
        sys.modules.pop(name, None)


@pytest.fixture
def sections(tutorial):
    """What a file says of a run of such a task."""
    return tutorial.to_dict() | {"task": {"name": NAME, "n": 3}}


def small(sections):
    return sections | {"train": sections["train"] | {"train_fraction": 0.7, "batch_size": 1}}


def imported():
    return Path("PWNED").exists()


@pytest.mark.parametrize(
    "name",
    [NAME, "sub.f2.evil_task:Twice", "this:d", "antigravity:x", "evil_task:", ":Twice", "a:b:c"],
)
def test_what_a_file_names_is_not_imported(evil, refuses_in_one_line, name):
    sys.modules.pop("this", None)
    before = list(sys.path)
    with refuses_in_one_line(UserError, repr(name), "if you trust it", "--task", settings_file()):
        recorded_task(name)
    assert not imported()
    assert "this" not in sys.modules
    assert sys.path == before


@pytest.mark.parametrize("name", ["os:path", "revinc.tasks:Task", "revinc.tasks:find_task"])
def test_what_is_imported_already_is_no_task_by_that(evil, name):
    with pytest.raises(UserError, match="is not the class of a task"):
        recorded_task(name)


def test_a_module_that_is_asked_for_a_name_runs_nothing(evil, monkeypatch):
    class Lazy(type(sys)):
        def __getattr__(self, name):
            raise AssertionError("its code ran")

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))
    with pytest.raises(UserError, match="not imported"):
        recorded_task("lazy_module:Twice")


def test_a_class_of_the_script_is_refused(evil):
    with pytest.raises(UserError, match="put its class into a module"):
        recorded_task("__main__:Twice")


@pytest.mark.parametrize("name", [None, 3, [], {}, "twice", "reverse_increments"])
def test_a_name_that_is_none_is_unknown(evil, name):
    with pytest.raises(UserError, match="unknown"):
        recorded_task(name)


def test_what_the_person_names_is_imported_from_the_current_directory(evil, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(evil)])
    found = recorded_task(NAME, NAME)
    assert imported()
    assert found.name == NAME
    assert recorded_task(NAME, found) is found
    assert recorded_task(NAME) is found  # for it is imported


@pytest.mark.parametrize("named", ["copy", "evil_task:Other", TrainConfig])
def test_another_task_than_was_named_is_refused(evil, named):
    (evil / "evil_task.py").write_text(MODULE + "\nclass Other(Twice):\n    pass\n")
    with pytest.raises(
        UserError, match=r"evil_task:Twice' is|the recorded task is|is not the class of a task"
    ):
        recorded_task(NAME, named)
    with pytest.raises(UserError, match=r"the recorded task is 'copy', not 'sort'"):
        recorded_task("copy", "sort")


def test_configs_runs_and_outcomes_take_the_permission(
    evil, sections, tmp_path, open_writer, cfg, tutorial
):
    sections = small(sections)
    with open_writer("run", cfg):
        pass
    run = tmp_path / "run"
    ours = (run / "config.json").read_text()
    (run / "config.json").write_text(
        ours.replace('"name": "reverse_increment"', f'"name": "{NAME}"')
    )
    table = pd.DataFrame(columns=list(COLUMNS)).astype({"seed": "int64"})
    record = {"config": sections, "made_by": {"command": "a command"}}
    write_table(tmp_path / "outcomes.parquet", table, record)
    for opened in (
        lambda task=None: TrainConfig.from_dict(sections, task),
        lambda task=None: Outcomes.load(tmp_path / "outcomes.parquet", task),
        lambda task=None: Run.load(run, task),
    ):
        with pytest.raises(UserError, match="if you trust it"):
            opened()
        with pytest.raises(UserError, match="the recorded task is"):
            opened("copy")
        assert not imported()
    assert Outcomes.load(tmp_path / "outcomes.parquet", task=NAME).config.task.name == NAME
    assert imported()
    assert TrainConfig.from_dict(sections).task.n == 3
    assert TrainConfig.from_dict(sections, type(TrainConfig.from_dict(sections).task)).task.n == 3


def installed(folder, monkeypatch):
    """Lets Python find the module in a folder that is not the one it was started in."""
    (folder / "trusted_task.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.delitem(sys.modules, "trusted_task", raising=False)


@pytest.mark.parametrize("trusted", ['["trusted_task"]', '["others", "trusted_task"]'])
def test_modules_that_the_settings_trust_are_imported(
    evil, settings, tmp_path, monkeypatch, trusted
):
    installed(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="if you trust it"):
        recorded_task("trusted_task:Twice")
    settings(f"trusted_modules = {trusted}\n")
    assert recorded_task("trusted_task:Twice").name == "trusted_task:Twice"
    with pytest.raises(UserError, match="if you trust it"):
        recorded_task(NAME)
    with pytest.raises(UserError, match="if you trust it"):
        recorded_task("trusted_task2:Twice")


def test_a_trusted_module_is_not_looked_for_in_the_working_directory(evil, settings):
    settings('trusted_modules = ["evil_task", "sub"]\n')
    before = list(sys.path)
    for name in (NAME, "sub.f2.evil_task:Twice"):
        with pytest.raises(UserError, match="can't be imported"):
            recorded_task(name)
    assert not imported()
    assert sys.path == before
    assert find_task(NAME).name == NAME


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("trusted_modules = ", "can't be read"),
        ("trusted_modules = 'evil_task'", "must be a list of modules"),
        ("trusted_modules = [3]", "must be a list of modules"),
        ("trusted_modules = ['evil_task:Twice']", "must be a list of modules"),
        ("trusted_modules = ['']", "must be a list of modules"),
        ("trusted = ['evil_task']", "did you mean trusted_modules"),
        ("a = " + "[" * 100_000, "can't be read"),
    ],
    ids=range(7),
)
def test_bad_settings_are_one_sentence(evil, settings, refuses_in_one_line, text, phrase):
    file = settings(text)
    with refuses_in_one_line(UserError, file, phrase):
        recorded_task(NAME)
    assert recorded_task("copy").name == "copy"  # nothing asks for them
    assert not imported()


def test_settings_that_others_may_write_are_not_believed(evil, settings, refuses_in_one_line):
    for mode in (0o620, 0o602, 0o666):
        file = settings('trusted_modules = ["evil_task"]\n', mode)
        with refuses_in_one_line(UserError, file, "writable only by you"):
            recorded_task(NAME)
    file.chmod(0o600)
    file.parent.chmod(0o777)
    with refuses_in_one_line(UserError, file.parent, "writable only by you"):
        recorded_task(NAME)


def test_settings_of_another_user_are_not_believed(
    evil, settings, monkeypatch, refuses_in_one_line
):
    file = settings('trusted_modules = ["evil_task"]\n')
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with refuses_in_one_line(UserError, file, "must belong to you"):
        recorded_task(NAME)


def test_settings_that_are_no_file_do_not_make_it_wait(evil, settings):
    file = settings("")
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(UserError, match="not a regular file"):
        recorded_task(NAME)


def test_a_long_name_is_cut_in_its_refusal(evil):
    with pytest.raises(UserError, match="if you trust it") as refusal:
        recorded_task("a" * 100_000 + ":x")
    assert len(str(refusal.value)) < 1000


def test_settings_are_looked_for_at_home_and_nowhere_else(monkeypatch, evil):
    monkeypatch.setenv("HOME", "/home/somebody")
    for there in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", there)
        assert settings_file() == Path("/home/somebody/.config/jax-revinc/settings.toml")
    monkeypatch.setenv("HOME", "/dev/null")
    assert trusted_modules() == ()

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert settings_file() is None
    with pytest.raises(UserError, match="if you trust it"):
        recorded_task(NAME)


def test_a_recorded_field_that_its_class_can_t_take_is_one_sentence(
    evil, sections, refuses_in_one_line
):
    find_task(NAME)
    for value in ("3", None, [], {}, [[]], 1.5, -1):
        broken = small(sections) | {"task": {"name": NAME, "n": value}}
        with refuses_in_one_line(UserError, NAME):
            TrainConfig.from_dict(broken)


def test_a_task_that_is_a_preset_of_ones_own_is_as_it_was(evil, tutorial):
    task = find_task(NAME)(n=3)
    cfg = dataclasses.replace(tutorial, task=task, train_fraction=0.7, batch_size=1)
    assert TrainConfig.from_dict(cfg.to_dict()) == cfg
