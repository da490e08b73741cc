"""A tiny model is computed in one thread, a larger one in as many as torch likes."""

from __future__ import annotations

import torch

from revinc import PRESETS
from torch_reference.threads import fitting_threads, threads


def test_tiny_models_have_one_thread():
    with threads(2):
        tutorial, grokking = PRESETS["tutorial"], PRESETS["grokking"]
        assert fitting_threads(tutorial.model, tutorial.batch_size) == 1
        assert fitting_threads(grokking.model, grokking.batch_size) == 2


def test_threads_are_what_they_were_afterwards():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
