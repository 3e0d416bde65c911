"""The simple CNN against loops in NumPy and SciPy, its size and initialisation, dropout, learning, masks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.signal import correlate2d

import jaxmod as jm
from jaxmod.models import layer_labels
from jaxmod.models.cnn import SimpleCNN
from tests.helpers import assert_trees_equal

TINY = functools.partial(SimpleCNN, outputs=3, channels=(4, 5, 6))


def shapes_of(model, shape=(8, 8, 3)):
    """Returns the shapes of the params, without making any."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]


def random_params(model, shape=(8, 8, 3)):
    """Returns params that are all different, biases included, in no time."""
    random = np.random.RandomState(0)
    return jax.tree.map(lambda x: jnp.asarray(random.randn(*x.shape) / 3, x.dtype), shapes_of(model, shape))


def images(count=6, shape=(8, 8, 3)):
    return jnp.asarray(np.random.RandomState(0).randn(count, *shape), jnp.float32)


def scipy_forward(params, x):
    """Returns the outputs without dropout, by loops over examples and channels."""
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    convolutions = sorted(name for name in p if name != "output")
    answers = []
    for image in np.asarray(x, np.float64):
        for i, name in enumerate(convolutions):
            kernel = p[name]["kernel"]
            maps = [
                sum(
                    correlate2d(image[:, :, c], kernel[:, :, c, f], mode="same")
                    for c in range(image.shape[2])
                )
                for f in range(kernel.shape[3])
            ]
            image = np.maximum(np.stack(maps, axis=2) + p[name]["bias"], 0)
            if i < len(convolutions) - 1:
                h, w = image.shape[0] // 2, image.shape[1] // 2
                squares = [[image[2 * r : 2 * r + 2, 2 * c : 2 * c + 2] for c in range(w)] for r in range(h)]
                image = np.array([[s.max(axis=(0, 1)) for s in row] for row in squares])
        answers.append(image.mean(axis=(0, 1)) @ p["output"]["kernel"] + p["output"]["bias"])
    return np.array(answers)


def test_size_of_the_paper():
    sizes = jax.tree.map(lambda x: math.prod(x.shape), shapes_of(SimpleCNN(outputs=10), (32, 32, 3)))
    # Weights and biases, which are all masked.
    assert sum(jax.tree.leaves(sizes)) == 390_986
    assert {name: tuple(layer.values()) for name, layer in sizes.items()} == {
        "conv_1": (32, 864),
        "conv_2": (64, 18_432),
        "conv_3": (128, 73_728),
        "conv_4": (256, 294_912),
        "output": (10, 2560),
    }


# Odd sides lose a row or column at each halving.
@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 11, 1)])
def test_forward_is_scipy(shape):
    model, x = TINY(), images(3, shape)
    params = random_params(model, shape)
    ours = jax.jit(model.apply)({"params": params}, x)
    assert ours.shape == (3, 3)
    np.testing.assert_allclose(ours, scipy_forward(params, x), rtol=1e-4, atol=1e-5)


def test_methods_agree():
    params, x = random_params(TINY()), images()
    by_method = [jax.jit(TINY(method=m).apply)({"params": params}, x) for m in ("im2col", "lax")]
    np.testing.assert_allclose(*by_method, rtol=1e-4, atol=1e-5)


def test_init_is_uniform_within_the_bound():
    model = SimpleCNN(outputs=10, channels=(16, 32))
    params = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)))["params"])(jax.random.key(1))
    for name, fan_in in (("conv_1", 27), ("conv_2", 144), ("output", 32)):
        bound = 1 / math.sqrt(fan_in)
        for leaf in params[name].values():
            values = np.asarray(leaf).ravel()
            assert values.dtype == np.float32
            assert 0.5 * bound < np.abs(values).max() <= bound
        values = np.asarray(params[name]["kernel"]).ravel()
        # The mean and variance of n uniform numbers, within five standard errors.
        assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)
        assert abs(values.var() / (bound**2 / 3) - 1) < 5 * math.sqrt(0.8 / values.size)


