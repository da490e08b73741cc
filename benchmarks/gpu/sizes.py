"""How much is asked of a GPU, and the tiny sizes of the dry run on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.entrants import Effort
from revinc import PRESETS, TrainConfig
from revinc.tasks import ModularAddition

TUTORIAL, GROKKING = PRESETS["tutorial"], PRESETS["grokking"]
TUTORIAL_MODEL, GROKKING_MODEL = TUTORIAL.model, GROKKING.model


@dataclass(frozen=True)
class Sizes:
    """What the stages train.

    Attributes:
        dry_run: whether no GPU is used.
        parity: the training config of the parity check; level L5 takes all its steps.
        run: the training config of the run that is trained twice.
        tutorial: the training config of the table.
        widths: models side by side in JAX.
        torch_width: models side by side in torch.
        grokking: the training config whose step is timed alone.
        effort: rounds and seconds of the timings.
    """

    dry_run: bool
    parity: TrainConfig
    run: TrainConfig
    tutorial: TrainConfig
    widths: tuple[int, ...]
    torch_width: int
    grokking: TrainConfig
    effort: Effort


FULL = Sizes(
    dry_run=False,
    parity=replace(TUTORIAL, steps=200),
    run=TUTORIAL,
    tutorial=TUTORIAL,
    widths=(1024, 4096, 65536),
    torch_width=4096,
    grokking=GROKKING,
    effort=Effort(rounds=7, seconds=0.4, starts=("cold",)),
)

ONE_LAYER = replace(TUTORIAL, steps=10, model=TUTORIAL_MODEL.replace(n_layers=1))

TINY = Sizes(
    dry_run=True,
    parity=ONE_LAYER,
    run=ONE_LAYER,
    tutorial=ONE_LAYER,
    widths=(2,),
    torch_width=2,
    grokking=replace(
        GROKKING,
        task=ModularAddition(modulus=7),
        batch_size=15,
        model=GROKKING_MODEL.replace(
            d_model=8, d_head=4, n_heads=2, d_mlp=16, d_vocab=8, d_vocab_out=7
        ),
    ),
    effort=Effort(rounds=2, seconds=0.0, starts=("cold",)),
)
