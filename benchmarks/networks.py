"""The networks whose steps are timed: those of the paper's experiments, on data of the right shape.

Masks lie on kernels alone, here and in `torch_step`. Experiments mask the norms of a Transformer and the
biases of image networks too, less than 1% of their weights.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmod.data.arithmetic import load_addmul
from jaxmod.losses import digit_cross_entropy
from jaxmod.models.arithmetic import addmul_network
from jaxmod.models.cnn import SimpleCNN
from jaxmod.models.fnn import FNN, SIZES
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.models.resnet import ResNet110
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer, TransformerConfig
from jaxmod.sequences import sequence_cross_entropy

__all__ = ["NETWORKS", "Network"]

EXAMPLES = 2048
SMALL, LARGE = {"cpu": 2.0, "gpu": 1.5}, {"cpu": 1.2, "gpu": 1.2}


class Network(NamedTuple):
    """A network, its loss, and how its steps are timed."""

    init: Callable[[jax.Array], Any]
    """`init(key) -> params`."""
    loss_fn: Callable[..., jax.Array]
    """`loss_fn(params, batch, key) -> scalar`."""
    examples: Callable[[], Any]
    """The data that batches are drawn from."""
    batch_size: int
    chunk_steps: int
    """Steps in a timed call: about half a second."""
    targets: dict[str, float]
    """The most that a masked step (S = 4) may cost in dense steps, by platform."""
    torch_targets: dict[str, float]
    """How many times PyTorch's speed a masked step should have at least, by platform; empty: not in
    `torch_step`."""


def arithmetic(model: FNN | LSTMClassifier, chunk_steps: int, times_torch: float = 5) -> Network:
    """Returns a network of the addition/multiplication experiment."""
    network = addmul_network(model)
    examples = functools.partial(load_addmul, "train", EXAMPLES)
    faster = {"cpu": times_torch, "gpu": 5}
    return Network(network.init, network.loss_fn, examples, 128, chunk_steps, SMALL, faster)


def images(model: Any, chunk_steps: int, times_torch: float | None = None) -> Network:
    """Returns a network for images of CIFAR-10's size."""

    def init(key):
        return model.init(key, jnp.zeros((1, 32, 32, 3)))

    def loss_fn(variables, batch, key):
        del key
        outputs = model.apply(variables, batch["images"])
        return jnp.mean(digit_cross_entropy(outputs[:, None], batch["labels"][:, None]))

    def examples():
        random = np.random.default_rng(0)
        pixels = random.standard_normal((EXAMPLES, 32, 32, 3), np.float32)
        return {"images": pixels, "labels": random.integers(0, 10, EXAMPLES)}

    faster = {"cpu": times_torch, "gpu": 3.0} if times_torch else {}
    return Network(init, loss_fn, examples, 128, chunk_steps, LARGE, faster)


def sequences(
    model: Any, vocabulary: int, steps: tuple[int, int], chunk_steps: int, times_torch: float = 2
) -> Network:
    """Returns an encoder-decoder on sequences of the longest length, the decoder fed the target."""

    def apply(params, batch):
        lengths = (jnp.full(len(batch[side]), batch[side].shape[1]) for side in ("source", "target"))
        source_length, target_length = lengths
        return model.apply(
            params, batch["source"], source_length, batch["target"], target_length
        ), target_length

    def init(key):
        source, target = (jnp.zeros((1, n), jnp.int32) for n in steps)
        return model.init(key, source, jnp.full(1, steps[0]), target, jnp.full(1, steps[1]))

    def loss_fn(params, batch, key):
        del key
        outputs, target_length = apply(params, batch)
        return jnp.mean(sequence_cross_entropy(outputs, batch["target"], target_length))

    def examples():
        random = np.random.default_rng(0)
        return {
            side: random.integers(0, vocabulary, (EXAMPLES, n), np.int32)
            for side, n in zip(("source", "target"), steps, strict=True)
        }

    faster = {"cpu": times_torch, "gpu": 3}
    return Network(init, loss_fn, examples, 256, chunk_steps, LARGE, faster)


NETWORKS = {
    "fnn-400-400-200": arithmetic(FNN(SIZES["small"], outputs=20), chunk_steps=200, times_torch=8),
    "fnn-2000x4": arithmetic(FNN(SIZES["big"], outputs=20), chunk_steps=8, times_torch=15),
    "lstm-2x256": arithmetic(LSTMClassifier(256, layers=2, outputs=20), chunk_steps=40),
    "cnn": images(SimpleCNN(outputs=10, dropout=False), chunk_steps=8, times_torch=1.5),
    "transformer": sequences(
        Transformer(config=TransformerConfig(dropout=0.0)),
        vocabulary=6,
        steps=(10, 40),
        chunk_steps=2,
    ),
    "seq2seq": sequences(
        Seq2SeqLSTM(dropout=0.0), vocabulary=6, steps=(10, 41), chunk_steps=2, times_torch=1.5
    ),
    "resnet-110": images(ResNet110(outputs=10), chunk_steps=1),
}
"""By name. No dropout: it would cost the same in dense and masked steps, and hide the difference."""
