"""What Csordas et al. 2021 say of SCAN, beside what our masks show."""

from typing import Any

from jaxmod.summary import check

__all__ = ["checks", "direct_check"]


def checks(found: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours; each must hold in the mean over runs."""
    accuracy = {name: {t: 100 * s["mean"] for t, s in row.items()} for name, row in found["accuracy"].items()}
    network, control, splits = accuracy["network"], accuracy["control"], found["splits"]
    made = [
        check(
            "the network solves the simple split",
            "it is solved",
            f"{network['simple']:.1f}%",
            network["simple"] >= 98,
        ),
        check(
            "the control mask keeps the accuracy",
            "above 95% of the unmasked accuracy (C.2)",
            f"{control['simple']:.1f}% of {network['simple']:.1f}%",
            control["simple"] >= 0.95 * network["simple"] > 0,
        ),
        check(
            "and on the test part of every split",
            "high (Fig. 4a)",
            ", ".join(f"{split} {control[split]:.1f}%" for split in splits),
            all(control[split] >= 0.95 * network[split] > 0 for split in splits),
        ),
        *(
            check(
                f"the {split} mask is 10 points or more below the control on its test part",
                "much lower (Fig. 4a)",
                f"{accuracy[split][split]:.1f}% against {control[split]:.1f}%",
                accuracy[split][split] <= control[split] - 10,
            )
            for split in splits
        ),
    ]
    removed = {t: s["mean"] for t, s in zip(found["tokens"], found["removed"]["jump"], strict=True) if s}
    if model == "lstm" and "I_JUMP" in removed and len(removed) > 1:
        own = removed.pop("I_JUMP")
        most = max(removed, key=lambda token: removed[token])
        made.append(
            check(
                "without combinations of jump, most removed are the output weights of I_JUMP",
                "almost half of them (Fig. 4b)",
                f"I_JUMP {own:.0f}%, of the others {most} {removed[most]:.0f}%",
                own > removed[most],
            )
        )
    if any(f"direct {split}" in accuracy for split in splits):
        made.append(direct_check(found, splits))
    return made


def direct_check(found: dict[str, Any], splits: list[str], of: str = "") -> dict[str, Any]:
    """Returns whether masks of the splits are better than the networks trained on each; the mean over runs.

    Args:
      found: `accuracy` and `learned` of the masks and of the networks `direct SPLIT`.
      splits: names.
      of: said before it, which run this is of several.
    """
    accuracy = {
        split: [100 * found["accuracy"][name][split]["mean"] for name in (split, f"direct {split}")]
        for split in splits
    }
    learned = min(found["learned"][f"direct {split}"]["mean"] for split in splits)
    return check(
        f"{of}the mask of a split is better than a network trained on the split",
        "clearly (Fig. 16)",
        ", ".join(f"{split} {mask:.1f} against {own:.1f}" for split, (mask, own) in accuracy.items())
        + f"; these networks learned {learned:.0%} or more of what they were trained on",
        learned >= 0.95 and all(mask > own for mask, own in accuracy.values()),
    )
