"""What a person waits for is timed from the start of a process, in turn, beside importing JAX."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import start
from benchmarks.tables import waiting_sheet
from revinc.runs import REPORT, WEIGHTS


@pytest.fixture
def processes(monkeypatch):
    """The commands that would be run, with their environment; a training writes its files at once."""
    commands = []

    def run(arguments, environment):
        commands.append((arguments, environment))
        if "train" in arguments:
            out = Path(arguments[arguments.index("--out") + 1])
            out.mkdir(parents=True)
            for name, age in ((WEIGHTS, 5), (REPORT, 7)):
                (out / name).touch()
                at = (out / name).stat().st_mtime + age
                os.utime(out / name, (at, at))
            Path(environment["JAX_REVINC_CACHE"]).mkdir(exist_ok=True)

    monkeypatch.setattr(start, "run", run)
    return commands


def test_every_event_is_timed_once_per_round_and_importing_jax_comes_first(processes, tmp_path):
    turns = []
    seconds = start.time_starts(["--steps", "9"], 2, tmp_path, turns.append)
    assert next(iter(seconds)) == start.REFERENCE
    assert {len(of_title) for of_title in seconds.values()} == {2}
    assert len(turns) == 2 * len(start.contenders([], tmp_path))
    assert seconds[f"the page alone, engine xla, {start.WARM}"] == pytest.approx([2, 2], abs=0.1)
    for arguments, _ in processes:
        assert "train" not in arguments or list(arguments[-2:]) == ["--steps", "9"]


def test_cold_starts_have_empty_caches_and_warm_ones_are_run_before(processes, tmp_path):
    cold = start.of_training("xla", [], tmp_path, cold=True)
    assert all(start.COLD in title for title in cold)
    assert len(processes) == 1
    start.of_training("xla", [], tmp_path, cold=False)
    assert len(processes) == 3
    caches = [environment["JAX_REVINC_CACHE"] for _, environment in processes]
    assert caches[0] != caches[1] == caches[2]


def test_a_command_that_fails_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        start.run(["-c", "raise SystemExit(3)"], {})


def test_ratios_are_taken_within_a_round():
    sheet = waiting_sheet({"import jax": [1.0, 2.0, 4.0], "the page": [3.0, 4.0, 20.0]})
    assert [row[-1] for row in sheet.rows] == ["1", "3"]
