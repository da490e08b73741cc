from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from revinc.atomic_files import (
    append_bytes,
    remove_leftovers,
    target_of,
    write_atomically,
    write_bytes,
    write_text,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("old")
    return tmp_path


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_is_replaced_whole(folder):
    write_atomically(folder / "file", lambda file: file.write(b"new"))
    write_atomically(folder / "other", lambda file: file.write(b"first"))
    assert contents(folder) == {"file": "new", "other": "first"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_writer_that_fails_half_way_leaves_the_old_file(folder, error):
    def write_half(file):
        file.write(b"ne")
        raise error

    with pytest.raises(error):
        write_atomically(folder / "file", write_half)
    assert contents(folder) == {"file": "old"}


def test_nothing_is_replaced_before_the_new_file_is_whole(folder):
    seen = []

    def write(file):
        file.write(b"new")
        file.flush()
        seen.append((folder / "file").read_text())

    write_atomically(folder / "file", write)
    assert seen == ["old"]


def test_a_disk_that_is_full_only_when_flushed_leaves_the_old_file(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(folder / "file", lambda file: file.write(b"new"))
    assert contents(folder) == {"file": "old"}


def test_a_full_disk_leaves_the_old_file(folder, full_disk):
    with full_disk(n_bytes=5), pytest.raises(OSError, match="File too large"):
        write_atomically(folder / "file", lambda file: file.write(b"0123456789"))
    assert contents(folder) == {"file": "old"}


def write_slowly(letter):
    def write(file):
        for _ in range(20):
            file.write(letter * 5000)
            file.flush()

    return write


def keep_writing(path, letter):
    found = Counter()
    for _ in range(30):
        try:
            write_atomically(path, write_slowly(letter))
        except OSError as error:
            found[type(error).__name__] += 1
        content = path.read_bytes()
        found["torn"] += len(content) != 100_000 or len(set(content)) != 1
    return found


def test_two_writers_of_one_file_never_tear_it(tmp_path):
    with ThreadPoolExecutor() as pool:
        found = sum(pool.map(keep_writing, [tmp_path / "file"] * 2, (b"A", b"B")), Counter())
    assert not found
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def names_while_writing(path):
    """The temporary names that `write_atomically` uses, one at a time."""
    seen = []
    for _ in range(3):
        write_atomically(path, lambda _: seen.append({file.name for file in path.parent.iterdir()}))
    return [name for names in seen for name in names if name != path.name]


def test_a_temporary_name_is_used_once_and_says_what_it_is_of(tmp_path):
    names = names_while_writing(tmp_path / "file")
    assert len(set(names)) == 3
    assert {target_of(name) for name in names} == {"file"}


def test_a_link_at_a_temporary_name_is_not_followed(folder, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
    link = folder / f".other.{'0' * 16}.partial"
    link.symlink_to(folder / "file")
    with pytest.raises(FileExistsError, match="other"):
        write_text(folder / "other", "new")
    assert (folder / "file").read_text() == "old"
    assert link.is_symlink()


def test_a_link_in_the_files_place_is_replaced(folder):
    (folder / "link").symlink_to(folder / "file")
    write_text(folder / "link", "new")
    assert contents(folder) == {"file": "old", "link": "new"}
    assert not (folder / "link").is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_files_mode_is_that_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "ours", b"")
        (tmp_path / "plain").write_bytes(b"")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert len(modes) == 1


@pytest.mark.parametrize("path", ["nowhere/file", "taken"])
def test_an_error_names_the_file(tmp_path, path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        write_text(tmp_path / path, "new")
    assert caught.value.filename == str(tmp_path / path)
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_an_error_about_another_file_stays_its_own(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "file", lambda _: Path("/nowhere").read_bytes())
    assert caught.value.filename == "/nowhere"


def test_a_text_that_is_not_utf_8_is_escaped(tmp_path):
    write_text(tmp_path / "page", "n\udcffx")
    assert (tmp_path / "page").read_text() == "n\\udcffx"


def test_leftovers_are_told_by_their_names_alone(tmp_path):
    dead = [".file.0123456789abcdef.partial", "file.partial"]
    other = [
        ".file.xyz.partial",
        ".file.0123456789abcdef",
        "partial",
        ".other.0123456789abcdef.partial",
    ]
    for name in (*dead, *other):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, {"file"}.__contains__)
    assert contents(tmp_path).keys() == set(other)


def test_bytes_are_appended_to_the_same_file(folder):
    before = (folder / "file").stat().st_ino
    append_bytes(folder / "file", b" and")
    append_bytes(folder / "file", b" new")
    assert contents(folder) == {"file": "old and new"}
    assert (folder / "file").stat().st_ino == before


def test_bytes_are_appended_however_few_are_taken_at_a_time(folder, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:2]))
    append_bytes(folder / "file", b" and new")
    assert contents(folder) == {"file": "old and new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=str)
@pytest.mark.parametrize("name", ["write", "fsync"])
def test_an_append_that_fails_leaves_the_old_end(folder, monkeypatch, name, error):
    write = os.write

    def fails_after_two_bytes(file, content=b""):
        if name == "fsync" or len(content) < len(b" new"):
            raise error
        return write(file, content[:2])

    monkeypatch.setattr(os, name, fails_after_two_bytes)
    with pytest.raises(type(error)) as caught:
        append_bytes(folder / "file", b" new")
    assert contents(folder) == {"file": "old"}
    assert not isinstance(error, OSError) or caught.value.filename == str(folder / "file")


@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_nothing_is_appended_through_a_link(folder, target):
    (folder / "precious").write_text("mine")
    (folder / "link").symlink_to(folder / target)
    with pytest.raises(OSError, match="link"):
        append_bytes(folder / "link", b"new")
    assert (folder / "precious").read_text() == "mine"
    assert not (folder / "nowhere").exists()


def test_nothing_is_appended_to_a_file_that_is_gone(folder):
    with pytest.raises(FileNotFoundError, match="gone"):
        append_bytes(folder / "gone", b"new")
    assert contents(folder) == {"file": "old"}
