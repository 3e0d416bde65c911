"""Tables of `experiments.mathematics`: accuracies, what masks share, questions that break."""

from collections.abc import Mapping
from typing import Any

from jaxmod.reports import percent

__all__ = ["tables"]


def tables(studies: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns accuracies, what masks share, and questions that break."""
    groups = list(dict.fromkeys(group for of in studies.values() for group in of["accuracy"]["no mask"]))
    accuracy, shares, broken = [], [], []
    for task, of in studies.items():
        for name, row in of["accuracy"].items():
            kept = of["density"][name]["total"] if name in of["density"] else None
            accuracy.append(
                [
                    task,
                    name,
                    *(percent(row[group]) if group in row else None for group in groups),
                    percent(kept),
                ]
            )
        for layer in [*of["layers"], "total"]:
            cells = [percent(of["density"][name][layer]) for name in ("control", "easy")]
            for way in ("remaining", "easy mask in control"):
                cells += [percent(of["sharing"][way][layer][field]) for field in ("shared", "expected")]
            shares.append([task, layer, *cells])
        broken += [[task, *row.values()] for row in of["broken"]]
    made = [
        {
            "title": "Accuracy (%)",
            "header": ["task", "weights in use", *groups, "kept"],
            "rows": accuracy,
            "words": 2,
            "digits": 1,
            "note": "Whole answers that are right, on questions held out. Hard beyond easy: hard questions "
            "with more digits than 95% of the easy ones. Kept: the part of the weights that may be masked.",
        },
        {
            "title": "What the easy mask keeps (%)",
            "header": [
                "task",
                "layer",
                "control kept",
                "easy kept",
                "remaining",
                "by chance",
                "in control",
                "by chance",
            ],
            "rows": shares,
            "words": 2,
            "digits": 1,
            "detail": True,
            "note": "Remaining: the part of the control mask that the easy mask has too. In control: the "
            "part of the easy mask that the control mask has. By chance: random masks of these sizes.",
        },
    ]
    if broken:
        made.append(
            {
                "title": "Hard questions that break under the easy mask",
                "header": ["task", "question", "expected", "easy mask"],
                "rows": broken,
                "words": 4,
                "note": "The control mask answers them right. First network.",
            }
        )
    return made
