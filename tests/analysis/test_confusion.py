import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from jaxmod.analysis.confusion import (
    class_confusion,
    largest_other_drop,
    operation_confusion,
    relative_drop,
)


def brute_force(predicted, candidates, requested):
    ops = candidates.shape[1]
    counts = np.zeros((ops, ops + 1))
    for answer, results, op in zip(predicted, candidates, requested, strict=True):
        matches = [j for j in range(ops) if list(answer) == list(results[j])]
        for j in matches or [ops]:
            counts[op, j] += 1
    return np.array([100 * row / row.sum() if row.sum() else row for row in counts])


def random_answers(seed, batch=200, ops=2, digits=2):
    """Returns answers in a number system of 3 digits, so that results coincide now and then."""
    rng = np.random.default_rng(seed)
    candidates = rng.integers(0, 3, (batch, ops, digits))
    own = candidates[np.arange(batch), rng.integers(0, ops, batch)]
    predicted = np.where(rng.random((batch, 1)) < 0.7, own, rng.integers(0, 3, (batch, digits)))
    requested = rng.integers(0, ops, batch)
    return tuple(jnp.asarray(x, jnp.int32) for x in (predicted, candidates, requested))


@pytest.mark.parametrize("ops", [2, 3])
def test_it_agrees_with_a_loop_over_examples(ops):
    answers = random_answers(0, ops=ops)
    got = operation_confusion(*answers)
    np.testing.assert_allclose(got, brute_force(*map(np.asarray, answers)), rtol=1e-6)
    np.testing.assert_allclose(got.sum(1), 100, rtol=1e-6)


def test_hand_made_answers():
    # 12 + 3 = 15 and 12 * 3 = 36; the mask performs +, whatever it is asked for.
    candidates = jnp.array([[[5, 1], [6, 3]]] * 4)
    predicted = jnp.array([[5, 1], [5, 1], [5, 1], [5, 9]])
    requested = jnp.array([0, 1, 1, 1])
    got = operation_confusion(predicted, candidates, requested)
    np.testing.assert_allclose(got, [[100, 0, 0], [200 / 3, 0, 100 / 3]], rtol=1e-6)


def test_a_coinciding_result_counts_in_both_columns():
    candidates = jnp.array([[[4, 0], [4, 0]], [[1, 0], [2, 0]], [[1, 0], [2, 0]]])
    got = operation_confusion(jnp.array([[4, 0], [1, 0], [1, 0]]), candidates, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(got, [[75, 25, 0], [0, 0, 0]])


def test_runs_and_jit_give_what_a_loop_gives():
    runs = [random_answers(seed) for seed in range(3)]
    got = jax.jit(jax.vmap(operation_confusion))(*(jnp.stack(x) for x in zip(*runs, strict=True)))
    np.testing.assert_allclose(got, [operation_confusion(*answers) for answers in runs], rtol=1e-6)


def test_class_confusion_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    predicted = np.where(random.random(300) < 0.6, labels, random.integers(0, 4, 300))
    found = class_confusion(jnp.asarray(predicted), jnp.asarray(labels), 4)
    np.testing.assert_allclose(found, 100 * confusion_matrix(labels, predicted, normalize="true"), rtol=1e-5)
    absent = class_confusion(jnp.asarray(predicted), jnp.asarray(labels), 5)
    np.testing.assert_array_equal(absent[4], 0)


def test_drops_are_relative_to_the_control():
    control = jnp.array([[80.0, 20.0, 0.0], [0.0, 50.0, 50.0], [100.0, 0.0, 0.0]])
    without = jnp.array([[20.0, 80.0, 0.0], [0.0, 45.0, 55.0], [90.0, 0.0, 10.0]])
    drop = relative_drop(without, control)
    np.testing.assert_allclose(drop, [75, 10, np.nan])  # nothing can be said of the third
    np.testing.assert_allclose(largest_other_drop(drop[:2], 0), 100 * 10 / 75, rtol=1e-6)
    np.testing.assert_allclose(largest_other_drop(jnp.array([75.0, -10.0, -5.0]), 0), 0)  # others gain
    for undefined in (jnp.array([0.0, 5.0]), jnp.array([-5.0, 50.0]), drop):
        assert np.isnan(largest_other_drop(undefined, 0))
