"""What configs say to the engine, and which values are refused."""

import dataclasses
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod import configs
from jaxmod.models import FNN, LSTMClassifier


@dataclasses.dataclass
class Config:
    model: str = "fnn"
    hidden: tuple[int, ...] = (8, 4)
    lstm_hidden: int = 3
    seeds: int = 3
    seed: int = 5
    network_steps: int = 100
    network_learning_rate: float = 0.5
    mask_steps: int = 200
    mask_learning_rate: float = 0.25
    batch_size: int = 32
    num_samples: int = 4
    beta: float = 1e-3
    estimator: str = "gumbel_sigmoid"
    top_q: float = 0.05
    temperature: float = 2.0
    noise: str = "mix32"
    rao_blackwell: bool = False
    bfloat16: bool = False
    clip_norm: float = 2.0
    chunk_steps: int = 50


def test_keys_are_distinct_and_jax_s_settings_do_not_change_them():
    keys, control = configs.run_keys(Config())
    data = np.stack([*jax.random.key_data(keys), jax.random.key_data(control)])
    assert len(np.unique(data, axis=0)) == 4
    with jax.default_prng_impl("rbg"):
        again, _ = configs.run_keys(Config())
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(keys))
    assert str(jax.random.key_impl(keys)) == configs.KEY_IMPL


def test_the_model_is_the_one_that_is_named():
    assert configs.make_model(Config(), outputs=7) == FNN((8, 4), outputs=7)
    lstm = configs.make_model(Config(model="lstm"), outputs=7)
    assert lstm == LSTMClassifier(3, layers=2, outputs=7)


def test_networks_and_masks_are_trained_as_the_fields_say():
    assert configs.network_config(Config()) == jm.DenseConfig(
        steps=100, batch_size=32, chunk_steps=50, seed=5
    )
    assert configs.mask_config(Config()) == jm.MaskConfig(
        steps=200, batch_size=32, num_samples=4, learning_rate=0.25, beta=1e-3, clip_norm=2.0, chunk_steps=50,
        seed=5,
    )  # fmt: skip
    assert configs.make_estimator(Config()) is jm.gumbel_sigmoid(temperature=2.0)


def test_the_estimator_is_the_one_that_is_named():
    assert configs.make_estimator(Config(estimator="edge_popup", top_q=0.2)) is jm.edge_popup(0.2)
    hard = configs.make_estimator(Config(estimator="hard_concrete", noise="jax"))
    assert hard is jm.hard_concrete(noise="jax")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"estimator": "edge-popup"}, "estimator='edge-popup': expected one of edge_popup"),
        (
            {"estimator": "edge_popup", "rao_blackwell": True},
            "rao_blackwell=True does not go with estimator=edge_popup; leave it at False, or choose "
            "estimator=gumbel_sigmoid.",
        ),
        ({"estimator": "hard_concrete", "temperature": 1.0}, "temperature=1.0 does not go .* at 2.0"),
        ({"estimator": "edge_popup", "noise": "jax"}, "noise=jax does not go with estimator=edge_popup"),
        ({"top_q": 0.1}, "top_q=0.1 does not go with estimator=gumbel_sigmoid; .* estimator=edge_popup"),
        ({"estimator": "edge_popup", "top_q": 0.0}, "q must be above 0 and at most 1"),
    ],
)
def test_settings_that_the_estimator_does_not_take_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        configs.check_training(Config(**values))


def test_each_view_has_its_samples_and_alpha_stays():
    one, two = configs.mask_config(Config()), configs.mask_config(Config(), views=2)
    assert (two.batch_size, two.num_samples) == (64, 8)
    assert float(two.beta) / two.batch_size == float(one.beta) / one.batch_size
    assert configs.network_config(Config(), views=2).batch_size == 64


def test_the_networks_gradient_is_clipped_before_adam():
    def last_update(tx, *gradients):
        state, update = tx.init(jnp.zeros(())), None
        for gradient in gradients:
            update, state = tx.update(jnp.float32(gradient), state)
        return float(update)

    ours = last_update(configs.network_optimizer(Config()), 100, 1)
    assert ours == pytest.approx(last_update(optax.adam(0.5), 2, 1), rel=1e-6)
    assert ours != pytest.approx(last_update(optax.adam(0.5), 100, 1), rel=1e-2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "lstn"}, "model='lstn': expected one of lstm, fnn."),
        ({"hidden": (8, 0)}, "hidden=8,0: expected one or more numbers above 0."),
        ({"hidden": (8,)}, "hidden=8: expected 2 sizes or more"),
        ({"lstm_hidden": 0}, "lstm_hidden=0: expected a number above 0."),
        ({"network_steps": 0}, "steps must be a positive integer, got 0"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=32"),
    ],
)
def test_what_cannot_be_trained_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        configs.check_training(Config(**values), fewest_layers=2)


def test_one_layer_is_enough_unless_more_are_needed():
    configs.check_training(Config(hidden=(8,)))
    configs.check_training(Config(hidden=(8,), model="lstm"), fewest_layers=2)


EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[1] / "experiments").glob("*.py"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_refuses_a_seed_below_zero(name):
    experiment = importlib.import_module(f"experiments.{name}")
    config = dataclasses.replace(next(iter(experiment.PRESETS.values())), seed=-1)
    with pytest.raises(ValueError, match="seed=-1: expected 0 or more"):
        experiment.validate(config)
