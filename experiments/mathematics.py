"""Does a network that can do mathematics go by general rules? (Csordas et al. 2021, section 4.3, figure 5)

A Transformer learns a task of the Mathematics Dataset from easy, medium and hard questions. Over its frozen
weights a control mask is trained on the same questions, another mask on the easy ones alone. Weights that the
control keeps and the easy mask loses are needed for harder questions only: had the network learned one rule
for all of them, the easy mask would answer hard questions too. Figures 5 and 17 of the paper.

    python -m experiments.mathematics --preset=quick                  # sums of numbers of one to three digits
    python -m experiments.mathematics --preset=cpu                    # add_or_sub, a smaller network
    python -m experiments.mathematics --preset=cpu --config.task=sort
    python -m experiments.mathematics --preset=paper --config.task=add_or_sub,differentiate,sort
    python -m experiments.mathematics --preset=large --config.task=linear_1d    # the authors' code

Questions are made once, by the package mathematics_dataset (pip install 'jaxmod[mathematics]'), and kept in
the data directory (--data_dir or $JAXMOD_DATA), else in ~/.cache/jaxmod. The published files are read, if
that directory has train-easy, train-medium and train-hard and `entropy` is not set (quick and cpu set it).
The README's table has times and numbers.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs
from jaxmod.data import mathematics, mathematics_generator
from jaxmod.data.mathematics import LEVELS, MODULES, VOCABULARY, Mathematics, text_of
from jaxmod.language import measures, networks
from jaxmod.language.buckets import bucket_axes, make_buckets
from jaxmod.language.mathematics_checks import checks
from jaxmod.language.mathematics_tables import tables
from jaxmod.language.networks import Functions
from jaxmod.models.transformer import Transformer, TransformerConfig
from jaxmod.noise import Generator
from jaxmod.reports import stat
from jaxmod.train import devices

MASKS = ("control", "easy")
SHOWN = 6
"""Hard questions of each task that are shown with what the easy mask answers."""


class Setting(NamedTuple):
    """What the paper chose for a task (table 1)."""

    batch_size: int
    mask_batch_size: int
    beta: float
    network_steps: int
    mask_steps: int
    mask_learning_rate: float
    warmup: int


SETTINGS = {
    "add_or_sub": Setting(256, 256, 2e-5, 30_000, 30_000, 0.03, 0),
    "linear_1d": Setting(512, 400, 1e-6, 200_000, 50_000, 0.02, 5_000),
    "differentiate": Setting(128, 128, 1e-5, 40_000, 40_000, 0.03, 0),
    "sort": Setting(256, 256, 3e-6, 30_000, 30_000, 0.03, 0),
    "collect": Setting(128, 256, 1e-6, 200_000, 50_000, 0.02, 5_000),
}


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults; None stands for the task's own in table 1."""

    task: tuple[str, ...] = ("add_or_sub",)  # one or several of SETTINGS
    count: int = 666_666  # questions of each difficulty, those held out among them
    held_out: int = 10_000  # of each difficulty, for validation
    data_seed: int = 0  # of the questions: another one makes them anew
    entropy: tuple[float, ...] = ()  # least and most difficulty; none: the task's own
    features: int = 256
    feed_forward: int = 512
    heads: int = 4
    layers: int = 3
    dropout: float = 0.1
    seeds: int = 5
    seed: int = 0
    network_steps: int | None = None
    network_learning_rate: float = 1e-4
    warmup: int | None = None  # steps in which the network's rate grows to its value
    batch_size: int | None = None  # of the network
    mask_steps: int | None = None
    mask_learning_rate: float | None = None
    mask_batch_size: int | None = None
    num_samples: int = 8
    beta: float | None = None  # alpha = beta / mask_batch_size
    network_alpha: bool = False  # alpha = beta / batch_size, as in the authors' code
    buckets: int = 1  # of lengths: short questions do not pay for the longest
    estimator: str = "gumbel_sigmoid"  # or edge_popup, hard_concrete: jaxmod.configs.make_estimator
    top_q: float = 0.05  # part of the weights that edge_popup keeps; beta is nothing to it
    temperature: float = 1.0  # of gumbel_sigmoid
    noise: str = "mix32"  # of the masks; or jax: the bits of jax.random
    bfloat16: bool = False  # frozen weights and activations of mask training; for accelerators
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    clip_norm: float = 1.0
    chunk_steps: int = 1000
    eval_examples: int = 1024  # that the accuracies at chunk ends are of


