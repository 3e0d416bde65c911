"""The algebra of masks, their meeting with the weights, size-matched random masks, and files."""

import os
import resource
import signal

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxmod import masks

SHAPES = {"a": (3, 4), "b": (5,), "c": (2, 1, 2)}
TREES = st.fixed_dictionaries({name: hnp.arrays(bool, shape) for name, shape in SHAPES.items()}).map(
    lambda tree: {"layer": {name: jnp.asarray(m) for name, m in tree.items()}, "bias": None}
)


def params_like_trees(dtype=jnp.float32):
    weights = {name: jnp.arange(1, 1 + np.prod(shape)).reshape(shape) for name, shape in SHAPES.items()}
    return {"layer": jax.tree.map(lambda w: w.astype(dtype), weights), "bias": jnp.ones(2, dtype)}


def model():
    """Params, and a mask of them with one leaf left alone."""
    params = {"dense": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}, "out": {"kernel": jnp.ones((5, 2))}}
    mask = {
        "dense": {"kernel": jnp.arange(15).reshape(3, 5) % 3 == 0, "bias": None},
        "out": {"kernel": jnp.arange(10).reshape(5, 2) % 2 == 0},
    }
    return params, mask


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Algebra


@given(TREES)
def test_the_complement_of_the_complement_is_the_mask(a):
    assert_equal(masks.invert(masks.invert(a)), a)


@given(TREES, TREES)
def test_de_morgan(a, b):
    assert_equal(masks.invert(masks.union(a, b)), masks.intersection(masks.invert(a), masks.invert(b)))
    assert_equal(masks.invert(masks.intersection(a, b)), masks.union(masks.invert(a), masks.invert(b)))


@given(TREES, TREES)
def test_difference_is_the_intersection_with_the_complement(a, b):
    assert_equal(masks.difference(a, b), masks.intersection(a, masks.invert(b)))
    assert_equal(masks.union(masks.difference(a, b), masks.intersection(a, b)), a)


@given(TREES, TREES)
def test_densities_add_up(a, b):
    both, either = masks.density(masks.intersection(a, b)), masks.density(masks.union(a, b))
    np.testing.assert_allclose(both + either, masks.density(a) + masks.density(b), rtol=1e-6)
    np.testing.assert_allclose(masks.density(a) + masks.density(masks.invert(a)), 1, rtol=1e-6)


@given(TREES, TREES)
def test_a_mask_and_its_complement_split_the_weights(a, b):
    params = params_like_trees()
    inside, outside = masks.apply_mask(params, a), masks.apply_mask(params, masks.invert(a))
    assert_equal(jax.tree.map(jnp.add, inside["layer"], outside["layer"]), params["layer"])
    twice = masks.apply_mask(inside, b)
    assert_equal(twice, masks.apply_mask(params, masks.intersection(a, b)))


def test_none_stays_none_in_the_algebra():
    a = {"w": jnp.array([True, False]), "b": None}
    b = {"w": jnp.array([True, True]), "b": None}
    results = (masks.invert(a), masks.union(a, b), masks.intersection(a, b), masks.difference(b, a))
    expected = ([False, True], [True, True], [True, False], [False, True])
    for result, wanted in zip(results, expected, strict=True):
        assert result["b"] is None
        assert result["w"].dtype == bool and result["w"].tolist() == wanted


@pytest.mark.parametrize("op", [masks.union, masks.intersection, masks.difference])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"w": jnp.ones(3, bool), "b": None}, r"'w' has shape \(2,\), expected \(3,\)"),
        ({"w": None, "b": jnp.ones(2, bool)}, "'w' has no counterpart"),
        ({"w": jnp.ones(2, bool)}, "structures differ"),
    ],
)
def test_masks_of_different_trees_do_not_combine(op, other, said):
    with pytest.raises(ValueError, match=said):
        op({"w": jnp.ones(2, bool), "b": None}, other)


# Masks and weights


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("mask_dtype", [bool, jnp.float32])
def test_apply_mask_keeps_dtypes(dtype, mask_dtype):
    params = params_like_trees(dtype)
    mask = jax.tree.map(lambda w: jnp.ones(w.shape, mask_dtype), params)
    assert_equal(masks.apply_mask(params, mask), params)
    module = masks.apply_mask(params, {**mask, "bias": None})
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(module))


