"""Kept programs: traced once on a machine, never used for another question, and never trusted if damaged."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax import export

from jax_revinc import HookedTransformerConfig
from jax_revinc.compilation import kept_programs
from jax_revinc.compilation.kept_programs import ENDING, run_kept

CFG = HookedTransformerConfig(n_layers=1, d_model=2, d_head=2, n_heads=1, d_vocab=2, n_ctx=2)
X = np.arange(4, dtype=np.float32)
traced = []


def power(cfg, *, exponent, x):
    traced.append(exponent)
    return {"result": x**exponent, "half": cfg.d_model * x / 4}


def compute(exponent=2, x=X, cfg=CFG):
    return run_kept(power, cfg, {"exponent": exponent}, {"x": x}, work=1)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of kept programs; as in a new process, none is loaded."""
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path))
    monkeypatch.setattr(kept_programs, "_loaded", {})
    traced.clear()
    return tmp_path / "traced"


def forget():
    """What a new process knows: nothing."""
    kept_programs._loaded.clear()


def kept(folder):
    (file,) = folder.glob(f"*{ENDING}")
    return file


def test_a_program_is_traced_once_and_gives_the_same_again(folder):
    fresh = compute()
    np.testing.assert_array_equal(fresh["result"], X**2)
    again = compute()
    forget()
    from_disk = compute()
    assert traced == [2]
    for one in (again, from_disk):
        jax.tree.map(np.testing.assert_array_equal, one, fresh)
    assert kept(folder).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"nonsense"),
        lambda file: file.chmod(0o666),
        lambda file: file.unlink(),
    ],
    ids=["cut off", "emptied", "foreign", "others may write it", "gone"],
)
def test_a_damaged_program_is_traced_anew(folder, spoil):
    compute()
    spoil(kept(folder))
    forget()
    np.testing.assert_array_equal(compute()["result"], X**2)
    assert traced == [2, 2]
    forget()
    compute()
    assert traced == [2, 2]
    assert kept(folder)


def test_a_sealed_file_that_is_no_program_is_traced_anew(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(export.Exported, "serialize", lambda self: b"nonsense")
        compute()
    forget()
    np.testing.assert_array_equal(compute()["result"], X**2)
    assert traced == [2, 2]


def test_the_program_of_another_key_is_not_used_under_a_new_name(folder):
    compute(exponent=3)
    other = kept(folder)
    forget()
    compute(exponent=2)
    (wanted,) = set(folder.glob(f"*{ENDING}")) - {other}
    name = other.name.replace(other.name.split("-")[0], wanted.name.split("-")[0])
    wanted.unlink()
    other.rename(folder / name)
    forget()
    np.testing.assert_array_equal(compute(exponent=2)["result"], X**2)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("source_digest", lambda *packages: "another source"),
        ("metadata", type("", (), {"version": staticmethod(lambda package: "another version")})),
    ],
)
def test_other_versions_have_programs_of_their_own(folder, monkeypatch, name, other):
    compute()
    forget()
    monkeypatch.setattr(kept_programs, name, other)
    compute()
    assert traced == [2, 2]


def test_everything_that_is_compiled_in_has_programs_of_its_own():
    others = [
        {"exponent": 3},
        {"x": X[:3]},
        {"cfg": CFG.replace(d_model=4)},
        {"cfg": CFG.replace(dtype="float64"), "x": X.astype(np.float64)},
    ]
    for other in ({}, *others):
        compute(**other)
    assert len(traced) == 5
    with jax.default_matmul_precision("float32"):
        compute()
    assert len(traced) == 6


def test_float64_is_kept_as_float64():
    cfg, x = CFG.replace(dtype="float64"), np.array([1 + 1e-12])
    fresh = compute(cfg=cfg, x=x)["result"]
    forget()
    again = compute(cfg=cfg, x=x)["result"]
    assert again.dtype == fresh.dtype == np.float64
    assert again == fresh == x**2 != 1


def test_without_a_folder_programs_are_traced_and_a_line_says_why(monkeypatch, tmp_path):
    said = []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(kept_programs, "notice", said.append)
    np.testing.assert_array_equal(compute()["result"], X**2)
    (line,) = said
    assert str(tmp_path / "file" / "traced") in line


def test_only_the_programs_last_used_stay(folder, monkeypatch):
    monkeypatch.setattr(kept_programs, "KEPT", 2)
    for exponent in (2, 3, 4):
        compute(exponent)
    assert len(list(folder.glob(f"*{ENDING}"))) == 2
