"""The n-cut against its definition, both clusterings against each other and against all bipartitions."""

import sys

import numpy as np
import pytest

from jaxmod.structure import cluster, cluster_many, n_cut, spectral
from tests.structure.graphs import (
    best_bipartition,
    dense_adjacency,
    joined,
    n_cut_by_loops,
    random_layers,
    split,
)

SIZES = (60, 30, 30, 5)
ABOVE_BEST = 0.12
"""How far the n-cut of a clustering may lie above that of the best bipartition, on graphs of ten neurons."""


def test_the_worked_example():
    weights = [np.array([[3.0, 1.0], [1.0, 3.0]]), np.diag([2.0, 2.0])]
    assert n_cut(weights, [np.array([0, 1])] * 3) == pytest.approx(1 / 3)
    assert n_cut(weights, [np.array([0, 0])] * 3) == 0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_against_its_definition(k):
    weights = random_layers((7, 5, 4, 3), keep=0.4)
    inside = dense_adjacency(weights).sum(axis=0) > 0
    labels = np.where(inside, np.random.default_rng(k).integers(0, k, 19), -1)
    ours = n_cut(weights, split(labels, weights))
    assert ours == pytest.approx(n_cut_by_loops(dense_adjacency(weights), labels.tolist()))
    assert 0 <= ours <= k
    assert n_cut([5 * w for w in weights], split(labels, weights)) == pytest.approx(ours)
    renamed = np.where(labels < 0, -1, 2 * (k - 1 - labels))  # every second name is not used
    assert n_cut(weights, split(renamed, weights)) == pytest.approx(ours)


def test_labels_that_do_not_fit():
    weights = random_layers((3, 2, 2))
    with pytest.raises(ValueError, match=r"labels have shapes .*\(3,\), \(2,\), \(2,\)"):
        n_cut(weights, [np.zeros(3, int), np.zeros(2, int)])
    for layer in range(3):
        labels = [np.zeros(n, int) for n in (3, 2, 2)]
        labels[layer][1] = -1
        with pytest.raises(ValueError, match=f"layer {layer} has weights and no label"):
            n_cut(weights, labels)
    with pytest.raises(ValueError, match="no vertices"):
        n_cut([np.zeros((2, 2))], [np.zeros(2, int)] * 2)


@pytest.mark.parametrize("method", ["jaxmod", "sklearn"])
def test_two_groups_are_the_best_of_all_bipartitions(method):
    random = np.random.default_rng(3)
    weights = joined(*([np.abs(random.standard_normal(s)) for s in ((2, 2), (2, 1))] for _ in range(2)))
    weights = [w + 0.05 for w in weights]
    found = cluster(weights, 2, method=method)
    assert found.n_cut == pytest.approx(best_bipartition(weights), rel=1e-5)
    assert all(x.dtype == np.int32 for x in found.labels)


@pytest.mark.parametrize("seed", range(5))
def test_no_clustering_beats_all_bipartitions(seed):
    weights = random_layers((4, 3, 3), seed, keep=0.7)
    found, best = cluster(weights, 2), best_bipartition(weights)
    assert best - 1e-6 <= found.n_cut <= best + ABOVE_BEST
    assert (
        found.eigenvalues is not None and found.eigenvalues[1] <= best + 1e-6
    )  # the relaxed problem's value bounds it from below


@pytest.mark.parametrize("keep", [1.0, 0.2])
def test_both_methods_agree(keep):
    graphs = [random_layers(SIZES, seed, keep) for seed in range(6)]
    ours = cluster_many(graphs, 4)
    for method in ("sklearn", "sklearn-lobpcg"):
        theirs = cluster_many(graphs, 4, method=method)
        gaps = np.array([a.n_cut - b.n_cut for a, b in zip(ours, theirs, strict=True)])
        # Graphs this small have several good clusterings; benchmarks/structure.py compares large ones.
        assert np.median(np.abs(gaps)) < 0.06 and gaps.mean() < 0.02
    assert all(c.residual is not None and c.residual < 1e-4 for c in ours)


def test_a_clustering_says_what_it_found():
    weights = random_layers(SIZES, keep=0.1)
    weights[0][7] = 0
    found = cluster(weights, 4)
    assert [len(x) for x in found.labels] == list(SIZES)
    assert found.n_cut == n_cut(weights, found.labels)
    np.testing.assert_array_equal(np.concatenate(found.labels) < 0, dense_adjacency(weights).sum(axis=0) == 0)
    assert found.labels[0][7] == -1
    assert found.eigenvalues is not None
    np.testing.assert_allclose(found.eigenvalues[0], 0, atol=1e-5)
    assert (np.diff(found.eigenvalues) >= 0).all()
    assert all(x.dtype == np.int32 for x in found.labels)
    assert found.clusters == 4 == len(set(np.concatenate(found.labels).tolist()) - {-1})


def test_neurons_whose_weights_a_device_takes_for_zero_are_left_out():
    weights = random_layers(SIZES, keep=0.1)
    weights[0][7] = 0
    without = cluster(weights, 4)
    weights[0][7, 0] = 1e-40
    found = cluster(weights, 4)
    assert found.labels[0][7] == -1 and found.n_cut == without.n_cut


@pytest.mark.parametrize("power", [-120, -60, 60, 124])
def test_the_scale_of_the_weights_changes_nothing(power):
    weights = random_layers(SIZES, keep=0.1)
    found, scaled = (cluster([np.ldexp(w, p) for w in weights], 4) for p in (0, power))
    for a, b in zip(found.labels, scaled.labels, strict=True):
        np.testing.assert_array_equal(a, b)
    assert scaled.n_cut == pytest.approx(found.n_cut, rel=1e-12)


