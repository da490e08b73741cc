from __future__ import annotations

import json
import os

import pytest

from revinc import UserError
from revinc.json_records import MOST_BYTES, read_checked_record, read_record, write_record


def read(file):
    return read_checked_record(file, "collection", 3, needed=("engine",))


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = {"format_version": 3, "engine": {"name": "x"}, "more": [1, 2]}
    write_record(tmp_path / "c.json", record)
    assert read(tmp_path / "c.json") == record
    assert read_record(tmp_path / "c.json", "collection") == record
    assert [file.name for file in tmp_path.iterdir()] == ["c.json"]


NO_TEXTS = (None, 5, [], "xla", {"name": 5}, {"name": None}, {"name": {}})


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "damaged"),
        ('{"format_version": 3, "eng', "damaged"),
        ("[]", "damaged"),
        ("3", "damaged"),
        ('{"engine": {}}', "format_version"),
        (json.dumps({"format_version": 3}), "has no section engine"),
        (json.dumps({"format_version": 4, "engine": {}}), "format version 4"),
        (json.dumps({"format_version": True, "engine": {}}), "format version True"),
        (json.dumps({"format_version": 3.0, "engine": {}}), "format version 3.0"),
        (json.dumps({"format_version": [3] * 1000, "engine": {}}), "format version [3"),
        *(
            (json.dumps({"format_version": 3, "engine": bad}), "engine must hold")
            for bad in NO_TEXTS
        ),
        ('{"format_version": 3, "engine": {}, "x": ' + "[" * 200_000 + "]" * 200_000 + "}", "deep"),
        ('{"x": ' * 200_000, "deep"),
        ('{"format_version": 3, "engine": {}, "x": ' + "7" * 400 + "}", "400 digits"),
        ('{"format_version": 3, "engine": {}, "x": ' + "7" * 5000 + "}", "5000 digits"),
        ('{"format_version": 3, "format_version": 3, "engine": {}}', "twice"),
        ('{"format_version": 3, "engine": {}, "x": "\\ud800"}', "surrogates"),
        (" " * (MOST_BYTES + 1), "larger than 16 MiB"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(tmp_path, text, phrase, refuses_in_one_line):
    file = tmp_path / "c.json"
    file.write_text(text)
    with refuses_in_one_line(UserError, file, phrase):
        read(file)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_a_record_in_another_encoding_is_refused(tmp_path, encoding, refuses_in_one_line):
    file = tmp_path / "c.json"
    file.write_bytes('{"format_version": 3, "engine": {"name": "\u00e9"}}'.encode(encoding))
    with refuses_in_one_line(UserError, file, "damaged"):
        read(file)


@pytest.mark.parametrize("make", [lambda file: file.mkdir(), os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_no_record(tmp_path, make, refuses_in_one_line):
    make(tmp_path / "c.json")
    with refuses_in_one_line(UserError, "is not a collection folder"):
        read(tmp_path / "c.json")


def test_a_folder_without_its_record_is_named(tmp_path, refuses_in_one_line):
    with refuses_in_one_line(UserError, f"{tmp_path} is not a collection folder", "c.json"):
        read(tmp_path / "c.json")
