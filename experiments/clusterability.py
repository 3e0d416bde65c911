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
from collections.abc import Sequence
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, conditions, configs, hosts, reports
from jaxmod.conditions import CONDITIONS, PHASES
from jaxmod.reports import stat
from jaxmod.structure import shuffles, weight_layers
from jaxmod.structure.cluster_checks import checks
from jaxmod.structure.cluster_tables import describe, one_line, tables
from jaxmod.structure.ncut import cluster, cluster_many
from jaxmod.structure.shuffles import Kind


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


if __name__ == "__main__":
    cli.main("clusterability", PRESETS, run, validate)
