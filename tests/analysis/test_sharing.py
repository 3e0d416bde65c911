import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmod import masks
from jaxmod.analysis.sharing import Sharing, densities, remaining, sharing, weights_kept, weights_ratio


def mask_of(bits):
    """Returns a mask of two layers, the biases unmasked, from 10 bits."""
    bits = jnp.asarray(bits, bool)
    return {
        "a": {"kernel": bits[:6].reshape(2, 3), "bias": None},
        "b": {"kernel": bits[6:].reshape(4, 1), "bias": None},
    }


def as_sets(mask):
    layers = {f"{name}/kernel": np.flatnonzero(np.asarray(layer["kernel"])) for name, layer in mask.items()}
    sets = {path: {(path, int(i)) for i in kept} for path, kept in layers.items()}
    return sets | {"total": set().union(*sets.values())}


TEN_BITS = st.lists(st.booleans(), min_size=10, max_size=10)


@given(TEN_BITS, TEN_BITS)
def test_sharing_is_that_of_python_sets(t_bits, r_bits):
    target, reference = mask_of(t_bits), mask_of(r_bits)
    got = sharing(target, reference)
    t_sets, r_sets = as_sets(target), as_sets(reference)
    assert list(got) == ["a/kernel", "b/kernel", "total"]
    for path, overlap in got.items():
        t, r = t_sets[path], r_sets[path]
        expected = [
            len(t & r) / max(len(t), 1),
            len(t & r) / max(len(t | r), 1),
            len(t & r) / max(min(len(t), len(r)), 1),
        ]
        np.testing.assert_allclose(np.asarray(overlap), expected, rtol=1e-6)


@given(TEN_BITS, TEN_BITS)
def test_iou_and_io_min_are_symmetric_and_at_most_one(t_bits, r_bits):
    there, back = (
        sharing(mask_of(t_bits), mask_of(r_bits)),
        sharing(mask_of(r_bits), mask_of(t_bits)),
    )
    for path in there:
        assert there[path][1:] == back[path][1:]
        assert 0 <= there[path].iou <= there[path].io_min <= 1
        assert there[path].io_min == max(there[path].shared, back[path].shared)


def test_sharing_on_hand_made_masks():
    target = mask_of([1, 1, 1, 1, 0, 0] + [1, 0, 0, 0])
    reference = mask_of([1, 0, 0, 0, 1, 0] + [1, 1, 1, 1])
    got = sharing(target, reference)
    np.testing.assert_allclose(np.asarray(got["a/kernel"]), [1 / 4, 1 / 5, 1 / 2])
    np.testing.assert_allclose(np.asarray(got["b/kernel"]), [1, 1 / 4, 1])
    # The total is one of counts, not a mean over layers: 2 of 5 weights.
    np.testing.assert_allclose(np.asarray(got["total"]), [2 / 5, 2 / 9, 2 / 5])


def test_empty_masks_share_nothing_instead_of_nan():
    empty, full = mask_of([0] * 10), mask_of([1] * 10)
    for pair in [(empty, empty), (empty, full), (full, empty)]:
        assert all(float(x) == 0 for overlap in sharing(*pair).values() for x in overlap)
    assert all(float(x) == 0 for x in remaining(full, empty).values())
    assert sharing({"a": None}, {"a": None}) == {"total": Sharing(*jnp.zeros(3))}


def test_remaining_is_the_part_of_the_control_mask():
    mask = mask_of([1, 1, 0, 0, 1, 0] + [0, 0, 0, 1])
    control = mask_of([1, 1, 1, 1, 0, 0] + [1, 0, 0, 1])
    got = remaining(mask, control)
    assert {path: float(x) for path, x in got.items()} == {"a/kernel": 0.5, "b/kernel": 0.5, "total": 0.5}


def test_densities_are_means_over_each_leaf_and_over_all():
    mask = mask_of([1, 1, 0, 0, 1, 0] + [0, 0, 0, 1])
    got = densities(mask)
    assert {path: float(x) for path, x in got.items()} == pytest.approx(
        {"a/kernel": 3 / 6, "b/kernel": 1 / 4, "total": 4 / 10}
    )
    assert got["total"] == masks.density(mask)
    assert densities({"a": None}) == {"total": 0}


def test_weights_kept_counts_beyond_what_float32_can():
    n = 2**24 + 1
    counts = weights_kept({"a": jnp.ones(n, bool), "b": jnp.ones(2, bool)})
    assert {path: int(x) for path, x in counts.items()} == {"a": n, "b": 2, "total": n + 2}


def test_weights_ratio_is_second_over_first():
    few, many = mask_of([1, 0, 0, 0, 0, 0] + [1, 0, 0, 0]), mask_of([1] * 6 + [0, 0, 0, 1])
    assert weights_ratio(few, many) == 3.5
    assert weights_ratio(mask_of([0] * 10), many) == 0


def test_runs_and_jit_give_what_a_loop_gives(key):
    t, r = (jax.random.bernoulli(k, 0.4, (5, 10)) for k in jax.random.split(key))
    targets, references = jax.vmap(mask_of)(t), jax.vmap(mask_of)(r)
    for f in (sharing, remaining, weights_ratio, lambda t, r: densities(t)):
        runs = jax.jit(jax.vmap(f))(targets, references)
        for i in range(5):
            alone = f(mask_of(t[i]), mask_of(r[i]))
            jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[i], runs), alone)  # noqa: B023


def test_random_masks_share_their_density_on_average(key):
    reference = {"w": jnp.arange(20_000) < 6_000}
    target = masks.random_mask_like(key, reference)
    assert float(sharing(target, reference)["w"].shared) == pytest.approx(0.3, abs=0.03)


def test_a_leaf_named_total_is_refused():
    mask = {"total": jnp.ones(2, bool)}
    with pytest.raises(ValueError, match="'total'"):
        sharing(mask, mask)


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(ValueError, match="same path"):
        weights_kept({"a/b": jnp.ones(2, bool), "a": {"b": jnp.ones(2, bool)}})


def test_masks_of_different_trees_are_refused():
    with pytest.raises(ValueError, match="'b/kernel'"):
        sharing(mask_of([1] * 10), {"a": mask_of([1] * 10)["a"]})
