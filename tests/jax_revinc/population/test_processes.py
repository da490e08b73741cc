from __future__ import annotations

import dataclasses
import signal
import socket
import stat
import subprocess
import threading
import time

import jax
import pytest
from populations import RECIPE, WIDTH, assert_same_store, claimed, command, names_below

from jax_revinc import UserError
from jax_revinc.population import (
    load,
    prepare_folder,
    process_messages,
    processes,
    train_population,
)
from jax_revinc.population import store as names
from jax_revinc.population.prepare_folder import store_lock, wait_for_plan
from jax_revinc.population.process_messages import (
    announce_end,
    job_key,
    read_key,
    sign,
    verify,
    wait_for_first,
)
from jax_revinc.population.process_relay import Relay
from jax_revinc.population.processes import LOST, LOST_SENTENCE, Place, join
from jax_revinc.population.store import read_store
from revinc.sweep import sweep

SEEDS = 48
"""Enough for a dozen shards, so that a process has work left when it dies after its first."""

SECONDS_TO_END = 200
"""Within which a process ends, whatever else the machine has to do."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The population of `SEEDS` seeds, trained by one process on one device."""
    out = tmp_path_factory.mktemp("populations") / "whole"
    return train_population(
        RECIPE, sweep(RECIPE, seeds=range(SEEDS)), out, width=WIDTH, engine="xla"
    )


class Job:
    """Processes that train one population. The others wait for the first at a port that was free."""

    def __init__(self, start_process, out, n_processes):
        self.start_process, self.out, self.n_processes = start_process, out, n_processes
        with socket.socket() as any_free:
            any_free.bind(("127.0.0.1", 0))
            self.port = any_free.getsockname()[1]

    def start(self, process, *flags, **how):
        """Start, or start again, one of the processes."""
        where = ["--coordinator", f"127.0.0.1:{self.port}", "--processes", self.n_processes]
        what = ["--process", process, "--devices", 1, "--seeds", SEEDS, "--out", self.out]
        return self.start_process(command(*where, *what, *flags, **how), stdout=subprocess.PIPE)


@pytest.fixture
def job(start_process, tmp_path):
    """A function that makes a `Job` of some processes, which end with the test."""
    return lambda n_processes, out=tmp_path / "new": Job(start_process, out, n_processes)


def assert_dies(process):
    _, err = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode == -signal.SIGKILL, err


def assert_ends_well(process):
    out, err = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


@pytest.mark.slow
def test_a_process_that_dies_may_be_started_again_while_the_others_go_on(job, whole, tmp_path):
    two = job(2)
    first, second = two.start(0), two.start(1, stricken_by=signal.SIGKILL)
    assert_dies(second)
    second = two.start(1)
    out = assert_ends_well(first)
    assert "process 0 of 2" in out
    assert "jax-revinc atlas" in out
    assert "jax-revinc atlas" not in assert_ends_well(second)
    assert_same_store(tmp_path / "new", whole)


@pytest.mark.slow
def test_three_processes_write_the_store_of_one(job, whole, tmp_path):
    three = job(3)
    last = three.start(2, stricken_by=signal.SIGKILL)
    others = [three.start(0), three.start(1)]
    assert_dies(last)
    for process in [three.start(2), *others]:
        assert_ends_well(process)
    assert_same_store(tmp_path / "new", whole)


@pytest.mark.slow
def test_when_the_first_dies_all_end_and_a_resume_ends_in_the_same_store(job, whole, tmp_path):
    two = job(2)
    first, second = two.start(0, stricken_by=signal.SIGKILL), two.start(1)
    assert_dies(first)
    _, err = second.communicate(timeout=SECONDS_TO_END)
    assert second.returncode not in (0, None)
    assert (second.returncode, err.splitlines()) == (LOST, [f"jax-revinc: {LOST_SENTENCE}"])
    again = job(2)
    for process in [again.start(process, "--resume") for process in (0, 1)]:
        assert_ends_well(process)
    assert_same_store(tmp_path / "new", whole)


@pytest.mark.slow
@pytest.mark.parametrize("already", ["a thesis", "a population"])
def test_when_the_first_refuses_the_others_say_why(job, whole, tmp_path, already):
    out = tmp_path / "new"
    if already == "a thesis":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        train_population(RECIPE, sweep(RECIPE, seeds=range(4)), out, width=WIDTH)
    before = names_below(out)
    two = job(2)
    processes = [two.start(process) for process in (1, 0)]
    for process in processes:
        _, err = process.communicate(timeout=SECONDS_TO_END)
        assert process.returncode == 2
        why = "belong to no population" if already == "a thesis" else "already holds a population"
        assert why in err.splitlines()[-1]
    assert names_below(out) == before


