"""The variance of mask gradients against a closed form, NumPy and the engine's own step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.analysis.gradient_variance import gradient_variance
from jaxmod.train.randomness import StepKeys
from jaxmod.train.state import MaskState
from jaxmod.train.steps import make_mask_step
from tests.helpers import tiny_data, tiny_loss, tiny_params


def linear_loss(params, batch, key):
    del key
    return jnp.mean(batch["x"]) * jnp.sum(params["w"])


@pytest.mark.parametrize("num_samples", [1, 2, 4, 8])
def test_it_is_the_closed_form_of_a_linear_loss(key, num_samples):
    # At logit 0 the slope of the soft sample is u (1 - u), whose variance is 1/30 - 1/36 = 1/180.
    params = {"w": jnp.array([1.0, -3.0]), "b": jnp.ones(2)}
    logits = {"w": jnp.zeros(2), "b": None}
    batch = {"x": jnp.full((8, 1), 2.0)}
    found = gradient_variance(key, linear_loss, params, logits, batch, num_samples=num_samples, draws=20_000)
    expected = 2**2 * (1 + 3**2) / 180 / num_samples
    assert list(found) == ["w", "total"]
    np.testing.assert_allclose(found["w"], expected, rtol=0.05)
    np.testing.assert_allclose(found["total"], expected, rtol=0.05)


@pytest.mark.parametrize("num_samples", [1, 4])
def test_it_is_the_variance_of_the_engines_steps(key, num_samples):
    params = tiny_params(key)
    estimator = jm.gumbel_sigmoid(temperature=0.7)
    logits = estimator.init(key, params, r".*/kernel")
    batch = jax.tree.map(lambda x: x[:16], tiny_data())
    descend = optax.sgd(1.0)
    step = make_mask_step(tiny_loss, estimator, descend, num_samples)
    inputs = {
        "params": params,
        "alpha": 0.0,
        "learning_rate": 1.0,
        "held": jax.tree.map(lambda _: None, logits),
    }

    def gradients(key):
        keys = StepKeys(key, key, key, key, jnp.int32(0))
        new, _ = step(inputs, MaskState(logits, descend.init(logits)), batch, keys)
        return jax.tree.map(jnp.subtract, logits, new.logits)

    drawn = jax.jit(jax.vmap(gradients))(jax.random.split(jax.random.key(7), 500))
    expected = sum(np.var(np.asarray(g), axis=0, ddof=1).sum() for g in jax.tree.leaves(drawn))
    found = gradient_variance(
        key, tiny_loss, params, logits, batch, num_samples=num_samples, draws=500, estimator=estimator
    )
    np.testing.assert_allclose(found["total"], expected, rtol=0.1)
    np.testing.assert_allclose(found["total"], found["layer_1/kernel"] + found["output/kernel"], rtol=1e-5)


def test_two_draws_are_half_their_squared_distance(key):
    params = tiny_params(key)
    logits = jm.gumbel_sigmoid().init(key, params, r"output/kernel")
    batch = jax.tree.map(lambda x: x[:4], tiny_data())

    def estimate(key):
        (key,) = jax.random.split(key, 1)
        noise_key, loss_key = jax.random.split(key)

        def loss(logits):
            return tiny_loss(
                jm.apply_mask(params, jm.gumbel_sigmoid().sample(noise_key, logits)), batch, loss_key
            )

        return jax.grad(loss)(logits)["output"]["kernel"]

    first, second = map(estimate, jax.random.split(key, 2))
    found = gradient_variance(key, tiny_loss, params, logits, batch, num_samples=1, draws=2)
    np.testing.assert_allclose(found["total"], jnp.sum((first - second) ** 2) / 2, rtol=1e-5)


def test_runs_are_vmapped_and_nothing_varies_without_noise(key):
    params = tiny_params(key)
    start = jm.gumbel_sigmoid().init(key, params)
    logits = jax.tree.map(lambda x: jnp.stack([x, jnp.full_like(x, 60.0)]), start)
    batch = jax.tree.map(lambda x: x[:8], tiny_data())

    def one(key, logits):
        return gradient_variance(key, tiny_loss, params, logits, batch, num_samples=2, draws=8)["total"]

    noisy, decided = jax.vmap(one)(jax.random.split(key, 2), logits)
    assert noisy > 0
    assert decided < 1e-20


def test_bad_input_is_named(key):
    params = {"total": jnp.ones(2)}
    logits = {"total": jnp.zeros(2)}
    batch = {"x": jnp.ones((6, 1))}

    def loss(params, batch, key):
        return jnp.mean(batch["x"]) * jnp.sum(params["total"])

    with pytest.raises(ValueError, match="num_samples=4 does not divide the batch of 6"):
        gradient_variance(key, loss, params, logits, batch, num_samples=4)
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        gradient_variance(key, loss, params, logits, batch, num_samples=2, draws=1)
    with pytest.raises(ValueError, match="'total'"):
        gradient_variance(key, loss, params, logits, batch, num_samples=2, draws=2)
