"""k-means: against scikit-learn, and where points coincide or do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.structure import kmeans

RUN = jax.jit(kmeans.kmeans, static_argnums=3)


def run(points, k, inside=None, restarts=10, seed=0):
    inside = np.ones(len(points), np.float32) if inside is None else inside
    uniforms = np.random.default_rng(seed).random((restarts, kmeans.draws(k)), np.float32)
    return np.asarray(RUN(jnp.asarray(points.T, jnp.float32), inside, uniforms, k))


def inertia(points, labels):
    return sum(
        ((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum() for c in set(labels.tolist())
    )


def blobs(k, count=300, spread=1.0, seed=1):
    random = np.random.default_rng(seed)
    centers = random.standard_normal((k, k)) * 3
    truth = np.arange(count) % k
    return centers[truth] + spread * random.standard_normal((count, k)), truth


@pytest.mark.parametrize("k", [2, 4, 7])
def test_as_good_as_scikit_learn(k):
    cluster = pytest.importorskip("sklearn.cluster")
    points, _ = blobs(k, spread=1.5)
    theirs = cluster.KMeans(k, n_init=10, random_state=0).fit(points).inertia_
    assert inertia(points, run(points, k)) <= theirs * 1.01


def test_groups_far_apart_are_found_from_one_start():
    points, truth = blobs(5, spread=0.01)
    labels = run(points, 5, restarts=1)
    assert len({(a, b) for a, b in zip(truth.tolist(), labels.tolist(), strict=True)}) == 5


def test_a_shift_far_from_zero_changes_nothing():
    points, _ = blobs(3)
    np.testing.assert_array_equal(run(points, 3), run(points + 100, 3))


def test_points_outside_count_for_nothing():
    points, truth = blobs(3, spread=0.01)
    inside = np.ones(len(points), np.float32)
    inside[:50], points[:50] = 0, 1e3 * np.arange(150).reshape(50, 3)
    labels = run(points, 3, inside)[50:]
    assert len({(a, b) for a, b in zip(truth[50:].tolist(), labels.tolist(), strict=True)}) == 3


def test_fewer_different_points_than_clusters():
    points = np.repeat([[0.0, 0.0], [1.0, 1.0]], 5, axis=0)
    labels = run(points, 4)
    assert len(set(labels[:5].tolist())) == len(set(labels[5:].tolist())) == 1
    assert labels[0] != labels[5]
    assert len(set(run(np.zeros((10, 2)), 3).tolist())) == 1