@pytest.mark.slow
def test_a_damaged_shard_of_another_process_is_trained_again(job, whole, tmp_path):
    out = tmp_path / "new"
    train_population(RECIPE, whole.planned, out, width=WIDTH, engine="xla")
    weights = out / names.WEIGHTS / "embed.W_E/c/7/0/0"
    weights.write_bytes(weights.read_bytes()[::-1])
    two = job(2)
    first, second = two.start(0, "--resume"), two.start(1, "--resume")
    assert "shard 7 is trained again" in assert_ends_well(first)
    assert_ends_well(second)
    assert_same_store(out, whole)


@pytest.mark.slow
def test_eight_devices_write_the_store_of_one(whole, tmp_path):
    out = tmp_path / "new"
    eight = command("--out", out, "--seeds", SEEDS, "--devices", 8)
    finished = subprocess.run(eight, capture_output=True, text=True, check=True)
    assert "8 x cpu" in finished.stdout
    assert_same_store(out, whole)


def listening(port, host="127.0.0.1"):
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_waits_for_others_obeys_signals(job, process, which, tmp_path):
    two = job(2)
    if process == 0:
        waiting = two.start(0)
        while not listening(two.port):
            assert waiting.poll() is None
            time.sleep(0.1)
        assert not listening(two.port, "127.0.0.2")  # it was asked for 127.0.0.1 alone
    else:
        with socket.create_server(("127.0.0.1", two.port)) as silent:
            waiting = two.start(1)
            kept = [silent.accept() for _ in range(2)]  # to see whether we are there, and JAX's own
            waiting.send_signal(which)
            waiting.wait(20)
            for accepted, _ in kept:
                accepted.close()
    waiting.send_signal(which)
    _, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 128 + which
    assert err.splitlines()[-1] == "jax-revinc: interrupted"
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


# Where a process listens, and to whom


def test_the_first_process_listens_where_it_was_asked_to_and_nowhere_else(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: asked.append((a, k)))
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)
    for address in ("127.0.0.1:0", "localhost:0"):
        assert join(Place(address, 2, 0, None)) is None
        (_, n_processes, process), how = asked.pop()
        assert (n_processes, process) == (2, 0)
        assert how["coordinator_bind_address"] in ("127.0.0.1:0", "[::1]:0")


def test_a_place_where_nobody_can_listen_or_answers_is_one_sentence(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"can't listen at {address} \(Address already in use\)"):
            join(Place(address, 2, 0, None))
    monkeypatch.setattr(processes, "SECONDS_TO_JOIN", 0.0)
    with pytest.raises(OSError, match=f"no process answers at {address}, where the first"):
        join(Place(address, 2, 1, None))


@pytest.fixture
def far():
    """A socket that listens, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, server.getsockname()[1]


def near_end(relay):
    near = socket.socket(socket.AF_UNIX)
    near.settimeout(10)
    near.connect(relay.address.removeprefix("unix:"))
    return near


@pytest.mark.parametrize(
    ("needed", "who_ends", "expected"),
    [(True, "far", True), (False, "far", False), (True, "near", False)],
)
def test_a_relay_passes_on_and_tells_when_the_other_side_ends(far, needed, who_ends, expected):
    server, port = far
    lost = threading.Event()
    relay = Relay("127.0.0.1", port, lost.set)
    near = near_end(relay)
    other, _ = server.accept()
    for source, sink in ((near, other), (other, near)):
        source.sendall(b"x" * 100_000)
        received = b""
        while len(received) < 100_000:
            received += sink.recv(2**16)
        assert received == b"x" * 100_000
    if not needed:
        relay.let_go()
    (other if who_ends == "far" else near).close()
    assert lost.wait(5 if expected else 0.3) is expected
    for one in (near, other, relay):
        one.close()


def test_a_relay_tells_when_nobody_is_there(far):
    server, port = far
    server.close()
    lost = threading.Event()
    relay = Relay("127.0.0.1", port, lost.set)
    with near_end(relay):
        assert lost.wait(5)
    relay.close()


class KeyValueStore:
    """As JAX's: whoever reaches it may write."""

    def __init__(self):
        self.values = []

    def key_value_set(self, key, value, allow_overwrite):
        self.values.append(value)

    def blocking_key_value_get(self, key, milliseconds):
        if not self.values:
            raise jax.errors.JaxRuntimeError("nothing is there")
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


