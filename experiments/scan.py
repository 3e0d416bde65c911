"""Does a network that solves SCAN do so by general rules? (Csordas et al. 2021, section 4.3 and C.6)

A network learns SCAN from commands of all kinds. Then masks are trained over its frozen weights: the control
on the same data, the others on the training part of a split that lacks long commands, or combinations with a
primitive. Weights that the control keeps and such a mask loses are needed for what the split holds out alone:
had the network learned general rules, there would be none, and each mask would solve its split's test part.
Figures 4 and 16 of the paper.

    python -m experiments.scan --preset=quick     # a grammar of 4,656 commands, a small LSTM
    python -m experiments.scan --preset=cpu       # all of SCAN, the LSTM of the paper, fewer steps
    python -m experiments.scan --preset=cpu --config.model=transformer
    python -m experiments.scan --preset=paper     # 10 seeds, 25,000 steps for each network and mask
    python -m experiments.scan --preset=code --config.model=transformer    # beta of the authors' code
    python -m experiments.scan --preset=cpu --config.embedding=200    # masks lose input layers (C.6.1)
    python -m experiments.compare --config.workdirs=LSTM,TRANSFORMER  # two of these runs, side by side

The README's table has times and numbers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs
from jaxmod.analysis.chance import chance_overlap
from jaxmod.data import scan
from jaxmod.data.scan import ACTIONS, KINDS, WORDS, Rows, Scan
from jaxmod.data.tokens import decode
from jaxmod.language import measures, networks
from jaxmod.language.buckets import bucket_axes, make_buckets
from jaxmod.language.networks import Functions
from jaxmod.language.scan_checks import checks
from jaxmod.language.scan_tables import tables
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer, TransformerConfig
from jaxmod.noise import Generator
from jaxmod.reports import stat
from jaxmod.types import Params

MODELS = ("lstm", "transformer")
SPLITS = {"turn_left": "addprim_turn_left", "jump": "addprim_jump", "length": "length"}
"""Those that hold something out, in the order of figure 4."""
SHOWN = 4
"""Commands of each split that are shown with what they break into."""
BINS = 12
"""Of lengths, at most; one more where they would not meet the cut."""


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults."""

    model: str = "lstm"  # or transformer
    embedding: int = 16  # of the LSTM; with 200 its input layers vanish from masks (C.6.1)
    lstm_hidden: int = 200
    lstm_layers: int = 2
    lstm_dropout: float = 0.5
    features: int = 100  # of the Transformer, like the next four
    feed_forward: int = 200
    heads: int = 4
    layers: int = 3
    transformer_dropout: float = 0.1
    source: str = "grammar"  # or tfds: the official files, if TensorFlow Datasets has prepared them
    data_seed: int = 0  # of the draw of the split simple
    without: tuple[str, ...] = ()  # words whose commands are left out
    length_cut: int = 22  # the most actions that the split `length` trains on
    seeds: int = 10
    seed: int = 0
    network_steps: int = 25_000
    network_learning_rate: float = 1e-3
    network_decay: bool = False  # it falls to 0 by the last step of a network, so that fewer steps will do
    direct_steps: int = 25_000  # of networks trained on each split alone; 0: there are none
    mask_steps: int = 25_000
    mask_learning_rate: float = 1e-2
    batch_size: int = 256
    num_samples: int = 4
    lstm_beta: float = 3e-5  # alpha = beta / batch_size
    transformer_beta: float = 1e-3  # 6e-4 in the authors' code
    buckets: int = 1  # of lengths: short commands do not pay for the longest
    estimator: str = "gumbel_sigmoid"  # or edge_popup, hard_concrete: jaxmod.configs.make_estimator
    top_q: float = 0.05  # part of the weights that edge_popup keeps; beta is nothing to it
    temperature: float = 1.0  # of gumbel_sigmoid
    noise: str = "mix32"  # of the masks; or jax: the bits of jax.random
    bfloat16: bool = False  # frozen weights and activations of mask training; for accelerators
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    clip_norm: float = 5.0
    chunk_steps: int = 1000


