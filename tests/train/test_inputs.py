"""What find_modules is given, checked and brought to one shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod.train import inputs
from jaxmod.train.randomness import Stream, stream_key
from jaxmod.train.tasks import make_source
from jaxmod.trees import DEFAULT_WHERE
from tests.helpers import assert_trees_equal, tiny_loss, tiny_params, two_tasks

ESTIMATOR = jm.gumbel_sigmoid()


@pytest.fixture
def params(key):
    return tiny_params(key)


def stacked(tree, runs):
    return jax.tree.map(lambda x: jnp.stack([x] * runs), tree)


def test_num_runs_counts_keys(params, key):
    assert inputs.num_runs(key, params, None) == 1
    assert inputs.num_runs(jax.random.split(key, 3), params, None) == 3
    assert inputs.num_runs(jax.random.split(key, 3), stacked(params, 3), 0) == 3
    assert inputs.num_runs(jax.random.split(key, 1), stacked(params, 1), 0) == 1


@pytest.mark.parametrize(
    ("runs", "axis", "message"),
    [
        (2, -1, "params_axis must be 0 or None, got -1"),
        (2, True, "params_axis must be 0 or None, got True"),
        (None, 0, "needs a vector of keys, one per run, got one key"),
        (2, 0, r"leaf 'layer_1/bias' has shape \(16,\), expected a leading axis of 2 runs"),
    ],
)
def test_num_runs_names_what_disagrees(params, key, runs, axis, message):
    keys = key if runs is None else jax.random.split(key, runs)
    with pytest.raises(ValueError, match=message):
        inputs.num_runs(keys, params, axis)


def test_a_scalar_leaf_has_no_runs(key):
    with pytest.raises(ValueError, match=r"leaf 'scale' has shape \(\)"):
        inputs.num_runs(jax.random.split(key, 2), {"scale": jnp.ones(())}, 0)


def test_one_run_is_the_first(params):
    assert inputs.one_run(params, None) is params
    both = jax.tree.map(lambda x: jnp.stack([x, x + 1]), params)
    assert_trees_equal(inputs.one_run(both, 0), params)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_params_with_nan_are_named(params, value, dtype):
    inputs.check_params(params | {"steps": np.arange(3), "flags": np.array([True])})
    bad = params | {"late": np.array([0, value], dtype)}
    with pytest.raises(ValueError, match="'late' holds NaN or infinite"):
        inputs.check_params(bad)


def check(loss_fn, params, has_aux=False):
    inputs.check_loss(loss_fn, has_aux, params, make_source(two_tasks()), batch_size=8)


def test_a_good_loss_passes_and_is_only_traced(params):
    seen = []

    def loss(params, batch, key, shared_key):
        seen.append((batch["x"].shape, isinstance(batch["x"], jax.core.Tracer)))
        assert jnp.issubdtype(shared_key.dtype, jax.dtypes.prng_key)
        return tiny_loss(params, batch, key)

    check(loss, params)
    assert seen == [((8, 6), True)]
    check(tiny_loss, params)
    check(lambda p, b, k: (tiny_loss(p, b, k), {"norm": jnp.ones(())}), params, has_aux=True)


@pytest.mark.parametrize(
    ("loss", "has_aux", "message"),
    [
        (lambda p, b, k: b["x"][:, 0], False, r"shape \(8,\) and float32; take the mean over the batch"),
        (lambda p, b, k: b["y"][0], False, r"shape \(\) and int32"),
        (lambda p, b, k: None, False, "floating scalar, got a NoneType"),
        (lambda p, b, k: (jnp.ones(()), {}), False, "got a tuple; pass has_aux=True"),
        (lambda p, b, k: jnp.ones(()), True, r"loss_fn must return \(loss, metrics\)"),
        (lambda p, b, k: (jnp.ones(()), {"m": b["x"]}), True, r"'m' must be a scalar, got shape \(8, 6\)"),
    ],
)
def test_a_loss_that_is_no_scalar_is_named(params, loss, has_aux, message):
    with pytest.raises(ValueError, match=message):
        check(loss, params, has_aux)


def test_a_value_per_run():
    np.testing.assert_array_equal(inputs.per_run("beta", 0.5, 3), np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(inputs.per_run("beta", [1, 2], 2), [1, 2])
    assert inputs.per_run("beta", np.float64(0.5), 1).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"beta must be a number or one per run \(2\), got shape \(3,\)"):
        inputs.per_run("beta", np.ones(3), 2)
    with pytest.raises(ValueError, match=r"got shape \(1,\)"):
        inputs.per_run("beta", [0.1], 2)


def test_logits_start_as_the_estimator_says_from_a_key_of_their_own(params, key):
    random = ESTIMATOR._replace(
        init=lambda key, params, where: {"layer_1": {"kernel": jax.random.normal(key, (6, 16)), "bias": None}}
    )
    keys = jax.random.split(key, 2)
    got = inputs.start_logits(keys, params, DEFAULT_WHERE, random, None)
    for i in range(2):
        expected = jax.random.normal(stream_key(keys[i], Stream.INIT), (6, 16))
        np.testing.assert_array_equal(got["layer_1"]["kernel"][i], expected)


def test_given_logits_get_the_runs(params, key):
    keys = jax.random.split(key, 2)
    one = ESTIMATOR.init(key, params, ".*/kernel")
    per_run = jnp.stack([one["output"]["kernel"], one["output"]["kernel"] + 1])
    mixed = one | {"output": {"kernel": per_run, "bias": None}}
    got = inputs.start_logits(keys, params, "ignored", ESTIMATOR, mixed)
    np.testing.assert_array_equal(got["layer_1"]["kernel"], np.full((2, 6, 16), 2))
    np.testing.assert_array_equal(got["output"]["kernel"], per_run)
    assert got["output"]["bias"] is None


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            jnp.ones((16, 6)),
            r"logits leaf 'layer_1/kernel' has shape \(16, 6\), expected \(6, 16\), or .*\(2, 6, 16\)",
        ),
        (jnp.ones((3, 6, 16)), r"has shape \(3, 6, 16\)"),
        (None, "logits hold no leaf"),
    ],
)
def test_given_logits_must_fit(params, key, kernel, message):
    none = {"kernel": None, "bias": None}
    logits = {"layer_1": none | {"kernel": kernel}, "output": none}
    with pytest.raises(ValueError, match=message):
        inputs.start_logits(jax.random.split(key, 2), params, "", ESTIMATOR, logits)


def test_given_logits_must_mirror_the_params(params, key):
    with pytest.raises(ValueError, match="logits do not mirror params"):
        inputs.start_logits(jax.random.split(key, 2), params, "", ESTIMATOR, {"layer_1": None})


def test_trained_and_held_fill_each_others_holes(params, key):
    logits = ESTIMATOR.init(key, params)
    hole = {"kernel": None, "bias": None}
    everything, nothing = inputs.split_trainable(logits, None)
    assert_trees_equal(everything, logits)
    assert jax.tree.leaves(nothing) == []
    tree = {"layer_1": {"kernel": True, "bias": None}, "output": {"kernel": False, "bias": None}}
    for trainable in (r"layer_1/.*", tree):
        trained, held = inputs.split_trainable(logits, trainable)
        assert_trees_equal(trained, logits | {"output": hole})
        assert_trees_equal(held, logits | {"layer_1": hole})


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("layer_1", "'layer_1' selects none of the masked leaves: 'layer_1/kernel', 'output/kernel'"),
        ({"layer_1": True}, "trainable does not mirror the masked params"),
    ],
)
def test_trainable_must_select_something(params, key, trainable, message):
    with pytest.raises(ValueError, match=message):
        inputs.split_trainable(ESTIMATOR.init(key, params), trainable)
