"""train_network: every run is the one it is alone, layers carry what they carry, toys are learned."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.train import loops
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
    return jm.train_network(dense_loss, tiny_params, options.pop("data", tiny_data()), keys=keys, **options)


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
    ],
)
def test_bad_input_is_named(keys, options, message):
    with pytest.raises(ValueError, match=message):
        train(**({"keys": keys} | options))