@pytest.fixture
def others(monkeypatch):
    """As if this were one of two processes, with the key-value store that they share."""
    shared = KeyValueStore()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(process_messages, "client", lambda: shared)
    monkeypatch.setattr(process_messages, "MILLISECONDS_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(process_messages, "SECONDS_TO_LEAVE", 0)
    return shared


def test_what_a_stranger_announces_is_not_heard(others, tmp_path):
    (tmp_path / ".lock").touch()
    others.values += ["", "stop", sign(b"a" * 64, ""), sign(b"", "stop"), "\x1b[31m" * 99]
    with job_key(tmp_path):
        with pytest.raises(OSError, match="the disk is full"), announce_end(tmp_path):
            raise OSError("the disk is full")
        with pytest.raises(
            UserError, match=r"^the first training process failed: the disk is full$"
        ):
            wait_for_first(tmp_path)
        others.values.clear()
        with announce_end(tmp_path):
            pass
        wait_for_first(tmp_path)


def test_a_changed_announcement_is_not_heard():
    key = b"0" * 64
    text = sign(key, "a disk is full")
    assert verify(key, text) == "a disk is full"
    assert verify(key, sign(key, "")) == ""
    for other in (text.replace("full", "fine"), text[1:], text.upper(), "", " ", "x\ny"):
        assert verify(key, other) is None
    assert verify(b"1" * 64, text) is None


def test_a_folder_that_is_no_populations_is_refused_by_all(others, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"belong to no population"):
        wait_for_first(tmp_path)
    with (
        pytest.raises(UserError, match="no population"),
        announce_end(tmp_path),
        store_lock(tmp_path),
    ):
        pass
    assert others.values == []
    assert names_below(tmp_path) == ["thesis.tex"]


def test_the_key_is_this_users_alone_new_each_time_and_goes_with_the_job(others, tmp_path):
    keys = []
    for left in ("", "of a job that was killed"):
        (tmp_path / ".key").write_text(left)
        with job_key(tmp_path):
            assert stat.S_IMODE((tmp_path / ".key").stat().st_mode) == 0o600
            keys.append(read_key(tmp_path))
        assert not (tmp_path / ".key").exists()
        assert read_key(tmp_path) is None
    assert None not in keys
    assert len(set(keys)) == 2


def test_a_link_in_the_place_of_the_key_is_not_followed(others, tmp_path):
    (tmp_path / "precious").write_text("0" * 64)
    (tmp_path / ".key").symlink_to("precious")
    assert read_key(tmp_path) is None
    with job_key(tmp_path):
        assert not (tmp_path / ".key").is_symlink()
    assert (tmp_path / "precious").read_text() == "0" * 64


def test_a_process_alone_has_no_key(tmp_path):
    with job_key(tmp_path):
        assert names_below(tmp_path) == []


# What a process sees of the plan of the first


@pytest.fixture
def store(tmp_path):
    """A store whose models are planned, and none is finished."""
    models = sweep(RECIPE, seeds=range(5))
    with claimed(tmp_path / "store", RECIPE, {"width": "4"}, models, resume=False):
        pass
    return read_store(tmp_path / "store")


def test_the_plan_of_the_first_process_is_every_ones(store):
    seen = wait_for_plan(store.path, RECIPE, store.engine, sweep(RECIPE, seeds=[4, 2]))
    assert seen.models.equals(store.models)


def test_a_process_with_other_models_than_the_first_does_not_wait_forever(store, monkeypatch):
    monkeypatch.setattr(prepare_folder, "SECONDS_TO_APPEAR", 0.5)
    with pytest.raises(UserError, match="give every process the same options"):
        wait_for_plan(store.path, RECIPE, store.engine, sweep(RECIPE, seeds=range(6)))
    with pytest.raises(UserError, match="an --out that all of them can read"):
        wait_for_plan(store.path.with_name("elsewhere"), RECIPE, store.engine, store.models)


def test_a_process_with_another_recipe_or_engine_than_the_first_is_refused(store):
    with pytest.raises(UserError, match="steps: 60 here, 70 there"):
        wait_for_plan(
            store.path,
            dataclasses.replace(RECIPE, steps=70),
            store.engine,
            load(store.path).planned,
        )
    with pytest.raises(UserError, match="rounds differently"):
        wait_for_plan(store.path, RECIPE, {"width": "8"}, load(store.path).planned)
