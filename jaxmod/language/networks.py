"""Sequence models for `train_network` and `find_modules`: losses, what is masked, greedy decoding.

Examples are `source`, `source_length`, `target` and `target_length` (`jaxmod.data.tokens`), and `bucket`
beside them where short ones are not to pay for the longest (`jaxmod.language.buckets`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Key, UInt8

from jaxmod import trees
from jaxmod.models import transformer
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer
from jaxmod.sequences import sequence_cross_entropy, sequence_right
from jaxmod.train import devices
from jaxmod.types import Batch, Params

__all__ = ["Functions", "is_right", "make_functions", "make_optimizer", "predict"]

_AT_ONCE = 512
_COIN = 0  # of what is drawn from the shared key; buckets have 1


class Functions(NamedTuple):
    """A sequence model as pure functions."""

    init: Any
    """`key -> params`."""
    dense_loss: Any
    """`(params, state, batch, key, shared_key) -> (loss, (state, metrics))`, with dropout."""
    mask_loss: Any
    """`(params, batch, key, shared_key) -> loss`: without dropout, teacher forcing as in training."""
    evaluate: Any
    """`(params, batch) -> {"accuracy": [batch]}`: whether a greedy answer is right as a whole."""
    decode: Any
    """`(params, batch, steps) -> tokens [batch, steps]`, greedily."""
    where: str
    """What is masked: no embeddings, no biases but those of LayerNorm."""
    end: int
    """The end token."""


@functools.lru_cache(maxsize=16)  # the same functions again, so that no program is compiled twice
def make_functions(
    model: Any,  # a module is not hashable for type checkers
    forcing: float = 0.5,
    shapes: tuple[tuple[int, int], ...] = (),
) -> Functions:
    """Returns a model's functions.

    The loss is the cross-entropy summed over the tokens of a target and its end, mean over the batch.

    Args:
      model: a `Seq2SeqLSTM` or a `Transformer`.
      forcing: how often a batch feeds the LSTM its target, in training as under masks; a coin decides,
        which all runs share. Else it reads its own argmax. A Transformer is always fed its target.
      shapes: steps of source and target in each bucket; none: there are no buckets.
    """
    if not isinstance(model, Seq2SeqLSTM | Transformer):
        raise ValueError(f"model must be a Seq2SeqLSTM or a Transformer, got {model!r}.")
    in_time = isinstance(model, Seq2SeqLSTM)
    end = model.target_vocabulary

    def init(key: Key[Array, ""]) -> Params:
        one = jnp.ones((1, 1), jnp.int32)
        return model.init(key, one * 0, one[0], one * 0, one[0])["params"]

    def mean_loss(
        params: Params, batch: Batch, shared_key: Key[Array, ""], train: bool = False, **drawn: Any
    ) -> Array:
        if in_time:
            coin = jax.random.bernoulli(jax.random.fold_in(shared_key, _COIN), forcing)
            drawn["teacher_forcing"] = coin

        def of_shape(shape: tuple[int, int], params: Params, batch: Batch, drawn: dict[str, Any]) -> Array:
            source, target = (batch[side][:, :n] for side, n in zip(("source", "target"), shape, strict=True))
            lengths = batch["source_length"], batch["target_length"]
            given = (source, lengths[0], target, lengths[1])
            outputs: Any = model.apply({"params": params}, *given, train=train, **drawn)
            return jnp.mean(sequence_cross_entropy(outputs, target, lengths[1]))

        if not shapes:
            return of_shape((batch["source"].shape[1], batch["target"].shape[1]), params, batch, drawn)
        branches = [functools.partial(of_shape, shape) for shape in shapes]
        # The same for all of the batch and all runs: nothing but the bucket's own branch is computed.
        return _switch(branches)(batch["bucket"][0], params, batch, drawn)

    def dense_loss(params: Params, state: Any, batch: Batch, key: Key[Array, ""], shared_key: Key[Array, ""]):
        loss = mean_loss(params, batch, shared_key, train=True, rngs={"dropout": key})
        return loss, (state, {})

    def mask_loss(params: Params, batch: Batch, key: Key[Array, ""], shared_key: Key[Array, ""]) -> Array:
        del key
        return mean_loss(params, batch, shared_key)

    def decode(params: Params, batch: Batch, steps: int) -> Any:
        return model.apply(
            {"params": params}, batch["source"], batch["source_length"], steps, method="decode"
        )

    def evaluate(params: Params, batch: Batch) -> dict[str, Array]:
        tokens = decode(params, batch, batch["target"].shape[1] + 1)
        return {"accuracy": sequence_right(tokens, batch["target"], batch["target_length"], end)}

    where = trees.DEFAULT_WHERE if in_time else transformer.WHERE
    return Functions(init, dense_loss, mask_loss, evaluate, decode, where, end)


def _switch(
    branches: Sequence[Callable[[Params, Batch, Any], Array]],
) -> Callable[[Array, Params, Batch, Any], Array]:
    """Returns `(index, params, batch, drawn) -> branches[index](params, batch, drawn)`.

    The gradient by the params is computed within the branch. That of `lax.switch` itself has every branch
    return what all the others keep for their backward passes, as zeros: more to write than a short branch
    computes.
    """

    @jax.custom_vjp
    def value(index: Array, params: Params, batch: Batch, drawn: Any) -> Array:
        return lax.switch(index, branches, params, batch, drawn)

    def forward(index: Array, params: Params, batch: Batch, drawn: Any) -> tuple[Array, Params]:
        return lax.switch(index, [jax.value_and_grad(f) for f in branches], params, batch, drawn)

    def backward(grads: Params, slope: Array) -> tuple[None, Params, None, None]:
        return None, jax.tree.map(lambda x: (slope * x).astype(x.dtype), grads), None, None

    value.defvjp(forward, backward)
    return value


def make_optimizer(
    learning_rate: float,
    clip_norm: float,
    warmup: int = 0,
    decay: int = 0,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Returns what trains a network: clipping by global norm, then Adam.

    Args:
      learning_rate: after the warm-up.
      clip_norm: of the gradient.
      warmup: steps in which the rate grows linearly, `learning_rate * (k + 1) / warmup` at step k.
      decay: steps over which it falls linearly, a factor `1 - k / decay` at step k; 0: it does not.
      b2: of Adam; 0.995 for the Mathematics Dataset.
      eps: of Adam; 1e-9 there.
    """
    grown = optax.linear_schedule(learning_rate / max(warmup, 1), learning_rate, max(warmup - 1, 0))
    left = optax.linear_schedule(1.0, 0.0, decay)  # constant for 0 steps

    def rate(step: Any) -> Any:
        return grown(step) * left(step)

    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adam(rate if warmup or decay else learning_rate, b2=b2, eps=eps),
    )


