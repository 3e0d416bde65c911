"""Pairs of digits: which may meet, what the answer is, and that the seed fixes them."""

import inspect
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmod.data.digit_pairs import (
    make_pairs,
    pair_target,
    redrawable,
    sample_pairs,
    scaled,
    subtask,
)
from jaxmod.data.images import Images, load_images

ALLOWED = [(a, b) for a in range(10) for b in range(10) if (b - a) % 10 not in (0, 1)]
BOTH = np.array(ALLOWED, np.int32)


def numbered(train, test, seed=0):
    """Returns images that tell their number and class in their pixels, of as many examples per class."""
    splits = []
    for size in (train, test):
        label = np.random.default_rng(seed).permutation(np.arange(size, dtype=np.int32) % 10)
        number = np.arange(size)
        x = np.zeros((size, 2, 3), np.uint8)
        x[:, 0, 0], x[:, 0, 1], x[:, 1, 2] = number // 256, number % 256, label
        splits += [x, label]
    return Images(*splits, source="numbers")


IMAGES = numbered(6000, 1000)


def number_of(image):
    return image[..., 0, 0].astype(int) * 256 + image[..., 0, 1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_image_meets_one_other_of_its_split_or_none(split):
    pairs = getattr(make_pairs(IMAGES), split)
    labels = getattr(IMAGES, f"y_{split}")
    first, second = number_of(pairs.image).T
    assert (np.diff(first) > 0).all()  # each at most once, in the order of the data set
    assert len(set(second)) == len(second)
    np.testing.assert_array_equal(pairs.image[:, :, 1, 2], pairs.digit)
    np.testing.assert_array_equal(labels[first], pairs.digit[:, 0])
    np.testing.assert_array_equal(labels[second], pairs.digit[:, 1])
    assert pairs.image.dtype == np.uint8
    assert pairs.digit.dtype == pairs.target.dtype == np.int32
    # 80 of the 100 pairs of classes remain.
    assert abs(len(first) / len(labels) - 0.8) < 5 * np.sqrt(0.16 / len(labels))


@pytest.mark.parametrize("images", [IMAGES, load_images("digits")], ids=["numbers", "digits"])
def test_no_excluded_pair_and_balanced_parities(images):
    for pairs in make_pairs(images)[:2]:
        met = Counter(map(tuple, pairs.digit.tolist()))
        assert set(met) <= set(ALLOWED)
        odd = int((pairs.digit.sum(axis=1) % 2).sum())
        assert stats.binomtest(odd, len(pairs.digit)).pvalue > 1e-3
    met = Counter(map(tuple, make_pairs(images).train.digit.tolist()))
    assert len(met) == 80
    assert stats.chisquare([met[pair] for pair in ALLOWED]).pvalue > 1e-3


def test_targets_by_both_rules():
    for d0, d1 in ALLOWED:
        pair = np.array([[d0, d1]], np.int32)
        p = (d0 + d1) % 2
        assert pair_target(pair).tolist() == [p * d0 + (1 - p) * d1]
        assert pair_target(pair, "prose").tolist() == [d1 if p else d0]
    # Of the 80 pairs half have either parity, and each class is the answer in 8.
    assert (BOTH.sum(axis=1) % 2).sum() == 40
    for rule in ("equation", "prose"):
        np.testing.assert_array_equal(np.bincount(pair_target(BOTH, rule)), 8)
        pairs = make_pairs(IMAGES, target_rule=rule).train
        np.testing.assert_array_equal(pairs.target, pair_target(pairs.digit, rule))


def test_the_prose_is_the_equation_with_the_sub_networks_exchanged():
    np.testing.assert_array_equal(pair_target(BOTH, "prose"), pair_target(BOTH[:, ::-1]))


def test_what_can_be_answered_without_messages():
    """The best without communication is 60 of 80 pairs, by an order of certainty of the four parities."""

    def right(certainty):
        order = np.array(certainty)  # of (sub-network 0 even, 0 odd, 1 even, 1 odd)
        first, second = order[:2][BOTH[:, 0] % 2], order[2:][BOTH[:, 1] % 2]
        answer = np.where(first > second, BOTH[:, 0], BOTH[:, 1])
        return int((answer == pair_target(BOTH)).sum())

    assert max(right(order) for order in itertools.permutations(range(4))) == 60
    assert (pair_target(BOTH) == BOTH[:, 0]).sum() == 40


@pytest.mark.parametrize("rule", ["equation", "prose"])
def test_pairs_are_put_together_anew(key, rule):
    pairs = make_pairs(numbered(400, 40)).train
    drawn = jax.jit(sample_pairs, static_argnums=(1, 3))(key, 40_000, redrawable(pairs), rule)
    image, label = np.asarray(drawn["image"]), np.asarray(drawn["label"])
    digit = image[:, :, 1, 2].astype(np.int32)
    np.testing.assert_array_equal(label, pair_target(digit, rule))
    # Each side has the images of its own side, all alike, whatever they were paired with.
    for side in (0, 1):
        known = number_of(pairs.image[:, side])
        assert set(number_of(image[:, side])) == set(known)
    counts = Counter(map(tuple, digit.tolist()))
    assert set(counts) <= set(ALLOWED)
    sizes = [np.bincount(pairs.digit[:, side], minlength=10) for side in (0, 1)]
    first = sizes[0] / len(pairs.digit)
    met = {d: sum(sizes[1][b] for a, b in ALLOWED if a == d) for d in range(10)}
    expected = [40_000 * first[a] * sizes[1][b] / met[a] for a, b in ALLOWED]
    assert stats.chisquare([counts[pair] for pair in ALLOWED], expected).pvalue > 1e-3
    together = {tuple(pair) for pair in number_of(image)}
    assert len(together) > 20 * len(pairs.digit)


@pytest.mark.parametrize("k", [0, 1])
def test_the_target_of_a_subtask_is_its_digit(k):
    pairs = make_pairs(IMAGES).test
    sub = subtask(pairs, k)
    np.testing.assert_array_equal(sub.target, pairs.digit[:, k])
    assert sub.image is pairs.image and sub.digit is pairs.digit


def test_pairs_are_fixed_by_the_seed():
    first, again, other = make_pairs(IMAGES), make_pairs(IMAGES), make_pairs(IMAGES, seed=1)
    for a, b in zip(jax.tree.leaves(first[:2]), jax.tree.leaves(again[:2]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert number_of(first.test.image)[:20].tolist() != number_of(other.test.image)[:20].tolist()
    assert number_of(first.test.image)[:4].tolist() == [[1, 897], [2, 48], [4, 378], [5, 391]]
    assert first.test.digit[:4].tolist() == [[6, 0], [2, 6], [1, 5], [4, 2]]
    # The splits are drawn apart: equal images are not paired alike.
    same = make_pairs(numbered(500, 500))
    assert number_of(same.train.image)[:20].tolist() != number_of(same.test.image)[:20].tolist()


def test_the_source_tells_the_rule():
    assert make_pairs(IMAGES, 7, "prose").source == "pairs of numbers, seed 7, target rule prose"


def test_pixels_are_scaled_to_one():
    image = np.random.default_rng(0).integers(256, size=(4, 2, 5, 3), dtype=np.uint8)
    expected = image.reshape(4, 2, 15) / 255
    for given in (image, jnp.asarray(image)):
        got = scaled(given)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="target_rule must be one of equation, prose, got 'parity'"):
        inspect.unwrap(pair_target)(BOTH, "parity")  # the test run's type check would come first
    colour = IMAGES._replace(x_test=np.zeros((1000, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"x_test has shape \[1000, 4, 4, 3\], expected grey images"):
        make_pairs(colour)
    few = IMAGES._replace(x_test=IMAGES.x_test[:1], y_test=IMAGES.y_test[:1])
    with pytest.raises(ValueError, match="No pair of the 1 images of the test split remains"):
        make_pairs(few)
