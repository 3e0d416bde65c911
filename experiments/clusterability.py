"""Are trained networks clusterable? (Filan et al. 2020, sections 3 and 4, appendices A.1 to A.5)

Perceptrons are trained, then trained on while 90% of their weights are pruned. Their weights as a graph are
cut into k clusters, and the n-cut (low: few weights join clusters) is compared with that of shuffled weights.
Tables 1 to 4 and A.1 to A.17, figures 1 to 4 and A.1 to A.5 of the paper:

    python -m experiments.clusterability --preset=quick                       # scikit-learn's digits
    python -m experiments.clusterability --preset=cpu --data_dir=DIR          # MNIST and Fashion-MNIST
    python -m experiments.clusterability --preset=cpu --config.conditions=cifar10,cifar10-dropout
    python -m experiments.clusterability --preset=cpu --config.ks=2,7,10      # tables A.1 to A.3
    python -m experiments.clusterability --preset=cpu --config.nulls=layer,layer-nonzero \
        --config.unpruned=true                                                # tables A.4 to A.15
    python -m experiments.clusterability --preset=cpu --config.conditions=random,random-dropout
    python -m experiments.clusterability --preset=cpu --config.conditions=lines,lines-mnist \
        --config.shuffles=0                                                   # tables A.16 and A.17

Conditions are those of `jaxmod.conditions`. The paper's 320 shuffles were 32 different ones; ours are
independent, and "below the first 32" is what compares with its proportions. The README's table has times and
numbers.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import jaxmod as jm
from jaxmod import cli, conditions, configs, hosts, reports
from jaxmod.conditions import CONDITIONS, PHASES
from jaxmod.reports import stat
from jaxmod.structure import published, shuffles, weight_layers
from jaxmod.structure.ncut import cluster, cluster_many
from jaxmod.structure.shuffles import Kind
from jaxmod.summary import check


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults."""

    conditions: tuple[str, ...] = (
        *("mnist", "mnist-dropout", "fashion_mnist", "fashion_mnist-dropout"),
        *("cifar10", "cifar10-dropout"),
    )
    ks: tuple[int, ...] = (4, 2, 7, 10)  # numbers of clusters; the figures show the first
    shuffles: int = 320  # of each network
    nulls: tuple[str, ...] = ("layer", "layer-nonzero")  # the first for every k, the others for the first k
    unpruned: bool = True  # shuffle the networks before pruning too
    initial: int = 200  # untrained networks, for figure 3
    seeds: int = 10  # networks of each condition
    seed: int = 0
    hidden: tuple[int, ...] = (256, 256, 256, 256)
    epochs: float = 1.0  # times those of the conditions
    learning_rate: float = 1e-3
    batch_size: int = 128
    sparsity: float = 0.9
    prune_every: int = 10


PRESETS = {
    "quick": Config(
        conditions=("digits-dropout",),
        ks=(4,),
        shuffles=100,
        nulls=("layer",),
        unpruned=False,
        initial=20,
        seeds=3,
    ),
    "cpu": Config(
        conditions=("mnist", "mnist-dropout", "fashion_mnist", "fashion_mnist-dropout"),
        ks=(4,),
        nulls=("layer",),
        unpruned=False,
    ),
    "paper": Config(),
}