# Few steps decide masks only at a high rate: after 3,000 at 0.03, 55% of the weights are still kept with a
# probability between 0.1 and 0.9, and the control mask of sort has 58% of the hard questions right, not 81%.
PRESETS = {
    "quick": Config(
        count=8_000, held_out=500, entropy=(0.5, 3.5), features=64, feed_forward=128, layers=1, dropout=0.0,
        seeds=1, network_steps=2_500, network_learning_rate=3e-3, warmup=100, batch_size=64, mask_steps=400,
        mask_batch_size=64, num_samples=4, beta=1e-3, chunk_steps=250, eval_examples=128,
    ),
    "cpu": Config(
        count=100_000, held_out=1_000, entropy=(2.0, 8.0), features=128, feed_forward=256, layers=2,
        dropout=0.0, seeds=1, network_steps=6_000, network_learning_rate=1e-3, warmup=1_000, batch_size=128,
        mask_steps=1_000, mask_learning_rate=0.3, mask_batch_size=128, num_samples=4, beta=3e-4, buckets=4,
        chunk_steps=500, eval_examples=256,
    ),
    "paper": Config(),
    "large": Config(
        features=512, feed_forward=2048, heads=8, layers=6, clip_norm=0.1, network_alpha=True,
    ),
}  # fmt: skip


def of_task(config: Config, task: str) -> Any:
    """Returns the config with the task's own values in place of None."""
    own = {name: value for name, value in SETTINGS[task]._asdict().items() if getattr(config, name) is None}
    return dataclasses.replace(config, task=(task,), **own)


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_choice("noise", config.noise, get_args(Generator))
    configs.check_positive(
        config, "seeds", "network_learning_rate", "clip_norm", "temperature", "buckets", "eval_examples"
    )
    make_model(config)
    configs.make_estimator(config)
    ordered = len(config.entropy) == 2 and 0 < config.entropy[0] < config.entropy[1] < math.inf
    if config.entropy and not ordered:
        raise ValueError(
            f"entropy={config.entropy}: expected nothing, or two numbers above 0, the second one larger."
        )
    if config.data_seed < 0:
        raise ValueError(f"data_seed={config.data_seed}: expected 0 or more.")
    if not config.task or len(set(config.task)) < len(config.task):
        raise ValueError(f"task={','.join(config.task)}: expected one or more different tasks.")
    for task in config.task:
        configs.check_choice("task", task, SETTINGS)
        own = of_task(config, task)
        configs.check_positive(own, "mask_batch_size", "num_samples")
        if own.mask_batch_size % own.num_samples:
            raise ValueError(
                f"num_samples={own.num_samples} does not divide mask_batch_size={own.mask_batch_size}; each "
                "sample needs an equal part of the batch."
            )
        if own.warmup < 0:
            raise ValueError(f"warmup={own.warmup}: expected 0 or more.")
        configs.network_config(own)
        mask_config(own)
        try:
            mathematics.check_mathematics(
                task, config.count, config.held_out, seed=config.data_seed, entropy=span(config)
            )
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error


def span(config: Config) -> tuple[float, float] | None:
    """Returns the range of difficulty, None for the task's own."""
    return (config.entropy[0], config.entropy[1]) if config.entropy else None


