"""Tasks: drawn like NumPy would from the same rows, whatever their kind; errors before any work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.train.tasks import make_source
from tests.helpers import assert_trees_equal, tiny_data, two_tasks


def draw(source, key, task, size=64):
    return source.draw(key, jax.tree.map(lambda x: x[task], source.task), source.pool, size)


def test_arrays_are_drawn_from_their_own_task(key):
    tasks = two_tasks()
    source = make_source(tasks)
    for i, task in enumerate(tasks.values()):
        rows = np.asarray(jax.random.randint(key, (64,), 0, len(task["y"])))
        assert_trees_equal(draw(source, key, i), jax.tree.map(lambda x, rows=rows: x[rows], task))


def test_rows_of_a_pool_give_the_batches_of_the_arrays_they_select(key):
    pool = tiny_data()
    even, few = np.arange(0, 200, 2), np.array([3, 5, 199])
    by_rows = make_source({"even": even, "few": few}, data=pool)
    arrays = {
        name: jax.tree.map(lambda x, r=rows: x[r], pool) for name, rows in (("even", even), ("few", few))
    }
    by_arrays = make_source(arrays)
    for i in range(2):
        assert_trees_equal(draw(by_rows, key, i), draw(by_arrays, key, i))


def test_functions_make_their_own_batches_and_may_read_the_pool(key):
    pool = tiny_data()

    def ones(key, batch_size):
        return {"x": jnp.ones((batch_size, 6)), "y": jax.random.randint(key, (batch_size,), 0, 4)}

    def head(key, batch_size, data):
        del key
        return {"x": data["x"][:batch_size], "y": data["y"][:batch_size]}

    source = make_source({"ones": ones, "head": head}, data=pool)
    assert_trees_equal(draw(source, key, 0), ones(key, 64))
    assert_trees_equal(draw(source, key, 1), jax.tree.map(lambda x: jnp.asarray(x[:64]), pool))


def test_functions_may_take_the_key_that_runs_share(key):
    def shared(key, batch_size, shared_key=None):
        del key
        return {"drawn": jnp.full(batch_size, -1.0 if shared_key is None else jax.random.uniform(shared_key))}

    source = make_source({"shared": shared})
    both = jax.random.key(5)
    given = source.draw(key, jax.tree.map(lambda x: x[0], source.task), source.pool, 3, both)
    assert given["drawn"].tolist() == [jax.random.uniform(both)] * 3
    assert draw(source, key, 0, 3)["drawn"].tolist() == [-1] * 3


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            lambda key, batch_size, data: {},
            "task 'made' cannot be called: missing a required argument: 'data'",
        ),
        (
            lambda key, batch_size, shared_key: {},
            "'shared_key'.*shared_key=None, which has to have a default",
        ),
        (lambda key: {}, "task 'made' cannot be called: too many positional arguments"),
    ],
)
def test_functions_with_parameters_that_nothing_fills_are_named(task, message):
    with pytest.raises(ValueError, match=message):
        make_source({"made": task})


def test_batches_do_not_depend_on_the_other_tasks(key):
    tasks = two_tasks()
    together = make_source(dict(reversed(tasks.items())))
    alone = make_source({"forward": tasks["forward"]})
    assert_trees_equal(draw(together, key, 1), draw(alone, key, 0))


@pytest.mark.parametrize(
    ("tasks", "data", "message"),
    [
        ({}, None, "at least one named task"),
        ({"a": {"x": np.ones((0, 2))}}, None, "'a' has no examples"),
        ({"a": {"x": np.ones((3, 2)), "y": np.ones(4)}}, None, "'y' has 4 examples, but 'x' has 3"),
        ({"a": {"x": np.float32(1)}}, None, "'x' is a scalar"),
        ({"a": {}}, None, "holds no arrays"),
        ({"a": {"x": np.ones(2)}, "b": {"z": np.ones(2)}}, None, "'a' and 'b' differ in structure"),
        ({"a": {"x": np.ones((2, 3))}, "b": {"x": np.ones((2, 4))}}, None, "differ at leaf 'x'"),
        ({"a": {"x": np.ones(2)}, "b": {"x": np.ones(2, int)}}, None, "differ at leaf 'x'"),
        ({"a": np.array([0, 9])}, {"x": np.ones(3)}, "'a' has row 9, but data has 3"),
        ({"a": np.array([-1])}, {"x": np.ones(3)}, "'a' has row -1"),
        ({"a": np.array([True, False, True])}, {"x": np.ones(3)}, "np.flatnonzero"),
        ({"a": {"x": np.ones(3)}}, {"x": np.ones(3)}, "'a' is a pytree; with data given"),
        ({"a": np.array([], int)}, {"x": np.ones(3)}, "'a' has no examples"),
        (
            {"a": np.array([0]), "b": lambda key, batch_size: None},
            {"x": np.ones(3)},
            "mixes functions and arrays",
        ),
    ],
)
def test_bad_tasks_are_named(tasks, data, message):
    with pytest.raises(ValueError, match=message):
        make_source(tasks, data)
