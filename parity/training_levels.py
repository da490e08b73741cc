"""Parity levels L4 and L5, which compare training: one optimizer step, and every step of a run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import torch
from jaxtyping import Float

from jax_revinc import numerics
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.training import FusedTraining
from jax_revinc.engines.xla import Gradient, update
from jax_revinc.optimizer import make_optimizer, optimizer_settings
from jax_revinc.training import draw_weights
from parity.comparison import Comparison, compare_tensors, gap, largest
from parity.inputs import Tensors
from parity.kept_arrays import kept
from parity.known_differences import with_known_differences
from parity.levels import Level
from parity.model_levels import error_in_a_row
from parity.progress import busy, follow
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.objective import make_objective
from revinc.trainer import Diverged
from torch_reference import TorchEngine, adapter
from torch_reference.batches import sequences_of_every_step
from torch_reference.engine import State
from torch_reference.installed_transformer_lens import WORLD
from torch_reference.optimizer import clip_gradients, require_counterpart
from torch_reference.optimizer import make_optimizer as make_torch_optimizer

OF_ADAM = {"exp_avg": "mu", "exp_avg_sq": "nu"}

MOMENTS = {
    "adamw": OF_ADAM,
    "adam": OF_ADAM,
    "rmsprop": {"square_avg": "nu"},
    "sgd": {"momentum_buffer": "trace"},
}
"""The moments that each optimizer keeps, by torch's names: optax's names of them."""

STATES = {"fresh": 0, "mid-run": 1234}
"""Updates made before the one that is compared."""

ONE_STEP_BOUND = 1e-12
"""The float64 bound on parameters and moments after one step: absolute, or relative above 1."""

JITTERED_BOUND = 4.0
"""The bound as a multiple of what jitter changes in torch's step, if more: `jitter_gradients`."""

JITTERED_EVERY = 8
"""The steps from one step of torch that is repeated with jitter to the next."""

ZERO_GRADIENT = 1e-13
"""A parameter whose gradient never exceeds this has a gradient of zero, except for rounding."""

ZERO_GRADIENT_BOUND = 1e-8
"""The absolute bound for zero gradients: Adam divides their noise by itself."""

STEPS_AT_ONCE = 250

Step = Callable[[TrainConfig, Tensors, int, str], Tensors]
"""A function from training config, tensors (see `random_state`), updates so far and precision.

It returns the tensors after one more step.
"""


def moments(cfg: TrainConfig) -> dict[str, str]:
    """The moments (running averages) of a config's optimizer: Optax' name by torch's name."""
    return {} if cfg.optimizer == "sgd" and not cfg.momentum else MOMENTS[cfg.optimizer]


def check_optimizer(cfg: TrainConfig, dtype: str, step: Step | None = None) -> Level:
    """Check parity level L4: an optimizer step from the same state gives the same in JAX and torch.

    Args:
        cfg: the training config.
        dtype: the precision.
        step: makes the step in JAX; `jax_step` by default.
    """
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
    """The float32 error of torch's optimizer step by tensor, from which the bound for JAX is set.

    It is torch's error, plus the errors of what torch computes more exactly. torch corrects the
    bias of Adam's moments in Python's float64; optax, like all of JAX, in float32, where 0.999 is
    off by 1.3e-8, and so 1 - 0.999 by a 77,000th. The update is off by that share. The norm that
    gradients are clipped by is a sum of squares, which torch adds pairwise; the root halves its
    error.
    """
    step = torch_step(cfg, before, count, "float32")
    errors = {name: largest(gap(step[name], truth[name])) for name in truth}
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
    """The factor by which Adam's bias correction scales an update; 1 for other optimizers."""
    if MOMENTS[cfg.optimizer] is not OF_ADAM:
        return 1.0
    first, second = (1 - dtype(b) ** dtype(count) for b in (cfg.b1, cfg.b2))
    return float(np.sqrt(second) / first)


