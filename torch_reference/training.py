"""Training the reference: from a config to a finished run folder, like `jax_revinc.train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from revinc import TrainConfig, UserError
from revinc.console import Reporter
from revinc.runs import Run
from revinc.trainer import run_training
from revinc.weights import StateDict
from torch_reference.engine import TorchEngine
from torch_reference.installed import adapter


def train(
    cfg: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: StateDict | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
    log: Sequence[str] = (),
) -> Run:
    """Train `cfg` on TransformerLens and write the run folder `out`.

    Args:
        resume: go on with the run in `out` if there is one.
        overwrite: replace the run in `out`.
        init: initial weights, instead of TransformerLens' own draw from ``cfg.init_seed``.
        device: a torch device; the GPU if there is one, by default.
        reporter: where progress is shown; silent by default.
        log: where metrics go as well, "tensorboard" or "wandb", which need the extra ``tracking``.

    Raises:
        UserError: if `out`, `device` or `log` can't be used, or `init` does not fit the config.
        Diverged: if the loss becomes NaN or infinite.
    """
    out = Path(out)
    try:
        engine = TorchEngine(cfg, device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} can't be used: {error}") from error

    run_training(
        cfg,
        engine,
        lambda: initial_weights(cfg),
        out,
        init,
        resume,
        overwrite,
        reporter or Reporter(quiet=True),
        log,
    )
    return Run.load(out)


def initial_weights(cfg: TrainConfig) -> StateDict:
    """TransformerLens' own draw of a run's initial weights, from its `init_seed`."""
    return adapter.read_weights(adapter.make_model(cfg.model, seed=cfg.init_seed), cfg.model)
