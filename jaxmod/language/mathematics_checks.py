"""What Csordas et al. 2021 say of the Mathematics Dataset, beside what our masks show."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmod.summary import check

__all__ = ["checks"]


def checks(studies: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours, for each task."""
    made = []
    for task, of in studies.items():
        runs = {
            name: {group: 100 * np.array(s["runs"]) for group, s in row.items()}
            for name, row in of["accuracy"].items()
        }
        mean = {name: {group: x.mean() for group, x in row.items()} for name, row in runs.items()}
        network, control, easy = (mean[name] for name in ("no mask", "control", "easy"))
        made += [
            check(
                f"{task}: the control mask keeps the accuracy on hard questions",
                "close to no mask (Fig. 5); above 95% of it (C.2)",
                f"{control['hard']:.1f}% of {network['hard']:.1f}%",
                network["hard"] > 0 and control["hard"] >= 0.95 * network["hard"],
            ),
            check(
                f"{task}: the easy mask is lower on hard questions, in every run",
                "consistently lower (Fig. 5)",
                f"{easy['hard']:.1f}% against {control['hard']:.1f}%",
                bool((runs["easy"]["hard"] < runs["control"]["hard"]).all()),
            ),
            check(
                f"{task}: and loses more there than on easy questions",
                "easy questions are what it was trained on",
                f"{control['hard'] - easy['hard']:.1f} points against {control['easy'] - easy['easy']:.1f}",
                control["hard"] - easy["hard"] > max(control["easy"] - easy["easy"], 0),
            ),
        ]
    return made
