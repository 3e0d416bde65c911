"""Lesions against networks whose weights are really set to zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.models import MLP
from jaxmod.structure import lesions
from jaxmod.train import devices

MODEL = MLP((12, 9, 7), outputs=4)


@pytest.fixture(scope="module")
def case():
    """A network with biases, examples, and the answers of that network, half of them replaced."""
    x = jax.random.normal(jax.random.key(1), (300, 6))
    params = jax.jit(lambda key: MODEL.init(key, x[:1])["params"])(jax.random.key(0))
    params = jax.tree.map(lambda w: w + 0.1, params)
    answers = jnp.argmax(MODEL.apply({"params": params}, x), axis=-1)
    return params, x, jnp.where(jnp.arange(300) % 2 == 0, answers, jnp.arange(300) % 4)


def zeroed(params, keep):
    """Returns the params with the incoming weights and biases of lesioned neurons set to zero."""
    changed = {
        f"layer_{i}": jax.tree.map(lambda w, k=k: w * k, params[f"layer_{i}"], {"kernel": k[None], "bias": k})
        for i, k in enumerate(map(jnp.asarray, keep), start=1)
    }
    return params | changed


def right_by_hand(case, keep):
    params, x, labels = case
    apply = jax.jit(lambda params: jnp.argmax(MODEL.apply({"params": params}, x), axis=-1))
    return [int(jnp.sum(apply(zeroed(params, row)) == labels)) for row in zip(*keep, strict=True)]


def test_a_lesion_is_as_weights_and_biases_of_zero(case):
    rng = np.random.default_rng(0)
    keep = [rng.random((30, size)) < 0.7 for size in MODEL.hidden]
    keep[0][5:15] = keep[1][10:20] = True  # some spare the first layer, some the second, five both
    keep[2][18] = keep[0][18] = True  # nothing at all
    keep[1][3] = keep[0][7] = keep[2][9] = False  # whole layers
    found = lesions.count_right(*case, keep)
    assert found.tolist() == right_by_hand(case, keep)
    assert len(set(found)) > 10


def test_more_lesions_than_a_call_takes_and_their_order(case, monkeypatch):
    rng = np.random.default_rng(1)
    keep = [rng.random((23, size)) < 0.8 for size in MODEL.hidden]
    keep[0][::2] = True
    whole = lesions.count_right(*case, keep)
    monkeypatch.setattr(lesions, "CHUNK", 4)
    np.testing.assert_array_equal(whole, lesions.count_right(*case, keep))
    alone = [lesions.count_right(*case, [k[i : i + 1] for k in keep])[0] for i in range(23)]
    np.testing.assert_array_equal(whole, alone)


def test_what_is_shared_changes_nothing(case):
    """The same lesion, begun in the first layer: a neuron there is made useless, then taken out."""
    params, x, labels = case
    idle = params | {
        "layer_1": jax.tree.map(lambda w: w.at[..., 0].set(0.0), params["layer_1"]),
    }
    keep = [np.ones((20, size), bool) for size in MODEL.hidden]
    keep[2] = np.random.default_rng(2).random((20, 7)) < 0.6
    shared = lesions.count_right(idle, x, labels, keep)
    keep[0][:, 0] = False
    np.testing.assert_array_equal(shared, lesions.count_right(idle, x, labels, keep))


def test_one_device_and_several_lesions_at_a_time(case, monkeypatch):
    rng = np.random.default_rng(3)
    keep = [rng.random((9, size)) < 0.7 for size in MODEL.hidden]
    shared = lesions.count_right(*case, keep)
    asked = []

    def as_on_an_accelerator(f, runs, *given):
        asked.append(f)
        return devices._mapped(f, None, len(given), 5)(runs, *given)

    monkeypatch.setattr(lesions, "map_runs", as_on_an_accelerator)
    np.testing.assert_array_equal(lesions.count_right(*case, keep), shared)
    assert asked


def test_no_lesions(case):
    assert lesions.count_right(*case, [np.ones((0, size), bool) for size in MODEL.hidden]).shape == (0,)


@pytest.mark.parametrize("keep", [[], [np.ones((1, 12), bool)] * 3, [np.ones((1, 12), bool)]])
def test_keep_must_fit_the_hidden_layers(case, keep):
    with pytest.raises(ValueError, match=r"expected \[lesions, neurons\] for each .* \[12, 9, 7\]"):
        lesions.count_right(*case, keep)


def test_other_networks_are_refused(case):
    params, x, labels = case
    with pytest.raises(ValueError, match="expected those of an MLP: 'layer_1'"):
        lesions.count_right({"dense": params["layer_1"], "output": params["output"]}, x, labels, [])


def test_random_lesions_take_as_many_of_those_that_may_be_taken(key):
    among = np.arange(40) % 4 != 0
    drawn = lesions.random_lesions(key, among, 7, 2000)
    assert drawn.shape == (2000, 40) and drawn.dtype == bool
    assert (drawn.sum(axis=1) == 7).all() and not drawn[:, ~among].any()
    rate, often = 7 / 30, drawn[:, among].mean(axis=0)
    assert np.abs(often - rate).max() < 4.5 * np.sqrt(rate * (1 - rate) / 2000)
    pairs = np.cov(drawn[:, among].T.astype(float))  # without replacement: a little less than independent
    off = pairs[~np.eye(30, dtype=bool)].mean()
    np.testing.assert_allclose(off, -rate * (1 - rate) / 29, rtol=1e-3)
    np.testing.assert_array_equal(drawn, lesions.random_lesions(key, among, 7, 2000))
    assert (drawn != lesions.random_lesions(jax.random.fold_in(key, 1), among, 7, 2000)).any()


def test_none_and_all_of_a_layer(key):
    among = np.array([True, False, True])
    assert not lesions.random_lesions(key, among, 0, 3).any()
    np.testing.assert_array_equal(lesions.random_lesions(key, among, 2, 3), np.tile(among, (3, 1)))
    with pytest.raises(ValueError, match="count: 3 neurons of a layer with 2"):
        lesions.random_lesions(key, among, 3, 1)


def test_sub_modules_are_clusters_in_hidden_layers():
    labels = [
        np.array([0, 1, 2]),
        np.array([1, -1, 1, 0]),
        np.array([-1, -1]),
        np.array([2, 2]),
        np.array([0]),
    ]
    found = lesions.sub_modules(labels)
    assert [(x.name, x.size, int(x.connected.sum())) for x in found] == [
        ("1-0", 1, 3), ("1-1", 2, 3), ("3-2", 2, 2),
    ]  # fmt: skip
    assert found[1].neurons.tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match="labels of 2 layers"):
        lesions.sub_modules(labels[:2])
