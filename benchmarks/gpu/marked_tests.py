"""The stage of the tests marked ``gpu``."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.failure import StageFailed
from benchmarks.gpu.process import run_process
from benchmarks.gpu.stages import Findings, Setting, Stage
from revinc.errors import several

CHECKOUT = Path(__file__).parents[2]
MARK = "mark.gpu"
"""What a file with such a test has in its text."""


def run_marked_tests(setting: Setting) -> Findings:
    """Run the tests; without a GPU each must skip itself.

    Raises:
        StageFailed: if one fails, or none runs; on a GPU also if one is skipped.
    """
    files = [f for f in sorted(CHECKOUT.glob("tests/**/test_*.py")) if MARK in f.read_text()]
    told = setting.home / "tests.xml"
    words = ["-m", "gpu", f"--rootdir={CHECKOUT}", f"--junitxml={told}", *map(str, files)]
    status = run_process("pytest", *words)
    if not told.exists():
        raise StageFailed(f"pytest ended with status {status} before it ran a test")
    return judge(told.read_text(), status, setting.sizes.dry_run)


def judge(told: str, status: int, dry_run: bool) -> Findings:
    """Read pytest's results.

    Args:
        told: pytest's XML.
        status: pytest's exit status.
        dry_run: whether the tests are meant to be skipped.

    Raises:
        StageFailed: as `run_marked_tests`.
    """
    cases = list(ElementTree.fromstring(told).iter("testcase"))
    failed = having(cases, "failure") + having(cases, "error")
    skipped = having(cases, "skipped")
    if failed:
        raise StageFailed(f"{len(failed)} of {len(cases)} tests failed: {several(failed)}")
    if status or not cases:
        raise StageFailed(f"pytest ended with status {status} after {len(cases)} tests")
    if not dry_run and skipped:
        raise StageFailed(f"{len(skipped)} of {len(cases)} tests skipped: {several(skipped)}")
    if dry_run:
        return Findings([f"{len(skipped)} of {len(cases)} tests were not run: they need a GPU"])
    return Findings([f"{len(cases)} tests passed"])


def having(cases: list[ElementTree.Element], outcome: str) -> list[str]:
    """The names of the tests with an outcome."""
    return [case.get("name", "") for case in cases if case.find(outcome) is not None]


MARKED_TESTS = Stage("tests", "runs the tests that need a GPU", run_marked_tests)
