from __future__ import annotations

import numpy as np
import pytest

from revinc.checkpoint import Checkpoint, History
from revinc.engine import METRICS
from revinc.weights import read_safetensors, save_state_dict

EVALUATION = dict(zip(METRICS, (1 / 3, 2 / 3, 0.1, 0.2), strict=True))


def through_a_file(point, tmp_path):
    save_state_dict(tmp_path / "checkpoint", point.to_arrays("recipe"))
    return Checkpoint.from_arrays(read_safetensors(tmp_path / "checkpoint"), "recipe")


def assert_same(ours, theirs):
    assert ours.step == theirs.step
    assert ours.engine_arrays.keys() == theirs.engine_arrays.keys()
    for name, array in ours.engine_arrays.items():
        assert array.dtype == theirs.engine_arrays[name].dtype
        assert array.shape == theirs.engine_arrays[name].shape
        assert array.tobytes() == theirs.engine_arrays[name].tobytes()
    for columns in ("metric_columns", "loss_columns"):
        one, other = getattr(ours.history, columns), getattr(theirs.history, columns)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


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
    assert len(restored.history.loss_columns["loss"]) == 0


def test_tables_have_a_row_per_evaluation_and_per_update():
    history = History().with_evaluation(0, EVALUATION).with_losses(np.array([0.5, 0.25]))
    evaluated = {name: column.tolist() for name, column in history.metric_columns.items()}
    assert evaluated == {"step": [0], **{name: [value] for name, value in EVALUATION.items()}}
    assert {n: c.tolist() for n, c in history.loss_columns.items()} == {
        "step": [0, 1],
        "loss": [0.5, 0.25],
    }


def arrays_of_a_run():
    history = History().with_evaluation(0, EVALUATION).with_losses(np.array([0.5, 0.25, 0.125]))
    return Checkpoint(3, {"count": np.array([1.5, 2.5])}, history).to_arrays("recipe")


@pytest.mark.parametrize("name", sorted(arrays_of_a_run()))
def test_a_flipped_bit_is_noticed_wherever_it_is(name):
    arrays = arrays_of_a_run()
    changed = bytearray(arrays[name].tobytes())
    changed[0] ^= 1
    arrays[name] = np.frombuffer(bytes(changed), arrays[name].dtype).reshape(arrays[name].shape)
    with pytest.raises(ValueError, match="damaged"):
        Checkpoint.from_arrays(arrays, "recipe")


def test_a_checkpoint_of_another_run_is_noticed():
    with pytest.raises(ValueError, match="another run's"):
        Checkpoint.from_arrays(arrays_of_a_run(), "another")


def test_a_checkpoint_from_before_there_were_seals_is_taken():
    arrays = arrays_of_a_run()
    del arrays["sha256"]
    assert Checkpoint.from_arrays(arrays, "recipe").step == 3


UNSEALED_DAMAGES = {
    "no step": {"at": None},
    "a step of floats": {"at": np.array(3.0)},
    "steps": {"at": np.array([3, 4])},
    "another step": {"at": np.array(2)},
    "a negative step": {"at": np.array(-1)},
    "losses missing": {"history/losses": None},
    "losses too many": {"history/losses": np.zeros(4)},
    "losses of other shape": {"history/losses": np.zeros((3, 1))},
    "losses of integers": {"history/losses": np.zeros(3, int)},
    "a metric too long": {"history/train_loss": np.zeros(2)},
    "half a step": {"history/step": np.array([0.5])},
    "NaN for a step": {"history/step": np.array([np.nan])},
    "a step beyond": {"history/step": np.array([4.0])},
    "a column of no name": {"history/other": np.zeros(1)},
    "something else": {"other/x": np.zeros(1)},
}


@pytest.mark.parametrize("changes", UNSEALED_DAMAGES.values(), ids=UNSEALED_DAMAGES)
def test_what_contradicts_itself_is_no_checkpoint(changes):
    arrays = arrays_of_a_run() | changes
    del arrays["sha256"]
    with pytest.raises(
        ValueError,
        match=r"^the checkpoint('s history must (have|hold))? ",
    ):
        Checkpoint.from_arrays({k: a for k, a in arrays.items() if a is not None}, "recipe")
