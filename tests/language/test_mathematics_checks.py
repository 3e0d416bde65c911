"""What is said of the Mathematics Dataset, on made-up accuracies that hold and that do not."""

import pytest

from jaxmod import reports
from jaxmod.language import mathematics_checks


def accuracy(no_mask, control, easy):
    """Returns the accuracies of two runs; each is given as (on easy, on hard)."""
    return {
        name: {"easy": reports.stat([pair[0]] * 2), "hard": reports.stat([pair[1], pair[1] + 0.02])}
        for name, pair in (("no mask", no_mask), ("control", control), ("easy", easy))
    }


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        (accuracy((1, 0.8), (1, 0.79), (0.98, 0.5)), [True, True, True]),
        (accuracy((1, 0.8), (1, 0.7), (0.5, 0.5)), [False, True, False]),
        (accuracy((1, 0.8), (1, 0.8), (1, 0.8)), [True, False, False]),
        (accuracy((0, -0.01), (0, -0.01), (0, -0.01)), [False, False, False]),
    ],
)
def test_what_is_said_of_the_masks(given, holds):
    assert [row["holds"] for row in mathematics_checks.checks({"sort": {"accuracy": given}})] == holds
