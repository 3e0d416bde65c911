"""Does structural modularity make sub-networks specialize? (Bena and Goodman)

Two recurrent sub-networks see one digit each, and the parity of both says which digit is the answer. Few
links each way make the network structurally modular; three measures say how far each sub-network is
specialized on its own digit. Figures 3 to 5 of the paper, its controls, and two views that it does not have:
masks by Gumbel-sigmoid samples and the n-cut of the same networks.

    python -m experiments.specialization --preset=quick                    # scikit-learn's digits
    python -m experiments.specialization --preset=cpu --data_dir=DIR       # MNIST
    python -m experiments.specialization --preset=paper --data_dir=DIR

Readouts are not trained, which the paper does not say but its code does: trained ones grow, until one
sub-network gives nearly all answers and the other is there for its messages alone.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import jaxmod as jm
from jaxmod import cli, configs, hosts
from jaxmod.analysis.specialization import mask_shares
from jaxmod.analysis.specialization import specialization as contrast
from jaxmod.data.digit_pairs import DigitPairs, TargetRule, make_pairs
from jaxmod.data.images import load_images
from jaxmod.joined import measures, training
from jaxmod.reports import stat
from jaxmod.structure import cluster, n_cut
from jaxmod.structure.modularity import linked_modularity, subnetwork_modularity
from jaxmod.summary import check

DATASETS = ("mnist", "digits")
PARTS = {"net_0": r"net_0/.*", "net_1": r"net_1/.*"}
MEASURES = ("bottleneck", "mask", "correlation")
"""The paper's three."""
SPARSE = 0.01
"""The part of the links below which the paper finds specialization."""
# Streams of a network's key beside those of its training, which count from 0.
_READOUTS, _MASKS = 1001, 1002


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults, and where it gives none those of its code."""

    dataset: str = "mnist"
    target_rule: str = "equation"  # or prose: the other digit is the answer
    links: tuple[int, ...] = (1, 3, 8, 22, 60, 167, 464, 1292, 3594, 10000)  # each way
    seeds: int = 10  # networks of each kind for each number of links
    seed: int = 0
    hidden: int = 100  # units of a sub-network
    bottleneck: int = 5
    before_recurrence: bool = False  # messages enter before W_hh, as in the code, and not as in the equation
    epochs: int = 5
    bottleneck_epochs: int = 7
    passes: int = 1  # over the data in an epoch; rates fall after each epoch
    batch_size: int = 128
    train_readouts: bool = False  # as in the code; if they are, one sub-network gives nearly all answers
    learning_rate: float = 0.5
    noise: float = 1e-4  # the random walk of links
    l1: float = 1e-4
    top_q: float = 0.05  # part of the weights that a mask keeps
    mask_epochs: int = 1
    mask_repeats: int = 5  # masks for each network and digit
    mask_learning_rate: float = 0.1
    readout_epochs: int = 5
    readout_repeats: int = 3
    controls: bool = True
    top_qs: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # why 5%: one of the controls
    gumbel_seeds: int = 3  # of the networks, for Gumbel-sigmoid masks; 0: none
    gumbel_steps: int = 1500
    gumbel_learning_rate: float = 3e-2
    gumbel_beta: float = 1e-3


PRESETS = {
    "quick": Config(
        dataset="digits",
        links=(1, 60, 10000),
        seeds=3,
        passes=20,
        mask_epochs=1,
        mask_repeats=1,
        readout_repeats=1,
        controls=False,
        gumbel_seeds=0,
    ),
    "cpu": Config(seeds=3, mask_repeats=2, readout_repeats=2, gumbel_seeds=1, gumbel_steps=1000),
    "paper": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_choice("dataset", config.dataset, DATASETS)
    configs.check_choice("target_rule", config.target_rule, get_args(TargetRule))
    numbers = (
        *("seeds", "hidden", "bottleneck", "epochs", "bottleneck_epochs", "passes", "batch_size"),
        *("learning_rate", "mask_learning_rate", "gumbel_learning_rate", "gumbel_steps", "top_qs"),
        *("mask_epochs", "mask_repeats", "readout_epochs", "readout_repeats"),
    )
    configs.check_positive(config, *numbers)
    if not config.links or min(config.links) < 0:
        shown = ",".join(map(str, config.links))
        raise ValueError(f"links={shown}: expected one or more numbers, 0 or above.")
    if max(config.links) > config.hidden**2:
        raise ValueError(
            f"links={max(config.links)}: {config.hidden} units have {config.hidden**2} each way."
        )
    if list(config.links) != sorted(set(config.links)):
        shown = ",".join(map(str, config.links))
        raise ValueError(f"links={shown}: expected each number once, the fewest links first.")
    for name in ("noise", "l1", "gumbel_beta", "gumbel_seeds"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name}={getattr(config, name)}: expected 0 or more.")
    if config.gumbel_seeds > config.seeds:
        raise ValueError(f"gumbel_seeds={config.gumbel_seeds}: there are only {config.seeds} networks.")
    try:
        pairs = load_pairs(config)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    # They check their own values: steps, sizes of batches, masks that would keep nothing.
    epoch = training.epoch_steps(_training(config), pairs.train)
    for epochs in (config.epochs, config.bottleneck_epochs):
        training.dense_config(dataclasses.replace(_training(config), epochs=epochs), pairs.train)
    edge_popup_config(config, epoch)
    if config.gumbel_seeds:
        gumbel_config(config)
    model, key = training.make_model(_training(config)), jax.random.key(0)
    params = jax.eval_shape(model.init, key, jnp.zeros((1, 2, 1)))["params"]
    for q in (config.top_q, *config.top_qs):
        jax.eval_shape(functools.partial(jm.edge_popup(q).init, where=measures.MASKED), key, params)


def load_pairs(config: Config) -> DigitPairs:
    """Returns the pairs of digits."""
    rule: Any = config.target_rule
    return make_pairs(load_images(config.dataset), config.seed, rule)


class Study:
    """Data, keys and trained networks of a run; its methods are the parts of the results."""

    def __init__(self, config: Config, workdir: jm.Workdir | None, progress: bool):
        self.config, self.workdir, self.progress = config, workdir, progress
        self.pairs = load_pairs(config)
        seeds, self.key = configs.run_keys(config)
        self.links = jnp.repeat(jnp.array(config.links), config.seeds)
        # A network is the same whatever other numbers of links are asked for.
        self.keys = jax.vmap(jax.random.fold_in)(jnp.tile(seeds, len(config.links)), self.links)
        self.rows = np.arange(len(self.links)).reshape(-1, config.seeds)  # [links, seeds] -> run
        self.masks_found: dict[str, Any] = {}
        self.plain = _training(config)
        self.narrow = dataclasses.replace(
            self.plain, bottleneck=config.bottleneck, epochs=config.bottleneck_epochs
        )
        self.epoch = training.epoch_steps(self.plain, self.pairs.train)

    def part(self, name: str, compute: Any) -> Any:
        """Returns a part of the results, from the workdir if it is there."""
        found = self.workdir.part(name, compute) if self.workdir else compute()
        if self.progress and hosts.is_first():
            print(f"{name}: done", flush=True)
        return found

    def untrained(self, how: training.Training, rows: Any = slice(None)) -> Any:
        """Returns networks as they start."""
        model = training.make_model(how)
        return training.start(model, self.pairs.train, self.keys[rows], self.links[rows])

    def stage(self, name: str) -> Any:
        """Returns where a training is kept. All hosts train; host 0 computes the parts."""
        return self.workdir.stage(name) if self.workdir else None

    def trained(self, name: str, how: training.Training, rows: Any = slice(None)) -> Any:
        """Returns trained networks; rows of the runs, all link counts after each other."""
        start, stage = self.untrained(how, rows), self.stage(name)
        return training.train(self.pairs.train, start, self.keys[rows], how, stage, self.progress).params

    def by_links(self, values: Any) -> list[Any]:
        """Returns numbers of the runs as a nested list, `[links][seeds]...`."""
        values = np.asarray(values, np.float64)
        seeds = self.config.seeds
        return _listed(values.reshape(len(values) // seeds, seeds, *values.shape[1:]))

    def measured(self, networks: Any, how: training.Training) -> dict[str, Any]:
        """Returns accuracies and how alike states are."""
        found = measures.measure(training.make_model(how), networks, self.pairs.test, self.key)
        return {name: self.by_links(x) for name, x in found._asdict().items()}

    def readouts(self, networks: Any, rows: np.ndarray, how: training.Training, repeats: int) -> list[Any]:
        """Returns the accuracies of new readouts of these runs, `[links][seeds][n][k]`."""
        keys = jax.vmap(functools.partial(jax.random.fold_in, data=_READOUTS))(self.keys[rows])
        accuracies = measures.retrained_accuracy(
            training.make_model(how),
            networks,
            self.pairs.train,
            self.pairs.test,
            keys,
            repeats=repeats,
            steps=self.config.readout_epochs * self.epoch,
            epoch=self.epoch,
            batch_size=self.config.batch_size,
        )
        return self.by_links(accuracies)

    def edge_popup(
        self, name: str, networks: Any, rows: np.ndarray, q: float, repeats: int
    ) -> dict[str, Any]:
        """Returns where masks of the highest scores lie, and how accurate the masked networks are.

        Args:
          name: of the part.
          networks: of the runs.
          rows: which runs they are.
          q: part of the weights that a mask keeps.
          repeats: trainings of each mask, of which the mean is returned.
        """
        how, rate = edge_popup_config(self.config, self.epoch), self.config.mask_learning_rate
        optimizer = measures.mask_optimizer(rate)
        return self.masks(name, networks, rows, repeats, how, jm.edge_popup(q), optimizer)

    def gumbel(self, name: str, networks: Any) -> dict[str, Any]:
        """Returns the same with Gumbel-sigmoid masks of the first networks, `[links][seeds]...`."""
        seeds = self.config.gumbel_seeds
        rows = self.rows[:, :seeds].ravel()
        how, estimator = gumbel_config(self.config), jm.gumbel_sigmoid()
        found = self.masks(name, _taken(networks, rows), rows, 1, how, estimator, None)
        return found | {"share": np.reshape(np.array(found["share"], object), (-1, seeds, 2, 2)).tolist()}

    def masks(
        self, name: str, networks: Any, rows: Any, repeats: int, how: Any, estimator: Any, optimizer: Any
    ) -> dict[str, Any]:
        """Returns `share` `[runs][n][k]` and `accuracy` `[runs][k]`, means over repeated trainings."""
        runs = len(rows)
        keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, _MASKS), repeats))(
            self.keys[rows]
        )
        repeated = jax.tree.map(lambda w: jnp.repeat(w, repeats, axis=0), networks)
        model = training.make_model(self.plain)
        found = measures.find_masks(
            model, repeated, self.pairs.train, keys.reshape(-1), how, estimator, optimizer, self.stage(name),
            self.progress,
        )  # fmt: skip
        self.masks_found |= {f"{name}, digit {k}": mask for k, mask in enumerate(found)}

        def measured() -> dict[str, Any]:
            test = self.pairs.test
            accuracy = [
                measures.masked_accuracy(model, repeated, mask, test.image, test.digit[:, k])
                for k, mask in enumerate(found)
            ]
            shares = [jax.vmap(functools.partial(mask_shares, parts=PARTS))(mask) for mask in found]
            share = np.array([[np.asarray(of[n]) for of in shares] for n in PARTS])  # [n, k, runs]
            return {
                "share": _listed(np.moveaxis(share, -1, 0).reshape(runs, repeats, 2, 2).mean(axis=1)),
                "accuracy": np.stack(accuracy, -1).reshape(runs, repeats, 2).mean(axis=1).tolist(),
                "density": [float(jnp.mean(jm.density(mask))) for mask in found],
            }

        return self.part(name, measured)

    def count_links(self, networks: Any) -> dict[str, Any]:
        """Returns the links to each sub-network, `[links][seeds][n]`, and the modularity that they make."""
        links = networks["links"]
        counts = np.array(
            [np.count_nonzero(links[name]["kernel"], axis=(1, 2)) for name in ("to_0", "to_1")]
        ).T
        q = [linked_modularity((int(a), int(b)), self.config.hidden) for a, b in counts]
        return {"counts": self.by_links(counts), "modularity": self.by_links(q)}

    def cuts(self, networks: Any) -> dict[str, Any]:
        """Returns each network's n-cut: of its sub-networks, and of two clusters that are looked for."""
        own, found, agree = [], [], []
        hidden = self.config.hidden
        groups = np.repeat([0, 1], hidden).astype(np.int32)
        for run, count in enumerate(self.links.tolist()):
            weights = [step_weights(jax.tree.map(lambda w, run=run: np.asarray(w[run]), networks))]
            clusters = cluster(weights, 2, seed=(self.config.seed, run % self.config.seeds, count))
            own.append(n_cut(weights, [groups, groups]))
            found.append(clusters.n_cut)
            labels = np.concatenate(clusters.labels)
            same = np.mean(labels == np.tile(groups, 2))
            agree.append(max(same, 1 - same))
        return {name: self.by_links(x) for name, x in (("own", own), ("found", found), ("agree", agree))}


