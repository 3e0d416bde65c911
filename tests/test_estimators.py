"""What gumbel_sigmoid promises of its own; the contract of all estimators is tested in one table."""

import inspect

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from scipy import integrate, special

from jaxmod import estimators, noise, trees
from jaxmod.estimators import gumbel_sigmoid
from tests.estimator_trees import equal, mixed_params, spread_logits, total


def test_gumbel_sigmoid_starts_at_init(key):
    logits = gumbel_sigmoid(init=2.0).init(key, mixed_params())
    assert all((leaf == 2.0).all() for leaf in jax.tree.leaves(logits))
    assert all((leaf == 2.0).all() for leaf in jax.tree.leaves(gumbel_sigmoid().init(key, mixed_params())))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_gumbel_sigmoid_keeps_with_probability_sigmoid_of_the_logit(key, temperature):
    n = 100_000
    logits = np.arange(-9.0, 10.0)
    stacked = {"w": jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (n, len(logits)))}
    kept = np.asarray(gumbel_sigmoid(temperature).sample(key, stacked)["w"], np.float64).mean(0)
    p = 1 / (1 + np.exp(-logits))
    error = np.sqrt(p * (1 - p) / n)
    assert (np.abs(kept - p) < 4 * error + 1 / n).all()


@pytest.mark.parametrize("temperature", [0.5, 2 / 3, 1.0, 1.5, 4.0])
def test_gumbel_sigmoid_gradient_is_that_of_the_soft_sample(key, temperature):
    logits = {"w": jnp.tile(jnp.linspace(-50, 50, 401), (500, 1))}
    est = gumbel_sigmoid(temperature)
    upstream = jnp.linspace(0.5, 2.0, 500)[:, None]
    grad = jax.jit(jax.grad(lambda x: jnp.sum(upstream * est.sample(key, x)["w"])))(logits)["w"]

    u = np.asarray(noise.uniform(trees.split_keys(key, logits)["w"], (500, 401)), np.float64)
    x = (np.asarray(logits["w"], np.float64) + np.log(u) - np.log1p(-u)) / temperature
    soft = np.exp(-np.abs(x)) / np.square(1 + np.exp(-np.abs(x))) / temperature
    wanted = np.asarray(upstream, np.float64) * soft
    # Where the slope itself is below float32's normal numbers, 0 is the right answer.
    np.testing.assert_allclose(grad, wanted, rtol=1e-5, atol=4 * float(np.finfo(np.float32).tiny))


def mean_slope(logit, kept):
    """E[s (1 - s) | b] by quadrature: over x = l + logistic noise, above 0 if kept, else below."""

    def integrand(x):
        return special.expit(x) * special.expit(-x) * special.expit(x - logit) * special.expit(logit - x)

    ends = (0, 120) if kept else (-120, 0)
    inside = [p for p in (logit, 0.0) if ends[0] < p < ends[1]]
    value, _ = integrate.quad(integrand, *ends, points=inside or None, epsabs=0, epsrel=1e-10, limit=500)
    return value / special.expit(logit if kept else -logit)


@pytest.mark.parametrize("kept", [True, False])
def test_rao_blackwell_gradient_is_the_mean_of_the_soft_one_given_the_sample(key, kept):
    logits = np.array([-50, -20, -7, -2, -0.86, -0.84, -0.3, -1e-3, 0, 1e-3, 0.3, 0.84, 0.86, 2, 7, 20, 50])
    given_x = {"w": jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[:, None], (len(logits), 64))}
    patterns = jnp.full((len(logits), 64), 1 - 2**-24 if kept else 2**-24, jnp.float32)
    est = gumbel_sigmoid(rao_blackwell=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimators, "uniform", lambda *_: patterns)
        grad = np.asarray(jax.grad(lambda x: total(est.sample(key, x)))(given_x)["w"])[:, 0]
    for logit, g in zip(logits, grad, strict=True):
        if kept == (logit > -16) or abs(logit) < 16:  # the other sample never occurs in float32
            np.testing.assert_allclose(g, mean_slope(float(np.float32(logit)), kept), rtol=1e-5)


def test_rao_blackwell_samples_the_same_masks_with_the_same_mean_gradient_and_less_variance(key):
    n = 2**16
    logits = jnp.linspace(-4, 4, 9)
    stacked = {"w": jnp.broadcast_to(logits, (n, 9))}
    plain, better = gumbel_sigmoid(), gumbel_sigmoid(rao_blackwell=True)
    assert equal(plain.sample(key, stacked), better.sample(key, stacked))

    def gradients(est):
        # What follows depends on the mask: here on its square and on itself.
        loss = lambda x: jnp.sum(jnp.square(est.sample(key, x)["w"] - 0.3))  # noqa: E731
        return np.asarray(jax.grad(loss)(stacked)["w"], np.float64)

    one, other = gradients(plain), gradients(better)
    error = np.sqrt((one.var(0) + other.var(0)) / n)
    assert (np.abs(one.mean(0) - other.mean(0)) < 4 * error).all()
    assert (other.var(0) < one.var(0)).all()


