"""Random graphs of layers, and brute force over their clusters."""

import itertools

import numpy as np

from jaxmod.structure import n_cut


def random_layers(sizes, seed=0, keep=1.0):
    """Returns |Gaussian| weights, of which the largest are kept in each layer."""
    random = np.random.default_rng(seed)
    layers = [np.abs(random.standard_normal(shape)).astype(np.float32) for shape in itertools.pairwise(sizes)]
    return [np.where(w >= np.quantile(w, 1 - keep), w, 0).astype(np.float32) for w in layers]


def split(labels, weights):
    """Returns a vector of labels layer by layer."""
    return np.split(np.asarray(labels), np.cumsum([len(w) for w in weights]))


def dense_adjacency(weights):
    """Returns the adjacency matrix of all neurons, written with loops."""
    sizes = [len(weights[0]), *(w.shape[1] for w in weights)]
    first = np.cumsum([0, *sizes])
    matrix = np.zeros((first[-1], first[-1]))
    for layer, w in enumerate(weights):
        for i, j in itertools.product(*map(range, w.shape)):
            a, b = first[layer] + i, first[layer + 1] + j
            matrix[a, b] = matrix[b, a] = w[i, j]
    return matrix


def n_cut_by_loops(matrix, labels):
    """Returns the n-cut from its definition."""
    total = 0.0
    for c in sorted(set(labels) - {-1}):
        inside = np.array(labels) == c
        total += matrix[inside][:, ~inside].sum() / matrix[inside].sum()
    return total


def best_bipartition(weights):
    """Returns the smallest n-cut of all divisions of the neurons into two clusters with edges in each."""
    neurons = len(weights[0]) + sum(w.shape[1] for w in weights)
    matrix = dense_adjacency(weights)
    best = np.inf
    for rest in itertools.product((0, 1), repeat=neurons - 1):
        labels = np.array((0, *rest))
        if all(matrix[labels == c].sum() > 0 for c in (0, 1)):
            best = min(best, n_cut(weights, split(labels, weights)))
    return best


def joined(*graphs):
    """Returns one graph of several that are not connected to each other."""
    layers = []
    for blocks in zip(*graphs, strict=True):
        w = np.zeros(np.sum([b.shape for b in blocks], axis=0), np.float32)
        row = column = 0
        for b in blocks:
            w[row : row + b.shape[0], column : column + b.shape[1]] = b
            row, column = row + b.shape[0], column + b.shape[1]
        layers.append(w)
    return layers
