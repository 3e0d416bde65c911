"""Importance of sub-modules: by brute force, on networks made for it, and on the published tables."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.structure import importance, lesions
from jaxmod.structure.importance import Double, classify, dependencies
from jaxmod.structure.lesions import SubModule, random_lesions, sub_modules

# Table A.18: accuracy difference, p, proportion, class.
SINGLES = """
1-0 -0.0552 .0099 .250 important         1-1 -0.0105 .0099 .123 important
1-2 +0.0002 .64   .015 small             1-3 -0.1870 .0099 .245 important
1-4 -0.0005 .38   .049 small             1-5 -0.1024 .0099 .319 important
2-0 +0.0001 .52   .020 small             2-1 +0.0001 .55   .012 small
2-2 -0.0350 .0099 .461 important         2-3 +0.0002 .71   .008 small
2-5 -0.0027 .020  .109 other             2-7 -0.0033 .0099 .098 sig-but-not-diff
2-8 -0.0063 .0099 .242 sig-but-not-diff  2-9 -0.0002 .39   .051 other
3-2 -0.0433 .0099 .527 important         3-6 +0.0001 .55   .004 small
3-7 -0.0085 .0099 .113 sig-but-not-diff  3-8 -0.0127 .0099 .234 important
3-9 -0.0016 .0099 .121 sig-but-not-diff  4-2 -0.0279 .0099 .414 important
4-6 -0.0006 .69   .082 other             4-7 -0.0049 .0099 .125 sig-but-not-diff
4-8 -0.0054 .059  .219 other             4-9 -0.0136 .0099 .160 important
""".split()
SINGLES = [SINGLES[i : i + 5] for i in range(0, len(SINGLES), 5)]

# Table A.19: X, Y, whether X is important given Y and Y given X, delta(X,Y), delta(Y,X).
DOUBLES = """
1-0 2-2 y y .166 .146   1-0 3-2 y y .099 .087   1-0 3-8 y n .033 -.009  1-0 4-2 y y .072 .044
1-0 4-9 y y .069 .027   1-1 2-2 n y .007 .031   1-1 3-2 y y .053 .086   1-1 3-8 n y .010 .012
1-1 4-2 n y .010 .027   1-1 4-9 n y .012 .015   1-3 2-2 y y .211 .059   1-3 3-2 y y .178 .034
1-3 3-8 y n .165 -.009  1-3 4-2 y y .191 .032   1-3 4-9 y n .170 -.003  1-5 2-2 y n .070 .002
1-5 3-2 y y .168 .109   1-5 3-8 y n .103 .013   1-5 4-2 y y .117 .042   1-5 4-9 y n .091 .002
2-2 3-2 n n .045 .054   2-2 3-8 y y .145 .123   2-2 4-2 n n .035 .028   2-2 4-9 y n .032 .011
3-2 4-2 y n .214 .199   3-2 4-9 y n .071 .041   3-8 4-2 n y .050 .065   3-8 4-9 n n -.003 -.002
""".split()
DOUBLES = [DOUBLES[i : i + 6] for i in range(0, len(DOUBLES), 6)]

EDGES = {
    "1-0": ["3-8"], "1-1": ["2-2", "3-8", "4-2", "4-9"], "1-3": ["3-8", "4-9"],
    "1-5": ["2-2", "3-8", "4-9"], "2-2": ["3-2", "4-2", "4-9"], "3-2": ["4-2", "4-9"],
    "3-8": ["4-2", "4-9"],
}  # fmt: skip


def published():
    """Returns the pairs of A.19; a p that is not printed is the one that makes the flag."""
    p = {"y": 1 / 51, "n": 0.5}
    drops = {name: -float(difference) for name, difference, *_ in SINGLES}
    return [
        Double(x, y, float(dy) + drops[x], float(dx), float(dy), p[fx], p[fy])
        for x, y, fx, fy, dx, dy in DOUBLES
    ]


@pytest.mark.parametrize("row", SINGLES, ids=lambda row: row[0])
def test_the_published_classes(row):
    _, difference, p, proportion, kind = row
    assert classify(-float(difference), float(p), float(proportion)) == kind


def test_the_published_edges():
    important = [name for name, *_, kind in SINGLES if kind == "important"]
    assert len(important) == 9 and len(DOUBLES) == 28
    edges = dependencies(published(), important)
    assert len(edges) == 17
    assert sorted(edges) == sorted((x, y) for x, row in EDGES.items() for y in row)
    # The order of a pair says nothing.
    turned = [pair.turned() for pair in published()]
    assert turned[0] != published()[0] == turned[0].turned()
    assert dependencies(turned, important) == edges


def test_published_flags_and_deltas():
    drops = {name: -float(difference) for name, difference, *_ in SINGLES}
    for pair, row in zip(published(), DOUBLES, strict=True):
        assert [pair.x_important, pair.y_important] == [flag == "y" for flag in row[2:4]]
        assert abs(pair.delta_x + drops[pair.y] - pair.delta_y - drops[pair.x]) < 0.0012


@pytest.mark.parametrize(
    ("drop", "p", "proportion", "kind"),
    [
        (0.5, 1 / 101, 1.0, "complete"),
        (0.5, 1 / 101, 0.0499, "small"),
        (0.01, 1 / 101, 0.05, "important"),
        (0.0099, 1 / 101, 0.05, "sig-but-not-diff"),
        (-0.2, 1 / 101, 0.5, "sig-but-not-diff"),
        (0.0099, 1.0, 0.5, "prunable"),
        (0.01, 1.0, 0.5, "least_important"),
        (0.01, 2 / 101, 0.5, "other"),
        (0.0101, 2 / 101, 0.5, "diff-but-not-sig"),
    ],
)
def test_the_first_class_that_fits(drop, p, proportion, kind):
    assert classify(drop, p, proportion) == kind


def dense(kernel):
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(np.shape(kernel)[1])}


@pytest.fixture(scope="module")
def two_paths():
    """A network of two paths that never meet, each with two classes; its sub-modules are the paths.

    The first path has 8 neurons in each layer, of which 4 do all the work; of the second every neuron
    does a fourth. Isolated neurons are between them.
    """
    first, second = np.zeros((4, 20)), np.zeros((4, 20))
    for i in range(2):
        first[i, [2 * i, 2 * i + 1]] = 1.0
        first[2 + i, [10 + i, 12 + i, 14 + i, 16 + i]] = 0.5
    first[:2, 4:8] = 0.01
    between = np.zeros((20, 20))
    between[:4, :4], between[4:8, 4:8], between[10:18, 10:18] = np.eye(4), 0.01 * np.eye(4), np.eye(8)
    second = np.zeros((20, 4))
    for i in range(2):
        second[[2 * i, 2 * i + 1], i] = 1.0
        second[[10 + i, 12 + i, 14 + i, 16 + i], 2 + i] = 0.5
    params = {"layer_1": dense(first), "layer_2": dense(between), "output": dense(second)}
    hidden = np.repeat([0, -1, 1, -1], [8, 2, 8, 2])
    modules = sub_modules([np.zeros(4, int), hidden, hidden, np.zeros(4, int)])
    labels = jnp.arange(400) % 4
    return params, jax.nn.one_hot(labels, 4), labels, modules


def by_hand(two_paths, *gone):
    """Returns how many examples are right without these neurons, `(layer, neurons)`."""
    params, x, labels, _ = two_paths
    for layer in (1, 2):
        left = np.ones(20)
        for where, neurons in gone:
            left = left * (~neurons if where == layer else True)
        weights = params[f"layer_{layer}"]
        x = jax.nn.relu(x @ (weights["kernel"] * left[None]) + (weights["bias"] * left)[None])
    return int(jnp.sum(jnp.argmax(x @ params["output"]["kernel"], axis=1) == labels))


def test_single_lesions_by_hand(two_paths, key):
    params, x, labels, modules = two_paths
    found = importance.single_lesions(params, x, labels, modules, key, controls=100)
    assert [s.name for s in found] == ["1-0", "1-1", "2-0", "2-1"]
    whole = by_hand(two_paths)
    assert whole == 400
    for single, module in zip(found, modules, strict=True):
        own = by_hand(two_paths, (module.layer, module.neurons))
        stream = importance._fold(key, 0, module.layer, module.cluster)
        draws = random_lesions(stream, module.connected, 8, 100)
        random = np.array([by_hand(two_paths, (module.layer, neurons)) for neurons in draws])
        assert single.drop == (whole - own) / 400
        assert single.p == (1 + np.sum(random < own)) / 101
        assert single.p_with_ties == (1 + np.sum(random <= own)) / 101
        assert (single.neurons, single.proportion) == (8, 0.5)
        np.testing.assert_allclose(single.random_mean, np.mean((whole - random) / 400))
        np.testing.assert_allclose(single.random_std, np.std((whole - random) / 400))
    assert found[0].kind == "important" and found[0].drop == 0.25  # argmax of zeros is class 0


def test_double_lesions_by_hand(two_paths, key):
    params, x, labels, modules = two_paths
    pairs = [(modules[0], modules[2]), (modules[0], modules[3]), (modules[0], modules[1])]
    found = importance.double_lesions(params, x, labels, pairs, key, controls=60)
    for double, (a, b) in zip(found, pairs, strict=True):
        both = by_hand(two_paths, (a.layer, a.neurons), (b.layer, b.neurons))
        assert double.drop == (400 - both) / 400
        assert double.delta_x == (by_hand(two_paths, (b.layer, b.neurons)) - both) / 400
        assert double.delta_y == (by_hand(two_paths, (a.layer, a.neurons)) - both) / 400
        for p, one, other in ((double.p_x, a, b), (double.p_y, b, a)):
            stream = importance._fold(key, 1, one.layer, one.cluster, other.layer, other.cluster)
            free = one.connected & ~other.neurons if one.layer == other.layer else one.connected
            draws = random_lesions(stream, free, 8, 60)
            random = [by_hand(two_paths, (one.layer, d), (other.layer, other.neurons)) for d in draws]
            assert p == (1 + np.sum(np.array(random) <= both)) / 61
    path, across, layer = found
    # On one path nothing is lost a second time; two paths are lost one by one.
    assert (path.delta_x, path.delta_y) == (0, 0) and not (path.x_important or path.y_important)
    assert across.delta_x > 0.2 and across.delta_y > 0.2 and across.y_important
    # Both clusters of a layer are the layer: every control is the lesion itself, and says nothing.
    assert layer.p_x == layer.p_y == 1 and not layer.x_important
    assert dependencies(found, {"1-0", "2-0", "1-1"}) == [("1-0", "2-0")]
    assert dependencies(found, {"1-0"}) == []


def test_controls_do_not_depend_on_what_else_is_asked(two_paths, key):
    *case, modules = two_paths
    together = importance.single_lesions(*case, modules, key, controls=20)
    assert importance.single_lesions(*case, modules[2:3], key, controls=20) == together[2:3]
    pairs = [(modules[0], modules[2]), (modules[1], modules[2])]
    doubles = importance.double_lesions(*case, pairs, key, controls=20)
    assert importance.double_lesions(*case, pairs[1:], key, controls=20) == doubles[1:]


def test_a_whole_layer_and_a_sub_module_without_neurons(two_paths, key):
    *case, modules = two_paths
    connected = modules[0].connected
    whole = SubModule(1, 0, connected, connected)
    empty = SubModule(2, 5, np.zeros(20, bool), connected)
    first, second = importance.single_lesions(*case, [whole, empty], key, controls=10)
    assert first.kind == "complete" and first.p == 1 / 11 and first.p_with_ties == 1
    assert second.kind == "small" and second.drop == 0 and second.random_std == 0
    (double,) = importance.double_lesions(*case, [(whole, empty)], key, controls=10)
    assert double.delta_y == 0 and double.p_x == double.p_y == 1
    assert importance.double_lesions(*case, [], key) == []


def test_what_one_lesion_does_is_measured_once_for_all_its_pairs(two_paths, key, monkeypatch):
    *case, modules = two_paths
    asked = []

    def counted(params, inputs, labels, keep):
        asked.append(len(keep[0]))
        return lesions.count_right(params, inputs, labels, keep)

    monkeypatch.setattr(importance, "count_right", counted)
    pairs = list(itertools.combinations(modules[:3], 2))
    importance.double_lesions(*case, pairs, key, controls=20)
    assert asked == [1 + 3 + 3 * (1 + 2 * 20)]