def edge_popup_config(config: Config, epoch: int) -> jm.MaskConfig:
    """Returns how masks of the highest scores are trained; an epoch has so many steps."""
    steps = config.mask_epochs * epoch
    return jm.MaskConfig(
        steps, config.batch_size, num_samples=1, learning_rate=config.mask_learning_rate, beta=0.0,
        chunk_steps=epoch,
    )  # fmt: skip


def gumbel_config(config: Config) -> jm.MaskConfig:
    """Returns how Gumbel-sigmoid masks are trained."""
    return jm.MaskConfig(
        config.gumbel_steps, config.batch_size, learning_rate=config.gumbel_learning_rate,
        beta=config.gumbel_beta, chunk_steps=min(config.gumbel_steps, 250),
    )  # fmt: skip


def _training(config: Config) -> training.Training:
    shared = ("hidden", "before_recurrence", "epochs", "passes", "batch_size", "learning_rate", "noise", "l1")
    same = {name: getattr(config, name) for name in shared}
    return training.Training(**same, readouts=config.train_readouts)


def _listed(values: np.ndarray) -> list[Any]:
    """Returns nested lists; None where a number is undefined, as JSON has no NaN."""
    found = values.astype(object)
    found[np.isnan(values)] = None
    return found.tolist()


def _taken(networks: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda w: w[rows], networks)


