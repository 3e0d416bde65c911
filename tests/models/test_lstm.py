"""The LSTM against a NumPy loop, its initialisation, and what depends on what in time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod import trees
from jaxmod.models import LSTMClassifier, layer_labels


def init_shapes(model, steps, inputs):
    """Returns the shapes of the params, without making any."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, steps, inputs)))["params"]


def random_params(model, steps, inputs):
    """Returns params that are all different, biases included, so that no mix-up of gates passes."""
    random = np.random.RandomState(0)
    return jax.tree.map(
        lambda x: jnp.asarray(random.randn(*x.shape) / 2, x.dtype), init_shapes(model, steps, inputs)
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_forward(params, x, layers):
    """Returns the outputs at all steps, by loops over layers, time and examples."""
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    answers = np.zeros((*x.shape[:2], p["output"]["bias"].size))
    for n, sequence in enumerate(x):
        for layer in range(layers):
            w_ih, w_hh = p[f"l{layer}_ih"]["kernel"], p[f"l{layer}_hh"]["kernel"]
            bias = p[f"l{layer}_ih"]["bias"]
            size = w_hh.shape[0]
            h, c, states = np.zeros(size), np.zeros(size), []
            for x_t in sequence:
                z = x_t @ w_ih + h @ w_hh + bias
                i, f, g, o = (z[k * size : (k + 1) * size] for k in range(4))
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                states.append(h)
            sequence = np.array(states)
        answers[n] = sequence @ p["output"]["kernel"] + p["output"]["bias"]
    return answers


@pytest.mark.parametrize(
    ("inputs", "steps", "outputs", "count"), [(42, 3, 20, 834_560), (80, 6, 40, 878_592)]
)
def test_masked_scalars_of_the_paper(inputs, steps, outputs, count):
    model = LSTMClassifier(outputs=outputs)
    shapes = init_shapes(model, steps, inputs)
    chosen = trees.select(jax.tree.map(lambda x: np.zeros((1,) * x.ndim, x.dtype), shapes))
    sizes = jax.tree.map(lambda x, c: math.prod(x.shape) if c else 0, shapes, chosen)
    assert sum(jax.tree.leaves(sizes)) == count
    picked = {path for path, c in trees.paths_and_leaves(chosen) if c}
    assert picked == {f"{name}/kernel" for name in ("l0_ih", "l0_hh", "l1_ih", "l1_hh", "output")}


@pytest.mark.parametrize(("layers", "steps"), [(1, 1), (2, 3), (3, 6)])
def test_forward_is_numpy(layers, steps):
    model = LSTMClassifier(hidden=5, layers=layers, outputs=3)
    x = np.random.RandomState(0).randn(4, steps, 6).astype(np.float32)
    params = random_params(model, steps, 6)
    ours = jax.jit(model.apply)({"params": params}, jnp.asarray(x))
    assert ours.shape == (4, steps, 3)
    np.testing.assert_allclose(ours, numpy_forward(params, x, layers), rtol=1e-4, atol=1e-5)


def test_params_do_not_depend_on_the_number_of_steps():
    model = LSTMClassifier(hidden=4, outputs=2)
    assert init_shapes(model, 1, 3) == init_shapes(model, 6, 3)


def test_a_step_sees_only_the_past_of_its_own_example(key):
    model = LSTMClassifier(hidden=4, outputs=2)
    x = jax.random.normal(key, (3, 5, 6))
    params = random_params(model, 5, 6)
    slopes = jax.jit(jax.grad(lambda x: model.apply({"params": params}, x)[1, 2].sum()))(x)
    seen = np.asarray(jnp.abs(slopes).max(axis=2) > 0)
    expected = np.zeros((3, 5), bool)
    expected[1, :3] = True
    np.testing.assert_array_equal(seen, expected)


@pytest.fixture(scope="module")
def initial():
    """Returns the params of the paper's network, 80 inputs and 40 outputs."""
    model = LSTMClassifier(outputs=40)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 1, 80)))["params"])
    return jax.tree.map(np.asarray, init(jax.random.key(1)))


def test_init_of_input_weights(initial):
    for name, inputs in (("l0_ih", 80), ("l1_ih", 256)):
        kernel = initial[name]["kernel"]
        assert kernel.shape == (inputs, 1024)
        for gate, block in enumerate(np.split(kernel, 4, axis=1)):
            std = math.sqrt(1 / (inputs + 256)) * (5 / 3 if gate == 2 else 1)
            assert abs(block.std() / std - 1) < 5 / math.sqrt(2 * block.size)
            assert abs(block.mean()) < 5 * std / math.sqrt(block.size)
            assert np.abs(block).max() > 3.5 * std  # normal, not uniform nor truncated at two


def test_init_of_state_weights(initial):
    for name in ("l0_hh", "l1_hh"):
        assert list(initial[name]) == ["kernel"]
        blocks = np.split(initial[name]["kernel"], 4, axis=1)
        for block in (blocks[0], blocks[1], blocks[3]):
            assert abs(block.std() * math.sqrt(512) - 1) < 5 / math.sqrt(2 * block.size)
        g = blocks[2].astype(np.float64)
        np.testing.assert_allclose(g @ g.T, (5 / 3) ** 2 / 2 * np.eye(256), atol=1e-5)
    assert not np.allclose(initial["l0_hh"]["kernel"], initial["l1_hh"]["kernel"])


def test_init_of_biases(initial):
    expected = np.repeat([0.0, 1.0, 0.0, 0.0], 256)
    for name in ("l0_ih", "l1_ih"):
        np.testing.assert_array_equal(initial[name]["bias"], expected)


def test_init_of_the_output_layer(initial):
    for leaf in initial["output"].values():
        assert np.abs(leaf).max() <= 1 / 16
    assert np.abs(initial["output"]["kernel"]).max() > 0.99 / 16
    assert initial["output"]["bias"].std() > 0.02


def test_labels_follow_the_data(initial):
    assert layer_labels(initial) == {
        "l0_ih/kernel": "l0 ih",
        "l0_hh/kernel": "l0 hh",
        "l1_ih/kernel": "l1 ih",
        "l1_hh/kernel": "l1 hh",
        "output/kernel": "output",
    }
    assert list(layer_labels(initial).values()) == ["l0 ih", "l0 hh", "l1 ih", "l1 hh", "output"]


def test_inputs_without_steps_are_refused(key):
    with pytest.raises(ValueError, match=r"shape \(2, 0, 6\), expected \[batch, time, features\]"):
        LSTMClassifier(hidden=4, outputs=2).init(key, jnp.zeros((2, 0, 6)))
