"""The contract of every estimator over one table, then what each promises of its own."""

import inspect

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from scipy import integrate, special

from jaxmod import estimators, masks, noise, trees
from jaxmod.estimators import gumbel_sigmoid

ESTIMATORS = [
    gumbel_sigmoid(),
    gumbel_sigmoid(temperature=0.5, init=0.0),
    gumbel_sigmoid(noise="jax"),
    gumbel_sigmoid(rao_blackwell=True),
]
each_estimator = pytest.mark.parametrize("est", ESTIMATORS, ids=lambda est: est.name)


def tiny_params():
    return {
        "hidden": {"kernel": jnp.ones((6, 5)), "bias": jnp.zeros(5)},
        "output": {"kernel": jnp.ones((5, 3), jnp.bfloat16)},
    }


def spread_logits(key):
    """Logits from -4 to 4, so that samples of both kinds occur."""
    params = tiny_params()
    logits = gumbel_sigmoid().init(key, params)
    return jax.tree.map(lambda x: jnp.linspace(-4, 4, x.size).reshape(x.shape), logits)


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def total(tree):
    return trees.tree_sum(jnp.sum, tree)


@each_estimator
def test_init_mirrors_params(est, key):
    params = tiny_params()
    logits = est.init(key, params)
    trees.check_mirrors(logits, params, "logits")
    assert logits["hidden"]["bias"] is None
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(logits))
    only = est.init(key, params, where=r"output/.*")
    assert only["hidden"]["kernel"] is None and only["output"]["kernel"].shape == (5, 3)


@each_estimator
def test_samples_are_zeros_and_ones_like_the_logits(est, key):
    logits = spread_logits(key)
    mask = est.sample(key, logits)
    assert jax.tree.structure(mask) == jax.tree.structure(logits)
    for m, x in zip(jax.tree.leaves(mask), jax.tree.leaves(logits), strict=True):
        assert m.shape == x.shape and m.dtype == x.dtype
        assert set(np.unique(m)) == {0.0, 1.0}


@each_estimator
def test_apply_mask_keeps_the_dtypes_of_params(est, key):
    params = tiny_params()
    module = masks.apply_mask(params, est.sample(key, est.init(key, params)))
    assert jax.tree.map(lambda w: w.dtype, module) == jax.tree.map(lambda w: w.dtype, params)


@each_estimator
def test_samples_differ_by_key_and_by_leaf(est, key):
    logits = {"a": jnp.zeros(200), "b": jnp.zeros(200)}
    mask = est.sample(key, logits)
    assert not np.array_equal(mask["a"], mask["b"])
    assert not equal(mask, est.sample(jax.random.key(1), logits))
    assert equal(mask, est.sample(key, logits))


@each_estimator
def test_jit_and_vmap_agree_with_the_plain_call(est, key):
    logits = {"w": jnp.linspace(-4, 4, 30).reshape(5, 6), "b": None}
    keys = jax.random.split(key, 2)

    def sample_and_grad(key, logits):
        return est.sample(key, logits), jax.grad(lambda x: total(est.sample(key, x)))(logits)

    jitted = jax.jit(sample_and_grad)
    stacked = jax.jit(jax.vmap(sample_and_grad, (0, None)))(keys, logits)
    for i, k in enumerate(keys):
        mask, grad = sample_and_grad(k, logits)
        for other_mask, other_grad in (jitted(k, logits), jax.tree.map(lambda x, i=i: x[i], stacked)):
            assert equal(other_mask, mask)
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-30), other_grad, grad
            )


@each_estimator
def test_vmap_over_logits_of_runs(est, key):
    keys = jax.random.split(key, 3)
    logits = {"w": jnp.linspace(-3, 3, 3 * 20).reshape(3, 20)}
    together = jax.vmap(est.sample)(keys, logits)
    for i in range(3):
        assert np.array_equal(together["w"][i], est.sample(keys[i], {"w": logits["w"][i]})["w"])


@each_estimator
@pytest.mark.parametrize("logit", [-50.0, 50.0])
def test_extreme_logits_are_finite(est, key, logit):
    logits = {"w": jnp.full((1000,), logit)}
    value, grad = jax.value_and_grad(lambda x: total(est.sample(key, x)) + est.penalty(x))(logits)
    assert jnp.isfinite(value) and jnp.isfinite(grad["w"]).all()
    np.testing.assert_array_equal(est.sample(key, logits)["w"], float(logit > 0))


@each_estimator
def test_threshold_is_strict_bool_and_deterministic(est):
    logits = {"w": jnp.array([-1.0, -0.0, 0.0, 1e-30, 2.0]), "b": None}
    binary = est.threshold(logits)
    assert binary["b"] is None and binary["w"].dtype == bool
    assert binary["w"].tolist() == [False, False, False, True, True]
    assert equal(binary, jax.jit(est.threshold)(logits))


@each_estimator
def test_estimators_work_on_a_tree_of_one_masked_leaf_among_none(est, key):
    logits = {"a": None, "w": jnp.zeros((2, 2)), "c": {"d": None}}
    mask = est.sample(key, logits)
    assert mask["a"] is None and mask["c"] == {"d": None} and mask["w"].shape == (2, 2)


# gumbel_sigmoid


def test_gumbel_sigmoid_starts_at_init(key):
    logits = gumbel_sigmoid(init=2.0).init(key, tiny_params())
    assert all((leaf == 2.0).all() for leaf in jax.tree.leaves(logits))
    assert all((leaf == 2.0).all() for leaf in jax.tree.leaves(gumbel_sigmoid().init(key, tiny_params())))


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
    logits = spread_logits(key)
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
