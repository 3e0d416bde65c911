"""Tasks in turn: what is used stays, all else starts anew, and a stopped run goes on."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.train.steps import frozen_but, without_state
from jaxmod.transfer import learn_in_turn
from jaxmod.workdir import Workdir
from tests.helpers import (
    assert_trees_close,
    assert_trees_equal,
    tiny_data,
    tiny_evaluate,
    tiny_loss,
    tiny_params,
)

CONFIG = jm.MaskConfig(10, batch_size=16, num_samples=2, learning_rate=0.3, beta=0.5, chunk_steps=5)
KEYS = jax.random.split(jax.random.key(0), 2)
TASKS = {"a": tiny_data(0), "b": tiny_data(1), "c": tiny_data(2)}


def learn(tasks=TASKS, keys=KEYS, **options):
    options = {"config": CONFIG, "evaluate": tiny_evaluate} | options
    return dict(learn_in_turn(tiny_loss, tiny_params, iter(tasks.items()), keys=keys, **options))


@pytest.fixture(scope="module")
def learned():
    return learn()


def test_used_weights_stay_bit_for_bit_and_free_ones_start_anew(learned):
    for before, after in (("a", "b"), ("b", "c")):
        used = jax.tree.leaves(learned[after].used)
        assert 0 < sum(u.sum() for u in used) < sum(u.size for u in used)
        old, new = (jax.tree.leaves(learned[name].params) for name in (before, after))
        for u, x, y in zip(used, old, new, strict=True):
            np.testing.assert_array_equal(x[u], y[u])
            assert (x[~u] != y[~u]).mean() > 0.9
    assert not any(u.any() for u in jax.tree.leaves(learned["a"].used))


def test_used_are_the_masks_of_all_earlier_tasks(learned):
    both = jm.union(learned["a"].mask, learned["b"].mask)
    assert_trees_equal(learned["c"].used, both)
    assert_trees_equal(learned["b"].used, learned["a"].mask)


def test_modules_of_earlier_tasks_are_what_they_were(learned):
    for name in ("a", "b"):
        then = jm.apply_mask(learned[name].params, learned[name].mask)
        now = jm.apply_mask(learned["c"].params, learned[name].mask)
        assert_trees_equal(then, now)


def test_a_run_alone_is_the_run_among_others(learned):
    alone = learn({name: TASKS[name] for name in "ab"}, KEYS[1:])
    assert_trees_close(
        jax.tree.map(lambda x: x[0], alone["a"].params),
        jax.tree.map(lambda x: x[1], learned["a"].params),
        atol=1e-5,
    )
    assert alone["b"].history["accuracy"].shape == (1, 2)


def test_masks_prefer_used_weights_where_others_start_lower(learned):
    few = jm.MaskConfig(2, batch_size=16, num_samples=1, learning_rate=0.01, beta=0.0, chunk_steps=2)
    first = {"a": TASKS["a"]}
    low = learn(first, config=few, new_logit=-1.0)
    # In two steps no logit comes from -1 to 0: a mask is what earlier ones use, here nothing at all.
    assert not any(m.any() for m in jax.tree.leaves(low["a"].mask))
    high = learn(first, config=few)
    assert all(m.all() for m in jax.tree.leaves(high["a"].mask))


def test_masks_are_those_of_the_estimator():
    everything = jm.gumbel_sigmoid()._replace(
        threshold=lambda logits: jax.tree.map(lambda x: jnp.ones(x.shape, bool), logits)
    )
    found = learn({"a": TASKS["a"]}, estimator=everything)
    assert all(m.all() for m in jax.tree.leaves(found["a"].mask))


def test_a_full_layer_is_warned_about_and_a_full_bias_is_not():
    few = jm.MaskConfig(1, batch_size=16, num_samples=1, learning_rate=0.01, beta=0.0, chunk_steps=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learn({name: TASKS[name] for name in "ab"}, config=few)
    said = [str(warning.message).partition(";")[0] for warning in caught]
    layers = ("layer_1", "output")
    assert said == [f"task 'b': earlier tasks use every weight of '{x}/kernel' in run 0, 1" for x in layers]


def test_other_data_are_not_taken_for_the_same(tmp_path):
    with Workdir.open(tmp_path, {}) as workdir:
        learn({"a": TASKS["a"]}, stage=workdir.stage)
        with pytest.raises(ValueError, match="data"):
            learn({"a": TASKS["b"]}, stage=workdir.stage)


def test_what_cannot_work_is_named():
    with pytest.raises(ValueError, match="bfloat16 is for frozen weights"):
        learn(config=jm.MaskConfig(1, batch_size=16, bfloat16=True))
    with pytest.raises(ValueError, match="evaluate"):
        learn(evaluate=lambda params, batch: {"accuracy": jnp.zeros(())})


def test_layers_that_are_reset_are_used_by_no_task():
    found = learn({name: TASKS[name] for name in "ab"}, reset="layer_1/.*")
    assert not any(u.any() for u in jax.tree.leaves(found["b"].used["layer_1"]))
    assert_trees_equal(found["b"].used["output"], found["a"].mask["output"])


def test_a_stopped_run_goes_on_to_the_same_end(learned, tmp_path):
    with Workdir.open(tmp_path, {}) as workdir:
        turns = learn_in_turn(
            tiny_loss, tiny_params, iter(TASKS.items()), keys=KEYS, config=CONFIG, evaluate=tiny_evaluate,
            stage=workdir.stage,
        )  # fmt: skip
        next(turns)
        next(turns)
        again = learn(stage=workdir.stage)
    assert_trees_equal(again["c"].params, learned["c"].params)
    assert_trees_equal(again["c"].mask, learned["c"].mask)


def test_only_what_is_named_is_trained():
    start = jax.vmap(tiny_params)(KEYS)
    found = jm.train_network(
        without_state(tiny_loss), start, TASKS["a"], keys=KEYS, config=jm.DenseConfig(3, 16, 3),
        optimizer=frozen_but("layer_1/.*", optax.adam(0.1)),
    ).params  # fmt: skip
    assert_trees_equal(found["output"], start["output"])
    assert not jnp.array_equal(found["layer_1"]["kernel"], start["layer_1"]["kernel"])
