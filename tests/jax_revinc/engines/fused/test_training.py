"""A loop of updates, of a loss and an optimizer of one's own, compared with XLA's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fused_examples import require_compiler

from jax_revinc.engines.fused import training
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.gradient import build_value_and_grad
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.training import FusedTraining, OptaxTraining
from jax_revinc.engines.fused.vmap import fused_outputs

pytestmark = pytest.mark.optimized

N_MODELS, N_SEQUENCES, CAPACITY, BATCH = 19, 7, 6, 5
N_TOKENS, LENGTH = 4, 3
SHAPES = {"embed": (N_TOKENS, 2), "scale": ()}
PARAMS = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in SHAPES.items()}
RATE = jax.ShapeDtypeStruct((), "float32")


@pytest.fixture(scope="module", autouse=True)
def _compiler():
    require_compiler()


def loss(params, tokens):
    found = params["embed"][tokens[:, 0]] * params["scale"] + params["embed"][tokens[:, 1]]
    return (jnp.tanh(found) ** 2 + tokens[:, 2:] * found).mean()


def adam(rate):
    return optax.adamw(rate, weight_decay=0.1)


def clipped(rate):
    return optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(rate, 0.9))


def make(kind, many):
    spec = Spec(PARAMS, LENGTH, N_TOKENS, many=many)
    if kind is FusedTraining:
        return FusedTraining(loss, adam, RATE, spec), adam
    return OptaxTraining(loss, clipped, spec), clipped


def drawn(*models, own_sequences=False):
    """Rates, parameters, sequences, and batches of their rows."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.01, 0.1, models).astype(np.float32)
    params = {n: rng.normal(size=(*models, *s)).astype(np.float32) for n, s in SHAPES.items()}
    of_models = models if own_sequences else ()
    sequences = rng.integers(0, N_TOKENS, (*of_models, N_SEQUENCES, LENGTH))
    batches = rng.integers(0, N_SEQUENCES, (*models, CAPACITY, BATCH))
    return rates, params, sequences, batches


def by_xla(make_optimizer, rate, params, sequences, batches):
    optimizer = make_optimizer(rate)

    def step(carry, rows):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, sequences[rows])
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params, losses


def flat(params):
    return np.concatenate([np.reshape(params[name], (-1,)) for name in sorted(params)])


@pytest.mark.parametrize("kind", [FusedTraining, OptaxTraining])
def test_one_model_is_trained_as_by_xla(kind):
    trainer, make_optimizer = make(kind, many=False)
    rate, params, sequences, batches = drawn()
    start, advance = jax.jit(trainer.start), jax.jit(trainer.advance)
    state, first = advance(rate, start(rate, params), sequences, batches, 4)
    np.testing.assert_array_equal(first[4:], 0)
    rest = np.concatenate([batches[4:], batches[:4]])
    state, second = advance(rate, state, sequences, rest, CAPACITY - 4)
    after, losses = by_xla(make_optimizer, rate, params, jnp.asarray(sequences), batches)
    np.testing.assert_allclose([*first[:4], *second[: CAPACITY - 4]], losses, rtol=1e-5)
    np.testing.assert_allclose(state.params, flat(after), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own_sequences", [False, True])
@pytest.mark.parametrize("kind", [FusedTraining, OptaxTraining])
def test_many_models_are_trained_as_by_xla(kind, own_sequences):
    trainer, make_optimizer = make(kind, many=True)
    rates, params, sequences, batches = drawn(N_MODELS, own_sequences=own_sequences)
    state = jax.jit(trainer.start)(rates, params)
    state, losses = jax.jit(trainer.advance)(rates, state, sequences, batches, CAPACITY)
    axes = (0, 0, 0 if own_sequences else None, 0)
    expected = jax.jit(jax.vmap(partial(by_xla, make_optimizer), in_axes=axes))
    after, expected_losses = expected(rates, params, sequences, batches)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for i, found in enumerate(state.params):
        own = flat({name: array[i] for name, array in after.items()})
        np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-5)


