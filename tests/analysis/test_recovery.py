import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmod.analysis.recovery import mean_interval, recovery


def test_recovery_counts_over_all_leaves(key):
    found, truth = (
        {"a": jax.random.bernoulli(k, p, (4, 5)), "b": {"c": jax.random.bernoulli(k, p, (7,)), "d": None}}
        for k, p in zip(jax.random.split(key), (0.4, 0.6), strict=True)
    )
    pairs = [
        (bool(f), bool(t))
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
        for f, t in zip(np.ravel(x), np.ravel(y), strict=True)
    ]
    both, hits, true = pairs.count((True, True)), sum(f for f, _ in pairs), sum(t for _, t in pairs)
    ours = recovery(found, truth)
    assert float(ours.precision) == pytest.approx(both / hits)
    assert float(ours.recall) == pytest.approx(both / true)
    assert float(ours.f1) == pytest.approx(2 * both / (hits + true))
    assert [float(x) for x in recovery(truth, truth)] == [1, 1, 1]


def test_an_empty_mask_recovers_nothing():
    some, none = {"w": jnp.array([True, False])}, {"w": jnp.zeros(2, bool)}
    for found, truth in ((none, some), (some, none), (none, none)):
        assert [float(x) for x in recovery(found, truth)] == [0, 0, 0]


def test_recovery_refuses_another_tree():
    with pytest.raises(ValueError, match="do not match"):
        recovery({"w": jnp.zeros(2, bool)}, {"v": jnp.zeros(2, bool)})


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_that_of_a_t_test(level):
    values = np.random.RandomState(0).randn(7)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(level)
    np.testing.assert_allclose(mean_interval(values, level), (values.mean(), *wanted), rtol=1e-6)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    samples = np.random.RandomState(1).randn(2000, 5)
    inside = [low <= 0 <= high for _, low, high in map(mean_interval, samples)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_one_value_has_no_width():
    assert mean_interval(np.array([0.5])) == (0.5, 0.5, 0.5)