# Few steps decide masks only at a high rate: after 2,000 at 0.03, 40% of the LSTM's weights are still kept
# with a probability between 0.1 and 0.9, and the mask of those above 0.5 works far worse than samples.
PRESETS = {
    "quick": Config(
        without=("around", "thrice"), length_cut=7, lstm_hidden=64, lstm_dropout=0.1, seeds=1,
        network_steps=750, network_learning_rate=3e-3, direct_steps=0, mask_steps=500,
        mask_learning_rate=3e-2, batch_size=128, lstm_beta=1.5e-3, transformer_beta=1.5e-3, chunk_steps=250,
    ),
    "cpu": Config(
        seeds=1, network_steps=6_000, network_decay=True, direct_steps=6_000, mask_steps=2_000,
        mask_learning_rate=0.3, batch_size=128, lstm_beta=1.5e-5, transformer_beta=2e-4, buckets=6,
        chunk_steps=500,
    ),
    "paper": Config(),
    "code": Config(transformer_beta=6e-4),
}  # fmt: skip


class Data(NamedTuple):
    """Commands, and which of them each mask is trained on and tested by."""

    scan: Scan
    rows: dict[str, Rows]
    """Of `simple` and the `SPLITS`, by their short names."""
    tasks: dict[str, Any]
    """What `find_modules` draws from: `control` and the `SPLITS`."""
    pool: dict[str, np.ndarray]
    functions: Functions


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_choice("model", config.model, MODELS)
    configs.check_choice("noise", config.noise, get_args(Generator))
    configs.check_positive(
        config, "embedding", "lstm_hidden", "lstm_layers", "seeds", "network_learning_rate", "clip_norm",
        "temperature", "buckets",
    )  # fmt: skip
    # Runs are called by it when they are compared, so it must not differ where it is nothing.
    if config.model != "lstm" and config.embedding != Config.embedding:
        raise ValueError(
            f"embedding={config.embedding} does not go with model={config.model}, whose size is features."
        )
    if not 0 <= config.lstm_dropout < 1:
        raise ValueError(f"lstm_dropout={config.lstm_dropout}: expected 0 or more, and below 1.")
    for name in ("direct_steps", "data_seed"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name}={getattr(config, name)}: expected 0 or more.")
    make_model(config)
    configs.network_config(config)
    mask_config(config)
    configs.make_estimator(config)
    try:
        load_data(config)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error


def make_model(config: Config) -> Any:
    """Returns the network."""
    if config.model == "lstm":
        sizes = (config.embedding, config.lstm_hidden, config.lstm_layers)
        return Seq2SeqLSTM(len(WORDS), len(ACTIONS), *sizes, dropout=config.lstm_dropout)
    sizes = (config.features, config.feed_forward, config.heads, config.layers)
    return Transformer(
        len(WORDS), len(ACTIONS), TransformerConfig(*sizes, dropout=config.transformer_dropout)
    )


def mask_config(config: Config) -> jm.MaskConfig:
    """Returns how masks are trained."""
    beta = config.lstm_beta if config.model == "lstm" else config.transformer_beta
    made = configs.mask_config(config, beta=beta)
    return dataclasses.replace(made, axes=bucket_axes(config.buckets))


