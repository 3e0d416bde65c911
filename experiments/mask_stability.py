"""Does the same question find the same mask again? (Csordas et al. 2021, appendix B.1)

On two classes of the images a mask is trained over a network that knows ten; then again. How much have both
in common (IoU), and which of the reasons to differ counts: the order of the data, the noise of the masks, or
how long they are trained? Beside each number stands what random masks of the same sizes have in common.

    python -m experiments.mask_stability --preset=quick                    # scikit-learn's digits
    python -m experiments.mask_stability --preset=cpu --data_dir=DIR       # CIFAR-10, simple CNN, no dropout
    python -m experiments.mask_stability --preset=cpu --data_dir=DIR --config.architecture=cnn
    python -m experiments.mask_stability --preset=paper --data_dir=DIR     # beta of the paper
    python -m experiments.mask_stability --preset=code --data_dir=DIR      # beta of the authors' code

Every layer is trained. (In the authors' code all masks but the first have the first one's output layer, which
was trained on other classes.) The pairs of classes are the same for all networks.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs, trees
from jaxmod.analysis.chance import chance_overlap
from jaxmod.analysis.sharing import sharing, weights_kept
from jaxmod.data.images import CLASSES
from jaxmod.reports import stat
from jaxmod.summary import check
from jaxmod.types import BinaryMask
from jaxmod.vision import networks, study
from jaxmod.vision.networks import MASKED, OUTPUT, ImageData
from jaxmod.vision.study import StudyConfig

CHANGES = ("order and noise", "order", "noise", "twice the steps")
"""What differs between the first training of a mask and the others."""


@dataclasses.dataclass
class Config(StudyConfig):
    """The paper's values are the defaults."""

    architecture: str = "cnn-no-dropout"  # or cnn, resnet
    pairs: int = 10  # of classes, of the 90 ordered ones
    changes: tuple[str, ...] = CHANGES


