"""Do the clusters of a network's weights coincide with the modules that masks find in it?

Filan et al. 2020 cluster the weight graph and never ask what a cluster computes; Csordas et al. 2021 find the
weights of a class by masks and never look at the graph. Here both look at the same networks. Nobody has a
number for this, so there is none beside ours.

    1. Networks of a condition are trained and pruned, as in Filan et al.
    2. Their weight graph is clustered.
    3. A control mask is trained on all classes, then one mask on all classes but c for each c, with
       the control's mask of the output layer copied and fixed (Csordas et al., 4.4).
    4. Each hidden neuron gets the class of which it has the most weights in excess: weights that the control
       keeps and the mask without the class drops (`jaxmod.structure.agreement`).
    5. Adjusted mutual information of clusters and classes, against labels shuffled within the layer.

All masks are trained twice, with other noise and batches. How far the classes of both trainings agree says
how much the clusters could agree with them: where masks do not agree with themselves, no answer is to be had.

    python -m experiments.agreement --preset=quick       # the embedded digits
    python -m experiments.agreement --preset=cpu         # Fashion-MNIST and MNIST, 3 networks each
    python -m experiments.agreement --preset=full        # 10 networks each, masks trained for longer
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxmod as jm
from jaxmod import cli, conditions, configs, trees
from jaxmod.class_masks import find_class_masks
from jaxmod.data.images import CLASSES
from jaxmod.models import layer_labels
from jaxmod.reports import stat
from jaxmod.structure import agreement, graph, ncut
from jaxmod.summary import check

TRAININGS = 2
"""Of all masks of a network."""
CLEAR = 0.01
"""A p up to this is no chance."""


@dataclasses.dataclass
class Config:
    """The networks are those of Filan et al.; the masks are ours, with the settings of Csordas et al."""

    conditions: tuple[str, ...] = ("fashion_mnist-dropout", "mnist-dropout")
    hidden: tuple[int, ...] = (256,) * 4
    epochs: float = 1.0  # times those of the condition
    k: int = 10  # clusters
    shuffles: int = 1000
    seeds: int = 10
    seed: int = 0
    mask_steps: int = 20_000
    mask_learning_rate: float = 1e-2
    batch_size: int = 128
    num_samples: int = 4
    beta: float = 1e-4  # alpha = beta / batch_size
    estimator: str = "gumbel_sigmoid"  # or edge_popup, hard_concrete: jaxmod.configs.make_estimator
    top_q: float = 0.05  # part of the weights that edge_popup keeps; beta is nothing to it
    temperature: float = 1.0  # of gumbel_sigmoid
    noise: str = "mix32"  # of the masks; or jax: the bits of jax.random
    bfloat16: bool = False  # frozen weights and activations of mask training; for accelerators
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    clip_norm: float = 1.0
    chunk_steps: int = 1000


PRESETS = {
    "quick": Config(  # a higher rate and beta decide masks after few steps
        conditions=("digits-dropout",),
        seeds=1,
        mask_steps=500,
        mask_learning_rate=3e-2,
        beta=3e-4,
        chunk_steps=250,
    ),
    "cpu": Config(seeds=3, mask_steps=1_500, mask_learning_rate=3e-2, beta=3e-4, chunk_steps=250),
    "full": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_choice("noise", config.noise, ("mix32", "jax"))
    configs.check_positive(config, "hidden", "epochs", "seeds", "shuffles", "clip_norm", "temperature")
    configs.mask_config(config)
    configs.make_estimator(config)
    training = conditions.Training(config.hidden, config.epochs)
    conditions.check_clusters("k", config.k, config.conditions, config.hidden)
    conditions.check_conditions("conditions", config.conditions, training)


class Masked(NamedTuple):
    """Networks, each `TRAININGS` times, and the masks of each; leading axis: first all first trainings."""

    params: Any
    control: Any
    without: list[Any]
    """By class."""


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results for all conditions."""
    found = {name: study(config, name, workdir, progress) for name in config.conditions}
    return {
        "question": "Do the clusters of the weights coincide with the modules that masks find?",
        "notes": [
            "Nobody has compared the two before: there are no numbers of a paper.",
            "A neuron's class is the one of which it has the most weights in excess of its layer's average.",
            f"Masks are trained {TRAININGS} times; how far these agree bounds what clusters could reach.",
            *conditions.data_notes({name: of["data"] for name, of in found.items()}),
        ],
        "runs": config.seeds,
        "agreement": found,
        "tables": [agreement_table(found), accuracy_table(found), class_table(found)],
        "checks": [row for name in found for row in checks(name, found[name])],
    }


