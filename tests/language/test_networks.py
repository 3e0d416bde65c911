"""Sequence models as functions: what each loss is, answers in pieces, the warm-up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmod.language import networks
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer, TransformerConfig
from jaxmod.sequences import sequence_cross_entropy
from tests.language.examples import made_up

LSTM = Seq2SeqLSTM(5, 4, embedding=3, hidden=4, layers=1)
TRANSFORMER = Transformer(5, 4, TransformerConfig(4, 6, heads=2, layers=1))


def loss_of(model, params, batch, **options):
    """Returns the loss of the model itself."""
    parts = [jnp.asarray(batch[name]) for name in ("source", "source_length", "target", "target_length")]
    return jnp.mean(sequence_cross_entropy(model.apply({"params": params}, *parts, **options), *parts[2:]))


@pytest.fixture(scope="module", params=[LSTM, TRANSFORMER], ids=["lstm", "transformer"])
def network(request):
    functions = networks.make_functions(request.param)
    params = jax.jit(jax.vmap(functions.init))(jax.random.split(jax.random.key(3), 2))
    return request.param, functions, params


def test_losses_are_the_models(network, key):
    model, functions, params = network
    one, batch = jax.tree.map(lambda x: x[0], params), made_up()
    mask_loss, dense_loss = jax.jit(functions.mask_loss), jax.jit(functions.dense_loss)
    found = [float(mask_loss(one, batch, key, jax.random.key(i))) for i in range(8)]
    if model is TRANSFORMER:
        expected = {float(jax.jit(loss_of, static_argnums=0)(model, one, batch))}
    else:
        expected = {
            float(jax.jit(lambda coin: loss_of(model, one, batch, teacher_forcing=coin))(coin))
            for coin in (True, False)
        }
    # The coin falls on both sides, and nothing else is random.
    np.testing.assert_allclose(sorted(set(found)), sorted(expected), rtol=1e-5)
    with_dropout = [dense_loss(one, (), batch, jax.random.key(i), key) for i in range(2)]
    assert with_dropout[0][1] == ((), {}) and with_dropout[0][0] != with_dropout[1][0]


def test_how_often_the_target_is_fed(key):
    one, batch = jax.jit(networks.make_functions(LSTM).init)(key), made_up()
    for forcing in (0.0, 1.0):
        loss = jax.jit(networks.make_functions(LSTM, forcing).mask_loss)
        expected = jax.jit(lambda coin: loss_of(LSTM, one, batch, teacher_forcing=coin))(forcing == 1)
        for i in range(4):
            np.testing.assert_allclose(loss(one, batch, key, jax.random.key(i)), expected, rtol=1e-5)


def test_answers_in_pieces_are_those_of_evaluate(network, monkeypatch):
    _, functions, params = network
    monkeypatch.setattr(networks, "_AT_ONCE", 4)
    networks._answers.cache_clear()
    batch = made_up(count=10)
    answers = networks.predict(functions, params, batch)
    assert answers.shape == (2, 10, 7) and answers.dtype == np.uint8
    right = networks.is_right(functions, answers, batch)
    given = jax.tree.map(jnp.asarray, batch)
    decode = jax.jit(functools.partial(functions.decode, steps=7))
    for run in range(2):
        one = jax.tree.map(lambda x, run=run: x[run], params)
        np.testing.assert_array_equal(answers[run], decode(one, given))
        np.testing.assert_array_equal(right[run], jax.jit(functions.evaluate)(one, given)["accuracy"])
    # With the answer itself as the target all is right, but where it never ends.
    length = (answers[0] != 4).sum(axis=1)
    ended = length < 7
    own = batch | {"target": answers[0][:, :6], "target_length": np.minimum(length, 6).astype(np.int32)}
    np.testing.assert_array_equal(networks.is_right(functions, answers[:1], own)[0], ended)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_a_switch_is_that_of_its_branch(dtype):
    switch = networks._switch([lambda x, batch, drawn: batch * x**2, lambda x, batch, drawn: drawn["by"] * x])

    def loss(x, index):  # not the switch's own value, so that its slope counts
        return 3 * switch(index, x, jnp.float32(5), {"by": jnp.float32(7)}).astype(jnp.float32)

    for index, (value, slope) in enumerate([(60, 60), (42, 21)]):
        found = jax.jit(jax.value_and_grad(loss))(jnp.array(2, dtype), index)
        assert (found[0], found[1], found[1].dtype) == (value, slope, dtype)


@pytest.mark.parametrize(
    ("warmup", "decay", "rates"),
    [
        (0, 0, [1] * 5),
        (1, 0, [1] * 5),
        (4, 0, [0.25, 0.5, 0.75, 1, 1]),
        (0, 4, [1, 0.75, 0.5, 0.25, 0]),
        (2, 5, [0.5, 0.8, 0.6, 0.4, 0.2]),
    ],
)
def test_the_rate_grows_and_falls(warmup, decay, rates):
    tx = networks.make_optimizer(0.5, clip_norm=100.0, warmup=warmup, decay=decay, b2=0.995, eps=1e-9)
    params = jnp.zeros(3)
    state = tx.init(params)
    for rate in rates:
        # Of equal gradients Adam's step is the rate.
        updates, state = tx.update(jnp.array([2.0, 2.0, -2.0]), state, params)
        np.testing.assert_allclose(updates, 0.5 * rate * np.array([-1, -1, 1]), rtol=1e-5)


def test_the_gradient_is_clipped_before_adam():
    params = jnp.ones(4)
    ours, adam = networks.make_optimizer(0.1, clip_norm=1.0), optax.adam(0.1)
    grads = [jnp.array([3.0, 4, 0, 0]), jnp.array([0.3, 0.4, 0, 0.1])]
    state, expected_state = ours.init(params), adam.init(params)
    for grad in grads:
        updates, state = ours.update(grad, state, params)
        norm = jnp.linalg.norm(grad)
        expected, expected_state = adam.update(grad / jnp.maximum(norm, 1), expected_state, params)
        np.testing.assert_allclose(updates, expected, rtol=1e-5)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="must be a Seq2SeqLSTM or a Transformer, got"):
        networks.make_functions(optax.adam)
