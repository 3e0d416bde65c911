"""The written-out Threefry against JAX's own, mix32 against what a bad generator would show, the uniforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmod import noise
from jaxmod.estimators import gumbel_sigmoid

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


def words(key):
    return np.asarray(jax.random.bits(key, (2,)))


MULTIPLIERS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)


def mixed(index, first, second, multipliers=MULTIPLIERS, join=np.bitwise_xor):
    """mix32 in NumPy, and what it would be with other multipliers or another way to join the second word."""
    one, two, three = map(np.uint32, multipliers)
    with np.errstate(over="ignore"):
        x = index.astype(np.uint32) + first
        x = join((x ^ (x >> np.uint32(17))) * one, second)
        x = (x ^ (x >> np.uint32(11))) * two
        x = (x ^ (x >> np.uint32(15))) * three
    return x ^ (x >> np.uint32(14))


def without(*dropped):
    """The multipliers, some of them dropped."""
    return tuple(1 if i in dropped else m for i, m in enumerate(MULTIPLIERS))


@pytest.mark.parametrize("impl", ["threefry2x32", "philox4x32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mix32_is_what_it_says(shape, impl):
    key = jax.random.key(4, impl=impl)
    index = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    np.testing.assert_array_equal(noise.mix32(key, shape), mixed(index, *words(key)))


def test_mix32_under_vmap_and_scan(key):
    keys = jax.random.split(key, 6).reshape(2, 3)
    one_by_one = [[noise.mix32(k, (4, 5)) for k in row] for row in keys]
    ours = jax.jit(jax.vmap(jax.vmap(lambda k: noise.mix32(k, (4, 5)))))(keys)
    np.testing.assert_array_equal(ours, jnp.array(one_by_one))
    _, scanned = jax.lax.scan(lambda carry, k: (carry, noise.mix32(k, (4, 5))), None, keys[0])
    np.testing.assert_array_equal(scanned, jnp.array(one_by_one[0]))


def test_mix32_refuses_what_its_index_cannot_count(key):
    with pytest.raises(ValueError, match=r"\(65536, 65536\) has 2\*\*32 elements"):
        noise.mix32(key, (2**16, 2**16))


def test_mix32_has_no_word_twice_in_a_leaf(key):
    assert len(np.unique(noise.mix32(key, (2**20,)))) == 2**20


def serial(leaves):
    """Returns the p-values of the bytes and of pairs of neighbours, and z of products at several lags."""
    lags = (1, 2, 64, 2000)
    cells, pairs, products, n = np.zeros((4, 256)), np.zeros(256), np.zeros(len(lags)), 0
    for x in leaves:
        cells += [np.bincount(byte, minlength=256) for byte in x.view(np.uint8).reshape(-1, 4).T]
        nibble = (x >> 28).astype(np.uint8)
        pairs += np.bincount(16 * nibble[:-1] + nibble[1:], minlength=256)
        u = x.astype(np.float32) * np.float32(2.0**-32) - np.float32(0.5)
        products += [np.dot(u[:-lag], u[lag:]) for lag in lags]
        n += len(x)
    p = np.array([stats.chisquare(table).pvalue for table in (*cells, pairs)])
    return p, products / (np.sqrt(n) / 12)  # a product of two has standard deviation 1/12


def test_mix32_over_1e8_draws_is_uniform_and_serially_independent(key):
    size, leaves = 2**22, 24
    assert size * leaves > 1e8
    draw = jax.jit(noise.mix32, static_argnums=1)
    p, z = serial(np.asarray(draw(leaf, (size,))) for leaf in jax.random.split(key, leaves))
    assert (p > 1e-4).all() and (p < 1 - 1e-4).all()
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("dropped", [(0,), (0, 2), (1, 2)])
def test_the_same_statistics_reject_mix32_without_some_multiplications(key, dropped):
    index = np.arange(2**22, dtype=np.uint32)
    p, _ = serial(mixed(index, *words(leaf), without(*dropped)) for leaf in jax.random.split(key, 4))
    assert p.min() < 1e-9


def related_keys(key):
    """Pairs of keys that training brings together: samples, leaves, steps, runs, tasks; and neighbours."""
    split = jax.random.split(key, 4)
    step = [jax.random.fold_in(key, i) for i in range(2)]
    return {
        "samples": (split[0], split[1]),
        "leaves": tuple(jax.random.split(split[0], 2)),
        "a sample and its leaf": (split[0], jax.random.split(split[0], 2)[0]),
        "steps": tuple(step),
        "samples of neighbouring steps": (jax.random.split(step[0])[0], jax.random.split(step[1])[0]),
        "seeds": (jax.random.key(0), jax.random.key(1)),
        "far seeds": (jax.random.key(0), jax.random.key(2**31)),
        "neighbouring low words": tuple(jax.random.wrap_key_data(jnp.array([[7, 8], [7, 9]], jnp.uint32))),
        "neighbouring high words": tuple(jax.random.wrap_key_data(jnp.array([[7, 8], [6, 8]], jnp.uint32))),
    }


def dependence(one, other):
    """Returns the least p-value of both high nibbles, together and one apart, and z of bit against bit."""
    p = [
        stats.chisquare(np.bincount(16 * (x >> 28) + (y >> 28), minlength=256)).pvalue
        for x, y in ((one, other), (one[1:], other[:-1]), (one[:-1], other[1:]))
    ]
    bits = [
        ((x[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float32) - 0.5 for x in (one, other)
    ]
    return min(p), np.abs(bits[0].T @ bits[1]).max() * 4 / np.sqrt(len(one))


@pytest.mark.parametrize("name", related_keys(jax.random.key(0)))
def test_mix32_of_related_keys_is_independent(key, name):
    p, z = dependence(*(np.asarray(noise.mix32(k, (2**18,))) for k in related_keys(key)[name]))
    assert p > 1e-4
    assert z < 5.2  # the largest of 1024 normal numbers


@pytest.mark.parametrize("neighbour", [(6, 8), (7, 8 + 2**31)])
def test_the_same_statistics_reject_neighbouring_keys_taken_as_words(neighbour):
    # Why `noise.words` draws them: the data of the keys itself would give related masks.
    raw = (jnp.array(data, jnp.uint32) for data in ((7, 8), neighbour))
    p, z = dependence(*(np.asarray(noise.mix32(w, (2**18,))) for w in raw))
    assert p < 1e-9 or z > 8


def shared(one, other):
    """Returns the part of the words of one leaf that another has too, wherever."""
    return len(np.intersect1d(one, other)) / len(one)


@pytest.mark.parametrize("delta", [123456789, 0x3ADE68B1, 0x9E3779B9, 0xC0FFEE11])
def test_no_pair_of_words_makes_two_leaves_windows_of_one_sequence(delta):
    # Added, the second word could undo a difference of the first: that commutes with the multiplication.
    index = np.arange(2**18, dtype=np.uint32)
    first, second = 0x2545F491, 0x1B873593
    moved, undone = (first + delta) % 2**32, delta * MULTIPLIERS[0] % 2**32
    added = [
        mixed(index, np.uint32(a), np.uint32(b), join=np.add)
        for a, b in ((first, second), (moved, (second - undone) % 2**32))
    ]
    assert shared(*added) > 0.75

    one = noise.mix32(jnp.array([first, second], jnp.uint32), index.shape)
    for other in (second - undone, second + undone, second ^ undone, second ^ -undone, second):
        two = noise.mix32(jnp.array([moved, other % 2**32], jnp.uint32), index.shape)
        assert shared(one, two) < 5e-4  # 2**18 / 2**32 = 6e-5 by chance


def worst_flip(scramble, part):
    """Returns how far from 1/2 it is, at worst, that a bit of index or word flips a bit of the result."""
    n = 2**16
    random = np.random.default_rng(0)
    given = {name: random.integers(0, 2**32, n, dtype=np.uint32) for name in ("index", "first", "second")}
    given["index"] = np.arange(n, dtype=np.uint32)
    before, worst = np.asarray(scramble(*given.values())), 0.0
    for bit in range(32):
        after = np.asarray(scramble(*(given | {part: given[part] ^ np.uint32(1 << bit)}).values()))
        flips = (((before ^ after)[:, None] >> np.arange(32, dtype=np.uint32)) & 1).mean(0)
        worst = max(worst, np.abs(flips - 0.5).max())
    return worst


@pytest.mark.parametrize("part", ["index", "first", "second"])
def test_mix32_avalanche(part):
    # Each bit of the index and of both words of the key flips each bit of the result half the time.
    # The high bits of the second word pass one multiplication less: 1% off, and they are never
    # flipped alone, for both words are drawn.
    worst = worst_flip(jax.jit(noise.scramble), part)
    assert worst < (0.02 if part == "second" else 0.0105)


@pytest.mark.parametrize(("part", "dropped"), [("second", (1,)), ("second", (2,)), ("index", (0, 2))])
def test_the_avalanche_rejects_mix32_without_some_multiplications(part, dropped):
    assert worst_flip(lambda *given: mixed(*given, without(*dropped)), part) > 0.1


def test_a_weight_is_kept_with_the_probability_of_its_logit(key):
    p = np.array([1e-4, 1e-3, 0.1, 0.5, 0.88, 1 - 1e-3, 1 - 1e-4])
    logits = {"w": jnp.repeat(jnp.asarray(np.log(p / (1 - p)), jnp.float32)[:, None], 2**20, axis=1)}

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 2})
    def kept(key, logits):  # a hundred million draws: here LLVM's optimizations pay, unlike in other tests
        return jnp.sum(gumbel_sigmoid().sample(key, logits)["w"] > 0, axis=1)

    total = sum(np.asarray(kept(k, logits)) for k in jax.random.split(key, 16))
    n = 2**24
    assert np.abs((total - n * p) / np.sqrt(n * p * (1 - p))).max() < 4


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
