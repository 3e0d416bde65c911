"""Which weights does a single class need? (Csordas et al. 2021, section 5 and appendix C.7)

A network learns to tell ten classes. A control mask keeps the weights that it uses; then a mask is trained
without each class in turn, the output layer's mask being the control's. The weights that are gone were there
for that class alone: its accuracy drops, and the confusion matrix tells what it is now taken for. Figures 6
and 18 to 21 of the paper.

    python -m experiments.class_removal --preset=quick                    # scikit-learn's digits
    python -m experiments.class_removal --preset=cpu --data_dir=DIR       # CIFAR-10, simple CNN
    python -m experiments.class_removal --preset=cpu --data_dir=DIR --config.architecture=cnn-no-dropout
    python -m experiments.class_removal --preset=paper --data_dir=DIR     # beta of the paper
    python -m experiments.class_removal --preset=code --data_dir=DIR      # beta of the authors' code
    python -m experiments.class_removal --preset=resnet110 --data_dir=DIR
    python -m experiments.class_removal --preset=resnet110 --config.beta=4e-5   # the code's alpha

The README's table has times and numbers.
"""

import base64
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs
from jaxmod.analysis.confusion import class_confusion, largest_other_drop, relative_drop
from jaxmod.analysis.sharing import remaining
from jaxmod.class_masks import ClassMasks, find_class_masks
from jaxmod.data.images import CLASSES
from jaxmod.reports import array_stat, percent, stat
from jaxmod.summary import check
from jaxmod.vision import networks, study
from jaxmod.vision.networks import MASKED, OUTPUT, ImageData
from jaxmod.vision.study import StudyConfig

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
NAMES = {"cifar10": CIFAR10, "fashion_mnist": FASHION}
"""Of classes; those of other data sets are their digits."""
SWAPS = {
    **{"cat": ("dog",), "dog": ("cat",), "airplane": ("bird", "ship")},
    **{"automobile": ("truck",), "truck": ("automobile",)},
}
"""What the paper says a class of CIFAR-10 is taken for when its weights are gone."""
SHOWN = 3
"""Images of each class in the figure."""


@dataclasses.dataclass
class Config(StudyConfig):
    """The paper's values for the simple CNN are the defaults."""

    mask_batch_size: int = 128  # alpha = beta / mask_batch_size


PRESETS = {
    # A logit falls by the rate at each step at most: 1e-3 would take 2,000 steps from 2 to 0.
    "quick": Config(
        dataset="digits", channels=(16, 32, 64), seeds=1, network_steps=800, mask_steps=600,
        mask_learning_rate=3e-2, beta=3e-3, chunk_steps=200,
    ),
    "cpu": Config(
        seeds=1, network_steps=8_000, mask_steps=2_000, mask_learning_rate=1e-2, chunk_steps=250, beta=3e-4,
    ),
    "paper": Config(),
    "code": Config(beta=3e-4),
    "resnet110": Config(
        architecture="resnet", network_steps=64_000, network_learning_rate=0.1, mask_steps=30_000,
        mask_learning_rate=0.03, mask_batch_size=256, beta=2e-5,
    ),
}  # fmt: skip


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, or data that are not there, before any work."""
    configs.check_positive(config, "mask_batch_size")
    study.check(config, config.mask_batch_size)


def mask_config(config: Config) -> jm.MaskConfig:
    """Returns how masks are trained."""
    return study.mask_config(config, config.mask_batch_size)


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: networks, masks, and what each class is taken for without its weights."""
    data = study.load_data(config)
    keys, _ = configs.run_keys(config)
    functions = study.functions_of(config, data)

    # 1. Train the networks.
    stage = workdir.stage("network") if workdir else None
    variables = study.train(config, functions, data, keys, stage, progress)

    # 2. Freeze the weights; train the control mask, then a mask without each class.
    masks = find_class_masks(
        functions.mask_loss,
        variables,
        data.train["label"],
        output=OUTPUT,
        keys=keys,
        estimator=configs.make_estimator(config),
        where=MASKED,
        stage=lambda name: workdir.stage(name) if workdir else None,
        config=mask_config(config),
        data=data.train,
        evaluate=functions.right,
        progress=progress,
    )
    if workdir:
        named = {f"without {c}": module.mask for c, module in enumerate(masks.without)}
        jm.save_masks(workdir.path / "masks.npz", {"control": masks.control.mask, **named})

    # 3. What is each class taken for?
    def compute() -> dict[str, Any]:
        return measure(functions, variables, masks, data)

    measured = workdir.part("confusion", compute) if workdir else compute()
    results = {
        "question": "Which weights does a single class need, and what is it taken for without them?",
        "notes": [f"{data.source}."],
        "model": config.architecture,
        "runs": config.seeds,
        "removal": {"classes": class_names(config.dataset), **describe(measured)},
    }
    return results | {"tables": tables(results["removal"]), "checks": checks(results["removal"])}


