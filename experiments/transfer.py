"""Does a network reuse what it has learned? (Csordas et al. 2021, section 3.3 and appendix C.5)

One network learns to read MNIST under one permutation of the pixels after another. Weights and mask are
trained together; what an earlier mask uses stays, all else starts anew. All that a new task needs is another
first layer: is the rest reused? Figures 3 and 15 of the paper.

    python -m experiments.transfer --preset=quick                        # scikit-learn's digits
    python -m experiments.transfer --preset=cpu --data_dir=DIR           # MNIST
    python -m experiments.transfer --preset=paper --data_dir=DIR         # figure 3
    python -m experiments.transfer --preset=paper --data_dir=DIR --config.new_logit=0     # figure 15a
    python -m experiments.transfer --preset=paper --data_dir=DIR --config.new_logit=-1    # figure 15b
    python -m experiments.transfer --preset=cpu --data_dir=DIR --config.num_samples=8

Beside it stands what the paper argues from: the first network, frozen but for its first layer, which is
trained anew for each permutation. With `--config.reset_first_layer=true`, as in the authors' later code,
every task starts the first layer anew, and earlier tasks are lost. `experiments.compare` has variants beside
each other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxmod as jm
from jaxmod import cli, configs, hosts
from jaxmod.analysis.chance import chance_overlap
from jaxmod.analysis.sharing import sharing
from jaxmod.data.images import CLASSES, load_images
from jaxmod.models import FNN, layer_labels
from jaxmod.noise import Generator
from jaxmod.reports import percent, stat
from jaxmod.summary import check
from jaxmod.train import devices
from jaxmod.train.randomness import Stream, stream_key
from jaxmod.train.steps import frozen_but, without_state
from jaxmod.transfer import Learned, learn_in_turn
from jaxmod.vision.networks import ImageData, image_data

DATASETS = ("mnist", "fashion_mnist", "digits")
ESTIMATORS = ("gumbel_sigmoid", "hard_concrete")
"""Those whose logits may start where we want: the scores of edge_popup are ranked."""
FIRST = r"layer_1/.*"


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults."""

    dataset: str = "mnist"
    hidden: tuple[int, ...] = (800, 800, 64)
    tasks: int = 11  # the first without a permutation
    seeds: int = 10
    seed: int = 0
    steps: int = 30_000  # of each task
    learning_rate: float = 1e-2  # of weights and masks
    batch_size: int = 128
    num_samples: int = 8
    beta: float = 1.28e-3  # alpha = beta / batch_size
    used_logit: float = 2.0  # where masks start on used weights
    new_logit: float = 2.0  # and on all others
    reset_first_layer: bool = False
    estimator: str = "gumbel_sigmoid"  # or hard_concrete: jaxmod.configs.make_estimator
    temperature: float = 1.0  # of gumbel_sigmoid
    noise: str = "mix32"  # of the masks; or jax: the bits of jax.random
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    baseline: bool = True  # the first network with other first layers
    baseline_learning_rate: float = 1e-3
    clip_norm: float = 1.0
    chunk_steps: int = 1000


PRESETS = {
    # Fewer steps want a stronger penalty, for masks to let go of what they do not need.
    "quick": Config(
        dataset="digits", hidden=(64, 64, 32), tasks=4, seeds=1, steps=800, num_samples=4, beta=0.02,
        chunk_steps=200,
    ),
    "cpu": Config(
        hidden=(256, 256, 64), tasks=6, seeds=2, steps=2_000, num_samples=4, beta=3e-3, chunk_steps=250,
    ),
    "paper": Config(),
}  # fmt: skip


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_choice("dataset", config.dataset, DATASETS)
    configs.check_choice("estimator", config.estimator, ESTIMATORS)
    configs.check_choice("noise", config.noise, get_args(Generator))
    positive = ("hidden", "tasks", "seeds", "learning_rate", "baseline_learning_rate", "clip_norm")
    configs.check_positive(config, *positive, "temperature")
    configs.make_estimator(config)
    if config.tasks < 2:
        raise ValueError(f"tasks={config.tasks}: expected 2 or more, for a second one to reuse the first.")
    if len(config.hidden) < 2:
        raise ValueError("hidden: expected 2 sizes or more, for a layer that permutations leave alone.")
    task_config(config)
    dense_config(config)
    try:
        load_images(config.dataset)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error


