"""From params to a graph: the order of the layers, convolutions, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.models.fnn import FNN
from jaxmod.structure import adjacency, graph, weight_layers
from tests.structure.graphs import dense_adjacency, random_layers


def numbered(names, sizes):
    """Returns params with a layer of each name; the weights of layer i are all -(i + 1)."""
    shapes = zip(names, itertools.pairwise(sizes), strict=True)
    return {
        name: {"kernel": jnp.full(shape, -(i + 1.0)), "bias": jnp.full(shape[1], 9.0)}
        for i, (name, shape) in enumerate(shapes)
    }


def test_layers_come_in_the_order_of_their_numbers():
    names = [*(f"layer_{i}" for i in range(1, 12)), "output"]
    layers = weight_layers({"params": numbered(names, [3] * 12 + [2])})
    assert [w[0, 0] for w in layers] == list(range(1, 13))
    assert all(w.dtype == np.float32 for w in layers)


def test_a_linen_model(key):
    params = FNN((4, 5), outputs=2).init(key, jnp.zeros((1, 3)))
    assert [w.shape for w in weight_layers(params)] == [(3, 4), (4, 5), (5, 2)]


def test_half_precision_and_numpy():
    params = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16), numbered(["a_0", "a_1"], [3, 2, 2]))
    assert [w[0, 0] for w in weight_layers(params)] == [1, 2]


def test_named_layers_of_any_tree():
    tree = {"out": jnp.ones((2, 1)), "inner": [jnp.full((3, 2), -2.0)], "other": jnp.ones(5)}
    first, second = weight_layers(tree, ["inner/0", "out"])
    np.testing.assert_array_equal(first, np.full((3, 2), 2))
    assert second.shape == (2, 1)


def test_convolutions_weigh_the_norm_of_a_slice(key):
    kernels = [
        jax.random.normal(jax.random.fold_in(key, i), (3, 3, *io)) for i, io in enumerate([(3, 4), (4, 5)])
    ]
    params = {f"conv_{i}": {"kernel": w} for i, w in enumerate(kernels)}
    params["output"] = {"kernel": jnp.ones((80, 10))}
    (w,) = weight_layers(params, convolutions=True)
    np.testing.assert_allclose(w[1, 2], np.abs(kernels[1][:, :, 1, 2]).sum(), rtol=1e-6)
    assert [x.shape for x in weight_layers(params, ["conv_0/kernel", "conv_1/kernel"])] == [(3, 4), (4, 5)]
    with pytest.raises(ValueError, match=r"'conv_0/kernel' of shape .* convolutions=True"):
        weight_layers(params)
    with pytest.raises(ValueError, match="no second convolution"):
        weight_layers({"conv_0": params["conv_0"]}, convolutions=True)


def test_layers_that_do_not_chain_are_named():
    params = numbered(["layer_1", "layer_2"], [3, 4, 2])
    params["layer_2"]["kernel"] = jnp.ones((5, 2))
    with pytest.raises(
        ValueError, match="'layer_2/kernel' takes 5 inputs, but layer 'layer_1/kernel' .* 4 outputs"
    ):
        weight_layers(params)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(bad):
    params = numbered(["layer_1", "output"], [3, 4, 2])
    params["output"]["kernel"] = params["output"]["kernel"].at[1, 1].set(bad)
    with pytest.raises(ValueError, match="'output/kernel' has 1 weights that are NaN or infinite"):
        weight_layers(params)


def test_what_a_device_takes_for_zero_is_zero_at_any_scale():
    tiny = np.finfo(np.float32).tiny
    weights = [np.array([[1.0, tiny / 4], [tiny, 0.5]]), np.array([[tiny / 2], [0.9]])]
    (first, second) = graph.check_weights(weights)
    np.testing.assert_array_equal(first, np.array([[1, 0], [tiny, 0.5]], np.float32))
    np.testing.assert_array_equal(second, np.array([[0], [0.9]], np.float32))
    small = [np.array([[1e-40, 0.0]], np.float32)]  # all as small: nothing is lost
    np.testing.assert_array_equal(graph.check_weights(small)[0], small[0])
    np.testing.assert_array_equal(graph.check_weights([np.array([[1e30, 1e-9]])])[0], [[np.float32(1e30), 0]])


@pytest.mark.parametrize("largest", [1e-45, 1e-20, 0.3, 0.5, 0.99, 1.0, 1.99, 2.0, 3.4e38, 0.0])
def test_the_scale_is_an_even_power_that_brings_the_largest_weight_near_one(largest):
    w = np.array([[0.0, largest]], np.float32)
    exponent = graph.unit_exponent([w, np.zeros((2, 1), np.float32)])
    assert exponent % 2 == 0 and (exponent == 0) == (largest == 0 or 0.5 <= largest < 2)
    assert largest == 0 or 0.5 <= np.ldexp(w, exponent).max() < 2


def test_an_order_that_cannot_be_told():
    params = numbered(["encoder", "output"], [3, 3, 3])
    with pytest.raises(ValueError, match=r"'encoder/kernel' and 'output/kernel' .* layers="):
        weight_layers(params)


def test_what_is_not_there():
    params = numbered(["layer_1"], [3, 4])
    with pytest.raises(ValueError, match="'layer_2/kernel' is no leaf"):
        weight_layers(params, ["layer_2/kernel"])
    with pytest.raises(ValueError, match=r"'layer_1/bias' has weights of shape \(4,\)"):
        weight_layers(params, ["layer_1/bias"])
    with pytest.raises(ValueError, match="no dense layer"):
        weight_layers({"w": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match="at least one layer"):
        weight_layers(params, [])
    with pytest.raises(ValueError, match="expected an array"):
        weight_layers({"layer": {"kernel": "x"}})


def test_degrees_and_adjacency_against_loops():
    weights = random_layers([7, 5, 4, 3], keep=0.3)
    weights[0][2] = 0
    weights[1][:, 1] = weights[2][1] = 0
    full = dense_adjacency(weights)
    matrix, inside = adjacency(weights)
    np.testing.assert_array_equal(inside, full.sum(axis=0) > 0)
    assert not inside[2] and not inside[7 + 5 + 1]
    np.testing.assert_array_equal(matrix.toarray(), full[inside][:, inside])
    np.testing.assert_allclose(np.concatenate(graph.degrees(weights)), full.sum(axis=0))
