"""The feed-forward network against NumPy, its initialisation, and the sizes of the paper's networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod import trees
from jaxmod.models import FNN, is_outer, layer_labels


def init(model, key, inputs):
    """Returns params from one compiled program, which is quicker than operation by operation."""
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, inputs)))["params"])(key)


def init_shapes(model, inputs):
    """Returns the shapes of the params, without making any."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, inputs)))["params"]


def masked_scalars(model, inputs):
    """Returns how many weights the default `where` selects."""
    shapes = init_shapes(model, inputs)
    # `select` wants arrays; one value stands for each leaf.
    chosen = trees.select(jax.tree.map(lambda x: np.zeros((1,) * x.ndim, x.dtype), shapes))
    return sum(math.prod(x.shape) for x, c in zip(*map(jax.tree.leaves, (shapes, chosen)), strict=True) if c)


@pytest.mark.parametrize(
    ("hidden", "inputs", "outputs", "count"),
    [
        ((400, 400, 200), 42, 20, 260_800),
        ((800,) * 4, 42, 20, 1_969_600),
        ((2000,) * 4, 42, 20, 12_124_000),
        ((4000,) * 4, 42, 20, 48_248_000),
        ((2000,) * 4, 80, 40, 12_240_000),
        ((800,) * 4, 80, 40, 2_016_000),
    ],
)
def test_masked_scalars_of_the_paper(hidden, inputs, outputs, count):
    assert masked_scalars(FNN(hidden, outputs), inputs) == count


def test_forward_is_numpy(key):
    model = FNN((7, 5), outputs=3)
    x = np.random.RandomState(0).randn(4, 6).astype(np.float32)
    params = init(model, key, 6)
    h = x
    for name in ("layer_1", "layer_2"):
        h = np.maximum(h @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]), 0)
    expected = h @ np.asarray(params["output"]["kernel"]) + np.asarray(params["output"]["bias"])
    assert (expected < 0).any()  # no nonlinearity at the end
    np.testing.assert_allclose(
        model.apply({"params": params}, jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6
    )


def test_no_hidden_layer_is_a_linear_map():
    params = init_shapes(FNN((), outputs=3), 6)
    assert [path for path, _ in trees.paths_and_leaves(params)] == ["output/bias", "output/kernel"]


def test_init_is_uniform_within_the_bound(key):
    params = init(FNN((300, 200), outputs=100), key, 50)
    for name, fan_in in (("layer_1", 50), ("layer_2", 300), ("output", 200)):
        bound = 1 / math.sqrt(fan_in)
        for leaf in params[name].values():
            values = np.asarray(leaf).ravel()
            assert values.dtype == np.float32
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.9 * bound
            # Means and variances of n uniform numbers, within five standard errors.
            n = values.size
            assert abs(values.mean()) < 5 * bound / math.sqrt(3 * n)
            assert abs(values.var() / (bound**2 / 3) - 1) < 5 * math.sqrt(0.8 / n)
    assert not np.array_equal(params["layer_2"]["kernel"][0, :100], params["output"]["kernel"][0])


def test_default_where_selects_the_kernels():
    shapes = init_shapes(FNN((4, 3), outputs=2), 5)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    chosen = {path for path, picked in trees.paths_and_leaves(trees.select(params)) if picked}
    assert chosen == {"layer_1/kernel", "layer_2/kernel", "output/kernel"}


def test_runs_are_vmapped(key):
    model = FNN((4,), outputs=2)
    keys = jax.random.split(key, 3)
    together = jax.vmap(lambda key: init(model, key, 5))(keys)
    alone = init(model, keys[1], 5)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a[1], b)


def test_labels_follow_the_data():
    params = init_shapes(FNN((2,) * 11, outputs=2), 3)
    names = [*(f"layer {i}" for i in range(1, 12)), "output"]
    assert list(layer_labels(params).values()) == names
    assert [name for name in names if is_outer(name)] == ["layer 1", "output"]
    assert list(layer_labels(params)) == [f"{name.replace(' ', '_')}/kernel" for name in names]


def test_labels_of_masks_and_of_nested_params():
    params = init_shapes(FNN((4,), outputs=2), 3)
    nested = {"params/layer_1/kernel": "layer 1", "params/output/kernel": "output"}
    assert layer_labels({"params": params}) == nested
    mask = jax.tree.map(lambda w: np.ones(w.shape, bool) if w.ndim == 2 else None, params)
    assert layer_labels(mask) == layer_labels(params)