def random_state(
    rng: np.random.Generator, kept: Iterable[str], count: int, zero_gradient: bool
) -> Tensors:
    """Random float32 tensors: a parameter, its gradient (magnitudes 1e-9 to 1) and its moments.

    A moment has the magnitude of the gradient, or of its square if its name says so.
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
    """The parameter and its moments after one step of the optimizer in torch."""
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
    """The parameter and its moments after one step of the optimizer in JAX."""
    with numerics(cfg.model.replace(dtype=dtype)):
        wide = {name: {"w": jax.numpy.asarray(array, dtype)} for name, array in before.items()}
        optimizer = make_optimizer(*optimizer_settings(cfg))
        kept = {ours: wide[theirs] for theirs, ours in moments(cfg).items()}
        state = optimizer_state(optimizer.init(wide["param"]), count, kept)
        updates, state = optimizer.update(wide["grad"], state, wide["param"])
        after = {theirs: optax.tree.get(state, ours) for theirs, ours in moments(cfg).items()}
        after = {"param": optax.apply_updates(wide["param"], updates), **after}
        return {name: np.asarray(of_name["w"]) for name, of_name in after.items()}


def fused_step(cfg: TrainConfig, before: Tensors, count: int, dtype: str) -> Tensors:
    """The parameter and its moments after one step of the optimizer in the fused engine."""
    fixed, rates = optimizer_settings(cfg)
    with numerics(cfg.model.replace(dtype=dtype)):
        wide = {name: jax.numpy.asarray(array, dtype) for name, array in before.items()}
        rates = jax.tree.map(lambda rate: np.asarray(rate, dtype), rates)
        params = {"g": wide["grad"], "w": wide["param"]}
        training = FusedTraining(
            lambda params, _: (params["w"] * params["g"]).sum(),
            partial(make_optimizer, fixed),
            rates,
            Spec(params, length=1, n_tokens=1),
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
    """An optax state with the given moments and number of steps.

    Args:
        template: a state of the optimizer.
        count: the steps made so far.
        kept: the moments by optax's names.
    """
    counts = optax.tree.get_all_with_path(template, "count")
    numbers = kept | ({"count": jax.numpy.asarray(count, np.int32)} if counts else {})
    state: optax.OptState = optax.tree.set(template, **numbers)
    return state


def check_every_step(
    cfg: TrainConfig,
    gradient: Gradient | None = None,
    trajectory: Callable[[TrainConfig], Tensors] | None = None,
) -> Level:
    """Check parity level L5: from each state of a torch run, a JAX step gives torch's next state.

    Everything is in float64. All steps are made in one compiled program over the stored trajectory.

    Args:
        cfg: the training config.
        gradient: computes loss and gradient in JAX; XLA's by default.
        trajectory: gives the torch run of a config in float64; `torch_trajectory` by default.

    Raises:
        Diverged: if torch's loss becomes NaN or infinite.
    """
    cfg = in_float64(cfg)
    walked = (trajectory or torch_trajectory)(cfg)
    data, objective = make_dataset(cfg), make_objective(cfg)
    tokens, batches = data.examples(data.rows(0, cfg.steps))
    names = [name for name in walked if "/" not in name]
    compared = [name for name in walked if not name.startswith(("grad/", "jitter/"))]
    fixed, rates = optimizer_settings(cfg)

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

    before = {name: walked[name][:-1] for name in compared}
    with numerics(cfg.model), busy("L5: the same steps in JAX"):
        inputs = (before, np.arange(cfg.steps), batches)
        mine = jax.jit(lambda inputs: jax.lax.map(step, inputs, batch_size=STEPS_AT_ONCE))(inputs)
    comparisons = [compare_steps(name, mine, walked) for name in compared]
    return Level("L5", "float64", with_known_differences("L5", comparisons))


def compare_steps(name: str, mine: dict[str, jax.Array], trajectory: Tensors) -> Comparison:
    """Compare a parameter or moment in JAX and torch, at the worst entry of all steps of a run."""
    after, ours = trajectory[name][1:], np.asarray(mine[name])
    gaps = gap(ours, after)
    # Entry by entry: if rotary turns a part of a head, b_K's gradient is zero in the other part.
    gradient = trajectory[f"grad/{name.split('/')[-1]}"]
    is_zero = np.abs(gradient).max(0) <= ZERO_GRADIENT
    sizes = np.nan_to_num(np.abs(after), nan=0.0, posinf=0.0)
    rounding = ONE_STEP_BOUND * np.maximum(1.0, sizes)
    jitter = JITTERED_BOUND * largest(trajectory[f"jitter/{name}"])
    bounds = np.maximum(np.where(is_zero, ZERO_GRADIENT_BOUND, rounding), jitter)
    worst = np.unravel_index(np.argmax(gaps / bounds), gaps.shape)
    zero = ", zero gradient" if is_zero[worst[1:]] else ""
    return Comparison(
        name=name,
        shape=after.shape[1:],
        error=float(gaps[worst]),
        bound=float(bounds[worst]),
        worst_index=tuple(map(int, worst)),
        ours=float(ours[worst]),
        theirs=float(after[worst]),
        note=f"worst at step {worst[0]}{zero}",
    )


def torch_trajectory(cfg: TrainConfig) -> Tensors:
    """Train in torch; return all parameters, moments and gradients, before and after each update.

    The batches are drawn by the reference's own code.

    Returns:
        Arrays [steps + 1, ...] by name; and as ``jitter/NAME`` the largest change of a parameter or
        moment by `jitter_gradients` in one step.

    Raises:
        Diverged: if the loss becomes NaN or infinite.
    """
    engine = TorchEngine(cfg, "cpu")
    state = engine.start(draw_weights(cfg))
    sequences = sequences_of_every_step(cfg)
    weights = engine.weights(state)
    zeros = {
        f"{kept}/{name}": np.zeros_like(w)
        for kept in (*moments(cfg), "grad")
        for name, w in weights.items()
    }
    points = [weights | zeros]
    changes = {
        name: np.zeros_like(w) for name, w in points[0].items() if not name.startswith("grad/")
    }
    for step in follow(range(cfg.steps), "L5: a torch run"):
        # A model of 4.x keeps activations, which can't be copied: there the plain bound holds.
        is_jittered = WORLD == "3.9" and step % JITTERED_EVERY == 0
        other = jitter_gradients(state, cfg, step) if is_jittered else None
        state, losses = engine.train_on(state, sequences[step : step + 1])
        require_finite(losses, step)
        arrays = engine.to_arrays(state) | gradients(cfg, state.model)
        # Parameters that torch does not train have no moments.
        points.append({name: arrays.get(name, zero) for name, zero in points[0].items()})
        if other:
            other, _ = engine.train_on(other, sequences[step : step + 1])
            of_other = engine.to_arrays(other)
            for name, change in changes.items():
                apart = gap(of_other.get(name, points[0][name]), points[-1][name])
                np.maximum(change, apart, out=change)
    trajectory = {name: np.stack([point[name] for point in points]) for name in points[0]}
    return trajectory | {f"jitter/{name}": change for name, change in changes.items()}


def kept_trajectory(cfg: TrainConfig) -> Tensors:
    """The arrays of `torch_trajectory`, from the user's cache folder if they are kept there."""
    given = {"config": cfg.to_dict(), "steps": sequences_of_every_step(cfg), **draw_weights(cfg)}
    return kept("trajectory", given, lambda: torch_trajectory(cfg))