def load_data(config: Config) -> Data:
    """Returns the data, in buckets if there are to be any, and the network's functions for them."""
    found = scan.load_scan(config.without)
    rows = {
        name: scan.split_rows(
            split, found, length_cut=config.length_cut, seed=config.data_seed, source=config.source
        )
        for name, split in ({"simple": "simple"} | SPLITS).items()
    }
    tasks = {"control" if name == "simple" else name: part.train for name, part in rows.items()}
    model = make_model(config)
    if config.buckets == 1:
        return Data(found, rows, tasks, found.examples, networks.make_functions(model))
    made = make_buckets(
        {name: {part: x[train] for part, x in found.examples.items()} for name, train in tasks.items()},
        config.buckets,
    )
    return Data(found, rows, made.tasks, made.examples, networks.make_functions(model, shapes=made.shapes))


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: networks, masks, networks trained on each split, and what each of them can do."""
    data = load_data(config)
    keys, _ = configs.run_keys(config)

    def train(task: str, stage: str, steps: int) -> Params:
        decay = steps if config.network_decay else 0
        return jm.train_network(
            data.functions.dense_loss,
            data.functions.init,
            data.tasks[task],
            data=data.pool,
            keys=keys,
            config=dataclasses.replace(configs.network_config(config), steps=steps),
            optimizer=networks.make_optimizer(config.network_learning_rate, config.clip_norm, decay=decay),
            evaluate=data.functions.evaluate,
            workdir=workdir.stage(stage) if workdir else None,
            progress=progress,
        ).params

    # 1. Train the networks on commands of all kinds.
    params = train("control", "network", config.network_steps)

    # 2. Freeze the weights; train the control mask on the same commands, the others on what a split leaves.
    found = jm.find_modules(
        data.functions.mask_loss,
        params,
        data.tasks,
        data=data.pool,
        keys=keys,
        config=mask_config(config),
        where=data.functions.where,
        estimator=configs.make_estimator(config),
        evaluate=data.functions.evaluate,
        params_axis=0,
        workdir=workdir.stage("masks") if workdir else None,
        progress=progress,
    )
    masks = {name: module.mask for name, module in found.items()}
    if workdir:
        jm.save_masks(workdir.path / "masks.npz", masks)

    # 3. Train networks on what each split leaves, without masks (figure 16).
    direct = {
        f"direct {split}": train(split, f"direct {split}", config.direct_steps)
        for split in SPLITS
        if config.direct_steps
    }

    # 4. What does each of them answer?
    def compute() -> dict[str, Any]:
        masked = {name: jm.apply_mask(params, mask) for name, mask in masks.items()}
        answered = answers(data, {"network": params, **masked, **direct})
        return {**describe_masks(masks), **describe_answers(data, *answered)}

    measured = workdir.part("answers", compute) if workdir else compute()
    reduced = f" Commands with {' or '.join(config.without)} are left out." if config.without else ""
    results = {
        "question": "Which weights does a network need for what a split of SCAN holds out?",
        "notes": [f"{len(data.scan.commands):,} commands, {source_of(config)}.{reduced}"],
        "model": config.model,
        "runs": config.seeds,
        "scan": {"splits": list(SPLITS), "length_cut": config.length_cut, **measured},
    }
    return results | {"tables": tables(results["scan"]), "checks": checks(results["scan"], config.model)}


def source_of(config: Config) -> str:
    """Returns where the splits come from, for reports."""
    if config.source == "tfds":
        return "splits of the official files"
    return "splits by the rules of the official files, simple drawn by seed"


def answers(data: Data, weights: Mapping[str, Params]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns what each network answers to all commands, and whether it is right: `[runs, commands, ...]`."""
    given = {name: networks.predict(data.functions, of, data.scan.examples) for name, of in weights.items()}
    right = {name: networks.is_right(data.functions, of, data.scan.examples) for name, of in given.items()}
    return given, right