def step_weights(params: Any) -> np.ndarray:
    """Returns |W| from all units one step before to all units: the recurrence and the links as a graph."""
    inner = [np.abs(params[name]["recurrent"]["kernel"]) for name in PARTS]
    to_0, to_1 = (np.abs(params["links"][name]["kernel"]) for name in ("to_0", "to_1"))
    return np.block([[inner[0], to_1], [to_0, inner[1]]])


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the measures of all networks."""
    study = Study(config, workdir, progress)
    plain = study.trained("plain networks", study.plain)
    narrow = study.trained("bottleneck networks", study.narrow)
    states = study.part("plain networks, measures", lambda: study.measured(plain, study.plain))
    at_narrow = study.part("bottleneck networks, measures", lambda: study.measured(narrow, study.narrow))
    readouts = study.part(
        "bottleneck networks, readouts",
        lambda: study.readouts(narrow, study.rows.ravel(), study.narrow, config.readout_repeats),
    )
    masked = [
        study.edge_popup(f"masks, {n} links", _taken(plain, rows), rows, config.top_q, config.mask_repeats)
        for n, rows in zip(config.links, study.rows, strict=True)
    ]
    values = {
        "bottleneck": readouts,
        "mask": [of["share"] for of in masked],
        "correlation": states["correlation"],
        "cka": states["cka"],
    }
    cuts = study.part("n-cut", lambda: study.cuts(plain))
    if config.gumbel_seeds:
        values["gumbel"] = study.gumbel("Gumbel-sigmoid masks", plain)["share"]
    links = study.part("links", lambda: study.count_links(plain))
    density = [count / config.hidden**2 for count in config.links]
    found = {
        "links": list(config.links),
        "density": density,
        "modularity": [subnetwork_modularity(p) for p in density],
        "realised": links,
        "measures": {name: describe(value) for name, value in values.items()},
        "accuracy": {
            "plain": [stat(x) for x in states["accuracy"]],
            "bottleneck": [stat(x) for x in at_narrow["accuracy"]],
            "links cut": [stat(x) for x in states["without_links"]],
            "masked": [own_accuracy(of) for of in masked],
        },
        "decided": {
            name: [stat(np.maximum(x, 1 - np.asarray(x))) for x in of["decided"]]
            for name, of in (("plain", states), ("bottleneck", at_narrow))
        },
        "skipped": int(np.sum(states["skipped"])),
        "n_cut": {name: [stat(x) for x in rows] for name, rows in cuts.items()},
        "controls": controls(study, states, plain) if config.controls else None,
    }
    if workdir:
        jm.save_masks(workdir.path / "masks.npz", study.masks_found)
    notes = [f"{study.pairs.source}.", "Specialization: (own - other) / (own + other) digit."]
    for name, measure in found["measures"].items():
        if any(measure["undefined"]):
            pairs = zip(measure["undefined"], config.links, strict=True)
            left = ", ".join(f"{n} networks of {count} links" for n, count in pairs if n)
            notes.append(f"{name}: undefined, and left out, for {left}.")
    return {
        "question": "Do sub-networks specialize when few links join them?",
        "notes": notes,
        "runs": config.seeds,
        "specialization": found,
        "tables": tables(found),
        "checks": checks(found),
    }


def describe(values: Any) -> dict[str, Any]:
    """Returns Stats over networks for each number of links: own digit, other digit, and their contrast.

    Networks of which a number is undefined are left out (`undefined` counts them), as are those whose mask
    keeps nothing of a sub-network for either digit; a Stat is None if no network remains.
    """
    found: dict[str, Any] = {"own": [], "other": [], "contrast": [], "undefined": []}
    for of in values:
        m = np.asarray(of, np.float64)  # [seeds, n, k]
        own, other = m[:, [0, 1], [0, 1]], m[:, [0, 1], [1, 0]]
        compared = np.asarray(contrast(jnp.asarray(own), jnp.asarray(other)), np.float64).mean(axis=1)
        sides = (own.mean(axis=1), other.mean(axis=1), compared)
        for name, x in zip(("own", "other", "contrast"), sides, strict=True):
            defined = x[np.isfinite(x)]
            found[name].append(stat(defined) if defined.size else None)
        found["undefined"].append(int(np.sum(~np.isfinite(compared))))
    return found


def own_accuracy(masked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how accurate networks are on the digit of their mask, mean over both digits."""
    return stat(np.mean(masked["accuracy"], axis=1))


