"""The networks of Filan et al. 2020, on images of four pixels."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod import conditions
from jaxmod.conditions import CONDITIONS, Training
from jaxmod.data.images import Images
from jaxmod.train.dense import Trained

SMALL = Training(hidden=(6, 5), epochs=0.5, batch_size=8)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (100, 2, 2), np.uint8)
    y = (x[:, 0, 0] // 26).astype(np.int32)
    return Images(x[:80], y[:80], x[80:], y[80:], "made up")


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 2)


@pytest.fixture(scope="module")
def networks(images, keys):
    return conditions.train_networks("digits-dropout", images, keys, SMALL)


def test_both_phases_of_all_networks(networks):
    before, after = networks.params["unpruned"], networks.params["pruned"]
    assert before["layer_1"]["kernel"].shape == (2, 4, 6) and before["output"]["bias"].shape == (2, 10)
    assert all((layer["kernel"] != 0).all() for layer in before.values())
    for layer, size in (("layer_1", 24), ("layer_2", 30), ("output", 50)):
        kept = (after[layer]["kernel"] != 0).sum(axis=(1, 2))
        assert kept.tolist() == [round(0.1 * size)] * 2
    for phase in conditions.PHASES:
        assert networks.running_accuracy[phase].shape == (2,)
    np.testing.assert_array_less(0.15, networks.running_accuracy["unpruned"])  # it learns


def test_a_network_is_the_same_beside_others(images, keys, networks):
    together = networks
    alone = conditions.train_networks("digits-dropout", images, keys[1:], SMALL)
    for phase in conditions.PHASES:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[1], b[0], atol=1e-5),
            together.params[phase],
            alone.params[phase],
        )


def test_steps_are_those_of_the_paper(monkeypatch):
    asked = []

    class Stop(Exception):
        pass

    def train_network(loss, init, task, *, config, optimizer, **_):
        asked.append(config)
        if len(asked) == 2:
            raise Stop
        return Trained({}, None, {"accuracy": np.ones((1, 20))})

    monkeypatch.setattr(conditions, "train_network", train_network)
    sparsities = []
    monkeypatch.setattr(
        conditions, "polynomial_sparsity", lambda **given: sparsities.append(given) or (lambda step: 0.5)
    )
    keys = jax.random.split(jax.random.key(0), 1)
    for name, size, steps in (("mnist", 60_000, (9380, 9380)), ("cifar10", 50_000, (7820, 15640))):
        asked.clear()
        empty = np.zeros((size, 1, 1), np.uint8)
        with pytest.raises(Stop):
            conditions.train_networks(name, Images(empty, empty[:, 0, 0], empty, empty[:, 0, 0], ""), keys)
        assert tuple(config.steps for config in asked) == steps
        assert all((config.order, config.batch_size) == ("epochs", 128) for config in asked)
        assert sparsities.pop() == {"steps": steps[1], "end": 0.9}  # it rises over the whole second phase


@pytest.mark.parametrize(
    ("name", "examples", "steps"),
    [
        ("mnist", 60_000, (469 * 20, 469 * 20)),
        ("cifar10-dropout", 50_000, (391 * 100, 391 * 40)),
        ("memorization", 3_000, (24 * 100, 24 * 100)),
        ("kilo-epoch", 60_000, (469 * 1000, 469 * 20)),
        ("mnist-cifar10-sep", 55_000, (430 * 30, 430 * 40)),
    ],
)
def test_an_epoch_has_as_many_steps_as_batches_with_the_last_one(name, examples, steps):
    found = conditions.schedule(CONDITIONS[name], examples, Training())
    assert tuple(config.steps for config in found) == steps
    assert all(config.chunk_steps == -(-config.steps // 20) for config in found)
    short = conditions.schedule(CONDITIONS[name], examples, Training(epochs=1e-6))
    assert all((config.steps, config.chunk_steps) == (1, 1) for config in short)


def test_what_cannot_be_trained_is_refused_and_each_data_set_loaded_once(monkeypatch):
    loaded = []

    def load(condition):
        loaded.append(condition.dataset)
        return types.SimpleNamespace(x_train=range(60_000))

    monkeypatch.setattr(conditions, "load", load)
    conditions.check_conditions("conditions", ("mnist", "mnist-dropout", "lines", "random", "kilo-epoch"))
    assert loaded == ["mnist", "lines", "random"]
    with pytest.raises(ValueError, match="conditions=mnist,mnist: expected each of them once"):
        conditions.check_conditions("conditions", ("mnist", "mnist"))
    with pytest.raises(ValueError, match=r"^epochs=1000000: .*steps=9380000000 of batch_size=128"):
        conditions.check_conditions("conditions", ("mnist",), Training(epochs=1_000_000))


def test_data_that_cannot_be_read_are_one_sentence(monkeypatch):
    def load(condition):
        raise PermissionError("no permission")

    monkeypatch.setattr(conditions, "load", load)
    with pytest.raises(ValueError, match="no permission"):
        conditions.check_conditions("conditions", ("mnist",))


def test_more_clusters_than_neurons_are_refused():
    conditions.check_clusters("k", 64 + 9 + 10 - 1, ["digits"], (5, 4))
    with pytest.raises(ValueError, match="k=83: expected 2 .* fewer than the 83 neurons of digits"):
        conditions.check_clusters("k", 83, ["mnist", "digits"], (5, 4))
    for name in ("digits", "random"):
        images = conditions.load(CONDITIONS[name])
        assert conditions.num_pixels(CONDITIONS[name]) == np.prod(images.x_train.shape[1:])


def test_accuracy_is_that_of_each_network_by_hand(images, keys):
    model = conditions.make_model(CONDITIONS["mnist-dropout"], SMALL)
    params = jax.vmap(lambda key: model.init(key, jnp.zeros((1, 4)))["params"])(keys)
    found = conditions.accuracy(model, params, images.x_test, images.y_test)
    for i in range(2):
        x = images.x_test.reshape(-1, 4) / 255
        for layer in ("layer_1", "layer_2", "output"):
            x = x @ np.asarray(params[layer]["kernel"][i]) + np.asarray(params[layer]["bias"][i])
            x = x if layer == "output" else np.maximum(x, 0)
        assert found[i] == pytest.approx(np.mean(x.argmax(axis=1) == images.y_test))


def test_conditions_are_those_of_the_papers_code():
    assert CONDITIONS["mnist"] == conditions.Condition("mnist", 0.0, (20, 20))
    assert CONDITIONS["cifar10-dropout"] == conditions.Condition("cifar10", 0.2, (100, 40))
    assert CONDITIONS["lines-cifar10-sep-dropout"] == conditions.Condition("lines-cifar10-sep", 0.2, (30, 40))
    assert CONDITIONS["kilo-epoch"].epochs == (1000, 20)
    memorization = CONDITIONS["memorization-dropout"]
    assert (memorization.order, memorization.examples, memorization.dropout) == ("fixed", 3000, 0.5)
    assert len(CONDITIONS) == 2 * (7 + 4 + 1 + 2) + 1


def test_memorization_sees_the_first_examples_only():
    images = conditions.load(CONDITIONS["digits"]._replace(examples=7))
    whole = conditions.load(CONDITIONS["digits"])
    assert len(images.x_train) == 7 and len(images.x_test) == len(whole.x_test)
    np.testing.assert_array_equal(images.x_train, whole.x_train[:7])
