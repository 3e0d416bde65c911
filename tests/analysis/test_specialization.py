"""The three measures of specialization, against pairs in a loop, scikit-learn and closed forms."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression

from jaxmod.analysis import specialization as sp


def test_specialization_of_no_measure_is_undefined():
    found = sp.specialization(jnp.array([1.0, 0.5, 0.0, 0.0]), jnp.array([0.0, 0.5, 0.5, 0.0]))
    np.testing.assert_array_equal(found, [1, 0, -1, np.nan])


def test_a_negative_measure_counts_as_none():
    found = sp.specialization(jnp.array([0.1, -0.1, 0.3, -0.2]), jnp.array([-0.0999, 0.3, -0.3, -0.1]))
    np.testing.assert_array_equal(found, [1, -1, 1, np.nan])


def test_mask_shares_of_parts_sum_to_one(key):
    mask = {
        "net_0": {"w": jax.random.bernoulli(key, 0.3, (10, 10)), "b": jnp.array([True, False])},
        "net_1": {"w": jnp.zeros((10, 10), bool)},
        "links": None,
    }
    found = sp.mask_shares(mask, {"0": "net_0/.*", "1": "net_1/.*"})
    assert float(found["0"]) == 1.0 and float(found["1"]) == 0.0
    both = sp.mask_shares(
        mask | {"net_1": {"w": jnp.ones((10, 10), bool)}}, {"0": "net_0/.*", "1": "net_1/.*"}
    )
    kept = int(mask["net_0"]["w"].sum()) + 1
    np.testing.assert_allclose([both["0"], both["1"]], [kept / (kept + 100), 100 / (kept + 100)], rtol=1e-6)


def test_mask_shares_of_nothing_and_of_no_part():
    empty = {"a": jnp.zeros(3, bool), "b": jnp.zeros(2, bool)}
    assert np.isnan(sp.mask_shares(empty, {"a": "a"})["a"])
    with pytest.raises(ValueError, match="'c'"):
        sp.mask_shares(empty, {"c": "c"})


def correlation_in_a_loop(states, labels):
    """Mean over examples of the mean over the others of their class."""
    means = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i and labels[j] == label and np.ptp(states[j]) > 0]
        if np.ptp(states[i]) > 0 and others:
            means.append(np.mean([np.corrcoef(states[i], states[j])[0, 1] for j in others]))
    return np.mean(means) if means else np.nan


def test_correlation_is_that_of_all_pairs():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 40)
    states = np.tanh(random.normal(size=(4, 12))[labels] + random.normal(size=(40, 12))).astype(np.float32)
    states[3], states[7] = 0.25, -1.0  # saturated: nothing to correlate
    found = sp.state_correlation(states, labels, 5)
    np.testing.assert_allclose(found.value, correlation_in_a_loop(states, labels), atol=1e-5)
    assert int(found.skipped) == 2


def test_correlation_without_a_pair_is_undefined():
    states = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert np.isnan(sp.state_correlation(states, np.arange(3), 3).value)
    constant = sp.state_correlation(np.ones((4, 5), np.float32), np.zeros(4, int), 1)
    assert np.isnan(constant.value) and int(constant.skipped) == 4


@pytest.mark.parametrize("seed", range(3))
def test_partners_are_others_of_the_same_class(seed):
    labels = np.array([0] * 7 + [1] * 2 + [2] + [3] * 20)[np.random.default_rng(seed).permutation(30)]
    found = np.asarray(sp.partners(jax.random.key(seed), jnp.asarray(labels)))
    np.testing.assert_array_equal(labels[found], labels)
    assert sorted(found) == list(range(30))
    alone = labels == 2
    np.testing.assert_array_equal(found == np.arange(30), alone)


def test_partners_differ_between_draws():
    labels = jnp.zeros(6, int)
    drawn = np.asarray(jax.vmap(sp.partners, (0, None))(jax.random.split(jax.random.key(0), 4000), labels))
    counts = np.stack([(drawn == i).mean(axis=0) for i in range(6)])
    np.testing.assert_allclose(counts[~np.eye(6, dtype=bool)], 1 / 5, atol=0.03)


def test_cka_is_one_up_to_rotation_and_scale_and_small_for_noise(key):
    x = jax.random.normal(key, (400, 5))
    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (5, 5)))[0]
    np.testing.assert_allclose(sp.linear_cka(x, 3 * x @ rotation + 2.0), 1, rtol=1e-4)
    assert sp.linear_cka(x, jax.random.normal(jax.random.key(2), (400, 5))) < 0.05


def test_cka_is_that_of_gram_matrices(key):
    x, y = (np.asarray(jax.random.normal(k, (30, 4)), float) for k in jax.random.split(key))
    centre = np.eye(30) - 1 / 30
    a, b = (centre @ m @ m.T @ centre for m in (x, y))
    expected = np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
    found = sp.linear_cka(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def _clouds(units=5, classes=3, examples=600):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, examples)
    states = 1.5 * random.normal(size=(classes, units))[labels] + random.normal(size=(examples, units))
    return jnp.asarray(states, jnp.float32), jnp.asarray(labels)


def test_a_readout_is_as_good_as_logistic_regression():
    states, labels = _clouds()
    adam = optax.adam(0.05)
    readout = sp.train_readout(
        jax.random.key(0), states, labels, classes=3, optimizer=adam, steps=600, batch_size=100
    )
    ours = float(sp.readout_accuracy(readout, states, labels))
    theirs = LogisticRegression(C=1e6, max_iter=1000).fit(states, labels).score(states, labels)
    assert abs(ours - theirs) < 0.01


def test_runs_of_readouts_are_those_they_are_alone():
    states, labels = _clouds(examples=90)
    keys = jax.random.split(jax.random.key(1), 3)

    def train(key):
        return sp.train_readout(
            key, states, labels, classes=3, optimizer=sp.readout_optimizer(3), steps=9, batch_size=32
        )

    together = jax.vmap(train)(keys)
    assert np.ptp(together.kernel, axis=0).min() > 0  # each its own start
    for i, key in enumerate(keys):
        np.testing.assert_allclose(together.kernel[i], train(key).kernel, atol=1e-6)


def test_the_papers_rate_falls_by_a_tenth_after_each_epoch():
    tx = sp.readout_optimizer(4)
    state, updates = tx.init(jnp.ones(1)), []
    for _ in range(8):
        # With eps far above the gradient Adadelta's step is its rate times the gradient.
        update: Any
        update, state = tx.update(jnp.array([1e-7]), state, jnp.ones(1))
        updates.append(float(update[0]))
    np.testing.assert_allclose(np.array(updates[4:]) / np.array(updates[:4]), 0.9, rtol=1e-3)


def test_pairs_of_all_classes_count_by_their_examples():
    """Two classes of unlike sizes, one of identical and one of opposite states."""
    same, opposite = np.array([1.0, -1.0, 0.5, -0.5]), np.array([1.0, 1.0, -1.0, -1.0])
    states = np.stack([same] * 6 + [opposite, -opposite]).astype(np.float32)
    found = sp.state_correlation(states, np.array([0] * 6 + [1] * 2), 2)
    pairs = [np.corrcoef(states[i], states[j])[0, 1] for i, j in itertools.permutations(range(6), 2)]
    np.testing.assert_allclose(np.mean(pairs), 1)
    np.testing.assert_allclose(found.value, (6 * 1 + 2 * -1) / 8, atol=1e-6)
