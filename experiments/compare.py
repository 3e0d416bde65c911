"""Finished runs of an experiment beside each other (Csordas et al. 2021, sections 3.3 to 5).

`class_removal`: do architectures take a class for the same others when its weights are gone? Figure 6 with
all networks, and how far their confusion differences (figures 19 to 21) correlate, beside chance.
`mask_stability`: are masks of a network trained with dropout found again as well? `transfer`: where masks
start on used and on free weights (figures 3 and 15), a first layer that is reset, fewer samples. `scan`: the
LSTM and the Transformer (figures 4a and 16).

    python -m experiments.class_removal --preset=quick --workdir=runs/a
    python -m experiments.class_removal --preset=quick --config.architecture=cnn-no-dropout --workdir=runs/b
    python -m experiments.compare --config.workdirs=runs/a,runs/b

The runs must be of one experiment, on the same data. Nothing is trained. What is found stays in the workdir
of the comparison: give another one (`--workdir`) for runs that were made anew under the same names.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import jaxmod as jm
from jaxmod import cli, configs, records
from jaxmod.analysis.class_agreement import Agreement, class_agreement, off_diagonal
from jaxmod.language.scan_checks import direct_check
from jaxmod.reports import format_value, percent, stat
from jaxmod.summary import check

TELLING = {
    "class_removal": ("architecture",),
    "mask_stability": ("architecture",),
    "transfer": ("used_logit", "new_logit", "reset_first_layer", "num_samples"),
    "scan": ("model", "embedding"),
}
"""Of each experiment that can be compared the fields by which runs are called, where they differ."""
SAME = ("experiment", "dataset", "source", "without", "length_cut", "data_seed")
"""What must not differ: the data."""


@dataclasses.dataclass
class Config:
    """Which runs."""

    workdirs: tuple[str, ...] = ()  # two or more, finished
    permutations: int = 1000  # of the names of classes, for the agreement by chance
    seed: int = 0  # of these


PRESETS = {"runs": Config()}


def validate(config: Config) -> None:
    """Raises ValueError unless there are runs that can be compared."""
    configs.check_positive(config, "permutations")
    if config.permutations < 2:
        raise ValueError("permutations=1: expected 2 or more, as chance has a spread.")
    read_runs(config.workdirs)


def read_runs(workdirs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns `{name: results}` of finished runs; names say in what they differ.

    Raises:
      ValueError: fewer than two runs, one that is given twice, missing or not finished, of another experiment
        or data; masks that were trained again with nothing in common changed.
    """
    if len({Path(folder).resolve() for folder in workdirs}) < max(2, len(workdirs)):
        raise ValueError(
            f"workdirs={format_value(workdirs)}: expected two or more different ones, separated by commas."
        )
    found, settings = [], []
    for folder in workdirs:
        results = _read(folder, "results.json")
        if results.get("experiment") not in TELLING:
            raise ValueError(
                f"workdir {folder} is of {results.get('experiment')}; runs of {', '.join(TELLING)} can be "
                "compared."
            )
        found.append(results)
        settings.append(_read(folder, "config.json"))
    for key in SAME:
        values = [_shown(record.get(key)) for record in settings]
        if len(set(values)) > 1:
            raise ValueError(f"the runs have different values of {key}: {', '.join(values)}.")
    if "stability" in found[0] and not common_changes(found):
        raise ValueError("the runs have no change in common: their `changes` are all different.")
    return dict(zip(names(workdirs, settings), found, strict=True))


