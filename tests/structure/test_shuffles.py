"""Shuffles are permutations, uniform, independent and repeatable; the statistics against their formulas."""

import collections

import numpy as np
import pytest
from scipy import stats

from jaxmod.structure import (
    below_first,
    cluster,
    cluster_shuffles,
    cohens_d,
    p_value,
    pooled,
    shuffled,
    shuffles,
    spectral,
)
from tests.structure.graphs import random_layers

SIZES = (60, 30, 30, 5)


def test_a_layer_keeps_its_weights():
    weights = random_layers(SIZES, keep=0.3)
    for kind in ("layer", "layer-nonzero"):
        new = shuffled(weights, kind)
        for w, v in zip(weights, new, strict=True):
            np.testing.assert_array_equal(np.sort(w, axis=None), np.sort(v, axis=None))
            assert not np.array_equal(w, v)
            assert np.array_equal(w > 0, v > 0) == (kind == "layer-nonzero")


def test_isolated_neurons_stay_out_of_a_shuffle_but_not_outputs():
    weights = random_layers((40, 12, 8), keep=0.2)
    weights[0][:10] = 0
    weights[0][:, 3] = weights[1][3] = 0
    weights[1][:, 2] = 0
    drawn = [shuffled(weights, seed=5, index=i) for i in range(30)]
    assert not any(w[:10].any() or w[:, 3].any() or v[3].any() for w, v in drawn)
    assert any(v[:, 2].any() for _, v in drawn)


def test_every_order_is_as_likely():
    weights = [np.array([[1.0, 2.0], [3.0, 0.0]])]
    counts = collections.Counter(shuffled(weights, index=i)[0].tobytes() for i in range(4800))
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    places = collections.Counter(
        shuffled(weights, "layer-nonzero", index=i)[0].tobytes() for i in range(1200)
    )
    assert len(places) == 6 and stats.chisquare(list(places.values())).pvalue > 1e-3


def test_shuffles_are_different_and_can_be_drawn_again():
    weights = random_layers(SIZES, keep=0.3)
    seen = [shuffled(weights, seed=s, index=i)[0] for s in (0, 1, (0, 1), (0, 2)) for i in range(20)]
    assert len({w.tobytes() for w in seen}) == 80
    places = np.stack([w.ravel() > 0 for w in seen]).astype(float)
    apart = np.corrcoef(places)[np.triu_indices(80, 1)]
    assert np.abs(apart.mean()) < 0.003 and np.abs(apart).max() < 5 / np.sqrt(1800)
    np.testing.assert_array_equal(seen[3], shuffled(weights, seed=0, index=3)[0])


def test_kinds_share_no_random_numbers_and_those_of_layer_are_as_they_were():
    weights = [np.arange(1.0, 7).reshape(2, 3)]  # no zeros: both kinds permute all weights
    drawn = {
        kind: [shuffled(weights, kind, seed=4, index=i)[0].tobytes() for i in range(50)]
        for kind in ("layer", "layer-nonzero")
    }
    same = [a == b for a, b in zip(*drawn.values(), strict=True)]
    assert sum(same) < 5  # one of 720 by chance
    assert shuffled(weights, seed=(3, 1), index=2)[0].ravel().tolist() == [6, 5, 4, 2, 3, 1]
    uniforms = [shuffles._stream(4, 0, shuffles._KMEANS, kind).random() for kind in drawn]
    assert uniforms[0] != uniforms[1]


def test_few_weights():
    for weights in ([np.diag([1.0, 0.0])], [np.zeros((2, 2))]):
        np.testing.assert_array_equal(shuffled(weights, "layer-nonzero")[0], weights[0])


@pytest.mark.parametrize("kind", ["layer", "layer-nonzero"])
def test_n_cuts_are_those_of_the_shuffles(kind, monkeypatch):
    monkeypatch.setattr(spectral, "CHUNK", 4)
    weights = random_layers(SIZES, keep=0.2)
    found = cluster_shuffles(weights, 3, 10, kind, seed=2)
    theirs = cluster_shuffles(weights, 3, 10, kind, seed=2, method="sklearn")
    assert np.median(np.abs(found - theirs)) < 0.01
    np.testing.assert_allclose(found[7], cluster_shuffles(weights, 3, [7], kind, seed=2)[0], atol=0.02)
    np.testing.assert_allclose(
        found[7], cluster(shuffled(weights, kind, seed=2, index=7), 3).n_cut, atol=0.02
    )
    assert len(set(found.tolist())) == 10


def test_bad_arguments():
    weights = random_layers((5, 4))
    with pytest.raises(ValueError, match="kind: 'rows', expected one of 'layer'"):
        cluster_shuffles(weights, 2, 3, "rows")
    with pytest.raises(ValueError, match="shuffles: 0"):
        cluster_shuffles(weights, 2, 0)
    with pytest.raises(ValueError, match="4 clusters of a graph with 2 vertices"):
        cluster_shuffles([np.eye(9, 9)[:, :1]], 4, 3)


def test_p_counts_what_is_strictly_below():
    shuffles = np.arange(320.0)
    assert p_value(-1, shuffles) == 1 / 321
    assert p_value(2, shuffles) == 3 / 321
    assert p_value(2, shuffles, count_equal=True) == 4 / 321
    assert p_value(400, shuffles) == 1


def test_below_the_first():
    shuffles = np.concatenate([np.full(32, 2.0), np.full(288, 1.0)])
    assert below_first(1.5, shuffles) and not below_first(2.0, shuffles)
    assert not below_first(1.5, shuffles, count=33)


def test_cohens_d():
    random = np.random.default_rng(0)
    a, b = random.normal(3, 2, 50), random.normal(1, 2, 70)
    t = stats.ttest_ind(a, b).statistic
    assert cohens_d(a, b) == pytest.approx(t * np.sqrt(1 / 50 + 1 / 70))
    assert cohens_d(b, a) == pytest.approx(-t * np.sqrt(1 / 50 + 1 / 70))
    with pytest.raises(ValueError, match="at least two"):
        cohens_d(a, b[:1])
    constant = np.full(5, 0.1)
    assert cohens_d(constant, constant) is None and cohens_d(constant, constant + 1) is None
    assert cohens_d(constant, np.arange(5.0)) is not None


def test_pooled_numbers_that_are_equal_have_no_spread():
    values = [np.full(7, x) for x in (0.1, 0.1, 0.1)]
    assert pooled(values) == (pytest.approx(0.1), pytest.approx(0, abs=1e-7))


@pytest.mark.parametrize("statistic", [p_value, below_first])
@pytest.mark.parametrize(("value", "drawn"), [(1.0, []), (1.0, [2.0, np.nan]), (np.nan, [2.0])])
def test_no_shuffles_and_no_numbers_are_refused(statistic, value, drawn):
    with pytest.raises(ValueError, match="expected one shuffle or more, and no NaN"):
        statistic(value, np.array(drawn))


def test_pooled_statistics_are_those_of_all_values():
    networks = np.random.default_rng(0).normal(2, 1, (10, 32))
    mean, deviation = pooled(networks)
    assert mean == pytest.approx(networks.mean()) and deviation == pytest.approx(networks.std())
