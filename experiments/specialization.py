"""Does structural modularity make sub-networks specialize? (Bena and Goodman)

Two recurrent sub-networks see one digit each, and the parity of both says which digit is the answer. Few
links each way make the network structurally modular; three measures say how far each sub-network is
specialized on its own digit. Figures 3 to 5 of the paper, its controls, and two views that it does not have:
masks by Gumbel-sigmoid samples and the n-cut of the same networks.

    python -m experiments.specialization --preset=quick                    # scikit-learn's digits
    python -m experiments.specialization --preset=cpu --data_dir=DIR       # MNIST
    python -m experiments.specialization --preset=paper --data_dir=DIR

Readouts are not trained, which the paper does not say but its code does: trained ones grow, until one
sub-network gives nearly all answers and the other is there for its messages alone. An epoch is three passes
over the pairs, of whose number the paper says nothing: with one, accuracies are 0.80 to 0.90.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs, hosts
from jaxmod.data.digit_pairs import DigitPairs, TargetRule, make_pairs
from jaxmod.data.images import load_images
from jaxmod.joined import graphs, measures, training
from jaxmod.joined.checks import SPARSE, checks
from jaxmod.joined.tables import describe, own_accuracy, tables
from jaxmod.reports import stat
from jaxmod.structure.modularity import subnetwork_modularity

DATASETS = ("mnist", "digits")
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
    passes: int = 3  # over the pairs in an epoch of the networks: with one they fall short of 0.90
    measure_passes: int = 1  # in an epoch of masks and new readouts
    batch_size: int = 128
    redrawn: bool = False  # pairs, for each batch; else the same in all epochs, as in the code
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
        measure_passes=20,
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
        *("measure_passes", "mask_epochs", "mask_repeats", "readout_epochs", "readout_repeats"),
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
    epoch = measure_epoch(config, pairs)
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
        self.epoch = measure_epoch(config, self.pairs)

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
            of = measures.measure_masks(model, repeated, found, self.pairs.test)
            share = np.asarray(of.share).reshape(runs, repeats, 2, 2).mean(axis=1)
            accuracy = np.asarray(of.accuracy).reshape(runs, repeats, 2).mean(axis=1)
            return {"share": _listed(share), "accuracy": accuracy.tolist(), "density": of.density.tolist()}

        return self.part(name, measured)

    def links_found(self, networks: Any) -> dict[str, Any]:
        """Returns the links to each sub-network, `[links][seeds][n]`, and the modularity that they make."""
        return {name: self.by_links(x) for name, x in graphs.count_links(networks).items()}

    def cuts(self, networks: Any) -> dict[str, Any]:
        """Returns each network's n-cut, `[links][seeds]`."""
        config, counts = self.config, enumerate(self.links.tolist())
        seeds = [(config.seed, run % config.seeds, count) for run, count in counts]
        return {name: self.by_links(x) for name, x in graphs.n_cuts(networks, seeds).items()}


def measure_epoch(config: Config, pairs: DigitPairs) -> int:
    """Returns the steps in an epoch of masks and new readouts."""
    passes = config.measure_passes
    return training.epoch_steps(dataclasses.replace(_training(config), passes=passes), pairs.train)


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
    shared = (
        *("hidden", "before_recurrence", "epochs", "passes", "batch_size", "learning_rate", "noise", "l1"),
        *("redrawn", "target_rule"),
    )
    same = {name: getattr(config, name) for name in shared}
    return training.Training(**same, readouts=config.train_readouts)


def _listed(values: np.ndarray) -> list[Any]:
    """Returns nested lists; None where a number is undefined, as JSON has no NaN."""
    found = values.astype(object)
    found[np.isnan(values)] = None
    return found.tolist()


def _taken(networks: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda w: w[rows], networks)


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
    links = study.part("links", lambda: study.links_found(plain))
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

    masked = study.edge_popup(
        "masks of untrained networks", untrained, first, config.top_q, config.mask_repeats
    )
    last = study.rows[-1]
    dense = study.edge_popup(
        "masks of untrained networks, most links", study.untrained(study.plain, last), last, config.top_q, 1
    )
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
        "untrained share": describe([dense["share"]])["own"][0],
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


if __name__ == "__main__":
    cli.main("specialization", PRESETS, run, validate)