def make_model(config: Config) -> Any:
    """Returns the network."""
    sizes = (config.features, config.feed_forward, config.heads, config.layers)
    vocabulary = len(VOCABULARY)
    return Transformer(vocabulary, vocabulary, TransformerConfig(*sizes, dropout=config.dropout), tied=True)


def mask_config(own: Any) -> jm.MaskConfig:
    """Returns how a task's masks are trained."""
    beta = own.beta * own.mask_batch_size / own.batch_size if own.network_alpha else own.beta
    made = configs.mask_config(dataclasses.replace(own, batch_size=own.mask_batch_size), beta=beta)
    return dataclasses.replace(made, axes=bucket_axes(own.buckets), eval_examples=own.eval_examples)


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: for each task networks, masks, and what they answer."""
    # All questions first: what is wrong with those of the last task is said before any training.
    try:
        data = {task: load_questions(config, task, progress) for task in config.task}
    except ValueError as error:
        raise cli.Refused(str(error)) from error
    shown = example_questions(data)
    studies, kept = {}, {}
    for task in config.task:
        studies[task], masks = study(of_task(config, task), task, data.pop(task), workdir, progress)
        kept |= {f"{task} {name}": mask for name, mask in masks.items()}
    if workdir:
        jm.save_masks(workdir.path / "masks.npz", kept)
    results = {
        "question": "Which weights does a network need for harder questions than the easy ones?",
        "notes": [f"{task}: {of['source']}. {characters_of(of)}" for task, of in studies.items()],
        "model": "transformer",
        "runs": config.seeds,
        "mathematics": {"tasks": studies, "examples": shown},
    }
    return results | {"tables": tables(studies), "checks": checks(studies)}


def load_questions(config: Config, task: str, progress: bool) -> Mathematics:
    """Returns the questions of a task, made by as many processes as there are cores if need be."""
    return mathematics.load_mathematics(
        task,
        config.count,
        config.held_out,
        seed=config.data_seed,
        entropy=span(config),
        processes=devices.usable_cores(),
        progress=progress,
    )


def study(
    own: Any, task: str, data: Mathematics, workdir: jm.Workdir | None, progress: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a task's networks answer under each mask, and the masks."""
    pool, tasks, functions = make_tasks(own, data)
    keys, _ = configs.run_keys(own)

    # 1. Train the networks on questions of all difficulties.
    params = jm.train_network(
        functions.dense_loss,
        functions.init,
        tasks["control"],
        data=pool,
        keys=keys,
        config=dataclasses.replace(configs.network_config(own), eval_examples=own.eval_examples),
        optimizer=networks.make_optimizer(
            own.network_learning_rate, own.clip_norm, own.warmup, b2=0.995, eps=1e-9
        ),
        evaluate=functions.evaluate,
        workdir=workdir.stage(f"network {task}") if workdir else None,
        progress=progress,
    ).params

    # 2. Freeze the weights; train the control mask on the same questions, the other on the easy ones.
    found = jm.find_modules(
        functions.mask_loss,
        params,
        tasks,
        data=pool,
        keys=keys,
        config=mask_config(own),
        where=functions.where,
        estimator=configs.make_estimator(own),
        evaluate=functions.evaluate,
        params_axis=0,
        workdir=workdir.stage(f"masks {task}") if workdir else None,
        progress=progress,
    )
    masks = {name: module.mask for name, module in found.items()}

    # 3. What does the network answer under each of them?
    def compute() -> dict[str, Any]:
        weights = {"no mask": params} | {name: jm.apply_mask(params, mask) for name, mask in masks.items()}
        given = {name: networks.predict(functions, of, data.valid) for name, of in weights.items()}
        right = {name: networks.is_right(functions, of, data.valid) for name, of in given.items()}
        return {**describe_masks(masks), **describe_answers(data, given, right)}

    measured = workdir.part(f"answers {task}", compute) if workdir else compute()
    about = {name: getattr(data, name) for name in ("source", "characters", "duplicates", "easy_range")}
    return about | {"hard in easy range": data.hard_in_easy_range, **measured}, masks


