"""Names as text: what a terminal would obey is shown, and all else stays."""

import pytest

from revinc.printable_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x7f\x80\x9b31m", r"\x7f\x80\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066\u2069\u200f\u2028", r"\u2066\u2069\u200f\u2028"),
        ("n\udcffx\udc80", r"n\xffx\x80"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_what_a_terminal_obeys_is_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    "text", ["", "x → y … ", "naïve", "日本語", "עברית", "👍🏽", r"a\b", "[/b]<i>"]
)
def test_all_other_characters_stay(text):
    assert printable(text) == text


def test_a_path_is_text_too(tmp_path):
    assert printable(tmp_path / "a\nb") == f"{tmp_path}/a\\nb"