def test_all_ones_and_none_are_the_identity():
    params = params_like_trees()
    ones = {"layer": jax.tree.map(lambda w: jnp.ones(w.shape, bool), params["layer"]), "bias": None}
    assert_equal(masks.apply_mask(params, ones), params)
    module = masks.apply_mask(params, jax.tree.map(lambda _: None, params))
    assert all(x is y for x, y in zip(jax.tree.leaves(module), jax.tree.leaves(params), strict=True))
    assert masks.apply_mask(params, None) is params


def test_the_gradient_reaches_mask_and_weights():
    params, mask = {"w": jnp.array([3.0, 5.0])}, {"w": jnp.array([1.0, 0.0])}

    def loss(params, mask):
        return jnp.sum(masks.apply_mask(params, mask)["w"])

    to_params, to_mask = jax.grad(loss, argnums=(0, 1))(params, mask)
    assert to_params["w"].tolist() == [1.0, 0.0] and to_mask["w"].tolist() == [3.0, 5.0]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"w": jnp.ones(3, bool), "b": None}, r"'w' has shape \(3,\), expected \(2, 3\)"),
        ({"w": jnp.ones((4, 2, 3), bool), "b": None}, r"'w' has shape \(4, 2, 3\)"),
        ({"w": jnp.ones((2, 3), bool)}, "'b' is missing"),
    ],
)
def test_apply_mask_refuses_a_mask_of_other_weights(mask, said):
    # Broadcasting would mask something, silently; a runs axis is for vmap.
    with pytest.raises(ValueError, match=rf"^mask does not mirror params: {said}"):
        masks.apply_mask({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, mask)


def test_density_counts_masked_weights_only():
    _, mask = model()
    np.testing.assert_allclose(masks.density(mask), (5 + 5) / 25)
    np.testing.assert_allclose(jax.jit(masks.density)(mask), 10 / 25)
    runs = jax.tree.map(lambda m: jnp.stack([m, ~m, jnp.zeros_like(m)]), mask)
    np.testing.assert_allclose(jax.vmap(masks.density)(runs), [0.4, 0.6, 0.0], rtol=1e-6)
    assert masks.density({"b": None}) == 0


def test_empty_layers_are_named():
    _, mask = model()
    assert masks.empty_layers(mask) == []
    mask["dense"]["kernel"] = jnp.zeros((3, 5), bool)
    assert masks.empty_layers(mask) == ["dense/kernel"]


# Random masks of the same size


@given(TREES, st.integers(0, 2**31 - 1))
def test_a_random_mask_keeps_as_many_weights_of_each_leaf(a, seed):
    random = masks.random_mask_like(jax.random.key(seed), a)
    assert jax.tree.structure(random) == jax.tree.structure(a)
    for x, y in zip(jax.tree.leaves(random), jax.tree.leaves(a), strict=True):
        assert x.shape == y.shape and x.dtype == bool and int(x.sum()) == int(y.sum())


def test_random_masks_differ_by_key_and_are_the_same_under_jit_and_vmap(key):
    mask = {"w": jnp.arange(30).reshape(6, 5) % 3 == 0, "b": None}
    keys = jax.random.split(key, 4)
    together = jax.jit(jax.vmap(masks.random_mask_like, (0, None)))(keys, mask)
    for i, k in enumerate(keys):
        assert_equal(jax.tree.map(lambda m, i=i: m[i], together), masks.random_mask_like(k, mask))
    assert not np.array_equal(together["w"][0], together["w"][1])


def test_random_masks_of_runs_keep_the_sizes_of_their_runs(key):
    runs = {"w": jnp.arange(20)[None, :] < jnp.array([0, 3, 20])[:, None]}
    random = jax.jit(jax.vmap(masks.random_mask_like))(jax.random.split(key, 3), runs)
    assert random["w"].sum(1).tolist() == [0, 3, 20]


def test_every_weight_is_kept_equally_often(key):
    n, kept, size = 20_000, 3, 10
    mask = {"w": jnp.arange(size) < kept}
    draws = jax.jit(jax.vmap(masks.random_mask_like, (0, None)))(jax.random.split(key, n), mask)["w"]
    p = kept / size
    assert np.abs(np.asarray(draws, np.float64).mean(0) - p).max() < 4 * np.sqrt(p * (1 - p) / n)


# Files


def test_a_mask_comes_back_from_its_file(tmp_path):
    params, mask = model()
    masks.save_masks(tmp_path / "masks.npz", mask)
    assert_equal(masks.load_masks(tmp_path / "masks.npz", like=params), mask)


def test_a_dict_of_masks_with_a_runs_axis_comes_back(tmp_path):
    params, mask = model()
    runs = jax.tree.map(lambda m: jnp.stack([m, ~m, m]), mask)
    saved = {"add": runs, "pair 2": masks.invert(runs)}
    masks.save_masks(tmp_path / "masks.npz", saved)
    assert_equal(masks.load_masks(tmp_path / "masks.npz", like=params), saved)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (0,), (3, 0), (2, 3, 3)])
