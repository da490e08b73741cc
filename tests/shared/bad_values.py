"""Texts that make no sense for most flags, and what a command may answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

BAD_TEXTS = (
    *("", " ", "\t", "\n", "a\nb", "\0", "a\0b", "\x1b[31m", "[/b]", "[bold]", "é", "\u0967", "½", "²", "٣", "Ⅷ"),
    *("x", "X" * 10_000, "nan", "-nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e-400", "1e3"),
    *("1.5", "-1", "-1.5", "-1e-9", ".", "1.", "1..2", "1_", "_1", "1__0", "0x10", "0b1", "0o7", "1j"),
    *("1e", "e1", "1,", ",1", ",", "1,2,x", "1;2", "1:", ":1", ":", "1:2:3", "5:1", "-3:-1", "1 2"),
    *("--", "-", "+", "++1", "--1", "~", "*", "?", "#", "%", "%s", "%(prog)s", "{}", "[]", "()", "{0}"),
    *("null", "true", "True", "false", "$(id)", "`id`", "$HOME", "\\", "'", '"', "'1'", '"1"'),
    *("../..", "/dev/null/x", "/proc/self/mem", "file:///x", "x/" * 200, "every:0", "every:-1", "every:"),
    *("every:x", "each:1", "every:1:2", "2147483648", "4294967296", "18446744073709551616", "9" * 40),
    *("9" * 400, "9" * 5000, "-" + "9" * 400, "1e" + "9" * 400, "ReLU", "LNN", "float16", "adamm"),
)  # fmt: skip


def flags_of(run: Callable[..., tuple[int, str, list[str]]], command: str) -> list[str]:
    """The flags of a subcommand that take a value, by its help."""
    status, out, _ = run(command, "--help")
    assert status == 0
    return re.findall(r"^  (--[a-z0-9-]+) [A-Z{]", out, re.MULTILINE)


def trials(flags: list[str], per_flag: int) -> Iterator[tuple[str, str]]:
    """Flags with texts, all of them in turn, so that few for each flag are still many kinds."""
    place = 0
    for flag in flags:
        for _ in range(min(per_flag, len(BAD_TEXTS))):
            yield flag, BAD_TEXTS[place % len(BAD_TEXTS)]
            place += 1


def assert_refused(run: Callable[..., tuple[int, str, list[str]]], *argv: str) -> None:
    """A command ends with the status 2, and a sentence of ours alone, or of argparse below its usage."""
    said = argv[-1][:60]
    status, _, err = run(*argv)
    assert status == 2, said
    assert err, said
    text = "\n".join(err)
    assert "Traceback" not in text, said
    assert err[0].startswith("usage: ") or len(text) < 2000, said
