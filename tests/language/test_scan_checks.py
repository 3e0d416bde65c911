"""What is said of SCAN, on made-up accuracies that hold and that do not."""

import pytest

from jaxmod.data.scan import ACTIONS
from jaxmod.language import scan_checks
from jaxmod.reports import stat


def described(
    own=(30.0, 20.0, 10.0), control=97.0, jump=45.0, direct=(5.0, 1.0, 8.0), learned=99.0, network=99.0
):
    """Returns results in which masks of a split have these accuracies on its test part."""
    splits = ["turn_left", "jump", "length"]

    def row(values):
        return {
            "simple": stat([control / 100]),
            **{s: stat([v / 100]) for s, v in zip(splits, values, strict=True)},
        }

    accuracy = {"network": row([network] * 3), "control": row([control] * 3)}
    accuracy["network"]["simple"] = stat([network / 100])
    for i, split in enumerate(splits):
        accuracy[split] = row([own[i] if j == i else 97 for j in range(3)])
        accuracy[f"direct {split}"] = row([direct[i] if j == i else 97 for j in range(3)])
    tokens = [*ACTIONS, "END"]
    removed = [stat([{"I_JUMP": jump, "I_RUN": 30.0}.get(token, 20.0)]) for token in tokens]
    return {
        "splits": splits,
        "accuracy": accuracy,
        "learned": {f"direct {split}": stat([learned / 100]) for split in splits},
        "tokens": tokens,
        "removed": {"jump": removed},
    }


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, set()),
        ({"own": (30, 96, 10)}, {"the jump mask is 10 points"}),
        ({"control": 90}, {"the control mask keeps", "and on the test part"}),
        ({"jump": 25.0}, {"without combinations of jump"}),
        ({"direct": (5.0, 30.0, 8.0)}, {"the mask of a split is better"}),
        ({"learned": 90.0}, {"the mask of a split is better"}),  # there is no knowing what they would be
        (
            {"network": 0, "control": 0, "own": (0, 0, 0)},
            {
                "the network solves",
                "the control mask keeps",
                "and on the test part",
                "the turn_left mask",
                "the jump mask",
                "the length mask",
                "the mask of a split is better",
            },
        ),
    ],
)
def test_what_is_said(changes, fails):
    judged = {row["check"]: row["holds"] for row in scan_checks.checks(described(**changes), "lstm")}
    failed = {check for check, holds in judged.items() if not holds}
    assert len(judged) == 8 and len(failed) == len(fails)
    assert all(any(check.startswith(begin) for check in failed) for begin in fails)


def test_the_removed_weights_of_two_tokens_are_named():
    found = described()
    row = next(row for row in scan_checks.checks(found, "lstm") if "I_JUMP" in row["check"])
    assert row["ours"] == "I_JUMP 45%, of the others I_RUN 30%"
    found["removed"]["jump"] = [
        s if token == "I_JUMP" else None
        for token, s in zip(found["tokens"], found["removed"]["jump"], strict=True)
    ]
    assert not any("I_JUMP" in row["check"] for row in scan_checks.checks(found, "lstm"))