def jitter_gradients(state: State, cfg: TrainConfig, seed: int) -> State:
    """Copy a torch run's state, and add rounding noise to the copy's gradients at the logits.

    The gradient is a probability minus 0 or 1, so its error is an ulp of the probability even if
    the gradient is tiny, where the model is sure; and Adam divides a gradient by its size.
    """
    state, rng = copy.deepcopy(state), np.random.default_rng(seed)
    counted = torch.as_tensor(make_objective(cfg).train_positions) - 1

    def add_ulps(model: Any, fed: Any, logits: torch.Tensor) -> None:  # noqa: ARG001
        if not logits.requires_grad:
            return
        probabilities = torch.softmax(logits.detach()[:, counted], -1)
        shares = torch.from_numpy(rng.uniform(-1, 1, tuple(probabilities.shape)))
        ulps = torch.finfo(logits.dtype).eps * shares * probabilities
        n_terms = probabilities[..., 0].numel()
        logits.register_hook(lambda gradient: gradient.index_add(1, counted, ulps / n_terms))

    state.model.register_forward_hook(add_ulps)
    return state


def require_finite(losses: Float[np.ndarray, " steps"], first_step: int = 0) -> None:
    """Raise `Diverged` unless all losses of a torch run, from `first_step` on, are finite."""
    finite = np.isfinite(losses)
    if not finite.all():
        step = first_step + int(finite.argmin())
        raise Diverged(
            f"torch's loss became NaN or infinite at step {step}, which leaves nothing to compare "
            "with; choose a training config that trains, such as one with a lower learning rate"
        )


def gradients(cfg: TrainConfig, model: Any) -> Tensors:
    """The gradients of a torch run's last update, by name and layout of TransformerLens 3.9."""
    return {
        f"grad/{name}": adapter.to_3_9(cfg.model, name, parameter.grad).numpy().copy()
        for name, parameter in adapter.trainable(model, cfg.model).items()
        if parameter.grad is not None
    }


def in_float64(cfg: TrainConfig) -> TrainConfig:
    """A copy of a training config whose model is in float64."""
    return replace(cfg, model=cfg.model.replace(dtype="float64"))
