"""The compiler and its cache: what is built once, what is built anew, and what is never loaded."""

from __future__ import annotations

import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from jax_revinc.compilation_cache import cache_folder
from jax_revinc.engines.fused import object_cache
from jax_revinc.engines.fused.build import shared_library
from jax_revinc.engines.fused.compiler import CannotBuild, find_compiler
from jax_revinc.engines.fused.cpu import cpu_features, lane_width

SOURCE = """
#include "xla/ffi/api/c_api.h"
extern "C" int answer() { return ANSWER; }
"""
FLAGS = ("-DANSWER=42",)
KEY = "0123456789abcdef"
CHILD = """
import importlib.util, os, shutil, signal, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("object_cache", {module!r})  # spares jax's import
object_cache = importlib.util.module_from_spec(spec)
spec.loader.exec_module(object_cache)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def build(path):
    with open({log!r}, "a") as log:
        log.write("built\\n")
    shutil.copy({built!r}, path)
    {then}
{first}
assert object_cache.load(Path({folder!r}), {key!r}, build).answer() == 42
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fused"


@pytest.fixture
def n_compiled(tmp_path, monkeypatch):
    """How often the compiler has compiled in this test."""
    try:
        compiler = find_compiler()
    except CannotBuild as why:
        pytest.skip(str(why))
    log, wrapper = tmp_path / "log", tmp_path / "c++"
    log.touch()
    wrapper.write_text(
        f'#!/bin/sh\necho "$@" >> {shlex.quote(str(log))}\nexec {shlex.join(compiler.command)} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", shlex.quote(str(wrapper)))
    return lambda: sum(" -c " in line for line in log.read_text().splitlines())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An object that answers 42, compiled without the cache."""
    path = tmp_path_factory.mktemp("built") / "program.so"
    try:
        find_compiler().compile('extern "C" int answer() { return 42; }', [], path)
    except CannotBuild as why:
        pytest.skip(str(why))
    return path


@pytest.fixture
def start_child(tmp_path, built):
    """A function that starts a process which wants the object of KEY; it logs each build."""
    log = tmp_path / "child-log"

    def start(first="", then=""):
        names = {"module": object_cache.__file__, "log": str(log), "built": str(built)}
        folder = str(tmp_path / "objects")
        code = CHILD.format(**names, folder=folder, key=KEY, first=first, then=then)
        return subprocess.Popen([sys.executable, "-c", code])

    start.n_built = lambda: len(log.read_text().splitlines())
    start.folder = tmp_path / "objects"
    return start


def test_a_program_is_compiled_once_and_anew_when_source_or_flags_change(cache, n_compiled):
    assert shared_library(SOURCE, FLAGS).answer() == 42
    assert shared_library(SOURCE, FLAGS).answer() == 42
    assert n_compiled() == 1
    assert shared_library(SOURCE, ["-DANSWER=43"]).answer() == 43
    assert shared_library(SOURCE.replace("ANSWER;", "-ANSWER;"), FLAGS).answer() == -42
    assert n_compiled() == 3
    assert len(list(cache.glob("*.so"))) == 3


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(lambda content: b"", id="emptied"),
        pytest.param(flip_a_bit, id="a bit flipped"),
        pytest.param(lambda content: b"#!/bin/sh\n", id="foreign"),
    ],
)
def test_a_damaged_object_is_built_anew(damage, tmp_path, built):
    object_cache.load(tmp_path / "a", KEY, lambda path: shutil.copy(built, path))
    (sound,) = (tmp_path / "a").glob("*.so")
    damaged = tmp_path / "b" / sound.name  # a path that this process has not loaded yet
    damaged.parent.mkdir()
    damaged.write_bytes(damage(sound.read_bytes()))
    library = object_cache.load(damaged.parent, KEY, lambda path: shutil.copy(built, path))
    assert library.answer() == 42
    assert damaged.read_bytes() == sound.read_bytes()


def test_the_object_of_another_program_is_not_loaded_under_a_new_name(tmp_path, built):
    object_cache.load(tmp_path, "f" * 16, lambda path: shutil.copy(built, path))
    (other,) = tmp_path.glob("*.so")
    other.rename(tmp_path / other.name.replace("f" * 16, KEY))
    with pytest.raises(CannotBuild, match="asked to build"):
        object_cache.load(tmp_path, KEY, refuse)


def refuse(path):
    raise CannotBuild("asked to build")


