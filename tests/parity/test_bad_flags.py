"""Whatever a flag is given, the command ends in a sentence."""

from __future__ import annotations

import pytest
from bad_values import assert_refused, flags_of, trials

from parity import __main__ as command
from revinc import UserError
from revinc.command_errors import run_command


def would_check(*args, **flags):
    raise UserError("this would be checked")


@pytest.fixture
def run_cli(capsys):
    """A function that runs the command line in this process: its status, and what it said."""

    def run(*argv):
        capsys.readouterr()
        try:
            status = run_command(command.make_parser(), list(argv))
        except SystemExit as stop:  # argparse
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return run


def test_no_text_for_a_flag_ends_in_a_traceback(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "check", would_check)
    for flag, text in trials(flags_of(run_cli, "check"), per_flag=100):
        assert_refused(run_cli, "check", f"{flag}={text}")
    for argv in (
        ["check", ""],
        ["check", "a\0b"],
        ["check", "nowhere"],
        ["check", "--levels", "L9"],
    ):
        assert_refused(run_cli, *argv)
    assert list(tmp_path.iterdir()) == []
