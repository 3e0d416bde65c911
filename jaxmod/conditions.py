"""The networks of Filan et al. 2020 by condition: data, dropout, epochs; trained, then trained on and pruned.

Facts and defaults are those of the paper, and where it is silent of its code: Adam with rate 1e-3 and eps
1e-7, batches of 128, every example once an epoch, 20 epochs without pruning, then 20 with a fresh Adam while
the sparsity of every layer's kernel rises from 0.5 to 0.9. An epoch counts ceil(examples / 128) steps.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from jaxmod.configs import check_choice
from jaxmod.data.images import CLASSES, Images
from jaxmod.data.variants import load_dataset
from jaxmod.models.mlp import MLP
from jaxmod.pruning import polynomial_sparsity, pruned
from jaxmod.train.dense import DenseConfig, train_network
from jaxmod.train.order import Order
from jaxmod.types import Batch, Params
from jaxmod.workdir import Workdir

__all__ = [
    "CONDITIONS",
    "PHASES",
    "Condition",
    "Networks",
    "Training",
    "accuracy",
    "check_clusters",
    "check_conditions",
    "data_notes",
    "load",
    "make_model",
    "num_pixels",
    "scale",
    "schedule",
    "train_networks",
]

PHASES = ("unpruned", "pruned")
_CHUNKS = 20


class Condition(NamedTuple):
    """What a network is trained on, and for how long."""

    dataset: str
    dropout: float
    """Of the hidden layers' values, in both phases."""
    epochs: tuple[int, int] = (20, 20)
    """Without pruning, then with."""
    order: Order = "epochs"
    examples: int | None = None
    """How many of the training examples are used, from the first; None: all."""


def _conditions() -> dict[str, Condition]:
    half = {"mnist": (20, 20), "fashion_mnist": (20, 20), "lines": (20, 20), "random": (20, 20)}
    half |= {"lines-mnist": (20, 20), "lines-mnist-sep": (20, 20)}
    fifth = {f"{name}-cifar10{end}": (30, 40) for name in ("lines", "mnist") for end in ("", "-sep")}
    found = {
        "digits": Condition("digits", 0.0, (60, 60)),
        "digits-dropout": Condition("digits", 0.5, (60, 60)),
    }
    for rate, epochs in ((0.5, half), (0.2, fifth)):
        for name, both in epochs.items():
            found[name] = Condition(name, 0.0, both)
            found[f"{name}-dropout"] = Condition(name, rate, both)
    # The paper mentions only the 40 epochs; its code has 100 before them where there is dropout.
    found["cifar10"] = Condition("cifar10", 0.0, (20, 40))
    found["cifar10-dropout"] = Condition("cifar10", 0.2, (100, 40))
    found["cifar10-dropout-0.5"] = Condition("cifar10", 0.5, (20, 40))
    for rate, end in ((0.0, ""), (0.5, "-dropout")):
        found[f"kilo-epoch{end}"] = Condition("random", rate, (1000, 20))
        found[f"memorization{end}"] = Condition("random", rate, (100, 100), "fixed", 3000)
    return found


CONDITIONS = _conditions()
"""By name: a data set, with `-dropout` where there is any; random data in two more ways. The epochs on the
digits are ours: there are few of them, so that it takes more passes."""


@dataclasses.dataclass(frozen=True)
class Training:
    """How the networks are trained, whatever the condition."""

    hidden: tuple[int, ...] = (256,) * 4
    epochs: float = 1.0
    """Times those of the condition."""
    learning_rate: float = 1e-3
    batch_size: int = 128
    sparsity: float = 0.9
    """At the end of the pruning."""
    prune_every: int = 10
    """Steps between two looks at which weights to prune."""


class Networks(NamedTuple):
    """The networks of a condition, leading runs axis."""

    params: dict[str, Params]
    """By phase."""
    running_accuracy: dict[str, np.ndarray]
    """By phase, `[runs]`: on the training examples during the last twentieth, dropout active."""


def load(condition: Condition) -> Images:
    """Returns the images of a condition, its training examples alone.

    Raises:
      FileNotFoundError or ValueError: as `load_dataset`.
    """
    images = load_dataset(condition.dataset)
    return images._replace(
        x_train=images.x_train[: condition.examples], y_train=images.y_train[: condition.examples]
    )


def data_notes(sources: Mapping[str, str]) -> list[str]:
    """Returns for the notes of results what the data of each condition are, from their `Images.source`."""
    return [f"Data of {name}: {source}." for name, source in sources.items()]


def num_pixels(condition: Condition) -> int:
    """Returns the inputs of a condition's networks: `load_dataset` has all images but the digits in 28x28."""
    return 8 * 8 if condition.dataset == "digits" else 28 * 28