def test_processes_that_want_the_same_object_build_it_once(start_child):
    children = [start_child(then="time.sleep(0.2)") for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert start_child.n_built() == 1


@pytest.mark.parametrize(
    ("killed", "how"),
    [("while it builds", {"then": "die()"}), ("while it stores", {"first": "os.fsync = die"})],
)
def test_a_killed_process_leaves_nothing_that_is_loaded(killed, how, start_child, built):
    assert start_child(**how).wait(60) == -signal.SIGKILL
    assert start_child.n_built() == 1
    assert not list(start_child.folder.glob("*.so"))
    with pytest.raises(CannotBuild, match="asked to build"):
        object_cache.load(start_child.folder, KEY, refuse)
    rebuilt = object_cache.load(start_child.folder, KEY, lambda path: shutil.copy(built, path))
    assert rebuilt.answer() == 42


def test_the_folder_keeps_what_was_used_last(tmp_path, built, monkeypatch):
    monkeypatch.setattr(object_cache, "KEPT", 2)

    def load(key):
        object_cache.load(tmp_path, key, lambda path: shutil.copy(built, path))

    for key in ("aa", "bb", "aa", "cc"):
        load(key)
    assert {path.name[:2] for path in tmp_path.glob("*.so")} == {"aa", "cc"}


def test_a_folder_that_cannot_be_used_costs_a_warning(cache, n_compiled):
    cache.parent.write_text("a file, not a folder")
    with pytest.warns(UserWarning, match="can't be kept for the next time: .*cache"):
        library = shared_library(SOURCE, FLAGS)
    assert library.answer() == 42
    assert n_compiled() == 1


def test_nowhere_to_write_is_one_sentence(cache, n_compiled, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(cache / "absent"))
    with pytest.raises(CannotBuild, match=r"neither kept nor loaded .*JAX_REVINC_CACHE"):
        shared_library(SOURCE, FLAGS)


def test_without_a_compiler_the_message_says_how_to_get_one(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler.*pip install 'jax-revinc\[fused\]'"):
        shared_library(SOURCE, FLAGS)


@pytest.mark.parametrize("chosen", ["no-such-compiler -O3", "false"])
def test_a_wrong_cxx_is_named(cache, chosen, monkeypatch):
    monkeypatch.setenv("CXX", chosen)
    with pytest.raises(CannotBuild, match=f"CXX={chosen} is no compiler"):
        shared_library(SOURCE, FLAGS)


def test_a_compile_error_is_the_compilers_first(cache, n_compiled):
    with pytest.raises(
        CannotBuild, match=r"could not compile the program: program\.cpp:1:.*error: "
    ):
        shared_library("int f() { return undeclared; }\nint g() { return second; }")
    assert not list(cache.glob("*.so"))


def test_fast_math_in_the_library_leaves_the_process_its_denormals(cache, n_compiled):
    assert shared_library(SOURCE, [*FLAGS, "-O3", "-ffast-math"]).answer() == 42
    assert np.float32(1e-40) * np.float32(1) != 0


WIDEST = """
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif
extern "C" int bytes() { return BYTES; }
"""
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 CPUs")


@pytest.mark.parametrize(
    ("flags", "features"),
    [
        pytest.param([], None, id="native"),
        pytest.param(["-march=haswell"], {"sse4_2", "avx2"}, id="AVX2", marks=X86),
        pytest.param(["-march=nehalem"], {"sse4_2"}, id="SSE", marks=X86),
    ],
)
def test_the_lanes_fill_the_vectors_that_the_compiler_uses(flags, features, cache, n_compiled):
    n_bytes = shared_library(WIDEST, flags).bytes()
    assert lane_width(np.float32, features) == n_bytes // 4
    assert lane_width(np.float64, features) == n_bytes // 8


def test_the_features_of_this_cpu_are_known():
    assert cpu_features() or sys.platform not in {"linux", "darwin"}


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {}, "home/.cache/jax-revinc"),
        ("darwin", {}, "home/Library/Caches/jax-revinc"),
        ("darwin", {"XDG_CACHE_HOME": "xdg"}, "xdg/jax-revinc"),
        ("linux", {"XDG_CACHE_HOME": "xdg", "JAX_REVINC_CACHE": "mine"}, "mine"),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(platform, environment, folder, monkeypatch):
    for name in ("XDG_CACHE_HOME", "JAX_REVINC_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "home")
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(folder)
