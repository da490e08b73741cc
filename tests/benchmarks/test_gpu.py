import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.contenders.torch_graph import GraphedStep
from benchmarks.contenders.torch_module import Eager
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import parity_levels, same_bits
from benchmarks.gpu.check_levels import in_a_sentence
from benchmarks.gpu.failure import StageFailed
from benchmarks.gpu.marked_tests import judge
from benchmarks.gpu.page import PAGE, paragraphs
from benchmarks.gpu.process import in_a_process
from benchmarks.gpu.record import FILE, Record
from benchmarks.gpu.sizes import FULL, TINY
from benchmarks.gpu.stages import Findings, Outcome, Setting, Stage
from benchmarks.gpu.table import tutorial_contenders
from benchmarks.same_training import first_batches
from jax_revinc.training import draw_weights
from parity.levels import Level
from revinc import UserError
from revinc.terminal import PlainConsole

ON_CPU = {"JAX sees": "cpu: cpu", "torch sees": "cpu"}
ON_GPU = {"JAX sees": "gpu: a test's card", "torch sees": "a test's card"}


@pytest.fixture
def make_record(make_entry):
    """A function that makes a record of made-up outcomes from the failure of the last one."""

    def make(failure="", **more):
        entries = [make_entry("jax-loop", "jax", [1e-4, 2e-4]), make_entry("b", "torch", [1, 2])]
        outcomes = [
            Outcome("tests", 3.0, remarks=["12 tests passed"]),
            Outcome("table", 70.0, failure, ["medians"], entries),
        ]
        stages = {"tests": "tests it", "table": "times it", "grokking": "times that"}
        given = {"command": "make gpu", "dry_run": False, "machine": ON_GPU, "stages": stages}
        return Record(**given | {"outcomes": outcomes} | more)

    return make


@pytest.fixture
def setting(tmp_path):
    return Setting(TINY, tmp_path, PlainConsole())


@pytest.fixture
def on_a_card(monkeypatch):
    """A function that has the command find a card, and leaves the environment alone."""

    def found(card, *stages):
        monkeypatch.setattr(command, "in_a_process", lambda function: dict(card))
        monkeypatch.setattr(command, "SHARED", {})
        monkeypatch.setattr(command, "WITHOUT_GPU", {})
        monkeypatch.setattr(command, "STAGES", stages)

    return found


@pytest.mark.slow
def test_a_dry_run_passes_every_stage_and_writes_both_files(tmp_path):
    words = ["--dry-run", "--out", str(tmp_path)]
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    record = Record.load(tmp_path)
    assert record.dry_run
    assert [outcome.name for outcome in record.outcomes] == [s.name for s in command.STAGES]
    assert not any(outcome.failure for outcome in record.outcomes)
    page = (tmp_path / PAGE).read_text()
    assert "no number here says anything about a GPU" in page
    assert "tests were not run: they need a GPU" in page
    assert "the CUDA graph was not run: needs CUDA" in page
    for contender in tutorial_contenders(TINY):
        assert f"| {contender.title} | {contender.width} |" in page


def test_the_first_stage_that_fails_ends_the_command(on_a_card, tmp_path, capsys):
    asked = []

    def fine(setting):
        asked.append("fine")
        return Findings(["it is fine"])

    def broken(setting):
        asked.append("broken")
        raise StageFailed("it is broken")

    names = {"fine": fine, "broken": broken, "later": fine}
    on_a_card(ON_GPU, *(Stage(name, f"asks {name}", ask) for name, ask in names.items()))
    assert command.main(["--out", str(tmp_path / "new")]) == 1
    assert asked == ["fine", "broken"]
    assert capsys.readouterr().err == (
        "python -m benchmarks.gpu: the stage broken failed: it is broken\n"
    )
    outcomes = Record.load(tmp_path / "new").outcomes
    assert [(o.name, o.failure) for o in outcomes] == [("fine", ""), ("broken", "it is broken")]
    page = (tmp_path / "new" / PAGE).read_text()
    assert "- it is fine" in page
    assert "| broken: asks broken | FAILED |" in page
    assert "**Failed**: it is broken" in page
    assert "| later: asks later | not begun |" in page


def test_any_error_of_a_stage_is_a_sentence(on_a_card, tmp_path, capsys):
    def broken(setting):
        raise RuntimeError("CUDA_ERROR\nof some kind")

    on_a_card(ON_GPU, Stage("odd", "is odd", broken))
    assert command.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("RuntimeError: CUDA_ERROR of some kind\n")


