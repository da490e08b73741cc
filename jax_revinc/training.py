"""Training a model: from a config to a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jax_revinc.engines import ENGINES
from jax_revinc.engines.choice import choose_engine
from jax_revinc.init import init_params
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import numerics
from revinc import TrainConfig, runs
from revinc.console import Reporter
from revinc.engine import Engine
from revinc.run_writer import check_request
from revinc.tracking import find_sink
from revinc.trainer import run_training
from revinc.weights import StateDict, parameter_shapes


class Run(runs.Run):
    """A run folder whose weights open as a `HookedTransformer`."""

    def model(self, step: int | None = None) -> HookedTransformer:
        """The trained model, or the model after `step` updates if that snapshot was kept."""
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
) -> Run:
    """Train `cfg` and write the run folder `out`.

    Args:
        resume: go on with the run in `out` if there is one; on a CPU its end is bit for bit that
            of an uninterrupted run on the same machine.
        overwrite: replace the run in `out`.
        init: initial weights, instead of drawing them from ``cfg.init_seed``.
        engine: what executes the run: ``xla``, ``fused``, ``auto`` (see `jax_revinc.engines.choice.choose_engine`), or an
            engine of your own.
        reporter: where progress is shown; silent by default.
        log: where metrics go as well, "tensorboard" or "wandb", which need the extra ``tracking``.

    Raises:
        UserError: if `out`, `log` or `engine` can't be used, or `init` does not fit the config.
        Diverged: if the loss becomes NaN or infinite.
    """
    out, reporter = Path(out), reporter or Reporter(quiet=True)
    check_request(out, resume, overwrite)
    for name in log:
        find_sink(name)
    if isinstance(engine, str):  # only now, for one may have to be built
        begun = Run.load(out).engine["name"] if resume and (out / runs.CONFIG).exists() else None
        with reporter.busy("Getting the engine ready ..."):
            choice = choose_engine(engine, cfg, resumed=begun)
            reporter.say(choice.sentence)
            engine = ENGINES[choice.name](cfg)
    run_training(
        cfg,
        engine,
        lambda: draw_weights(cfg),
        out,
        init,
        resume,
        overwrite,
        reporter,
        log,
    )
    return Run.load(out)


def draw_weights(cfg: TrainConfig) -> StateDict:
    """The initial weights of a run, from its `init_seed`."""
    with numerics(cfg.model):
        params = jax.jit(init_params, static_argnums=0)(cfg.model, jax.random.key(cfg.init_seed))
    return {name: np.asarray(params[name]) for name in parameter_shapes(cfg.model)}