def study(config: Config, name: str, workdir: jm.Workdir | None, progress: bool) -> dict[str, Any]:
    """Returns what a condition's networks show, each list by network."""
    images = conditions.load(conditions.CONDITIONS[name])
    keys, _ = configs.run_keys(config)
    training = conditions.Training(config.hidden, config.epochs)
    networks = conditions.train_networks(name, images, keys, training, workdir, progress).params["pruned"]
    model = conditions.make_model(conditions.CONDITIONS[name], training)
    masked = train_masks(config, name, model, networks, images, keys, workdir, progress)

    def analyse() -> dict[str, Any]:
        return {
            "layers": [f"layer {i + 1}" for i in range(len(config.hidden))],
            "accuracy": accuracies(model, masked, images),
            **compare(config, masked),
        }

    found = workdir.part(f"{name}, agreement", analyse) if workdir else analyse()
    return {"data": images.source, **found}


def train_masks(config, name, model, networks, images, keys, workdir, progress) -> Masked:
    """Returns the control mask and the masks without a class of every network, trained `TRAININGS` times."""
    keys = jnp.concatenate([_fold_in(keys, training) for training in range(TRAININGS)])
    params = jax.tree.map(lambda w: jnp.concatenate([w] * TRAININGS), networks)
    loss, right = _functions(model)
    *_, output = layer_labels(params)

    def stage(part: str):
        return workdir.stage(f"{name}, {part}") if workdir else None

    found = find_class_masks(
        loss,
        params,
        images.y_train,
        output=output,
        keys=keys,
        estimator=configs.make_estimator(config),
        stage=stage,
        config=configs.mask_config(config),
        data={"image": images.x_train, "label": images.y_train},
        evaluate=right,
        progress=progress,
    )
    return Masked(params, found.control.mask, [module.mask for module in found.without])


_fold_in = jax.vmap(jax.random.fold_in, (0, None))


@functools.lru_cache(maxsize=8)  # the same functions again, so that no program is compiled twice
def _functions(model):
    def outputs(params, batch):
        x = conditions.scale(batch["image"]).astype(jax.tree.leaves(params)[0].dtype)
        return model.apply({"params": params}, x).astype(jnp.float32)

    def loss(params, batch, key):
        return optax.softmax_cross_entropy_with_integer_labels(outputs(params, batch), batch["label"]).mean()

    def right(params, batch):
        return {"accuracy": jnp.argmax(outputs(params, batch), axis=-1) == batch["label"]}

    return loss, right


def accuracies(model, masked: Masked, images) -> dict[str, Any]:
    """Returns the accuracy on the test images of each class, `[runs, classes]`: "network", "control" and
    "without", which is `[runs, masks, classes]`.
    """
    _, right = _functions(model)
    batch = {"image": jnp.asarray(images.x_test), "label": jnp.asarray(images.y_test)}

    @jax.jit
    def examples(params, mask, batch):
        return lax.map(lambda module: right(module, batch)["accuracy"], jm.apply_mask(params, mask))

    def by_class(mask):
        correct = np.asarray(examples(masked.params, mask, batch))
        return np.stack([correct[:, images.y_test == c].mean(axis=1) for c in range(CLASSES)], axis=1)

    without = np.stack([by_class(mask) for mask in masked.without], axis=1)
    found = {"network": by_class(None), "control": by_class(masked.control), "without": without}
    return {name: x.tolist() for name, x in found.items()}


