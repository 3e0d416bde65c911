"""Cross-entropy and accuracy of several digits against plain Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.losses import all_digits_right, digit_cross_entropy


@pytest.fixture
def example():
    random = np.random.RandomState(0)
    outputs = jnp.asarray(3 * random.randn(6, 2, 10), jnp.float32)
    return outputs, jnp.asarray(random.randint(0, 10, (6, 2)), jnp.uint8)


def test_cross_entropy_is_that_of_a_loop(example):
    outputs, labels = example
    ours = digit_cross_entropy(outputs, labels)
    assert ours.shape == (6,)
    for n in range(6):
        terms = []
        for digit in range(2):
            row = [float(v) for v in outputs[n, digit]]
            terms.append(math.log(sum(map(math.exp, row))) - row[int(labels[n, digit])])
        assert math.isclose(ours[n], sum(terms) / 2, rel_tol=1e-5)


def test_gradient_is_softmax_minus_one_hot(example):
    outputs, labels = example
    slopes = jax.grad(lambda x: jnp.sum(digit_cross_entropy(x, labels)))(outputs)
    expected = (jax.nn.softmax(outputs) - jax.nn.one_hot(labels, 10)) / 2
    np.testing.assert_allclose(slopes, expected, atol=1e-6)


def test_equal_outputs_cost_the_logarithm_of_the_classes():
    loss = digit_cross_entropy(jnp.zeros((3, 2, 10)), jnp.zeros((3, 2), jnp.int32))
    np.testing.assert_allclose(loss, math.log(10), rtol=1e-6)


def test_large_outputs_stay_finite():
    outputs = 1e4 * jax.nn.one_hot(jnp.array([[3, 7]]), 10)
    np.testing.assert_array_equal(digit_cross_entropy(outputs, jnp.array([[3, 7]])), [0.0])
    np.testing.assert_array_equal(digit_cross_entropy(outputs, jnp.array([[3, 8]])), [5e3])


def test_half_precision_is_computed_in_float32(example):
    outputs, labels = example
    rounded = outputs.astype(jnp.bfloat16)
    loss = digit_cross_entropy(rounded, labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, digit_cross_entropy(rounded.astype(jnp.float32), labels))


def test_more_leading_axes_are_a_reshape_and_vmap(example):
    outputs, labels = example
    stacked = outputs.reshape(2, 3, 2, 10), labels.reshape(2, 3, 2)
    for f in (digit_cross_entropy, all_digits_right):
        expected = f(outputs, labels).reshape(2, 3)
        np.testing.assert_allclose(f(*stacked), expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(jax.vmap(f))(*stacked), expected, rtol=1e-6)


def test_right_means_every_digit():
    labels = jnp.array([[1, 2], [1, 2], [1, 2], [1, 2]], jnp.uint8)
    answers = jnp.array([[1, 2], [1, 3], [0, 2], [2, 1]])
    right = all_digits_right(jax.nn.one_hot(answers, 10), labels)
    assert right.dtype == bool
    assert right.tolist() == [True, False, False, False]


@pytest.mark.parametrize("f", [digit_cross_entropy, all_digits_right])
@pytest.mark.parametrize(("outputs", "labels"), [((4, 20), (4, 2)), ((4, 2, 10), (4,)), ((4, 2, 10), (3, 2))])
def test_shapes_that_do_not_match_are_refused(f, outputs, labels):
    unchecked = getattr(f, "__wrapped__", f)
    with pytest.raises(ValueError, match="reshape the model's outputs"):
        unchecked(jnp.zeros(outputs), jnp.zeros(labels, jnp.int32))
