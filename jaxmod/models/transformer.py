"""Encoder-decoder Transformer with greedy decoding (SCAN, Mathematics Dataset)."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Integer

from jaxmod.models.dropout import dropout
from jaxmod.sequences import append_end, end_from_first_end

__all__ = ["WHERE", "Transformer", "TransformerConfig", "positions"]

WHERE = r"(.*/)?(kernel|\w+_norm/(scale|bias))"
"""What the paper masks: the weight matrices and LayerNorms, no embeddings, no other biases."""

KeysValues: TypeAlias = tuple[Array, Array]
"""What attention reads, [batch, heads, steps, features / heads] each."""


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `Transformer`; the defaults are those of SCAN.

    For the Mathematics Dataset the paper has `TransformerConfig(256, 512)`, the authors' code
    `TransformerConfig(512, 2048, heads=8, layers=6)`.
    """

    features: int = 100
    """Size of embeddings and of what the layers pass on."""
    feed_forward: int = 200
    """Hidden units of the feed-forward parts."""
    heads: int = 4
    layers: int = 3
    """Of encoder and decoder each."""
    dropout: float = 0.1
    """While training: of embeddings, attention weights, feed-forward units and every residual branch."""

    def __post_init__(self) -> None:
        for name in ("features", "feed_forward", "heads", "layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"TransformerConfig: {name} must be a positive integer, got {value!r}.")
        if self.features % 2 or self.features % self.heads:
            raise ValueError(
                f"TransformerConfig: features={self.features} must be even, for the sines and cosines of "
                f"positions, and a multiple of heads={self.heads}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"TransformerConfig: dropout must be at least 0 and below 1, got {self.dropout}."
            )


class Transformer(nn.Module):
    """Layers `encoder_k` and `decoder_k` of attention and feed-forward, each `norm(x + part(x))`.

    The encoder sees the end of the source, token `source_vocabulary`. The decoder starts from the token
    `target_vocabulary`, which is also the end that it predicts after the target. Sinusoidal positions are
    added to the embeddings, which are not scaled.

    Attributes:
      source_vocabulary: number of different source tokens, the end not counted; 13 in SCAN.
      target_vocabulary: likewise; 6 in SCAN.
      config: the sizes.
      tied: one table E embeds source and target, and the outputs are `h E^T / sqrt(features)`; else two
        tables and a linear `output`.
    """

    source_vocabulary: int = 13
    target_vocabulary: int = 6
    config: TransformerConfig = TransformerConfig()
    tied: bool = False

    def setup(self) -> None:
        config = self.config
        embed = functools.partial(
            nn.Embed, features=config.features, embedding_init=nn.initializers.normal(1.0)
        )
        if self.tied:
            if self.source_vocabulary != self.target_vocabulary:
                raise ValueError(
                    f"Transformer: tied=True wants one vocabulary, got source_vocabulary="
                    f"{self.source_vocabulary} and target_vocabulary={self.target_vocabulary}."
                )
            self.embedding = embed(self.target_vocabulary + 1)
        else:
            self.source_embedding = embed(self.source_vocabulary + 1)
            self.target_embedding = embed(self.target_vocabulary + 1)
            self.output = _linear(self.target_vocabulary + 1, config.features)
        self.encoder = [_EncoderLayer(config) for _ in range(config.layers)]
        self.decoder = [_DecoderLayer(config) for _ in range(config.layers)]

    def __call__(
        self,
        source: Integer[Array, "batch source_steps"],
        source_length: Integer[Array, " batch"],
        target: Integer[Array, "batch target_steps"],
        target_length: Integer[Array, " batch"],
        *,
        train: bool = False,
    ) -> Float[Array, "batch target_steps+1 classes"]:
        """Returns the outputs of the target's tokens and their end, each from the true tokens before it.

        Args:
          source: tokens without the end; the padding may be anything.
          source_length: number of tokens of each source.
          target: tokens without the end; the padding may be anything.
          target_length: number of tokens of each target.
          train: apply dropout, from the rng "dropout".
        """
        memories, seen = self._encode(source, source_length, train)
        end = self.target_vocabulary
        fed = jnp.pad(append_end(target, target_length, end)[:, :-1], ((0, 0), (1, 0)), constant_values=end)
        x = self._embed(fed, "target", positions(fed.shape[1], self.config.features), train)
        past = jnp.tril(jnp.ones((1, 1, fed.shape[1], fed.shape[1]), bool))
        for layer, memory in zip(self.decoder, memories, strict=True):
            x = layer(x, layer.keys_values(x), past, memory, seen, train)
        return self._outputs(x)

    def decode(
        self,
        source: Integer[Array, "batch source_steps"],
        source_length: Integer[Array, " batch"],
        steps: int,
    ) -> Int[Array, "batch {steps}"]:
        """Returns the tokens of greedy decoding, all of them the end token from the first one on.

        Keys and values of earlier steps are kept, so a step costs no more than its own token.

        Args:
          source: tokens without the end; the padding may be anything.
          source_length: number of tokens of each source.
          steps: the length of the longest target and one more for its end.
        """
        config = self.config
        memories, seen = self._encode(source, source_length, train=False)
        encoded = jnp.asarray(positions(steps, config.features))
        shape = (source.shape[0], config.heads, steps, config.features // config.heads)
        empty = jnp.zeros(shape, memories[0][0].dtype)

        def step(
            carry: tuple[Array, list[KeysValues]], t: Array
        ) -> tuple[tuple[Array, list[KeysValues]], Array]:
            token, caches = carry
            x = self._embed(token[:, None], "target", encoded[t][None], train=False)
            past = (jnp.arange(steps) <= t)[None, None, None]
            fill = functools.partial(lax.dynamic_update_slice_in_dim, start_index=t, axis=2)
            filled = []
            for layer, memory, cache in zip(self.decoder, memories, caches, strict=True):
                filled.append(jax.tree.map(fill, cache, layer.keys_values(x)))
                x = layer(x, filled[-1], past, memory, seen, train=False)
            token = jnp.argmax(self._outputs(x)[:, 0], axis=-1).astype(token.dtype)
            return (token, filled), token

        start = jnp.full(source.shape[:1], self.target_vocabulary, jnp.int32)
        _, tokens = lax.scan(step, (start, [(empty, empty)] * config.layers), jnp.arange(steps))
        return end_from_first_end(tokens.T, self.target_vocabulary)

    def _encode(self, source: Array, length: Array, train: bool) -> tuple[list[KeysValues], Array]:
        """Returns what each decoder layer reads of the source, and which steps it may."""
        tokens = append_end(source, length, self.source_vocabulary)
        seen = (jnp.arange(tokens.shape[1])[None] <= length[:, None])[:, None, None]
        x = self._embed(tokens, "source", positions(tokens.shape[1], self.config.features), train)
        for layer in self.encoder:
            x = layer(x, seen, train)
        return [layer.cross_attention.keys_values(x) for layer in self.decoder], seen

    def _embed(self, tokens: Array, side: str, encoded: Array | np.ndarray, train: bool) -> Array:
        embedding = self.embedding if self.tied else getattr(self, f"{side}_embedding")
        x = embedding(tokens)
        return dropout(self, x + jnp.asarray(encoded, x.dtype)[None], self.config.dropout, train)

    def _outputs(self, x: Array) -> Array:
        if self.tied:
            return self.embedding.attend(x) / math.sqrt(self.config.features)
        return self.output(x)


class _EncoderLayer(nn.Module):
    config: TransformerConfig

    def setup(self) -> None:
        self.self_attention = _Attention(self.config)
        self.self_norm = _norm()
        self.feed_forward = _FeedForward(self.config)
        self.feed_forward_norm = _norm()

    def __call__(self, x: Array, seen: Array, train: bool) -> Array:
        branch = functools.partial(dropout, self, rate=self.config.dropout, train=train)
        own = self.self_attention.keys_values(x)
        x = self.self_norm(x + branch(self.self_attention(x, own, seen, train)))
        return self.feed_forward_norm(x + branch(self.feed_forward(x, train)))


class _DecoderLayer(nn.Module):
    config: TransformerConfig

    def setup(self) -> None:
        self.self_attention = _Attention(self.config)
        self.self_norm = _norm()
        self.cross_attention = _Attention(self.config)
        self.cross_norm = _norm()
        self.feed_forward = _FeedForward(self.config)
        self.feed_forward_norm = _norm()

    def keys_values(self, x: Array) -> KeysValues:
        return self.self_attention.keys_values(x)

    def __call__(
        self, x: Array, own: KeysValues, past: Array, memory: KeysValues, seen: Array, train: bool
    ) -> Array:
        branch = functools.partial(dropout, self, rate=self.config.dropout, train=train)
        x = self.self_norm(x + branch(self.self_attention(x, own, past, train)))
        x = self.cross_norm(x + branch(self.cross_attention(x, memory, seen, train)))
        return self.feed_forward_norm(x + branch(self.feed_forward(x, train)))


class _Attention(nn.Module):
    """Multi-head attention without biases, scores divided by sqrt(features / heads)."""

    config: TransformerConfig

    def setup(self) -> None:
        project = functools.partial(
            nn.Dense, self.config.features, use_bias=False, kernel_init=nn.initializers.xavier_uniform()
        )
        self.query, self.key, self.value, self.output = project(), project(), project(), project()

    def keys_values(self, x: Array) -> KeysValues:
        return self._heads(self.key(x)), self._heads(self.value(x))

    def __call__(self, x: Array, read: KeysValues, allowed: Array, train: bool) -> Array:
        """Returns what the steps of `x` read; `allowed` is [batch or 1, 1, steps or 1, steps read]."""
        keys, values = read
        query = self._heads(self.query(x)) / math.sqrt(keys.shape[-1])
        scores = jnp.matmul(query, jnp.swapaxes(keys, 2, 3)).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(allowed, scores, jnp.finfo(jnp.float32).min), axis=-1)
        weights = dropout(self, weights.astype(values.dtype), self.config.dropout, train)
        found = jnp.swapaxes(jnp.matmul(weights, values), 1, 2)
        return self.output(found.reshape(x.shape))

    def _heads(self, x: Array) -> Array:
        heads = self.config.heads
        return jnp.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[-1] // heads), 1, 2)


class _FeedForward(nn.Module):
    config: TransformerConfig

    def setup(self) -> None:
        config = self.config
        self.hidden = _linear(config.feed_forward, config.features, gain=math.sqrt(2))
        self.output = _linear(config.features, config.feed_forward)

    def __call__(self, x: Array, train: bool) -> Array:
        return self.output(dropout(self, nn.relu(self.hidden(x)), self.config.dropout, train))


def positions(steps: int, features: int) -> Float[np.ndarray, "steps features"]:
    """Returns `sin(t / 10000^(2i/d))` in the even channels 2i, the cosine in the odd ones 2i + 1.

    >>> positions(2, 4).round(2).tolist()[0]
    [0.0, 1.0, 0.0, 1.0]
    """
    rates = 10000.0 ** (-np.arange(0, features, 2) / features)
    angles = np.arange(steps)[:, None] * rates[None]
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(steps, features).astype(np.float32)


def _norm() -> nn.LayerNorm:
    # The authors' divides by (std with n - 1) + eps; this is the standard one.
    return nn.LayerNorm(epsilon=1e-5)


def _linear(features: int, fan_in: int, gain: float = 1.0) -> nn.Dense:
    """Returns a dense layer, the kernel Xavier-uniform, the bias U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)

    def bias_init(key: Array, shape: Sequence[int], dtype: type = float) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    kernel_init = nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init)
