"""Planted modules: the joined network computes what its circuits do, and the truth is what that takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.models import planted
from jaxmod.models.planted import BASE, CIRCUITS, TASKS, Distractors

HIDDEN = (16, 12)


def circuit_loss(params, state, batch, key):
    outputs = planted.forward(params, planted.one_hot(batch["digits"]))
    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["answer"]).mean(), (state, {})


@pytest.fixture(scope="module")
def circuits():
    trained = jm.train_network(
        circuit_loss,
        lambda key: planted.init_circuit(key, HIDDEN),
        planted.circuit_examples(),
        keys=jax.random.split(jax.random.key(0), len(CIRCUITS)),
        config=jm.DenseConfig(800, 25, chunk_steps=400, order="epochs"),
        optimizer=optax.adam(1e-2),
    ).params
    return [jax.tree.map(lambda x, i=i: x[i], trained) for i in range(len(CIRCUITS))]


@pytest.fixture(scope="module")
def small(circuits):
    return [planted.smallest(circuit, 2.0) for circuit in circuits]


@pytest.fixture(scope="module", params=["dense", "sparse"])
def network(request, circuits, small):
    return planted.plant(circuits if request.param == "dense" else small, Distractors(3, 5, 0.5), seed=1)


def in_float64(params, digits):
    """The outputs by NumPy, without the rounding of float32."""
    x = np.eye(BASE)[digits].reshape(len(digits), -1)
    *hidden, output = (
        np.asarray(params[name]["kernel"], np.float64) for name in ("layer_1", "layer_2", "output")
    )
    for kernel in hidden:
        x = np.maximum(x @ kernel, 0)
    return x @ output


def right(params):
    """Which answers are right, `[n, task, 2]`."""
    examples = planted.examples()
    outputs = in_float64(params, examples["digits"]).reshape(-1, len(TASKS), 2, BASE)
    return outputs.argmax(-1) == examples["answers"]


def margins(circuit):
    batch = planted.circuit_examples()
    outputs = in_float64(circuit, batch["digits"])
    chosen = np.eye(BASE, dtype=bool)[batch["answer"]]
    return outputs[chosen] - np.where(chosen, -np.inf, outputs).max(axis=1)


def test_examples_are_all_digits_and_functions_of_two_of_them():
    examples = planted.examples()
    assert len(np.unique(examples["digits"], axis=0)) == BASE**4
    a, b, c, d = examples["digits"].T
    np.testing.assert_array_equal(examples["answers"][:, :, 1], np.stack([(a + b) % BASE] * 3, axis=1))
    own = [(b + 2 * c) % BASE, (c + 3 * d) % BASE, (d + 4 * a) % BASE]
    np.testing.assert_array_equal(examples["answers"][:, :, 0], np.stack(own, axis=1))


def test_the_joined_outputs_are_those_of_the_circuits(circuits, small):
    digits = planted.examples()["digits"]
    for parts in (circuits, small):
        params = planted.plant(parts, Distractors(3, 5, 0.5), seed=2).params
        joined = in_float64(params, digits).reshape(-1, len(TASKS), 2, BASE)
        alone = []
        for k, circuit in enumerate(parts):
            second = (k + 1) * digits[:, (k + 1) % len(CIRCUITS)] % BASE
            alone.append(in_float64(circuit, np.stack([digits[:, k], second], axis=1)))
        for t in range(len(TASKS)):
            np.testing.assert_allclose(joined[:, t, 0], alone[t + 1], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(joined[:, t, 1], alone[0], rtol=1e-9, atol=1e-9)


def test_forward_is_the_network_of_numpy(network):
    digits = planted.examples()["digits"][:50]
    ours = planted.forward(network.params, planted.one_hot(jnp.asarray(digits)))
    np.testing.assert_allclose(ours, in_float64(network.params, digits), rtol=1e-3, atol=1e-3)


def test_a_task_needs_its_truth_and_nothing_else(network):
    assert right(network.params).all()
    for t, task in enumerate(TASKS):
        truth = network.truth[task]
        alone = right(jm.apply_mask(network.params, truth))
        assert alone[:, t].all()
        others = [other for other in range(len(TASKS)) if other != t]
        assert alone[:, others].all(axis=2).mean() < 0.3
        without = right(jm.apply_mask(network.params, jm.invert(truth)))
        assert without[:, t].all(axis=1).mean() < 0.3


def test_two_tasks_share_the_shared_circuit_below_its_outputs(small):
    truth = planted.plant(small, Distractors(), seed=0).truth
    shared = jm.sharing(truth["first"], truth["second"])
    weights = [int((np.asarray(small[0][layer]["kernel"]) != 0).sum()) for layer in ("layer_1", "layer_2")]
    first = jm.intersection(truth["first"], truth["second"])
    assert [int(first[layer]["kernel"].sum()) for layer in ("layer_1", "layer_2")] == weights
    assert not first["output"]["kernel"].any() and float(shared["total"].iou) > 0.1
    for task, circuit in zip(TASKS, small[1:], strict=True):
        size = sum(int((np.asarray(k) != 0).sum()) for c in (small[0], circuit) for k in jax.tree.leaves(c))
        assert sum(int(m.sum()) for m in jax.tree.leaves(truth[task])) == size


def test_each_weight_of_the_smallest_circuit_is_needed(circuits, small):
    for circuit, kept in zip(circuits[:2], small[:2], strict=True):
        assert margins(kept).min() >= 2 - 1e-4
        for name in kept:
            kernel, before = np.array(kept[name]["kernel"]), np.asarray(circuit[name]["kernel"])
            assert 0 < (kernel != 0).sum() < kernel.size
            np.testing.assert_array_equal(kernel[kernel != 0], before[kernel != 0])
            for place in zip(*np.nonzero(kernel), strict=True):
                without = kernel.copy()
                without[place] = 0
                assert margins(kept | {name: {"kernel": without}}).min() < 2 + 1e-4


def test_distractors_carry_no_function_but_take_part(circuits):
    seeds = [planted.plant(circuits, Distractors(4, 5, 0.7), seed=seed) for seed in (1, 1, 2)]
    same, other = (
        np.array_equal(seeds[0].params["layer_1"]["kernel"], x.params["layer_1"]["kernel"]) for x in seeds[1:]
    )
    assert same and not other
    # A random half of the false weights, which breaks the twins, disturbs the circuits.
    params, truth, _ = seeds[0]
    anything = jm.union(jm.union(truth["first"], truth["second"]), truth["other"])
    half = jax.tree.map(
        lambda t, k: t | jax.random.bernoulli(k, 0.5, t.shape),
        anything,
        {name: {"kernel": jax.random.key(i)} for i, name in enumerate(anything)},
    )
    assert right(jm.apply_mask(params, half)).mean() < 0.97
    plain = planted.plant(circuits, Distractors(0, 0), seed=0)
    assert plain.params["layer_2"]["kernel"].shape == (4 * HIDDEN[0], 4 * HIDDEN[1])
    assert right(plain.params).all()


def test_distractors_have_weights_of_the_size_of_the_circuits(small):
    params, truth, twins = planted.plant(small, Distractors(4, 8, 0.5), seed=0)
    for layer in params:
        kernel = np.abs(np.asarray(params[layer]["kernel"]))
        true = np.any([np.asarray(truth[task][layer]["kernel"]) for task in TASKS], axis=0)
        assert set(kernel[~true].tolist()) <= {0.0, *kernel[true].tolist()}
        assert not (true & np.asarray(twins[layer]["kernel"])).any()


def test_twins_cancel(small):
    params, _, twins = planted.plant(small, Distractors(4, 8, 0.5), seed=0)
    digits = planted.examples()["digits"][:50]
    without = in_float64(jm.apply_mask(params, jm.invert(twins)), digits)
    np.testing.assert_allclose(in_float64(params, digits), without, rtol=1e-9, atol=1e-9)
    columns = np.asarray(twins["layer_1"]["kernel"]).any(axis=0)
    assert columns.sum() == 8  # four pairs, all of which read something


def test_a_circuit_that_has_not_learnt_is_refused(key):
    with pytest.raises(ValueError, match=r"at worst, expected 1\.0 or more; train it for longer"):
        planted.smallest(planted.init_circuit(key, HIDDEN), 1.0)
