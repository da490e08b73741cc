"""Training a model: from a config to a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines import JaxEngine
from jax_revinc.engines.device import device_memory
from jax_revinc.engines.engine_choice import choose_engine
from jax_revinc.model import HookedTransformer
from jax_revinc.weights.init import init_params, make_key
from revinc import TrainConfig, UserError, runs
from revinc.dataset import make_dataset
from revinc.engine import Engine
from revinc.errors import shown
from revinc.memory_estimate import require_room_to_train
from revinc.progress_output import Reporter
from revinc.run_request import RunRequest, make_request
from revinc.trainer import run_training
from revinc.weights import StateDict, parameter_shapes


class Run(runs.Run):
    """The folder of one training run, whose weights can be opened as a `HookedTransformer`."""

    def model(self, step: int | str | None = None) -> HookedTransformer:
        """The trained model, or the model after `step` updates, from the snapshot of that step.

        Args:
            step: the number of updates; "best" for the step of the best evaluation; None for the
                trained model.

        Raises:
            UserError: if the run is unfinished or has no snapshot of that step, or the file is
                damaged.
        """
        return HookedTransformer(self.config.model, params=self.state_dict(step))


def train(
    cfg: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: StateDict | None = None,
    engine: Engine | str = "auto",
    reporter: Reporter | None = None,
    log: Sequence[str] = (),
    keep: str | None = None,
) -> Run:
    """Train a model from the config `cfg`, and write the run folder `out`.

    Args:
        cfg: the training config.
        out: the run folder.
        resume: go on with the run in `out` if there is one; on a CPU it ends bit for bit like an
            uninterrupted run on the same machine.
        overwrite: replace the run in `out`.
        init: initial weights, instead of drawing them from ``cfg.init_seed``.
        engine: ``xla``, ``fused``, ``auto`` (see `jax_revinc.engines.engine_choice.choose_engine`), or an
            engine of your own.
        reporter: where progress is shown; silent by default.
        log: where metrics are logged as well: "tensorboard" or "wandb", which need the extra
            ``tracking``.
        keep: "best" to keep the weights of the best evaluation as well, for ``Run.model("best")``.

    Raises:
        UserError: if `out`, `log`, `keep` or `engine` can't be used, or `init` does not fit the config.
        Diverged: if the loss becomes NaN or infinite.
    """
    if not isinstance(engine, str) and not hasattr(engine, "advance"):
        raise UserError(f"engine must be an engine's name or an Engine object, not {shown(engine)}")
    request = make_request(
        cfg, out, init=init, resume=resume, overwrite=overwrite, log=log, keep=keep
    )
    require_room_to_train(cfg, available=device_memory())
    reporter, data = reporter or Reporter(quiet=True), make_dataset(cfg)
    if isinstance(engine, str):
        with reporter.busy("Getting the engine ready ..."):
            choice = choose_engine(engine, cfg, resumed=begun_by(request))
            reporter.say(choice.sentence)
            if choice.engine_name == "xla":
                require_room_to_train(cfg, activations=True, available=device_memory())
            engine = JaxEngine(cfg, choice.programs, data)
    run_training(request, engine, data, partial(draw_weights, cfg), reporter)
    return Run.load(request.out)


def begun_by(request: RunRequest) -> str | None:
    """The name of the engine that trained the run so far, if it is resumed; None for a new run.

    Raises:
        UserError: if the run was taken from a population.
    """
    if not request.resumes:
        return None
    run = runs.Run.load(request.out, type(request.cfg.task))
    if run.is_exported:
        raise UserError(
            f"{run.path} was taken from a population and can't be resumed; train a new run in "
            "another folder"
        )
    return run.engine["name"]


def draw_weights(cfg: TrainConfig) -> StateDict:
    """The initial weights of a model, drawn from the seed `init_seed` of its config."""
    with numerics(cfg.model):
        params = jax.jit(init_params, static_argnums=0)(cfg.model, make_key(cfg.init_seed))
    return {name: np.asarray(params[name]) for name in parameter_shapes(cfg.model)}
