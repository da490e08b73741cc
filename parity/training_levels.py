"""The levels at which two trainings are compared: one optimizer step, and every step of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import torch
from rich.progress import track

from jax_revinc import numerics
from jax_revinc.engines.fused.training import FusedTraining
from jax_revinc.engines.xla import Gradient, update
from jax_revinc.optimizer import make_optimizer, optimizer_numbers
from jax_revinc.training import draw_weights
from parity.comparison import Comparison, compare_tensors, gap, largest
from parity.known_differences import with_known_differences
from parity.levels import Level
from parity.model_levels import error_in_a_row
from parity.question import Tensors
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.objective import make_objective
from torch_reference import TorchEngine, adapter
from torch_reference.optimizer import clip_gradients, require_counterpart
from torch_reference.optimizer import make_optimizer as make_torch_optimizer

OF_ADAM = {"exp_avg": "mu", "exp_avg_sq": "nu"}

MOMENTS = {
    "adamw": OF_ADAM,
    "adam": OF_ADAM,
    "rmsprop": {"square_avg": "nu"},
    "sgd": {"momentum_buffer": "trace"},
}
"""What an optimizer keeps of every parameter: torch's names of it, and optax's. Without momentum SGD keeps nothing."""

STATES = {"fresh": 0, "mid-run": 1234}
"""Updates made before the one that is compared."""

ONE_STEP_BOUND = 1e-12
"""Absolute, on every parameter and moment after one step in float64."""

ZERO_GRADIENT = 1e-13
"""A parameter whose gradient never exceeds this has a zero gradient and rounding noise."""

ZERO_GRADIENT_BOUND = 1e-8
"""Absolute: Adam divides the noise by itself, and it comes out up to the learning rate / epsilon large."""

STEPS_AT_ONCE = 250

Step = Callable[[TrainConfig, Tensors, int, str], Tensors]
"""From a recipe, tensors (see `random_state`), the updates before and a precision to the tensors after a step."""


def moments(cfg: TrainConfig) -> dict[str, str]:
    """Those of `MOMENTS` that a run's optimizer keeps."""
    return {} if cfg.optimizer == "sgd" and not cfg.momentum else MOMENTS[cfg.optimizer]


def check_optimizer(cfg: TrainConfig, dtype: str, step: Step | None = None) -> Level:
    """L4: one step of the optimizer, by default `jax_step`, from several states is torch's."""
    step = step or jax_step
    require_counterpart(cfg)
    comparisons = []
    for label, count in STATES.items():
        for zero in (False, True):
            rng = np.random.default_rng(count + zero)
            before = random_state(rng, moments(cfg), count, zero)
            truth = torch_step(cfg, before, count, "float64")
            mine = step(cfg, before, count, dtype)
            own = None
            if dtype == "float32":
                own = own_errors(cfg, before, count, truth)
            name = f"{label}, zero gradient" if zero else label
            comparisons += [
                replace(row, name=f"{name}: {row.name}")
                for row in compare_tensors(mine, truth, own)
            ]
    return Level("L4", dtype, comparisons)


def own_errors(cfg: TrainConfig, before: Tensors, count: int, truth: Tensors) -> dict[str, float]:
    """How far a float32 step may honestly be from the truth: torch's error, and what torch does in float64.

    torch corrects the bias of Adam's moments in Python's float64; optax, like all of JAX, in float32, where
    0.999 is off by 1.3e-8, and so 1 - 0.999 by a 77,000th. The update is off by that share. And the norm by
    which gradients are clipped is a sum of squares, which torch adds pairwise: the root halves its error.
    """
    step = torch_step(cfg, before, count, "float32")
    errors = {name: float(gap(step[name], truth[name]).max()) for name in truth}
    wide = {name: array.astype(np.float64) for name, array in before.items()}
    wide["param"] *= 1 - cfg.learning_rate(count) * cfg.weight_decay
    changes = {name: largest(truth[name] - wide[name]) for name in truth}
    correction, exact = (bias_correction(cfg, count + 1, dtype) for dtype in (np.float32, float))
    errors["param"] += abs(correction / exact - 1) * changes["param"]
    if cfg.clip_grad_norm is not None:
        of_norm = error_in_a_row(before["grad"].size) / 2
        errors = {name: error + of_norm * changes[name] for name, error in errors.items()}
    return errors


def bias_correction(cfg: TrainConfig, count: int, dtype: type[float | np.floating]) -> float:
    """The factor that bias corrections, which only Adam has, put on an update, as computed in `dtype`."""
    if MOMENTS[cfg.optimizer] is not OF_ADAM:
        return 1.0
    first, second = (1 - dtype(b) ** dtype(count) for b in (cfg.b1, cfg.b2))
    return float(np.sqrt(second) / first)