def controls(study: Study, states: Mapping[str, Any], plain: Any) -> dict[str, Any]:
    """Returns what the paper says does not explain its result, each beside the real thing."""
    config = study.config
    first = study.rows[0]
    sparse = [i for i, count in enumerate(config.links) if count / config.hidden**2 <= SPARSE] or [0]
    rows = study.rows[sparse].ravel()
    untrained, few = study.untrained(study.plain, first), _taken(plain, first)

    def variant(name: str, **changes: Any) -> list[Any]:
        how = dataclasses.replace(study.plain, **changes)

        networks = study.trained(name, how, rows)
        measured = study.part(f"{name}, measures", lambda: study.measured(networks, how))
        return [stat(x) for x in measured["accuracy"]]

    name = "masks of untrained networks"
    masked = study.edge_popup(name, untrained, first, config.top_q, config.mask_repeats)
    sweep = [study.edge_popup(f"masks, q={q}", few, first, q, 1) for q in config.top_qs]

    def readouts(name: str, networks: Any) -> dict[str, Any]:
        return describe(study.part(name, lambda: study.readouts(networks, first, study.plain, 1)))

    return {
        "links": [config.links[i] for i in sparse],
        "density": [config.links[i] / config.hidden**2 for i in sparse],
        "Deep-R": [stat(states["accuracy"][i]) for i in sparse],
        "no random walk": variant("no random walk", noise=0.0),
        "fixed links": variant("fixed links", rewired=False),
        "untrained masks": own_accuracy(masked),
        "untrained readouts": readouts("readouts of untrained networks", untrained),
        "readouts of all units": readouts("readouts of all units", few),
        "top_q": [
            {
                "q": q,
                "own": describe([of["share"]])["own"][0],
                "accuracy": own_accuracy(of),
            }
            for q, of in zip(config.top_qs, sweep, strict=True)
        ],
    }


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