def predict(
    functions: Functions, params: Params, examples: Mapping[str, np.ndarray]
) -> UInt8[np.ndarray, "runs examples steps"]:
    """Returns the greedy answers of each network, the end token after them; params have a runs axis."""
    sources = {name: jnp.asarray(examples[name]) for name in ("source", "source_length")}
    steps = examples["target"].shape[1] + 1
    return np.asarray(devices.map_runs(_answers(functions.decode, steps), params, sources))


@functools.lru_cache(maxsize=16)
def _answers(decode: Any, steps: int) -> Any:
    def one(params: Params, sources: dict[str, Array]) -> Array:
        count = len(sources["source"])
        size = min(_AT_ONCE, count)
        pieces = jnp.resize(jnp.arange(count), (-(-count // size), size))
        tokens = lax.map(lambda rows: decode(params, jax.tree.map(lambda x: x[rows], sources), steps), pieces)
        return tokens.reshape(-1, steps)[:count].astype(jnp.uint8)

    return one


def is_right(
    functions: Functions,
    answers: UInt8[np.ndarray, "runs examples steps"],
    examples: Mapping[str, np.ndarray],
) -> Bool[np.ndarray, "runs examples"]:
    """Returns whether answers of `predict` are right as a whole."""
    target, length = jnp.asarray(examples["target"]), jnp.asarray(examples["target_length"])
    right = jax.jit(functools.partial(sequence_right, end=functions.end))
    return np.stack([np.asarray(right(jnp.asarray(of_run), target, length)) for of_run in answers])
