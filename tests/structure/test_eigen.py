"""The eigenvectors: against LAPACK on the Laplacian written out, for graphs of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.structure import eigen, graph
from tests.structure.graphs import dense_adjacency, joined, random_layers

K = 4
SOLVE = jax.jit(eigen.lowest_pairs, static_argnums=2)


def solve(weights, k=K):
    neurons = sum([len(weights[0]), *(w.shape[1] for w in weights)][i] for i in eigen.half(weights))
    start = np.random.default_rng(0).standard_normal((k + eigen.BUFFER, neurons), np.float32)
    return SOLVE(tuple(weights), start, k)


def laplacian(weights):
    matrix = dense_adjacency(weights)
    degree = matrix.sum(axis=0)
    inside = degree > 0
    root = np.sqrt(degree[inside])
    return np.eye(len(root)) - matrix[inside][:, inside] / np.outer(root, root), root, inside


@pytest.mark.parametrize(
    "sizes, keep",
    [
        ((60, 30, 30, 5), 1.0),
        ((60, 30, 30, 5), 0.2),
        ((20, 50), 0.5),
        ((15, 40, 15), 0.5),
        ((40, 30, 30, 30, 30, 4), 0.15),
    ],
)
def test_pairs_are_those_of_the_laplacian(sizes, keep):
    weights = random_layers(sizes, keep=keep)
    matrix, root, inside = laplacian(weights)
    pairs = solve(weights)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(matrix)[:K], atol=2e-6)
    assert not np.asarray(pairs.vectors)[:, ~inside].any()
    x = np.asarray(pairs.vectors, float)[:, inside] * root[None]
    np.testing.assert_allclose(x @ x.T, np.eye(K), atol=1e-5)
    residual = np.linalg.norm(x @ matrix - np.asarray(pairs.values)[:, None] * x, axis=1)
    assert residual.max() <= eigen.TOLERANCE * 1.2
    np.testing.assert_allclose(pairs.residual, residual.max(), rtol=0.3, atol=2e-6)


def test_the_first_vector_is_constant():
    vectors = np.asarray(solve(random_layers((60, 30, 30, 5), keep=0.5)).vectors)
    np.testing.assert_allclose(vectors[0], vectors[0, 0], rtol=1e-4)


def test_parts_that_are_not_connected_all_have_the_value_zero():
    weights = joined(*(random_layers((30, 15, 10), seed) for seed in range(3)))
    values = np.asarray(solve(weights).values)
    np.testing.assert_allclose(values[:3], 0, atol=1e-5)
    assert values[3] > 0.1


def test_a_graph_mapped_and_vmapped_is_the_graph_alone():
    many = [random_layers((60, 30, 30, 5), seed, keep=0.4) for seed in range(3)]
    stacked = tuple(np.stack(layer) for layer in zip(*many, strict=True))
    start = np.random.default_rng(0).standard_normal((K + eigen.BUFFER, 35), np.float32)
    mapped = jax.jit(jax.vmap(lambda w: eigen.lowest_pairs(w, jnp.asarray(start), K)))(stacked)
    for i, weights in enumerate(many):
        np.testing.assert_allclose(mapped.values[i], solve(weights).values, atol=1e-6)


def test_lapack_on_small_graphs():
    weights = random_layers((6, 5, 4), keep=0.4)
    weights[0][1] = 0
    matrix, root, inside = laplacian(weights)
    pairs = eigen.dense_pairs(weights, 3)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(matrix)[:3], atol=1e-12)
    x = pairs.vectors[:, inside] * root[None]
    np.testing.assert_allclose(x @ matrix, pairs.values[:, None] * x, atol=1e-12)
    assert not pairs.vectors[:, ~inside].any() and pairs.residual < 1e-12


def test_the_half_with_fewer_neurons():
    assert eigen.half(random_layers((9, 5, 4))) == [1]
    assert eigen.half(random_layers((3, 9, 4, 2))) == [0, 2]


def test_degrees_on_the_device():
    weights = [jnp.asarray(w) for w in random_layers((9, 5, 4))]
    for here, there in zip(graph.degrees(random_layers((9, 5, 4))), eigen.degrees(weights), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-6)
