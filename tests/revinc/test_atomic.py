from __future__ import annotations

import errno
import os

import pytest

from revinc.atomic import write_atomically


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("old")
    return tmp_path


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_is_replaced_whole(folder):
    write_atomically(folder / "file", lambda temporary: temporary.write_text("new"))
    write_atomically(folder / "other", lambda temporary: temporary.write_text("first"))
    assert contents(folder) == {"file": "new", "other": "first"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_writer_that_fails_half_way_leaves_the_old_file(folder, error):
    def write_half(temporary):
        temporary.write_text("ne")
        raise error

    with pytest.raises(error):
        write_atomically(folder / "file", write_half)
    assert contents(folder) == {"file": "old"}


def test_nothing_is_replaced_before_the_new_file_is_whole(folder):
    seen = []

    def write(temporary):
        temporary.write_text("new")
        seen.append((folder / "file").read_text())

    write_atomically(folder / "file", write)
    assert seen == ["old"]


def test_a_disk_that_is_full_only_when_flushed_leaves_the_old_file(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(folder / "file", lambda temporary: temporary.write_text("new"))
    assert contents(folder) == {"file": "old"}


def test_a_full_disk_leaves_the_old_file(folder, full_disk):
    with full_disk(n_bytes=5), pytest.raises(OSError, match="File too large"):
        write_atomically(folder / "file", lambda temporary: temporary.write_text("0123456789"))
    assert contents(folder) == {"file": "old"}


def test_a_leftover_of_a_killed_writer_is_no_obstacle(folder):
    temporaries = []

    def write(temporary):
        temporaries.append(temporary)
        temporary.write_text("new")

    write_atomically(folder / "other", write)
    temporaries[0].write_text("a leftover, longer than what follows")
    write_atomically(folder / "other", write)
    assert contents(folder) == {"file": "old", "other": "new"}
