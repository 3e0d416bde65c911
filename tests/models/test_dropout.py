"""Dropout: its share, its mean, bits of its own for every call, and nothing at all when not training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmod.models.dropout import dropout


class Twice(nn.Module):
    rate: float
    train: bool

    @nn.compact
    def __call__(self, x):
        return dropout(self, x, self.rate, self.train), dropout(self, x, self.rate, self.train)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_its_share_is_dropped_and_the_mean_stays(key, rate):
    x = jnp.full((300, 1000), 3.0)
    first, second = Twice(rate, True).apply({}, x, rngs={"dropout": key})
    for out in (first, second):
        kept = np.asarray(out) != 0
        np.testing.assert_allclose(np.asarray(out)[kept], 3 / (1 - rate), rtol=1e-6)
        assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / x.size)
    together = ((np.asarray(first) != 0) & (np.asarray(second) != 0)).mean()
    assert together == pytest.approx((1 - rate) ** 2, abs=0.005)


@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (0.0, True)])
def test_without_it_no_rng_is_needed(rate, train):
    x = jnp.arange(6.0)
    for out in Twice(rate, train).apply({}, x):
        np.testing.assert_array_equal(out, x)


def test_runs_draw_what_they_draw_alone_and_dtypes_stay(key):
    x, keys = jnp.ones((4, 8), jnp.bfloat16), jax.random.split(key, 3)

    def draw(key):
        return Twice(0.5, True).apply({}, x, rngs={"dropout": key})[0]

    together = jax.vmap(draw)(keys)
    assert together.dtype == jnp.bfloat16
    for i in range(3):
        np.testing.assert_array_equal(together[i], draw(keys[i]))
