"""What an experiment's config says: checks of its values, keys, model, how networks and masks are trained.

A field means the same in every config that has it: `seed`, `seeds`, `model`, `hidden`, `lstm_hidden`,
`network_steps`, `network_learning_rate`, `mask_steps`, `mask_learning_rate`, `batch_size`, `num_samples`,
`beta`, `estimator`, `top_q`, `temperature`, `noise`, `rao_blackwell`, `bfloat16`, `clip_norm`, `chunk_steps`.
Not every experiment has them all, hence `config: Any`.
"""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

import jax
import optax
from jaxtyping import Array, Key

from jaxmod import reports
from jaxmod.edge_popup import edge_popup
from jaxmod.estimators import gumbel_sigmoid
from jaxmod.find import MaskConfig
from jaxmod.hard_concrete import hard_concrete
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.noise import Generator
from jaxmod.train.dense import DenseConfig
from jaxmod.types import Estimator

__all__ = [
    "KEY_IMPL",
    "check_choice",
    "check_positive",
    "check_training",
    "make_estimator",
    "make_model",
    "mask_config",
    "network_config",
    "network_optimizer",
    "run_keys",
]

KEY_IMPL = "threefry2x32"
"""The generator of all keys, whatever JAX's default is set to."""

_SETTINGS = {
    "gumbel_sigmoid": ("temperature", "noise", "rao_blackwell"),
    "edge_popup": ("top_q",),
    "hard_concrete": ("noise",),
}
"""The fields of a config that each estimator of masks takes."""


def run_keys(config: Any) -> tuple[Key[Array, " runs"], Key[Array, ""]]:
    """Returns a key per run, `seeds` in all, and one more for what is drawn after the training."""
    key = jax.random.key(config.seed, impl=KEY_IMPL)
    return jax.random.split(key, config.seeds), jax.random.fold_in(key, 2**31)


def make_model(config: Any, outputs: int) -> FNN | LSTMClassifier:
    """Returns the FNN or the two-layer LSTM that `model` names."""
    if config.model == "fnn":
        return FNN(config.hidden, outputs)
    return LSTMClassifier(config.lstm_hidden, layers=2, outputs=outputs)


def network_config(config: Any, views: int = 1) -> DenseConfig:
    """Returns how the networks are trained; `views` as in `mask_config`."""
    return DenseConfig(config.network_steps, config.batch_size * views, config.chunk_steps, seed=config.seed)


def network_optimizer(config: Any) -> optax.GradientTransformation:
    """Returns what trains the networks: clipping by global norm, then Adam."""
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(config.network_learning_rate))


def mask_config(config: Any, views: int = 1, beta: float | None = None) -> MaskConfig:
    """Returns how the masks are trained.

    Args:
      config: of an experiment.
      views: how often the network sees each example. The batch holds all views of `batch_size` examples,
        each view has `num_samples` masks, and alpha stays `beta / config.batch_size`.
      beta: `config.beta`, if not given.
    """
    return MaskConfig(
        steps=config.mask_steps,
        batch_size=config.batch_size * views,
        num_samples=config.num_samples * views,
        learning_rate=config.mask_learning_rate,
        beta=(config.beta if beta is None else beta) * views,
        clip_norm=config.clip_norm,
        chunk_steps=config.chunk_steps,
        bfloat16=config.bfloat16,
        seed=config.seed,
    )


def make_estimator(config: Any) -> Estimator:
    """Returns the estimator of the masks, which `estimator` names.

    Rates that fit one of them need not fit another: `experiments.planted` has those that did best there,
    1e-3 with Adam for the scores of `edge_popup`. `hard_concrete` has the temperature of its paper, 2/3; its
    penalty is smaller than that of `gumbel_sigmoid`, so that beta may be larger.

    Raises:
      ValueError: there is none of this name, it refuses a value, or the config sets what it does not take.
    """
    check_choice("estimator", config.estimator, _SETTINGS)
    for other, settings in _SETTINGS.items():
        for field in set(settings) - set(_SETTINGS[config.estimator]):
            default = getattr(type(config), field, None)  # not every config has it
            if getattr(config, field, None) != default:
                raise ValueError(
                    f"{field}={getattr(config, field)} does not go with estimator={config.estimator}; leave "
                    f"it at {default}, or choose estimator={other}."
                )
    if config.estimator == "edge_popup":
        return edge_popup(config.top_q)
    if config.estimator == "hard_concrete":
        return hard_concrete(noise=config.noise)
    return gumbel_sigmoid(
        temperature=config.temperature, noise=config.noise, rao_blackwell=config.rao_blackwell
    )


def check_training(config: Any, fewest_layers: int = 1) -> None:
    """Raises ValueError for values with which no FNN or LSTM, or no mask, can be trained.

    Args:
      config: of an experiment.
      fewest_layers: hidden layers that an FNN needs; 2, where there must be a layer between the outer ones.
    """
    check_choice("model", config.model, ("fnn", "lstm"))
    check_choice("noise", config.noise, get_args(Generator))
    check_positive(
        config, "hidden", "lstm_hidden", "seeds", "network_learning_rate", "clip_norm", "temperature"
    )
    if config.model == "fnn" and len(config.hidden) < fewest_layers:
        raise ValueError(
            f"hidden={reports.format_value(config.hidden)}: expected {fewest_layers} sizes or more, for a "
            "layer between the outer ones."
        )
    for build in (network_config, mask_config, make_estimator):
        build(config)  # they check their own values


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raises ValueError unless `value` is one of `allowed`; the message has the closest one first."""
    allowed = list(allowed)
    if value in allowed:
        return
    close = difflib.get_close_matches(value, allowed, n=1)
    ordered = close + [choice for choice in allowed if choice not in close]
    shown = f"{name}{value}" if name.startswith("--") else f"{name}={value!r}"
    raise ValueError(f"{shown}: expected {'one of ' if len(ordered) > 1 else ''}{', '.join(ordered)}.")


def check_positive(config: Any, *fields: str) -> None:
    """Raises ValueError unless each of these fields of `config`, or each of its numbers, is above 0.

    And unless its `seed`, where it has one, is 0 or more: every experiment asks this question.
    """
    if getattr(config, "seed", 0) < 0:
        raise ValueError(f"seed={config.seed}: expected 0 or more.")
    for field in fields:
        value = getattr(config, field)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(number > 0 for number in numbers):
            what = "one or more numbers" if isinstance(value, tuple) else "a number"
            raise ValueError(f"{field}={reports.format_value(value)}: expected {what} above 0.")
