"""Passes over the examples: permutations, each as likely as the others and independent of its neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from scipy import stats

from jaxmod import noise
from jaxmod.train.order import _high_word, ordered_rows, shuffled


@jax.jit
def _elements(seed, epoch, index, size):
    return shuffled(seed, epoch, index, size)


def passes(key, epochs, size):
    """Returns permutations, [epochs, size], of one key."""
    epoch = jnp.repeat(jnp.arange(epochs, dtype=jnp.uint32), size)
    index = jnp.tile(jnp.arange(size, dtype=jnp.uint32), epochs)
    rows = _elements(noise.words(key), epoch, index, jnp.uint32(size))
    return np.asarray(rows).reshape(epochs, size)


def likely(counts):
    return stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("size", [1, 2, 3, 5, 128, 60_000, 2**17 + 1])
def test_every_pass_is_a_permutation(key, size):
    for row in passes(key, 3, size):
        np.testing.assert_array_equal(np.sort(row), np.arange(size))


def swap_or_not(seed, epoch, x, size, rounds=128):
    """The shuffle in Python integers."""

    def scramble(x, first, second):
        x = (x + first) % 2**32
        x = (x ^ x >> 17) * 0xED5AD4BB % 2**32
        x = x ^ second
        x = (x ^ x >> 11) * 0xAC4C1B51 % 2**32
        x = (x ^ x >> 15) * 0x31848BAB % 2**32
        return x ^ x >> 14

    for i in range(rounds):
        counter = 2 * (epoch * rounds + i)
        first, second = scramble(counter, *seed), scramble(counter + 1, *seed)
        partner = ((first * size >> 32) - x) % size
        if scramble(max(x, partner), second, first) >> 31:
            x = partner
    return x


@pytest.mark.parametrize("size", [7, 60_000, 2**31 - 1])
def test_it_is_swap_or_not(key, size):
    seed = [int(word) for word in noise.words(key)]
    index = np.random.RandomState(0).randint(0, size, 20).astype(np.uint32)
    epoch = np.arange(20, dtype=np.uint32) * 1001
    rows = _elements(noise.words(key), epoch, index, jnp.uint32(size))
    expected = [swap_or_not(seed, int(e), int(i), size) for e, i in zip(epoch, index, strict=True)]
    assert np.asarray(rows).tolist() == expected


@pytest.mark.parametrize("size", range(2, 17))
def test_every_element_is_as_likely_everywhere(key, size):
    drawn = passes(jax.random.fold_in(key, size), 4000, size)
    counts = np.stack([np.bincount(column, minlength=size) for column in drawn.T])
    # Rows and columns of the table have fixed sums: (size - 1)^2 degrees of freedom.
    statistic = ((counts - 4000 / size) ** 2 / (4000 / size)).sum() * (size - 1) / size
    assert stats.chi2.sf(statistic, (size - 1) ** 2) > 1e-4


@pytest.mark.parametrize(("size", "permutations"), [(3, 6), (4, 24), (5, 120)])
def test_every_permutation_is_as_likely(key, size, permutations):
    codes = passes(key, 48_000, size) @ size ** np.arange(size)
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == permutations and likely(counts)


def test_neighbours_are_independent_in_a_pass_and_between_passes(key):
    size = 16
    drawn = passes(key, 48_000, size)
    for a, b in ((0, 1), (3, 12), (14, 15)):
        pairs = np.bincount(drawn[:, a] * size + drawn[:, b], minlength=size**2).reshape(size, size)
        assert not pairs.diagonal().any()
        assert likely(pairs[~np.eye(size, dtype=bool)])
    for place in (0, 5):
        between = np.bincount(drawn[:-1, place] * size + drawn[1:, place], minlength=size**2)
        assert likely(between)


def test_keys_give_independent_orders():
    keys = jax.random.split(jax.random.key(4), 4000)
    at = jnp.array([0, 1, 0], jnp.uint32), jnp.array([0, 0, 3], jnp.uint32)
    first = jax.vmap(lambda k: shuffled(noise.words(k), *at, jnp.uint32(8)))(keys)
    first = np.asarray(first)
    for a, b in ((0, 1), (0, 2)):
        counts = np.bincount(8 * first[:, a] + first[:, b], minlength=64)
        if b == 2:
            counts = counts.reshape(8, 8)[~np.eye(8, dtype=bool)]
        assert likely(counts)
    assert likely(np.bincount(8 * first[:-1, 0] + first[1:, 0], minlength=64))


def test_large_passes_look_random(key):
    size, epochs = 60_000, 12
    drawn = passes(key, epochs, size).astype(np.int64)
    gaps = np.diff(drawn, axis=1) % size
    assert likely(np.bincount(gaps.ravel() // 600, minlength=100))
    # Batches hold the lower half of the examples as often as draws without replacement do.
    lower = (drawn[:, : 128 * 468].reshape(-1, 128) < size // 2).sum(axis=1)
    assert lower.std() == pytest.approx(np.sqrt(32), rel=0.05)
    fixed = (drawn == np.arange(size)[None]).sum()
    assert stats.poisson.sf(fixed - 1, epochs) > 1e-4  # one a pass
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 4.5 / np.sqrt(size)


@pytest.mark.parametrize("batch_size", [7, 16, 40])
def test_batches_follow_one_another_through_the_passes(key, batch_size):
    size = 16
    steps = 3 * size
    for order in ("epochs", "fixed"):
        batches = jax.vmap(lambda t, order=order: ordered_rows(order, key, t, batch_size, jnp.int32(size)))
        whole = np.asarray(jax.jit(batches)(jnp.arange(steps))).reshape(-1, size)
        np.testing.assert_array_equal(np.sort(whole, axis=1), np.arange(size)[None].repeat(len(whole), 0))
        if order == "fixed":
            assert (whole == np.arange(size)[None]).all()
        else:
            np.testing.assert_array_equal(whole, passes(key, len(whole), size))
            assert len(np.unique(whole, axis=0)) == len(whole)


def test_positions_are_counted_to_the_last(key):
    step, batch = 2**25 - 1, 128
    rows = ordered_rows("fixed", key, jnp.int32(step), batch, jnp.int32(60_000))
    expected = (step * batch + np.arange(batch)) % 60_000
    assert np.asarray(rows).tolist() == expected.tolist()


def test_runs_are_vmapped_and_it_is_lowered_everywhere(key):
    keys = jax.random.split(key, 3)

    def rows(key):
        return ordered_rows("epochs", key, jnp.int32(5), 8, jnp.int32(11))

    together = jax.vmap(rows)(keys)
    for i in range(3):
        np.testing.assert_array_equal(together[i], rows(keys[i]))
    assert len({tuple(row) for row in together.tolist()}) == 3
    platforms = ("cpu", "cuda", "tpu")
    export.export(jax.jit(lambda seed: rows(jax.random.key(seed))), platforms=platforms)(jnp.uint32(0))


def test_the_high_word_of_a_product():
    random = np.random.default_rng(0)
    a = np.concatenate([random.integers(0, 2**32, 1000), [0, 1, 2**16 - 1, 2**16, 2**32 - 1]])
    a = a.astype(np.uint32)
    for b in (1, 2**16 - 1, 2**16, 60_000, 2**31 - 1, 2**32 - 1):
        expected = (a.astype(np.uint64) * np.uint64(b) >> np.uint64(32)).astype(np.uint32)
        np.testing.assert_array_equal(_high_word(jnp.asarray(a), jnp.uint32(b)), expected)
