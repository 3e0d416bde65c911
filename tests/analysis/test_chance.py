import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from jaxmod import masks
from jaxmod.analysis.chance import Chance, chance_overlap
from jaxmod.analysis.sharing import sharing


def layer(both, target, reference, size):
    """Returns target and reference masks of one layer with the given counts."""
    index = np.arange(size)
    start = target - both
    return {"w": jnp.asarray(index < target)}, {
        "w": jnp.asarray((index >= start) & (index < start + reference))
    }


def exact_log10_tail(both, k, m, n):
    """The tail on the side of the deviation, in whole numbers."""

    def ways(values):
        return sum(math.comb(k, i) * math.comb(n - k, m - i) for i in values)

    upper = both * n >= k * m
    values = range(both, min(k, m) + 1) if upper else range(max(0, k + m - n), both + 1)
    return (math.log(ways(values)) - math.log(math.comb(n, m))) / math.log(10)


@st.composite
def counts(draw, size=60):
    target, reference = draw(st.integers(0, size)), draw(st.integers(0, size))
    both = draw(st.integers(max(0, target + reference - size), min(target, reference)))
    return both, target, reference, size


@given(counts())
def test_a_layer_is_hypergeometric(numbers):
    both, target, reference, size = numbers
    got = chance_overlap(*layer(*numbers))["w"]
    support = range(max(0, target + reference - size), min(target, reference) + 1)
    ways = [math.comb(target, i) * math.comb(size - target, reference - i) for i in support]
    mean = sum(i * w for i, w in zip(support, ways, strict=True)) / sum(ways)
    variance = sum((i - mean) ** 2 * w for i, w in zip(support, ways, strict=True)) / sum(ways)
    assert got.overlap == pytest.approx(both / max(target, 1))
    assert got.expected == pytest.approx(mean / max(target, 1), rel=1e-5)
    if len(support) > 1:
        assert got.z == pytest.approx((both - mean) / variance**0.5, rel=1e-5, abs=1e-6)
        assert got.log10_p == pytest.approx(exact_log10_tail(*numbers), rel=1e-5, abs=1e-6)
    else:
        assert got.z == got.log10_p == 0


