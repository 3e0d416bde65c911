"""Do the modules depend on the settings of the method? (Csordas et al. 2021, appendices A.4, C.2, C.3)

Figures 7, 8 and 9 of the paper, and what it says without a figure. Networks that add and multiply are
trained as in `experiments.addmul`; then one thing is varied, all else as in the paper:

    beta           the weight of the penalty (figure 8): the control mask's accuracy, and sharing
    size           of the network (figure 9): do too small networks share more?
    histogram      how decided the control mask is (figure 7), and what thresholding it changes
    temperature    of the Gumbel-sigmoid: said not to matter
    learning_rate  of the masks: said to matter less than beta
    steps          of the masks: the same
    samples        masks sampled per batch: the variance of the gradient, at the start and at the end
    rao_blackwell  the mean slope given the sample in place of its own: variance and speed (not in the paper)
    lstm_hidden    units of the LSTM: more than 256 are said to over-fit

    python -m experiments.robustness --preset=quick                                 # beta
    python -m experiments.robustness --preset=cpu --config.study=size --workdir=runs/size
    python -m experiments.robustness --preset=cpu --config.study=histogram --config.model=lstm --workdir=...

Each study is a run of its own and wants its own workdir. The README has times and numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxmod as jm
from jaxmod import cli, configs
from jaxmod.analysis.gradient_variance import gradient_variance
from jaxmod.analysis.histogram import mask_mean_histogram
from jaxmod.data.arithmetic import load_addmul, split_by_operation
from jaxmod.models.arithmetic import addmul_network
from jaxmod.models.fnn import SIZES
from jaxmod.reports import array_stat, stat
from jaxmod.summary import check
from jaxmod.train.steps import without_state

SAMPLED_MASKS = 8  # whose accuracy is compared with that of the thresholded mask

SAME = 0.02
"""Two accuracies no further apart than this count as the same."""


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults; what a study varies has them among others."""

    study: str = "beta"  # one of STUDIES
    model: str = "fnn"  # or lstm; size is about the FNN and lstm_hidden about the LSTM, whatever it says
    hidden: tuple[int, ...] = SIZES["big"]  # of the FNN
    lstm_hidden: int = 256
    betas: tuple[float, ...] = (
        *(1e-5, 1.5e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5, 9e-5),
        *(1e-4, 1.1e-4, 1.25e-4, 1.5e-4, 1.75e-4, 2e-4, 2.5e-4),
        *(3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4, 1e-3),
    )
    sizes: tuple[str, ...] = ("small", "medium", "big", "huge")  # names in SIZES
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    step_counts: tuple[int, ...] = (2_500, 5_000, 10_000, 20_000, 40_000)
    sample_counts: tuple[int, ...] = (1, 2, 4, 8)
    lstm_sizes: tuple[int, ...] = (128, 256, 512, 1024)
    noise_draws: int = 256  # of the gradient, for its variance
    seeds: int = 10
    seed: int = 0
    network_steps: int = 20_000
    network_learning_rate: float = 1e-3
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
    rao_blackwell: bool = False  # the study of that name has both
    clip_norm: float = 1.0
    chunk_steps: int = 1000