def test_parameters_go_in_and_come_out():
    trainer, _ = make(FusedTraining, many=True)
    rates, params, _, _ = drawn(N_MODELS)
    found = trainer.params(trainer.start(rates, params))
    assert all(np.array_equal(found[name], params[name]) for name in SHAPES)


def test_an_update_that_differs_from_optax_is_refused(monkeypatch):
    right = training.training_source
    monkeypatch.setattr(
        training,
        "training_source",
        lambda *args: right(*args).replace("F(0.1)", "F(0.2)").replace("F(0.9", "F(0.8"),
    )
    with pytest.raises(NotFusible, match="update differs from XLA's by"):
        make(FusedTraining, many=False)


@pytest.mark.parametrize("own_sequences", [False, True])
def test_outputs_are_those_of_every_example(own_sequences):
    def of_example(params, tokens):
        return jnp.stack([loss(params, tokens[None]), params["embed"][tokens].sum()])

    _, params, sequences, _ = drawn(N_MODELS, own_sequences=own_sequences)
    numbers = np.stack([flat({n: w[i] for n, w in params.items()}) for i in range(N_MODELS)])
    of_each = jax.jit(fused_outputs(of_example, Spec(PARAMS, LENGTH, N_TOKENS, many=True)))
    found = of_each(numbers, sequences)
    axes = (0, 0 if own_sequences else None)
    expected = jax.vmap(jax.vmap(of_example, in_axes=(None, 0)), in_axes=axes)(params, sequences)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if not own_sequences:
        alone = fused_outputs(of_example, Spec(PARAMS, LENGTH, N_TOKENS))(numbers[0], sequences)
        np.testing.assert_allclose(alone, expected[0], rtol=1e-4, atol=1e-5)


N_AT_ONCE, N_LONG, DEPTH = 4, 30_000, 24
"""Calls at once, examples of each, and steps of their loss: so that calls overlap and use slots."""


def long_loss(params, tokens):
    found = params["embed"][tokens[:, 0]]
    for step in range(DEPTH):
        found = jnp.tanh(found * params["scale"] + params["embed"][tokens[:, 1 + step % 2]])
    return (found**2).mean()


@pytest.fixture(scope="module", params=[False, True], ids=["one", "many"])
def programs(request):
    """Compiled programs of every kind, from parameters and sequences to bytes."""
    many = request.param
    models = (2,) if many else ()
    spec = Spec(PARAMS, LENGTH, N_TOKENS, many=many)
    trainer = FusedTraining(long_loss, adam, RATE, spec)
    of_each = jax.jit(fused_outputs(lambda p, t: long_loss(p, t[None])[None], spec))
    value_and_grad = jax.jit(build_value_and_grad(long_loss, spec))

    @jax.jit
    def update(params, sequences):
        rates, rows = jnp.full(models, 0.1), jnp.arange(N_LONG)
        state, batches = trainer.start(rates, params), jnp.broadcast_to(rows, (*models, 1, N_LONG))
        return trainer.advance(rates, state, sequences, batches, 1)

    def outputs(params, sequences):
        leaves = [np.reshape(params[name], (*models, -1)) for name in sorted(params)]
        return of_each(np.concatenate(leaves, -1), sequences)

    return models, {"train": update, "outputs": outputs, "value_and_grad": value_and_grad}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "outputs", "value_and_grad"])
def test_calls_at_the_same_time_leave_each_other_alone(programs, kind):
    """What a thread works with is its own."""
    models, of_kind = programs
    rng = np.random.default_rng(0)

    def work(params):
        found = of_kind[kind](params, sequences)
        return b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(found))

    sequences = rng.integers(0, N_TOKENS, (*models, N_LONG, LENGTH), np.int32)
    each = [
        {
            name: rng.normal(size=(*models, *shape)).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        for _ in range(N_AT_ONCE)
    ]
    alone = list(map(work, each))
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        for _ in range(5):
            assert list(pool.map(work, each)) == alone