def common_changes(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns what was changed between trainings of masks in all runs of mask_stability."""
    first, *others = (results["stability"] for results in runs)
    return [change for change in first if all(change in of for of in others)]


def _read(folder: str, name: str) -> dict[str, Any]:
    found = records.read_json(Path(folder, name), "Give another run, or do this one again.")
    if found is None:
        raise ValueError(f"workdir {folder} has no {name}: it is no run, or not finished.")
    return found


def names(workdirs: tuple[str, ...], settings: list[dict[str, Any]]) -> list[str]:
    """Returns what runs are called: by the telling fields in which they differ, or by their folders.

    If there are several such fields, by those in which a run is not as most of the runs are.
    """
    differ = [
        field
        for field in TELLING[settings[0]["experiment"]]
        if len({str(record[field]) for record in settings}) > 1
    ]
    if differ in (["architecture"], ["model"]):
        found = [record[differ[0]] for record in settings]
    elif len(differ) == 1:
        found = [f"{differ[0]}={record[differ[0]]}" for record in settings]
    else:
        usual = {field: statistics.mode(record[field] for record in settings) for field in differ}
        unusual = ([f for f in differ if record[f] != usual[f]] for record in settings)
        found = [
            ", ".join(f"{field}={record[field]}" for field in fields) or "plain"
            for record, fields in zip(settings, unusual, strict=True)
        ]
    for unique in (found, [Path(folder).name for folder in workdirs]):
        if len(set(unique)) == len(workdirs):
            return unique
    return list(workdirs)


def other_differences(settings: list[dict[str, Any]]) -> list[str]:
    """Returns a note on what else is different between runs, if anything is: it may be why they disagree."""
    telling = TELLING[settings[0]["experiment"]]
    fields = dict.fromkeys(field for record in settings for field in record if field not in telling)
    values = {field: [_shown(record.get(field)) for record in settings] for field in fields}
    said = [f"{field} ({'; '.join(shown)})" for field, shown in values.items() if len(set(shown)) > 1]
    return [f"The runs also differ in {', '.join(said)}."] if said else []


def _shown(value: Any) -> str:
    return format_value(value) or "none"


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns what the runs have in common and in what they differ."""
    del workdir, progress
    runs = read_runs(config.workdirs)
    experiment = next(iter(runs.values()))["experiment"]
    compare: dict[str, Callable[..., dict[str, Any]]] = {
        "class_removal": compare_removal,
        "mask_stability": compare_stability,
        "transfer": compare_transfer,
        "scan": compare_scan,
    }
    notes = list(dict.fromkeys(note for results in runs.values() for note in results["notes"]))
    notes += other_differences([_read(folder, "config.json") for folder in config.workdirs])
    return {"notes": notes, **compare[experiment](runs, config)}


def compare_removal(runs: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Returns drops of the networks, and how far their confusion differences agree."""
    of = {name: results["removal"] for name, results in runs.items()}
    differences = {name: np.array([d["mean"] for d in found["differences"]]) for name, found in of.items()}
    each = {name: np.array([d["runs"] for d in found["differences"]]) for name, found in of.items()}
    agreement = []
    for a, b in itertools.combinations(of, 2):
        both = differences[a], differences[b]
        whole, rows = (
            class_agreement(*both, config.permutations, config.seed, rows_only) for rows_only in (False, True)
        )
        single = correlations(each[a], each[b])
        agreement.append(
            {
                "networks": [a, b],
                "off the diagonal": _described(whole),
                "rows of the classes left out": _described(rows),
                "single networks": stat(single) if single else None,
            }
        )
    keys = ("accuracy", "control accuracy", "drop", "others' drop", "largest other drop")
    compared = {
        "what": "removal",
        "classes": next(iter(of.values()))["classes"],
        "networks": {
            name: {key: found[key] for key in keys} | {"differences": differences[name].tolist()}
            for name, found in of.items()
        },
        "agreement": agreement,
        "own": {name: stat(own) for name in of if (own := correlations(each[name]))},
    }
    return {
        "question": "Do architectures lose the same classes to the same others?",
        "compared": compared,
        "tables": removal_tables(compared),
        "checks": removal_checks(compared),
    }


def correlations(first: np.ndarray, second: np.ndarray | None = None) -> list[float]:
    """Returns the correlation of every two networks, one of each; of one architecture all pairs of its own.

    Args:
      first: differences, [left out, runs, true, seen].
      second: those of another architecture.
    """
    x = [off_diagonal(run) for run in first.swapaxes(0, 1)]
    if second is None:
        pairs = list(itertools.combinations(x, 2))
    else:
        pairs = list(itertools.product(x, [off_diagonal(run) for run in second.swapaxes(0, 1)]))
    return [float(np.corrcoef(a, b)[0, 1]) for a, b in pairs if a.std() and b.std()]


def _described(found: Agreement) -> dict[str, float] | None:
    return None if np.isnan(found.correlation) else found._asdict()


def removal_tables(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns accuracies, drops and correlations."""
    of = compared["networks"]
    networks = []
    for name, found in of.items():
        accuracies = [percent(found[key]) for key in ("accuracy", "control accuracy")]
        networks.append(
            [
                name,
                *accuracies,
                *(mean_of(found[key]) for key in ("drop", "others' drop", "largest other drop")),
            ]
        )
    drops = [[c, *(found["drop"][i] for found in of.values())] for i, c in enumerate(compared["classes"])]
    rows = []
    for pair in compared["agreement"]:
        for entries in ("off the diagonal", "rows of the classes left out"):
            r = pair[entries]
            values = [r["correlation"], r["chance"], r["chance_std"], r["p"]] if r else [None] * 4
            single = pair["single networks"] if entries == "off the diagonal" else None
            rows.append([" and ".join(pair["networks"]), entries, *values, single])
    for name, own in compared["own"].items():
        rows.append([f"{name}, among its networks", "off the diagonal", *[None] * 4, own])
    return [
        {
            "title": "How far confusion differences correlate",
            "header": ["architectures", "entries", "correlation", "by chance", "±", "p", "single networks"],
            "rows": rows,
            "words": 2,
            "digits": 3,
            "note": "Of the means over networks. By chance: the classes of one under other names. Single "
            "networks: the mean over all pairs of them.",
        },
        {
            "title": "Networks (%)",
            "header": [
                "",
                "accuracy",
                "control mask",
                "drop",
                "mean drop of the others",
                "largest other drop",
            ],
            "rows": networks,
            "words": 1,
            "digits": 1,
            "note": "Drops: mean and standard deviation over classes, in percent of the accuracy under the "
            "control mask; the largest other drop in percent of the class's own.",
        },
        {"title": "Drop of each class (%)", "header": ["class", *of], "rows": drops, "words": 1, "digits": 1},
    ]


def mean_of(stats: list[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Returns mean and standard deviation over classes of the means over networks."""
    means = [s["mean"] for s in stats if s]
    return stat(means) if means else None


def removal_checks(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what the paper says of architectures beside ours."""
    rows = []
    for pair in compared["agreement"]:
        r, (a, b) = pair["off the diagonal"], pair["networks"]
        ours, holds = "undefined", False
        if r is not None:
            ours = f"r = {r['correlation']:.2f}, by chance {r['chance']:.2f} ± {r['chance_std']:.2f}"
            ours, holds = f"{ours}, p = {r['p']:.3f}", r["correlation"] > 0 and r["p"] < 0.05
        statement = f"{a} and {b} lose classes to the same others"
        rows.append(check(statement, "yes (Figs. 19 to 21)", ours, holds))
    of = compared["networks"]
    drop = {name: s["mean"] for name, found in of.items() if (s := mean_of(found["drop"]))}
    if {"cnn", "cnn-no-dropout"} <= drop.keys():
        a, b = (100 * of[name]["control accuracy"]["mean"] for name in ("cnn", "cnn-no-dropout"))
        ours = f"{b:.1f}% for {a:.1f}%"
        rows.append(check("without dropout: a few points less", "yes (Fig. 18)", ours, 0 < a - b < 10))
        ratio = drop["cnn-no-dropout"] / drop["cnn"]
        ours = f"{drop['cnn-no-dropout']:.0f}% for {drop['cnn']:.0f}%, {100 * (1 - ratio):.0f}% smaller"
        holds = 0.55 <= ratio <= 0.8
        rows.append(check("without dropout: drops a third smaller", "30 to 40% (C.7)", ours, holds))
    if "resnet" in drop:
        ours = f"{drop['resnet']:.0f}%"
        rows.append(
            check(
                "the ResNet's drops are the largest",
                "almost 100% (Fig. 6)",
                ours,
                drop["resnet"] >= max(drop.values()),
            )
        )
    return rows


def compare_stability(runs: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Returns how well masks are found again, by network and by what was changed."""
    del config
    changes = common_changes(runs.values())
    of = {name: {c: results["stability"][c] for c in changes} for name, results in runs.items()}
    compared = {"what": "stability", "networks": of}
    rows = [
        [name, change, found["IoU"], found["chance"], found["IoU, hidden layers"]]
        for change in changes
        for name, found in ((name, rows[change]) for name, rows in of.items())
    ]
    table = {
        "title": "What two masks have in common",
        "header": ["network", "changed", "IoU", "by chance", "IoU, hidden layers"],
        "rows": rows,
        "words": 2,
        "digits": 3,
        "note": "Mean and standard deviation over networks and pairs of classes.",
    }
    judged = []
    if {"cnn", "cnn-no-dropout"} <= of.keys():
        for change in changes:
            a, b = (of[name][change]["IoU"]["mean"] for name in ("cnn", "cnn-no-dropout"))
            statement = f"with dropout masks agree less ({change})"
            judged.append(check(statement, "(in no paper)", f"{a:.3f} for {b:.3f}", a < b))
    return {
        "question": "Which networks have masks that are found again?",
        "compared": compared,
        "tables": [table],
        "checks": judged,
    }


def compare_transfer(runs: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Returns what tasks share with those before them in each variant."""
    del config
    variants = {name: results["transfer"] for name, results in runs.items()}
    keys = ("tasks", "sharing", "chance", "logits", "reset")
    compared = {
        "what": "transfer",
        "variants": {name: {key: found[key] for key in keys} for name, found in variants.items()},
    }
    return {
        "question": "What makes a network reuse more of what it has learned?",
        "compared": compared,
        "tables": [transfer_table(variants)],
        "checks": transfer_checks(variants),
    }


def transfer_table(variants: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row for each variant."""
    rows = []
    for name, found in variants.items():
        second, last, first_layer = found["sharing"][1], found["sharing"][-1], next(iter(found["sharing"][0]))
        learned = stat([100 * found["accuracy"][q][q]["mean"] for q in range(len(found["tasks"]))])
        after = stat([100 * s["mean"] for s in found["accuracy"][-1]])
        shares = (second["total"], last["total"], found["chance"][-1], last[first_layer], last["output"])
        rows.append([name, learned, after, *map(percent, shares)])
    return {
        "title": "Accuracy, and what tasks share with those before them (%)",
        "header": [
            *("variant", "accuracy when learned", "after the last", "T2 shares", "the last task shares"),
            *("by chance", "its first layer", "its output layer"),
        ],
        "rows": rows,
        "words": 1,
        "digits": 1,
        "note": "Accuracy: mean and standard deviation over tasks. Shares: of a task's own mask.",
    }


def transfer_checks(variants: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what the paper says of where masks start beside ours."""
    rows = []
    keep = {name: found for name, found in variants.items() if not found["reset"]}
    first: dict[float, str] = {}  # of the runs that start alike
    for name, found in keep.items():
        first.setdefault(found["logits"][1], name)
    starts = sorted(first, reverse=True)
    by_start = [first[start] for start in starts]
    if len(starts) > 1:
        for layer in ("total", next(iter(keep[by_start[0]]["sharing"][0]))):
            shares = [np.mean([row[layer]["mean"] for row in keep[name]["sharing"][1:]]) for name in by_start]
            what = "masks share more" if layer == "total" else f"{layer} too"
            ours = ", ".join(
                f"{share:.0%} from {start:g}" for share, start in zip(shares, starts, strict=True)
            )
            rows.append(
                check(
                    f"the lower free weights start, the more is shared: {what}",
                    "yes (Fig. 15)",
                    ours,
                    all(a < b for a, b in itertools.pairwise(shares)),
                )
            )
    most = {name: max(row["total"]["mean"] for row in found["sharing"][1:]) for name, found in keep.items()}
    if most:
        name = max(most, key=lambda name: most[name])
        ours = f"at most {most[name]:.0%} shared ({name})"
        rows.append(
            check("more than half of each mask stays unique", "yes (Fig. 15)", ours, most[name] < 0.5)
        )
    return rows


def compare_scan(runs: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Returns what networks and masks can do on the test part of each split, and what control masks keep."""
    del config
    networks = {
        name: {key: results["scan"][key] for key in ("accuracy", "learned")} for name, results in runs.items()
    }
    splits = next(iter(runs.values()))["scan"]["splits"]
    rows, judged = [], []
    for name, found in networks.items():
        accuracy = found["accuracy"]
        control, own = accuracy["control"], {split: accuracy[split][split] for split in splits}
        direct = {split: accuracy.get(f"direct {split}", {}).get(split) for split in splits}
        learned = {split: found["learned"].get(f"direct {split}") for split in splits}
        rows += [[name, s, *map(percent, (control[s], own[s], direct[s], learned[s]))] for s in splits]
        gap = {split: 100 * (control[split]["mean"] - own[split]["mean"]) for split in splits}
        judged.append(
            check(
                f"{name}: each mask is 10 points or more below the control on its test part",
                "much lower (Fig. 4a)",
                ", ".join(f"{split} {points:.1f} points" for split, points in gap.items()),
                min(gap.values()) >= 10,
            )
        )
        if all(direct.values()):
            judged.append(direct_check(found, splits, f"{name}: "))
    table = {
        "title": "Accuracy on the test part of each split (%)",
        "header": [
            "network",
            "split",
            "control mask",
            "mask of the split",
            "trained on the split",
            "learned",
        ],
        "rows": rows,
        "words": 2,
        "digits": 1,
        "note": "Learned: what the network trained on the split gets right of what it was trained on.",
    }
    kept = {name: results["scan"]["density"]["control"] for name, results in runs.items()}
    layers = dict.fromkeys(layer for results in runs.values() for layer in results["scan"]["layers"])
    density = {
        "title": "Weights that the control mask keeps in each layer (%)",
        "header": ["layer", *kept],
        "rows": [[of, *(percent(row.get(of)) for row in kept.values())] for of in [*layers, "total"]],
        "digits": 1,
        "note": "With embeddings of the hidden size the masks of an LSTM lose the input layers (C.6.1).",
    }
    return {
        "question": "Does a network that solves SCAN do so by general rules, whatever its kind?",
        "compared_scan": {"splits": splits, "networks": networks},
        "tables": [table, density],
        "checks": judged,
    }


if __name__ == "__main__":
    cli.main("compare", PRESETS, run, validate)