DISTINCT = 32
"""How many of the paper's 320 shuffles were different ones."""
_LONG = ("kilo-epoch", "kilo-epoch-dropout")


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    for kind in config.nulls or ("",):
        configs.check_choice("nulls", kind, get_args(Kind))
    configs.check_positive(config, "ks", "seeds", "hidden", "epochs", "learning_rate", "batch_size")
    configs.check_positive(config, "prune_every")
    for field in ("nulls", "ks"):
        if len(set(getattr(config, field))) < len(getattr(config, field)):
            shown = reports.format_value(getattr(config, field))
            raise ValueError(f"{field}={shown}: expected each of them once.")
    for name in ("shuffles", "initial"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name}={getattr(config, name)}: expected 0 or more.")
    if not 0.5 <= config.sparsity < 1:
        raise ValueError(f"sparsity={config.sparsity}: expected 0.5, where pruning starts, or more, below 1.")
    for k in config.ks:
        conditions.check_clusters("ks", k, config.conditions, config.hidden)
    conditions.check_conditions("conditions", config.conditions, training(config))


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: the networks of every condition, their clusterings and those of their shuffles."""
    keys, _ = configs.run_keys(config)
    say = print if progress and hosts.is_first() else _silent
    part = workdir.part if workdir else _compute
    accuracies, entries, sources, name, graphs = {}, [], {}, "", []
    for name in config.conditions:
        images = conditions.load(CONDITIONS[name])
        sources[name] = images.source
        networks = conditions.train_networks(name, images, keys, training(config), workdir, progress)
        accuracies[name] = measure_accuracy(name, config, networks, images)
        for phase in PHASES:
            graphs = [
                weight_layers(jax.tree.map(lambda x, i=i: x[i], networks.params[phase]))
                for i in range(config.seeds)
            ]
            for k in config.ks:
                compute = functools.partial(cluster_networks, config, graphs, phase, k)
                clustered = part(f"{name}, {phase}, k={k}", compute)
                entries.append({"condition": name, "phase": phase, "k": k, **describe(clustered)})
                say(f"{name}, {phase}, k={k}: {one_line(entries[-1])}", flush=True)
    picture = part(f"{name}, picture", functools.partial(draw_network, name, config, graphs[-1]))
    initial = None
    if config.initial:
        n_cuts = part("initial", functools.partial(cluster_initial, config))
        initial = {"k": config.ks[0], "n_cuts": n_cuts, "sizes": initial_sizes(config)}
    results = {
        "question": "Do the weights of trained networks fall into clusters, more than shuffled weights do?",
        "notes": conditions.data_notes(sources),
        "runs": config.seeds,
        "accuracy_by_phase": accuracies,
        "clusterings": entries,
        "initial": initial,
        "picture": picture,
    }
    return results | {"tables": tables(results), "checks": checks(results)}


def _silent(*_: Any, **__: Any) -> None:
    pass


def _compute(_: str, compute: Any) -> Any:
    return compute()


def training(config: Config) -> conditions.Training:
    """Returns how the networks are trained."""
    fields = (field.name for field in dataclasses.fields(conditions.Training))
    return conditions.Training(**{name: getattr(config, name) for name in fields})


def measure_accuracy(name: str, config: Config, networks: conditions.Networks, images: Any) -> dict[str, Any]:
    """Returns the accuracies of each phase: in its last epoch, with dropout, and on the test images."""
    model = conditions.make_model(CONDITIONS[name], training(config))
    return {
        phase: {
            "train": stat(networks.running_accuracy[phase]),
            "test": stat(conditions.accuracy(model, params, images.x_test, images.y_test)),
        }
        for phase, params in networks.params.items()
    }


def cluster_networks(config: Config, graphs: Sequence[Any], phase: str, k: int) -> dict[str, Any]:
    """Returns the n-cuts of networks and, for every kind of shuffle that is asked for, of their shuffles."""
    kinds = config.nulls if k == config.ks[0] else config.nulls[:1]
    if not config.shuffles or (phase == "unpruned" and not config.unpruned):
        kinds = ()
    own = [cluster(weights, k, seed=(config.seed, i)) for i, weights in enumerate(graphs)]
    nulls = {}
    for kind in kinds:
        drawn = [
            shuffles.cluster_shuffles(weights, k, config.shuffles, cast(Kind, kind), seed=(config.seed, i))
            for i, weights in enumerate(graphs)
        ]
        nulls[kind] = np.round(drawn, 6).tolist()
    return {
        "n_cuts": [found.n_cut for found in own],
        "nulls": nulls,
        "clusters": [found.clusters for found in own],
        "residual": max(found.residual or 0.0 for found in own),
    }


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


def initial_sizes(config: Config) -> list[int]:
    """Returns the inputs and hidden neurons of the networks of `cluster_initial`."""
    return [conditions.num_pixels(CONDITIONS[config.conditions[0]]), *config.hidden]


def cluster_initial(config: Config) -> list[float]:
    """Returns the n-cuts of networks that were not trained, for the images of the first condition."""
    model = conditions.make_model(CONDITIONS[config.conditions[0]], training(config))
    shape = (1, initial_sizes(config)[0])
    key = jax.random.key(config.seed, impl=configs.KEY_IMPL)
    keys = jax.random.split(jax.random.fold_in(key, 2**31 - 1), config.initial)
    init = jax.jit(lambda key: model.init(key, jnp.zeros(shape))["params"])
    graphs = (weight_layers(init(key)) for key in keys)
    return [found.n_cut for found in cluster_many(graphs, config.ks[0], seed=config.seed)]


def draw_network(name: str, config: Config, weights: Any) -> dict[str, Any]:
    """Returns the clusters and the strongest weights of a pruned network, for figure 1."""
    labels = cluster(weights, config.ks[0], seed=(config.seed, config.seeds - 1)).labels
    edges = []
    for layer, w in enumerate(weights):
        strongest = np.argsort(-w, axis=None)[:400]
        edges += [(layer, int(i), int(j)) for i, j in zip(*np.unravel_index(strongest, w.shape), strict=True)]
    return {"condition": name, "labels": [x.tolist() for x in labels], "edges": edges}


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
        for phase in PHASES:
            values = [_percent(by_phase[phase][split]) for split in ("train", "test")]
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


def _percent(given: Mapping[str, Any]) -> dict[str, Any]:
    return stat([100 * x for x in given["runs"]])


def paper_n_cut(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the paper's mean n-cut of a clustering, and its standard deviation over networks."""
    name, k = entry["condition"], entry["k"]
    if entry["phase"] == "unpruned":
        return published.UNPRUNED.get(name) if k == 4 else None
    if (name, k) in published.SHUFFLED:
        return published.SHUFFLED[name, k][1:3]
    return published.MIXTURES.get(name) if k == 4 else None


