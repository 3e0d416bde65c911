"""The training of joined sub-networks: links keep their number, runs are those they are alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmod.joined import training
from tests.joined.pairs import KEYS, LINKS, TRAINING, easy_pairs

PAIRS = easy_pairs(64)


def _links(params):
    return {n: np.asarray(params["links"][n]["kernel"]) for n in ("to_0", "to_1")}


@pytest.fixture(scope="module")
def begun():
    return training.start(training.make_model(TRAINING), PAIRS, KEYS, LINKS)


@pytest.fixture(scope="module")
def trained(begun):
    return training.train(PAIRS, begun, KEYS, TRAINING)


def test_every_run_starts_with_its_number_of_links(begun):
    for kernel in _links(begun).values():
        assert np.count_nonzero(kernel, axis=(1, 2)).tolist() == LINKS.tolist()


def test_deep_r_keeps_the_number_of_links_and_everything_is_trained(begun, trained):
    for name, kernel in _links(trained.params).items():
        assert np.count_nonzero(kernel, axis=(1, 2)).tolist() == LINKS.tolist()
        assert not np.array_equal(kernel, _links(begun)[name])
    for before, after in zip(jax.tree.leaves(begun), jax.tree.leaves(trained.params), strict=True):
        assert not np.array_equal(before, after)


def test_the_history_tells_accuracy_and_who_decides(trained):
    assert trained.history["accuracy"].shape == trained.history["decided"].shape == (3, TRAINING.epochs)
    assert (trained.history["decided"] >= 0).all() and (trained.history["decided"] <= 1).all()


def test_a_run_alone_is_the_run_among_others(begun, trained):
    one = training.train(PAIRS, jax.tree.map(lambda w: w[1:2], begun), KEYS[1:2], TRAINING)
    for alone, among in zip(jax.tree.leaves(one.params), jax.tree.leaves(trained.params), strict=True):
        np.testing.assert_allclose(alone[0], among[1], atol=1e-4)


def test_fixed_links_stay_where_they_are(begun):
    fixed = training.train(PAIRS, begun, KEYS, dataclasses.replace(TRAINING, rewired=False))
    for name, kernel in _links(fixed.params).items():
        np.testing.assert_array_equal(kernel != 0, _links(begun)[name] != 0)
        assert not np.array_equal(kernel, _links(begun)[name])


def test_networks_without_links_are_trained_too():
    model = training.make_model(TRAINING)
    begun = training.start(model, PAIRS, KEYS[:1], jnp.array([0]))
    trained = training.train(PAIRS, begun, KEYS[:1], TRAINING)
    assert all(not kernel.any() for kernel in _links(trained.params).values())
    recurrent = (of["net_0"]["recurrent"]["kernel"] for of in (begun, trained.params))
    assert not np.array_equal(*recurrent)
    assert np.isfinite(trained.history["loss"]).all()


def test_frozen_readouts_stay_as_they_start(begun):
    found = training.train(PAIRS, begun, KEYS, dataclasses.replace(TRAINING, readouts=False)).params
    for name in ("net_0", "net_1"):
        for part in ("kernel", "bias"):
            np.testing.assert_array_equal(found[name]["readout"][part], begun[name]["readout"][part])
        assert not np.array_equal(found[name]["input"]["kernel"], begun[name]["input"]["kernel"])


def test_fixed_links_are_adam_with_a_rate_of_the_density(key):
    w = {"w": jnp.array([[0.5, 0.0], [0.0, -0.25]])}
    ours, adam = training.fixed_links(lambda step, p: p * (step + 1)), optax.scale_by_adam()
    state, theirs, x, y = ours.init(w), adam.init(w), w, w
    for step, k in enumerate(jax.random.split(key, 4)):
        grads = {"w": jax.random.normal(k, (2, 2))}
        updates, state = ours.update(grads, state, x)
        x: Any = optax.apply_updates(x, updates)
        direction: Any
        direction, theirs = adam.update(grads, theirs)
        y = {"w": jnp.where(w["w"] == 0, 0.0, y["w"] - 0.5 * (step + 1) * direction["w"])}
    np.testing.assert_allclose(x["w"], y["w"], rtol=1e-5)


def test_redrawn_pairs_have_the_answers_of_the_rule(begun):
    told = PAIRS._replace(target=np.zeros_like(PAIRS.target))  # whatever the digits are
    fixed = training.train(told, begun, KEYS, TRAINING).history["loss"]
    how = dataclasses.replace(TRAINING, redrawn=True)
    redrawn, again = (training.train(pairs, begun, KEYS, how).history["loss"] for pairs in (told, PAIRS))
    np.testing.assert_array_equal(redrawn, again)
    assert (fixed[:, -1] < redrawn[:, -1]).all()  # always 0 is soon learnt


def test_an_epoch_is_as_many_steps_as_the_data_take():
    assert training.epoch_steps(TRAINING, PAIRS) == 4
    assert training.epoch_steps(dataclasses.replace(TRAINING, passes=3, batch_size=50), PAIRS) == 4
    assert training.epoch_steps(dataclasses.replace(TRAINING, batch_size=1000), PAIRS) == 1


def test_cut_links_cuts_nothing_else(begun):
    cut = training.cut_links(begun)
    assert all(not kernel.any() for kernel in _links(cut).values())
    for before, after in zip(jax.tree.leaves(begun["net_0"]), jax.tree.leaves(cut["net_0"]), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_task_is_learned():
    easy = easy_pairs(512)
    how = dataclasses.replace(TRAINING, hidden=24, epochs=4, passes=10, learning_rate=1.0)
    start = training.start(training.make_model(how), easy, KEYS[:1], jnp.array([200]))
    assert training.train(easy, start, KEYS[:1], how).history["accuracy"][0, -1] > 0.85