def task_config(config: Config) -> jm.MaskConfig:
    """Returns how each task is trained."""
    return jm.MaskConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        num_samples=config.num_samples,
        learning_rate=config.learning_rate,
        beta=config.beta,
        clip_norm=config.clip_norm,
        chunk_steps=config.chunk_steps,
    )


def dense_config(config: Config) -> jm.DenseConfig:
    """Returns how the networks of the baseline are trained."""
    return jm.DenseConfig(config.steps, config.batch_size, config.chunk_steps)


class Network(NamedTuple):
    """The network of all tasks, as pure functions."""

    init: Any
    """`key -> params`."""
    loss: Any
    """`(params, batch, key) -> loss`."""
    right: Any
    """`(params, batch) -> {"accuracy": [batch]}`."""


class Study(NamedTuple):
    """What the tasks in turn and the baseline work on."""

    config: Config
    network: Network
    data: ImageData
    keys: Any
    workdir: jm.Workdir | None
    progress: bool

    @property
    def names(self) -> list[str]:
        """What tasks are called in the paper's figures."""
        return [f"T{number + 1}" for number in range(self.config.tasks)]

    def stage(self, name: str) -> Any:
        """Returns a stage of the workdir, if there is one."""
        return self.workdir.stage(name) if self.workdir else None

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns `compute()`, kept in the workdir if there is one."""
        return self.workdir.part(name, compute) if self.workdir else compute()


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns what each task reuses, and how well old tasks are solved after new ones."""
    data = image_data(load_images(config.dataset), "cnn")
    keys, _ = configs.run_keys(config)
    study = Study(config, make_network(config, data), data, keys, workdir, progress)

    # 1. Learn one task after another; after each, solve it and all before it.
    found = learn(study)

    # 2. The first network, with another first layer for each task.
    baseline = retrain_first_layer(study) if config.baseline else None
    found |= {
        "baseline": baseline and [stat(x) for x in baseline],
        "logits": [config.used_logit, config.new_logit],
        "reset": config.reset_first_layer,
    }
    return {
        "question": "Which weights does a network reuse for a task that differs in its first layer alone?",
        "notes": [f"{data.source}.", f"{config.steps} steps a task, {config.num_samples} masks a step."],
        "runs": config.seeds,
        "transfer": found,
        "tables": tables(found),
        "checks": checks(found),
    }


def learn(study: Study) -> dict[str, Any]:
    """Returns accuracy, sharing and density of the tasks, and how many used weights were changed."""
    config, right = study.config, study.network.right
    learned = learn_in_turn(
        study.network.loss,
        study.network.init,
        permuted_tasks(study.names, study.data.train),
        keys=study.keys,
        config=task_config(config),
        used_logit=config.used_logit,
        new_logit=config.new_logit,
        estimator=configs.make_estimator(config),
        reset=FIRST if config.reset_first_layer else None,
        evaluate=right,
        stage=study.stage,
        progress=study.progress,
    )
    accuracy, shared, chance, kept, masks, changed = [], [], [], [], {}, 0
    before: Any = None
    for name, of in learned:
        masks[name] = of.mask
        known = list(masks.values())
        solve = functools.partial(measure, right, of.params, known, study.data.valid)
        accuracy.append(study.part(f"accuracy after {name}", solve))
        shared.append(share(of))
        chance.append(np.asarray(chance_overlap(of.mask, of.used, runs_axis=0)["total"].expected).tolist())
        kept.append(np.asarray(jax.vmap(jm.density)(of.mask)).tolist())
        changed += count_changed(before, of) if before is not None else 0
        before = of
        if study.progress and hosts.is_first():
            print(f"{name}: accuracy {np.mean(accuracy[-1][-1]):.3f}", flush=True)
    if study.workdir:
        jm.save_masks(study.workdir.path / "masks.npz", masks)
    return {
        "tasks": study.names,
        "accuracy": [[stat(x) for x in row] for row in accuracy],
        "changed": changed,
        "sharing": [{layer: stat(x) for layer, x in row.items()} for row in shared],
        "chance": [stat(x) for x in chance],
        "density": [stat(x) for x in kept],
    }


def make_network(config: Config, data: ImageData) -> Network:
    """Returns the network, with the same functions for the same data."""
    pixels = int(np.prod(data.train["image"].shape[1:]))
    model: Any = FNN(config.hidden, CLASSES)
    return _network(model, pixels, data.mean, data.std)


