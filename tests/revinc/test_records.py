from __future__ import annotations

import json

import pytest

from revinc import UserError
from revinc.records import read_checked_record, read_record, write_record


def read(file):
    return read_checked_record(file, "collection", 3, needed=("engine",))


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = {"format_version": 3, "engine": {"name": "x"}, "more": [1, 2]}
    write_record(tmp_path / "c.json", record)
    assert read(tmp_path / "c.json") == record
    assert read_record(tmp_path / "c.json", "collection") == record
    assert [file.name for file in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "damaged"),
        ('{"format_version": 3, "eng', "damaged"),
        ("[]", "damaged"),
        ("3", "damaged"),
        ('{"engine": {}}', "format_version"),
        (json.dumps({"format_version": 3}), "engine is missing"),
        (json.dumps({"format_version": 4, "engine": {}}), "format version 4"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(tmp_path, text, phrase, refuses_in_one_line):
    file = tmp_path / "c.json"
    file.write_text(text)
    with refuses_in_one_line(UserError, file, phrase):
        read(file)


def test_a_folder_without_its_record_is_named(tmp_path, refuses_in_one_line):
    with refuses_in_one_line(UserError, f"{tmp_path} is no collection folder", "c.json"):
        read(tmp_path / "c.json")
