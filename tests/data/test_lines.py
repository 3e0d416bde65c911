"""LINES against its definition: whole white columns, counted by the label, uniformly drawn."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from jaxmod.data.lines import lines


@pytest.fixture(scope="module")
def drawn():
    return lines(20_000, 500)


def test_images_are_white_columns_counted_by_the_label(drawn):
    for x, y in ((drawn.x_train, drawn.y_train), (drawn.x_test, drawn.y_test)):
        assert x.shape == (len(y), 28, 28)
        assert x.dtype == np.uint8
        assert y.dtype == np.int32
        assert set(np.unique(x)) == {0, 255}
        assert (x == x[:, :1]).all()
        np.testing.assert_array_equal((x[:, 0] == 255).sum(1), y + 1)
    assert set(drawn.y_test) == set(range(10))


def test_numbers_and_places_of_lines_are_uniform(drawn):
    columns = drawn.x_train[:, 0] == 255
    assert stats.chisquare(np.bincount(drawn.y_train)).pvalue > 1e-3
    assert stats.chisquare(columns[drawn.y_train == 0].sum(0)).pvalue > 1e-3
    pairs = columns[drawn.y_train == 1].astype(int)
    together = (pairs.T @ pairs)[np.triu_indices(28, 1)]  # 378 pairs, 2,000 draws
    assert stats.chisquare(together).pvalue > 1e-3
    # Of ten lines, each column has its share.
    np.testing.assert_allclose(columns[drawn.y_train == 9].mean(0), 10 / 28, atol=0.05)


def test_the_seed_fixes_them():
    a, b = lines(30, 10), lines(30, 10)
    for x, y in zip(a[:4], b[:4], strict=True):
        np.testing.assert_array_equal(x, y)
    assert (lines(30, 10, seed=1).x_train != a.x_train).any()
    assert a.y_train[:12].tolist() == [0, 7, 6, 4, 4, 8, 0, 6, 2, 0, 5, 9]
    assert np.flatnonzero(a.x_train[0, 0]).tolist() == [13]
    assert hashlib.md5(a.x_train.tobytes()).hexdigest() == "49555670813afe9011b0796a2260b1bd"
    assert a.source == "lines, generated with seed 42"


def test_splits_are_drawn_apart():
    np.testing.assert_array_equal(lines(30, 10).x_train, lines(30, 20).x_train)
    np.testing.assert_array_equal(lines(30, 10).x_test, lines(40, 10).x_test)
    assert (lines(10, 10).y_train != lines(10, 10).y_test).any()


def test_sizes_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0 and 10"):
        lines(0, 10)