@functools.lru_cache(maxsize=4)  # the same functions again, so that no program is compiled twice
def _network(model: FNN, pixels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Network:
    def outputs(params: Any, batch: Any) -> Any:
        x = (batch["image"].reshape(-1, pixels).astype(jnp.float32) / 255 - mean[0]) / std[0]
        return model.apply({"params": params}, x)

    def init(key: Any) -> Any:
        return model.init(key, jnp.zeros((1, pixels)))["params"]

    def loss(params: Any, batch: Any, key: Any) -> Any:
        del key
        found = outputs(params, batch)
        return optax.softmax_cross_entropy_with_integer_labels(found, batch["label"]).mean()

    def right(params: Any, batch: Any) -> Any:
        return {"accuracy": jnp.argmax(outputs(params, batch), axis=-1) == batch["label"]}

    return Network(init, loss, right)


def permutation(number: int, pixels: int) -> np.ndarray:
    """Returns the order of the pixels of a task: that of the authors' code, none for the first."""
    return np.random.RandomState(number).permutation(pixels) if number else np.arange(pixels)


def permuted(number: int, examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns examples with their pixels in a row, in the order of a task."""
    rows = examples["image"].reshape(len(examples["label"]), -1)
    return {"image": rows[:, permutation(number, rows.shape[1])], "label": examples["label"]}


def permuted_tasks(names: list[str], train: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
    """Yields the tasks, one by one: all of them would be eleven times the data."""
    for number, name in enumerate(names):
        yield name, permuted(number, train)


def measure(right: Any, params: Any, masks: list[Any], valid: Any) -> list[list[float]]:
    """Returns the accuracy on each task so far under its mask, `[tasks][runs]`."""
    return [solved(right, params, mask, permuted(number, valid)) for number, mask in enumerate(masks)]


def solved(right: Any, params: Any, mask: Any, examples: Any) -> list[float]:
    """Returns the accuracy of each run; a mask of None are all weights."""
    found = devices.map_runs(_accuracy(right), (params, mask), examples)
    return np.asarray(found, np.float64).tolist()


@functools.lru_cache(maxsize=4)
def _accuracy(right: Any) -> Any:
    def one(run: Any, batch: Any) -> Any:
        params, mask = run
        module = params if mask is None else jm.apply_mask(params, mask)

        def example(x: Any) -> Any:
            return right(module, jax.tree.map(lambda v: v[None], x))["accuracy"][0]

        return jnp.mean(lax.map(example, batch, batch_size=1024))

    return one


def share(of: Learned) -> dict[str, list[float]]:
    """Returns the part of a task's mask that earlier tasks use, of each layer's weights and of all leaves."""
    found = jax.vmap(sharing)(of.mask, of.used)
    labels = layer_labels(of.params)
    rows = {label: found[path].shared for path, label in labels.items()} | {"total": found["total"].shared}
    return {label: np.asarray(x, np.float64).tolist() for label, x in rows.items()}


def count_changed(before: Learned, after: Learned) -> int:
    """Returns how many used weights differ, in any bit, from what they were after the task before."""

    def count(used: Any, *weights: Any) -> Any:
        old, new = (lax.bitcast_convert_type(w, jnp.uint32) for w in weights)
        return jnp.sum(used & (old != new))

    differ = jax.tree.map(count, after.used, before.params, after.params)
    return int(sum(jax.tree.leaves(differ)))


def retrain_first_layer(study: Study) -> list[list[float]]:
    """Returns the accuracies of a network of the first task whose first layer is trained anew for others."""
    config, network = study.config, study.network
    adam = optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(config.baseline_learning_rate))

    def train(number: int, name: str, task: Any, start: Any, optimizer: Any) -> Any:
        return jm.train_network(
            without_state(network.loss),
            start,
            task,
            keys=_baseline_keys(study.keys, number),
            config=dense_config(config),
            optimizer=optimizer,
            evaluate=network.right,
            workdir=study.stage(f"baseline {name}"),
            progress=study.progress,
        ).params

    found, first = [], None
    for number, (name, task) in enumerate(permuted_tasks(study.names, study.data.train)):
        if first is None:
            params = first = train(number, name, task, network.init, adam)
        else:
            own = _baseline_keys(study.keys, number)
            fresh = jax.vmap(lambda key: network.init(stream_key(key, Stream.INIT)))(own)
            start = {**first, "layer_1": fresh["layer_1"]}
            params = train(number, name, task, start, frozen_but(FIRST, adam))
        examples = permuted(number, study.data.valid)
        solve = functools.partial(solved, network.right, params, None, examples)
        found.append(study.part(f"accuracy of baseline {name}", solve))
    return found


def _baseline_keys(keys: Any, number: int) -> Any:
    """Returns a key for each run and task, beside those of the tasks in turn."""
    return jax.vmap(functools.partial(jax.random.fold_in, data=_BASELINE + number))(keys)


_BASELINE = 2001  # streams of the runs' keys, beside those of their training and of tasks


def tables(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns accuracies after each task, and what tasks share with those before them."""
    names = found["tasks"]
    rows = []
    for number, name in enumerate(names):
        own, last = found["accuracy"][number][number], found["accuracy"][-1][number]
        baseline = found["baseline"][number] if found["baseline"] else None
        values = [own, last, found["density"][number], baseline]
        rows.append([name, *map(percent, values)])
    shared = [
        [name, *map(percent, (*row.values(), by_chance))]
        for name, row, by_chance in zip(names[1:], found["sharing"][1:], found["chance"][1:], strict=True)
    ]
    return [
        {
            "title": "Accuracy of each task (%)",
            "header": ["task", "when learned", "after the last", "weights kept", "first layer retrained"],
            "rows": rows,
            "words": 1,
            "digits": 1,
            "note": "Under the task's mask. Last column: the network of T1 with another first layer.",
        },
        {
            "title": "Shared with earlier tasks (% of a task's mask)",
            "header": ["task", *found["sharing"][0], "by chance"],
            "rows": shared,
            "words": 1,
            "digits": 1,
            "note": "Layers: their weights; total: biases too. By chance: the total of random masks with as "
            "many weights in each layer.",
        },
    ]


def checks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours."""
    names, rows = found["tasks"], []
    after = [[s["runs"] for s in row] for row in found["accuracy"]]
    lost = sum(after[-1][q] != after[q][q] for q in range(len(names) - 1))
    if not found["reset"]:
        kept = f"{len(names) - 1 - lost} of {len(names) - 1} accuracies as they were"
        ours = f"{kept}, {found['changed']} used weights differ"
        unchanged = lost == 0 and found["changed"] == 0
        rows.append(check("old tasks are solved as before, to the last bit", "by design", ours, unchanged))
    total = [row["total"]["mean"] for row in found["sharing"][1:]]
    second = found["sharing"][1]
    hidden = [layer for layer in second if layer not in ("output", "total")]
    if found["logits"][0] == found["logits"][1]:
        at = {layer: second[layer]["mean"] for layer in (*hidden, "output")}
        by_chance = found["chance"][1]["mean"]
        layers = ", ".join(f"{layer} {x:.0%}" for layer, x in at.items())
        ours = f"T2: {second['total']['mean']:.0%}, by chance {by_chance:.0%} ({layers})"
        low = second["total"]["mean"] < 0.5
        rows.append(check("sharing is low while weights are free", "yes (Fig. 3)", ours, low))
        output = [row["output"]["mean"] for row in found["sharing"][1:]]
        inner = [max(row[layer]["mean"] for layer in hidden) for row in found["sharing"][1:]]
        rows.append(
            check(
                "the last layer is shared most",
                "it fills first (Fig. 3)",
                f"{names[-1]}: {output[-1]:.0%}, hidden layers up to {inner[-1]:.0%}",
                output[-1] > inner[-1],
            )
        )
    else:
        rows.append(
            check(
                "more than half of each mask stays unique",
                "yes (Fig. 15)",
                f"shared in total: {min(total):.0%} to {max(total):.0%}",
                max(total) < 0.5,
            )
        )
    if found["baseline"]:
        own = [s["mean"] for s in found["baseline"]]
        rows.append(
            check(
                "another first layer is all that a permutation needs, to 2 points",
                "so the rest could be reused",
                f"{own[0]:.1%} for T1, at least {min(own[1:]):.1%} with the first layer retrained",
                min(own[1:]) >= own[0] - 0.02,
            )
        )
    return rows


if __name__ == "__main__":
    cli.main("transfer", PRESETS, run, validate, estimator=configs.make_estimator)
