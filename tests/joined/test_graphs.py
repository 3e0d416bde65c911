"""Joined sub-networks as graphs, against graphs that are written out."""

import numpy as np
import pytest

from jaxmod.joined import graphs
from jaxmod.structure.modularity import modularity


def networks(links: int, units: int = 12, runs: int = 2):
    """Returns sub-networks whose units are all joined, and so many links each way."""
    random = np.random.default_rng(0)

    def inner():
        return {"recurrent": {"kernel": random.uniform(0.5, 1, (runs, units, units)).astype(np.float32)}}

    def linked():
        kernel = np.zeros((runs, units * units), np.float32)
        for row in kernel:
            row[random.choice(units * units, links, replace=False)] = -0.1
        return {"kernel": kernel.reshape(runs, units, units)}

    return {"net_0": inner(), "net_1": inner(), "links": {"to_0": linked(), "to_1": linked()}}


def test_the_graph_of_a_step_has_both_sub_networks_and_the_links():
    weights = {
        "net_0": {"recurrent": {"kernel": np.array([[1.0]])}},
        "net_1": {"recurrent": {"kernel": np.array([[-2.0]])}},
        "links": {"to_0": {"kernel": np.array([[3.0]])}, "to_1": {"kernel": np.array([[-4.0]])}},
    }
    # From unit 0 to unit 1 leads the link to sub-network 1.
    np.testing.assert_array_equal(graphs.step_weights(weights), [[1, 4], [3, 2]])


def test_links_are_counted_and_make_the_modularity_of_the_graph():
    params = networks(links=30)
    found = graphs.count_links(params)
    assert found["counts"].tolist() == [[30, 30], [30, 30]]
    for q, weights in zip(found["modularity"], graphs.step_weights(params), strict=True):
        assert q == pytest.approx(modularity(weights != 0, np.repeat([0, 1], 12)))


def test_the_n_cut_of_sub_networks_with_few_links():
    params = networks(links=3)
    found = graphs.n_cuts(params, [(0, 0), (0, 1)])
    for i, weights in enumerate(graphs.step_weights(params).astype(float)):
        between = np.array(
            [[weights[a, b].sum() for b in (slice(12), slice(12, 24))] for a in (slice(12), slice(12, 24))]
        )
        volume = between.sum(axis=0) + between.sum(axis=1)
        np.testing.assert_allclose(found["own"][i], np.sum(1 - 2 * np.diag(between) / volume), rtol=1e-6)
    # So few and weak links: the clusters are the sub-networks.
    np.testing.assert_array_equal(found["agree"], 1)
    np.testing.assert_allclose(found["found"], found["own"], rtol=1e-6)