def compare(config: Config, masked: Masked) -> dict[str, Any]:
    """Returns clusters and classes of each network, and how far they agree in each hidden layer."""
    runs = config.seeds * TRAININGS
    params, control, *without = (
        jax.tree.map(np.asarray, tree) for tree in (masked.params, masked.control, *masked.without)
    )
    *paths, _ = layer_labels(params)  # nothing is dropped in the output layer, whose mask is copied
    weights = [class_weights(params, control, without, paths, run) for run in range(runs)]
    classes = [agreement.neuron_classes(w)[1:] for w in weights]
    graphs = [graph.weight_layers(jax.tree.map(lambda x, i=i: x[i], params)) for i in range(config.seeds)]
    clusterings = ncut.cluster_many(graphs, config.k, seed=config.seed)
    clusters = [c.labels[1:-1] for c in clusterings]
    made = {"clusters and classes": [], "classes twice": []}
    for i in range(config.seeds):
        pairs = ((clusters[i], classes[i]), (classes[i], classes[i + config.seeds]))
        for (what, rows), (a, b) in zip(made.items(), pairs, strict=True):
            found = agreement.agreement(a, b, shuffles=config.shuffles, seed=(config.seed, i))
            rows.append([x._replace(counts=_full(x.counts, what, config))._asdict() for x in found])
    return {
        "n_cut": [c.n_cut for c in clusterings],
        "kept": [int(sum(x.sum() for x in w.kept)) // 2 for w in weights],
        "dropped": [np.sum([x.sum(axis=0) for x in w.dropped], axis=0) // 2 for w in weights],
        **made,
    }


def class_weights(params, control, without, paths, run: int) -> agreement.ClassWeights:
    """Returns the class weights of one run; pruned weights are in no mask."""

    def layers(tree):
        leaves = dict(trees.paths_and_leaves(tree))
        return [leaves[path][run] for path in paths]

    kept = [w != 0 for w in layers(params)]
    by_class = zip(*(layers(mask) for mask in without), strict=True)
    return agreement.class_weights(
        [mask & w for mask, w in zip(layers(control), kept, strict=True)],
        [np.stack(masks) & w[None] for masks, w in zip(by_class, kept, strict=True)],
    )


def _full(counts: np.ndarray, what: str, config: Config) -> list[list[int]]:
    """Returns a table of counts with rows and columns for labels that do not occur as well."""
    rows = config.k if what == "clusters and classes" else CLASSES
    return np.pad(counts, ((0, rows - counts.shape[0]), (0, CLASSES - counts.shape[1]))).tolist()


def agreement_table(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the agreement of each layer beside its shuffles, and that of masks trained twice."""
    rows = []
    for name, of in found.items():
        for i, layer in enumerate([*of["layers"], "all"]):
            both, twice = (
                [network[i] for network in of[key]] for key in ("clusters and classes", "classes twice")
            )
            rows.append(
                [name, layer, stat([x["neurons"] for x in both])]
                + [
                    stat([x[key] for x in both])
                    for key in ("ami", "at_most", "shuffles_mean", "shuffles_std")
                ]
                + [", ".join(f"{x['p']:.3f}" for x in both), stat([x["ami"] for x in twice])]
            )
    return {
        "title": "Clusters and classes of hidden neurons: adjusted mutual information (AMI)",
        "header": [
            *("condition", "layer", "neurons", "AMI", "at most", "shuffles", "their sd", "p"),
            "classes, masks twice",
        ],
        "rows": rows,
        "words": 2,
        "note": "1: the same groups; 0: unrelated; at most: what groups of these sizes could reach. p of "
        "each network: labels shuffled within the layer. Last column: the AMI of the classes that two "
        "trainings of the masks give.",
    }


def accuracy_table(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the accuracy under the masks, means over classes."""
    rows = []
    for name, of in found.items():
        network, control, without = (np.array(of["accuracy"][k]) for k in ("network", "control", "without"))
        own = np.diagonal(without, axis1=1, axis2=2)
        others = (without.sum(axis=2) - own) / (CLASSES - 1)
        values = (network, control, others, np.diagonal(control[:, None] - without, axis1=1, axis2=2))
        rows.append([name, *(stat(100 * x.mean(axis=1)) for x in values), stat(of["kept"])])
    header = ["condition", "network", "control mask", "class masks, the other classes", "drop of the class"]
    return {
        "title": "Accuracy under the masks (%, points), classes weighing the same",
        "header": [*header, "weights of the control"],
        "rows": rows,
        "digits": 1,
        "note": "Over networks and trainings. A class mask is trained without a class, whose drop is given.",
    }


def class_table(found: dict[str, Any]) -> dict[str, Any]:
    """Returns what each class loses when it is left out, in accuracy and in weights."""
    rows = []
    for name, of in found.items():
        control, without = (np.array(of["accuracy"][k]) for k in ("control", "without"))
        part = np.array(of["dropped"]) / np.array(of["kept"])[:, None]
        for c in range(CLASSES):
            both = (control[:, c], without[:, c, c], part[:, c])
            rows.append([name, str(c), *(stat(100 * x) for x in both)])
    return {
        "title": "Classes left out (%)",
        "header": [
            "condition",
            "class",
            "control mask",
            "mask without it",
            "of the control's weights dropped",
        ],
        "rows": rows,
        "words": 2,
        "digits": 1,
        "detail": True,
        "note": "Weights below the output layer, whose mask is the control's.",
    }


def checks(name: str, of: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the questions and their answers for a condition."""
    network, control, without = (np.array(of["accuracy"][k]) for k in ("network", "control", "without"))
    kept, unmasked = control.mean(), network.mean()
    drop = np.diagonal(control[:, None] - without, axis1=1, axis2=2).mean()
    both, twice = ([x[-1] for x in of[key]] for key in ("clusters and classes", "classes twice"))
    ami, shuffles = np.mean([x["ami"] for x in both]), np.mean([x["shuffles_mean"] for x in both])
    again = np.mean([x["ami"] for x in twice])
    clear, clear_again = ([x["p"] <= CLEAR for x in rows] for rows in (both, twice))
    return [
        check(
            f"{name}: the control mask keeps the accuracy",
            "above 95% of the unmasked accuracy (C.2)",
            f"{kept:.3f} of {unmasked:.3f}",
            kept >= 0.95 * unmasked,
        ),
        check(
            f"{name}: a mask trained without a class loses it",
            "yes (Fig. 6, for convolutional networks)",
            f"{100 * drop:.0f} points",
            drop >= 0.2,
        ),
        check(
            f"{name}: masks trained twice give neurons the same classes, more than chance would",
            "(nobody's)",
            f"AMI {again:.3f}; p <= {CLEAR} for {sum(clear_again)} of {len(twice)} networks",
            all(clear_again),
        ),
        check(
            f"{name}: clusters and classes agree more than chance would",
            "(nobody's)",
            f"AMI {ami:.3f}, {shuffles:.3f} shuffled; p <= {CLEAR} for {sum(clear)} of {len(both)} networks",
            all(clear),
        ),
        check(
            f"{name}: they coincide, at least half as well as masks trained twice",
            "(nobody's)",
            f"AMI {ami:.3f}, of {np.mean([x['at_most'] for x in both]):.3f} at most; masks twice {again:.3f}",
            ami >= 0.5 * again and all(clear),
        ),
    ]


if __name__ == "__main__":
    cli.main("agreement", PRESETS, run, validate, estimator=configs.make_estimator)
