"""Many seeds of the reference: each is the run of its seed, and whatever stops them loses none that ended."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from revinc import PRESETS, TrainConfig, UserError
from revinc.command_errors import run_command
from revinc.engine import METRICS
from revinc.seed_outcomes import Outcomes
from revinc.trainer import Diverged
from torch_reference import train, train_many_seeds
from torch_reference.__main__ import make_parser

CFG = TrainConfig(steps=6, eval_every=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A file of seeds 1 and 2, in a folder that was not there."""
    out = tmp_path_factory.mktemp("population") / "new" / "folder" / "seeds.parquet"
    train_many_seeds.train_population(CFG, [2, 1], out, jobs=1, command="the first command")
    return out


@pytest.fixture
def file(finished, tmp_path):
    """A copy of it."""
    copy = tmp_path / "seeds.parquet"
    copy.write_bytes(finished.read_bytes())
    return copy


@pytest.fixture
def command(monkeypatch):
    """A function that calls the command on a recipe of a few steps and returns its exit status."""
    monkeypatch.setitem(PRESETS, "tutorial", CFG)

    def call(out, *flags):
        argv = ["population", "--preset", "tutorial", "--out", str(out), *flags]
        return run_command(make_parser(), argv)

    return call


def test_an_outcome_is_that_of_the_run_of_its_seed(finished, tmp_path):
    run = train(CFG.with_seed(2), tmp_path / "run", device="cpu")
    row = Outcomes.load(finished).table.set_index("seed").loc[2]
    np.testing.assert_array_equal(row["losses"], run.losses["loss"])
    for metric in METRICS:
        np.testing.assert_array_equal(row[metric], run.metrics[metric])


def test_the_file_says_how_it_was_made(finished):
    outcomes = Outcomes.load(finished)
    assert outcomes.config == CFG
    assert outcomes.made_by["command"] == "the first command"
    assert {"torch", "transformer-lens", "cpu", "numpy"} <= outcomes.made_by.keys()


def test_the_command_keeps_the_seeds_that_are_there(command, file, capsys):
    before = Outcomes.load(file).table
    assert command(file, "--seeds", "3", "--jobs", "1") == 0
    assert re.search(rf"3 seeds in {file}; \d+\.\d% reach 100%", capsys.readouterr().out)

    after = Outcomes.load(file)
    written = "python -m torch_reference population --preset tutorial --seeds 3"
    assert after.made_by["command"] == written
    assert after.table["seed"].tolist() == [0, 1, 2]
    for column in ("losses", *METRICS):
        np.testing.assert_array_equal(np.stack(before[column]), np.stack(after.table[column][1:]))


def test_seeds_that_are_all_there_change_nothing(file):
    before = file.read_bytes()
    train_many_seeds.train_population(CFG, [1], file, jobs=1, command="the second command")
    assert file.read_bytes() == before


def test_another_recipe_is_refused(file):
    before = file.read_bytes()
    other = dataclasses.replace(CFG, lr=0.5)
    with pytest.raises(
        UserError,
        match=r"holds outcomes of another training config or version \(lr: 0\.01 here, 0\.5 there\)",
    ):
        train_many_seeds.train_population(other, range(3), file, jobs=1, command="")
    assert file.read_bytes() == before


@pytest.mark.parametrize("part", train_many_seeds.DECISIVE)
def test_seeds_of_another_torch_or_processor_are_not_mixed_in(file, part):
    outcomes = Outcomes.load(file)
    dataclasses.replace(outcomes, made_by=outcomes.made_by | {part: "0.5"}).save(file)
    with pytest.raises(UserError, match=rf"{part}: 0\.5 here, .* there"):
        train_many_seeds.train_population(CFG, range(3), file, jobs=1, command="")


@pytest.mark.slow
def test_a_run_that_diverges_ends_the_others(tmp_path):
    wild = dataclasses.replace(CFG, steps=10_000, lr=1e30)
    started = time.monotonic()
    with pytest.raises(Diverged, match="NaN or infinite at step"):
        train_many_seeds.train_population(wild, range(100), tmp_path / "out", jobs=1, command="")
    assert time.monotonic() - started < 60
    assert not (tmp_path / "out").exists()


def refusal(capsys):
    """What was said on stderr, once it is sure that it is one sentence of the program's."""
    said = capsys.readouterr().err
    assert said.startswith("python -m torch_reference: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("flag", ["--seeds", "--jobs"])
@pytest.mark.parametrize("number", ["0", "-3"])
def test_no_seeds_and_no_jobs_are_refused(command, tmp_path, capsys, flag, number):
    assert command(tmp_path / "out", "--seeds", "2", flag, number) == 2
    assert f"{flag[2:]} must be at least 1, not {number}" in refusal(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", ["many", "1.5", ""])
def test_seeds_that_are_no_number_are_refused(command, tmp_path, capsys, number):
    with pytest.raises(SystemExit) as left:
        command(tmp_path / "out", "--seeds", number)
    assert left.value.code == 2
    assert f"invalid int value: '{number}'" in capsys.readouterr().err


def test_a_damaged_file_is_refused_and_left_alone(command, file, capsys):
    file.write_bytes(file.read_bytes()[:1000])
    assert command(file, "--seeds", "3") == 2
    assert f"{file} holds no training outcomes that can be read" in refusal(capsys)
    assert file.stat().st_size == 1000


def test_a_folder_as_the_file_is_refused(command, tmp_path, capsys):
    assert command(tmp_path, "--seeds", "3") == 2
    assert f"{tmp_path} holds no training outcomes that can be read" in refusal(capsys)


def test_a_file_as_the_folder_is_refused(command, file, capsys):
    assert command(file / "seeds.parquet", "--seeds", "3") == 2
    assert str(file) in refusal(capsys)


SLOW = """
from pathlib import Path
from revinc import PRESETS, TrainConfig
from revinc.command_errors import run_command
from torch_reference.__main__ import make_parser

if __name__ == "__main__":
    PRESETS["tutorial"] = TrainConfig(steps=100)
    argv = ["population", "--seeds", "1000", "--jobs", "1", "--out", "seeds.parquet"]
    raise SystemExit(run_command(make_parser(), argv))
"""


@pytest.fixture
def running(tmp_path):
    """The command in a process group of its own, once it has written its first seeds."""
    (tmp_path / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "slow.py"],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "seeds.parquet").exists():
        assert time.monotonic() < deadline, "no seed was written"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    yield process
    with_group(process, signal.SIGKILL)
    process.wait()


def with_group(process, number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_stops_it_leaves_the_seeds_that_ended(running, tmp_path, number):
    with_group(running, number)
    _, said = running.communicate(timeout=30)
    seeds = Outcomes.load(tmp_path / "seeds.parquet").table["seed"].tolist()
    assert seeds == list(range(len(seeds)))
    assert len(seeds) > 0
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert said == "python -m torch_reference: interrupted\n"
