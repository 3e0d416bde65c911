"""Small things the tests share: a network of two layers and two tasks it can learn."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex


def tiny_params(key, inputs=6, hidden=16, outputs=4):
    """Returns the params of a two-layer network."""
    first, second = jax.random.split(key)
    return {
        "layer_1": {
            "kernel": jax.random.normal(first, (inputs, hidden)) / inputs**0.5,
            "bias": jnp.zeros(hidden),
        },
        "output": {
            "kernel": jax.random.normal(second, (hidden, outputs)) / hidden**0.5,
            "bias": jnp.zeros(outputs),
        },
    }


def tiny_predict(params, x):
    """Returns `[batch, outputs]`."""
    hidden = jax.nn.relu(x @ params["layer_1"]["kernel"] + params["layer_1"]["bias"][None])
    return hidden @ params["output"]["kernel"] + params["output"]["bias"][None]


def tiny_loss(params, batch, key):
    """Returns the mean cross-entropy."""
    del key
    log_p = jax.nn.log_softmax(tiny_predict(params, batch["x"]))
    return -jnp.mean(jnp.take_along_axis(log_p, batch["y"][:, None], axis=1))


def tiny_evaluate(params, batch):
    """Returns whether each example is right."""
    return {"accuracy": jnp.argmax(tiny_predict(params, batch["x"]), axis=1) == batch["y"]}


def tiny_data(seed=0, count=200, inputs=6, classes=4):
    """Returns examples whose class is the largest of the first inputs."""
    x = np.random.RandomState(seed).randn(count, inputs).astype(np.float32)
    return {"x": x, "y": x[:, :classes].argmax(1).astype(np.int32)}


def two_tasks():
    """Returns two tasks of different length: the class, and the class counted backwards."""
    first, second = tiny_data(0, 200), tiny_data(1, 150)
    return {"forward": first, "backward": {"x": second["x"], "y": 3 - second["y"]}}


def assert_trees_equal(a, b):
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_trees_close(a, b, **tolerance):
    """To rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)


def equations(jaxpr):
    """Yields the equations of a jaxpr and of all that it holds."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jex.jaxprs_in_params(eqn.params):
            yield from equations(inner)
