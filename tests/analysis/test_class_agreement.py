"""Agreement of confusion differences: NumPy's correlation, and all names that three classes can have."""

import inspect
import itertools

import numpy as np
import pytest

from jaxmod.analysis.class_agreement import class_agreement, left_out_rows, off_diagonal


def differences(seed, classes=4):
    """Returns differences whose rows sum to 0, as those of confusion matrices."""
    found = np.random.default_rng(seed).normal(size=(classes,) * 3)
    return found - found.mean(axis=2, keepdims=True)


def test_entries_are_those_where_true_and_seen_differ():
    a = np.arange(27.0).reshape(3, 3, 3)
    expected = [a[k, i, j] for k in range(3) for i in range(3) for j in range(3) if i != j]
    assert off_diagonal(a).tolist() == expected
    assert left_out_rows(a).tolist() == [a[k, k, j] for k in range(3) for j in range(3) if j != k]


@pytest.mark.parametrize("rows_only", [False, True])
def test_the_correlation_is_numpys(rows_only):
    a, b = differences(0), differences(0) + 2 * differences(1)
    entries = left_out_rows if rows_only else off_diagonal
    found = class_agreement(a, b, 10, rows_only=rows_only)
    assert found.correlation == pytest.approx(np.corrcoef(entries(a), entries(b))[0, 1])


def test_chance_is_the_mean_over_all_names_of_classes():
    a, b = differences(0, 3), differences(2, 3)
    x = off_diagonal(a)
    every = [np.corrcoef(x, off_diagonal(b[np.ix_(o, o, o)]))[0, 1] for o in itertools.permutations(range(3))]
    found = class_agreement(a, b, 4000)
    assert found.chance == pytest.approx(np.mean(every), abs=0.03)
    assert found.chance_std == pytest.approx(np.std(every), abs=0.03)
    at_least = np.mean([r >= found.correlation - 1e-12 for r in every])
    assert found.p == pytest.approx(at_least, abs=0.04)


def test_what_any_two_networks_have_in_common_is_chance():
    # Every class is taken for all others alike: all agree, and that says nothing of classes.
    same = np.zeros((5, 5, 5))
    for c in range(5):
        same[c, c] = 10 - 50 * np.eye(5)[c]
    found = class_agreement(same, 2 * same, 50)
    assert found.correlation == pytest.approx(1) and found.chance == pytest.approx(1)
    assert found.p == 1
    # With a network's own pairs of classes no other names agree as well.
    swap = same.copy()
    for a, b in ((0, 1), (2, 4)):
        swap[a, a, b] += 30
        swap[b, b, a] += 30
    assert class_agreement(swap, swap, 200).p < 0.1


def test_networks_without_differences_have_no_agreement():
    assert np.isnan(class_agreement(differences(0), np.zeros((4, 4, 4)), 5)).all()


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(4, 4, 4\) and \(3, 3, 3\)"):
        # The test run's type checker would refuse it first.
        inspect.unwrap(class_agreement)(differences(0), differences(0, 3))
