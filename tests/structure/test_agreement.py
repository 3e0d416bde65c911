"""Agreement of clusters and masks: scikit-learn, brute force, and networks whose modules are known."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from jaxmod.structure import cluster
from jaxmod.structure.agreement import ClassWeights, agreement, class_weights, neuron_classes

SIZES = (12, 16, 16, 6)


def random_masks(seed, sizes=SIZES, classes=4, density=0.5):
    random = np.random.default_rng(seed)
    shapes = list(itertools.pairwise(sizes))
    control = [random.random(shape) < density for shape in shapes]
    without = [random.random((classes, *shape)) < 0.7 for shape in shapes]
    return control, without


def joined_networks(seed, networks, sizes=(24, 32, 32, 24)):
    """Returns the weights of disjoint sub-networks side by side, and each neuron's sub-network, mixed up."""
    random = np.random.default_rng(seed)
    member = [random.permutation(np.arange(size) % networks) for size in sizes]
    weights = [
        np.where(a[:, None] == b[None], random.uniform(0.2, 1, (len(a), len(b))), 0.0)
        for a, b in itertools.pairwise(member)
    ]
    return weights, member


def test_class_weights_are_counted_at_both_ends():
    control, without = random_masks(0)
    counted = class_weights(control, without)
    assert [x.shape for x in counted.dropped] == [(size, 4) for size in SIZES]
    for layer, size in enumerate(SIZES):
        for neuron in range(size):
            kept, dropped = 0, np.zeros(4, int)
            for i, (m, w) in enumerate(zip(control, without, strict=True)):
                for a, b in np.ndindex(m.shape):
                    if m[a, b] and (layer, neuron) in ((i, a), (i + 1, b)):
                        kept += 1
                        dropped += ~w[:, a, b]
            assert counted.kept[layer][neuron] == kept
            np.testing.assert_array_equal(counted.dropped[layer][neuron], dropped)


def test_weights_that_the_control_drops_are_no_class_weights():
    control, without = random_masks(1)
    more = [w | ~m[None] for m, w in zip(control, without, strict=True)]
    for a, b in zip(*class_weights(control, without), strict=True):
        assert (b <= a[:, None]).all()
    np.testing.assert_equal(class_weights(control, more), class_weights(control, without))


def test_a_neuron_has_the_class_in_excess():
    # Class 0 has far more class weights everywhere; class 1 is in excess at the last neuron.
    kept = np.array([10, 10, 10, 0])
    dropped = np.array([[8, 0], [8, 0], [6, 2], [0, 0]])
    (labels,) = neuron_classes(ClassWeights((kept,), (dropped,)))
    np.testing.assert_array_equal(labels, [0, 0, 1, -1])


def test_the_excess_is_measured_in_standard_deviations():
    kept, dropped = np.array([100, 100]), np.array([[60, 3], [40, 0]])
    z = (dropped - 100 * np.array([[0.5, 0.015]])) / np.sqrt(100 * np.array([[0.25, 0.015 * 0.985]]))
    assert z[0].argmax() == 0
    (labels,) = neuron_classes(ClassWeights((kept,), (dropped,)))
    np.testing.assert_array_equal(labels, [z[0].argmax(), -1])  # the second has no class in excess


def test_nothing_dropped_or_all_dropped_gives_no_class():
    kept = np.array([3, 4, 0])
    for dropped in (np.zeros((3, 2), int), np.repeat(kept[:, None], 2, axis=1)):
        (labels,) = neuron_classes(ClassWeights((kept,), (dropped,)))
        np.testing.assert_array_equal(labels, -1)


@pytest.mark.parametrize("seed", range(5))
def test_ami_is_scikit_learns(seed):
    random = np.random.default_rng(seed)
    first = [random.integers(-1, 5, n) for n in (30, 80)]
    second = [np.where(random.random(len(a)) < 0.4, a, random.integers(-1, 7, len(a))) for a in first]
    found = agreement(first, second, shuffles=19)
    first, second = ([*x, np.concatenate(x)] for x in (first, second))
    for a, b, ours in zip(first, second, found, strict=True):
        both = (a >= 0) & (b >= 0)
        assert ours.ami == pytest.approx(adjusted_mutual_info_score(a[both], b[both]), abs=1e-12)
        assert ours.neurons == both.sum() == ours.counts.sum()


def test_p_is_that_of_all_permutations():
    first, second = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 2])
    own = adjusted_mutual_info_score(first, second)
    exact = [
        adjusted_mutual_info_score(first, second[list(order)]) for order in itertools.permutations(range(6))
    ]
    found, together = agreement([first], [second], shuffles=4000)
    assert found.p == pytest.approx(np.mean(np.array(exact) >= own - 1e-9), abs=0.03)
    assert found.shuffles_mean == pytest.approx(np.mean(exact), abs=0.03)
    assert found.shuffles_std == pytest.approx(np.std(exact), abs=0.03)
    assert together[:5] == found[:5]


