"""The toolchain and the object cache: what is built once, built anew, or never loaded."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import pytest
from fused_examples import require_compiler

from jax_revinc.compilation import compilation_cache
from jax_revinc.compilation.compilation_cache import cache_folder
from jax_revinc.engines.fused import build, library_cache, toolchain
from jax_revinc.engines.fused.build import ffi_target, shared_library
from jax_revinc.engines.fused.errors import CannotBuild
from jax_revinc.engines.fused.toolchain import cpu_features, find_compiler, lane_width
from jax_revinc.engines.fused_engine import side_by_side
from revinc.one_time_warnings import notice

SOURCE = """
#include "xla/ffi/api/c_api.h"
extern "C" int answer() { return ANSWER; }
"""
FLAGS = ("-DANSWER=42",)
KEY = "0123456789abcdef"
CHILD = """
import importlib.util, os, shutil, signal, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("library_cache", {module!r})  # spares jax's import
library_cache = importlib.util.module_from_spec(spec)
spec.loader.exec_module(library_cache)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def build(path):
    with open({log!r}, "a") as log:
        log.write("built\\n")
    shutil.copy({built!r}, path)
    {then}
{first}
assert library_cache.load(Path({folder!r}), {key!r}, build).answer() == 42
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fused"


@pytest.fixture
def notices(caplog):
    """A function that returns what was said in this test."""
    notice.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records]


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
        names = {"module": library_cache.__file__, "log": str(log), "built": str(built)}
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
    library_cache.load(tmp_path / "a", KEY, lambda path: shutil.copy(built, path))
    (sound,) = (tmp_path / "a").glob("*.so")
    damaged = tmp_path / "b" / sound.name  # a path that this process has not loaded yet
    damaged.parent.mkdir()
    damaged.write_bytes(damage(sound.read_bytes()))
    library = library_cache.load(damaged.parent, KEY, lambda path: shutil.copy(built, path))
    assert library.answer() == 42
    assert damaged.read_bytes() == sound.read_bytes()


def test_the_object_of_another_program_is_not_loaded_under_a_new_name(tmp_path, built):
    library_cache.load(tmp_path, "f" * 16, lambda path: shutil.copy(built, path))
    (other,) = tmp_path.glob("*.so")
    other.rename(tmp_path / other.name.replace("f" * 16, KEY))
    with pytest.raises(CannotBuild, match="asked to build"):
        library_cache.load(tmp_path, KEY, refuse)


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
        library_cache.load(start_child.folder, KEY, refuse)
    rebuilt = library_cache.load(start_child.folder, KEY, lambda path: shutil.copy(built, path))
    assert rebuilt.answer() == 42


def test_the_folder_keeps_what_was_used_last(tmp_path, built, monkeypatch):
    monkeypatch.setattr(library_cache, "KEPT", 2)

    def load(key):
        library_cache.load(tmp_path, key, lambda path: shutil.copy(built, path))

    for key in ("aa", "bb", "aa", "cc"):
        load(key)
    assert {path.name[:2] for path in tmp_path.glob("*.so")} == {"aa", "cc"}


def test_a_folder_that_cannot_be_used_costs_a_notice(cache, n_compiled, notices):
    cache.parent.write_text("a file, not a folder")
    assert shared_library(SOURCE, FLAGS).answer() == 42
    assert n_compiled() == 1
    (said,) = notices()
    assert said.startswith(f"Compiled programs are neither kept in {cache} nor taken from there: ")


def test_nowhere_to_write_is_one_sentence(cache, n_compiled, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(cache / "absent"))
    with pytest.raises(CannotBuild, match=r"can't be saved or loaded .*JAX_REVINC_CACHE"):
        shared_library(SOURCE, FLAGS)


def test_the_features_of_the_cpu_are_part_of_what_a_program_is(cache, n_compiled, monkeypatch):
    shared_library(SOURCE, FLAGS)
    monkeypatch.setattr(build, "cpu_features", lambda: cpu_features() | {"another"})
    shared_library(SOURCE, FLAGS)
    assert n_compiled() == 2


# What others may have put there


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def plant(tmp_path, built):
    """A function that plants a sound object of KEY in a folder of this user's; it gives them these modes."""

    def plant(folder_mode, file_mode):
        folder = tmp_path / "planted"
        library_cache.load(folder, KEY, lambda path: shutil.copy(built, path))
        (planted,) = folder.glob("*.so")
        planted.chmod(file_mode)
        folder.chmod(folder_mode)
        return folder

    return plant