PRESETS = {
    "quick": Config(
        dataset="digits", channels=(16, 32, 64), pairs=3, seeds=1, network_steps=800,
        mask_steps=600, mask_learning_rate=3e-2, beta=3e-3, chunk_steps=200,
    ),
    # A logit falls by the rate at each step at most: 1e-3 would take 2,000 steps from 2 to 0.
    "cpu": Config(
        pairs=3, seeds=1, changes=CHANGES[:1], network_steps=8_000, mask_steps=5_000, mask_learning_rate=1e-2,
        chunk_steps=250, beta=3e-4,
    ),
    "paper": Config(),
    "code": Config(beta=3e-4),
}  # fmt: skip


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    for name in config.changes or ("",):
        configs.check_choice("changes", name, CHANGES)
    configs.check_positive(config, "pairs")
    if config.pairs > CLASSES * (CLASSES - 1):
        raise ValueError(f"pairs={config.pairs}: ten classes have {CLASSES * (CLASSES - 1)} ordered pairs.")
    study.check(config)
    if "noise" in config.changes and not configs.make_estimator(config).stochastic:
        raise ValueError(
            f"changes={','.join(config.changes)}: masks of estimator={config.estimator} have no noise; give "
            "the other changes, or another estimator."
        )


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns how much masks have in common that are trained twice, and in which respects it counts."""
    data = study.load_data(config)
    keys, _ = configs.run_keys(config)
    functions = study.functions_of(config, data)

    def stage(name: str) -> Any:
        return workdir.stage(name) if workdir else None

    # 1. Train the networks on all classes.
    variables = study.train(config, functions, data, keys, stage("network"), progress)

    # 2. Freeze the weights; train a mask on each pair of classes, then again with one thing changed.
    pairs = draw_pairs(config)
    find = functools.partial(find_masks, config, functions, variables, data, pairs, progress=progress)
    first = find(keys, stage=stage("first"))
    found = {}
    for change in config.changes:
        again = find(keys, change, stage=stage(change.replace(" ", "-")))
        found[change] = {name: compare(first[name], again[name]) for name in first}
    results = {
        "question": "How much do two masks have in common that are trained on the same two classes?",
        "notes": [f"{data.source}.", f"{config.mask_steps} steps for each mask."],
        "model": config.architecture,
        "runs": config.seeds,
        "network accuracy": stat(accuracy(functions, variables, data)),
        "stability": {change: describe(list(of.values())) for change, of in found.items()},
        "pairs": list(first),
    }
    return results | {"tables": [table(results)], "checks": checks(results)}


def draw_pairs(config: Config) -> list[tuple[int, int]]:
    """Returns different ordered pairs of classes."""
    ordered = [(a, b) for a in range(CLASSES) for b in range(CLASSES) if a != b]
    chosen = np.random.default_rng([config.seed, 1]).choice(len(ordered), config.pairs, replace=False)
    return [ordered[i] for i in chosen]


def find_masks(
    config: Config,
    functions: networks.Functions,
    variables: Any,
    data: ImageData,
    pairs: list[tuple[int, int]],
    keys: jax.Array,
    change: str = "",
    *,
    stage: Any,
    progress: bool,
) -> dict[str, BinaryMask]:
    """Returns the mask of every pair of classes, leading runs axis.

    Changes are made with as little else as can be: another order of the examples leaves the noise bit for bit
    as it was, another generator of the noise leaves the batches. Twice the steps are the first training and
    as many more.
    """
    if change == "order and noise":
        keys = jax.vmap(functools.partial(jax.random.fold_in, data=_AGAIN))(keys)
    label = data.train["label"]
    rows = {f"{a} and {b}": np.flatnonzero((label == a) | (label == b)) for a, b in pairs}
    if change == "order":
        rows = {name: np.random.default_rng([config.seed, 2]).permutation(x) for name, x in rows.items()}
    if change == "noise":
        config = dataclasses.replace(config, noise="jax" if config.noise == "mix32" else "mix32")
    found = jm.find_modules(
        functions.mask_loss,
        variables,
        rows,
        keys=keys,
        config=study.mask_config(config, times=2 if change == "twice the steps" else 1),
        where=MASKED,
        estimator=configs.make_estimator(config),
        data=data.train,
        evaluate=functions.right,
        params_axis=0,
        workdir=stage,
        progress=progress,
    )
    return {name: module.mask for name, module in found.items()}


_AGAIN = 1001  # a stream of the run's key beside those of its training, which count from 0


def compare(first: BinaryMask, again: BinaryMask) -> dict[str, list[float]]:
    """Returns IoU and what chance would give, of each run, with and without the output layer."""
    hidden = [
        trees.map_with_path(lambda path, m: None if re.fullmatch(OUTPUT, path) else m, mask)
        for mask in (first, again)
    ]
    iou, chance = _iou(first, again)
    hidden_iou, hidden_chance = _iou(*hidden)
    kept = np.asarray(jax.vmap(lambda mask: weights_kept(mask)["total"])(first))
    return {
        **{"IoU": iou, "chance": chance, "IoU, hidden layers": hidden_iou},
        **{"chance, hidden layers": hidden_chance, "weights": kept.tolist()},
    }


def _iou(first: BinaryMask, again: BinaryMask) -> tuple[list[float], list[float]]:
    """Returns the IoU of each run, and that of random masks with as many weights in each layer."""
    iou = jax.vmap(lambda *pair: sharing(*pair)["total"].iou)(first, again)
    sizes = [jax.vmap(lambda mask: weights_kept(mask)["total"])(mask) for mask in (first, again)]
    a, b = (np.asarray(size, np.float64) for size in sizes)
    shared = np.asarray(chance_overlap(first, again, runs_axis=0)["total"].expected, np.float64) * a
    return np.asarray(iou).tolist(), (shared / np.maximum(a + b - shared, 1)).tolist()


def describe(of: list[Mapping[str, list[float]]]) -> dict[str, Any]:
    """Returns Stats over all networks and pairs."""
    return {name: stat([x for pair in of for x in pair[name]]) for name in of[0]}


def accuracy(functions: networks.Functions, variables: Any, data: ImageData) -> list[float]:
    """Returns the accuracy of the networks on the validation images."""
    seen = networks.predict(functions, variables, jnp.asarray(data.valid["image"]))
    return (np.asarray(seen) == data.valid["label"]).mean(axis=1).tolist()


def table(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the IoU by what was changed."""
    columns = ("IoU", "chance", "IoU, hidden layers", "chance, hidden layers", "weights")
    rows = [[change, *(of[name] for name in columns)] for change, of in results["stability"].items()]
    return {
        "title": "What two masks have in common",
        "header": ["changed", "IoU", "by chance", "IoU, hidden layers", "by chance", "weights of the first"],
        "rows": rows,
        "words": 1,
        "digits": 3,
        "note": "Mean and standard deviation over networks and pairs of classes "
        f"({', '.join(results['pairs'])}). By chance: random masks with as many weights in each layer.",
    }


_SAID = {"twice the steps": "masks trained on for as long again"}


def checks(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statement beside ours."""
    rows = []
    for change, of in results["stability"].items():
        iou, chance = of["IoU"], of["chance"]["mean"]
        rows.append(
            check(
                f"{_SAID.get(change, f'masks trained twice, other {change}')}: IoU above 0.85 and chance",
                "0.933 ± 0.010 (B.1)" if change == "order and noise" else "(in no paper)",
                f"{iou['mean']:.3f}, by chance {chance:.3f}",
                iou["mean"] > 0.85 and iou["mean"] > chance,
            )
        )
    return rows


if __name__ == "__main__":
    cli.main("mask_stability", PRESETS, run, validate, estimator=configs.make_estimator)
