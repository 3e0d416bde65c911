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


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    for kind in config.nulls or ("",):
        configs.check_choice("nulls", kind, get_args(Kind))
    configs.check_positive(config, "ks", "seeds", "hidden", "epochs", "learning_rate", "batch_size")
    configs.check_positive(config, "prune_every")
    if min(config.ks) < 2:
        raise ValueError(f"ks={reports.format_value(config.ks)}: expected 2 clusters or more.")
    for name in ("shuffles", "initial"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name}={getattr(config, name)}: expected 0 or more.")
    if not 0.5 <= config.sparsity < 1:
        raise ValueError(f"sparsity={config.sparsity}: expected 0.5, where pruning starts, or more, below 1.")
    conditions.check_conditions("conditions", config.conditions)


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: the networks of every condition, their clusterings and those of their shuffles."""
    keys, _ = configs.run_keys(config)
    say = print if progress and hosts.is_first() else _silent
    part = workdir.part if workdir else _compute
    accuracies, entries, sources, picture, graphs = {}, [], {}, {}, []
    for name in dict.fromkeys(config.conditions):
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
        initial = {"k": config.ks[0], "n_cuts": n_cuts, "sizes": [x.shape[0] for x in graphs[0]]}
    results = {
        "question": "Do the weights of trained networks fall into clusters, more than shuffled weights do?",
        "notes": [f"{name}: {source.split(' from ')[0]}." for name, source in sources.items()],
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
    own = [cluster(weights, k, seed=(config.seed, i)).n_cut for i, weights in enumerate(graphs)]
    nulls = {}
    for kind in kinds:
        drawn = [
            shuffles.cluster_shuffles(weights, k, config.shuffles, cast(Kind, kind), seed=(config.seed, i))
            for i, weights in enumerate(graphs)
        ]
        nulls[kind] = np.round(drawn, 6).tolist()
    return {"n_cuts": own, "nulls": nulls}


def describe(clustered: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the statistics of what `cluster_networks` gives."""
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
        both = zip(*clustered["nulls"].values(), strict=True)
        effect = stat([shuffles.cohens_d(*map(np.array, pair)) for pair in both])
    return {"n_cut": stat(own), "nulls": nulls, "cohens_d": effect}


def one_line(entry: Mapping[str, Any]) -> str:
    """Returns a clustering for the log."""
    text = f"n-cut {reports.format_stat(entry['n_cut'], digits=3)}"
    for kind, null in entry["nulls"].items():
        text += f"; {kind} shuffles {null['mean']:.3f} ± {null['std']:.3f}, below all {null['below_all']:.0%}"
    return text


def cluster_initial(config: Config) -> list[float]:
    """Returns the n-cuts of networks that were not trained, with the images of the first condition."""
    name = config.conditions[0]
    images = conditions.load(CONDITIONS[name])
    model = conditions.make_model(CONDITIONS[name], training(config))
    shape = (1, int(np.prod(images.x_train.shape[1:])))
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


def _n_cut_table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
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
        "header": [*header, "below all", f"below {DISTINCT}", "paper"],
        "rows": rows,
        "note": (
            "Low n-cuts: clusterable. Below all: the part of the networks below all their shuffles. Below "
            f"{DISTINCT}: below the first {DISTINCT}. The paper's proportion is such a one."
        ),
        "words": 3,
    }


def _effect_table(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for entry in (entry for entry in entries if entry["cohens_d"]):
        effect = entry["cohens_d"]
        paper = published.EFFECT.get((entry["condition"], entry["phase"]))
        nulls = entry["nulls"].values()
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
            inside = min(values) > 2.29 and max(values) < 2.46  # read off a figure
            found.append(check("untrained networks", "all between 2.3 and 2.45 (Fig. 3)", ours, inside))
    mixtures = [name for name in published.MIXTURES if name in names]
    if len(mixtures) > 2 and first == 4:
        ranks: Any = stats.spearmanr(
            [published.MIXTURES[n][0] for n in mixtures], [mean[n, "pruned", 4] for n in mixtures]
        )
        ours = f"rank correlation with the paper's {ranks.statistic:.2f} over {len(mixtures)}"
        found.append(check("the order of the mixtures", "(A.16, A.17)", ours, ranks.statistic > 0.7))
    return found


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
    ours += f"{null['below_first']:.0%} below the first {DISTINCT}"
    statement = f"{_title(entry)}: below its shuffles"
    if paper is None:
        return check(statement, "(no number)", ours, null["below_all"] > 0.5)
    # The paper's proportion is of ten networks, as a rule, and so has an error of its own.
    near = abs(null["below_first"] - paper[0]) <= 0.3
    return check(statement, f"{paper[0]:.0%}", ours, near)


def _topology(entry: Mapping[str, Any]) -> dict[str, Any]:
    effect, dropout = entry["cohens_d"], CONDITIONS[entry["condition"]].dropout > 0
    paper = published.EFFECT.get((entry["condition"], entry["phase"]))
    ours = f"Cohen's d {effect['mean']:.2f}"
    said = "far more with dropout" if paper is None else f"d = {paper:.2f} (A.1)"
    holds = effect["mean"] > 2 if dropout else abs(effect["mean"]) < 4
    return check(f"{_title(entry)}: shuffles that keep the topology are more clusterable", said, ours, holds)


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
