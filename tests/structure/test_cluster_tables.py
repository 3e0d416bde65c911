"""Statistics and tables of clusterings by hand, on made-up ones."""

import json

import numpy as np
import pytest

from jaxmod import conditions
from jaxmod.structure import cluster_tables, cohens_d, published
from tests.structure.clusterings import ENTRY


def test_kinds_of_shuffles_are_told_by_their_names_and_not_by_their_order():
    random = np.random.default_rng(0)
    own = [1.0, 1.0]
    drawn = {
        "layer": random.normal(2, 0.1, (2, 9)).tolist(),
        "layer-nonzero": [[1.5 + i / 9 for i in range(9)]] * 2,
    }
    given, turned = (
        cluster_tables.describe({"n_cuts": own, "nulls": {kind: drawn[kind] for kind in kinds}})
        for kinds in (("layer", "layer-nonzero"), ("layer-nonzero", "layer"))
    )
    assert given["cohens_d"] == turned["cohens_d"] and given["clusters"] is None  # a part of earlier days
    assert given["cohens_d"]["runs"][0] == pytest.approx(
        cohens_d(*map(np.array, [x[0] for x in drawn.values()]))
    )
    row, other = (
        cluster_tables._effect_table([{"condition": "lines", "phase": "pruned"} | entry])["rows"][0]
        for entry in (given, turned)
    )
    assert row == other and row[3] == given["nulls"]["layer"]["mean"]


def test_shuffles_that_are_all_equal_cost_no_results():
    equal = {"layer": [[2.0] * 3, [0.1] * 3], "layer-nonzero": [[2.0] * 3, [0.1] * 3]}
    found = cluster_tables.describe({"n_cuts": [2.0, 0.1], "nulls": equal})
    assert found["cohens_d"] is None
    json.dumps(found, allow_nan=False)


def test_the_papers_numbers_stand_beside_ours():
    row = cluster_tables._n_cut_table([ENTRY])["rows"][0]
    assert row[4:] == ["2.000 ± 0.035", "2.100 ± 0.070", "2.042 ± 0.017", "0.5", "0.5", "0.7"]


def test_published_numbers_are_complete():
    main = ("mnist", "mnist-dropout", "fashion_mnist", "fashion_mnist-dropout", "cifar10", "cifar10-dropout")
    assert all((name, k) in published.SHUFFLED for name in main for k in (2, 4, 7, 10))
    assert set(published.ACCURACY) >= {*main, *published.MIXTURES}
    assert {name for name, _ in published.SHUFFLED} | set(published.MIXTURES) <= set(conditions.CONDITIONS)
    assert all((name, phase) in published.EFFECT for name in main for phase in conditions.PHASES)
    assert published.SHUFFLED["fashion_mnist-dropout", 10] == (1.0, 6.460, 0.041, 7.339, 0.034)
    assert published.SHUFFLED["cifar10", 4] == (0.1, 2.06, 0.14, 2.001, 0.017)
    assert published.SHUFFLED["memorization", 4] == (1.0, 1.880, 0.017, 2.008, 0.014)
    assert published.UNPRUNED["kilo-epoch-dropout"] == (2.329, 0.020)
    assert published.MIXTURES["lines-mnist-sep-dropout"] == (1.517, 0.020)
    assert published.ACCURACY["lines-dropout"] == (0.913, 0.312)
    assert published.EFFECT["fashion_mnist-dropout", "pruned"] == 14.89
