"""What is measured on joined sub-networks, against one network at a time in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import trees
from jaxmod.analysis import specialization
from jaxmod.joined import measures, training
from jaxmod.models.subnetworks import SubNetworks
from tests.joined.pairs import KEYS, LINKS, TRAINING, easy_pairs

TRAIN, TEST = easy_pairs(48), easy_pairs(40, seed=1)
MODEL = training.make_model(TRAINING)


@pytest.fixture(scope="module")
def networks():
    return training.start(MODEL, TRAIN, KEYS, LINKS)


def _one(networks, i) -> Any:
    return jax.tree.map(lambda w: np.asarray(w[i], np.float64), networks)


def states_in_numpy(p, pairs):
    x = (pairs.image.reshape(len(pairs.image), 2, -1) / 255).astype(float)
    h = [np.zeros((len(x), TRAINING.hidden))] * 2
    for _ in range(TRAINING.steps):
        messages = [h[1] @ p["links"]["to_0"]["kernel"], h[0] @ p["links"]["to_1"]["kernel"]]
        h = [
            np.tanh(
                x[:, n] @ p[f"net_{n}"]["input"]["kernel"] + p[f"net_{n}"]["input"]["bias"]
                + h[n] @ p[f"net_{n}"]["recurrent"]["kernel"] + p[f"net_{n}"]["recurrent"]["bias"]
                + messages[n]
            )
            for n in range(2)
        ]  # fmt: skip
    return h


def answers_in_numpy(p, pairs):
    h = states_in_numpy(p, pairs)
    r = [h[n] @ p[f"net_{n}"]["readout"]["kernel"] + p[f"net_{n}"]["readout"]["bias"] for n in range(2)]
    first = r[0].max(axis=1) >= r[1].max(axis=1)
    return np.where(first, r[0].argmax(axis=1), r[1].argmax(axis=1)), first


def test_accuracies_and_states_are_those_of_the_equations(networks, key):
    found: Any = measures.measure(MODEL, networks, TEST, key)
    for i in range(3):
        p = _one(networks, i)
        answers, first = answers_in_numpy(p, TEST)
        np.testing.assert_allclose(found.accuracy[i], np.mean(answers == TEST.target), atol=1e-6)
        np.testing.assert_allclose(found.decided[i], np.mean(first), atol=1e-6)
        cut = answers_in_numpy({**p, "links": jax.tree.map(np.zeros_like, p["links"])}, TEST)[0]
        np.testing.assert_allclose(found.without_links[i], np.mean(cut == TEST.target), atol=1e-6)
        for n, states in enumerate(states_in_numpy(p, TEST)):
            for k in range(2):
                same = TEST.digit[:, None, k] == TEST.digit[None, :, k]
                np.fill_diagonal(same, False)
                corr: Any = np.corrcoef(states)
                paired = same.any(axis=1)
                expected = np.mean([corr[j][same[j]].mean() for j in np.flatnonzero(paired)])
                np.testing.assert_allclose(found.correlation[i, n, k], expected, atol=1e-4)
    assert found.skipped.tolist() == [[0, 0]] * 3
    assert ((found.cka >= 0) & (found.cka <= 1.0001)).all()


def test_new_readouts_are_trained_on_the_states_of_their_own_sub_network(networks):
    accuracy = measures.retrained_accuracy(
        MODEL, networks, TRAIN, TEST, KEYS, repeats=2, steps=12, epoch=3, batch_size=16
    )
    assert accuracy.shape == (3, 2, 2)
    key = jax.random.split(KEYS[1], 8).reshape(2, 2, 2)
    seen, unseen = (states_in_numpy(_one(networks, 1), pairs) for pairs in (TRAIN, TEST))
    for n, k in ((0, 1), (1, 1)):
        alone = []
        for repeat in range(2):
            readout = specialization.train_readout(
                key[n, k, repeat], jnp.asarray(seen[n], jnp.float32), jnp.asarray(TRAIN.digit[:, k]),
                classes=10, optimizer=specialization.readout_optimizer(3), steps=12, batch_size=16,
            )  # fmt: skip
            alone.append(
                specialization.readout_accuracy(
                    readout, jnp.asarray(unseen[n], jnp.float32), jnp.asarray(TEST.digit[:, k])
                )
            )
        np.testing.assert_allclose(accuracy[1, n, k], np.mean(alone), atol=0.026)  # one example of 40


def test_frozen_means_frozen(networks):
    """New readouts and masks are trained on networks that stay as they are, to the last bit."""
    before = jax.tree.map(np.array, networks)
    measures.retrained_accuracy(
        MODEL, networks, TRAIN, TEST, KEYS, repeats=2, steps=12, epoch=3, batch_size=16
    )
    config = jm.MaskConfig(2, 16, num_samples=1, learning_rate=0.1, beta=0.0, chunk_steps=2)
    measures.find_masks(
        MODEL, networks, TRAIN, KEYS, config, jm.edge_popup(0.25), measures.mask_optimizer(0.1)
    )
    jax.tree.map(np.testing.assert_array_equal, networks, before)


def test_masks_keep_q_of_what_the_paper_masks(networks):
    config = jm.MaskConfig(2, 16, num_samples=1, learning_rate=0.1, beta=0.0, chunk_steps=2)
    masks = measures.find_masks(
        MODEL, networks, TRAIN, KEYS, config, jm.edge_popup(0.25), measures.mask_optimizer(0.1)
    )
    size = 2 * (6 * 6 + 6 + 6 * 10 + 10)
    measured = measures.measure_masks(MODEL, networks, masks, TEST)
    np.testing.assert_allclose(measured.density, 0.25, atol=0.01)
    for k, mask in enumerate(masks):
        kept = [[np.sum(m[i]) for m in jax.tree.leaves(mask["net_0"])] for i in range(3)]
        np.testing.assert_allclose(
            measured.share[:, 0, k], np.sum(kept, axis=1) / round(0.25 * size), rtol=1e-6
        )
        np.testing.assert_allclose(measured.share[:, :, k].sum(axis=1), 1, rtol=1e-6)
        found = measures.masked_accuracy(MODEL, networks, mask, TEST.image, TEST.digit[:, k])
        np.testing.assert_array_equal(measured.accuracy[:, k], found)
        paths = [path for path, _ in trees.paths_and_leaves(mask)]
        assert all("input" not in path and "links" not in path for path in paths) and len(paths) == 8
        assert sum(m[0].size for m in jax.tree.leaves(mask)) == size
        assert (
            sum(m.sum(axis=tuple(range(1, m.ndim))) for m in jax.tree.leaves(mask)).tolist()
            == [round(0.25 * size)] * 3
        )


def test_the_paper_masks_22220_weights():
    params = SubNetworks().init(jax.random.key(0), jnp.zeros((1, 2, 784)))["params"]
    chosen = trees.select(params, measures.MASKED)
    sizes = jax.tree.map(lambda w, c: w.size if c else 0, params, chosen)
    assert sum(jax.tree.leaves(sizes)) == 22220


def test_a_mask_of_all_weights_changes_nothing(networks):
    whole = jax.tree.map(
        lambda w, c: jnp.ones(w.shape, bool) if c else None, networks, trees.select(networks, measures.MASKED)
    )
    found = measures.masked_accuracy(MODEL, networks, whole, TEST.image, TEST.digit[:, 0])
    for i in range(3):
        answers, _ = answers_in_numpy(_one(networks, i), TEST)
        np.testing.assert_allclose(found[i], np.mean(answers == TEST.digit[:, 0]), atol=1e-6)


def test_weights_decay_with_momentum():
    tx = measures.mask_optimizer(0.1)
    assert tx is measures.mask_optimizer(0.1)
    w = jnp.array([2.0])
    first: Any
    second: Any
    first, state = tx.update(jnp.array([1.0]), tx.init(w), w)
    second, _ = tx.update(jnp.array([1.0]), state, w)
    g = 1 + 5e-4 * 2
    np.testing.assert_allclose([first[0], second[0]], [-0.1 * g, -0.1 * (0.9 * g + g)], rtol=1e-6)