def test_any_shape_comes_back_bit_for_bit(tmp_path, key, shape):
    mask = {"w": jax.random.bernoulli(key, 0.5, shape)}
    masks.save_masks(tmp_path / "masks.npz", mask)
    assert_equal(masks.load_masks(tmp_path / "masks.npz", like={"w": jnp.ones(shape)}), mask)


def test_a_tree_of_one_array_comes_back(tmp_path):
    mask = jnp.array([True, False])
    masks.save_masks(tmp_path / "one.npz", mask)
    assert_equal(masks.load_masks(tmp_path / "one.npz", like=jnp.ones(2)), mask)
    masks.save_masks(tmp_path / "two.npz", {"a": mask, "b": ~mask})
    assert_equal(masks.load_masks(tmp_path / "two.npz", like=jnp.ones(2)), {"a": mask, "b": ~mask})


def test_a_file_takes_a_bit_a_weight(tmp_path):
    masks.save_masks(tmp_path / "masks.npz", {"w": jnp.ones((1000, 800), bool)})
    assert os.path.getsize(tmp_path / "masks.npz") < 102_000


def test_saving_a_sample_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'add/w' has dtype float32, expected bool"):
        masks.save_masks(tmp_path / "masks.npz", {"add": {"w": jnp.ones(3)}})
    assert os.listdir(tmp_path) == []


def load_into(tmp_path, saved, params):
    masks.save_masks(tmp_path / "masks.npz", saved)
    return masks.load_masks(tmp_path / "masks.npz", like=params)


def test_the_file_of_another_tree_names_the_first_path_that_differs(tmp_path):
    params, mask = model()
    other = {"dense": mask["dense"], "head": mask["out"]}
    with pytest.raises(ValueError, match="'head/kernel' is not in params"):
        load_into(tmp_path, other, params)
    with pytest.raises(ValueError, match="mask 'mul', leaf 'head/kernel' is not in params"):
        load_into(tmp_path, {"add": mask, "mul": other}, params)
    with pytest.raises(ValueError, match="'encoder/w' is not in params"):
        load_into(tmp_path, {"encoder": {"w": jnp.ones(3, bool)}}, params)


def test_a_file_of_other_shapes_names_the_leaf(tmp_path):
    params, mask = model()
    wider = {"dense": mask["dense"], "out": {"kernel": jnp.ones((5, 3), bool)}}
    with pytest.raises(ValueError, match=r"'out/kernel' has shape \(5, 3\), params have \(5, 2\)"):
        load_into(tmp_path, wider, params)
    with pytest.raises(ValueError, match=r"mask 'add', leaf 'out/kernel' has shape \(5, 3\)"):
        load_into(tmp_path, {"add": wider}, params)
    with pytest.raises(ValueError, match=r"'out/kernel' has shape \(2,\), params have \(5, 2\)"):
        load_into(tmp_path, {"dense": mask["dense"], "out": {"kernel": jnp.ones(2, bool)}}, params)


def test_another_npz_is_no_masks_file(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros(3))
    with pytest.raises(ValueError, match=r"mnist\.npz is no masks file"):
        masks.load_masks(tmp_path / "mnist.npz", like={"w": jnp.ones(3)})


def test_no_pickle_is_loaded(tmp_path):
    np.savez(tmp_path / "masks.npz", manifest=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        masks.load_masks(tmp_path / "masks.npz", like={"w": jnp.ones(3)})


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    params, mask = model()
    masks.save_masks(tmp_path / "masks.npz", mask)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit raises instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError):
            masks.save_masks(tmp_path / "masks.npz", {"w": jnp.ones((1000, 800), bool)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == ["masks.npz"]
    assert_equal(masks.load_masks(tmp_path / "masks.npz", like=params), mask)