def checks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the statements of the paper beside what was measured."""
    rows = [_accurate(found, kind) for kind in ("plain", "bottleneck")]
    rows.append(_both_decide(found))
    rows += [_monotone(found, name) for name in MEASURES]
    if found["density"][0] < SPARSE <= found["density"][-1]:
        rows += [_threshold(found, name) for name in ("bottleneck", "correlation")]
    rows += _dense(found)
    own = found["measures"]["mask"]["own"][0]
    if found["links"][0] == 1 and own:
        rows.append(
            check("one link: masks lie in the own sub-network", "1", f"{own['mean']:.3f}", own["mean"] > 0.95)
        )
    cut = max(x for s in found["accuracy"]["links cut"] for x in s["runs"])
    # 0.75 over all pairs; over 8,000 that are drawn 0.015 more is three standard errors.
    rows.append(
        check("without its links no network passes 0.75", "(bound)", f"at most {cut:.3f}", cut <= 0.765)
    )
    return rows + (_control_checks(found["controls"], found) if found["controls"] else [])


def _accurate(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    accuracy = found["accuracy"][kind]
    runs = [(n, x) for n, s in zip(found["links"], accuracy, strict=True) for x in s["runs"]]
    below = [f"{x:.3f} ({n} links)" for n, x in runs if x < 0.9]
    return check(
        "every network performs the task" + (", with a bottleneck" if kind == "bottleneck" else ""),
        "good at every p",
        f"{len(runs) - len(below)} of {len(runs)} networks reach 0.90"
        + (f"; below: {', '.join(below[:8])}{' ...' if len(below) > 8 else ''}" if below else ""),
        not below,
    )


def _both_decide(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whether answers come from both sub-networks: one that never decides is trained for messages."""
    runs = [x for s in found["decided"]["plain"] for x in s["runs"]]
    both = sum(x < 0.9 for x in runs)
    ours = f"each has a tenth of the answers or more in {both} of {len(runs)} networks"
    return check("both sub-networks decide", "(competition)", ours, both == len(runs))