def test_what_is_made_is_for_this_user_alone(tmp_path, built):
    library_cache.load(tmp_path / "a" / "b", KEY, lambda path: shutil.copy(built, path))
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    (kept,) = (tmp_path / "a" / "b").glob("*.so")
    assert mode(kept) == 0o600


@pytest.mark.parametrize("folder_mode", [0o700, 0o755, 0o777], ids=oct)
def test_an_object_that_others_could_not_write_is_loaded_and_its_folder_closed(plant, folder_mode):
    folder = plant(folder_mode, 0o644)
    assert library_cache.load(folder, KEY, refuse).answer() == 42
    assert mode(folder) == 0o700


@pytest.mark.parametrize("file_mode", [0o664, 0o646, 0o666], ids=oct)
def test_an_object_that_others_may_write_is_not_loaded(plant, file_mode):
    folder = plant(0o777, file_mode)
    with pytest.raises(CannotBuild, match="asked to build"):
        library_cache.load(folder, KEY, refuse)


def test_an_object_that_is_a_link_is_not_loaded(plant, tmp_path):
    folder = plant(0o700, 0o600)
    (planted,) = folder.glob("*.so")
    planted.rename(tmp_path / "elsewhere.so")
    planted.symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(CannotBuild, match="asked to build"):
        library_cache.load(folder, KEY, refuse)


