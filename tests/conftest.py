"""What all tests share: compiled programs, a short trained run, and random weights of any config."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from revinc import PRESETS, TrainConfig
from revinc.weights import parameter_shapes

# No test is timed: the machine may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Python looks through every object that JAX keeps, again and again, and finds nothing to free.
gc.set_threshold(100_000, 50, 50)

BEGAN = time.monotonic()


def pytest_addoption(parser):
    help = "skip the tests that have not begun after this many minutes, and say so"
    parser.addoption("--minutes", type=float, default=float("inf"), help=help)
    help = "run one part of the tests, such as 2/4: the second of four parts, of about equal size"
    parser.addoption("--part", type=part_of_tests, default=(1, 1), help=help)


def part_of_tests(text):
    """The numbers of a part and of all parts."""
    part, parts = map(int, text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError(f"there is no part {part} of {parts}")
    return part, parts


def pytest_collection_modifyitems(config, items):
    """Keep one part of the tests. A test's part depends on its name alone."""
    part, parts = config.option.part
    numbers = [zlib.crc32(item.nodeid.encode()) % parts + 1 for item in items]
    left_out = [item for item, number in zip(items, numbers, strict=True) if number != part]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item, number in zip(items, numbers, strict=True) if number == part]


def pytest_configure(config):
    """Let this session's processes compile each program once (before anything imports jax or torch).

    Tests compile without LLVM's optimizations, except for `make test-optimized`: the tests marked
    `optimized` are about bits that these may change.
    """
    folder = tempfile.mkdtemp(prefix="jax-revinc-tests-")
    config.add_cleanup(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    # Processes that test side by side have a core each; torch's threads would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
    os.environ.setdefault("JAX_REVINC_CACHE", folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if config.option.markexpr != "optimized":
        from jax_revinc.compilation.quick_jit import FLAGS

        os.environ.setdefault("XLA_FLAGS", FLAGS)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Drop the compiled programs of earlier tests, once they hold gigabytes."""
    if sys.platform == "linux" and "jax" in sys.modules and resident_bytes() > 2 * 2**30:
        sys.modules["jax"].clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # the compiler leaves free pieces all over the heap


def resident_bytes():
    """The memory of this process, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pytest_runtest_setup(item):
    minutes = item.config.option.minutes
    if time.monotonic() - BEGAN > 60 * minutes:
        pytest.skip(f"had not begun after {minutes:g} minutes")
    if item.get_closest_marker("gpu"):
        import jax

        if jax.default_backend() != "gpu":
            pytest.skip("JAX sees no GPU")


@pytest.fixture(scope="session")
def tutorial() -> TrainConfig:
    return PRESETS["tutorial"]


@pytest.fixture(scope="session")
def tokens(tutorial):
    """Five sequences of the tutorial's task without their last token, from all over the task."""
    return tutorial.task.sequences()[3::56, :-1]


@pytest.fixture(scope="session")
def random_weights():
    """A function from a model config to weights in which no parameter is 0 or 1."""

    def draw(cfg, seed=0):
        rng = np.random.default_rng(seed)
        return {
            name: rng.normal(size=shape).astype(cfg.dtype)
            for name, shape in parameter_shapes(cfg).items()
        }

    return draw


@pytest.fixture(scope="session")
def full_disk():
    """A context in which every file of this process is full at `n_bytes`: writing on is an OSError."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(n_bytes):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def drop_ctrl_c():
    """A function that is interrupted by Ctrl-C where Python raises nothing: in a finalizer."""

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: Finalized() and None
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def short_run(tmp_path_factory):
    """A finished run of 300 steps with a snapshot at 150. Copy its folder before you change it."""
    from jax_revinc import train

    folder = tmp_path_factory.mktemp("runs") / "short"
    return train(TrainConfig(steps=300, snapshots=(150,)), folder)


@pytest.fixture(scope="session")
def model64(tutorial, random_weights):
    """The tutorial's model in float64 with random weights. Do not load others into it."""
    from flax import nnx

    from jax_revinc import HookedTransformer

    cfg = tutorial.model.replace(dtype="float64")
    model = HookedTransformer(cfg, rngs=nnx.Rngs(0))
    model.load_state_dict(random_weights(cfg))
    return model


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; tests that need it are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"there is no browser ({', '.join(names)})")
    quiet = ["background-networking", "component-update", "sync"]
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", *[f"--disable-{q}" for q in quiet]]
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_offline(browser):
    """A function that opens a page's path in an offline tab: the tab, and what went wrong or was asked for.

    A script that it is given runs before those of the page.
    """
    with offline_tabs(browser) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def open_shared(browser):
    """`open_offline` for a tab that tests share. Each leaves it as it found it."""
    with offline_tabs(browser) as open_page:
        yield open_page


@contextmanager
def offline_tabs(browser):
    contexts = []

    def open_page(path, script=""):
        context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
        contexts.append(context)
        context.add_init_script(script)
        tab = context.new_page()
        events = []
        tab.on("console", lambda message: events.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: events.append(f"error: {error}"))
        tab.on("request", lambda request: events.append(f"request: {request.url}"))
        tab.goto(path.as_uri())
        return tab, events

    yield open_page
    for context in contexts:
        context.close()
