"""Which parts of a clustered network matter, and which need each other? (Filan et al. 2020, lesions)

Figures 5, 6, A.6 and tables A.18, A.19 of the paper. A network is trained with dropout, pruned and
clustered; what a cluster has in one hidden layer is a sub-module. Each is taken out and the drop of test
accuracy compared with that of random neurons of the layer; then pairs are taken out together.

    python -m experiments.lesions --preset=quick           # the 8x8 digits
    python -m experiments.lesions --preset=cpu             # Fashion-MNIST as in the paper, important pairs
    python -m experiments.lesions --preset=paper           # the same, all pairs (figure A.6)

The tables describe the one network that was trained: a reproduction shows the same kind of picture and not
the same rows. With more seeds there are more networks, each with its tables and figures.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, conditions, configs
from jaxmod.conditions import CONDITIONS
from jaxmod.structure import cluster, weight_layers
from jaxmod.structure.importance import (
    Double,
    Single,
    across_layers,
    dependencies,
    double_lesions,
    single_lesions,
)
from jaxmod.structure.lesions import SubModule, sub_modules
from jaxmod.summary import check

PAIRS = ("all", "important")


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults."""

    condition: str = "fashion_mnist-dropout"  # a name in jaxmod.conditions.CONDITIONS
    hidden: tuple[int, ...] = (256, 256, 256, 256)
    epochs: float = 1.0  # times those of the condition
    k: int = 10  # clusters
    controls: int = 100  # random lesions for each sub-module
    double_controls: int = 50  # for each of a pair, the other one gone
    pairs: str = "all"  # of one layer as well; or important: pairs of important ones in two layers
    seeds: int = 1  # networks
    seed: int = 0


