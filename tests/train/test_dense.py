"""train_network: every run is the one it is alone, layers carry what they carry, toys are learned."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.pruning import polynomial_sparsity, pruned
from jaxmod.train import dense, loops
from jaxmod.train.axes import Axes
from jaxmod.train.order import ordered_rows
from jaxmod.train.randomness import Stream, stream_key
from jaxmod.workdir import Workdir
from tests.helpers import (
    assert_trees_close,
    assert_trees_equal,
    tiny_data,
    tiny_evaluate,
    tiny_loss,
    tiny_params,
)

CONFIG = jm.DenseConfig(steps=6, batch_size=16, chunk_steps=3, eval_examples=50)
ADAM = optax.adam(1e-2)


def dense_loss(params, state, batch, key):
    """Cross-entropy of a network that counts its batches and keeps a mean of its inputs."""
    state = {"count": state["count"] + 1, "mean": 0.9 * state["mean"] + 0.1 * batch["x"].mean(0)}
    return tiny_loss(params, batch, key), (state, {"positive": jnp.mean(batch["x"] > 0)})


def train(keys, **options):
    start = {"count": np.zeros((), np.int32), "mean": np.ones(6, np.float32)}
    options = {"config": CONFIG, "optimizer": ADAM, "evaluate": tiny_evaluate, "model_state": start} | options
    init, data = options.pop("init", tiny_params), options.pop("data", tiny_data())
    options["data"] = options.pop("pool", None)
    return jm.train_network(options.pop("loss", dense_loss), init, data, keys=keys, **options)


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), 3)


@pytest.fixture(scope="module")
def together(keys):
    return train(keys)


def test_everything_has_the_runs_in_front(together):
    assert jax.tree.map(jnp.shape, together.params) == {
        "layer_1": {"kernel": (3, 6, 16), "bias": (3, 16)},
        "output": {"kernel": (3, 16, 4), "bias": (3, 4)},
    }
    assert {name: x.shape for name, x in together.history.items()} == {
        name: (3, 2) for name in ("loss", "positive", "accuracy")
    }
    kernels = together.params["layer_1"]["kernel"]
    assert (kernels[0] != kernels[1]).all()


def test_a_run_equals_itself_alone(keys, together):
    before = loops._compiled_chunk._cache_size()
    for i in (0, 2):
        alone = train(keys[i])
        assert loops._compiled_chunk._cache_size() == before + 1  # the second call finds the program
        assert alone.params["output"]["kernel"].shape == (16, 4)
        assert alone.history["loss"].shape == (2,)
        row = jax.tree.map(lambda x, i=i: x[i], together)
        assert_trees_close(row, alone, atol=1e-5)


def test_a_vector_of_one_key_keeps_its_axis(keys):
    assert train(keys[:1]).params["output"]["kernel"].shape == (1, 16, 4)


def test_the_model_state_is_carried(together):
    np.testing.assert_array_equal(together.model_state["count"], [6, 6, 6])
    mean = np.asarray(together.model_state["mean"])
    assert mean.shape == (3, 6)
    assert np.abs(mean - 0.9**6).max() < 0.5 and (mean[0] != mean[1]).all()


def test_runs_start_from_their_own_draw_and_see_sampled_batches(keys):
    def batches(key, batch_size):
        return {"x": jax.random.uniform(key, (batch_size, 6)), "y": jnp.zeros(batch_size, jnp.int32)}

    still = train(keys, data=batches, optimizer=optax.sgd(0.0), evaluate=None)
    expected = jax.vmap(lambda key: tiny_params(stream_key(key, Stream.INIT)))(keys)
    assert_trees_equal(still.params, expected)
    np.testing.assert_array_equal(still.history["positive"], 1.0)
    assert set(still.history) == {"loss", "positive"}


def test_a_toy_is_learned_and_a_finished_stage_is_only_read(tmp_path, keys, monkeypatch):
    config = jm.DenseConfig(steps=300, batch_size=32, chunk_steps=150)
    with Workdir.open(tmp_path, {}) as workdir:
        trained = train(keys[0], config=config, workdir=workdir.stage("network"))
        assert trained.history["accuracy"][-1] > 0.95
        assert trained.history["loss"][-1] < trained.history["loss"][0]
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [(line["phase"], line["task"], line["step"]) for line in lines] == [
            ("network", "network", 150), ("network", "network", 300),
        ]  # fmt: skip
        before = loops._compiled_chunk._cache_size()
        again = train(keys[0], config=config, workdir=workdir.stage("network"))
        assert loops._compiled_chunk._cache_size() == before
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
    assert_trees_equal(again, trained)


@pytest.mark.parametrize("name", ["steps", "batch_size", "chunk_steps", "eval_examples"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True, None])
def test_a_config_that_cannot_work_is_refused(name, value):
    with pytest.raises(ValueError, match=f"DenseConfig: {name} must be a positive integer, got {value!r}"):
        jm.DenseConfig(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": jnp.zeros(2, jnp.uint32)}, r"jax\.random\.key"),
        ({"data": {"x": np.ones((0, 6), np.float32)}}, "'network' has no examples"),
        ({"data": {"x": np.ones((3, 6)), "y": np.ones(2, int)}}, "'y' has 2 examples, but 'x' has 3"),
        (
            {"data": lambda key, batch_size: None, "config": jm.DenseConfig(order="fixed")},
            "order='fixed' needs a task of arrays",
        ),
        ({"init": {"w": np.ones((2, 3))}}, r"init leaf 'w' has shape \(2, 3\), expected .* of 3 runs"),
        ({"init": {"w": np.full((3, 3), np.nan)}}, "'w' holds NaN"),
        ({"init": {"w": "no array"}}, "init must be a function of a key or params"),
    ],
)
def test_bad_input_is_named(keys, options, message):
    with pytest.raises(ValueError, match=message):
        train(**({"keys": keys} | options))


def remember(params, state, batch, key):
    """Counts how often each example came, and keeps the last batch."""
    del key
    counts = state["counts"].at[batch["row"]].add(1)
    return 0.0 * jnp.sum(params["w"]), ({"counts": counts, "last": batch["row"]}, {})


def see(keys, order, size=20, batch_size=8, **options):
    start = {"counts": np.zeros(size, np.int32), "last": np.zeros(batch_size, np.int32)}
    config = jm.DenseConfig(steps=10, batch_size=batch_size, order=order, chunk_steps=4, eval_examples=5)
    options = {"data": {"row": np.arange(size, dtype=np.int32)}, "config": config} | options
    return train(
        keys,
        loss=remember, init=lambda key: {"w": jax.random.normal(key, (2,))}, evaluate=None,
        optimizer=optax.sgd(0.0), model_state=start, **options,
    ).model_state  # fmt: skip


@pytest.mark.parametrize("order", ["epochs", "fixed"])
@pytest.mark.parametrize("runs", ["map", "vmap"])
def test_every_example_comes_once_in_each_pass(keys, order, runs):
    config = jm.DenseConfig(10, 8, order=order, chunk_steps=4, eval_examples=5, axes=Axes(runs=runs))
    seen = see(keys, order, config=config)
    np.testing.assert_array_equal(seen["counts"], 4)  # 10 batches of 8 are 4 passes over 20
    for i, key in enumerate(keys):
        expected = ordered_rows(order, stream_key(key, Stream.ORDER), jnp.int32(9), 8, jnp.int32(20))
        np.testing.assert_array_equal(seen["last"][i], expected)
    if order == "epochs":
        assert len({tuple(last) for last in seen["last"].tolist()}) == 3
    else:
        np.testing.assert_array_equal(seen["last"], np.broadcast_to(np.arange(12, 20), (3, 8)))


def test_at_random_examples_come_with_replacement(keys):
    assert len(np.unique(see(keys, "random")["counts"])) > 3


def test_passes_over_rows_of_a_pool(keys):
    rows = np.array([3, 5, 8, 13])
    seen = see(keys[0], "epochs", data=rows, pool={"row": np.arange(20, dtype=np.int32)})
    assert np.flatnonzero(seen["counts"]).tolist() == rows.tolist()
    np.testing.assert_array_equal(seen["counts"][rows], 20)


def test_a_run_stopped_in_the_middle_of_a_pass_goes_on_bit_for_bit(keys, tmp_path, monkeypatch):
    class Stops:
        def __init__(self, label, steps):
            pass

        def update(self, step, metrics):
            raise KeyboardInterrupt

    sparse = pruned(optax.adam(1e-2), polynomial_sparsity(steps=12), every=3)
    # A batch of 24 of 200 examples: the checkpoint after step 4 is in the middle of the first pass.
    options = {
        "config": jm.DenseConfig(12, 24, order="epochs", chunk_steps=4, eval_examples=9),
        "optimizer": sparse,
    }
    expected = train(keys, **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dense, "Progress", Stops)
        train(keys, workdir=tmp_path, progress=True, **options)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert_trees_equal(train(keys, workdir=tmp_path, **options), expected)
    other = options | {"config": dataclasses.replace(options["config"], order="fixed")}
    with pytest.raises(ValueError, match="order"):
        train(keys, workdir=tmp_path, **other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "sorted"}, "order must be one of random, epochs, fixed, got 'sorted'"),
        ({"order": "epochs", "steps": 2**25 + 1}, r"more than 2\*\*32 examples"),
    ],
)
def test_an_order_that_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jm.DenseConfig(**options)
    jm.DenseConfig(steps=2**25 + 1)
    jm.DenseConfig(steps=2**25, order="epochs")


@pytest.mark.parametrize("runs", ["map", "vmap"])
def test_a_second_phase_goes_on_from_the_first_and_prunes(keys, together, runs):
    config = dataclasses.replace(CONFIG, steps=30, chunk_steps=15, order="epochs", axes=Axes(runs=runs))
    sparse = pruned(optax.adam(1e-2, eps=1e-7), polynomial_sparsity(steps=30))
    phase = train(keys, init=together.params, config=config, optimizer=sparse)
    for name, kept in (("layer_1", 10), ("output", 6)):
        kernels = np.asarray(phase.params[name]["kernel"])
        assert ((kernels != 0).sum(axis=(1, 2)) <= kept + 5).all()
        assert (np.asarray(phase.params[name]["bias"]) != 0).all()
    alone = train(
        keys[1], init=jax.tree.map(lambda x: x[1], together.params), config=config, optimizer=sparse
    )
    assert_trees_close(jax.tree.map(lambda x: x[1], phase), alone, atol=1e-5)
    # What was given is still there, and was the start.
    still = train(keys, init=together.params, optimizer=optax.sgd(0.0))
    assert_trees_equal(still.params, together.params)
    assert_trees_equal(train(keys, init=jax.tree.map(np.asarray, together.params), config=config,
                             optimizer=sparse).params, phase.params)  # fmt: skip


def test_params_that_can_be_called_are_params(keys):
    @jax.tree_util.register_pytree_node_class
    class Model(dict):
        def __call__(self, x):
            raise AssertionError("called")

        def tree_flatten(self):
            return (self["layer_1"], self["output"]), None

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls(layer_1=children[0], output=children[1])

    model = Model(tiny_params(keys[0]))
    trained = train(keys[0], init=model, optimizer=optax.sgd(0.0))
    assert isinstance(trained.params, Model)
    assert_trees_equal(dict(trained.params), dict(model))
