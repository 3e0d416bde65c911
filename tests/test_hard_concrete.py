"""What hard_concrete promises of its own: the law of its samples, the gradient, the penalty."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import jaxmod as jm
from jaxmod import noise
from tests.estimator_trees import equal, mixed_params, spread_logits, total

CASES = [(2 / 3, 0.1), (0.3, 0.1), (1.5, 0.4)]
each_case = pytest.mark.parametrize(("temperature", "stretch"), CASES)


def gate(logits, u, temperature, stretch):
    """Equations (10) to (12) in float64, as they stand in the paper."""
    gamma, zeta = -stretch, 1 + stretch
    s = special.expit((np.log(u) - np.log(1 - u) + logits) / temperature)
    return np.minimum(1, np.maximum(0, s * (zeta - gamma) + gamma))


def noise_of(key, logits):
    """The uniform numbers that a tree of one leaf is sampled with."""
    (leaf,) = jax.tree.leaves(logits)
    (seed,) = noise.leaf_seeds(key, 1, "mix32")
    return np.asarray(noise.uniform(seed, leaf.shape), np.float64)


@each_case
def test_the_sample_is_that_of_the_paper(key, temperature, stretch):
    logits = {"w": jnp.tile(jnp.linspace(-9, 9, 37), (400, 1))}
    ours = jm.hard_concrete(temperature, stretch=stretch).sample(key, logits)["w"]
    wanted = gate(np.asarray(logits["w"], np.float64), noise_of(key, logits), temperature, stretch)
    np.testing.assert_allclose(ours, wanted, atol=2e-6)


@each_case
def test_the_gradient_is_that_of_finite_differences_with_the_noise_fixed(key, temperature, stretch):
    logits = {"w": jnp.tile(jnp.linspace(-4, 4, 33), (200, 1))}
    upstream = jnp.linspace(0.5, 2.0, 200)[:, None]
    est = jm.hard_concrete(temperature, stretch=stretch)
    grad = jax.jit(jax.grad(lambda x: jnp.sum(upstream * est.sample(key, x)["w"])))(logits)["w"]
    x, u, step = np.asarray(logits["w"], np.float64), noise_of(key, logits), 1e-6
    up, down = (gate(x + d, u, temperature, stretch) for d in (step, -step))
    wanted = np.asarray(upstream) * (up - down) / (2 * step)
    here = gate(x, u, temperature, stretch)
    smooth = ((up > 0) & (down < 1)) | (here == up) & (here == down)  # away from both kinks
    smooth &= ~((up > 0) & (down == 0)) & ~((up == 1) & (down < 1))
    assert smooth.mean() > 0.99
    np.testing.assert_allclose(np.asarray(grad)[smooth], wanted[smooth], rtol=1e-3, atol=1e-5)
    assert (np.asarray(grad)[(here == 0) | (here == 1)] == 0).all()


@each_case
def test_the_penalty_is_the_expected_number_of_gates_that_are_open(key, temperature, stretch):
    n = 100_000
    logits = jnp.linspace(-5, 5, 11)
    est = jm.hard_concrete(temperature, stretch=stretch)
    sample = np.asarray(est.sample(key, {"w": jnp.broadcast_to(logits, (n, 11))})["w"])
    expected = np.array([float(est.penalty({"w": x[None], "b": None})) for x in logits])
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs((sample > 0).mean(0) - expected) < 4 * error + 1 / n).all()
    np.testing.assert_allclose(
        float(est.penalty({"w": logits, "v": {"u": logits}})), 2 * expected.sum(), rtol=1e-5
    )


@each_case
def test_a_gate_is_above_one_half_with_the_probability_of_gumbel_sigmoid(key, temperature, stretch):
    n = 100_000
    logits = {"w": jnp.broadcast_to(jnp.linspace(-3, 3, 7), (n, 7))}
    sample = jm.hard_concrete(temperature, stretch=stretch).sample(key, logits)["w"]
    p = special.expit(np.linspace(-3, 3, 7))
    assert (np.abs(np.asarray(sample > 0.5).mean(0) - p) < 4 * np.sqrt(p * (1 - p) / n)).all()


def test_the_threshold_is_the_gate_without_noise_at_one_half():
    logits = spread_logits()
    ours = jm.hard_concrete().threshold(logits)
    for m, x in zip(jax.tree.leaves(ours), jax.tree.leaves(logits), strict=True):
        np.testing.assert_array_equal(m, special.expit(np.asarray(x, np.float64)) * 1.2 - 0.1 > 0.5)


def test_it_starts_where_gumbel_sigmoid_does(key):
    assert equal(jm.hard_concrete().init(key, mixed_params()), jm.gumbel_sigmoid().init(key, mixed_params()))
    assert total(jm.hard_concrete(init=-1.0).init(key, mixed_params())) == -45


def test_the_penalty_alone_closes_every_gate():
    est, logits = jm.hard_concrete(), {"w": jnp.zeros(4)}
    for _ in range(100):
        logits = jax.tree.map(lambda x, g: x - g, logits, jax.grad(est.penalty)(logits))
    assert not est.threshold(logits)["w"].any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stretch": 0.0}, r"stretch must be positive and finite, got 0\.0"),
        ({"init": float("nan")}, "init must be a finite logit, got nan"),
        ({"noise": "mix"}, "noise must be one of mix32, jax, got 'mix'"),
    ],
)
def test_values_that_cannot_work_are_refused(values, message):
    unchecked = inspect.unwrap(jm.hard_concrete)  # the test run's type check would come first
    with pytest.raises(ValueError, match=message):
        unchecked(**values)