PRESETS = {
    "quick": Config(condition="digits-dropout", pairs="important"),
    "cpu": Config(pairs="important"),
    "paper": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_choice("pairs", config.pairs, PAIRS)
    configs.check_positive(config, "hidden", "epochs", "seeds")
    for field, fewest in (("controls", 100), ("double_controls", 50)):
        if (value := getattr(config, field)) < fewest:
            raise ValueError(
                f"{field}={value}: expected {fewest} or more; with fewer no p is below 1/{fewest}, and no "
                "sub-module important."
            )
    training = conditions.Training(hidden=config.hidden, epochs=config.epochs)
    conditions.check_clusters("k", config.k, [config.condition], config.hidden)
    conditions.check_conditions("condition", [config.condition], training)


class Network(NamedTuple):
    """A trained network and what is done to it once."""

    params: Any
    inputs: jax.Array
    labels: jax.Array
    """Of the test images."""
    key: jax.Array
    once: Callable[[str, Callable[[], Any]], Any]
    """`once(name, compute)`: the value of an earlier call of this workdir, or `compute()`."""


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: networks, their clusters, single lesions, double lesions."""
    keys, control_key = configs.run_keys(config)
    condition = CONDITIONS[config.condition]
    images = conditions.load(condition)
    x_test, y_test = jnp.asarray(images.x_test), jnp.asarray(images.y_test)
    training = conditions.Training(hidden=config.hidden, epochs=config.epochs)

    # 1. Train the networks, then train on and prune.
    networks = conditions.train_networks(config.condition, images, keys, training, workdir, progress)
    params = networks.params["pruned"]
    model = conditions.make_model(condition, training)
    accuracy = conditions.accuracy(model, params, x_test, y_test)

    # 2. Take each apart.
    def once(name: str, compute: Callable[[], Any]) -> Any:
        if progress:
            print(name, file=sys.stderr, flush=True)
        return workdir.part(name, compute) if workdir else compute()

    studies = []
    for i in range(config.seeds):
        network = Network(
            jax.tree.map(lambda x, i=i: x[i], params),
            conditions.scale(x_test),
            y_test,
            jax.random.fold_in(control_key, i),
            lambda name, compute, i=i: once(f"network {i}, {name}", compute),
        )
        studies.append({"accuracy": float(accuracy[i]), **study(config, network)})
    return {
        "question": "Which sub-modules does a network need, and which of them work only together?",
        "notes": [
            f"Accuracy is that on the {len(y_test)} test images, as in the paper. The p of a double "
            "lesion counts controls of equal harm; that of a single one does not, as in the paper's code.",
            *conditions.data_notes({config.condition: images.source}),
        ],
        "runs": config.seeds,
        "model": config.condition,
        "lesions": studies,
        "tables": tables(studies),
        "checks": checks(studies),
    }


def study(config: Config, network: Network) -> dict[str, Any]:
    """Returns what lesions do to a network, part by part so that a stopped run goes on with the next one."""
    clusters = network.once("clusters", lambda: find_clusters(config, network))
    modules = sub_modules([np.asarray(labels) for labels in clusters["labels"]])
    case = (network.params, network.inputs, network.labels)
    rows = network.once(
        "single lesions",
        lambda: [s._asdict() for s in single_lesions(*case, modules, network.key, config.controls)],
    )
    singles = [Single(**row) for row in rows]
    important = {single.name for single in singles if single.kind == "important"}
    doubles = []
    for first, pairs in itertools.groupby(choose_pairs(config, modules, important), key=lambda pair: pair[0]):
        some = list(pairs)
        doubles += network.once(
            f"pairs with {first.name}",
            lambda some=some: [
                d._asdict() for d in double_lesions(*case, some, network.key, config.double_controls)
            ],
        )
    edges = dependencies([Double(**row) for row in doubles], important)
    return {"n_cut": clusters["n_cut"], "single": rows, "double": doubles, "edges": edges}


def find_clusters(config: Config, network: Network) -> dict[str, Any]:
    """Returns the clusters of the neurons, layer by layer, and their n-cut."""
    found = cluster(weight_layers(network.params), config.k, seed=config.seed)
    return {"labels": [labels.tolist() for labels in found.labels], "n_cut": found.n_cut}


def choose_pairs(
    config: Config, modules: Sequence[SubModule], important: set[str]
) -> list[tuple[SubModule, SubModule]]:
    """Returns the pairs to take out, the earlier layer first."""
    pairs = itertools.combinations(modules, 2)
    if config.pairs == "all":
        return list(pairs)
    return [(x, y) for x, y in pairs if x.layer < y.layer and {x.name, y.name} <= important]


def names_of(study: Mapping[str, Any], kind: str) -> list[str]:
    """Returns the sub-modules of a class."""
    return [single["name"] for single in study["single"] if single["kind"] == kind]


def pairs_of(study: Mapping[str, Any]) -> list[Double]:
    """Returns the pairs of table A.19."""
    return across_layers([Double(**row) for row in study["double"]], names_of(study, "important"))


def tables(studies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns an overview of the networks, and tables A.18 and A.19 of each."""
    overview = {
        "title": "The networks",
        "header": ["network", "accuracy", "n-cut", "sub-modules", "important", "pairs", "dependencies"],
        "rows": [
            [str(i), s["accuracy"], s["n_cut"], len(s["single"]), len(names_of(s, "important"))]
            + [len(pairs_of(s)), len(s["edges"])]
            for i, s in enumerate(studies)
        ],
        "note": "The paper's network (Fashion-MNIST, dropout): 24 sub-modules, 9 important; 28 pairs of "
        "important ones in two layers, of which 17 depend. Its ten networks: accuracy 0.869, n-cut 6.46.",
    }
    made = [overview]
    for i, study in enumerate(studies):
        end = f" of network {i}" if len(studies) > 1 else ""
        made += [single_table(study, end), double_table(study, end)]
    return made


def single_table(study: Mapping[str, Any], end: str) -> dict[str, Any]:
    """Returns table A.18."""
    rows = [
        [s["name"], s["kind"], -s["drop"], s["p"], s["p_with_ties"], s["proportion"]]
        + [{"mean": -s["random_mean"], "std": s["random_std"]}]
        for s in study["single"]
    ]
    return {
        "title": f"Single lesions{end} (table A.18)",
        "header": [
            "sub-module",
            "class",
            "accuracy change",
            "p",
            "with ties",
            "proportion",
            "random ones",
        ],
        "rows": rows,
        "note": "A sub-module is named layer-cluster. Below zero is harm. Proportion: of the neurons of the "
        "layer that have weights. Random ones: lesions of as many neurons, mean and standard deviation.",
        "words": 2,
        "digits": 4,
    }


def double_table(study: Mapping[str, Any], end: str) -> dict[str, Any]:
    """Returns table A.19."""
    flag = {True: "yes", False: "no"}
    rows = [
        [d.x, d.y, flag[d.x_important], flag[d.y_important], d.delta_x, d.delta_y, d.p_x, d.p_y]
        for d in pairs_of(study)
    ]
    return {
        "title": f"Double lesions{end} (table A.19)",
        "header": ["X", "Y", "X important given Y", "Y given X", "d(X,Y)", "d(Y,X)", "p of X", "p of Y"],
        "rows": rows,
        "note": "d(X,Y): what the lesion of X adds to the drop once Y is gone.",
        "words": 4,
        "digits": 3,
        "detail": True,
    }


def checks(studies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what the paper's network shows beside ours; each must hold for every network."""
    important = [[s for s in study["single"] if s["kind"] == "important"] for study in studies]
    worst = [max(study["single"], key=lambda s: s["drop"]) for study in studies if study["single"]]
    layers = [{s["name"].split("-")[0] for s in some} for some in important]
    deepest = max((int(s["name"].split("-")[0]) for study in studies for s in study["single"]), default=1)
    # A control of a whole layer is the lesion itself.
    free = [s for study in studies for s in study["single"] if s["kind"] != "complete"]
    random = [100 * s["random_mean"] for s in free]
    matter = [s for some in important for s in some]
    share = sum(s["random_mean"] for s in matter) / sum(s["drop"] for s in matter) if matter else 1.0
    small = [100 * s["drop"] for s in free if s["kind"] == "small"]
    stronger = [s["drop"] > s["random_mean"] + 3 * s["random_std"] for s in matter]
    pairs = [len(pairs_of(study)) for study in studies]
    edges = [len(study["edges"]) for study in studies]
    return [
        check(
            "some sub-modules are important, most are not",
            "9 of 24 (A.18)",
            "; ".join(f"{len(a)} of {len(s['single'])}" for a, s in zip(important, studies, strict=True)),
            all(0 < len(a) <= len(s["single"]) / 2 for a, s in zip(important, studies, strict=True)),
        ),
        check(
            "the one that does the most harm lies in the first layer",
            "1-3, -18.7 points",
            "; ".join(f"{s['name']}, {-100 * s['drop']:.1f} points" for s in worst) or "there is none",
            bool(worst) and all(s["name"].startswith("1-") for s in worst),
        ),
        check(
            "every hidden layer has important ones",
            "yes",
            "; ".join(f"in layers {', '.join(sorted(some))}" if some else "none" for some in layers),
            all(len(some) == deepest for some in layers),
        ),
        check(
            "as many random neurons do a small part of the harm of important sub-modules",
            "5% in all; at most 0.8 points in the mean",
            f"{share:.0%} in all; at most {max(random, default=0.0):.1f} points in the mean",
            bool(random) and share < 0.25,
        ),
        check(
            "important ones do far more harm than random neurons",
            "more than any of 100",
            f"{sum(stronger)} of {len(stronger)} by over 3 standard deviations",
            bool(stronger) and sum(stronger) >= 0.8 * len(stronger),
        ),
        check(
            "small sub-modules do not matter",
            "0.05 points at most",
            f"{max(small):.2f} points at most" if small else "there are none",
            max(small, default=0.0) < 1,
        ),
        check(
            "important sub-modules depend on each other",
            "17 of 28 pairs (Fig. 6b)",
            "; ".join(f"{e} of {p} pairs" for e, p in zip(edges, pairs, strict=True)),
            all(edges),
        ),
    ]


if __name__ == "__main__":
    cli.main("lesions", PRESETS, run, validate)
