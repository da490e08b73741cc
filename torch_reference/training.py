"""Training in torch: from a config to a finished run folder, like `jax_revinc.train`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from revinc import TrainConfig, UserError
from revinc.dataset import make_dataset
from revinc.memory_estimate import require_room_to_train
from revinc.progress_output import Reporter
from revinc.run_request import make_request
from revinc.runs import Run
from revinc.trainer import run_training
from revinc.weights import StateDict
from torch_reference.engine import TorchEngine, free_memory
from torch_reference.installed_transformer_lens import adapter


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
    keep: str | None = None,
) -> Run:
    """Train TransformerLens' model with the config `cfg`, and write the run folder `out`.

    Args:
        cfg: the training config.
        out: the run folder.
        resume: go on with the run in `out` if there is one.
        overwrite: replace the run in `out`.
        init: initial weights, instead of TransformerLens' own draw from ``cfg.init_seed``.
        device: a torch device; the GPU if there is one, by default.
        reporter: where progress is shown; silent by default.
        log: where metrics are logged as well: "tensorboard" or "wandb", which need the extra
            ``tracking``.
        keep: "best" to keep the weights of the best evaluation as well.

    Raises:
        UserError: if `out`, `device`, `log` or `keep` can't be used, or `init` does not fit the config.
        Diverged: if the loss becomes NaN or infinite.
    """
    request = make_request(
        cfg, out, init=init, resume=resume, overwrite=overwrite, log=log, keep=keep
    )
    try:
        require_room_to_train(cfg, activations=True, available=free_memory(device))
        data = make_dataset(cfg)
        engine = TorchEngine(cfg, device, data)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} can't be used: {error}") from error

    reporter = reporter or Reporter(quiet=True)
    run_training(request, engine, data, partial(initial_weights, cfg), reporter)
    return Run.load(request.out)


def initial_weights(cfg: TrainConfig) -> StateDict:
    """The initial weights of a run as TransformerLens draws them, from its `init_seed`."""
    return adapter.read_weights(adapter.make_model(cfg.model, seed=cfg.init_seed), cfg.model)
