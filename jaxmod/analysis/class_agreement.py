"""Do two networks take the same classes for the same others, when what a class needs is gone?

Of the differences of confusion matrices (figures 19 to 21) the entries off the diagonal say what examples are
taken for. Some agreement is there in any two networks: what a class loses must go somewhere. So beside the
correlation stands that with the classes of one network under other names.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Agreement", "class_agreement", "left_out_rows", "off_diagonal"]


class Agreement(NamedTuple):
    """Of the differences of two networks; NaN where those of one are all the same."""

    correlation: float
    """Pearson's, of all entries off the diagonal."""
    chance: float
    """Its mean where the classes of one network have other names."""
    chance_std: float
    p: float
    """How often chance gives as much or more: the permutations that do, and the one that is found."""


def class_agreement(
    first: Float[np.ndarray, "left_out true seen"],
    second: Float[np.ndarray, "left_out true seen"],
    permutations: int = 1000,
    seed: int = 0,
    rows_only: bool = False,
) -> Agreement:
    """Returns how far the confusion differences of two networks agree, and how far they would by chance.

    Args:
      first: of each class that was left out the difference of the confusion matrices, `[true, seen]`.
      second: those of another network.
      permutations: of the names of the classes, the same one for those left out, true and seen; 2 or more.
      seed: of the permutations.
      rows_only: only the row of the class that was left out: what it is taken for.

    Raises:
      ValueError: the shapes are not those of the same classes.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    classes = len(first)
    if first.shape != (classes,) * 3 or second.shape != first.shape:
        raise ValueError(
            "expected two arrays [left out, true, seen] of the same classes, got shapes "
            f"{first.shape} and {second.shape}."
        )
    entries = left_out_rows if rows_only else off_diagonal
    x, random = entries(first), np.random.default_rng(seed)
    found = _correlation(x, entries(second))
    if np.isnan(found):
        return Agreement(*[float("nan")] * 4)
    orders = [random.permutation(classes) for _ in range(permutations)]
    chance = np.array([_correlation(x, entries(second[np.ix_(o, o, o)])) for o in orders])
    p = (1 + np.sum(chance >= found - 1e-9)) / (1 + permutations)
    return Agreement(found, float(chance.mean()), float(chance.std(ddof=1)), float(p))


def off_diagonal(differences: Float[np.ndarray, "left_out true seen"]) -> Float[np.ndarray, " entries"]:
    """Returns the entries at which true and seen class differ."""
    return differences[:, ~np.eye(len(differences), dtype=bool)].ravel()


def left_out_rows(differences: Float[np.ndarray, "left_out true seen"]) -> Float[np.ndarray, " entries"]:
    """Returns what the examples of each class that was left out are taken for, beside itself."""
    rows = np.arange(len(differences))
    return differences[rows, rows][~np.eye(len(differences), dtype=bool)]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    spread = x.std() * y.std()
    return float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread else float("nan")