def _means(found: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns the mean specialization for each number of links; NaN where it is undefined."""
    return np.array([s["mean"] if s else np.nan for s in found["measures"][name]["contrast"]])


def _monotone(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    means = _means(found, name)
    defined = np.isfinite(means)
    rank = float("nan")
    if defined.sum() > 1 and np.ptp(means[defined]) > 0:
        rank = float(stats.spearmanr(np.array(found["modularity"])[defined], means[defined])[0])  # pyright: ignore[reportArgumentType]
    ours = f"rank correlation {rank:.2f}; from {means[-1]:.2f} to {means[0]:.2f}"
    return check(f"{name}: specialization rises with Q", "yes (Fig. 3)", ours, rank > 0.9)


def _threshold(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns whether nearly all of the rise, from all links to the most specialized, is below p = 0.01."""
    means, sparse = _means(found, name), np.array(found["density"]) < SPARSE
    rise, late = np.nanmax(means) - means[-1], np.nanmax(means) - np.nanmax(means[~sparse])
    part = late / rise if rise > 0 else float("nan")
    return check(f"{name}: rises only below p = 0.01", "yes (Fig. 3)", f"{part:.0%} of the rise", part >= 0.8)


def _dense(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the statements about p = 0.18 and p = 1, where these were measured."""
    rows, p = [], np.array(found["density"])
    near = int(np.argmin(abs(p - 0.18)))
    if 0.1 < p[near] < 0.3:
        at = {name: _means(found, name)[near] for name in MEASURES}
        ours = ", ".join(f"{name} {x:.2f}" for name, x in at.items())
        rows.append(
            check(
                f"p = {p[near]:.2f}: little or no specialization",
                "yes (Fig. 3)",
                ours,
                all(x < 0.25 for x in at.values()),
            )
        )
    own = found["measures"]["mask"]["own"][-1]
    if p[-1] == 1 and own:
        statement, ours = "p = 1: masks lie in both sub-networks alike", own["mean"]
        rows.append(check(statement, "0.5", f"{ours:.2f}", abs(ours - 0.5) < 0.1))
    return rows


def _control_checks(controls: Mapping[str, Any], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    deep_r, still, fixed = (
        np.array([s["mean"] for s in controls[kind]]) for kind in ("Deep-R", "no random walk", "fixed links")
    )
    masked, untrained = found["accuracy"]["masked"][0]["mean"], controls["untrained masks"]["mean"]
    readout, trained = (
        controls[name]["own"][0]["mean"] for name in ("untrained readouts", "readouts of all units")
    )
    reach = [row["q"] for row in controls["top_q"] if row["own"] and row["own"]["mean"] > 0.95]
    rows = [
        check(
            "Deep-R without the random walk", "changes little",
            f"accuracy differs by {abs(deep_r - still).mean():.3f}", abs(deep_r - still).mean() < 0.03,
        ),
        check(
            "masks of untrained networks", "clearly worse",
            f"accuracy {untrained:.2f} for {masked:.2f}", untrained < masked - 0.1,
        ),
        check(
            "new readouts of all units, of untrained networks", "very good, hence the bottleneck",
            f"accuracy {readout:.2f} on the own digit; of trained ones {trained:.2f}", readout > 0.8,
        ),
        check(
            "the largest q whose masks lie in the own sub-network", "0.05",
            f"{max(reach):g}" if reach else "none", bool(reach) and max(reach) == 0.05,
        ),
    ]  # fmt: skip
    if max(controls["density"]) <= SPARSE:
        ours = f"accuracy {fixed.mean():.3f} for {deep_r.mean():.3f}"
        worse = fixed.mean() < deep_r.mean() - 0.1
        rows.append(check("links at fixed random places, p <= 0.01", "much worse", ours, worse))
    return rows


if __name__ == "__main__":
    cli.main("specialization", PRESETS, run, validate)