def random_state(
    rng: np.random.Generator, kept: Iterable[str], count: int, zero_gradient: bool
) -> Tensors:
    """float32 numbers: a parameter, its gradient (of magnitudes from 1e-9 to 1) and its moments.

    A moment is of the gradient's magnitude, or of its square's and not negative, as its name says.
    """
    shape = (40, 25)
    magnitudes = 10.0 ** rng.uniform(-9, 0, shape)
    tensors = {
        "param": rng.normal(size=shape),
        "grad": np.zeros(shape) if zero_gradient else rng.normal(size=shape) * magnitudes,
    }
    for moment in kept:
        drawn = rng.normal(size=shape) * magnitudes
        tensors[moment] = (count > 0) * (drawn**2 if "sq" in moment else drawn)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def torch_step(cfg: TrainConfig, before: Tensors, count: int, dtype: str) -> Tensors:
    """The parameter and its moments after one step of torch's optimizer."""
    wide = {name: torch.from_numpy(array.astype(dtype)) for name, array in before.items()}
    parameter = torch.nn.Parameter(wide["param"])
    optimizer = make_torch_optimizer([parameter], replace(cfg, lr=cfg.learning_rate(count)))
    kept = {moment: wide[moment] for moment in moments(cfg)}
    optimizer.state[parameter] = {"step": torch.tensor(float(count)), **kept}
    parameter.grad = wide["grad"]
    if cfg.clip_grad_norm is not None:
        clip_gradients([parameter], cfg.clip_grad_norm)
    optimizer.step()
    state = optimizer.state[parameter]
    after = {"param": parameter.detach(), **{moment: state[moment] for moment in kept}}
    return {name: tensor.numpy().copy() for name, tensor in after.items()}


def jax_step(cfg: TrainConfig, before: Tensors, count: int, dtype: str) -> Tensors:
    """The parameter and its moments after one step of our optimizer."""
    with numerics(cfg.model.replace(dtype=dtype)):
        wide = {name: {"w": jax.numpy.asarray(array, dtype)} for name, array in before.items()}
        optimizer = make_optimizer(*optimizer_numbers(cfg))
        kept = {ours: wide[theirs] for theirs, ours in moments(cfg).items()}
        state = optimizer_state(optimizer.init(wide["param"]), count, kept)
        updates, state = optimizer.update(wide["grad"], state, wide["param"])
        after = {theirs: optax.tree.get(state, ours) for theirs, ours in moments(cfg).items()}
        after = {"param": optax.apply_updates(wide["param"], updates), **after}
        return {name: np.asarray(of_name["w"]) for name, of_name in after.items()}


def fused_step(cfg: TrainConfig, before: Tensors, count: int, dtype: str) -> Tensors:
    """`jax_step` as the fused engine does it, where the gradient by ``w`` is ``g``."""
    fixed, rates = optimizer_numbers(cfg)
    with numerics(cfg.model.replace(dtype=dtype)):
        wide = {name: jax.numpy.asarray(array, dtype) for name, array in before.items()}
        rates = jax.tree.map(lambda rate: np.asarray(rate, dtype), rates)
        params = {"g": wide["grad"], "w": wide["param"]}
        training = FusedTraining(
            lambda params, _: (params["w"] * params["g"]).sum(),
            partial(make_optimizer, fixed),
            rates,
            params,
            length=1,
            n_tokens=1,
        )
        kept = {
            ours: {"g": wide[theirs], "w": wide[theirs]} for theirs, ours in moments(cfg).items()
        }
        template = make_optimizer(fixed, rates).init(params)
        state = training.pack(params, optimizer_state(template, count, kept))
        zeros, one = jax.numpy.zeros((1, 1), int), jax.numpy.ones((), int)
        state, _ = training.advance(rates, state, zeros, zeros, one)
        size = wide["param"].size
        after = dict(zip(["param", *moments(cfg)], [state.params, *state.kept], strict=True))
        return {n: np.asarray(x)[size:].reshape(wide["param"].shape) for n, x in after.items()}


def optimizer_state(
    template: optax.OptState, count: object, kept: dict[str, Any]
) -> optax.OptState:
    """Our optimizer's state with these moments in it; whatever counts steps in it has made `count`."""
    counts = optax.tree.get_all_with_path(template, "count")
    numbers = kept | ({"count": jax.numpy.asarray(count, np.int32)} if counts else {})
    state: optax.OptState = optax.tree.set(template, **numbers)
    return state


