from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

from revinc import provenance


def test_versions_are_those_installed():
    versions = provenance.installed_versions()
    assert versions["numpy"] == np.__version__
    assert "jax-revinc" in versions
    assert set(versions) <= set(provenance.RECORDED_PACKAGES)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "RECORDED_PACKAGES", ("numpy", "no-such-package-at-all"))
    assert list(provenance.installed_versions()) == ["numpy"]


@pytest.mark.parametrize(
    "change",
    [
        lambda package: (package / "part.py").write_text("b = 2"),
        lambda package: (package / "part.py").rename(package / "other.py"),
        lambda package: (package / "sub" / "more.py").write_text(""),
    ],
    ids=["edited", "renamed", "added"],
)
def test_the_digest_of_source_is_another_after_any_change(tmp_path, monkeypatch, change):
    package = tmp_path / "a_package_of_tests"
    (package / "sub").mkdir(parents=True)
    for name in ("__init__.py", "part.py"):
        (package / name).write_text("a = 1")
    monkeypatch.syspath_prepend(tmp_path)

    def digest():
        provenance.source_digest.cache_clear()
        return provenance.source_digest("revinc", package.name)

    before = digest()
    (package / "notes.txt").write_text("no source")
    assert digest() == before
    change(package)
    assert digest() != before


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A function that runs git in a checkout that takes the place of this program's."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "revinc" / "provenance.py"))

    def git(*command):
        me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        return subprocess.run(
            ["git", *me, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    return git


def test_a_commit_is_named_and_whether_the_source_was_changed_since(source, tmp_path):
    source("init", "-q")
    (tmp_path / "code.py").write_text("a = 1")
    source("add", "code.py")
    source("commit", "-qm", "first")
    source("tag", "v1")
    commit = provenance.source_commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert commit == source("rev-parse", "HEAD")
    (tmp_path / "code.py").write_text("a = 2")
    assert provenance.source_commit() == f"{commit}-dirty"


def test_outside_a_checkout_there_is_no_commit(source):
    assert provenance.source_commit() == ""


def test_without_git_there_is_no_commit(source, monkeypatch):
    source("init", "-q")
    monkeypatch.setenv("PATH", "")
    assert provenance.source_commit() == ""
