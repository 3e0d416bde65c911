"""Statistics and tables of clustered networks beside the numbers of Filan et al. 2020."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from jaxmod import reports
from jaxmod.reports import percent, stat
from jaxmod.structure import published, shuffles
from jaxmod.structure.shuffles import Kind

__all__ = ["DISTINCT", "describe", "first_shuffles", "one_line", "paper_n_cut", "tables", "title"]

DISTINCT = 32
"""How many of the paper's 320 shuffles were different ones."""


def describe(clustered: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the statistics of what `cluster_networks` gives.

    `clusters` says how many of the k are left, `residual` how far the worst eigenvector is from being one;
    None for parts that were written before they were measured.
    """
    own, nulls = clustered["n_cuts"], {}
    for kind, drawn in clustered["nulls"].items():
        mean, std = shuffles.pooled(map(np.array, drawn))
        p = [shuffles.p_value(*pair) for pair in zip(own, map(np.array, drawn), strict=True)]
        nulls[kind] = {
            "n_cuts": drawn,
            "mean": mean,
            "std": std,
            "p": p,
            "below_all": float(np.mean([x <= 1.0001 / (1 + len(drawn[0])) for x in p])),
            "below_first": float(
                np.mean(
                    [shuffles.below_first(x, np.array(d), DISTINCT) for x, d in zip(own, drawn, strict=True)]
                )
            ),
        }
    effect = None
    if len(nulls) == 2 and min(len(d) for d in clustered["nulls"]["layer"]) > 1:
        both = zip(*(clustered["nulls"][kind] for kind in get_args(Kind)), strict=True)
        effects = [shuffles.cohens_d(*map(np.array, pair)) for pair in both]
        effect = None if None in effects else stat(effects)
    kept = {key: clustered.get(key) for key in ("clusters", "residual")}
    return {"n_cut": stat(own), "nulls": nulls, "cohens_d": effect, **kept}


def one_line(entry: Mapping[str, Any]) -> str:
    """Returns a clustering for the log."""
    text = f"n-cut {reports.format_stat(entry['n_cut'], digits=3)}"
    for kind, null in entry["nulls"].items():
        text += f"; {kind} shuffles {null['mean']:.3f} ± {null['std']:.3f}, below all {null['below_all']:.0%}"
    return text


def title(entry: Mapping[str, Any]) -> str:
    """Returns the name of a clustering."""
    return f"{entry['condition']}, {entry['phase']}, k={entry['k']}"


def tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the tables of the paper, its numbers beside ours."""
    entries = results["clusterings"]
    found = [_accuracy_table(results["accuracy_by_phase"]), _n_cut_table(entries)]
    if any(entry["cohens_d"] for entry in entries):
        found.append(_effect_table(entries))
    return found + [_network_table(entry) for entry in entries if entry["nulls"]]


def _accuracy_table(accuracies: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, by_phase in accuracies.items():
        for phase, accuracy in by_phase.items():
            values = [percent(accuracy[split]) for split in ("train", "test")]
            paper = published.ACCURACY.get(name) if phase == "pruned" else None
            shown = [None if x is None else 100 * x for x in paper or (None, None)]
            rows.append([name, phase, values[0], shown[0], values[1], shown[1]])
    return {
        "title": "Accuracy (%)",
        "header": ["condition", "phase", "training", "paper", "test", "paper"],
        "rows": rows,
        "note": "Training: in the last twentieth of the steps, as a rule an epoch, dropout active.",
        "words": 2,
        "digits": 1,
    }


def paper_n_cut(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the paper's mean n-cut of a clustering, and its standard deviation over networks."""
    name, k = entry["condition"], entry["k"]
    if entry["phase"] == "unpruned":
        return published.UNPRUNED.get(name) if k == 4 else None
    if (name, k) in published.SHUFFLED:
        return published.SHUFFLED[name, k][1:3]
    return published.MIXTURES.get(name) if k == 4 else None


def first_shuffles(entry: Mapping[str, Any]) -> int:
    """Returns how many the first shuffles are: fewer than in the paper if no more were drawn."""
    return min(DISTINCT, *(len(null["n_cuts"][0]) for null in entry["nulls"].values()))


def _n_cut_table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows, first = [], min([first_shuffles(entry) for entry in entries if entry["nulls"]], default=DISTINCT)
    for entry in entries:
        null = entry["nulls"].get("layer", {})
        paper = (
            published.SHUFFLED.get((entry["condition"], entry["k"])) if entry["phase"] == "pruned" else None
        )
        own = paper_n_cut(entry)
        rows.append(
            [
                *(entry["condition"], entry["phase"], str(entry["k"]), entry["n_cut"]),
                "-" if own is None else f"{own[0]:.3f} ± {own[1]:.3f}",
                f"{null['mean']:.3f} ± {null['std']:.3f}" if null else "-",
                f"{paper[3]:.3f} ± {paper[4]:.3f}" if paper else "-",
                *((f"{null[x]:.1f}" for x in ("below_all", "below_first")) if null else ("-", "-")),
                f"{paper[0]:.1f}" if paper else "-",
            ]
        )
    header = ["condition", "phase", "k", "n-cut", "paper", "layer shuffles", "paper"]
    return {
        "title": "N-cuts of the networks and of their shuffles",
        "header": [*header, "below all", f"below {first}", "paper"],
        "rows": rows,
        "note": (
            "Low n-cuts: clusterable. Below all: the part of the networks below all their shuffles. Below "
            f"{first}: below the first {first}. The paper's proportion is one of {DISTINCT}."
            + _solved(entries)
        ),
        "words": 3,
    }


def _solved(entries: Sequence[Mapping[str, Any]]) -> str:
    """Returns what is to be said of the networks' own clusterings, if anything was measured."""
    measured = [entry for entry in entries if entry.get("residual") is not None]
    if not measured:
        return ""
    text = f" Eigenvectors of the networks: residual {max(e['residual'] for e in measured):.0e} at most."
    fewer = [title(entry) for entry in measured if min(entry["clusters"]) < entry["k"]]
    return text + (f" Fewer than k clusters are left in: {'; '.join(fewer)}." if fewer else "")


def _effect_table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for entry in (entry for entry in entries if entry["cohens_d"]):
        effect = entry["cohens_d"]
        paper = published.EFFECT.get((entry["condition"], entry["phase"]))
        nulls = [entry["nulls"][kind] for kind in get_args(Kind)]
        shown = [x for null in nulls for x in (null["mean"], f"{null['below_all']:.1f}")]
        span = f"{min(effect['runs']):.2f} to {max(effect['runs']):.2f}"
        rows.append([entry["condition"], entry["phase"], entry["n_cut"], *shown, effect["mean"], span, paper])
    header = ["condition", "phase", "n-cut", "layer", "below all", "layer-nonzero", "below all"]
    return {
        "title": "Shuffles that keep the topology",
        "header": [*header, "Cohen's d", "range", "paper's d"],
        "rows": rows,
        "note": "layer-nonzero moves only weights that are not zero. d > 0: its n-cuts are the lower ones.",
        "words": 2,
    }


def _network_table(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one of tables A.4 to A.15."""
    kinds = entry["nulls"]
    header = ["network", "n-cut", *(x for kind in kinds for x in (f"p, {kind}", "mean", "sd"))]
    rows = []
    for i, own in enumerate(entry["n_cut"]["runs"]):
        row: list[Any] = [str(i + 1), own]
        for null in kinds.values():
            row += [null["p"][i], float(np.mean(null["n_cuts"][i])), float(np.std(null["n_cuts"][i]))]
        if entry["cohens_d"]:
            row.append(entry["cohens_d"]["runs"][i])
        rows.append(row)
    header += ["Cohen's d"] * bool(entry["cohens_d"])
    return {"title": f"Each network: {title(entry)}", "header": header, "rows": rows, "detail": True}
