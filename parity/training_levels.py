"""The levels at which two trainings are compared: one optimizer step, and every step of a run."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import optax
import torch
from rich.progress import track

from jax_revinc import numerics
from jax_revinc.engines.xla import update
from jax_revinc.optimizer import make_optimizer, optimizer_numbers
from jax_revinc.training import draw_weights
from parity.comparison import Comparison, compare_tensors, gap
from parity.known_differences import with_known_differences
from parity.levels import Level
from parity.question import Tensors
from revinc import TrainConfig
from revinc.dataset import make_dataset
from torch_reference import TorchEngine
from torch_reference.engine import MOMENTS

ADAM_STATES = {"fresh": 0, "mid-run": 1234}
"""Updates made before the one that is compared."""

ONE_STEP_BOUND = 1e-12
"""Absolute, on every parameter and moment after one step in float64."""

ZERO_GRADIENT = 1e-13
"""A parameter whose gradient never exceeds this has a zero gradient and rounding noise."""

ZERO_GRADIENT_BOUND = 1e-8
"""Absolute: Adam divides the noise by itself, and it comes out up to the learning rate / epsilon large."""

STEPS_AT_ONCE = 250


def check_optimizer(cfg: TrainConfig, dtype: str) -> Level:
    """L4: one AdamW step from several states gives the same parameters and moments."""
    comparisons = []
    for label, count in ADAM_STATES.items():
        for zero in (False, True):
            rng = np.random.default_rng(count + zero)
            before = random_adam_state(rng, count, zero)
            truth = torch_step(cfg, before, count, "float64")
            mine = jax_step(cfg, before, count, dtype)
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
    """How far a float32 step may honestly be from the truth: torch's error, and bias correction's.

    torch corrects the moments' bias in Python's float64; optax, like all of JAX, in float32, where 0.999
    is off by 1.3e-8, and so 1 - 0.999 by a 77,000th. The update is off by that share.
    """
    step = torch_step(cfg, before, count, "float32")
    errors = {name: float(gap(step[name], truth[name]).max()) for name in truth}
    narrow, wide = (bias_correction(cfg, count + 1, dtype) for dtype in (np.float32, np.float64))
    decayed = (1 - cfg.learning_rate(count) * cfg.weight_decay) * before["param"].astype(np.float64)
    errors["param"] += abs(narrow / wide - 1) * float(np.abs(truth["param"] - decayed).max())
    return errors


def bias_correction(cfg: TrainConfig, count: int, dtype: type[np.floating]) -> float:
    """The factor that Adam's bias corrections put on an update, as computed in `dtype`."""
    first, second = (1 - dtype(b) ** dtype(count) for b in (cfg.b1, cfg.b2))
    return float(np.sqrt(second) / first)


def random_adam_state(rng: np.random.Generator, count: int, zero_gradient: bool) -> Tensors:
    """float32 numbers: a parameter, its gradient (of magnitudes from 1e-9 to 1) and its moments."""
    shape = (40, 25)
    magnitudes = 10.0 ** rng.uniform(-9, 0, shape)
    tensors = {
        "param": rng.normal(size=shape),
        "grad": np.zeros(shape) if zero_gradient else rng.normal(size=shape) * magnitudes,
        "exp_avg": (count > 0) * rng.normal(size=shape) * magnitudes,
        "exp_avg_sq": (count > 0) * (rng.normal(size=shape) * magnitudes) ** 2,
    }
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def torch_step(cfg: TrainConfig, before: Tensors, count: int, dtype: str) -> Tensors:
    """The parameter and its moments after one step of torch's AdamW."""
    wide = {name: torch.from_numpy(array.astype(dtype)) for name, array in before.items()}
    parameter = torch.nn.Parameter(wide["param"])
    optimizer = torch.optim.AdamW(
        [parameter], cfg.learning_rate(count), (cfg.b1, cfg.b2), cfg.adam_eps, cfg.weight_decay
    )
    optimizer.state[parameter] = {
        "step": torch.tensor(float(count)),
        "exp_avg": wide["exp_avg"],
        "exp_avg_sq": wide["exp_avg_sq"],
    }
    parameter.grad = wide["grad"]
    optimizer.step()
    state = optimizer.state[parameter]
    after = {"param": parameter.detach(), **{m: state[m] for m in ("exp_avg", "exp_avg_sq")}}
    return {name: tensor.numpy().copy() for name, tensor in after.items()}