def test_nothing_of_another_users_is_loaded_or_changed(plant, built, monkeypatch, notices):
    folder = plant(0o755, 0o644)
    before = {file: file.stat() for file in (folder, *folder.iterdir())}
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    n_built = []

    def build(path):
        n_built.append(shutil.copy(built, path))

    assert library_cache.load(folder, KEY, build).answer() == 42
    assert len(n_built) == 1
    assert {file: file.stat() for file in (folder, *folder.iterdir())} == before
    assert notices() == [
        f"Compiled programs are neither kept in {folder} nor taken from there: {folder} belongs to another user."
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_object_of_another_users_is_not_loaded(plant):
    folder = plant(0o700, 0o600)
    for planted in folder.glob("*.so"):
        os.chown(planted, 65534, 65534)
    with pytest.raises(CannotBuild, match="asked to build"):
        library_cache.load(folder, KEY, refuse)


def test_a_link_in_the_place_of_the_folder_is_not_followed(plant, tmp_path, built, notices):
    elsewhere = plant(0o755, 0o600)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    library_cache.load(link, KEY, lambda path: shutil.copy(built, path))
    assert mode(elsewhere) == 0o755
    assert f"{link} is a link" in notices()[0]


@pytest.fixture
def xla_cache(tmp_path, monkeypatch):
    """The folder for XLA's programs, and a function that enables it: what it tells JAX."""
    monkeypatch.setenv("JAX_REVINC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    told = {}
    config = types.SimpleNamespace(update=told.__setitem__)
    monkeypatch.setattr(compilation_cache, "jax", types.SimpleNamespace(config=config))

    def enable():
        told.clear()
        compilation_cache.enable_compilation_cache()
        return told

    return tmp_path / "cache" / "xla", enable


def test_xla_keeps_its_programs_for_this_user_alone(xla_cache):
    folder, enable = xla_cache
    for _ in "ab":
        assert enable()["jax_compilation_cache_dir"] == str(folder)
        assert mode(folder) == 0o700
        folder.chmod(0o755)  # as another umask would have it
    assert mode(folder.parent) == 0o700


def test_xla_loads_nothing_that_others_may_have_put_there(xla_cache, notices):
    folder, enable = xla_cache
    enable()
    folder.chmod(0o777)
    for _ in "ab":
        assert enable() == {}
    assert mode(folder) == 0o777, "closed, it would look as if it had always been"
    assert notices() == [
        f"XLA's programs are compiled anew, and not kept for the next time: other users may write to {folder}; delete that folder."
    ]


def test_xla_loads_nothing_of_another_users(xla_cache, monkeypatch, notices):
    folder, enable = xla_cache
    enable()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert enable() == {}
    assert f"{folder} belongs to another user" in notices()[0]


def test_a_user_without_a_home_has_a_private_cache_among_temporary_files(
    xla_cache, tmp_path, monkeypatch, notices
):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("JAX_REVINC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, enable = xla_cache
    folder = tmp_path / f"jax-revinc-{os.getuid()}"
    assert enable()["jax_compilation_cache_dir"] == str(folder / "xla")
    assert mode(folder) == mode(folder / "xla") == 0o700
    assert cache_folder() == folder
    (said,) = notices()
    assert said.startswith(f"There is no home folder, so compiled programs are kept in {folder}")


# Compilers that are none


def test_without_a_compiler_the_message_says_how_to_get_one(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler.*pip install 'jax-revinc\[fused\]'"):
        shared_library(SOURCE, FLAGS)


def refused(chosen, monkeypatch):
    """What is said of a command as the compiler: one line, whose parts have no period."""
    monkeypatch.setenv("CXX", str(chosen))
    with pytest.raises(CannotBuild) as error:
        shared_library(SOURCE, FLAGS)
    said = str(error.value)
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("chosen", ["no-such-compiler -O3", "false", "/", "/dev/null"])
def test_a_wrong_cxx_is_named(cache, chosen, monkeypatch):
    named = f"the environment has CXX={chosen}, which is no C++ compiler"
    assert refused(chosen, monkeypatch).startswith(named)


def test_a_cxx_with_an_odd_quote_is_named(cache, monkeypatch):
    assert refused('a"b', monkeypatch).startswith(
        "the environment has CXX=a\"b, which can't be read as a command (No closing quotation)"
    )


def test_an_empty_cxx_is_none(cache, monkeypatch):
    assert "is no C++ compiler" in refused(" ", monkeypatch)


@pytest.fixture
def script(tmp_path):
    """A function that writes a script to be the compiler."""

    def write(*lines):
        path = tmp_path / "compiler"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        return path

    return write


SAYS_ITS_VERSION = 'if [ "$1" = --version ]; then echo "a compiler"; exit; fi'
WRITES_GARBAGE = 'for file in "$@"; do :; done; echo garbage > "$file"'
NOT_THE_PROGRAM = (
    "case $* in *-shared*) echo 'int other;' | {} -x c++ -shared -fPIC - -o program.so; esac"
)


def test_a_compiler_that_makes_nothing_is_blamed(cache, script, monkeypatch):
    assert refused(script("exit 0"), monkeypatch) == (
        f"the compiler {script()} reports success, but wrote no compiled program: "
        "set CXX to a C++ compiler"
    )


def test_what_is_no_program_is_not_kept_and_its_compiler_named(cache, script, monkeypatch):
    garbage = script(SAYS_ITS_VERSION, WRITES_GARBAGE)
    assert refused(garbage, monkeypatch).startswith(
        "the library that a compiler built can't be saved or loaded"
    )
    assert not list(cache.glob("*.so"))


def test_another_program_than_was_given_is_refused(cache, script, monkeypatch):
    require_compiler()
    other = NOT_THE_PROGRAM.format(shlex.join(find_compiler().command))
    monkeypatch.setenv("CXX", str(script(SAYS_ITS_VERSION, other)))
    with pytest.raises(CannotBuild, match="the library that a compiler built lacks the function"):
        ffi_target('extern "C" int answer() { return 42; }', "answer")


def test_a_compiler_that_fails_without_a_word_is_named(cache, script, monkeypatch):
    assert refused(script(SAYS_ITS_VERSION, "exit 3"), monkeypatch) == (
        "the compiler a compiler could not compile the program: exit status 3"
    )


HANGS = 'sleep 1000 & echo $! > "$0.pid"; wait'


def is_running(pid):
    said = subprocess.run(
        ["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False
    )
    return said.stdout.strip()[:1] not in {"", "Z"}


def assert_ended(path):
    """What the script at this path has started runs no longer; the system may take a moment over it."""
    pid = Path(f"{path}.pid").read_text().strip()
    deadline = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_compiler_that_does_not_answer_is_ended(cache, script, monkeypatch):
    monkeypatch.setattr(toolchain, "SECONDS_TO_ANSWER", 0.5)
    hanging = script(HANGS)
    assert "is no C++ compiler that runs here (it did not end within 0.5 s)" in refused(
        hanging, monkeypatch
    )
    assert_ended(hanging)


def test_a_compiler_that_does_not_end_is_ended_with_what_it_started(cache, script, monkeypatch):
    monkeypatch.setattr(toolchain, "SECONDS_TO_COMPILE", 0.5)
    hanging = script(SAYS_ITS_VERSION, HANGS)
    assert refused(hanging, monkeypatch) == (
        "the compiler a compiler could not compile the program: it did not end within 0.5 s"
    )
    assert_ended(hanging)


def test_ctrl_c_ends_compilers(script, monkeypatch):
    hanging = script(HANGS)
    monkeypatch.setenv("CXX", str(hanging))

    def interrupt():
        while not Path(f"{hanging}.pid").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(find_compiler, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert_ended(hanging)


def test_a_full_disk_names_the_file(cache, full_disk):
    require_compiler()
    with full_disk(10), pytest.raises(CannotBuild, match=r"program\.cpp can't be written \(File"):
        shared_library(SOURCE * 1000, FLAGS)


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
