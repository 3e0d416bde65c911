"""The network that adds and multiplies: what it sees, where it answers, its loss and score by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.data.arithmetic import encode_addmul, load_addmul
from jaxmod.models import FNN, LSTMClassifier
from jaxmod.models.arithmetic import addmul_network


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(jnp.asarray, load_addmul("test", 5))


def test_the_fnn_answers_with_two_digits(key, batch):
    model = FNN((6,), outputs=20)
    network = addmul_network(model)
    params = network.init(key)
    answers = model.apply({"params": params}, encode_addmul(batch["digits"], batch["op"]))
    np.testing.assert_array_equal(network.predict(params, batch), answers.reshape(5, 2, 10))


def test_the_lstm_sees_its_input_three_times_and_answers_at_the_end(key, batch):
    model = LSTMClassifier(4, outputs=20)
    network = addmul_network(model)
    params = network.init(key)
    x = encode_addmul(batch["digits"], batch["op"])
    answers = model.apply({"params": params}, jnp.stack([x, x, x], axis=1))
    np.testing.assert_allclose(
        network.predict(params, batch), answers[:, 2].reshape(5, 2, 10), rtol=1e-5, atol=1e-6
    )


def test_loss_and_accuracy_are_those_of_the_digits(key, batch):
    network = addmul_network(FNN((6,), outputs=20))
    params = network.init(key)
    log_probs = np.asarray(jax.nn.log_softmax(network.predict(params, batch)))
    labels = np.asarray(batch["labels"])
    terms = [log_probs[n, digit, labels[n, digit]] for n in range(5) for digit in range(2)]
    np.testing.assert_allclose(network.loss_fn(params, batch, key), -np.mean(terms), rtol=1e-5)
    # What the network answers is right by definition; a digit changed is wrong.
    answers = jnp.asarray(log_probs.argmax(axis=-1), jnp.uint8)
    wrong = answers.at[2, 1].set((answers[2, 1] + 1) % 10)
    right = network.evaluate(params, batch | {"labels": wrong})["accuracy"]
    assert right.tolist() == [True, True, False, True, True]
