"""Spectral clustering of many graphs of one shape, in one compiled program.

Graphs come and go in chunks: while the devices cluster one chunk, the host prepares the next. The devices
are those of this host's CPU, beside an accelerator too: eigenvectors want all of float32, and the work is
many small steps. Each takes its share of a chunk. JAX has one device for all cores of a CPU unless it is
told otherwise, as the experiments do, and most of this work fits one core:
`jax.config.update("jax_num_cpu_devices", 2)` before anything else makes two.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int32

from jaxmod.structure import eigen, graph, kmeans
from jaxmod.train import devices

__all__ = ["Solved", "solve"]

CHUNK = 32
"""Graphs in a call."""
RESIDUAL = 1e-4
"""Graphs whose residual is larger are done once more by LAPACK."""


class Solved(NamedTuple):
    """The clusters of one graph."""

    labels: Int32[np.ndarray, " neurons"]
    """Of all neurons, -1 where one is no vertex."""
    eigenvalues: Float[np.ndarray, " k"]
    residual: float


def solve(graphs: Iterable[tuple[graph.Weights, np.ndarray]], k: int) -> Iterator[Solved]:
    """Yields the clusters of each graph, which do not depend on the scale of its weights.

    Args:
      graphs: float32 weights, and the random numbers of k-means: `[restarts, kmeans.draws(k)]`. All of
        one shape. They are asked for in chunks, ahead of the results.
      k: how many clusters.

    Raises:
      ValueError: a graph has no more vertices than `k`.
    """
    sent: collections.deque[tuple[list[Any], Any]] = collections.deque()
    remaining = ((_scaled(weights), uniforms) for weights, uniforms in graphs)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        sent.append((chunk, _send(chunk, k)))
        if len(sent) > 1:
            yield from _received(*sent.popleft(), k)
    while sent:
        yield from _received(*sent.popleft(), k)


def _scaled(weights: graph.Weights) -> graph.Weights:
    """Returns the weights with the largest near 1: the squares of small or large ones leave the floats."""
    exponent = graph.unit_exponent(weights)
    return weights if exponent == 0 else tuple(np.ldexp(w, exponent) for w in weights)


def _send(chunk: list[tuple[graph.Weights, np.ndarray]], k: int) -> Any:
    """Returns the results of a chunk, which may still be computed; None if it is not for this solver."""
    weights, _ = chunk[0]
    sizes = [len(weights[0]), *(w.shape[1] for w in weights)]
    neurons = sum(sizes[i] for i in eigen.half(weights))
    if neurons <= k + eigen.BUFFER:
        return None
    # Two programs and no more: for one graph, and for a whole chunk. The last one repeats its last graph.
    size = 1 if len(chunk) == 1 else CHUNK
    graphs = chunk + [chunk[-1]] * (size - len(chunk))
    layers = tuple(np.stack(layer) for layer in zip(*(w for w, _ in graphs), strict=True))
    mesh = devices.core_mesh(size)
    split = devices.place((layers, np.stack([u for _, u in graphs])), mesh, split=True)
    start = np.random.default_rng(0).standard_normal((k + eigen.BUFFER, neurons), np.float32)
    # Not brought home here: that would wait for the results.
    return _program(k, mesh)(*split, devices.place(start, mesh, split=False))


def _received(chunk: list[tuple[graph.Weights, np.ndarray]], results: Any, k: int) -> Iterator[Solved]:
    if results is None:
        yield from (_densely(weights, uniforms, k) for weights, uniforms in chunk)
        return
    labels, values, residuals = map(np.asarray, results)
    for i, (weights, uniforms) in enumerate(chunk):
        if residuals[i] <= RESIDUAL:  # False for NaN
            graph.check_count(labels[i] >= 0, k)
            yield Solved(labels[i], values[i], float(residuals[i]))
        else:
            yield _densely(weights, uniforms, k)


@functools.lru_cache(maxsize=16)
def _program(k: int, mesh: Mesh) -> Callable[..., Any]:
    """Returns the compiled clustering of a chunk.

    On a CPU the graphs are taken one by one: one fits its cache, and stops when it has converged.
    """

    @jax.default_matmul_precision("float32")  # which a CPU has anyway
    def one(weights: Any, uniforms: Any, start: Any) -> Any:
        pairs = eigen.lowest_pairs(weights, start, k)
        inside = jnp.concatenate(eigen.degrees(weights)) > 0
        labels = kmeans.kmeans(pairs.vectors, inside.astype(jnp.float32), uniforms, k)
        return jnp.where(inside, labels, -1), pairs.values, pairs.residual

    def share(weights: Any, uniforms: Any, start: Any) -> Any:
        if mesh.devices.flat[0].platform == "cpu":
            return jax.lax.map(lambda given: one(given[0], given[1], start), (weights, uniforms))
        return jax.vmap(one, in_axes=(0, 0, None))(weights, uniforms, start)

    return jax.jit(devices.each_share(share, mesh, (True, True, False)))


def _densely(weights: graph.Weights, uniforms: np.ndarray, k: int) -> Solved:
    inside = np.concatenate(graph.vertices(weights))
    graph.check_count(inside, k)
    pairs = eigen.dense_pairs(weights, k)
    points = (pairs.vectors.astype(np.float32), inside.astype(np.float32), uniforms)
    labels = np.asarray(_kmeans(*devices.place(points, devices.core_mesh(1), split=False), k))
    return Solved(np.where(inside, labels, -1), pairs.values, float(pairs.residual))


_kmeans = jax.jit(jax.default_matmul_precision("float32")(kmeans.kmeans), static_argnums=3)
