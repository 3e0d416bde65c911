"""Encoder-decoder LSTM without attention (SCAN)."""

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer

from jaxmod import noise
from jaxmod.models.fnn import linear
from jaxmod.models.lstm import init_bias, init_hh, init_ih
from jaxmod.sequences import append_end, end_from_first_end

__all__ = ["Seq2SeqLSTM"]

State: TypeAlias = tuple[tuple[Array, Array], ...]
"""`(h, c)` of every layer."""

Kept: TypeAlias = tuple[Array, ...]
"""Which inputs of every layer dropout keeps; empty: all."""


class Seq2SeqLSTM(nn.Module):
    """Two stacks of LSTM cells: the last state of the `encoder` is the first of the `decoder`.

    That state is the one before the end of the source, so the encoder never sees an end token. The decoder
    starts from its end token and predicts the target's tokens and their end. Each stack has the weights
    `lk_ih` and `lk_hh` of `LSTMClassifier`; a linear `output` reads the decoder's top layer.

    The time loop is one `lax.scan` over all layers. Where the inputs are known beforehand, their products
    with `lk_ih` could be taken for all steps at once before it, but that costs a third more on a CPU, where
    what one step makes stays in the cache.

    Attributes:
      source_vocabulary: number of different source tokens; 13 in SCAN.
      target_vocabulary: likewise, the end token not counted, which is the next number; 6 in SCAN.
      embedding: size of the embeddings. With large ones a mask may lose a whole input layer (C.6.1).
      hidden: units of each LSTM layer.
      layers: number of LSTM layers, of encoder and decoder each.
      dropout: rate on embeddings and between layers while training.
    """

    source_vocabulary: int = 13
    target_vocabulary: int = 6
    embedding: int = 16
    hidden: int = 200
    layers: int = 2
    dropout: float = 0.5

    def setup(self) -> None:
        normal = nn.initializers.normal(1.0)
        self.source_embedding = nn.Embed(self.source_vocabulary, self.embedding, embedding_init=normal)
        self.target_embedding = nn.Embed(self.target_vocabulary + 1, self.embedding, embedding_init=normal)
        self.encoder = _Cells(self.hidden, self.layers, self.dropout)
        self.decoder = _Cells(self.hidden, self.layers, self.dropout)
        self.output = linear(self.target_vocabulary + 1, self.hidden, "output")

    def __call__(
        self,
        source: Integer[Array, "batch source_steps"],
        source_length: Integer[Array, " batch"],
        target: Integer[Array, "batch target_steps"],
        target_length: Integer[Array, " batch"],
        *,
        teacher_forcing: bool | Bool[Array, ""] = True,
        train: bool = False,
    ) -> Float[Array, "batch target_steps+1 classes"]:
        """Returns the outputs of the target's tokens and their end.

        Args:
          source: tokens; the padding may be anything.
          source_length: number of tokens of each source.
          target: tokens without the end; the padding may be anything.
          target_length: number of tokens of each target.
          teacher_forcing: feed the decoder the target; else its own argmax, without a gradient. In the
            paper a coin per batch: one bool for all of it, best drawn from `shared_key`.
          train: apply dropout, from the rng "dropout".
        """
        end = self.target_vocabulary
        fed = append_end(target, target_length, end)[:, :-1]
        fed = jnp.pad(fed, ((0, 0), (1, 0)), constant_values=end)
        state = self._encode(source, source_length, train)
        outputs, _ = self._decode(state, fed, teacher_forcing, train)
        return outputs

    def decode(
        self,
        source: Integer[Array, "batch source_steps"],
        source_length: Integer[Array, " batch"],
        steps: int,
    ) -> Int[Array, "batch {steps}"]:
        """Returns the tokens of greedy decoding, all of them the end token from the first one on.

        Args:
          source: tokens; the padding may be anything.
          source_length: number of tokens of each source.
          steps: the length of the longest target and one more for its end.
        """
        start = jnp.full((source.shape[0], steps), self.target_vocabulary)
        state = self._encode(source, source_length, train=False)
        _, tokens = self._decode(state, start, teacher_forcing=False, train=False)
        return end_from_first_end(tokens, self.target_vocabulary)

    def _encode(self, source: Array, length: Array, train: bool) -> State:
        """Returns the state after the last token of each source."""
        inside = jnp.arange(source.shape[1])[None] < length[:, None]
        embedded = self.source_embedding(jnp.where(inside, source, 0).T)
        zeros = jnp.zeros((source.shape[0], self.hidden), embedded.dtype)

        def step(state: State, inputs: tuple[Array, Array, Kept]) -> tuple[State, None]:
            x, inside, kept = inputs
            new = self.encoder(state, x, kept)
            return jax.tree.map(lambda n, o: jnp.where(inside[:, None], n, o), new, state), None

        start = ((zeros, zeros),) * self.layers
        kept = self._draw_kept((source.shape[1], source.shape[0]), train)
        if self.is_initializing():
            self.encoder(start, embedded[0], ())
        state, _ = lax.scan(step, start, (embedded, inside.T, kept))
        return state

    def _decode(
        self, state: State, fed: Array, teacher_forcing: bool | Array, train: bool
    ) -> tuple[Array, Array]:
        """Returns outputs and their argmax at every step; the first step reads `fed` in any case."""

        def step(
            carry: tuple[State, Array], inputs: tuple[Array, Kept]
        ) -> tuple[tuple[State, Array], tuple[Array, Array]]:
            state, own = carry
            given, kept = inputs
            token = jnp.where(teacher_forcing, given, own)
            state = self.decoder(state, self.target_embedding(token), kept)
            outputs = self.output(state[-1][0])
            own = jnp.argmax(outputs, axis=-1).astype(fed.dtype)
            return (state, own), (outputs, own)

        kept = self._draw_kept((fed.shape[1], fed.shape[0]), train)
        if self.is_initializing():
            step((state, fed[:, 0]), (fed[:, 0], ()))
        _, (outputs, tokens) = lax.scan(step, (state, fed[:, 0]), (fed.T, kept))
        return jnp.swapaxes(outputs, 0, 1), tokens.T

    def _draw_kept(self, steps_and_batch: tuple[int, int], train: bool) -> Kept:
        if not train or not self.dropout:
            return ()
        sizes = (self.embedding,) + (self.hidden,) * (self.layers - 1)
        keys = jax.random.split(self.make_rng("dropout"), self.layers)
        return tuple(
            noise.uniform(key, (*steps_and_batch, size)) >= self.dropout
            for key, size in zip(keys, sizes, strict=True)
        )


class _Cells(nn.Module):
    """One time step of stacked LSTM cells, the equations of `LSTMClassifier`."""

    hidden: int
    layers: int
    dropout: float

    @nn.compact
    def __call__(self, state: State, x: Array, kept: Kept) -> State:
        new = []
        for layer, (h, c) in enumerate(state):
            if kept:
                x = jnp.where(kept[layer], x / (1 - self.dropout), 0)
            ih = nn.Dense(4 * self.hidden, kernel_init=init_ih, bias_init=init_bias, name=f"l{layer}_ih")
            hh = nn.Dense(4 * self.hidden, use_bias=False, kernel_init=init_hh, name=f"l{layer}_hh")
            x, c = _cell(ih(x) + hh(h), c)
            new.append((x, c))
        return tuple(new)


# The gates are computed again in the backward pass: storing them for every step takes longer.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _cell(z: Array, c: Array) -> tuple[Array, Array]:
    """Returns the next `(h, c)` from the sums of the gates i, f, g, o."""
    i, f, g, o = jnp.split(z, 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c