def describe_masks(masks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what masks keep, share and lack, as statistics over runs."""
    control = masks["control"]
    names = list(measures.layers(control))
    sizes = measures.weights_by_layer(jax.tree.map(jnp.ones_like, control))
    sharing = {}
    for split in SPLITS:
        others = functools.reduce(jm.union, (masks[other] for other in SPLITS if other != split))
        shares = measures.shares(masks[split], others)
        inside = chance_overlap(masks[split], others, control, runs_axis=0)["total"]
        sharing[split] = {
            "shared": _stats(shares, "shared"),
            "by chance": _stats(shares, "expected"),
            "z": stat(chance_overlap(masks[split], others, runs_axis=0)["total"].z),
            "shared in control": stat(inside.overlap),
            "by chance in control": stat(inside.expected),
            "z in control": stat(inside.z),
        }
    remains = {split: measures.shares(control, masks[split]) for split in SPLITS}
    return {
        "layers": names,
        "density": {
            name: {label: stat(n / sizes[label]) for label, n in measures.weights_by_layer(mask).items()}
            for name, mask in masks.items()
        },
        "sharing": sharing,
        "remaining": {split: _stats(of, "shared") for split, of in remains.items()},
        "remaining by chance": {split: _stats(of, "expected") for split, of in remains.items()},
        "exclusive": {
            split: _stats(measures.shares(control, jm.difference(control, masks[split])), "shared")
            for split in SPLITS
        },
        "tokens": [*ACTIONS, "END"],
        "removed": {split: _defined(measures.removed_outputs(control, masks[split])) for split in SPLITS},
    }


def _stats(shares: Mapping[str, measures.Share], field: str) -> dict[str, Any]:
    return {label: stat(getattr(share, field)) for label, share in shares.items()}


def describe_answers(
    data: Data, given: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns accuracies by split, length and template, and commands that break, statistics over runs."""
    length = data.scan.examples["target_length"]
    bins, bin_of = length_bins(length, int(length[data.rows["length"].train].max()))
    masked = [name for name in right if not name.startswith("direct")]
    by_length = {
        name: _defined(measures.accuracy_by_group(right[name], bin_of, len(bins))) for name in masked
    }
    templates = [scan.template(command) for command in data.scan.commands]
    first = [kind for kind in KINDS if any(kind == of for of, _ in templates)]
    second = ["alone", *first]
    group = np.array([first.index(a) * len(second) + second.index(b) for a, b in templates])
    by_template = {}
    for name in masked:
        flat = _defined(measures.accuracy_by_group(right[name], group, len(first) * len(second)))
        by_template[name] = [flat[i * len(second) : (i + 1) * len(second)] for i in range(len(first))]
    return {
        "accuracy": {
            name: {test: stat(of[:, rows.test].mean(axis=1)) for test, rows in data.rows.items()}
            for name, of in right.items()
        },
        "learned": {
            name: stat(of[:, data.rows[trained_on(name)].train].mean(axis=1)) for name, of in right.items()
        },
        "lengths": {"bins": bins, "accuracy": by_length},
        "templates": {"first": first, "second": second, "accuracy": by_template},
        "broken": {split: broken(data, split, given[split][0], right) for split in SPLITS},
    }


def length_bins(length: np.ndarray, cut: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Returns bins `[(first, last), ...]` of lengths and the bin of each; none has both sides of the cut."""
    longest = int(length.max())
    width = -(-longest // BINS)
    before = -cut % width  # lengths that the first bin lacks
    starts = range(1 - before, longest + 1, width)
    bins = [(max(first, 1), min(first + width - 1, longest)) for first in starts]
    return bins, (length - 1 + before) // width


def trained_on(name: str) -> str:
    """Returns the split whose training part a network or mask has learned."""
    split = name.removeprefix("direct ")
    return split if split in SPLITS else "simple"


def _defined(values: np.ndarray) -> list[dict[str, Any] | None]:
    """Returns a Stat of each column of `[runs, columns]` over the runs in which it is defined."""
    finite = (column[np.isfinite(column)] for column in values.T)
    return [stat(column) if column.size else None for column in finite]


def broken(
    data: Data, split: str, given: np.ndarray, right: Mapping[str, np.ndarray]
) -> list[dict[str, str]]:
    """Returns commands of a split's test part that break under its mask and not under the control's."""
    test = data.rows[split].test
    before, after = right["control"][0, test], right[split][0, test]
    picked = measures.breaking(before, after, data.scan.examples["target_length"][test], SHOWN)
    return [
        {
            "command": data.scan.commands[row],
            "expected": data.scan.actions[row],
            "got": " ".join(decode(given[row : row + 1], ACTIONS)[0]),
        }
        for row in test[picked].tolist()
    ]


if __name__ == "__main__":
    cli.main("scan", PRESETS, run, validate, estimator=configs.make_estimator)