def test_k_times_the_chance_that_a_stub_of_a_random_cluster_leaves_it():
    weights, random = random_layers((7, 5, 4), keep=0.6), np.random.default_rng(0)
    matrix = dense_adjacency(weights)
    labels = random.integers(0, 3, 16)
    draws = 40_000
    cluster_of = random.integers(0, 3, draws)
    left = 0
    for c in range(3):
        here = np.flatnonzero(labels == c)
        stubs = matrix[here] / matrix[here].sum()  # an end of an edge, in proportion to its weight
        count = np.count_nonzero(cluster_of == c)
        ends = random.choice(stubs.size, count, p=stubs.ravel()) % 16
        left += np.count_nonzero(labels[ends] != c)
    assert (matrix.sum(axis=0) > 0).all()
    assert n_cut(weights, split(labels, weights)) / 3 == pytest.approx(left / draws, abs=0.012)


def test_leaving_neurons_out_is_the_same_as_not_having_them():
    weights = random_layers(SIZES, keep=0.3)
    without = [np.delete(weights[0], [3, 9], axis=0), *weights[1:]]
    weights[0][[3, 9]] = 0
    assert cluster(weights, 3).n_cut == pytest.approx(cluster(without, 3).n_cut, abs=0.01)


def test_signs_scale_and_order_of_neurons_do_not_matter():
    weights = random_layers(SIZES, keep=0.3)
    random = np.random.default_rng(0)
    orders = [random.permutation(n) for n in SIZES]
    moved = [-3 * w[a][:, b] for w, a, b in zip(weights, orders[:-1], orders[1:], strict=True)]
    assert cluster(moved, 3).n_cut == pytest.approx(cluster(weights, 3).n_cut, abs=0.02)


@pytest.mark.parametrize("method", ["jaxmod", "sklearn"])
def test_parts_that_are_not_connected(method):
    weights = joined(*(random_layers((30, 15, 10), seed) for seed in range(3)))
    assert cluster(weights, 3, method=method).n_cut == pytest.approx(0, abs=1e-9)
    assert 0 <= cluster(weights, 2, method=method).n_cut < 1e-9


def test_an_all_zero_layer_cuts_the_graph():
    weights = random_layers((30, 15, 15, 10))
    weights[1][:] = 0
    found = cluster(weights, 2)
    assert found.n_cut == 0
    assert set(found.labels[0].tolist()) != set(found.labels[2].tolist())


def test_graphs_on_which_the_iteration_fails_go_to_lapack(monkeypatch):
    weights = random_layers(SIZES, keep=0.3)
    right = cluster(weights, 4)
    monkeypatch.setattr(spectral, "RESIDUAL", 0.0)
    again = cluster(weights, 4)
    assert again.residual is not None and right.residual is not None
    assert again.residual < 1e-12 < right.residual
    assert again.n_cut == pytest.approx(right.n_cut, abs=0.02)


def test_a_graph_of_low_rank():
    weights = [np.ones((30, 20), np.float32), np.ones((20, 10), np.float32)]  # one singular value
    found = cluster(weights, 3)
    np.testing.assert_allclose(found.eigenvalues, [0, 1, 1], atol=1e-6)
    assert np.isfinite(found.n_cut)


@pytest.mark.parametrize("method", ["jaxmod", "sklearn"])
def test_too_many_clusters(method):
    weights = random_layers((2, 2, 1))
    for k in (5, 6):
        with pytest.raises(ValueError, match=f"k: {k} clusters of a graph with 5 vertices"):
            cluster(weights, k, method=method)
    mostly = random_layers((30, 20))
    mostly[0][:, 1:] = mostly[0][2:] = 0
    with pytest.raises(ValueError, match="with 3 vertices"):
        cluster(mostly, 4, method=method)
    with pytest.raises(ValueError, match="no vertices"):
        cluster([np.zeros((30, 20))], 4, method=method)


def test_bad_arguments():
    weights = random_layers((5, 4))
    for arguments, message in [
        ({"k": 1}, "k: 1"),
        ({"k": 2, "method": "magic"}, "method: 'magic', expected one of 'jaxmod'"),
        ({"k": 2, "restarts": 0}, "restarts: 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            cluster(weights, **arguments)
    with pytest.raises(ValueError, match="'layer 1' has 1 weights that are NaN"):
        cluster([np.array([[1.0, np.nan], [1.0, 1.0]])], 2)
    with pytest.raises(ValueError, match="differ in shape"):
        cluster_many([weights, random_layers((6, 4))], 2)


def test_scikit_learn_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"jaxmod\[experiments\]"):
        cluster(random_layers((5, 4)), 2, method="sklearn")


def test_many_graphs_keep_their_order_and_their_random_numbers(monkeypatch):
    monkeypatch.setattr(spectral, "CHUNK", 4)
    graphs = [random_layers(SIZES, seed, 0.2 + 0.07 * seed) for seed in range(10)]
    many = cluster_many(graphs, 4, seed=3)
    few = cluster_many(graphs[:6], 4, seed=3)
    assert [c.n_cut for c in many[:6]] == [c.n_cut for c in few]
    for weights, found in zip(graphs, many, strict=True):
        assert found.n_cut == n_cut(weights, found.labels)
    assert cluster_many([], 4) == []
