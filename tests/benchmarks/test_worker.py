import io
import json
import sys

import numpy as np
import pytest

from benchmarks.contender import Contender, Job
from benchmarks.entrants import Effort, Race, measure
from benchmarks.same_training import AnotherTraining
from benchmarks.worker import Session, Worker, WorkerFailed, peak_host_bytes, serve

EAGER = Contender(
    "eager",
    "plain torch",
    "benchmarks.contenders.torch_module:Eager",
    "torch",
    options={"threads": 1},
)
NOWHERE = Contender("nowhere", "one that fails", "benchmarks.nowhere:Nothing", "torch")
BRIEF = Effort(rounds=2, seconds=0.0, starts=("cold",))


@pytest.fixture(scope="module")
def race(tutorial, tmp_path_factory):
    return Race(tutorial, 1, tmp_path_factory.mktemp("race"), judged=1)


def test_a_session_trains_what_it_is_asked_for(race):
    session = Session()
    answer = session.answer("first", job=race.job(EAGER).to_dict(), n_steps=4, n_losses=1)
    assert np.shape(answer["losses"]) == (1, 4)
    assert answer["device"] == "cpu"
    assert session.answer("run", n_steps=150)["seconds"] > 0
    assert session.answer("memory") == {"host": peak_host_bytes(), "device": None}


def test_a_job_survives_json(race):
    job = race.job(EAGER)
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_the_other_process_imports_the_task_of_its_job(race, tmp_path, monkeypatch):
    (tmp_path / "sent_task.py").write_text(
        "from dataclasses import dataclass\nfrom revinc.tasks import ReverseIncrement\n"
        "@dataclass(frozen=True)\nclass Mine(ReverseIncrement):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = race.job(EAGER)
    sent = json.loads(json.dumps(job.to_dict()))
    sent["cfg"]["task"]["name"] = "sent_task:Mine"
    assert Job.from_dict(sent).cfg.task.name == "sent_task:Mine"
    del sys.modules["sent_task"]


def test_what_goes_wrong_is_an_answer():
    answers = io.StringIO()
    serve(io.StringIO('{"request": "sing"}\n{"request": "run", "n_steps": 1}\n'), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["error"] == "KeyError: 'sing'"
    assert "AttributeError" in second["error"]


def test_a_process_that_fails_says_why(race, tmp_path):
    with Worker(race.job(NOWHERE), tmp_path) as worker, pytest.raises(WorkerFailed) as failed:
        worker.ask("first", job=worker.job.to_dict(), n_steps=1, n_losses=1)
    assert "No module named 'benchmarks.nowhere'" in str(failed.value)


def test_one_that_may_fail_is_listed_and_the_others_are_timed(tutorial, tmp_path):
    might = Contender("might", "may fail", NOWHERE.make, "torch", may_fail=True)
    absent = Contender("absent", "is missing", NOWHERE.make, "torch", missing="not installed here")
    followed = []
    contenders = [absent, might, EAGER]
    entries = measure(contenders, tutorial, BRIEF, tmp_path, followed.append)
    assert [entry.name for entry in entries] == ["absent", "might", "eager"]
    assert entries[0].missing == "not installed here"
    assert "No module named" in entries[1].missing
    assert len(entries[2].seconds) == BRIEF.rounds
    assert entries[2].steps > 0
    assert entries[2].host_bytes > 2**20
    assert 0 <= entries[2].bound_used <= 1
    assert len(followed) <= 1 + sum(map(BRIEF.steps_of, contenders))


def test_one_that_must_not_fail_is_an_error_that_names_it(tutorial, tmp_path):
    with pytest.raises(WorkerFailed, match="one that fails: ModuleNotFoundError"):
        measure([NOWHERE], tutorial, BRIEF, tmp_path, lambda doing: None)


def test_one_that_trains_otherwise_is_refused_before_it_is_timed(tutorial, tmp_path):
    frozen = {"threads": 1, "frozen": ["unembed.b_U"]}
    impostor = Contender("impostor", "the impostor", EAGER.make, "torch", options=frozen)
    followed = []
    with pytest.raises(AnotherTraining, match="the impostor is another training"):
        measure([impostor], tutorial, BRIEF, tmp_path, followed.append)
    assert not any(doing.startswith("timing") for doing in followed)
