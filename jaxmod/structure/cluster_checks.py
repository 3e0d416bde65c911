"""The statements of Filan et al. 2020 on clustered networks, beside what ours show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from jaxmod import reports
from jaxmod.conditions import CONDITIONS, PHASES
from jaxmod.structure import published
from jaxmod.structure.cluster_tables import first_shuffles, paper_n_cut, title
from jaxmod.summary import check

__all__ = ["checks"]

_LONG = ("kilo-epoch", "kilo-epoch-dropout")


def checks(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours, those that the conditions at hand can answer."""
    entries = {(e["condition"], e["phase"], e["k"]): e for e in results["clusterings"]}
    names = list(results["accuracy_by_phase"])
    ks = list(dict.fromkeys(k for _, _, k in entries))
    first = 4 if 4 in ks else ks[0]
    mean = {key: entry["n_cut"]["mean"] for key, entry in entries.items()}
    found = _lower(mean, names, first)
    found += [_near_paper(entry) for entry in entries.values() if paper_n_cut(entry) is not None]
    found += [_significant(entry) for entry in entries.values() if "layer" in entry["nulls"]]
    found += [_topology(e) for (name, phase, _), e in entries.items() if e["cohens_d"] and phase == "pruned"]
    found += [
        _independent(entries[name, "pruned", first], results["accuracy_by_phase"][name])
        for name in names
        if results["runs"] >= 5
    ]
    found += _untrained(results["initial"])
    found += [_unpruned(e) for (_, phase, _), e in entries.items() if phase == "unpruned" and e["cohens_d"]]
    found += [
        _not_below(entry)
        for (name, phase, k), entry in entries.items()
        if phase == "pruned"
        and "layer" in entry["nulls"]
        and (k == 2 or name in _LONG)
        and published.SHUFFLED.get((name, k), (1.0,))[0] < 0.5
    ]
    found += [
        _shape(entries[name, "unpruned", 4])
        for name in ("mnist", "mnist-dropout")
        if "layer" in entries.get((name, "unpruned", 4), {"nulls": ()})["nulls"]
    ]
    found += [_long(entries[name, "unpruned", 4]) for name in _LONG if (name, "unpruned", 4) in entries]
    if "cifar10-dropout-0.5" in names:
        found.append(_learns_nothing(results["accuracy_by_phase"]["cifar10-dropout-0.5"]))
    return found + (_mixtures(mean) if first == 4 else [])


def _lower(mean: Mapping[Any, float], names: Sequence[str], k: int) -> list[dict[str, Any]]:
    """Returns whether pruning lowers the n-cut, and dropout."""
    before, after = ([mean[name, phase, k] for name in names] for phase in PHASES)
    ours = "; ".join(f"{n} {b:.2f} to {a:.2f}" for n, b, a in zip(names, before, after, strict=True))
    lower = all(a < b for a, b in zip(after, before, strict=True))
    found = [check("pruning lowers the n-cut", "everywhere (Fig. 2)", ours, lower)]
    pairs = [(name, f"{name}-dropout") for name in names if f"{name}-dropout" in names]
    if pairs:
        ours = "; ".join(f"{b} {mean[a, 'pruned', k]:.3f} to {mean[b, 'pruned', k]:.3f}" for a, b in pairs)
        lower = all(mean[b, phase, k] < mean[a, phase, k] for a, b in pairs for phase in PHASES)
        found.append(check("so does dropout, pruned or not", "for each data set (Fig. 2)", ours, lower))
    return found


