from __future__ import annotations

import pytest

from revinc import UserError
from revinc.folders import LOCK, make_folder, set_aside


def make(path):
    make_folder(path, "collection", "collection.json", {"things", "list.parquet"})


def test_a_folder_and_those_above_are_created(tmp_path):
    make(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_a_folder_of_ours_is_taken_with_whatever_else_it_holds(tmp_path):
    (tmp_path / "collection.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    make(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "names",
    [
        (),
        (LOCK,),
        (LOCK, "things", "collection.json.partial"),
        (LOCK, "list.parquet", "list.parquet.partial"),
        (LOCK, "list.parquet.damaged", "things.damaged.2"),
    ],
)
def test_what_a_process_killed_early_left_is_taken(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    make(tmp_path)


@pytest.mark.parametrize(
    "names",
    [("things",), ("mine.txt",), (LOCK, "mine.txt"), ("x.partial",), (LOCK, "x.damaged")],
)
def test_a_folder_that_holds_what_is_somebody_elses_is_refused(
    tmp_path, names, refuses_in_one_line
):
    for name in names:
        (tmp_path / name).touch()
    with refuses_in_one_line(UserError, tmp_path, "belong to no collection"):
        make(tmp_path)


def test_a_file_is_no_folder(tmp_path, refuses_in_one_line):
    (tmp_path / "file").touch()
    with refuses_in_one_line(UserError, tmp_path / "file", "choose a folder for the collection"):
        make(tmp_path / "file")


def test_what_is_set_aside_takes_the_place_of_nothing(tmp_path):
    (tmp_path / "file.damaged.2").symlink_to("nowhere")
    for content in ("first", "second"):
        (tmp_path / "file").write_text(content)
        set_aside(tmp_path / "file")
    assert (tmp_path / "file.damaged").read_text() == "first"
    assert (tmp_path / "file.damaged.3").read_text() == "second"
    assert not (tmp_path / "file").exists()
