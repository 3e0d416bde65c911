"""Tables of `experiments.scan`: accuracies, what masks keep and share, commands that break."""

from typing import Any

from jaxmod.reports import percent

__all__ = ["tables"]


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns accuracies, what masks keep and share, and commands that break."""
    tests = ["simple", *found["splits"]]
    density = {name: of["total"] for name, of in found["density"].items()}
    return [
        {
            "title": "Accuracy on test parts (%)",
            "header": ["weights in use", "learned", *tests, "kept"],
            "rows": [
                [name, percent(found["learned"][name]), *(percent(row[test]) for test in tests),
                 percent(density.get(name))]
                for name, row in found["accuracy"].items()
            ],
            "digits": 1,
            "note": "Columns: the test part of a split; learned: the training part of its own. Rows: the "
            "network, masks of it, and networks trained on the training part of a split alone (direct).",
        },
        {
            "title": "Output weights of each token that a mask lacks, of those that the control keeps (%)",
            "header": ["mask", *found["tokens"]],
            "rows": [[split, *row] for split, row in found["removed"].items()],
            "digits": 1,
        },
        {
            "title": "Sharing of the split masks with the union of the others (%)",
            "header": ["mask", "shared", "by chance", "z", "shared in the control", "by chance", "z"],
            "rows": [
                [split, percent(of["shared"]["total"]), percent(of["by chance"]["total"]), of["z"],
                 percent(of["shared in control"]), percent(of["by chance in control"]), of["z in control"]]
                for split, of in found["sharing"].items()
            ],
            "digits": 1,
            "note": "By chance: random masks of the same sizes in each matrix. In the control: of all these "
            "masks only the weights that the control mask keeps too.",
        },
        {
            "title": "Weights kept in each layer (%)",
            "header": ["layer", *found["density"]],
            "rows": [
                [layer, *(percent(of[layer]) for of in found["density"].values())]
                for layer in [*found["layers"], "total"]
            ],
            "digits": 1,
            "detail": True,
        },
        {
            "title": "Part of the control mask that a mask keeps (%)",
            "header": ["layer", *(title for split in found["splits"] for title in (split, "by chance"))],
            "rows": [
                [layer, *(percent(found[key][split][layer]) for split in found["splits"]
                          for key in ("remaining", "remaining by chance"))]
                for layer in [*found["layers"], "total"]
            ],
            "digits": 1,
            "detail": True,
            "note": "The rest is exclusive to the control mask; where that keeps nothing, both are 0.",
        },
        {
            "title": "Commands that break under a mask",
            "header": ["mask", "command", "expected", "got"],
            "rows": [
                [split, of["command"], *(of[key].replace("I_", "") for key in ("expected", "got"))]
                for split, row in found["broken"].items()
                for of in row
            ],
            "words": 4,
            "detail": True,
            "note": "Of the split's test part, right under the control mask, first network. I_ is left out.",
        },
    ]  # fmt: skip
