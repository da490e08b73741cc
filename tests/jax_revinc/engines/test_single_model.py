from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fused_examples import require_compiler
from populations import RECIPE

from jax_revinc import HookedTransformer, numerics
from jax_revinc.engines import PROGRAMS, JaxEngine, make_engine, make_population_engine
from jax_revinc.engines.xla import advance
from jax_revinc.training import draw_weights
from revinc.batch_schedule import draw_batches
from revinc.dataset import make_dataset
from revinc.engine import METRICS
from revinc.tasks import Copy
from revinc.weights import read_safetensors, save_state_dict

pytestmark = pytest.mark.optimized


def recipe(tutorial, dtype, name):
    """The tutorial's run, with up to 100 steps at once; on the fused engine, of a model that builds in seconds."""
    model = tutorial.model.replace(dtype=dtype, n_layers=2 if name == "xla" else 1)
    return dataclasses.replace(tutorial, model=model)


@pytest.fixture(
    scope="module",
    params=[
        ("float32", "xla"),
        ("float64", "xla"),
        ("float64", "fused"),
        pytest.param(("float32", "fused"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def engine(request, tutorial):
    _, name = request.param
    if name == "fused":
        require_compiler()
    return make_engine(recipe(tutorial, *request.param), name)


@pytest.fixture(scope="module")
def batches(tutorial):
    return draw_batches(0, np.arange(200), tutorial.batch_size, 0, 100)


@pytest.fixture
def start(engine, random_weights):
    return engine.start(random_weights(engine.cfg.model))


def same_bits(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        a.dtype == theirs[name].dtype
        and a.shape == theirs[name].shape
        and a.tobytes() == theirs[name].tobytes()
        for name, a in ours.items()
    )


def plain_training(cfg, task, weights, batches):
    """Single AdamW steps in numpy, one after the other; only the gradient comes from JAX."""
    sequences = task.sequences()

    def loss(params, tokens):
        logits = HookedTransformer(cfg.model, params=params)(tokens[:, :-1])[:, 4:]
        chosen = jnp.take_along_axis(logits, tokens[:, 5:, None], axis=-1)[..., 0]
        return (jnp.log(jnp.exp(logits).sum(-1)) - chosen).mean()

    with numerics(cfg.model):
        loss_and_grad = jax.jit(jax.value_and_grad(loss))
        params = dict(weights)
        first = {name: np.zeros_like(w) for name, w in params.items()}
        second = {name: np.zeros_like(w) for name, w in params.items()}
        losses = []
        for step, rows in enumerate(batches, start=1):
            value, grads = loss_and_grad(params, sequences[rows])
            losses.append(float(value))
            for name, w in params.items():
                grad = np.asarray(grads[name])
                first[name] = cfg.b1 * first[name] + (1 - cfg.b1) * grad
                second[name] = cfg.b2 * second[name] + (1 - cfg.b2) * grad**2
                m = first[name] / (1 - cfg.b1**step)
                v = second[name] / (1 - cfg.b2**step)
                decayed = w - cfg.lr * cfg.weight_decay * w
                params[name] = decayed - cfg.lr * m / (np.sqrt(v) + cfg.adam_eps)
    return params, losses


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_chunk_is_a_plain_loop_of_single_steps(tutorial, random_weights, batches, kind):
    if kind == "fused":
        require_compiler()
    cfg = recipe(tutorial, "float64", kind)
    weights = random_weights(cfg.model)
    engine = make_engine(cfg, kind)
    state, losses = engine.advance(engine.start(weights), batches[:12])
    expected, expected_losses = plain_training(cfg, cfg.task, weights, batches[:12])
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-10)
    for name, w in engine.weights(state).items():
        # The gradient of b_K is rounding noise, and Adam divides by its size, or at least by 1e-8.
        tolerance = 1e-8 if name.endswith("b_K") else 1e-11
        np.testing.assert_allclose(w, expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("cuts", [(37,), (1, 2, 99), (50,)], ids=str)
def test_chunking_does_not_change_a_bit(engine, start, batches, cuts):
    whole, whole_losses = engine.advance(start, batches)
    state, losses = start, []
    for stretch in np.split(batches, cuts):
        state, chunk = engine.advance(state, stretch)
        losses.append(chunk)
    assert same_bits(engine.to_arrays(state), engine.to_arrays(whole))
    assert np.concatenate(losses).tobytes() == whole_losses.tobytes()
    assert whole_losses.shape == (100,)


def test_a_state_goes_through_arrays_and_a_file_and_on_without_a_change(
    engine, start, batches, tmp_path
):
    state, _ = engine.advance(start, batches[:30])
    arrays = engine.to_arrays(state)
    save_state_dict(tmp_path / "state", arrays)
    from_file = read_safetensors(tmp_path / "state")
    assert same_bits(from_file, arrays)
    restored = engine.from_arrays(from_file)
    assert same_bits(engine.to_arrays(restored), arrays)
    on, losses = engine.advance(state, batches[30:50])
    restored_on, restored_losses = engine.advance(restored, batches[30:50])
    assert same_bits(engine.to_arrays(restored_on), engine.to_arrays(on))
    assert losses.tobytes() == restored_losses.tobytes()


OTHER_RECIPES = [
    {"optimizer": "lion", "lr_schedule": "linear", "label_smoothing": 0.1, "loss_on": "all"},
    {"optimizer": "sgd", "momentum": 0.9, "warmup_steps": 9, "clip_grad_norm": 0.5},
    {"optimizer": "rmsprop", "lr_schedule": "cosine", "lr_end": 2e-3},
    {"optimizer": "nadamw", "clip_grad_norm": 1.0},
    {"optimizer": "adam", "warmup_steps": 25},
]


@pytest.mark.parametrize(
    "changes",
    [
        OTHER_RECIPES[0],
        *(pytest.param(other, marks=pytest.mark.slow) for other in OTHER_RECIPES[1:]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["xla", pytest.param("fused", marks=pytest.mark.slow)])
def test_other_recipes_learn_resume_and_run_side_by_side_as_one(
    tutorial, random_weights, batches, name, changes
):
    if name == "fused":
        require_compiler()
    model = tutorial.model.replace(n_layers=1, attn_only=True, dtype="float64")
    cfg = dataclasses.replace(tutorial, model=model, weight_decay=0.0, lr=1e-2, **changes)
    weights = {name: w / 4 for name, w in random_weights(cfg.model).items()}
    engine = make_engine(cfg, name)
    whole, losses = engine.advance(engine.start(weights), batches[:60])
    assert losses[:10].mean() - losses[-10:].mean() > 0.05, "it learns"

    half, _ = engine.advance(engine.start(weights), batches[:20])
    resumed = engine.from_arrays(engine.to_arrays(half))
    resumed, rest = engine.advance(resumed, batches[20:60])
    assert same_bits(engine.to_arrays(resumed), engine.to_arrays(whole))
    assert rest.tobytes() == losses[20:].tobytes()

    population = make_population_engine(cfg, name, width=2)
    runs = [dataclasses.replace(cfg, lr=0.5), cfg]
    both = {name: np.stack([w, w]) for name, w in weights.items()}
    _, side_by_side = population.advance(
        population.start([make_dataset(run) for run in runs], both), np.stack([batches[:60]] * 2)
    )
    np.testing.assert_allclose(side_by_side[1, :20], losses[:20], rtol=1e-8)
    assert not np.allclose(side_by_side[0, :20], losses[:20], rtol=1e-3)


def test_arrays_stay_as_they_were_when_the_run_goes_on(engine, start, batches):
    arrays = engine.to_arrays(start)
    copies = {name: array.copy() for name, array in arrays.items()}
    engine.advance(start, batches[:5])
    assert same_bits(arrays, copies)


def test_a_start_holds_the_weights_given(engine, start, random_weights):
    assert same_bits(engine.weights(start), random_weights(engine.cfg.model))


def test_metrics_are_what_numpy_counts(engine, start, batches, tutorial):
    state, _ = engine.advance(start, batches)
    measured = engine.evaluate(state)
    sequences = tutorial.task.sequences()
    model = HookedTransformer(engine.cfg.model, params=engine.weights(state))
    logits = np.asarray(model(sequences[:, :-1]), np.float64)[:, 4:]
    targets = sequences[:, 5:]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0]
    correct = logits.argmax(-1) == targets
    assert list(measured) == list(METRICS)
    tolerance = 1e-12 if engine.cfg.model.dtype == "float64" else 1e-5
    for split, rows in [("train", slice(200)), ("holdout", slice(200, None))]:
        assert measured[f"{split}_accuracy"] == pytest.approx(correct[rows].mean(), abs=1e-15)
        assert measured[f"{split}_loss"] == pytest.approx(losses[rows].mean(), rel=tolerance)
    assert 0 < measured["train_accuracy"] < 1


def test_only_the_rows_of_the_batch_matter(engine, start, batches):
    state, _ = engine.advance(start, batches[:1])
    shuffled, _ = engine.advance(start, batches[:1, ::-1])
    other, _ = engine.advance(start, batches[1:2])
    for name, w in engine.weights(state).items():
        if not name.endswith("b_K"):  # its gradient is rounding noise, and Adam divides by it
            np.testing.assert_allclose(w, engine.weights(shuffled)[name], atol=1e-3, err_msg=name)
    assert not same_bits(engine.weights(state), engine.weights(other))


def test_identity_and_device_say_what_runs(engine):
    assert engine.identity["name"] in PROGRAMS
    assert isinstance(engine, JaxEngine)
    assert engine.identity["platform"] == jax.devices()[0].platform
    assert engine.identity["jax"] == jax.__version__
    assert jax.devices()[0].platform in engine.device


# A task that is drawn


@pytest.fixture(scope="module")
def drawing_run():
    """A run of a drawn task, an engine of it, and what becomes of it in one piece."""
    cfg = dataclasses.replace(
        RECIPE, task=Copy(length=8), model=RECIPE.model.replace(n_ctx=16, d_vocab=9)
    )
    engine = make_engine(cfg)
    state = engine.start(draw_weights(cfg))
    return cfg, engine, engine.advance(state, make_dataset(cfg).rows(0, 20))


def test_chunking_a_drawn_run_and_taking_it_through_arrays_does_not_change_a_bit(drawing_run):
    cfg, engine, (whole, whole_losses) = drawing_run
    data = make_dataset(cfg)
    programs = advance._cache_size()
    state, losses = engine.start(draw_weights(cfg)), []
    for start, stop in itertools.pairwise((0, 1, 8, 20)):
        engine = make_engine(cfg)
        state, chunk = engine.advance(state, data.rows(start, stop))
        state = engine.from_arrays(engine.to_arrays(state))
        losses.append(chunk)
    assert same_bits(engine.to_arrays(state), engine.to_arrays(whole))
    assert np.concatenate(losses).tobytes() == whole_losses.tobytes()
    assert advance._cache_size() == programs


def test_a_drawn_run_is_evaluated_on_its_examples_and_on_fresh_ones(drawing_run):
    cfg, engine, (state, _) = drawing_run
    measured, data = engine.evaluate(state), make_dataset(cfg)
    logits = HookedTransformer(cfg.model, params=engine.weights(state))(data.tokens[:, :-1])
    right = np.asarray(logits[:, 8:]).argmax(-1) == data.tokens[:, 9:]
    assert measured["train_accuracy"] == right[data.train_rows].mean()
    assert measured["holdout_accuracy"] == right[data.holdout_rows].mean()


@pytest.mark.gpu
def test_a_gpu_trains_as_a_cpu_does(tutorial, random_weights, batches):
    cfg = dataclasses.replace(tutorial, model=tutorial.model.replace(dtype="float64"))
    weights = random_weights(cfg.model)
    engine = make_engine(cfg)
    assert engine.identity["platform"] == "gpu"
    state, losses = engine.advance(engine.start(weights), batches[:12])
    with jax.default_device(jax.devices("cpu")[0]):
        expected, expected_losses = plain_training(cfg, cfg.task, weights, batches[:12])
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-10)
    for name, w in engine.weights(state).items():
        # The gradient of b_K is rounding noise, and Adam divides by its size.
        tolerance = 1e-9 if name.endswith("b_K") else 1e-11
        np.testing.assert_allclose(w, expected[name], rtol=0, atol=tolerance, err_msg=name)
