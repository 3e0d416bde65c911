"""The largest of an array, against a stable sort."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxmod import topk


def by_sorting(scores: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of a stable sort from the largest on."""
    chosen = np.zeros(scores.size, bool)
    chosen[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(scores.shape)


_largest = jax.jit(topk.largest)


@hypothesis.given(
    st.lists(
        st.sampled_from([-np.inf, -2.5, -2e-38, -0.0, 0.0, 2e-38, 0.5, 3.0, np.inf]), min_size=9, max_size=9
    ),
    st.integers(0, 9),
)
def test_it_is_the_head_of_a_stable_sort(values, count):
    scores = np.array(values, np.float32).reshape(3, 3)
    np.testing.assert_array_equal(_largest(scores, count), by_sorting(scores, count))


@pytest.mark.parametrize("count", [0, 1, 17, 2500, 4999, 5000])
def test_of_many_under_vmap_and_with_ties(key, count):
    scores = jnp.round(jax.random.normal(key, (3, 50, 100)), 1)
    found = jax.vmap(topk.largest, in_axes=(0, None))(scores, count)
    np.testing.assert_array_equal(found, [by_sorting(np.asarray(s), count) for s in scores])


def test_the_count_may_differ_between_runs(key):
    scores, counts = jax.random.normal(key, (4, 30)), jnp.array([0, 1, 29, 30])
    assert jax.vmap(topk.largest)(scores, counts).sum(axis=1).tolist() == [0, 1, 29, 30]


def test_the_kth_largest_integer(key):
    values = jax.random.randint(key, (101,), -(2**31), 2**31 - 1)
    falling = np.sort(values)[::-1]
    assert [int(topk.kth_largest(values, k)) for k in (1, 2, 50, 101)] == falling[[0, 1, 49, 100]].tolist()
