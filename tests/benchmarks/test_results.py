import json

import pytest

from benchmarks.results import FILE, Results
from revinc import UserError


def test_results_come_back_from_json(results, tmp_path):
    results.save(tmp_path)
    assert Results.load(tmp_path) == results


def test_json_holds_every_time(results, tmp_path):
    results.save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    assert content["entries"][0]["seconds"] == [4e-2, 6e-2]
    assert content["whole_runs"]["JAX"] == [3.0, 4.0]


def test_another_format_is_refused(results, tmp_path):
    results.save(tmp_path)
    text = (tmp_path / FILE).read_text().replace('"format_version": 1', '"format_version": 2')
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="another format"):
        Results.load(tmp_path)


def test_missing_results_are_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Results.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": 1}', '{"x": ' * 100_000])
def test_damaged_results_are_the_users_to_mend(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        Results.load(tmp_path)


def test_results_that_lack_a_part_are_the_users_to_mend(results, tmp_path):
    results.save(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {"entries": [{"key": "x"}]}))
    with pytest.raises(UserError, match="damaged"):
        Results.load(tmp_path)