PRESETS = {
    "quick": Config(  # one wide layer learns fast and bears masks after few steps
        hidden=(2000,),
        lstm_hidden=32,
        betas=(2e-5, 1e-4, 2e-4, 1e-3),
        sizes=("mini", "tiny", "small"),
        temperatures=(0.5, 1.0, 2.0),
        learning_rates=(3e-3, 3e-2, 3e-1),
        step_counts=(500, 1_000, 2_000),
        lstm_sizes=(16, 32, 64),
        noise_draws=64,
        seeds=1,
        network_steps=8_000,
        network_learning_rate=3e-3,
        mask_steps=2_000,
        mask_learning_rate=3e-2,
        chunk_steps=500,
    ),
    "cpu": Config(
        hidden=SIZES["small"],
        betas=(1e-5, 3e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3),
        sizes=("mini", "tiny", "small", "medium"),
        step_counts=(1_000, 2_500, 5_000, 10_000, 20_000),
        lstm_hidden=128,
        lstm_sizes=(128, 256, 384),
        seeds=2,
        mask_steps=10_000,
        chunk_steps=500,
    ),
    "paper": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, before any work."""
    configs.check_choice("study", config.study, STUDIES)
    configs.check_training(config)
    if config.study in NOT_FOR[config.estimator]:
        raise ValueError(
            f"study={config.study} varies what estimator={config.estimator} does not have; choose another "
            "study, or estimator=gumbel_sigmoid."
        )
    for size in config.sizes or ("",):
        configs.check_choice("sizes", size, SIZES)
    configs.check_positive(config, "temperatures", "beta", "betas", "learning_rates")
    configs.check_positive(config, "step_counts", "sample_counts", "lstm_sizes")
    if config.noise_draws < 2:
        raise ValueError(f"noise_draws={config.noise_draws}: expected 2 or more, to have a variance.")
    if config.study == "rao_blackwell":
        configs.make_estimator(dataclasses.replace(config, rao_blackwell=True))
    for count in config.sample_counts:
        configs.mask_config(dataclasses.replace(config, num_samples=count))


class Lab(NamedTuple):
    """What every study works with."""

    config: Config
    keys: Any
    """One per seed."""
    train: Mapping[str, np.ndarray]
    valid: Mapping[str, np.ndarray]
    workdir: jm.Workdir | None
    progress: bool

    def changed(self, **settings: Any) -> "Lab":
        """Returns the lab with other settings."""
        return self._replace(config=dataclasses.replace(self.config, **settings))


class Networks(NamedTuple):
    """Trained networks, one per run, or one for all runs."""

    params: Any
    params_axis: int | None
    keys: Any
    loss_fn: Callable[..., Any]
    evaluate: Callable[..., dict[str, Any]]

    def alone(self, run: int, copies: int) -> "Networks":
        """Returns one of them, for `copies` runs that differ in a setting but not in their noise."""
        params = jax.tree.map(lambda x: x[run], self.params)
        return self._replace(params=params, params_axis=None, keys=jnp.tile(self.keys[run], copies))


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results of one study."""
    study, question = STUDIES[config.study]
    model = {"size": "fnn", "lstm_hidden": "lstm"}.get(config.study, config.model)
    config = dataclasses.replace(config, model=model)
    keys, _ = configs.run_keys(config)
    lab = Lab(config, keys, load_addmul("train"), load_addmul("valid"), workdir, progress)
    facts = {"question": question, "study": config.study, "parameter": config.study}
    return facts | {"model": model, "runs": config.seeds} | study(lab)


def train_networks(lab: Lab, name: str = "network") -> Networks:
    """Returns a network per seed, trained on both operations."""
    config = lab.config
    network = addmul_network(configs.make_model(config, outputs=20))
    trained = jm.train_network(
        without_state(network.loss_fn),
        network.init,
        lab.train,
        keys=lab.keys,
        config=configs.network_config(config),
        optimizer=configs.network_optimizer(config),
        evaluate=network.evaluate,
        workdir=lab.workdir.stage(name) if lab.workdir else None,
        progress=lab.progress,
    )
    return Networks(trained.params, 0, lab.keys, network.loss_fn, network.evaluate)


def find_masks(
    lab: Lab,
    networks: Networks,
    name: str = "masks",
    tasks: Sequence[str] = ("control", "add", "mul"),
    config: jm.MaskConfig | None = None,
) -> dict[str, jm.Found]:
    """Returns the masks of the whole task and of each operation, trained as the lab's config says."""
    rows = split_by_operation(lab.train, whole="control")
    return jm.find_modules(
        networks.loss_fn,
        networks.params,
        {task: rows[task] for task in tasks},
        keys=networks.keys,
        config=config or configs.mask_config(lab.config),
        estimator=configs.make_estimator(lab.config),
        data=lab.train,
        evaluate=networks.evaluate,
        params_axis=networks.params_axis,
        workdir=lab.workdir.stage(name) if lab.workdir else None,
        progress=lab.progress,
    )


def evaluate(lab: Lab, networks: Networks, masks: Mapping[str, Any], tasks: Mapping[str, Any]):
    """Returns the table of all masks, `control` among them, on all tasks."""
    return jm.evaluate(
        networks.evaluate,
        networks.params,
        masks,
        tasks,
        data=lab.valid,
        params_axis=networks.params_axis,
        control="control",
    )


def measure(lab: Lab, networks: Networks, found: Mapping[str, jm.Found]) -> dict[str, np.ndarray]:
    """Returns what the figures show of a control mask and the operations' masks, each `[runs]`."""
    masks = {name: module.mask for name, module in found.items()}
    tasks = split_by_operation(lab.valid, whole="iid")
    table = evaluate(lab, networks, {"unmasked": None, **masks}, tasks)
    right = {mask: {task: values["accuracy"] for task, values in row.items()} for mask, row in table.items()}
    overlap = table.overlaps["add", "mul"]
    row: dict[str, Any] = {
        "network accuracy": right["unmasked"]["iid"],
        "control accuracy": right["control"]["iid"],
        "own accuracy": (right["add"]["add"] + right["mul"]["mul"]) / 2,
        "other accuracy": (right["add"]["mul"] + right["mul"]["add"]) / 2,
        "total sharing": overlap.sharing["total"].shared,
        "sharing by chance": overlap.chance["total"].expected,
        "control density": jax.vmap(jm.density)(masks["control"]),
    }
    return {name: np.asarray(x) for name, x in row.items()}


def vary_together(lab: Lab, setting: str, values: Sequence[float]) -> list[dict[str, Any]]:
    """Returns a row for each value of a setting that the runs of one compiled program may differ in."""
    networks = train_networks(lab)
    config = dataclasses.replace(configs.mask_config(lab.config), **{setting: np.array(values)})
    per_seed = []
    for run in range(lab.config.seeds):
        network = networks.alone(run, copies=len(values))
        found = find_masks(lab, network, f"masks of run {run}", config=config)
        per_seed.append(measure(lab, network, found))
    return [{name: [row[name][i] for row in per_seed] for name in per_seed[0]} for i in range(len(values))]


def vary_one_by_one(lab: Lab, setting: str, values: Sequence[float]) -> list[dict[str, Any]]:
    """Returns a row for each value of a setting that the compiled program depends on."""
    networks = train_networks(lab)
    rows = []
    for value in values:
        there = lab.changed(**{setting: value})
        rows.append(measure(there, networks, find_masks(there, networks, f"masks, {setting} {value:g}")))
    return rows


def make_points(values: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the points of `results.json`; `rows` hold `{statistic: [runs]}`, one for each value."""
    return [
        {"value": value, **{name: stat(x) for name, x in row.items()}}
        for value, row in zip(values, rows, strict=True)
    ]


def without(name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows without a statistic: a panel tells six apart."""
    return [{key: x for key, x in row.items() if key != name} for row in rows]


def means(points: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Returns the mean over runs of a statistic, for every point."""
    return np.array([point[name]["mean"] for point in points])


def nearest(values: Sequence[float], chosen: float) -> int:
    """Returns the index of the value that is nearest to the paper's choice, by ratio."""
    return int(np.argmin(np.abs(np.log(np.asarray(values) / chosen))))


def study_beta(lab: Lab) -> dict[str, Any]:
    """Returns figure 8: accuracy and sharing for each beta."""
    betas, chosen = lab.config.betas, lab.config.beta
    points = make_points(betas, vary_together(lab, "beta", betas))
    control, shared = means(points, "control accuracy"), means(points, "total sharing")
    kept = control / means(points, "network accuracy")
    at, low, high = nearest(betas, chosen), int(np.argmin(betas)), int(np.argmax(betas))
    about = kept[np.abs(np.log(np.array(betas) / betas[at])) < np.log(2.1)]
    own = f"{kept[at]:.1%} with {betas[at]:g}"
    near = f"{len(about)} betas keep {min(about):.1%} to {max(about):.1%}"
    same = len(about) > 1 and min(about) >= 0.95
    fall = f"accuracy {control[high]:.3f} with {betas[high]:g}, {control[at]:.3f} with {betas[at]:g}"
    lost = control[high] < control[at] - SAME
    more = f"of the add mask {shared[low]:.2f} with {betas[low]:g}, {shared[at]:.2f} with {betas[at]:g}"
    return {
        "chosen": chosen,
        "points": points,
        "checks": [
            check("the chosen beta keeps the accuracy", "above 95% (C.2)", own, kept[at] >= 0.95),
            check("half and twice that beta as well", "it matters little (Fig. 8)", near, same),
            check("too large a beta loses weights that matter", "yes (C.2)", fall, lost),
            check("too small a beta lets more seem shared", "yes (C.2)", more, shared[low] > shared[at]),
        ],
    }


def study_size(lab: Lab) -> dict[str, Any]:
    """Returns figure 9: sharing for networks of different sizes."""
    sizes, rows = lab.config.sizes, []
    for size in sizes:
        there = lab.changed(hidden=SIZES[size])
        networks = train_networks(there, f"network {size}")
        rows.append(measure(there, networks, find_masks(there, networks, f"masks {size}")))
    points = make_points(sizes, without("control density", rows))
    order = sorted(range(len(sizes)), key=lambda i: list(SIZES).index(sizes[i]))
    shared, solved = means(points, "total sharing")[order], means(points, "network accuracy")[order]
    ours = [
        ", ".join(f"{sizes[i]} {x:.3f}" for i, x in zip(order, values, strict=True))
        for values in (shared, solved)
    ]
    enough = shared[solved >= 0.95]
    changes = len(enough) > 1 and np.ptp(enough) > SAME
    return {
        "points": points,
        "checks": [
            check("the smallest shares more", "if it under-fits (C.2)", ours[0], shared[0] > shared[-1]),
            check("sharing differs between sizes that solve the task", "yes (Fig. 9)", ours[1], changes),
        ],
    }


def study_histogram(lab: Lab) -> dict[str, Any]:
    """Returns figure 7 for the control mask, and the accuracy before and after thresholding."""
    networks = train_networks(lab)
    control = find_masks(lab, networks, tasks=("control",))["control"]
    estimator = configs.make_estimator(lab.config)
    everything = {"iid": np.arange(len(lab.valid["op"]))}

    def accuracy(mask):
        table = evaluate(lab, networks, {"control": mask}, everything)
        return np.asarray(table["control"]["iid"]["accuracy"])

    @jax.jit
    @jax.vmap
    def sample(key, logits):
        return jax.tree.map(lambda b: b > 0, estimator.sample(key, logits))

    keys = jax.vmap(lambda key: jax.random.split(key, SAMPLED_MASKS), out_axes=1)(lab.keys)
    sampled = np.mean([accuracy(sample(of_runs, control.logits)) for of_runs in keys], axis=0)
    thresholded = accuracy(control.mask)
    expected = jax.vmap(jm.density)(jax.tree.map(jax.nn.sigmoid, control.logits))
    rows = [
        {"control accuracy": sampled, "control density": expected},
        {"control accuracy": thresholded, "control density": jax.vmap(jm.density)(control.mask)},
    ]
    _, counts, density = jax.tree.map(np.asarray, jax.vmap(mask_mean_histogram)(control.logits))
    histogram = {
        "edges": np.linspace(0, 1, counts.shape[1] + 1).tolist(),
        **array_stat(density),
        "counts": counts.sum(0).tolist(),
    }
    undecided = counts[:, 50:450].sum() / counts.sum()
    ours = f"{undecided:.1%} of the weights are kept with a probability between 0.1 and 0.9"
    drop = f"accuracy {sampled.mean():.4f} sampled, {thresholded.mean():.4f} thresholded"
    safe = sampled.mean() - thresholded.mean() <= SAME
    return {
        "parameter": "mask",
        "points": make_points(["sampled", "thresholded"], rows),
        "histogram": histogram,
        "checks": [
            check("the control mask is decided", "nearly all at 0 or 1 (Fig. 7)", ours, undecided <= 0.05),
            check("thresholding it is safe", "yes (section 2)", drop, safe),
        ],
    }


def study_temperature(lab: Lab) -> dict[str, Any]:
    """Returns accuracy and sharing for each temperature of the Gumbel-sigmoid."""
    values = lab.config.temperatures
    points = make_points(values, without("network accuracy", vary_one_by_one(lab, "temperature", values)))
    own, shared = means(points, "own accuracy"), means(points, "total sharing")
    ours = [
        f"own accuracy from {min(own):.3f} to {max(own):.3f}",
        f"of the add mask, from {min(shared):.2f} to {max(shared):.2f}",
    ]
    paper = "free to choose: Adam cancels it (A.4)"
    return {
        "chosen": lab.config.temperature,
        "points": points,
        "checks": [
            check("the temperature does not matter to the accuracy", paper, ours[0], np.ptp(own) <= SAME),
            check("nor to the sharing", paper, ours[1], np.ptp(shared) <= 2 * SAME),
        ],
    }


def study_learning_rate(lab: Lab) -> dict[str, Any]:
    """Returns accuracy and sharing for each learning rate of the masks."""
    values = lab.config.learning_rates
    rows = vary_together(lab, "learning_rate", values)
    return tuned("learning rate", values, lab.config.mask_learning_rate, rows)


def study_steps(lab: Lab) -> dict[str, Any]:
    """Returns accuracy and sharing for each number of mask steps."""
    values = lab.config.step_counts
    rows = vary_one_by_one(lab, "mask_steps", values)
    return tuned("number of steps", values, lab.config.mask_steps, rows)


def tuned(name: str, values: Sequence[float], chosen: float, rows: Sequence[Any]) -> dict[str, Any]:
    """Returns the results for a setting that matters less than beta, but wants to be tuned all the same."""
    points = make_points(values, without("network accuracy", rows))
    own = means(points, "own accuracy")
    at, best, worst = nearest(values, chosen), int(np.argmax(own)), int(np.argmin(own))
    near = f"own accuracy {own[at]:.3f} with {values[at]:g}; best {own[best]:.3f} with {values[best]:g}"
    far = f"own accuracy {own[worst]:.3f} with {values[worst]:g}"
    good, matters = own[at] >= own[best] - SAME, own[worst] < own[at] - SAME
    return {
        "chosen": chosen,
        "points": points,
        "checks": [
            check(f"the chosen {name} is about the best", "tuned (C.2)", near, good),
            check(f"the {name} must be tuned", "less critical, still important (C.2)", far, matters),
        ],
    }


def gradient_noise(lab: Lab, networks: Networks, logits: Any, num_samples: int) -> np.ndarray:
    """Returns the variance of the control mask's gradient, `[runs]`, with the lab's estimator."""
    config, estimator = lab.config, configs.make_estimator(lab.config)
    batch = jax.tree.map(lambda x: x[: config.batch_size], lab.train)

    @jax.jit
    def variance(keys, logits, params, batch):
        def one(run):
            key, logits, params = run
            options = {"num_samples": num_samples, "draws": config.noise_draws, "estimator": estimator}
            return gradient_variance(key, networks.loss_fn, params, logits, batch, **options)["total"]

        return lax.map(one, (keys, logits, params))

    return np.asarray(variance(lab.keys, logits, networks.params, batch))


def start_logits(lab: Lab, networks: Networks) -> Any:
    """Returns the logits of untrained masks, one tree for all runs."""
    return jax.vmap(configs.make_estimator(lab.config).init)(lab.keys, networks.params)


def study_samples(lab: Lab) -> dict[str, Any]:
    """Returns the variance of the control mask's gradient for each number of samples per batch."""
    config = lab.config
    networks = train_networks(lab)
    trained = find_masks(lab, networks, tasks=("control",))["control"].logits
    counts, rows = config.sample_counts, [{} for _ in config.sample_counts]
    for when, logits in (("before", start_logits(lab, networks)), ("after", trained)):
        single, *several = (gradient_noise(lab, networks, logits, n) for n in (1, *counts))
        for row, many in zip(rows, several, strict=True):
            row[f"relative variance {when} training"] = many / single
    points = make_points(counts, rows)
    at, checks = nearest(counts, config.num_samples), []
    for when in ("before", "after"):
        part = means(points, f"relative variance {when} training")[at]
        ours = f"{counts[at]} samples: {part:.2f} of the variance of one ({1 / counts[at]:.2f} at best)"
        statement = f"several samples improve the gradient {when} training"
        checks.append(check(statement, "4 to 8 do (section 2)", ours, part < 0.9))
    return {"chosen": config.num_samples, "points": points, "checks": checks}


def study_rao_blackwell(lab: Lab) -> dict[str, Any]:
    """Returns what the mean slope given the sample does to the gradient's variance, and to the masks.

    Speed is told by the control mask's mean loss over the sampled masks of a chunk: the steps until it is
    down to what the plain estimator has after half of its steps.
    """
    plain, averaged = (lab.changed(rao_blackwell=chosen) for chosen in (False, True))
    networks = train_networks(lab)
    labs = {"straight-through": plain, "Rao-Blackwell": averaged}
    found = {name: find_masks(there, networks, f"masks, {name}") for name, there in labs.items()}
    rows = []
    for name, there in labs.items():
        row = measure(there, networks, found[name])
        rows.append({x: row[x] for x in ("control accuracy", "own accuracy", "total sharing")})
    trained = found["straight-through"]["control"].logits
    for when, logits in (("before", start_logits(lab, networks)), ("after", trained)):
        noise = [gradient_noise(there, networks, logits, lab.config.num_samples) for there in labs.values()]
        for row, variance in zip(rows, noise, strict=True):
            row[f"relative variance {when} training"] = variance / noise[0]
    losses = [modules["control"].history["loss"] for modules in found.values()]
    for row, steps in zip(rows, relative_steps(losses), strict=True):
        row["relative steps to the same loss"] = steps
    points = make_points(list(labs), rows)
    checks = []
    for when in ("before", "after"):
        part = points[1][f"relative variance {when} training"]["mean"]
        statement = f"the gradient varies no more {when} training"
        checks.append(check(statement, "(Rao-Blackwell)", f"{part:.3f} of the variance", part <= 1.01))
    own, steps = (means(points, x) for x in ("own accuracy", "relative steps to the same loss"))
    ours = f"own accuracy {own[1]:.4f}, {own[0]:.4f} without"
    checks.append(check("the masks are as good", "(not in the paper)", ours, own[1] >= own[0] - SAME))
    ours = f"{steps[1]:.2f} of the steps to the same loss"
    checks.append(check("they need no more steps", "(not in the paper)", ours, steps[1] <= 1.05))
    return {"parameter": "estimator", "points": points, "checks": checks}


def relative_steps(losses: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns when each `[runs, chunks]` of losses is down to the first's level half-way, over its own time.

    Between chunks the loss is taken to be a straight line. One that never gets there counts as there after
    its last chunk.
    """
    half = (losses[0].shape[1] + 1) // 2 - 1
    level = np.minimum.accumulate(losses[0], axis=1)[:, half]
    times = [np.array([_first_below(*run) for run in zip(x, level, strict=True)]) for x in losses]
    return [time / times[0] for time in times]


def _first_below(losses: np.ndarray, level: float) -> float:
    """Returns the time in chunks, the end of the first being 1, at which the losses first reach a level."""
    below = np.flatnonzero(losses <= level)
    i = int(below[0]) if below.size else len(losses) - 1
    if i == 0 or not below.size:
        return i + 1
    return i + 1 - (level - losses[i]) / (losses[i - 1] - losses[i])


def study_lstm_hidden(lab: Lab) -> dict[str, Any]:
    """Returns accuracies of LSTMs of different sizes on the problems they were trained on and on new ones.

    A tenth of the problems is held out of all training. The paper's validation data hold nothing new, so
    that over-fitting could not be seen on them.
    """
    lab = lab._replace(train=jax.tree.map(lambda x: x[~held_out(lab.train)], lab.train))
    tasks = {"seen": np.flatnonzero(~held_out(lab.valid)), "new": np.flatnonzero(held_out(lab.valid))}
    sizes, rows = lab.config.lstm_sizes, []
    for size in sizes:
        there = lab.changed(lstm_hidden=size)
        networks = train_networks(there, f"network {size}")
        mask = find_masks(there, networks, f"masks {size}", tasks=("control",))["control"].mask
        table = evaluate(there, networks, {"network": None, "control": mask}, tasks)
        rows.append({f"{n} accuracy, {t}": table[n][t]["accuracy"] for n in table for t in tasks})
    points = make_points(sizes, rows)
    at, checks = nearest(sizes, lab.config.lstm_hidden), []
    larger = [i for i, size in enumerate(sizes) if size > sizes[at]]
    for name in ("network", "control"):
        new = means(points, f"{name} accuracy, new")
        ours = "new problems: " + ", ".join(f"{sizes[i]} units {new[i]:.3f}" for i in (at, *larger))
        worse = bool(larger) and min(new[larger]) < new[at] - SAME
        checks.append(check(f"{name}: more than {sizes[at]} units over-fit", "yes (C.3)", ours, worse))
    notes = ["A tenth of the problems is new: held out of the training of networks and masks."]
    return {"chosen": lab.config.lstm_hidden, "points": points, "checks": checks, "notes": notes}


def held_out(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns which examples are among the tenth of problems held out; `a + b` goes with `b + a`."""
    digits = data["digits"].astype(int)
    a, b = digits[:, 0] + 10 * digits[:, 1], digits[:, 2] + 10 * digits[:, 3]
    chosen = np.random.RandomState(0).rand(2, 100, 100) < 0.1
    return chosen[data["op"], np.minimum(a, b), np.maximum(a, b)]


STUDIES = {
    "beta": (study_beta, "How far do the control mask's accuracy and the sharing depend on beta?"),
    "size": (study_size, "How does the size of the network change what its modules share?"),
    "histogram": (study_histogram, "Is the control mask decided, so that thresholding it is safe?"),
    "temperature": (study_temperature, "Does the temperature of the Gumbel-sigmoid matter?"),
    "learning_rate": (study_learning_rate, "How far do the masks depend on their learning rate?"),
    "steps": (study_steps, "How long must the masks be trained?"),
    "samples": (study_samples, "What do several mask samples per batch gain?"),
    "rao_blackwell": (
        study_rao_blackwell,
        "Does the mean slope given the sample train better masks, or sooner?",
    ),
    "lstm_hidden": (study_lstm_hidden, "Does a larger LSTM over-fit?"),
}
NOT_FOR = {
    "gumbel_sigmoid": (),
    "edge_popup": ("beta", "histogram", "temperature", "samples", "rao_blackwell"),
    "hard_concrete": ("histogram", "temperature", "rao_blackwell"),
}
"""By estimator: studies of what it does not have."""


if __name__ == "__main__":
    cli.main("robustness", PRESETS, run, validate, estimator=configs.make_estimator)
