"""k-means for points that a device holds: all restarts at once, in one compiled program."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

__all__ = ["draws", "kmeans"]

TOLERANCE = 1e-4
"""Of the mean variance of a coordinate, as in scikit-learn: the centers have stopped if they move less."""
ITERATIONS = 300


def draws(k: int) -> int:
    """Returns how many random numbers a restart takes."""
    return 1 + (k - 1) * _candidates(k)


def kmeans(
    points: Float[Array, "d n"],
    inside: Float[Array, " n"],
    uniforms: Float[Array, "restarts draws"],
    k: int,
) -> Int32[Array, " n"]:
    """Returns the cluster of each point, from the restart with the smallest sum of squared distances.

    Greedy k-means++ (the best of 2 + log k candidates), then Lloyd's iterations. A center that loses its
    points stays where it is.

    Args:
      points: a column each.
      inside: 1 or 0: points that are not inside count for nothing, and their label has no meaning.
      uniforms: in [0, 1), `draws(k)` for each restart.
      k: how many clusters.
    """
    mean = jnp.sum(points * inside[None], axis=1) / jnp.sum(inside)
    points = (points - mean[:, None]) * inside[None]  # floats are finest around zero
    centers = _lloyd(points, inside, _plus_plus(points, inside, uniforms, k))
    nearest, labels = _assign(points, centers)
    return labels[jnp.argmin(jnp.sum(nearest * inside[None], axis=1))]


def _candidates(k: int) -> int:
    return 2 + int(math.log(k))


def _plus_plus(points: Array, inside: Array, uniforms: Array, k: int) -> Float[Array, "restarts k d"]:
    """Returns first centers: each is drawn in proportion to the squared distance from those before."""
    squares = jnp.sum(points**2, axis=0)

    def distances(x: Float[Array, "restarts c d"]) -> Float[Array, "restarts c n"]:
        to = jnp.sum(x**2, axis=-1)[..., None] - 2 * x @ points + squares[None, None]
        return jnp.maximum(to, 0.0) * inside[None, None]

    def pick(mass: Float[Array, "restarts n"], u: Float[Array, "restarts c"]) -> Int[Array, "restarts c"]:
        total = jnp.cumsum(mass, axis=1)
        # A little less than the total, which rounding could otherwise reach.
        below = total[:, None] <= (u * (1 - 1e-6) * total[:, -1:])[:, :, None]
        return jnp.minimum(jnp.sum(below, axis=2), mass.shape[1] - 1)

    tries = _candidates(k)
    first = pick(jnp.broadcast_to(inside[None], (len(uniforms), len(inside))), uniforms[:, :1])
    centers = [points.T[first]]
    closest = distances(centers[0])
    for i in range(k - 1):
        x = points.T[pick(closest[:, 0], uniforms[:, 1 + i * tries : 1 + (i + 1) * tries])]
        closer = jnp.minimum(closest, distances(x))
        best = jnp.argmin(jnp.sum(closer, axis=2), axis=1)[:, None, None]
        closest = jnp.take_along_axis(closer, best, axis=1)
        centers.append(jnp.take_along_axis(x, best, axis=1))
    return jnp.concatenate(centers, axis=1)


def _lloyd(points: Array, inside: Array, centers: Array) -> Float[Array, "restarts k d"]:
    """Returns the centers where they have stopped, in all restarts."""
    restarts, k, d = centers.shape
    still = TOLERANCE * jnp.sum(points**2) / (d * jnp.sum(inside))
    columns = jnp.concatenate([points, inside[None]])

    def moving(state: tuple[Any, Array, Array]) -> Array:
        iteration, _, moved = state
        return (iteration < ITERATIONS) & (moved > still)

    def step(state: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        iteration, centers, _ = state
        chosen = _assign(points, centers)[1][:, None] == jnp.arange(k)[None, :, None]
        sums = (chosen.astype(points.dtype).reshape(restarts * k, -1) @ columns.T).reshape(restarts, k, -1)
        count = sums[..., d:]
        new = jnp.where(count > 0, sums[..., :d] / jnp.maximum(count, 1.0), centers)
        return iteration + 1, new, jnp.max(jnp.sum((new - centers) ** 2, axis=(1, 2)))

    start = (0, centers, jnp.array(jnp.inf, points.dtype))
    return jax.lax.while_loop(moving, step, start)[1]


def _assign(points: Array, centers: Array) -> tuple[Float[Array, "restarts n"], Int32[Array, "restarts n"]]:
    """Returns the squared distance to the nearest center, less the point's own square, and which it is."""
    restarts, k, d = centers.shape
    product = (centers.reshape(restarts * k, d) @ points).reshape(restarts, k, -1)
    distances = jnp.sum(centers**2, axis=-1)[:, :, None] - 2 * product
    # Not argmin, which XLA's CPU backend does one number at a time.
    nearest, labels = distances[:, 0], jnp.zeros(distances[:, 0].shape, jnp.int32)
    for i in range(1, k):
        labels = jnp.where(distances[:, i] < nearest, i, labels)
        nearest = jnp.minimum(nearest, distances[:, i])
    return nearest, labels
