"""The lowest eigenvectors of a normalized Laplacian, from a graph's layers alone.

Layers of even and odd number only touch each other, so with `B` the edges from one half to the other,
divided by the roots of both degrees, the eigenvalues of `I - D^-1/2 A D^-1/2` are `1 -/+ s` for the singular
values `s` of `B` (and 1). The lowest are `1 - s` for the largest `s`: the search is for the leading
eigenvectors of `B B^T` on the smaller half, and goes through the layers; no adjacency matrix is formed.

Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago and Chelikowsky 2006): a polynomial that is small on
the unwanted eigenvalues and grows fast above them is applied to a few more vectors than are wanted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import linalg

from jaxmod.structure import graph

__all__ = ["Pairs", "degrees", "dense_pairs", "half", "lowest_pairs"]

BUFFER = 4
"""Vectors beyond the wanted ones: the filter then has a gap to work with."""
DEGREE = 6
ROUNDS = 25
TOLERANCE = 2e-5

_LOCKED = 8.0
_GROWTH = 14.0


class Pairs(NamedTuple):
    """The lowest eigenvectors of a graph's Laplacian."""

    values: Any
    """`[k]` eigenvalues of the normalized Laplacian, the lowest first."""
    vectors: Any
    """`[k, neurons]` eigenvectors of `D^-1 L`: unit ones of `I - D^-1/2 A D^-1/2`, divided by the root of
    the degree. Zero where a neuron is no vertex."""
    residual: Any
    """The largest `|(I - D^-1/2 A D^-1/2) x - value x|` of the unit eigenvectors x."""


class _Basis(NamedTuple):
    x: Float[Array, "m n"]
    """Ritz vectors: orthonormal rows, the largest value first."""
    image: Float[Array, "m n"]
    values: Float[Array, " m"]
    residuals: Float[Array, " m"]


def half(weights: Any) -> list[int]:
    """Returns the layers of vertices of the half with fewer neurons: those of odd or of even number."""
    sizes = _sizes(weights)
    odd, even = range(1, len(sizes), 2), range(0, len(sizes), 2)
    return list(min((odd, even), key=lambda side: sum(sizes[i] for i in side)))


def lowest_pairs(weights: tuple[Float[Array, "_ _"], ...], start: Float[Array, "m n"], k: int) -> Pairs:
    """Returns the `k` lowest eigenpairs, in float32. It can be jitted, mapped and vmapped.

    Whether it got there is to be read off the residual.

    Args:
      weights: |W| of each layer. Neurons without a weight are left out of the graph.
      start: random vectors on the neurons of `half(weights)`: `k` and a few more, fewer than neurons.
      k: how many.
    """
    sizes, side = _sizes(weights), half(weights)
    degree = degrees(weights)
    scale = [jnp.where(d > 0, jax.lax.rsqrt(jnp.where(d > 0, d, 1.0)), 0.0) for d in degree]
    cuts = np.cumsum([sizes[i] for i in side])[:-1].tolist()

    def across(x: dict[int, Array]) -> dict[int, Array]:
        return {i: y * scale[i][None] for i, y in _neighbours(weights, x).items()}

    def split(x: Array) -> dict[int, Array]:
        return {i: p * scale[i][None] for i, p in zip(side, jnp.split(x, cuts, axis=1), strict=True)}

    def operator(x: Array) -> Array:
        there = across(split(x))
        back = across({i: y * scale[i][None] for i, y in there.items()})
        return jnp.concatenate([back[i] for i in side], axis=1)

    # The leading vector is known where the graph is connected, and the iteration keeps it.
    known = jnp.concatenate([jnp.sqrt(degree[i]) for i in side])
    basis = _iterate(operator, jnp.where(known > 0, jnp.asarray(start).at[0].set(known), 0.0), k)
    x, values = basis.x[:k], jnp.maximum(basis.values[:k], jnp.finfo(jnp.float32).tiny)
    singular = jnp.sqrt(values)
    here = {i: p / jnp.sqrt(2.0) for i, p in split(x).items()}
    there = across(here)
    there = {i: y * scale[i][None] / singular[:, None] for i, y in there.items()}
    vectors = jnp.concatenate([(here | there)[i] for i in range(len(sizes))], axis=1)
    return Pairs(1.0 - singular, vectors, jnp.max(_error(basis, k)))