def test_p_is_uniform_for_unrelated_labels():
    random = np.random.default_rng(0)
    draws = random.integers(4, size=(300, 2, 60))
    p = [agreement([a], [b], shuffles=39, seed=i)[0].p for i, (a, b) in enumerate(draws)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_labels_that_follow_the_layers_alone_are_no_agreement():
    random = np.random.default_rng(0)
    first = [2 * i + random.integers(2, size=40) for i in range(3)]
    second = [2 * i + random.integers(2, size=40) for i in range(3)]
    together = agreement(first, second)[-1]
    assert together.ami > 0.5
    assert together.shuffles_mean > 0.5
    assert together.p > 0.05


def test_one_group_or_only_single_neurons_say_nothing():
    five = np.arange(5)
    for a, b in ((five, 0 * five), (0 * five, 0 * five), (five, five)):
        found = agreement([a], [b], shuffles=9)[0]
        assert (found.ami, found.p) == (0.0, 1.0)


def test_the_bound_is_reached_where_groups_are_parts_of_the_others():
    fine = np.random.default_rng(0).integers(10, size=200)
    coarse = np.minimum(fine, 3)
    found = agreement([coarse], [fine], shuffles=9)[0]
    assert found.ami == pytest.approx(found.at_most)
    assert 0.5 < found.at_most < 1
    assert agreement([fine], [fine], shuffles=9)[0].at_most == pytest.approx(1)


def test_shuffles_are_those_of_the_seed():
    random = np.random.default_rng(0)
    labels = [[random.integers(3, size=50)], [random.integers(3, size=50)]]
    one, same, other = (agreement(*labels, seed=seed)[0] for seed in (1, 1, (1, 2)))
    assert one.shuffles_mean == same.shuffles_mean != other.shuffles_mean
    assert one.ami == same.ami == other.ami


@pytest.mark.parametrize("networks", [2, 3])
def test_clusters_and_masks_of_joined_networks_coincide(networks):
    weights, member = joined_networks(0, networks)
    random = np.random.default_rng(1)
    control = [w > 0 for w in weights]
    # The mask without class c drops half of the weights of sub-network c and a few of the others.
    without = []
    for m, a in zip(control, member, strict=False):
        rate = np.where(a[None] == np.arange(networks)[:, None], 0.5, 0.02)[:, :, None]
        without.append(m[None] & (random.random((networks, *m.shape)) >= rate))
    classes = neuron_classes(class_weights(control, without))
    clusters = cluster(weights, networks).labels
    for found in agreement(clusters, classes, shuffles=199):
        assert found.ami > 0.95
        assert found.p == 1 / 200


def test_clusters_and_masks_of_a_random_dense_network_do_not():
    sizes = (30, 60, 60, 60, 10)
    random = np.random.default_rng(0)
    weights = [np.abs(random.standard_normal(shape)) for shape in itertools.pairwise(sizes)]
    control, without = random_masks(2, sizes, classes=10, density=1.0)
    classes = neuron_classes(class_weights(control, without))
    together = agreement(cluster(weights, 10).labels, classes)[-1]
    assert abs(together.ami - together.shuffles_mean) < 0.05
    assert together.p > 0.01


def test_refusals_name_what_is_wrong():
    control, without = random_masks(0)
    with pytest.raises(ValueError, match="of the same layers"):
        class_weights(control, without[:-1])
    with pytest.raises(ValueError, match="same classes"):
        class_weights(control, [without[0][:2], *without[1:]])
    with pytest.raises(ValueError, match=r"\(3,\)"):
        agreement([np.zeros(3, int)], [np.zeros(4, int)])
    with pytest.raises(ValueError, match="shuffles: 0"):
        agreement([np.array([0])], [np.array([0])], shuffles=0)


def test_labels_that_never_meet_agree_by_nothing():
    nobody, some = np.full(5, -1), np.array([0, 1, -1, -1, 1])
    for first, second in ((nobody, some), (nobody, nobody), (np.where(some < 0, 1, -1), some)):
        alone, whole = agreement([first], [second], shuffles=9)
        for found in (alone, whole):
            assert (found.ami, found.p, found.neurons, found.at_most) == (0, 1, 0, 0)
    meets, lone, both = agreement([some, nobody], [some, some], shuffles=9)
    assert meets.ami == pytest.approx(1) and lone.neurons == 0 and both.neurons == 3
