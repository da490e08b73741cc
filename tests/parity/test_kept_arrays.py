"""What torch computed is read again only if it is whole, ours, and of the same computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parity import kept_arrays
from parity.kept_arrays import KEPT, kept

GIVEN = {"config": {"lr": 0.1}, "weights": np.arange(3.0)}
ARRAYS = {"a": np.arange(6.0).reshape(2, 3)[:, ::2], "jitter/b": np.array(np.nan)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the kept arrays."""
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "torch"


@pytest.fixture
def compute():
    """A function that returns the arrays, and counts its calls as `compute.calls`."""

    def compute():
        compute.calls += 1
        return ARRAYS

    compute.calls = 0
    return compute


def same(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    return True


def test_arrays_are_computed_once(folder, compute):
    assert same(kept("x", GIVEN, compute))
    assert same(kept("x", GIVEN, compute))
    assert compute.calls == 1
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("y", GIVEN),
        ("x", GIVEN | {"config": {"lr": 0.2}}),
        ("x", GIVEN | {"weights": np.array([0.0, 1.0, np.nextafter(2.0, 3.0)])}),
        ("x", GIVEN | {"weights": np.arange(3.0, dtype=np.float32)}),
    ],
)
def test_what_is_given_decides(folder, compute, what, given):
    kept("x", GIVEN, compute)
    kept(what, given, compute)
    assert compute.calls == 2


def test_versions_source_processor_and_threads_decide(folder, compute, monkeypatch):
    kept("x", GIVEN, compute)
    for name in ("installed_versions", "source_digest"):
        with monkeypatch.context() as patch:
            patch.setattr(kept_arrays, name, lambda *_: "another")
            kept("x", GIVEN, compute)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        kept("x", GIVEN, compute)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        kept("x", GIVEN, compute)
    assert compute.calls == 5
    kept("x", GIVEN, compute)
    assert compute.calls == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\0"),
        lambda file: file.write_bytes(b""),
        lambda file: file.rename(file.with_name(file.name.replace("-", "-0", 1))),
        lambda file: file.chmod(0o666),
        lambda file: (file.unlink(), file.symlink_to("/etc/hostname")),
    ],
    ids=["shortened", "changed", "empty", "renamed", "of others", "link"],
)
def test_a_damaged_or_foreign_file_is_made_anew(folder, compute, damage):
    kept("x", GIVEN, compute)
    (file,) = folder.iterdir()
    damage(file)
    assert same(kept("x", GIVEN, compute))
    assert compute.calls == 2
    assert same(kept("x", GIVEN, compute))
    assert compute.calls == 2


def test_a_folder_that_cannot_be_used_costs_time_only(folder, compute, caplog):
    folder.parent.mkdir()
    folder.write_text("no folder")
    assert same(kept("x", GIVEN, compute))
    assert folder.read_text() == "no folder"
    assert "What torch computed is not kept for the next check: " in caplog.text


def test_the_files_that_were_written_last_stay(folder, compute):
    for number in range(KEPT + 3):
        kept("x", {"number": number}, compute)
    assert len(list(folder.iterdir())) == KEPT
    kept("x", {"number": KEPT + 2}, compute)
    assert compute.calls == KEPT + 3


def test_large_arrays_are_not_kept(folder, compute, monkeypatch):
    monkeypatch.setattr(kept_arrays, "MOST_BYTES", 10)
    assert same(kept("x", GIVEN, compute))
    assert not list(folder.iterdir())


def test_what_fails_is_not_kept(folder):
    def fails():
        raise OSError("torch is gone")

    with pytest.raises(OSError, match="torch is gone"):
        kept("x", GIVEN, fails)
    assert not list(folder.iterdir())
