"""XLA's compiler for GPUs that are not there: it needs JAX's plugin and a card's description, no device."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import topologies

CARDS = Path(__file__).parents[1] / "gpu_compile" / "cards"


class Compiled(NamedTuple):
    """A compiled program: its optimized HLO, the PTX of its kernels, and the most bytes that it holds at once."""

    hlo: str
    ptx: str
    peak_memory: int


def card_of(name):
    """The device that `cards/<name>.txtpb` describes."""
    description = (CARDS / f"{name}.txtpb").read_text()
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=description, topology="1x1x1"
    )
    return topology.devices[0]


def compile_for(card, lower, *args, **options):
    """Compile a program for a card.

    Args:
        card: a device of `card_of`.
        lower: the method `lower` of what `jax.jit` returned.
        args: its arguments, or their shapes.
        options: XLA's options.
    """
    place = jax.sharding.SingleDeviceSharding(card)
    there = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), args)
    jax.config.update("jax_enable_compilation_cache", False)  # what is not compiled dumps nothing
    with tempfile.TemporaryDirectory() as folder:
        compiled = lower(*there).compile(compiler_options={**options, "xla_dump_to": folder})
        ptx = "\n".join(sorted(path.read_text() for path in Path(folder).glob("*.ptx")))
    return Compiled(compiled.as_text(), ptx, compiled.memory_analysis().peak_memory_in_bytes)