def check_conditions(field: str, names: Sequence[str], training: Training = Training()) -> None:
    """Raises ValueError unless the field of a config names conditions, each once, that can be trained.

    Their data must be there and right, and the steps few enough to be counted.
    """
    for name in names or ("",):
        check_choice(field, name, CONDITIONS)
    if len(set(names)) < len(names):
        raise ValueError(f"{field}={','.join(names)}: expected each of them once.")
    by_data: dict[tuple[str, int | None], list[Condition]] = {}
    for condition in (CONDITIONS[name] for name in names):
        by_data.setdefault((condition.dataset, condition.examples), []).append(condition)
    for some in by_data.values():
        try:
            examples = len(load(some[0]).x_train)
        except OSError as error:
            raise ValueError(str(error)) from error
        for condition in some:
            try:
                schedule(condition, examples, training)
            except ValueError as error:
                raise ValueError(f"epochs={training.epochs}: {error}") from error


def check_clusters(field: str, k: int, names: Sequence[str], hidden: Sequence[int]) -> None:
    """Raises ValueError unless the networks of all conditions have more neurons than there are clusters.

    Needs no data. Unknown names are for `check_conditions` to refuse.
    """
    for name in (name for name in names if name in CONDITIONS):
        neurons = num_pixels(CONDITIONS[name]) + sum(hidden) + CLASSES
        if not 2 <= k < neurons:
            raise ValueError(
                f"{field}={k}: expected 2 clusters or more, and fewer than the {neurons} neurons of {name}."
            )


def schedule(condition: Condition, examples: int, training: Training) -> list[DenseConfig]:
    """Returns how each phase is trained: 9380 steps on the 60,000 examples of MNIST, as in the paper.

    About twenty chunks of equal length, of one epoch each as a rule; the last may be shorter.

    Raises:
      ValueError: more steps than can be counted.
    """
    found = []
    for epochs in condition.epochs:
        steps = max(1, round(training.epochs * epochs * math.ceil(examples / training.batch_size)))
        chunk_steps = math.ceil(steps / _CHUNKS)
        found.append(DenseConfig(steps, training.batch_size, order=condition.order, chunk_steps=chunk_steps))
    return found


def make_model(condition: Condition, training: Training) -> MLP:
    """Returns the perceptron of a condition."""
    return MLP(training.hidden, CLASSES, condition.dropout)


def scale(images: Array) -> Float[Array, "batch pixels"]:
    """Returns pixels of 0 to 255 as numbers in [0, 1], one row an image."""
    return images.reshape(images.shape[0], -1).astype(jnp.float32) / 255


def train_networks(
    name: str,
    images: Images,
    keys: Key[Array, " runs"],
    training: Training = Training(),
    workdir: Workdir | None = None,
    progress: bool = False,
) -> Networks:
    """Returns a network per key before and after pruning, all trained in one program.

    Args:
      name: of the condition, in `CONDITIONS`.
      images: from `load`.
      keys: a vector.
      training: sizes and rates.
      workdir: of the experiment; each phase is a stage of it.
      progress: report every epoch.

    Raises:
      NonFiniteError: a run turned NaN.
    """
    condition = CONDITIONS[name]
    model: Any = make_model(condition, training)
    loss, init = _functions(model, images.x_train.shape[1:])
    examples = {"image": images.x_train, "label": images.y_train}
    params, start, running = {}, init, {}
    for phase, config in zip(PHASES, schedule(condition, len(images.x_train), training), strict=True):
        adam = optax.adam(training.learning_rate, eps=1e-7)  # Keras' eps
        if phase == "pruned":
            adam = pruned(
                adam,
                polynomial_sparsity(steps=config.steps, end=training.sparsity),
                every=training.prune_every,
            )
        trained = train_network(
            loss,
            start,
            examples,
            keys=jax.vmap(functools.partial(jax.random.fold_in, data=PHASES.index(phase)))(keys),
            config=config,
            optimizer=adam,
            workdir=workdir.stage(f"{name}, {phase}") if workdir else None,
            progress=progress,
        )
        params[phase] = start = trained.params
        running[phase] = trained.history["accuracy"][:, -1]
    return Networks(params, running)


@functools.lru_cache(maxsize=64)  # the same functions again, so that no program is compiled twice
def _functions(model: MLP, shape: tuple[int, ...]) -> tuple[Any, Any]:
    def init(key: Key[Array, ""]) -> Params:
        return model.init(key, scale(jnp.zeros((1, *shape), jnp.uint8)))["params"]

    def loss(params: Params, state: Any, batch: Batch, key: Key[Array, ""]):
        x = scale(batch["image"])
        logits: Any = model.apply({"params": params}, x, train=True, rngs={"dropout": key})
        right = jnp.argmax(logits, axis=-1) == batch["label"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(losses), (state, {"accuracy": jnp.mean(right)})

    return loss, init


def accuracy(model: MLP, params: Params, images: Array, labels: Array) -> Float[np.ndarray, " runs"]:
    """Returns the part of the images that each network gets right, no dropout; params have a runs axis."""
    return np.asarray(_accuracy(model, params, jnp.asarray(images), jnp.asarray(labels)))


@functools.partial(jax.jit, static_argnums=0)
def _accuracy(model: MLP, params: Params, images: Array, labels: Array) -> Float[Array, " runs"]:
    x = scale(images)

    def one(params: Params) -> Array:
        logits: Any = model.apply({"params": params}, x)
        return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

    return lax.map(one, params)
