"""The weighted graph of a network: neurons are vertices, and |weights| of adjacent layers are edges.

A graph is the tuple of its layers' matrices `|W|` of shape `[fan in, fan out]`, in the order in which data
pass. The adjacency matrix has them above its diagonal, their transposes below, and zeros elsewhere.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from jaxmod import trees
from jaxmod.types import Params

__all__ = [
    "Weights",
    "adjacency",
    "check_count",
    "check_weights",
    "degrees",
    "unit_exponent",
    "vertices",
    "weight_layers",
]

Weights: TypeAlias = Sequence[np.ndarray]
"""Matrices `[fan in, fan out]` of numbers >= 0, each with as many rows as the one before has columns."""


def weight_layers(
    params: Params, layers: Sequence[str] | None = None, *, convolutions: bool = False
) -> tuple[np.ndarray, ...]:
    """Returns the graph of a network: float32 `|W|` of each layer, input first.

    Biases never enter. A convolution has an edge for each pair of channels, weighing the L1 norm of
    that slice of its kernel; a vertex is then a channel.

    Args:
      params: of a Linen MLP, say: the leaves called `kernel` are ordered by the first number in their
        path, and the one without a number comes last. Of anything else with `layers`.
      layers: the paths of the weights in the order in which data pass, e.g. `["in/w", "out/w"]`. They may
        be convolutions or not.
      convolutions: without `layers`: take the convolutions and not the dense layers, from the second
        one on. The first joins the channels of an image and not neurons.

    Raises:
      ValueError: the order cannot be told, or there are no such layers; a layer does not go on from the
        one before; a weight is NaN or infinite; a layer is no matrix and no convolution.

    >>> import jax.numpy as jnp
    >>> params = {"output": {"kernel": -jnp.ones((2, 1))}, "layer_1": {"kernel": jnp.ones((3, 2))}}
    >>> [layer.shape for layer in weight_layers(params)]
    [(3, 2), (2, 1)]
    """
    trees.check_arrays(params)
    leaves = dict(trees.paths_and_leaves(params))
    paths = _ordered_paths(leaves, convolutions) if layers is None else list(layers)
    for path in paths:
        if path not in leaves:
            shown = ", ".join(repr(p) for p in list(leaves)[:10])
            raise ValueError(f"layers: {path!r} is no leaf of params. The first paths are: {shown}.")
    return check_weights([_as_matrix(path, leaves[path]) for path in paths], paths)


def check_weights(weights: Weights, names: Sequence[str] | None = None) -> tuple[np.ndarray, ...]:
    """Returns `|W|` of each layer in float32.

    What is below 2^-126 of the largest weight, about 1e-38, becomes 0, whatever the scale of the network:
    devices take such numbers for 0, and the host should see the same graph.

    Args:
      weights: of each layer, with their signs or not.
      names: of the layers, for the errors.

    Raises:
      ValueError: there are no layers; one is no matrix, does not go on from the one before, or has a
        weight that is NaN or infinite in float32.
    """
    if not len(weights):
        raise ValueError("A graph needs the weights of at least one layer, but there are none.")
    names = [f"layer {i + 1}" for i in range(len(weights))] if names is None else names
    checked = []
    for name, given in zip(names, weights, strict=True):
        w = np.abs(np.asarray(given, np.float32))
        if w.ndim != 2:
            raise ValueError(f"Layer {name!r} has weights of shape {w.shape}, expected [fan in, fan out].")
        if not np.isfinite(w).all():
            raise ValueError(
                f"Layer {name!r} has {np.count_nonzero(~np.isfinite(w))} weights that are NaN or infinite. "
                "Such a network has no graph; look at its training."
            )
        if checked and checked[-1].shape[1] != w.shape[0]:
            before = names[len(checked) - 1]
            raise ValueError(
                f"Layer {name!r} takes {w.shape[0]} inputs, but layer {before!r} before it has "
                f"{checked[-1].shape[1]} outputs. Name the layers in the order in which data pass: "
                "layers=[...]."
            )
        checked.append(w)
    smallest = np.ldexp(np.float32(1), -126 - unit_exponent(checked))
    return tuple(np.where(w < smallest, np.float32(0), w) for w in checked)


def unit_exponent(weights: Weights) -> int:
    """Returns e so that `2**e` times the largest weight lies in [1/2, 2), or is 0.

    It is even, so that roots are multiplied by a power of two as well: a graph scaled this way has the same
    eigenvectors to the last bit.
    """
    _, exponent = np.frexp(max(w.max(initial=0) for w in weights))
    return -int(exponent - exponent % 2)


def check_count(inside: Bool[np.ndarray, " neurons"], k: int) -> None:
    """Raises ValueError unless the graph of these vertices can have `k` clusters."""
    count = int(np.count_nonzero(inside))
    if count == 0:
        raise ValueError("All weights are zero: the graph has no vertices, and its n-cut is not defined.")
    if count <= k:
        raise ValueError(
            f"k: {k} clusters of a graph with {count} vertices (neurons with a weight that is not zero). "
            "It needs more vertices than clusters."
        )


def degrees(weights: Weights) -> list[Float[np.ndarray, " _"]]:
    """Returns the sum of the weights at each vertex, in float64, for each layer of vertices."""
    incoming = [np.zeros(len(weights[0])), *(w.sum(axis=0, dtype=np.float64) for w in weights)]
    outgoing = [*(w.sum(axis=1, dtype=np.float64) for w in weights), np.zeros(weights[-1].shape[1])]
    return [a + b for a, b in zip(incoming, outgoing, strict=True)]


def vertices(weights: Weights) -> list[Bool[np.ndarray, " _"]]:
    """Returns which neurons of each layer are in the graph: those with a weight that is not zero."""
    return [degree > 0 for degree in degrees(weights)]


def adjacency(weights: Weights) -> tuple[Any, Bool[np.ndarray, " neurons"]]:
    """Returns the adjacency matrix (SciPy's CSR) of the vertices, and which neurons are vertices."""
    inside = np.concatenate(vertices(weights))
    sizes = [len(weights[0]), *(w.shape[1] for w in weights)]
    blocks: list[list[Any]] = [[None] * len(sizes) for _ in sizes]
    for i, w in enumerate(weights):
        blocks[i][i + 1], blocks[i + 1][i] = sparse.csr_array(w), sparse.csr_array(w.T)
    matrix: Any = sparse.block_array(blocks, format="csr")
    return matrix[inside][:, inside], inside


def _ordered_paths(leaves: dict[str, Any], convolutions: bool) -> list[str]:
    """Returns the paths of the kernels by their first number."""
    kernels = [path for path in leaves if re.fullmatch(r"(.*/)?kernel", path)]
    dense = [path for path in kernels if jnp.ndim(leaves[path]) == 2]
    other = [path for path in kernels if path not in dense]
    if other and not convolutions:
        raise ValueError(
            f"params has {other[0]!r} of shape {jnp.shape(leaves[other[0]])}, which is no matrix. Take the "
            "convolutions with convolutions=True, or name the layers: layers=[...]."
        )
    by_depth: dict[float, str] = {}
    for path in other if convolutions else dense:
        number = re.search(r"\d+", path)
        depth = int(number[0]) if number else math.inf
        if depth in by_depth:
            raise ValueError(
                f"Which of {by_depth[depth]!r} and {path!r} comes first cannot be told from their numbers. "
                "Name the layers in the order in which data pass: layers=[...]."
            )
        by_depth[depth] = path
    ordered = [by_depth[depth] for depth in sorted(by_depth)][int(convolutions) :]
    if not ordered:
        wanted = "a second convolution" if convolutions else "a dense layer with a leaf called 'kernel'"
        shown = ", ".join(repr(path) for path in list(leaves)[:10]) or "none"
        raise ValueError(f"params has no {wanted[2:]}: name the layers. The first paths are: {shown}.")
    return ordered


def _as_matrix(path: str, leaf: Any) -> np.ndarray:
    w = np.asarray(leaf, np.float32)
    if w.ndim < 2:
        raise ValueError(f"Layer {path!r} has weights of shape {w.shape}, expected [fan in, fan out].")
    return np.abs(w).sum(axis=tuple(range(w.ndim - 2)))  # the last two axes of a kernel: in, out
