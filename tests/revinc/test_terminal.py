"""What commands print: strings as text, in every encoding, and nothing to a reader who has gone."""

import io
import logging
import os
import sys
import warnings

import pytest
from rich.table import Table

from revinc import terminal
from revinc.command_errors import run_command
from revinc.errors import UserError
from revinc.progress_output import Reporter
from revinc.terminal import PlainConsole, PlainFormatter, PlainParser, plain_output, styled

ODD = "[/b][red]:smile:\x1b[31m\n"
SHOWN = r"[/b][red]:smile:\x1b[31m\n"


@pytest.fixture
def printed():
    """A function that says what a console of a terminal or of none prints by a function."""

    def capture(print_on, **settings):
        console = PlainConsole(width=100, color_system=None, **settings)
        with console.capture() as captured:
            print_on(console)
        return captured.get()

    return capture


@pytest.mark.parametrize("terminal", [True, False])
def test_a_string_is_printed_as_it_is_on_one_line(printed, terminal):
    said = printed(lambda console: console.print(ODD, styled(ODD)), force_terminal=terminal)
    assert said == f"{SHOWN} {SHOWN}\n"


@pytest.mark.parametrize(
    ("where", "has_widgets", "shown"),
    [("terminal", False, True), ("jupyter", True, True), ("jupyter", False, False)],
)
def test_bars_are_shown_where_rich_can_draw_them(monkeypatch, where, has_widgets, shown):
    monkeypatch.setattr(terminal, "find_spec", lambda name: has_widgets or None)
    console = PlainConsole(**{f"force_{where}": True})
    assert console.progress().disable != shown


def test_a_file_shows_no_bars():
    assert PlainConsole(file=io.StringIO()).progress().disable


def test_strings_in_tables_are_text(printed):
    table = Table(ODD, title=ODD, caption=ODD)
    table.add_column(ODD, footer=ODD)
    table.add_row(ODD, ODD)
    said = printed(lambda console: console.print(table, ODD, sep="\n"))
    assert said.count(SHOWN) == 7
    assert "\x1b" not in said


def test_what_goes_on_is_text_too(printed):
    def wait(console):
        with console.status(ODD):
            pass

    assert SHOWN in printed(wait, force_terminal=True)


def test_a_style_is_ours(printed):
    console = PlainConsole(force_terminal=True, color_system="standard", width=80)
    with console.capture() as captured:
        console.print(styled("[x]"))
    assert captured.get() == "\x1b[1m[x]\x1b[0m\n"


def test_a_reporter_says_one_line(capsys):
    Reporter().say(ODD)
    assert capsys.readouterr().out == f"{SHOWN}\n"


def parser_of(command):
    parser = PlainParser(prog="program")
    parser.add_argument("--number", type=int)
    parser.set_defaults(command=command)
    return parser


def test_what_goes_wrong_is_one_line_of_text(capsys):
    def command(_):
        raise UserError(ODD)

    assert run_command(parser_of(command), []) == 2
    assert capsys.readouterr().err == f"program: {SHOWN}\n"


def test_what_was_typed_is_shown_as_text(capsys):
    with pytest.raises(SystemExit):
        run_command(parser_of(print), [ODD])
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"unrecognized arguments: {SHOWN}")


def test_warnings_and_log_lines_are_text_on_one_line(capsys):
    def command(_):
        print(warnings.formatwarning(UserWarning(ODD), UserWarning, "file.py", 1), end="")

    usual = warnings.formatwarning
    assert run_command(parser_of(command), []) == 0
    assert warnings.formatwarning is usual
    assert capsys.readouterr().out == f"UserWarning: {SHOWN}\n"
    record = logging.LogRecord("name", logging.INFO, "file.py", 1, "Found %s", (ODD,), None)
    assert PlainFormatter("%(message)s").format(record) == f"Found {SHOWN}"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_encoding_of_the_output_fails(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    with plain_output():
        PlainConsole().print("x → y …\udcff")
        print("日本")
    sys.stdout.flush()
    assert written.getvalue() == b"x \\u2192 y \\u2026\\xff\n\\u65e5\\u672c\n"


def by_console(_):
    console = PlainConsole()
    for _ in range(3):
        console.print("x")


def by_print(_):
    print("x")


def much(_):
    print("x" * 10**6)


@pytest.mark.parametrize("command", [by_console, by_print, much])
@pytest.mark.parametrize("argv", [[], ["--help"]], ids=["command", "help"])
def test_a_command_whose_reader_has_gone_ends_in_silence(monkeypatch, capsys, command, argv):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run_command(parser_of(command), argv) == 141
        stream.flush()  # as the interpreter does at its end
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