def make_tasks(own: Any, data: Mathematics) -> tuple[Any, dict[str, Any], Functions]:
    """Returns the pool of examples, what each mask draws from it, and the network's functions for that."""
    model = make_model(own)
    easy = np.flatnonzero(data.train_level == LEVELS.index("easy"))
    rows = {"control": np.arange(len(data.train_level)), "easy": easy}
    if own.buckets == 1:
        return data.train, rows, networks.make_functions(model)
    examples = {name: {part: x[of] for part, x in data.train.items()} for name, of in rows.items()}
    made = make_buckets(examples, own.buckets)
    return made.examples, made.tasks, networks.make_functions(model, shapes=made.shapes)


def describe_masks(masks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what masks keep and share, as statistics over runs."""
    control, easy = (masks[name] for name in MASKS)
    sizes = measures.weights_by_layer(jax.tree.map(jnp.ones_like, control))
    shares = {
        "easy mask in control": measures.shares(easy, control),
        "remaining": measures.shares(control, easy),
    }
    return {
        "layers": list(measures.layers(control)),
        "density": {
            name: {label: stat(n / sizes[label]) for label, n in measures.weights_by_layer(mask).items()}
            for name, mask in masks.items()
        },
        "sharing": {
            name: {label: {field: stat(x) for field, x in s._asdict().items()} for label, s in of.items()}
            for name, of in shares.items()
        },
    }


def describe_answers(
    data: Mathematics, given: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns accuracies by difficulty, an example, and hard questions that break under the easy mask."""
    questions = text_of(data.valid["source"], data.valid["source_length"])
    expected = text_of(data.valid["target"], data.valid["target_length"])
    hard = data.valid_level == LEVELS.index("hard")
    beyond = hard & (mathematics.digits(questions) > data.easy_range)
    groups = {level: data.valid_level == number for number, level in enumerate(LEVELS)}
    groups |= {"hard beyond easy": beyond} if beyond.any() else {}
    broken = measures.breaking(
        right["control"][0] & hard, right["easy"][0], data.valid["source_length"], SHOWN
    )
    answers = text_of(given["easy"][0][broken])
    return {
        "accuracy": {
            name: {group: stat(of[:, rows].mean(axis=1)) for group, rows in groups.items()}
            for name, of in right.items()
        },
        "broken": [
            {"question": questions[row], "expected": expected[row], "easy mask": answer}
            for row, answer in zip(broken, answers, strict=True)
        ],
    }


def example_questions(data: Mapping[str, Mathematics]) -> dict[str, list[str]]:
    """Returns a hard question of each of the five tasks with its answer; of the studied ones, if need be."""
    found = {}
    for task in MODULES:
        if task in data:
            of, hard = data[task].valid, data[task].valid_level == LEVELS.index("hard")
            sides = ((of[side][hard][:1], of[f"{side}_length"][hard][:1]) for side in ("source", "target"))
            found[task] = [text_of(*side)[0] for side in sides]
        else:
            with contextlib.suppress(ValueError):  # the packages are not there, or do not work
                found[task] = list(mathematics_generator.generate_part(task, "hard", 0, 1)[0])
    return found


def characters_of(found: Mapping[str, Any]) -> str:
    """Returns which characters occur, and how many hard questions are no harder than easy ones, in words."""
    return (
        f"{len(found['characters'])} of the {len(VOCABULARY)} characters occur: {found['characters']!r}. "
        f"{found['duplicates']:,} questions occur again and are left out. "
        f"{100 * found['hard in easy range']:.1f}% of the hard questions have no more digits than 95% of the "
        f"easy ones, {found['easy_range']}."
    )


if __name__ == "__main__":
    cli.main("mathematics", PRESETS, run, validate, estimator=configs.make_estimator)