def check_every_step(cfg: TrainConfig, gradient: Gradient | None = None) -> Level:
    """L5: from torch's state at every step of a run in float64, one step of ours is torch's next.

    All steps are made in one compiled program over the stored trajectory.
    """
    cfg = in_float64(cfg)
    trajectory = torch_trajectory(cfg)
    data, objective = make_dataset(cfg), make_objective(cfg)
    tokens, batches = data.examples(data.batches(0, cfg.steps))
    names = [name for name in trajectory if "/" not in name]
    compared = [name for name in trajectory if not name.startswith("grad/")]
    fixed, rates = optimizer_numbers(cfg)

    def step(inputs: tuple[dict[str, jax.Array], jax.Array, jax.Array]) -> dict[str, jax.Array]:
        before, count, rows = inputs
        params = {name: before[name] for name in names}
        template = make_optimizer(fixed, rates).init(params)
        kept = {
            ours: {name: before[f"{theirs}/{name}"] for name in names}
            for theirs, ours in moments(cfg).items()
        }
        state = (params, optimizer_state(template, count, kept))
        batch = jax.numpy.asarray(tokens)[rows]
        (params, opt_state), _ = update(cfg.model, fixed, objective, rates, state, batch, gradient)
        after = {
            f"{theirs}/{name}": moment
            for theirs, ours in moments(cfg).items()
            for name, moment in optax.tree.get(opt_state, ours).items()
        }
        return params | after

    before = {name: trajectory[name][:-1] for name in compared}
    with numerics(cfg.model):
        inputs = (before, np.arange(cfg.steps), batches)
        mine = jax.jit(lambda inputs: jax.lax.map(step, inputs, batch_size=STEPS_AT_ONCE))(inputs)
    comparisons = [_compare_steps(name, mine, trajectory) for name in compared]
    return Level("L5", "float64", with_known_differences("L5", comparisons))


def _compare_steps(name: str, mine: dict[str, jax.Array], trajectory: Tensors) -> Comparison:
    after, ours = trajectory[name][1:], np.asarray(mine[name])
    gaps = gap(ours, after)
    # Entry by entry: where rotary turns a part of a head, b_K's gradient is zero in the other part alone.
    gradient = trajectory[f"grad/{name.split('/')[-1]}"]
    is_zero = np.abs(gradient).max(0) <= ZERO_GRADIENT
    bounds = np.where(is_zero, ZERO_GRADIENT_BOUND, ONE_STEP_BOUND)
    worst = np.unravel_index(np.argmax(gaps / bounds), gaps.shape)
    return Comparison(
        name=name,
        shape=after.shape[1:],
        error=float(gaps[worst]),
        bound=float(bounds[worst[1:]]),
        worst_index=tuple(map(int, worst)),
        ours=float(ours[worst]),
        theirs=float(after[worst]),
        note=f"worst at step {worst[0]}" + ", zero gradient" * bool(is_zero[worst[1:]]),
    )


def torch_trajectory(cfg: TrainConfig) -> Tensors:
    """Parameters, moments and last gradients of a torch run after 0, 1, ..., all updates: [steps + 1, ...] each."""
    engine = TorchEngine(cfg, "cpu")
    state = engine.start(draw_weights(cfg))
    batches = make_dataset(cfg).batches(0, cfg.steps)
    weights = engine.weights(state)
    zeros = {
        f"{kept}/{name}": np.zeros_like(w)
        for kept in (*moments(cfg), "grad")
        for name, w in weights.items()
    }
    points = [weights | zeros]
    for step in track(range(cfg.steps), "walking a torch run", transient=True):
        state, _ = engine.advance(state, batches[step : step + 1])
        arrays = engine.to_arrays(state) | gradients(cfg, state.model)
        # What torch does not train has no moments.
        points.append({name: arrays.get(name, zero) for name, zero in points[0].items()})
    return {name: np.stack([point[name] for point in points]) for name in points[0]}


def gradients(cfg: TrainConfig, model: Any) -> Tensors:
    """The gradients that torch's last update followed."""
    return {
        f"grad/{name}": adapter.to_3_9(cfg.model, name, parameter.grad).numpy().copy()
        for name, parameter in adapter.trainable(model, cfg.model).items()
        if parameter.grad is not None
    }


def in_float64(cfg: TrainConfig) -> TrainConfig:
    """The same run in float64."""
    return replace(cfg, model=cfg.model.replace(dtype="float64"))