def test_dropout_only_in_training(key):
    params, x = random_params(TINY()), images()
    never = functools.partial(TINY(dropout=False).apply, train=True)
    without = jax.jit(never)({"params": params}, x)
    np.testing.assert_array_equal(jax.jit(TINY().apply)({"params": params}, x), without)
    apply = jax.jit(lambda key: TINY().apply({"params": params}, x, train=True, rngs={"dropout": key}))
    first, again, other = (apply(k) for k in (key, key, jax.random.key(1)))
    np.testing.assert_array_equal(first, again)
    assert np.all(np.any(first != other, axis=1))
    assert np.all(np.any(first != without, axis=1))


def test_dropout_rates_and_places(key):
    model = SimpleCNN(outputs=2, channels=(8, 8, 16, 16))
    variables, x = {"params": random_params(model, (16, 16, 3))}, images(32, (16, 16, 3))
    run = functools.partial(model.apply, train=True, rngs={"dropout": key}, capture_intermediates=True)
    _, state = jax.jit(run)(variables, x)
    dropped = {
        name: np.mean(np.asarray(values["__call__"][0]) == 0)
        for name, values in state["intermediates"].items()
        if name.startswith("Dropout")
    }
    shapes = {n: v["__call__"][0].shape for n, v in state["intermediates"].items() if n in dropped}
    assert shapes == {"Dropout_0": (32, 4, 4, 16), "Dropout_1": (32, 2, 2, 16)}
    assert dropped["Dropout_0"] == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 8192))
    assert dropped["Dropout_1"] == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 2048))


def test_every_weight_gets_a_gradient(key):
    model, x = TINY(), images(32)

    def loss(params):
        return jnp.sum(jnp.square(model.apply({"params": params}, x, train=True, rngs={"dropout": key})))

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(random_params(model))):
        assert np.all(np.isfinite(leaf)) and np.mean(leaf != 0) > 0.5


def test_overfits_a_few_images():
    model, x, y = TINY(), images(12), jnp.arange(12) % 3
    tx = optax.adam(1e-2)

    def loss(params, key):
        logits = model.apply({"params": params}, x, train=True, rngs={"dropout": key})
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(2), 400)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

    params = train(random_params(model))
    np.testing.assert_array_equal(jnp.argmax(model.apply({"params": params}, x), axis=1), y)


def test_modules_are_found_in_it(key):
    model = TINY()
    params = random_params(model)
    before = jax.tree.map(np.asarray, params)

    def loss_fn(params, batch, key):
        del key
        logits = model.apply({"params": params}, batch["x"])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]))

    found = jm.find_modules(
        loss_fn,
        params,
        {"all": {"x": np.asarray(images(16)), "y": np.arange(16, dtype=np.int32) % 3}},
        keys=key,
        config=jm.MaskConfig(steps=2, batch_size=8, num_samples=2),
        where=".*",
    )
    logits = found["all"].logits
    assert jax.tree.map(jnp.shape, logits) == jax.tree.map(jnp.shape, params)
    assert all(np.mean(np.asarray(leaf) != 2.0) > 0.9 for leaf in jax.tree.leaves(logits))
    assert_trees_equal(params, before)


def test_labels_follow_the_data():
    labels = layer_labels(shapes_of(TINY()))
    assert labels == {
        "conv_1/kernel": "conv 1",
        "conv_2/kernel": "conv 2",
        "conv_3/kernel": "conv 3",
        "output/kernel": "output",
    }
    assert list(labels.values()) == ["conv 1", "conv 2", "conv 3", "output"]


def test_too_small_images_are_refused(key):
    with pytest.raises(ValueError, match=r"SimpleCNN got inputs of shape \(6, 3, 8, 3\)"):
        TINY().init(key, jnp.zeros((6, 3, 8, 3)))
