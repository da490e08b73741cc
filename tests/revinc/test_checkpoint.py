from __future__ import annotations

import numpy as np

from revinc.checkpoint import Checkpoint, History
from revinc.engine import METRICS
from revinc.weights import read_safetensors, save_state_dict

EVALUATION = dict(zip(METRICS, (1 / 3, 2 / 3, 0.1, 0.2), strict=True))


def through_a_file(point, tmp_path):
    save_state_dict(tmp_path / "checkpoint", point.to_arrays())
    return Checkpoint.from_arrays(read_safetensors(tmp_path / "checkpoint"))


def assert_same(ours, theirs):
    assert ours.step == theirs.step
    assert ours.engine_arrays.keys() == theirs.engine_arrays.keys()
    for name, array in ours.engine_arrays.items():
        assert array.dtype == theirs.engine_arrays[name].dtype
        assert array.shape == theirs.engine_arrays[name].shape
        assert array.tobytes() == theirs.engine_arrays[name].tobytes()
    assert ours.history.metrics.equals(theirs.history.metrics)
    assert ours.history.loss_table.equals(theirs.history.loss_table)


def test_a_checkpoint_survives_a_file_bit_for_bit(tmp_path):
    engine_arrays = {
        "[1].count": np.array(7, np.int32),
        "[0]['blocks.0.attn.W_Q']": np.random.default_rng(0).normal(size=(1, 4, 2)),
        "narrow": np.array([0.1], np.float32),
    }
    history = History().with_evaluation(0, EVALUATION).with_losses(np.array([0.1, 0.2]))
    history = history.with_losses(np.array([0.3])).with_evaluation(3, EVALUATION)
    point = Checkpoint(3, engine_arrays, history)
    assert_same(through_a_file(point, tmp_path), point)


def test_a_checkpoint_before_anything_was_measured_survives_a_file(tmp_path):
    restored = through_a_file(Checkpoint(0, {"count": np.array(0)}), tmp_path)
    assert restored.step == 0
    assert restored.engine_arrays["count"].shape == ()
    assert restored.history.evaluations == ()
    assert len(restored.history.loss_table) == 0


def test_tables_have_a_row_per_evaluation_and_per_update():
    history = History().with_evaluation(0, EVALUATION).with_losses(np.array([0.5, 0.25]))
    assert history.metrics.to_dict("records") == [{"step": 0, **EVALUATION}]
    assert history.loss_table.to_dict("list") == {"step": [0, 1], "loss": [0.5, 0.25]}
