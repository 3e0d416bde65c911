"""Directed modularity of a graph whose groups are given, and that of two sub-networks joined by links."""

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

__all__ = ["linked_modularity", "modularity", "subnetwork_density", "subnetwork_modularity"]


def modularity(
    adjacency: Bool[np.ndarray, "nodes nodes"]
    | Integer[np.ndarray, "nodes nodes"]
    | Float[np.ndarray, "nodes nodes"],
    groups: Shaped[np.ndarray, " nodes"],
) -> float:
    """Returns `Q = (1/M) sum_ij (A_ij - k_i^out k_j^in / M) [g_i = g_j]` of a directed graph with M edges.

    Args:
      adjacency: `A_ij` is 1 if there is an edge from i to j, else 0.
      groups: of the nodes: numbers or names.

    Raises:
      ValueError: the shapes do not fit; another entry than 0 and 1; no edge.

    >>> round(modularity(np.array([[1, 0], [1, 1]]), np.array([0, 1])), 4)
    0.2222
    """
    a, g = np.asarray(adjacency), np.asarray(groups)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or g.shape != a.shape[:1]:
        raise ValueError(
            f"adjacency has shape {list(a.shape)} and groups {list(g.shape)}, expected [N, N] and [N]."
        )
    if not np.isin(a, (0, 1)).all():
        raise ValueError("adjacency has entries other than 0 and 1; compare the weights with 0 first.")
    # Only the edges between whole groups enter the sum.
    names, group = np.unique(g, return_inverse=True)
    member = np.equal.outer(group, np.arange(len(names))).astype(np.int64)
    return _of_groups(member.T @ a.astype(np.int64) @ member)


def linked_modularity(counts: tuple[int, int], units: int, self_loops: bool = True) -> float:
    """Returns the modularity of two sub-networks whose units are all joined, and the links between them.

    Only how many links there are each way matters, not which. Equal counts `c` and `r` edges inside each
    sub-network give `(r - c) / (2 (r + c))`.

    Args:
      counts: of the links to sub-network 0 and to sub-network 1 (`np.count_nonzero` of their weights).
      units: of each sub-network, N.
      self_loops: whether a unit is joined to itself: N^2 edges inside a sub-network, else N (N - 1).

    Raises:
      ValueError: no units, a count that is not between 0 and N^2, or no edge at all.
    """
    if units < 1:
        raise ValueError(f"linked_modularity: units must be at least 1, got {units}.")
    if not all(0 <= c <= units**2 for c in counts):
        raise ValueError(
            f"linked_modularity: counts must be between 0 and {units**2} (units^2), got {counts}."
        )
    inside = units**2 if self_loops else units * (units - 1)
    to_0, to_1 = (int(c) for c in counts)
    return _of_groups(np.array([[inside, to_1], [to_0, inside]]))


def subnetwork_modularity(density: float | Float[np.ndarray, "..."]) -> float | Float[np.ndarray, "..."]:
    """Returns `(1 - p) / (2 (1 + p))`, the modularity at a part `p` of all possible links each way.

    It is exact for all places of the links, with self-loops and as many links one way as the other.

    >>> round(subnetwork_modularity(0.2), 4)
    0.3333
    """
    return (1 - density) / (1 + density) / 2


def subnetwork_density(modularity: float | Float[np.ndarray, "..."]) -> float | Float[np.ndarray, "..."]:
    """Returns `p = (1 - 2 Q) / (1 + 2 Q)`, the density of links at which the modularity is `Q`.

    >>> round(subnetwork_density(0.35), 4)
    0.1765
    """
    return (1 - 2 * modularity) / (1 + 2 * modularity)


def _of_groups(edges: Integer[np.ndarray, "groups groups"]) -> float:
    """Returns the modularity, given the number of edges from each group to each."""
    total = edges.sum()
    if total == 0:
        raise ValueError("The graph has no edges, and its modularity is not defined.")
    expected = edges.sum(axis=1) @ edges.sum(axis=0) / total
    return float((np.trace(edges) - expected) / total)
