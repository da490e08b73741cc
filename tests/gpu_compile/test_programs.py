"""The programs compile for GPUs, and what XLA made of them. None of this ran on a GPU.

The bounds are what this version of JAX needs, and a little more. One that is exceeded asks for a look, not for a
larger number.
"""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from compiled_text import (
    launches,
    products_below_full_precision,
    rounded_products,
    scatters,
    unordered_additions,
)
from gpu_compiler import compile_for
from model_family import case, recipe

from jax_revinc import PRESETS, TrainConfig, numerics
from jax_revinc.engines import xla
from jax_revinc.engines.compiled_programs import make_program_key, parameter_structs
from jax_revinc.optimizer import optimizer_settings
from revinc.engine import chunk_capacity

pytestmark = pytest.mark.slow

TUTORIAL = PRESETS["tutorial"]
IN_FLOAT64 = TrainConfig(model=TUTORIAL.model.replace(dtype="float64"))


def of_family(name) -> TrainConfig:
    return recipe(case(name, dtype="float32"))


class Program(NamedTuple):
    """A program, and bounds of what it may need.

    Attributes:
        cfg: the training config.
        width: models side by side; 0 for the program of one run.
        launches: most launches in a step; of an evaluation, in all.
        mebibytes: most memory in use at once.
        card: the card that it is compiled for.
        name: ``advance`` or ``count``.
    """

    cfg: TrainConfig
    width: int
    launches: int
    mebibytes: float
    card: str = "h100"
    name: str = "advance"


PROGRAMS = {
    "one run": Program(TUTORIAL, 0, 148, 33),
    "one run, A100": Program(TUTORIAL, 0, 148, 5, "a100"),
    "one run, RTX 4090": Program(TUTORIAL, 0, 148, 5, "rtx4090"),
    "4,096 models": Program(TUTORIAL, 4096, 180, 300),
    "65,536 models": Program(TUTORIAL, 65_536, 198, 4000),
    "65,536 models, RTX 4090": Program(TUTORIAL, 65_536, 198, 4000, "rtx4090"),
    "evaluation of 4,096 models": Program(TUTORIAL, 4096, 43, 1000, name="count"),
    "float64": Program(IN_FLOAT64, 0, 148, 33),
    "preset reliable": Program(PRESETS["reliable"], 0, 155, 33),
    "preset grokking": Program(PRESETS["grokking"], 0, 89, 96),
    "rotary": Program(of_family("rotary, adjacent pairs"), 0, 163, 33),
    "shortformer": Program(of_family("shortformer"), 0, 172, 33),
    "alibi": Program(of_family("alibi"), 0, 161, 33),
    "attention only": Program(of_family("attention only"), 0, 127, 33),
    "RMS and solu_ln": Program(of_family("RMS and solu_ln"), 0, 143, 33),
    "local, grouped, rotary, parallel, gated, RMS": Program(
        of_family("local, grouped, rotary, parallel, gated, RMS"), 0, 152, 33
    ),
}


def arguments(program):
    """The program's key, and the shapes of its arguments."""
    cfg, many = program.cfg, (program.width,) if program.width else ()
    key, (_, hyperparameters) = make_program_key(cfg), optimizer_settings(cfg)
    sequences = cfg.task.sequences()

    def of_each(*shape, dtype):
        return jax.ShapeDtypeStruct((*many, *shape), dtype)

    numbers = jax.tree.map(lambda _: of_each(dtype=cfg.model.dtype), hyperparameters)
    params = {
        name: of_each(*struct.shape, dtype=struct.dtype)
        for name, struct in parameter_structs(cfg.model).items()
    }
    start = xla.start_all if program.width else xla.start
    state = jax.eval_shape(lambda *args: start(key, *args), numbers, params)
    tokens = jax.ShapeDtypeStruct(sequences.shape, np.int32)
    if program.name == "count":
        return key, (state, tokens, of_each(2, len(sequences), dtype=bool))
    rows = of_each(chunk_capacity(cfg), cfg.batch_size, dtype=np.int32)
    return key, (numbers, state, tokens, rows, jax.ShapeDtypeStruct((), np.int32))


@pytest.fixture(scope="module", params=PROGRAMS.values(), ids=PROGRAMS.keys())
def program(request):
    return request.param


def compile_program(program, device):
    """Compile a program as the engine ``xla`` does where it finds a GPU."""
    with numerics(program.cfg.model):
        key, args = arguments(program)
        make = {"advance": xla.advance_on_gpu, "count": xla.count_on_gpu}[program.name]
        return compile_for(device, make(key, many=program.width > 0).lower, *args)


@pytest.fixture(scope="module")
def compiled(program, card):
    return compile_program(program, card(program.card))


def test_nothing_adds_in_an_undetermined_order(compiled):
    assert scatters(compiled.hlo) == []
    assert unordered_additions(compiled.ptx) == []


def test_no_product_is_rounded_to_tf32(compiled):
    assert rounded_products(compiled.ptx) == []
    assert products_below_full_precision(compiled.hlo) == []


def test_launches_are_few(program, compiled):
    assert 0 < launches(compiled.hlo) <= program.launches


def test_memory_is_within_bounds(program, compiled):
    assert 0 < compiled.peak_memory <= program.mebibytes * 2**20


def test_a_program_that_is_compiled_again_has_the_same_kernels(card):
    """XLA times no kernels, so it has no choice to make anew."""
    both = []
    for _ in range(2):
        both.append(compile_program(PROGRAMS["preset grokking"], card("h100")))
        jax.clear_caches()
    assert both[0] == both[1]