def _iterate(operator: Any, start: Float[Array, "m n"], k: int) -> _Basis:
    """Returns the leading eigenvectors of a positive semidefinite operator on rows."""

    def ritz(x: Array) -> _Basis:
        x = jnp.linalg.qr(x.T)[0].T
        image = operator(x)
        small = image @ x.T
        values, rotation = jnp.linalg.eigh((small + small.T) / 2)
        values, rotation = values[::-1], rotation[:, ::-1].T
        x, image = rotation @ x, rotation @ image
        return _Basis(x, image, values, jnp.linalg.norm(image - values[:, None] * x, axis=1))

    def unfinished(state: tuple[Any, _Basis]) -> Bool[Array, ""]:
        rounds, basis = state
        return (rounds < ROUNDS) & (jnp.max(_error(basis, k)) > TOLERANCE)  # False for NaN

    def filtered(state: tuple[Any, _Basis]) -> tuple[Any, _Basis]:
        rounds, basis = state
        x = _filter(operator, basis)
        return rounds + 1, ritz(x / jnp.linalg.norm(x, axis=1, keepdims=True))

    x = operator(jnp.linalg.qr(start.T)[0].T)
    x = operator(jnp.linalg.qr(x.T)[0].T)
    return jax.lax.while_loop(unfinished, filtered, (0, ritz(x)))[1]


def _error(basis: _Basis, k: int) -> Float[Array, " k"]:
    """Returns the residuals of the whole graph's eigenvectors, of which the basis has one half."""
    tiny = jnp.finfo(jnp.float32).tiny
    return basis.residuals[:k] / jnp.sqrt(2 * jnp.maximum(basis.values[:k], tiny))


def _filter(operator: Any, basis: _Basis) -> Float[Array, "m n"]:
    """Returns the rows of a basis with what lies below its last value damped.

    Values far above the rest would grow beyond the precision of a float: those vectors are kept out of
    the polynomial, and the plain operator is enough for them. The others set the degree.
    """
    edge = jnp.maximum(basis.values[-1], 1e-6)
    locked = (basis.values > _LOCKED * edge)[:, None]
    kept = jnp.where(locked, basis.x, 0.0)
    top = jnp.max(jnp.where(locked[:, 0], 0.0, basis.values))
    growth = jnp.arccosh(jnp.maximum(2 * top / edge - 1, 1.01))
    degree: Int[Array, ""] = jnp.clip((_GROWTH / growth).astype(jnp.int32), 3, DEGREE)

    def shifted(image: Array, x: Array) -> Array:
        """[0, edge] becomes [-1, 1], where the polynomials stay within [-1, 1]."""
        return (image - (image @ kept.T) @ kept) * (2 / edge) - x

    def step(_: Any, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        before, x = pair
        return x, 2 * shifted(operator(x), x) - before

    x = basis.x - kept
    first = jnp.where(locked, 0.0, shifted(basis.image, x))
    return jnp.where(locked, basis.image, jax.lax.fori_loop(1, degree, step, (x, first))[1])


def _neighbours(weights: Any, x: dict[int, Array]) -> dict[int, Array]:
    """Returns the adjacency matrix times rows that live on the layers of one half; they lie on the other."""
    out: dict[int, Any] = {}
    for i, w in enumerate(weights):
        to, y = (i + 1, x[i] @ w) if i in x else (i, x[i + 1] @ w.T)
        out[to] = out[to] + y if to in out else y
    return out


def degrees(weights: Any) -> list[Float[Array, " _"]]:
    """Returns the sum of the weights at each vertex, on the device, for each layer of vertices."""
    incoming = [jnp.zeros(weights[0].shape[0]), *(w.sum(axis=0) for w in weights)]
    outgoing = [*(w.sum(axis=1) for w in weights), jnp.zeros(weights[-1].shape[1])]
    return [a + b for a, b in zip(incoming, outgoing, strict=True)]


def _sizes(weights: Any) -> list[int]:
    return [weights[0].shape[0], *(w.shape[1] for w in weights)]


def dense_pairs(weights: graph.Weights, k: int) -> Pairs:
    """Returns the `k` lowest eigenpairs by LAPACK, in float64: for small graphs and hard ones."""
    matrix, inside = graph.adjacency(weights)
    root = np.sqrt(np.concatenate(graph.degrees(weights))[inside])
    laplacian = np.eye(len(root)) - matrix.toarray().astype(float) / (root[:, None] * root[None])
    values, x = linalg.eigh(laplacian, subset_by_index=[0, k - 1])
    residual = np.linalg.norm(laplacian @ x - values[None] * x, axis=0).max()
    vectors = np.zeros((k, len(inside)))
    vectors[:, inside] = (x / root[:, None]).T
    return Pairs(values, vectors, residual)
