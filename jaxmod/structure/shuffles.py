"""Is a network more modular than chance? The n-cuts of its weights shuffled, and what they say.

Filan et al. 2020, section 3.3. Each shuffle has random numbers of its own, so that all are independent and
any can be drawn again alone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from jaxmod.structure import graph, ncut

__all__ = ["Kind", "below_first", "cluster_shuffles", "cohens_d", "p_value", "pooled", "shuffled"]

Kind: TypeAlias = Literal["layer", "layer-nonzero"]
"""`layer` permutes all weights of a layer; `layer-nonzero` those not zero among their own places."""

_KMEANS, _SHUFFLE = 0, 1


def cluster_shuffles(
    weights: graph.Weights,
    k: int,
    shuffles: int | Sequence[int] = 320,
    kind: Kind = "layer",
    *,
    seed: ncut.Seed = 0,
    method: ncut.Method = "jaxmod",
    restarts: int = 10,
) -> Float[np.ndarray, " shuffles"]:
    """Returns the n-cuts of a network's shuffles.

    Args:
      weights: as `weight_layers` gives them.
      k: how many clusters.
      shuffles: how many, or which: `[17]` is number 17 of any larger set.
      kind: what is permuted.
      seed: of the shuffles and of k-means. Give each network its own: `(42, network)`.
      method: our solver, or scikit-learn's.
      restarts: of k-means.

    Raises:
      ValueError: as `cluster`, and for an unknown kind or a number of shuffles that is not positive.
    """
    which = range(shuffles) if isinstance(shuffles, int) else shuffles
    if not len(which):
        raise ValueError(f"shuffles: {shuffles}, expected at least one.")
    draw = _prepared(weights, kind)
    graphs = ((draw(_stream(seed, i, _SHUFFLE, kind)), _stream(seed, i, _KMEANS, kind)) for i in which)
    return np.array([c.n_cut for c in ncut.clusterings(graphs, k, method, restarts)])


def shuffled(
    weights: graph.Weights, kind: Kind = "layer", *, seed: ncut.Seed = 0, index: int = 0
) -> tuple[np.ndarray, ...]:
    """Returns the weights of shuffle number `index`, the one that `cluster_shuffles` clusters.

    Neurons that have no weight but zeros are left out of the shuffle, though not the outputs, as in
    the paper's code. A shuffle may cut off others.
    """
    return _prepared(weights, kind)(_stream(seed, index, _SHUFFLE, kind))


def p_value(value: float, shuffles: Float[np.ndarray, " shuffles"], *, count_equal: bool = False) -> float:
    """Returns the one-sided p: `(1 + how many shuffles lie below the value) / (1 + shuffles)`.

    North et al. 2002. At best 1 / 321 for 320 shuffles.

    Args:
      value: of the trained network.
      shuffles: of its shuffles.
      count_equal: count equal ones too, as North et al. do and the paper's code does not.

    Raises:
      ValueError: there are no shuffles, or a number is NaN.
    """
    shuffles = _checked(value, shuffles)
    below = shuffles <= value if count_equal else shuffles < value
    return (1 + np.count_nonzero(below)) / (1 + len(shuffles))


def below_first(value: float, shuffles: Float[np.ndarray, " shuffles"], count: int = 32) -> bool:
    """Returns whether a value lies below each of the first shuffles.

    The paper's 320 shuffles were 32 different ones: this is what it calls significant. If there are fewer
    than `count`, all of them are the first ones.

    Raises:
      ValueError: there are no shuffles, or a number is NaN.
    """
    return bool(value < np.min(_checked(value, shuffles)[:count]))


def cohens_d(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> float | None:
    """Returns how many pooled standard deviations the mean of the first lies above that of the second.

    With `layer` shuffles first and `layer-nonzero` second, a positive number says that the topology
    alone makes the network clusterable. None where no number varies in either set: d is not defined.

    Raises:
      ValueError: a set has fewer than two numbers.
    """
    first, second = np.asarray(first), np.asarray(second)
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        raise ValueError(f"Cohen's d of {n} and {m} values: both sets need at least two.")
    if np.ptp(first) == np.ptp(second) == 0:
        return None
    variance = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
    return float((first.mean() - second.mean()) / np.sqrt(variance))


def pooled(shuffles: Iterable[Float[np.ndarray, " shuffles"]]) -> tuple[float, float]:
    """Returns mean and standard deviation of the shuffles of several networks, as in the paper's tables."""
    means, squares = zip(*((np.mean(x), np.var(x) + np.mean(x) ** 2) for x in shuffles), strict=True)
    mean = np.mean(means)
    # Rounding may bring the variance of equal numbers below 0.
    return float(mean), float(np.sqrt(max(np.mean(squares) - mean**2, 0.0)))


def _checked(value: float, shuffles: Float[np.ndarray, " shuffles"]) -> Float[np.ndarray, " shuffles"]:
    shuffles = np.asarray(shuffles)
    if not len(shuffles) or np.isnan(value) or np.isnan(shuffles).any():
        raise ValueError(
            f"A value of {value} beside {len(shuffles)} shuffles, {np.count_nonzero(np.isnan(shuffles))} of "
            "them NaN: expected one shuffle or more, and no NaN."
        )
    return shuffles


def _stream(seed: ncut.Seed, index: int, purpose: int, kind: Kind) -> np.random.Generator:
    """Returns random numbers that no other shuffle has, nor the same one of the other kind."""
    return ncut.stream(seed, index, purpose, *([] if kind == "layer" else [1]))


def _prepared(weights: graph.Weights, kind: Kind) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """Returns `draw(random) -> weights`: only the weights that are not zero have to be placed."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind: {kind!r}, expected one of {', '.join(map(repr, get_args(Kind)))}.")
    weights = graph.check_weights(weights)
    inside = graph.vertices(weights)
    inside[-1][:] = True
    values = [w[w > 0] for w in weights]
    if kind == "layer":
        places = [
            np.flatnonzero(rows[:, None] & columns[None])
            for rows, columns in zip(inside[:-1], inside[1:], strict=True)
        ]
    else:
        places = [np.flatnonzero(w) for w in weights]

    def draw(random: np.random.Generator) -> tuple[np.ndarray, ...]:
        drawn = []
        for w, value, place in zip(weights, values, places, strict=True):
            new = np.zeros(w.size, np.float32)
            # Ordered and without replacement; the time goes with the weights that are not zero.
            new[place[random.choice(len(place), len(value), replace=False)]] = value
            drawn.append(new.reshape(w.shape))
        return tuple(drawn)

    return draw
