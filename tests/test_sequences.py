"""Loss and accuracy of padded sequences against plain Python."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.sequences import append_end, end_from_first_end, sequence_cross_entropy, sequence_right

END = 5
LENGTHS = [4, 0, 2]


@pytest.fixture
def example():
    """Returns outputs, targets with rubbish in the padding, lengths."""
    random = np.random.RandomState(0)
    outputs = jnp.asarray(3 * random.randn(3, 5, END + 1), jnp.float32)
    target = random.randint(0, END, (3, 4))
    target[1], target[2, 2:] = -7, 99
    return outputs, jnp.asarray(target, jnp.int8), jnp.array(LENGTHS)


def references(target):
    """Returns the tokens of each sequence and its end, as lists."""
    return [[*row[:n].tolist(), END] for row, n in zip(np.asarray(target), LENGTHS, strict=True)]


def test_cross_entropy_is_that_of_a_loop(example):
    outputs, target, length = example
    ours = sequence_cross_entropy(outputs, target, length)
    assert ours.shape == (3,)
    for n, reference in enumerate(references(target)):
        total = 0.0
        for step, token in enumerate(reference):
            row = [float(v) for v in outputs[n, step]]
            total += math.log(sum(map(math.exp, row))) - row[token]
        assert math.isclose(ours[n], total, rel_tol=1e-5)


def test_cross_entropy_has_no_gradient_beyond_the_end(example):
    outputs, target, length = example
    slopes = jax.grad(lambda x: jnp.sum(sequence_cross_entropy(x, target, length)))(outputs)
    inside = np.arange(5)[None] <= np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(np.abs(slopes).max(axis=2) > 0, inside)
    labels = jax.nn.one_hot(append_end(target, length, END), END + 1)
    expected = (jax.nn.softmax(outputs) - labels) * inside[:, :, None]
    np.testing.assert_allclose(slopes, expected, atol=1e-6)


def test_outputs_beyond_the_end_may_be_nan(example):
    outputs, target, length = example
    beyond = (np.arange(5)[None] > np.array(LENGTHS)[:, None])[:, :, None]
    broken = jnp.where(beyond, jnp.nan, outputs)
    expected = sequence_cross_entropy(outputs, target, length)
    np.testing.assert_array_equal(sequence_cross_entropy(broken, target, length), expected)


def test_half_precision_is_computed_in_float32(example):
    outputs, target, length = example
    rounded = outputs.astype(jnp.bfloat16)
    loss = sequence_cross_entropy(rounded, target, length)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, sequence_cross_entropy(rounded.astype(jnp.float32), target, length))


def test_right_is_that_of_a_loop(key):
    target = jax.random.randint(key, (400, 3), 0, 2)
    length = jax.random.randint(jax.random.fold_in(key, 1), (400,), 0, 4)
    predicted = jax.random.randint(jax.random.fold_in(key, 2), (400, 4), 0, 3)
    ours = sequence_right(predicted, target, length, end=2)
    for n in range(400):
        tokens = predicted[n].tolist()
        # The authors' way: the length is the number of tokens before the first end.
        size = tokens.index(2) if 2 in tokens else len(tokens)
        assert bool(ours[n]) == (tokens[:size] == target[n, : length[n]].tolist())
    assert 10 < ours.sum() < 390


def test_padding_changes_nothing(example):
    outputs, target, length = example
    other = jnp.where(jnp.arange(4)[None] < length[:, None], target, 3)
    predicted = jnp.argmax(outputs, axis=-1)
    for padded in (target, other):
        assert append_end(padded, length, END).tolist() == [
            row + [END] * (5 - len(row)) for row in references(target)
        ]
    for f in (
        lambda t: sequence_cross_entropy(outputs, t, length),
        lambda t: sequence_right(predicted, t, length, END),
    ):
        np.testing.assert_array_equal(f(target), f(other))


def test_more_leading_axes_are_vmap(example):
    outputs, target, length = example
    for f in (sequence_cross_entropy, lambda x, *rest: sequence_right(jnp.argmax(x, -1), *rest, END)):
        expected = f(outputs, target, length)
        stacked = f(outputs[None], target[None], length[None])
        np.testing.assert_allclose(stacked[0], expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(jax.vmap(f))(outputs, target, length), expected, rtol=1e-6)


def test_tokens_after_the_first_end():
    tokens = jnp.array([[1, 2, 3], [END, 1, 2], [1, END, 2], [1, 2, END]])
    expected = [[1, 2, 3], [END, END, END], [1, END, END], [1, 2, END]]
    assert end_from_first_end(tokens, END).tolist() == expected


def unchecked(f):
    return getattr(f, "__wrapped__", f)


def test_shapes_that_do_not_match_are_refused():
    tokens, length = jnp.zeros((2, 3), jnp.int32), jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="one length for each sequence"):
        unchecked(append_end)(tokens, jnp.zeros(3, jnp.int32), END)
    with pytest.raises(ValueError, match="the end token is predicted too"):
        unchecked(sequence_cross_entropy)(jnp.zeros((2, 3, 6)), tokens, length)
    with pytest.raises(ValueError, match="the end token is predicted too"):
        unchecked(sequence_right)(tokens, tokens, length, END)
