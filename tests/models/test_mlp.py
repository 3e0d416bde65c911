"""The perceptron against NumPy, its initialisation, and where and how it drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.models import MLP, layer_labels


def init(model, key, inputs):
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, inputs)))["params"])(key)


def numpy_forward(params, x, kept=None):
    """`kept`: for the inputs and each hidden layer what multiplies the values."""
    names = [*sorted(name for name in params if name != "output"), "output"]
    kept = kept or [1.0] * len(names)
    for name, scale in zip(names, kept, strict=True):
        x = x * scale @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])[None]
        x = x if name == "output" else np.maximum(x, 0)
    return x


def test_forward_is_numpy(key):
    model = MLP((7, 5), outputs=3, dropout=0.5)
    params = init(model, key, 6)
    x = np.random.RandomState(0).randn(4, 6).astype(np.float32)
    expected = numpy_forward(params, x)
    assert (expected < 0).any()
    np.testing.assert_allclose(model.apply({"params": params}, jnp.asarray(x)), expected, atol=1e-5)


def test_the_network_of_the_paper(key):
    params = init(MLP(), key, 784)
    shapes = {name: layer["kernel"].shape for name, layer in params.items()}
    hidden = {f"layer_{i}": (256, 256) for i in (2, 3, 4)}
    assert shapes == {"layer_1": (784, 256), **hidden, "output": (256, 10)}
    for name, (rows, columns) in shapes.items():
        bound, kernel = np.sqrt(6 / (rows + columns)), np.asarray(params[name]["kernel"])
        assert 0.99 * bound < np.abs(kernel).max() <= bound
        assert abs(kernel.mean()) < 5 * bound / np.sqrt(3 * kernel.size)
        assert abs(kernel.var() / (bound**2 / 3) - 1) < 5 * np.sqrt(0.8 / kernel.size)
        assert not np.asarray(params[name]["bias"]).any()
    assert list(layer_labels(params).values()) == [*(f"layer {i}" for i in range(1, 5)), "output"]


def identity(model, size=400):
    """Params that pass positive inputs through every layer."""
    names = [f"layer_{i}" for i in range(1, len(model.hidden) + 1)] + ["output"]
    return {"params": {name: {"kernel": jnp.eye(size), "bias": jnp.zeros(size)} for name in names}}


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.0])
def test_hidden_layers_are_dropped_and_inputs_are_not(key, rate):
    size = 400
    model = MLP((size, size), outputs=size, dropout=rate)
    out = model.apply(identity(model), jnp.ones((50, size)), train=True, rngs={"dropout": key})
    # Independent layers: all values that are left are scaled once for each.
    passed = (1 - rate) ** 2
    values = np.asarray(out)
    np.testing.assert_allclose(values[values != 0], 1 / passed, rtol=1e-5)
    spread = np.sqrt(passed * (1 - passed) / values.size)
    assert abs((values != 0).mean() - passed) <= 5 * spread
    still = model.apply(identity(model), jnp.ones((2, size)))
    np.testing.assert_array_equal(still, 1.0)


def test_layers_and_keys_drop_differently(key):
    size = 400
    model = MLP((size, size), outputs=size, dropout=0.5)

    def dropped(key):
        return model.apply(identity(model), jnp.ones((1, size)), train=True, rngs={"dropout": key})

    first, second = dropped(key), dropped(jax.random.fold_in(key, 1))
    assert 0.15 < np.mean(np.asarray(first) != 0) < 0.35  # a quarter: the layers do not agree
    assert (np.asarray(first) != np.asarray(second)).any()


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_impossible_rates_are_refused(key, rate):
    with pytest.raises(ValueError, match="MLP: dropout must be at least 0 and below 1"):
        jax.eval_shape(MLP(dropout=rate).init, key, jnp.zeros((1, 4)))