def test_rao_blackwell_needs_temperature_one():
    with pytest.raises(ValueError, match=r"temperature 1 only, got 0\.5"):
        gumbel_sigmoid(0.5, rao_blackwell=True)


def test_gumbel_sigmoid_refuses_unknown_noise():
    unchecked = inspect.unwrap(gumbel_sigmoid)  # the test run's type check would come first
    with pytest.raises(ValueError, match="noise must be one of mix32, jax, got 'mix'"):
        unchecked(noise="mix")  # pyright: ignore[reportArgumentType]


def mean_soft(logit, temperature):
    """E[s] by quadrature over x = l + logistic noise."""

    def integrand(x):
        return special.expit(x / temperature) * special.expit(x - logit) * special.expit(logit - x)

    ends = (logit - 40, logit + 40)
    return integrate.quad(integrand, *ends, points=sorted({0.0, logit}), epsabs=0, epsrel=1e-11)[0]


@pytest.mark.parametrize(("temperature", "rao_blackwell"), [(1.0, False), (0.5, False), (1.0, True)])
def test_the_mean_gradient_is_that_of_the_expected_soft_sample(key, temperature, rao_blackwell):
    # By finite differences of E[s]: its derivative is E[s (1 - s)] / temperature.
    n, step, est = 2**20, 1e-2, gumbel_sigmoid(temperature, rao_blackwell=rao_blackwell)
    logits = np.array([-3.0, -2, -1, 0, 0.5, 2, 3])
    weights = jnp.array([-1.0, 0.5, 2, 1, -0.5, 3, 1])[None]
    stacked = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (n, 7))
    grad = jax.jit(jax.grad(lambda x: jnp.sum(weights * est.sample(key, {"w": x})["w"])))(stacked)
    grad = np.asarray(grad / weights, np.float64)

    soft = [[mean_soft(x + d, temperature) for x in logits] for d in (step / 2, -step / 2)]
    expected = np.subtract(*soft) / step
    assert (5 * grad.std(0) / np.sqrt(n) < 0.02 * expected).all()
    np.testing.assert_allclose(grad.mean(0), expected, rtol=0.02)


def test_gumbel_sigmoid_sample_is_the_soft_sample_rounded(key):
    logits = spread_logits()
    mask = gumbel_sigmoid(0.7).sample(key, logits)

    def soft(key, x):
        u = np.asarray(noise.uniform(key, x.shape), np.float64)
        return 1 / (1 + np.exp(-(np.asarray(x, np.float64) + np.log(u) - np.log1p(-u)) / 0.7))

    for k, x, m in zip(*map(jax.tree.leaves, (trees.split_keys(key, logits), logits, mask)), strict=True):
        np.testing.assert_array_equal(m, soft(k, x) > 0.5)


def test_gumbel_sigmoid_penalty_is_the_sum_of_the_raw_logits(key):
    est = gumbel_sigmoid()
    logits = {"a": jnp.array([1.0, -2.0]), "b": None, "c": jnp.array([[0.5]])}
    value, grad = jax.value_and_grad(est.penalty)(logits)
    np.testing.assert_allclose(value, -0.5)
    assert grad["b"] is None and all((g == 1).all() for g in jax.tree.leaves(grad))


def test_gumbel_sigmoid_equal_arguments_give_the_same_object():
    assert gumbel_sigmoid(2.0) is gumbel_sigmoid(2.0)
    assert gumbel_sigmoid(temperature=2.0) is gumbel_sigmoid(2.0)
    assert gumbel_sigmoid() is gumbel_sigmoid(1.0, 2.0)
    assert gumbel_sigmoid() is gumbel_sigmoid(1, init=2)
    assert gumbel_sigmoid(2.0) is not gumbel_sigmoid(1.0)


def test_gumbel_sigmoid_name_carries_the_hyperparameters():
    assert gumbel_sigmoid(0.5, 1.0).name == "gumbel_sigmoid(temperature=0.5, init=1.0, noise='mix32')"
    assert gumbel_sigmoid(1, 2).name == gumbel_sigmoid(1.0, 2.0).name


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_gumbel_sigmoid_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive.*{temperature}"):
        gumbel_sigmoid(temperature)


@given(st.floats(-30, 30, width=32), st.integers(0, 2**31 - 1))
def test_gumbel_sigmoid_mask_of_a_sure_weight(logit, seed):
    # A larger logit never loses a weight that a smaller one keeps, given the same noise.
    est, key = gumbel_sigmoid(), jax.random.key(seed)
    lower = est.sample(key, {"w": jnp.full(16, logit)})["w"]
    higher = est.sample(key, {"w": jnp.full(16, logit + 1)})["w"]
    assert (lower <= higher).all()
