"""What the reference draws by itself, one number at a time, is what all engines are given."""

from dataclasses import replace

import numpy as np
import pytest

from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.tasks import Brackets, Copy, ModularAddition, ReverseIncrement
from torch_reference.batches import sequences_of_every_step

CFG = TrainConfig(steps=7, data_seed=3, split_seed=5)
WIDE = CFG.model.replace(n_ctx=16, d_vocab=9)

RECIPES = {
    "the tutorial's": CFG,
    "a random split": replace(CFG, split="random"),
    "a batch that fills no block of words": replace(CFG, batch_size=13, split="random"),
    "a batch of all": replace(CFG, batch_size=CFG.n_train, split="random"),
    "one example": replace(CFG, batch_size=1),
    "another task": replace(
        CFG, task=ModularAddition(modulus=5), model=CFG.model.replace(d_vocab=6), batch_size=5
    ),
    "a task that is drawn": replace(CFG, task=Copy(length=8), model=WIDE),
    "a drawn task of many words": replace(CFG, task=Brackets(), model=WIDE, batch_size=3),
    "a drawn increment": replace(CFG, task=ReverseIncrement(length=7, n_symbols=8), model=WIDE),
}


@pytest.mark.parametrize("cfg", RECIPES.values(), ids=RECIPES)
def test_both_drawings_are_the_same(cfg):
    data = make_dataset(cfg)
    tokens, rows = data.examples(data.rows(0, cfg.steps))
    np.testing.assert_array_equal(sequences_of_every_step(cfg), tokens[rows])
