"""A forward pass with hooks and a record of its activations, as fast as its hooks allow.

Outside ``jit`` there are three ways, and all compute the same:

- without hooks, one compiled program, kept by config, shapes and what is asked for;
- with hooks of activations, compiled pieces between the hooks, which see concrete arrays, in order,
  and may have side effects (`jax_revinc.forward.pieces`);
- with hooks of gradients, one operation after the other.

Where arrays are traced, the pass becomes part of the caller's program, hooks included.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jax_revinc.compilation.quick_jit import MOST_QUICK_STEP, is_top_level, may_be_quick
from jax_revinc.forward.arguments import Asked, Inputs
from jax_revinc.forward.pieces import run_pieces
from jax_revinc.hooks.hook_points import HookPoint, LensHandle, apply_hooks
from jax_revinc.hooks.taps import Tap, applying, identity, recording
from revinc import HookedTransformerConfig, UserError
from revinc.weights import parameter_count


class Model(Protocol):
    """What a forward pass needs of a model."""

    cfg: HookedTransformerConfig

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name."""

    def compute(self, inputs: Inputs, asked: Asked, tap: Tap) -> Any:
        """The forward pass."""

    def hook_point(self, name: str) -> HookPoint:
        """The hook point of a name."""


@dataclass(frozen=True)
class Wanted:
    """What a forward pass returns beside its output."""

    names: tuple[str, ...] = ()
    """The names of activations to record."""
    incl_bwd: bool = False
    """Whether to record their gradients, too. The output must be a loss then."""


class Result(NamedTuple):
    """What a forward pass returns."""

    output: Any
    record: OrderedDict[str, Array]  # JAX would sort the keys of a dict
    """Activations by name, and gradients by name with ``_grad``."""
    inputs: Inputs
    """The inputs, of which the cached keys and values have grown."""


def run_forward(
    model: Model,
    inputs: Inputs,
    asked: Asked,
    wanted: Wanted,
    handles: Sequence[LensHandle],
) -> Result:
    """Run a forward pass.

    Args:
        model: the model.
        inputs: the arrays to compute with.
        asked: what is computed.
        wanted: what is returned beside it.
        handles: the hooks, in order.
    """
    params, point = model.params, model.hook_point
    make: Callable[..., Model] = partial(type(model), model.cfg)  # type: ignore[call-arg]
    is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((params, inputs)))
    has_backward = any(handle.dir == "bwd" for handle in handles)
    if is_traced or has_backward or (handles and wanted.incl_bwd):
        same = make if wanted.incl_bwd else lambda **_: model
        return compute(same, params, inputs, asked, wanted, applying(handles, point))
    program = Program(type(model), model.cfg, asked, wanted)
    is_quick = is_top_level() and work(model.cfg, inputs) < MOST_QUICK_STEP
    if not handles:
        return _whole(program, is_quick)(params, inputs)
    by_name: dict[str, list[LensHandle]] = {}
    for handle in handles:
        by_name.setdefault(handle.name, []).append(handle)

    def edit(name: str, activation: Array) -> Array:
        return apply_hooks(by_name[name], activation, point)

    points = frozenset(by_name)
    return run_pieces(program.run, program, (params, inputs), points, edit, is_quick)


class Program(NamedTuple):
    """What a compiled forward pass depends on, beside the shapes of its arrays."""

    make: Callable[..., Model]
    """The class of the model."""
    cfg: HookedTransformerConfig
    asked: Asked
    wanted: Wanted

    def run(self, tap: Tap, params: Mapping[str, Array], inputs: Inputs) -> Result:
        """Run the pass through a tap."""
        make = partial(self.make, self.cfg)
        return compute(make, params, inputs, self.asked, self.wanted, tap)


@lru_cache(maxsize=256)
def _whole(program: Program, is_quick: bool) -> Callable[..., Result]:
    return may_be_quick(is_quick)(partial(program.run, identity))


def work(cfg: HookedTransformerConfig, inputs: Inputs) -> int:
    """About how many multiplications a forward pass takes."""
    given: Any = inputs.tokens if inputs.residual is None else inputs.residual
    batch, length = given.shape[:2]
    return int(batch * length * parameter_count(cfg))


def compute(
    make: Callable[..., Model],
    params: Mapping[str, Array],
    inputs: Inputs,
    asked: Asked,
    wanted: Wanted,
    tap: Tap,
) -> Result:
    """Run a forward pass through a tap that may edit activations; see `run_forward`.

    Args:
        make: makes the model from ``params=``.

    Raises:
        UserError: if gradients are wanted of an output that is no scalar.
    """
    gradients: OrderedDict[str, Array] = OrderedDict()

    def save(gradient: Array, hook: HookPoint) -> None:
        gradients[f"{hook.name}_grad"] = gradient

    saved = wanted.names if wanted.incl_bwd else ()
    savers = applying([LensHandle(name, save, "bwd") for name in saved], HookPoint)

    def run(params: Mapping[str, Array]) -> tuple[Any, OrderedDict[str, Array]]:
        record: OrderedDict[str, Array] = OrderedDict()
        through = recording(lambda name, x: savers(name, tap(name, x)), wanted.names, record)
        return make(params=params).compute(inputs, asked, through), record

    if not wanted.incl_bwd:
        return Result(*run(params), inputs)
    output, pull_back, record = jax.vjp(run, params, has_aux=True)
    if output is None or jnp.ndim(output):
        raise UserError("incl_bwd needs a loss to differentiate: pass return_type='loss'")
    pull_back(jnp.ones_like(output))
    return Result(output, record | gradients, inputs)