def class_names(dataset: str) -> list[str]:
    """Returns what the classes of a data set are called."""
    return list(NAMES.get(dataset, map(str, range(CLASSES))))


def measure(
    functions: networks.Functions, variables: Any, masks: ClassMasks, data: ImageData
) -> dict[str, Any]:
    """Returns confusion matrices in percent, `[runs][true][seen]`, what remains, and images that flip."""
    image, label = jnp.asarray(data.valid["image"]), jnp.asarray(data.valid["label"])

    def seen(mask: Any) -> np.ndarray:
        masked = variables if mask is None else jm.apply_mask(variables, mask)
        return np.asarray(networks.predict(functions, masked, image))

    def confusion(predicted: np.ndarray) -> list[Any]:
        return [np.asarray(class_confusion(jnp.asarray(run), label, CLASSES)).tolist() for run in predicted]

    control = seen(masks.control.mask)
    without = [seen(module.mask) for module in masks.without]
    kept = jax.vmap(lambda mask, control: remaining(mask, control)["total"])
    return {
        "accuracy": (seen(None) == data.valid["label"]).mean(axis=1).tolist(),
        "control accuracy": (control == data.valid["label"]).mean(axis=1).tolist(),
        "density": np.asarray(jax.vmap(jm.density)(masks.control.mask)).tolist(),
        "control": confusion(control),
        "without": [confusion(predicted) for predicted in without],
        "remaining": [np.asarray(kept(m.mask, masks.control.mask)).tolist() for m in masks.without],
        "flips": [flips(c, control[0], predicted[0], data.valid) for c, predicted in enumerate(without)],
    }


def flips(c: int, control: np.ndarray, without: np.ndarray, valid: Any) -> list[dict[str, Any]]:
    """Returns the first images of a class that are seen right until its weights are gone."""
    rows = np.flatnonzero((valid["label"] == c) & (control == c) & (without != c))[:SHOWN]
    return [
        {
            "seen": int(without[row]),
            "shape": valid["image"][row].shape,
            "pixels": base64.b64encode(valid["image"][row].tobytes()).decode(),
        }
        for row in rows.tolist()
    ]


def describe(measured: dict[str, Any]) -> dict[str, Any]:
    """Returns statistics over runs of what was measured.

    A drop is in percent of the accuracy under the control mask. Runs in which it is undefined are left out:
    that accuracy is 0, or, for the largest drop of another class, the class itself does not drop. None if no
    run is left.
    """
    control, without = np.array(measured["control"]), np.array(measured["without"])  # [runs], [class, runs]
    drop = np.array(jax.vmap(jax.vmap(relative_drop), (0, None))(jnp.asarray(without), jnp.asarray(control)))
    own = np.array([drop[c, :, c] for c in range(CLASSES)])  # [class, runs]
    others = np.array([np.delete(drop[c], c, axis=1).mean(axis=1) for c in range(CLASSES)])
    largest = np.array(
        [[float(largest_other_drop(jnp.asarray(x), c)) for x in drop[c]] for c in range(CLASSES)]
    )
    differences = without - control[None]
    return {
        "accuracy": stat(measured["accuracy"]),
        "control accuracy": stat(measured["control accuracy"]),
        "density": stat(measured["density"]),
        "control": array_stat(control),
        # Each network's too, for `experiments.compare`.
        "differences": [{**array_stat(x), "runs": np.round(x, 4).tolist()} for x in differences],
        "drop": [_defined(x) for x in own],
        "others' drop": [_defined(x) for x in others],
        "largest other drop": [_defined(x) for x in largest],
        "remaining": [stat(x) for x in measured["remaining"]],
        "flips": measured["flips"],
    }