def _first(entry: Mapping[str, Any]) -> int:
    """Returns how many the first shuffles are: fewer than in the paper if no more were drawn."""
    return min(DISTINCT, *(len(null["n_cuts"][0]) for null in entry["nulls"].values()))


def _n_cut_table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows, first = [], min([_first(entry) for entry in entries if entry["nulls"]], default=DISTINCT)
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
    fewer = [_title(entry) for entry in measured if min(entry["clusters"]) < entry["k"]]
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
    title = f"Each network: {entry['condition']}, {entry['phase']}, k={entry['k']}"
    header += ["Cohen's d"] * bool(entry["cohens_d"])
    return {"title": title, "header": header, "rows": rows, "detail": True}


def checks(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours, those that the conditions at hand can answer."""
    entries = {(e["condition"], e["phase"], e["k"]): e for e in results["clusterings"]}
    names = list(results["accuracy_by_phase"])
    ks = list(dict.fromkeys(k for _, _, k in entries))
    first = 4 if 4 in ks else ks[0]
    mean = {key: entry["n_cut"]["mean"] for key, entry in entries.items()}
    found = []
    before, after = ([mean[name, phase, first] for name in names] for phase in PHASES)
    ours = "; ".join(f"{n} {b:.2f} to {a:.2f}" for n, b, a in zip(names, before, after, strict=True))
    lower = all(a < b for a, b in zip(after, before, strict=True))
    found.append(check("pruning lowers the n-cut", "everywhere (Fig. 2)", ours, lower))
    pairs = [(name, f"{name}-dropout") for name in names if f"{name}-dropout" in names]
    if pairs:
        ours = "; ".join(
            f"{b} {mean[a, 'pruned', first]:.3f} to {mean[b, 'pruned', first]:.3f}" for a, b in pairs
        )
        lower = all(mean[b, phase, first] < mean[a, phase, first] for a, b in pairs for phase in PHASES)
        found.append(check("so does dropout, pruned or not", "for each data set (Fig. 2)", ours, lower))
    found += [_near_paper(entry) for entry in entries.values() if paper_n_cut(entry) is not None]
    found += [_significant(entry) for entry in entries.values() if "layer" in entry["nulls"]]
    found += [_topology(e) for (name, phase, _), e in entries.items() if e["cohens_d"] and phase == "pruned"]
    found += [
        _independent(entries[name, "pruned", first], results["accuracy_by_phase"][name])
        for name in names
        if results["runs"] >= 5
    ]
    if initial := results["initial"]:
        values = initial["n_cuts"]
        ours = f"{len(values)} networks from {min(values):.3f} to {max(values):.3f}"
        if (initial["k"], initial["sizes"]) == (4, [784, 256, 256, 256, 256]):
            inside = min(values) >= 2.3 and max(values) <= 2.45
            statement = "all untrained networks lie in the paper's range"
            found.append(check(statement, "2.3 to 2.45 (Fig. 3)", ours, inside))
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


def _title(entry: Mapping[str, Any]) -> str:
    return f"{entry['condition']}, {entry['phase']}, k={entry['k']}"


def _near_paper(entry: Mapping[str, Any]) -> dict[str, Any]:
    paper = paper_n_cut(entry)
    assert paper is not None
    off = abs(entry["n_cut"]["mean"] - paper[0])
    ours = reports.format_stat(entry["n_cut"], digits=3)
    said = f"{paper[0]:.3f} ± {paper[1]:.3f}"
    return check(f"{_title(entry)}: mean n-cut within two sd of the paper's", said, ours, off <= 2 * paper[1])


def _significant(entry: Mapping[str, Any]) -> dict[str, Any]:
    null = entry["nulls"]["layer"]
    paper = published.SHUFFLED.get((entry["condition"], entry["k"])) if entry["phase"] == "pruned" else None
    ours = f"{null['below_all']:.0%} below all {len(null['n_cuts'][0])} shuffles, "
    ours += f"{null['below_first']:.0%} below the first {_first(entry)}"
    if paper is None:
        statement = f"{_title(entry)}: most networks lie below all their shuffles"
        return check(statement, "(no number)", ours, null["below_all"] > 0.5)
    return check(
        f"{_title(entry)}: below the first shuffles as often as the paper's, to 30 points",
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
        f"{_title(entry)}: shuffles that keep the topology {what}",
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
        f"{_title(entry)}: both kinds of shuffles are alike, d from -0.5 to 0.5",
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
        f"{_title(entry)}: an exception, less than half of the networks lie below their shuffles",
        f"{paper[0]:.0%} ({'A.3' if entry['k'] == 2 else 'table 3'})",
        f"{null['below_first']:.0%}",
        null["below_first"] < 0.5,
    )


def _long(entry: Mapping[str, Any]) -> dict[str, Any]:
    paper, mean = published.UNPRUNED[entry["condition"]], entry["n_cut"]["mean"]
    return check(
        f"{_title(entry)}: the n-cut stays in the range of untrained networks, 2.3 to 2.45",
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
            f"{_title(entry)}: the shuffles have a long right tail, median skewness above 1",
            "they tend to (A.3)", f"{value:.2f}", value > 1,
        )  # fmt: skip
    # Sarle's coefficient: 5/9 for a uniform distribution, 1 for two values.
    both = [(s**2 + 1) / float(stats.kurtosis(d, fisher=False)) for s, d in zip(skew, varied, strict=True)]
    value = float(np.median(both)) if both else 0.0
    return check(
        f"{_title(entry)}: the shuffles have two modes, median bimodality coefficient above 5/9",
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
            f"{_title(entry)}: n-cut and accuracy are unrelated", "yes (Fig. 2)", "no variation", True
        )
    correlation: Any = stats.pearsonr(entry["n_cut"]["runs"], scores)
    r, p = correlation
    ours = f"r = {r:.2f}, p = {p:.2f} over {len(scores)} networks"
    return check(f"{_title(entry)}: n-cut and accuracy are unrelated", "yes (Fig. 2)", ours, p > 0.05)


if __name__ == "__main__":
    cli.main("clusterability", PRESETS, run, validate)
