"""The written-out Threefry against JAX's own, and the uniforms made from its bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmod import noise

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (1, 1, 1, 6), (0,), (3, 0, 2), (4099,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5])
def test_bits_are_those_of_jax(seed, shape):
    key = jax.random.key(seed)
    ours = noise.bits(key, shape)
    assert ours.dtype == jnp.uint32
    np.testing.assert_array_equal(ours, jax.random.bits(key, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_under_jit(key, shape):
    ours = jax.jit(noise.bits, static_argnums=1)(jax.random.fold_in(key, 3), shape)
    np.testing.assert_array_equal(ours, jax.random.bits(jax.random.fold_in(key, 3), shape))


def test_bits_under_vmap_over_keys(key):
    keys = jax.random.split(key, 6).reshape(2, 3)
    ours = jax.jit(jax.vmap(jax.vmap(lambda k: noise.bits(k, (4, 5)))))(keys)
    one_by_one = [[jax.random.bits(k, (4, 5)) for k in row] for row in keys]
    np.testing.assert_array_equal(ours, jnp.array(one_by_one))


def test_bits_under_scan(key):
    def step(carry, i):
        return carry, noise.bits(jax.random.fold_in(key, i), (3, 2))

    _, ours = jax.lax.scan(step, None, jnp.arange(4))
    theirs = jnp.stack([jax.random.bits(jax.random.fold_in(key, i), (3, 2)) for i in range(4)])
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("impl", ["philox4x32", "rbg", "unsafe_rbg"])
def test_other_generators_are_passed_on(impl):
    key = jax.random.key(5, impl=impl)
    np.testing.assert_array_equal(noise.bits(key, (3, 5)), jax.random.bits(key, (3, 5)))


def test_the_older_threefry_is_passed_on(key):
    with jax.threefry_partitionable(False):
        old = jax.random.bits(key, (3, 5))
        np.testing.assert_array_equal(noise.bits(key, (3, 5)), old)
    assert not np.array_equal(noise.bits(key, (3, 5)), old)


def test_the_largest_and_smallest_uniform(key, monkeypatch):
    # 0 and 1 are never reached, and 1 - u mirrors u, from the first bit pattern to the last.
    half = 2**22
    words = [0, 1, half - 1, half, 2**23 - 2, 2**23 - 1]
    patterns = jnp.array([word << 9 for word in words], jnp.uint32)
    monkeypatch.setattr(noise, "mix32", lambda key, shape: patterns)
    u = noise.uniform(key, (6,))
    assert u.dtype == jnp.float32
    assert float(u[0]) == 2.0**-24 and float(u[-1]) == 1 - 2.0**-24
    np.testing.assert_array_equal(1 - u, u[::-1])
    assert jnp.isfinite(jnp.log(u)).all() and jnp.isfinite(jnp.log(1 - u)).all()


def test_uniform_is_strictly_inside_and_symmetric(key):
    u = np.asarray(noise.uniform(key, (1_000_000,)))
    assert 0 < u.min() and u.max() < 1
    assert (u != 0.5).all()  # it would have no mirror image of its own
    np.testing.assert_array_equal(np.float64(1) - u, (np.float32(1) - u).astype(np.float64))


def test_uniform_is_uniform(key):
    u = np.asarray(noise.uniform(key, (200, 1000)))
    assert stats.kstest(u.reshape(-1), "uniform").pvalue > 0.01


def test_uniforms_of_samples_steps_and_neighbours_are_uncorrelated(key):
    n = 100_000
    one = noise.uniform(key, (n,))
    others = [
        noise.uniform(jax.random.split(key, 2)[0], (n,)),
        noise.uniform(jax.random.fold_in(key, 1), (n,)),
        noise.uniform(jax.random.key(1), (n,)),
        jnp.roll(one, 1),
        jnp.roll(one, n // 2),
    ]
    for other in others:
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(n)