@pytest.mark.parametrize(
    ("card", "blind"),
    [
        (ON_CPU, "JAX and torch"),
        (ON_GPU | {"torch sees": "cpu"}, "torch"),
        (ON_CPU | {"torch sees": "a test's card"}, "JAX"),
    ],
)
def test_without_a_gpu_it_says_what_to_do_and_writes_nothing(
    on_a_card, tmp_path, capsys, card, blind
):
    on_a_card(card)
    assert command.main(["--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert f"gpu: {blind} can't use a GPU here" in said
    assert "--dry-run" in said
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder_for_results(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        command.main(["--out", str(tmp_path / "file")])
    assert stop.value.code == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("failure", ["", "it broke"])
def test_a_record_survives_json(make_record, tmp_path, failure):
    record = make_record(failure)
    record.save(tmp_path)
    assert Record.load(tmp_path) == record


@pytest.mark.parametrize("text", ["{", '{"format_version": 0}', '{"format_version": 1}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError):
        Record.load(tmp_path)


def test_the_page_has_every_stage_contender_and_version(make_record):
    record = make_record()
    page = "\n\n".join(paragraphs(record))
    assert page.startswith("# On a test's card\n")
    for name, what in record.stages.items():
        assert f"| {name}: {what} |" in page
    assert "| tests: tests it | passed | 3 |" in page
    assert "| all |  | 73 |" in page
    for entry in record.outcomes[1].entries:
        assert f"| {entry.title} | {entry.width} |" in page
    for name, value in record.machine.items():
        assert f"| {name} | {value} |" in page
    assert "dry run" not in page


def test_tests_that_pass_are_counted():
    told = (
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"/></testsuite></testsuites>'
    )
    assert judge(told, 0, dry_run=False) == Findings(["2 tests passed"])


@pytest.mark.parametrize(
    ("inside", "status", "dry_run", "said"),
    [
        ('<testcase name="a"><failure/></testcase>', 1, True, "1 of 1 tests failed: a"),
        ('<testcase name="a"><error/></testcase>', 1, False, "1 of 1 tests failed: a"),
        ('<testcase name="a"><skipped/></testcase>', 0, False, "1 of 1 tests skipped: a"),
        ("", 5, False, "status 5 after 0 tests"),
        ('<testcase name="a"/>', 3, False, "status 3 after 1 tests"),
    ],
)
def test_tests_that_fail_or_did_not_run_are_named(inside, status, dry_run, said):
    with pytest.raises(StageFailed, match=said):
        judge(f"<testsuite>{inside}</testsuite>", status, dry_run)


def test_another_process_returns_fails_or_dies():
    assert in_a_process("json:loads", s="[1]") == [1]
    with pytest.raises(StageFailed, match="JSONDecodeError: Expecting value"):
        in_a_process("json:loads", s="x")
    with pytest.raises(StageFailed, match="died with status 3"):
        in_a_process("os:_exit", status=3)


def test_other_bits_fail(monkeypatch, setting):
    hashes = iter(["1" * 64, "2" * 64, "3" * 64, "3" * 64])
    answer = {"device": "a card"}
    monkeypatch.setattr(same_bits, "in_a_process", lambda *_, **__: answer | {"hash": next(hashes)})
    with pytest.raises(StageFailed, match=r"different weights: .* 111111111111 and 222222222222"):
        same_bits.train_twice(setting)
    assert "the same bytes" in same_bits.train_twice(setting).remarks[0]


def test_a_level_that_fails_is_named(monkeypatch, setting):
    told = {"device": "gpu: a card", "passed": ["L0 is fine"], "failed": []}
    monkeypatch.setattr(parity_levels, "in_a_process", lambda *_, **__: told)
    assert parity_levels.check_parity(setting).remarks[1:] == ["L0 is fine"]
    told["failed"] = ["L1 is not", "L2 neither"]
    with pytest.raises(StageFailed, match=r"^L1 is not$"):
        parity_levels.check_parity(setting)


@dataclasses.dataclass
class Row:
    name: str
    used: float

    @property
    def passed(self):
        return self.used <= 1


def test_a_level_in_a_sentence():
    rows = [Row("a", 0.25), Row("b", 0.5)]
    assert in_a_sentence(Level("L0", "any", rows)).endswith(
        "2 agree, with at most 0.5 of their bound"
    )
    rows.append(Row("c", np.inf))
    assert in_a_sentence(Level("L0", "any", rows)).endswith("1 of 3 differ, the first is c")
    assert in_a_sentence(Level("L0", "any", [])).endswith("nothing could be compared")


def test_the_full_table_has_the_widths_that_are_asked_for():
    ours = [c.width for c in tutorial_contenders(FULL) if c.framework == "jax"]
    assert ours == [1, 1024, 4096, 65536]
    assert len({c.key for c in tutorial_contenders(FULL)}) == 7


def test_the_step_of_the_cuda_graph_trains_as_the_plain_module_does(tutorial):
    weights = {name: array[None] for name, array in draw_weights(tutorial).items()}
    batches = first_batches(tutorial, [0], n_steps=6)
    graph, plain = GraphedStep(tutorial, captured=False), Eager(tutorial)
    losses = []
    for trainer in (plain, graph, graph):  # started twice: the second forgets the first
        trainer.start(weights)
        losses.append(trainer.advance(batches))
    np.testing.assert_array_equal(losses[1], losses[0])
    np.testing.assert_array_equal(losses[2], losses[0])