def jax_step(cfg: TrainConfig, before: Tensors, count: int, dtype: str) -> Tensors:
    """The parameter and its moments after one step of our optimizer."""
    with numerics(cfg.model.replace(dtype=dtype)):
        wide = {name: jax.numpy.asarray(array, dtype) for name, array in before.items()}
        optimizer = make_optimizer(*optimizer_numbers(cfg))
        state = adam_state(
            optimizer.init(wide["param"]), count, wide["exp_avg"], wide["exp_avg_sq"]
        )
        updates, state = optimizer.update(wide["grad"], state, wide["param"])
        after = optax.apply_updates(wide["param"], updates)
        adam = state[0]  # type: ignore[index]
        results = {"param": after, "exp_avg": adam.mu, "exp_avg_sq": adam.nu}
        return {name: np.asarray(tensor) for name, tensor in results.items()}


def adam_state(template: optax.OptState, count: object, mu: object, nu: object) -> optax.OptState:
    """Our optimizer's state with these numbers in it; whatever counts steps in it has made `count`."""
    state: optax.OptState = optax.tree.set(
        template, count=jax.numpy.asarray(count, np.int32), mu=mu, nu=nu
    )
    return state


def check_every_step(cfg: TrainConfig) -> Level:
    """L5: from torch's state at every step of a run in float64, one step of ours is torch's next.

    All steps are made in one compiled program over the stored trajectory.
    """
    cfg = in_float64(cfg)
    trajectory = torch_trajectory(cfg)
    data = make_dataset(cfg)
    tokens, batches = data.examples(data.batches(0, cfg.steps))
    names = [name for name in trajectory if "/" not in name]
    adam, rates = optimizer_numbers(cfg)

    def step(inputs: tuple[dict[str, jax.Array], jax.Array, jax.Array]) -> dict[str, jax.Array]:
        before, count, rows = inputs
        params = {name: before[name] for name in names}
        template = make_optimizer(adam, rates).init(params)
        moments = [{n: before[f"{moment}/{n}"] for n in names} for moment in MOMENTS[:2]]
        state = (params, adam_state(template, count, *moments))
        batch = jax.numpy.asarray(tokens)[rows]
        (params, opt_state), _ = update(cfg.model, adam, data.predicted, rates, state, batch)
        after = {f"exp_avg/{n}": opt_state[0].mu[n] for n in names}  # type: ignore[index]
        after |= {f"exp_avg_sq/{n}": opt_state[0].nu[n] for n in names}  # type: ignore[index]
        return params | after

    before = {name: array[:-1] for name, array in trajectory.items()}
    with numerics(cfg.model):
        inputs = (before, np.arange(cfg.steps), batches)
        mine = jax.jit(lambda inputs: jax.lax.map(step, inputs, batch_size=STEPS_AT_ONCE))(inputs)
    comparisons = [_compare_steps(cfg, name, mine, trajectory) for name in trajectory]
    return Level("L5", "float64", with_known_differences("L5", comparisons))


def _compare_steps(
    cfg: TrainConfig, name: str, mine: dict[str, jax.Array], trajectory: Tensors
) -> Comparison:
    after, ours = trajectory[name][1:], np.asarray(mine[name])
    gaps = gap(ours, after)
    worst = np.unravel_index(np.argmax(gaps), gaps.shape)
    moment = trajectory[f"exp_avg/{name.split('/')[-1]}"]
    gradient = (moment[1:] - cfg.b1 * moment[:-1]) / (1 - cfg.b1)
    is_zero = float(np.abs(gradient).max()) <= ZERO_GRADIENT
    return Comparison(
        name=name,
        shape=after.shape[1:],
        error=float(gaps[worst]),
        bound=ZERO_GRADIENT_BOUND if is_zero else ONE_STEP_BOUND,
        worst_index=tuple(map(int, worst)),
        ours=float(ours[worst]),
        theirs=float(after[worst]),
        note=f"worst at step {worst[0]}" + ", zero gradient" * is_zero,
    )


def torch_trajectory(cfg: TrainConfig) -> Tensors:
    """Parameters and moments of a torch run after 0, 1, ..., all updates: [steps + 1, ...] each."""
    engine = TorchEngine(cfg, "cpu")
    state = engine.start(draw_weights(cfg))
    batches = make_dataset(cfg).batches(0, cfg.steps)
    weights = engine.weights(state)
    zeros = {f"{m}/{name}": np.zeros_like(w) for m in MOMENTS[:2] for name, w in weights.items()}
    points = [weights | zeros]
    for step in track(range(cfg.steps), "walking a torch run", transient=True):
        state, _ = engine.advance(state, batches[step : step + 1])
        arrays = engine.to_arrays(state)
        # What torch does not train has no moments.
        points.append({name: arrays.get(name, zero) for name, zero in points[0].items()})
    return {name: np.stack([point[name] for point in points]) for name in points[0]}


def in_float64(cfg: TrainConfig) -> TrainConfig:
    """The same run in float64."""
    return replace(cfg, model=cfg.model.replace(dtype="float64"))
