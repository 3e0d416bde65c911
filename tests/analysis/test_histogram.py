import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.analysis.histogram import mask_mean_histogram


def logits_of(key):
    first, second = jax.random.split(key)
    return {
        "a": {"kernel": 8 * jax.random.normal(first, (60, 50)), "bias": None},
        "b": {"kernel": 3 * jax.random.normal(second, (70,)), "bias": None},
    }


def test_it_agrees_with_numpy(key):
    logits = logits_of(key)
    got = mask_mean_histogram(logits)
    means = np.concatenate([np.asarray(jax.nn.sigmoid(x)).reshape(-1) for x in jax.tree.leaves(logits)])
    counts, _ = np.histogram(means, np.asarray(got.edges))
    np.testing.assert_array_equal(got.counts, counts)
    np.testing.assert_allclose(got.density, counts * 500 / means.size, rtol=1e-6)
    assert got.edges.shape == (501,) and got.edges[0] == 0 and got.edges[-1] == 1
    assert jnp.issubdtype(got.counts.dtype, jnp.integer)


def test_the_density_integrates_to_one(key):
    got = mask_mean_histogram(logits_of(key), bins=37)
    assert float(jnp.sum(got.density * jnp.diff(got.edges))) == pytest.approx(1, rel=1e-5)


def test_no_mean_is_lost_at_the_ends():
    got = mask_mean_histogram({"w": jnp.array([-jnp.inf, -200.0, -100.0, 20.0, 200.0, jnp.inf])})
    assert got.counts[0] == 3 and got.counts[-1] == 3 and got.counts.sum() == 6


def test_bins_are_closed_on_the_left():
    got = mask_mean_histogram({"w": jnp.zeros(5)}, bins=2)  # sigmoid(0) = 1/2, an edge
    np.testing.assert_array_equal(got.counts, [0, 5])


def test_without_masked_weights_everything_is_zero():
    got = mask_mean_histogram({"w": None}, bins=4)
    assert got.counts.sum() == 0 and got.density.sum() == 0


def test_runs_and_jit_give_what_a_loop_gives(key):
    keys = jax.random.split(key, 3)
    got = jax.jit(jax.vmap(mask_mean_histogram))(jax.vmap(logits_of)(keys))
    for i, run_key in enumerate(keys):
        alone = mask_mean_histogram(logits_of(run_key))
        np.testing.assert_array_equal(got.counts[i], alone.counts)
        np.testing.assert_allclose(got.density[i], alone.density, rtol=1e-6)


def test_a_histogram_needs_a_bin():
    with pytest.raises(ValueError, match="bins"):
        mask_mean_histogram({"w": jnp.zeros(5)}, bins=0)