def _defined(values: np.ndarray) -> dict[str, Any] | None:
    finite = values[np.isfinite(values)]
    return stat(finite) if finite.size else None


def taken_for(removal: dict[str, Any], c: int) -> int:
    """Returns the class that examples of class `c` are most taken for, beyond the control mask's errors."""
    row = np.array(removal["differences"][c]["mean"][c])
    row[c] = -np.inf
    return int(np.argmax(row))


def tables(removal: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the accuracies, and what each class loses."""
    names = removal["classes"]
    accuracy = [percent(removal[key]) for key in ("accuracy", "control accuracy", "density")]
    rows = [
        [name, *(removal[key][c] for key in ("drop", "others' drop", "largest other drop")),
         percent(removal["remaining"][c]), names[taken_for(removal, c)]]
        for c, name in enumerate(names)
    ]  # fmt: skip
    return [
        {
            "title": "Accuracy (%)",
            "header": ["", "network", "control mask", "weights kept"],
            "rows": [["all classes", *accuracy]],
            "words": 1,
            "digits": 1,
        },
        {
            "title": "Classes left out (%)",
            "header": [
                "class",
                "drop",
                "mean drop of the others",
                "largest other drop",
                "remaining",
                "taken for",
            ],
            "rows": rows,
            "words": 1,
            "digits": 1,
            "note": "Drop: in percent of the accuracy under the control mask. Largest other drop: in percent "
            "of the class's own. Remaining: the part of the control mask's weights. Taken for: the class "
            "that gains most.",
        },
    ]


def checks(removal: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours; each must hold in the mean over runs."""
    names = removal["classes"]
    network, control = (100 * removal[key]["mean"] for key in ("accuracy", "control accuracy"))
    found = [
        check(
            "the control mask keeps the accuracy, to 2 points",
            "only a slight drop (C.2)",
            f"{control:.1f}% of {network:.1f}%",
            control >= network - 2,
        )
    ]
    own, others, largest = (
        np.array([s["mean"] if s else np.nan for s in removal[key]])
        for key in ("drop", "others' drop", "largest other drop")
    )
    undefined = [name for name, *of in zip(names, own, others, largest, strict=True) if np.isnan(of).any()]
    said = f"; undefined: {', '.join(undefined)}" if undefined else ""
    weakest = int(np.argmin(np.nan_to_num(own - 3 * np.maximum(others, 0), nan=np.inf)))
    found.append(
        check(
            "each class left out drops at least 3 times as much as the others do on average",
            "drops of others are small (Fig. 6b)",
            f"drops of {np.nanmin(own):.0f} to {np.nanmax(own):.0f}%; {names[weakest]}: {own[weakest]:.0f}%, "
            f"the others {others[weakest]:.1f}%{said}",
            bool((own > 0).all() and (own >= 3 * others).all()),
        )
    )
    most = np.nanmax(largest) if np.isfinite(largest).any() else np.nan
    found.append(
        check(
            "and more than any other class",
            "at most about 10% of its drop (Fig. 6b)",
            f"the largest other drop is {most:.0f}% of it{said}",
            bool((largest < 100).all()),
        )
    )
    if names == list(CIFAR10):
        for name, expected in SWAPS.items():
            other = names[taken_for(removal, names.index(name))]
            statement = f"without its weights, {name} is taken for {' or '.join(expected)}"
            found.append(check(statement, "yes (Fig. 19)", other, other in expected))
    return found


if __name__ == "__main__":
    cli.main("class_removal", PRESETS, run, validate, estimator=configs.make_estimator)
