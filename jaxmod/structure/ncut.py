"""How well a network falls apart into clusters: spectral clustering and the n-cut (Filan et al. 2020)."""

import collections
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int32

from jaxmod.structure import graph, kmeans, spectral

__all__ = ["Clustering", "Method", "Seed", "cluster", "cluster_many", "n_cut", "stream"]

Method: TypeAlias = Literal["jaxmod", "sklearn", "sklearn-lobpcg"]
"""Our solver, or scikit-learn's spectral clustering with ARPACK or LOBPCG."""

Seed: TypeAlias = int | Sequence[int]
"""Any number >= 0, or several: `(42, network)`."""


class Clustering(NamedTuple):
    """The clusters of a network's neurons."""

    labels: tuple[Int32[np.ndarray, " layer"], ...]
    """For each layer of neurons, inputs first: 0 ... k - 1, and -1 for one that has no weight but zeros."""
    n_cut: float
    eigenvalues: Float[np.ndarray, " k"] | None
    """The lowest of the normalized Laplacian; None from scikit-learn, which does not tell."""
    residual: float | None
    """How far the worst eigenvector is from being one; None from scikit-learn."""
    clusters: int
    """How many have a neuron: fewer than `k` where k-means lost some, and then the n-cut is a smaller sum."""


def n_cut(weights: graph.Weights, labels: Sequence[np.ndarray]) -> float:
    """Returns the normalized cut of clusters: the sum over them of what leaves a cluster, over its volume.

    `sum_i W(X_i, rest) / vol(X_i)` with the volume the sum of degrees (section 3.1 of the paper, which has no
    factor 1/2). It lies between 0 and k, and is a number of float64. A cluster without a vertex adds nothing.

    Args:
      weights: >= 0, of each layer.
      labels: of each layer of neurons, from 0; -1 where a neuron has no weight but zeros.

    Raises:
      ValueError: shapes differ; a vertex has no label; no neuron is a vertex.

    >>> weights = [np.array([[3, 1], [1, 3]]), np.array([[2, 0], [0, 2]])]
    >>> round(n_cut(weights, [np.array([0, 1])] * 3), 4)
    0.3333
    """
    sizes = [len(weights[0]), *(w.shape[1] for w in weights)]
    if [np.shape(x) for x in labels] != [(size,) for size in sizes]:
        raise ValueError(
            f"labels have shapes {[np.shape(x) for x in labels]}, expected one for each layer of neurons: "
            f"{[(size,) for size in sizes]}."
        )
    for i, w in enumerate(weights):
        for layer, edges in ((i, w[labels[i] < 0]), (i + 1, w[:, labels[i + 1] < 0])):
            if edges.any():
                raise ValueError(f"labels: a neuron of layer {layer} has weights and no label (-1).")
    k = 1 + max(int(label.max(initial=-1)) for label in labels)
    member = [(label[:, None] == np.arange(k)[None]).astype(float) for label in labels]
    between = np.zeros((k, k))
    for a, w, b in zip(member[:-1], weights, member[1:], strict=True):
        between += a.T @ (w @ b)
    volume = between.sum(axis=0) + between.sum(axis=1)
    filled = volume > 0
    if not filled.any():
        raise ValueError("All weights are zero: the graph has no vertices, and its n-cut is not defined.")
    return float(np.sum(1 - 2 * np.diag(between)[filled] / volume[filled]))


def cluster(
    weights: graph.Weights, k: int, *, seed: Seed = 0, method: Method = "jaxmod", restarts: int = 10
) -> Clustering:
    """Returns the clusters of one graph: k-means on the `k` lowest eigenvectors of `D^-1 L`, and their n-cut.

    Shi and Malik's: neither rows nor vectors are scaled once more. Neurons without weights are left out.
    In a disconnected graph each part counts as a cluster of its own, as far as there are enough.

    Args:
      weights: as `weight_layers` gives them.
      k: how many clusters.
      seed: of k-means.
      method: our solver, or scikit-learn's.
      restarts: of k-means; the best by k-means' own measure is taken.

    Raises:
      ValueError: the weights are no graph; `k` is not between 2 and the number of vertices - 1; an unknown
        method.
      ImportError: scikit-learn is asked for and not there.
    """
    return cluster_many([weights], k, seed=seed, method=method, restarts=restarts)[0]


def cluster_many(
    graphs: Iterable[graph.Weights],
    k: int,
    *,
    seed: Seed = 0,
    method: Method = "jaxmod",
    restarts: int = 10,
) -> list[Clustering]:
    """Returns the clusters of graphs of one shape, e.g. of two hundred initialisations. See `cluster`.

    Graph `i` has the same random numbers whatever else is clustered with it.
    """
    streams = ((graph.check_weights(weights), stream(seed, i)) for i, weights in enumerate(graphs))
    return list(clusterings(streams, k, method, restarts))


def stream(seed: Seed, *path: int) -> np.random.Generator:
    """Returns the random numbers of one purpose: streams of other paths are independent."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=path)))


def clusterings(
    graphs: Iterable[tuple[graph.Weights, np.random.Generator]], k: int, method: Method, restarts: int
) -> Iterator[Clustering]:
    """Yields the clusters of each graph; each has been checked and has its random numbers with it."""
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r}, expected one of {', '.join(map(repr, get_args(Method)))}.")
    if restarts < 1:
        raise ValueError(f"restarts: {restarts}, expected at least 1.")
    if k < 2:
        raise ValueError(f"k: {k} clusters, expected at least 2.")
    if method != "jaxmod":
        for weights, random in graphs:
            labels = _scikit_learn(weights, k, method, int(random.integers(2**31)), restarts)
            yield _clustering(weights, labels, None, None)
        return
    ahead: collections.deque[graph.Weights] = collections.deque()

    def drawn() -> Iterator[tuple[graph.Weights, np.ndarray]]:
        for weights, random in graphs:
            if ahead and [w.shape for w in weights] != [w.shape for w in ahead[0]]:
                raise ValueError("The graphs differ in shape; cluster those of one shape at a time.")
            ahead.append(weights)
            yield weights, random.random((restarts, kmeans.draws(k)), np.float32)

    for solved in spectral.solve(drawn(), k):
        yield _clustering(ahead.popleft(), *solved)


def _clustering(weights: graph.Weights, labels: np.ndarray, values: Any, residual: Any) -> Clustering:
    ends = np.cumsum([len(w) for w in weights])
    layers = tuple(np.split(labels, ends))
    clusters = len(set(labels[labels >= 0].tolist()))
    return Clustering(layers, n_cut(weights, layers), values, residual, clusters)


def _scikit_learn(weights: graph.Weights, k: int, method: Method, seed: int, restarts: int) -> np.ndarray:
    """Returns a label for each neuron, -1 where it is no vertex."""
    try:
        from sklearn.cluster import SpectralClustering
    except ImportError as error:
        raise ImportError(
            f"method={method!r} needs scikit-learn: pip install 'jaxmod[experiments]'."
        ) from error
    matrix, inside = graph.adjacency(weights)
    graph.check_count(inside, k)
    solver = "lobpcg" if method == "sklearn-lobpcg" else "arpack"
    spectral_clustering = SpectralClustering(
        k, affinity="precomputed", eigen_solver=solver, n_init=restarts, random_state=seed
    )
    labels = np.full(len(inside), -1, np.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        labels[inside] = spectral_clustering.fit_predict(matrix)
    return labels
