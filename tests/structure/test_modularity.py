"""Directed modularity against a double loop, and that of sub-networks against realised links."""

import numpy as np
import pytest

from jaxmod.structure.modularity import (
    linked_modularity,
    modularity,
    subnetwork_density,
    subnetwork_modularity,
)


def by_loops(a, groups):
    edges, q = a.sum(), 0.0
    for i in range(len(a)):
        for j in range(len(a)):
            if groups[i] == groups[j]:
                q += a[i, j] - a[i].sum() * a[:, j].sum() / edges
    return q / edges


def linked(units, counts, seed, self_loops=True):
    """Returns the adjacency matrix and the groups of two full sub-networks with links at random places."""
    rng = np.random.default_rng(seed)
    a = np.zeros((2 * units, 2 * units), np.int64)
    for group in (slice(units), slice(units, None)):
        a[group, group] = 1 if self_loops else 1 - np.eye(units)
    for target, count in enumerate(counts):
        block = np.zeros(units**2, np.int64)
        block[rng.permutation(units**2)[:count]] = 1
        source, to = (slice(units, None), slice(units)) if target == 0 else (slice(units), slice(units, None))
        a[source, to] = block.reshape(units, units)
    return a, np.repeat([0, 1], units)


@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
def test_it_is_the_sum_over_pairs_of_nodes(density):
    rng = np.random.default_rng(0)
    a = (rng.random((23, 23)) < density).astype(int)
    for groups in (rng.integers(4, size=23), np.zeros(23, int), np.arange(23), rng.choice(["a", "b"], 23)):
        assert modularity(a, groups) == pytest.approx(by_loops(a, groups), abs=1e-12)
    assert modularity(a == 1, np.zeros(23, int)) == pytest.approx(0, abs=1e-12)
    assert modularity(a.astype(np.float32), rng.integers(4, size=23)) is not None


def test_the_most_for_equal_groups():
    for groups in (2, 3, 5):
        a = np.kron(np.eye(groups, dtype=int), np.ones((4, 4), int))
        assert modularity(a, np.repeat(np.arange(groups), 4)) == pytest.approx(1 - 1 / groups)


@pytest.mark.parametrize(
    ("density", "expected", "within"),
    [
        (0.0, 0.5, 0.0),
        (1e-4, 0.4999, 5e-5),
        (1e-3, 0.4990, 5e-5),
        (0.01, 0.4901, 5e-5),
        (0.05, 0.4524, 5e-5),
        (0.11, 0.4009, 5e-5),
        (0.176, 0.350, 5e-4),
        (0.2, 0.3333, 5e-5),
        (0.5, 0.1667, 5e-5),
        (1.0, 0.0, 0.0),
    ],
)
def test_the_table(density, expected, within):
    q = subnetwork_modularity(density)
    assert q == pytest.approx(expected, abs=within)
    assert subnetwork_density(q) == pytest.approx(density, abs=1e-12)
    count = round(density * 100**2)
    assert linked_modularity((count, count), 100) == pytest.approx(q, abs=1e-12)


def test_arrays_of_densities():
    density = np.geomspace(1e-4, 1, 10)
    np.testing.assert_allclose(subnetwork_density(subnetwork_modularity(density)), density, rtol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 17, 63, 64])
def test_where_the_links_are_does_not_matter(count):
    expected = subnetwork_modularity(count / 64)
    for seed in range(5):
        a, groups = linked(8, (count, count), seed)
        assert modularity(a, groups) == pytest.approx(expected, abs=1e-12)
        assert by_loops(a, groups) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("counts", [(0, 0), (3, 3), (0, 40), (64, 5), (64, 64)])
def test_unequal_counts_and_no_self_loops(counts, self_loops):
    a, groups = linked(8, counts, 1, self_loops)
    q = linked_modularity(counts, 8, self_loops)
    assert q == pytest.approx(by_loops(a, groups), abs=1e-12)
    if counts[0] == counts[1]:
        inside, c = 64 if self_loops else 56, counts[0]
        assert q == pytest.approx((inside - c) / (2 * (inside + c)))


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"adjacency has shape \[2, 3\] and groups \[2\]"):
        modularity(np.ones((2, 3), int), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"adjacency has shape \[2, 2\] and groups \[3\]"):
        modularity(np.ones((2, 2), int), np.zeros(3, int))
    with pytest.raises(ValueError, match="entries other than 0 and 1"):
        modularity(np.full((2, 2), 0.5), np.zeros(2, int))
    with pytest.raises(ValueError, match="no edges"):
        modularity(np.zeros((2, 2), int), np.zeros(2, int))
    with pytest.raises(ValueError, match="units must be at least 1, got 0"):
        linked_modularity((0, 0), 0)
    with pytest.raises(ValueError, match=r"counts must be between 0 and 9 \(units\^2\), got \(10, 0\)"):
        linked_modularity((10, 0), 3)
    with pytest.raises(ValueError, match="no edges"):
        linked_modularity((0, 0), 1, self_loops=False)