def _untrained(initial: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Returns whether untrained networks lie as in the paper, if there are such of its sizes."""
    if not initial or (initial["k"], initial["sizes"]) != (4, [784, 256, 256, 256, 256]):
        return []
    values = initial["n_cuts"]
    ours = f"{len(values)} networks from {min(values):.3f} to {max(values):.3f}"
    inside = min(values) >= 2.3 and max(values) <= 2.45
    return [check("all untrained networks lie in the paper's range", "2.3 to 2.45 (Fig. 3)", ours, inside)]


def _near_paper(entry: Mapping[str, Any]) -> dict[str, Any]:
    paper = paper_n_cut(entry)
    assert paper is not None
    off = abs(entry["n_cut"]["mean"] - paper[0])
    ours = reports.format_stat(entry["n_cut"], digits=3)
    said = f"{paper[0]:.3f} ± {paper[1]:.3f}"
    return check(f"{title(entry)}: mean n-cut within two sd of the paper's", said, ours, off <= 2 * paper[1])


def _significant(entry: Mapping[str, Any]) -> dict[str, Any]:
    null = entry["nulls"]["layer"]
    paper = published.SHUFFLED.get((entry["condition"], entry["k"])) if entry["phase"] == "pruned" else None
    ours = f"{null['below_all']:.0%} below all {len(null['n_cuts'][0])} shuffles, "
    ours += f"{null['below_first']:.0%} below the first {first_shuffles(entry)}"
    if paper is None:
        statement = f"{title(entry)}: most networks lie below all their shuffles"
        return check(statement, "(no number)", ours, null["below_all"] > 0.5)
    return check(
        f"{title(entry)}: below the first shuffles as often as the paper's, to 30 points",
        f"{paper[0]:.0%}",
        ours,
        abs(null["below_first"] - paper[0]) <= 0.3 + 1e-9,
    )


def _topology(entry: Mapping[str, Any]) -> dict[str, Any]:
    d, dropout = entry["cohens_d"]["mean"], CONDITIONS[entry["condition"]].dropout > 0
    paper = published.EFFECT.get((entry["condition"], entry["phase"]))
    what = "are far more clusterable, d > 2" if dropout else "differ little, d from -2 to 2"
    said = "(no number)" if paper is None else f"d = {paper:.2f} (A.1)"
    return check(
        f"{title(entry)}: shuffles that keep the topology {what}",
        said,
        f"Cohen's d {d:.2f}",
        d > 2 if dropout else abs(d) <= 2,
    )


def _unpruned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whether both kinds of shuffles are the same without zeros, as they must be."""
    d = entry["cohens_d"]["mean"]
    paper = published.EFFECT.get((entry["condition"], entry["phase"]))
    said = "d near 0" if paper is None else f"d = {paper:.2f}"
    return check(
        f"{title(entry)}: both kinds of shuffles are alike, d from -0.5 to 0.5",
        f"{said} (A.1)",
        f"Cohen's d {d:.2f}",
        abs(d) <= 0.5,
    )


def _not_below(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whether an exception holds: two clusters of MNIST, or long training on random classes.

    Of the latter the paper says that it is ambiguous: some networks do lie below their shuffles.
    """
    null, paper = entry["nulls"]["layer"], published.SHUFFLED[entry["condition"], entry["k"]]
    return check(
        f"{title(entry)}: an exception, less than half of the networks lie below their shuffles",
        f"{paper[0]:.0%} ({'A.3' if entry['k'] == 2 else 'table 3'})",
        f"{null['below_first']:.0%}",
        null["below_first"] < 0.5,
    )


def _long(entry: Mapping[str, Any]) -> dict[str, Any]:
    paper, mean = published.UNPRUNED[entry["condition"]], entry["n_cut"]["mean"]
    return check(
        f"{title(entry)}: the n-cut stays in the range of untrained networks, 2.3 to 2.45",
        f"{paper[0]:.3f} (table 3)",
        f"{mean:.3f}",
        2.3 <= mean <= 2.45,
    )


def _shape(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whether the shuffles of unpruned networks have the shape of figure A.2 or A.3."""
    drawn = [np.array(d) for d in entry["nulls"]["layer"]["n_cuts"]]
    varied = [d for d in drawn if np.ptp(d) > 0]
    skew = [float(stats.skew(d)) for d in varied]
    if CONDITIONS[entry["condition"]].dropout > 0:
        value = float(np.median(skew)) if skew else 0.0
        return check(
            f"{title(entry)}: the shuffles have a long right tail, median skewness above 1",
            "they tend to (A.3)", f"{value:.2f}", value > 1,
        )  # fmt: skip
    # Sarle's coefficient: 5/9 for a uniform distribution, 1 for two values.
    both = [(s**2 + 1) / float(stats.kurtosis(d, fisher=False)) for s, d in zip(skew, varied, strict=True)]
    value = float(np.median(both)) if both else 0.0
    return check(
        f"{title(entry)}: the shuffles have two modes, median bimodality coefficient above 5/9",
        "they tend to (A.2)", f"{value:.2f}", value > 5 / 9,
    )  # fmt: skip


def _learns_nothing(accuracy: Mapping[str, Any]) -> dict[str, Any]:
    mean = accuracy["pruned"]["test"]["mean"]
    return check(
        "cifar10-dropout-0.5: nothing is learned, accuracy from 8 to 12%",
        "so the paper has 0.2",
        f"{mean:.1%}",
        0.08 <= mean <= 0.12,
    )


def _mixtures(mean: Mapping[Any, float]) -> list[dict[str, Any]]:
    """Returns whether mixtures lie as in the paper: in order, beside their parts, separate or overlapping."""
    names = [name for name in published.MIXTURES if (name, "pruned", 4) in mean]
    ours = {name: mean[name, "pruned", 4] for name in names}
    found = []
    if len(names) > 2 and np.ptp(list(ours.values())) > 0:
        ranks: Any = stats.spearmanr([published.MIXTURES[name][0] for name in names], list(ours.values()))
        text = f"rank correlation with the paper's {ranks.statistic:.2f} over {len(names)}"
        order = "the order of the mixtures is the paper's, correlation above 0.7"
        found.append(check(order, "(A.16, A.17)", text, ranks.statistic > 0.7))
    pairs = [(name, name.replace("-sep", "")) for name in names if "-sep" in name]
    for separate, overlapping in ((a, b) for a, b in pairs if b in ours):
        theirs = [published.MIXTURES[name][0] for name in (separate, overlapping)]
        more = theirs[0] > theirs[1]
        found.append(
            check(
                f"{separate} has the {'higher' if more else 'lower'} n-cut than {overlapping}",
                f"{theirs[0]:.3f} against {theirs[1]:.3f}",
                f"{ours[separate]:.3f} against {ours[overlapping]:.3f}",
                (ours[separate] > ours[overlapping]) == more,
            )
        )
    for name in names:
        end = "-dropout" if name.endswith("-dropout") else ""
        parts = [part + end for part in name.removesuffix(end).removesuffix("-sep").split("-")]
        if len(parts) == 2 and all((part, "pruned", 4) in mean for part in parts):
            places = [
                _place(of[name], [of[part] for part in parts])
                for of in (_paper_n_cuts(), {x: mean[x, "pruned", 4] for x in (name, *parts)})
            ]
            statement = f"{name} lies {places[0]} {' and '.join(parts)}"
            found.append(check(statement, "(A.5)", places[1], places[0] == places[1]))
    return found


def _paper_n_cuts() -> dict[str, float]:
    pruned = {name: row[1] for (name, k), row in published.SHUFFLED.items() if k == 4}
    return pruned | {name: row[0] for name, row in published.MIXTURES.items()}


def _place(value: float, ends: Sequence[float]) -> str:
    return "below" if value < min(ends) else "above" if value > max(ends) else "between"


def _independent(entry: Mapping[str, Any], accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whether n-cut and accuracy of a condition's networks are unrelated."""
    scores = accuracy[entry["phase"]]["test"]["runs"]
    if np.ptp(scores) == 0 or np.ptp(entry["n_cut"]["runs"]) == 0:
        return check(
            f"{title(entry)}: n-cut and accuracy are unrelated", "yes (Fig. 2)", "no variation", True
        )
    correlation: Any = stats.pearsonr(entry["n_cut"]["runs"], scores)
    r, p = correlation
    ours = f"r = {r:.2f}, p = {p:.2f} over {len(scores)} networks"
    return check(f"{title(entry)}: n-cut and accuracy are unrelated", "yes (Fig. 2)", ours, p > 0.05)
