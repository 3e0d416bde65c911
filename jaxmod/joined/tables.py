"""Tables of specialization: each measure, accuracy and control for each number of links."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmod.analysis.specialization import specialization
from jaxmod.reports import stat

__all__ = ["describe", "own_accuracy", "tables"]


def describe(values: Any) -> dict[str, Any]:
    """Returns Stats over networks for each number of links: own digit, other digit, and their contrast.

    Networks of which a number is undefined are left out (`undefined` counts them), as are those whose mask
    keeps nothing of a sub-network for either digit; a Stat is None if no network remains.
    """
    found: dict[str, Any] = {"own": [], "other": [], "contrast": [], "undefined": []}
    for of in values:
        m = np.asarray(of, np.float64)  # [seeds, n, k]
        own, other = m[:, [0, 1], [0, 1]], m[:, [0, 1], [1, 0]]
        compared = np.asarray(specialization(jnp.asarray(own), jnp.asarray(other)), np.float64).mean(axis=1)
        sides = (own.mean(axis=1), other.mean(axis=1), compared)
        for name, x in zip(("own", "other", "contrast"), sides, strict=True):
            defined = x[np.isfinite(x)]
            found[name].append(stat(defined) if defined.size else None)
        found["undefined"].append(int(np.sum(~np.isfinite(compared))))
    return found


def own_accuracy(masked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how accurate networks are on the digit of their mask, mean over both digits."""
    return stat(np.mean(masked["accuracy"], axis=1))


def tables(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the measures, accuracies and controls."""
    shown = list(found["measures"])
    rows = [
        [str(count), f"{p:.4f}", f"{q:.3f}", *(found["measures"][name]["contrast"][i] for name in shown)]
        for i, (count, p, q) in enumerate(
            zip(found["links"], found["density"], found["modularity"], strict=True)
        )
    ]
    result = [
        {
            "title": "Specialization",
            "header": ["links", "p", "Q", *shown],
            "rows": rows,
            "note": "Each way; mean over both sub-networks, and its standard deviation over networks.",
            "words": 3,
            "digits": 2,
        },
        {
            "title": "Measures: own digit and the other one",
            "header": ["links", *(f"{name}, {side}" for name in shown for side in ("own", "other"))],
            "rows": [
                [
                    str(count),
                    *(found["measures"][name][side][i] for name in shown for side in ("own", "other")),
                ]
                for i, count in enumerate(found["links"])
            ],
            "note": "Bottleneck: accuracy of new readouts; mask, gumbel: share of the mask's weights.",
            "words": 1,
            "digits": 2,
        },
        {
            "title": "Accuracy, who decides, and n-cut",
            "header": [
                "links",
                *found["accuracy"],
                "decides",
                "with bottleneck",
                "n-cut",
                "n-cut of clusters",
                "clusters are sub-networks",
            ],
            "rows": [
                [
                    str(count),
                    *(values[i] for values in found["accuracy"].values()),
                    *(values[i] for values in found["decided"].values()),
                    *(found["n_cut"][name][i] for name in ("own", "found", "agree")),
                ]
                for i, count in enumerate(found["links"])
            ],
            "note": "Masked: of masks on their own digit. Without communication 0.75 is the most. Decides: "
            "the part of the answers that come from the sub-network with more of them.",
            "words": 1,
            "digits": 3,
        },
    ]
    return result + (_control_tables(found["controls"]) if found["controls"] else [])


def _control_tables(controls: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = ("Deep-R", "no random walk", "fixed links")
    return [
        {
            "title": "Controls: how the links are trained (accuracy)",
            "header": ["links", *kinds],
            "rows": [
                [str(count), *(controls[kind][i] for kind in kinds)]
                for i, count in enumerate(controls["links"])
            ],
            "words": 1,
            "digits": 3,
        },
        {
            "title": "Controls: the part of the weights that a mask keeps, fewest links",
            "header": ["q", "mask, own", "accuracy under the mask"],
            "rows": [[f"{row['q']:g}", row["own"], row["accuracy"]] for row in controls["top_q"]],
            "words": 1,
            "digits": 3,
        },
    ]