@pytest.mark.parametrize(
    ("both", "target", "reference", "size"),
    [
        (0, 3, 3, 4000),  # far fewer than one expected
        (2, 3, 3, 4000),
        (100, 200, 500, 4000),
        (25, 200, 500, 4000),  # the mean itself
        (0, 200, 500, 4000),
        (200, 200, 500, 4000),
        (1100, 2000, 2000, 4000),
        (1999, 2000, 3990, 4000),
    ],
)
def test_tails_of_a_layer_agree_with_whole_numbers(both, target, reference, size):
    got = chance_overlap(*layer(both, target, reference, size))["w"]
    assert got.log10_p == pytest.approx(exact_log10_tail(both, target, reference, size), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("both", [0, 5000])
def test_a_hundred_standard_deviations_do_not_underflow(both):
    got = chance_overlap(*layer(both, 5000, 5000, 10_000))
    one_way = -math.log10(math.comb(10_000, 5000))
    assert got["w"].z == pytest.approx(100 if both else -100, rel=1e-4)
    assert got["w"].log10_p == pytest.approx(one_way, rel=1e-6)
    assert np.isfinite(got["total"].log10_p) and got["total"].log10_p < -2000


@pytest.mark.parametrize("z", [-30, -4, -0.1, 0.5, 8])
def test_a_layer_of_a_million_weights_agrees_with_scipy(z):
    target, reference, size = 30_000, 5_000, 1_000_000
    law = stats.hypergeom(size, target, reference)
    both = max(round(float(law.mean() + z * law.std())), 0)
    expected = law.logsf(both - 1) if both >= law.mean() else law.logcdf(both)
    got = chance_overlap(*layer(both, target, reference, size))["w"]
    assert got.log10_p == pytest.approx(expected / math.log(10), rel=1e-5, abs=1e-6)


def test_the_largest_layers_are_quick_and_finite():
    got = chance_overlap(*layer(3_000_000, 3_500_000, 3_000_000, 4_000_000))["w"]
    assert got.log10_p < -100_000 and np.isfinite(got.z)


@pytest.mark.parametrize("numbers", [(0, 0, 3, 7), (3, 7, 3, 7), (3, 3, 7, 7), (7, 7, 7, 7), (1, 1, 1, 1)])
def test_an_overlap_that_cannot_vary_is_no_evidence(numbers):
    for got in chance_overlap(*layer(*numbers)).values():
        assert got.z == got.log10_p == 0
        assert got.overlap == got.expected


def test_a_tree_without_masked_leaves_has_a_total_of_nothing():
    assert chance_overlap({"w": None}, {"w": None}) == {"total": Chance(*jnp.zeros(4))}


def two_layers(key, density):
    first, second = jax.random.split(key)
    return {
        "a": {"kernel": jax.random.bernoulli(first, density, (40, 50)), "bias": None},
        "b": {"kernel": jax.random.bernoulli(second, density / 2, (30, 20)), "bias": None},
    }


def test_expectation_and_spread_are_those_of_random_masks(key):
    target_key, reference_key, key = jax.random.split(key, 3)
    target, reference = two_layers(target_key, 0.4), two_layers(reference_key, 0.3)
    draws = jax.vmap(masks.random_mask_like, in_axes=(0, None))(jax.random.split(key, 300), reference)
    repeated = jax.tree.map(lambda m: jnp.repeat(m[None], 300, axis=0), target)
    seen = chance_overlap(repeated, draws, runs_axis=0)
    shared = jax.vmap(sharing, in_axes=(None, 0))(target, draws)
    for path, chance in seen.items():
        np.testing.assert_allclose(chance.overlap, shared[path].shared, rtol=1e-6)
        spread = float(chance.overlap.std())
        assert chance.expected[0] == pytest.approx(float(chance.overlap.mean()), abs=4 * spread / 300**0.5)
        assert chance.z.mean() == pytest.approx(0, abs=4 / 300**0.5)
        assert chance.z.std() == pytest.approx(1, abs=0.17)
        # One tail of the two: p <= 0.05 on either side, in about a tenth of the draws.
        assert np.mean(np.asarray(chance.log10_p) < math.log10(0.05)) == pytest.approx(0.09, abs=0.06)


def test_the_total_approximates_the_exact_sum_over_layers():
    target, reference = zip(layer(40, 100, 200, 600), layer(12, 30, 100, 400), strict=True)
    got = chance_overlap(*({"a": m[0]["w"], "b": m[1]["w"]} for m in (target, reference)))["total"]
    pmf = np.convolve(
        stats.hypergeom.pmf(np.arange(101), 600, 100, 200), stats.hypergeom.pmf(np.arange(31), 400, 30, 100)
    )
    mean = pmf @ np.arange(131)
    sd = (pmf @ (np.arange(131) - mean) ** 2) ** 0.5
    assert got.overlap == pytest.approx(52 / 130)
    assert got.expected == pytest.approx(mean / 130)
    assert got.z == pytest.approx((52 - mean) / sd, rel=1e-5)
    assert got.log10_p == pytest.approx(math.log10(pmf[52:].sum()), rel=0.03)


def test_within_a_control_mask_is_the_same_as_cutting_the_layer_to_it(key):
    keys = jax.random.split(key, 3)
    target, reference, control = (
        jax.random.bernoulli(k, p, (500,)) for k, p in zip(keys, (0.4, 0.5, 0.6), strict=True)
    )
    got = chance_overlap({"w": target}, {"w": reference}, within={"w": control})
    cut = chance_overlap({"w": target[control]}, {"w": reference[control]})
    assert got == cut
    assert got["w"].expected == pytest.approx(float(reference[control].mean()))


def test_subsets_of_the_control_mask_are_only_striking_against_all_weights(key):
    control = {"w": jnp.arange(10_000) < 1_000}
    half = {"w": (jnp.arange(10_000) < 1_000) & jax.random.bernoulli(key, 0.5, (10_000,))}
    other = {"w": control["w"] & jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, (10_000,))}
    assert chance_overlap(half, other)["total"].z > 20
    assert abs(chance_overlap(half, other, control)["total"].z) < 4


def test_runs_give_what_a_loop_gives(key):
    target_keys, reference_keys, control_keys = jax.random.split(key, (3, 2))
    target, reference, control = (
        jax.vmap(two_layers, in_axes=(0, None))(keys, density)
        for keys, density in ((target_keys, 0.4), (reference_keys, 0.3), (control_keys, 0.7))
    )
    for within in (None, control):
        args = (target, reference) if within is None else (target, reference, within)
        alone = [chance_overlap(*jax.tree.map(lambda x: x[i], args)) for i in range(2)]  # noqa: B023
        expected = jax.tree.map(lambda *xs: jnp.stack(xs), *alone)
        jax.tree.map(np.testing.assert_array_equal, chance_overlap(*args, runs_axis=0), expected)


def test_masks_may_lie_on_several_devices(key):
    mesh = jax.make_mesh((2,), ("runs",), axis_types=(AxisType.Auto,))
    target, reference = ({"w": jax.random.bernoulli(k, 0.4, (4, 300))} for k in jax.random.split(key))
    placed = jax.device_put((target, reference), NamedSharding(mesh, PartitionSpec("runs")))
    expected = chance_overlap(target, reference, runs_axis=0)
    jax.tree.map(np.testing.assert_array_equal, chance_overlap(*placed, runs_axis=0), expected)
    alone = chance_overlap(*jax.tree.map(lambda x: x[0], placed))
    jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda x: x[0], expected))


def test_an_empty_control_mask_gives_zeros():
    target, reference = layer(2, 3, 4, 10)
    got = chance_overlap(target, reference, within={"w": jnp.zeros(10, bool)})
    assert all(float(x) == 0 for chance in got.values() for x in chance)


def test_masks_that_do_not_match_are_refused():
    target, reference = layer(2, 3, 4, 10)
    with pytest.raises(ValueError, match="shape"):
        chance_overlap(target, {"w": jnp.ones(4, bool)})
    with pytest.raises(ValueError, match="shape"):
        chance_overlap(target, reference, within={"w": jnp.ones(4, bool)})
