"""Addition / multiplication: does a network keep two operations apart? (Csordas et al. 2021, 4.1)

Figures 1, 7, 10, 11, 12 of the paper. A network adds or multiplies two two-digit numbers modulo 100,
as a one-hot operation tells it. A control mask is trained on all data, then one mask on additions and
one on multiplications alone, always over the same frozen weights. Does each mask perform its own
operation only, and how many weights do the two share?

    python -m experiments.addmul --preset=quick            # FNN 400,400,200
    python -m experiments.addmul --preset=cpu              # the same, the paper's steps, 3 seeds
    python -m experiments.addmul --preset=cpu --config.model=lstm
    python -m experiments.addmul --preset=paper            # FNN 2000,2000,2000,2000, 10 seeds

The README's table has times and numbers. The half-mask test masks the first half of the layers (rounded up)
for the LSTM as well, where the authors' code draws halves at random.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs
from jaxmod.analysis.confusion import operation_confusion
from jaxmod.analysis.inversion import first_half
from jaxmod.data.arithmetic import OPERATIONS, candidate_labels, load_addmul, split_by_operation
from jaxmod.models import is_outer, layer_labels
from jaxmod.models.arithmetic import addmul_network
from jaxmod.models.fnn import SIZES
from jaxmod.reports import array_stat
from jaxmod.summary import check, summarise
from jaxmod.train.steps import without_state


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults."""

    model: str = "fnn"  # or lstm
    hidden: tuple[int, ...] = SIZES["big"]  # of the FNN
    lstm_hidden: int = 256  # larger over-fits (paper, B.2)
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
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    clip_norm: float = 1.0
    chunk_steps: int = 1000


PRESETS = {
    "quick": Config(hidden=SIZES["small"], seeds=1, network_steps=8_000, mask_steps=10_000),
    "cpu": Config(hidden=SIZES["small"], lstm_hidden=128, seeds=3),
    "paper": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, before any work."""
    configs.check_training(config, fewest_layers=2)


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: networks, then the control and the operations' masks, then the analyses."""
    train, valid = load_addmul("train"), load_addmul("valid")
    keys, control_key = configs.run_keys(config)
    init, predict, loss_fn, evaluate = addmul_network(configs.make_model(config, outputs=20))

    # 1. Train the networks on both operations.
    network = jm.train_network(
        without_state(loss_fn),
        init,
        train,
        keys=keys,
        config=configs.network_config(config),
        optimizer=configs.network_optimizer(config),
        evaluate=evaluate,
        workdir=workdir,
        progress=progress,
    )

    # 2. Freeze the weights; train the control mask on everything, a mask on each operation alone.
    found = jm.find_modules(
        loss_fn,
        network.params,
        split_by_operation(train, whole="control"),
        keys=keys,
        config=configs.mask_config(config),
        estimator=configs.make_estimator(config),
        data=train,
        evaluate=evaluate,
        params_axis=0,
        workdir=workdir,
        progress=progress,
    )
    masks = {name: module.mask for name, module in found.items()}
    if workdir:
        jm.save_masks(workdir.path / "masks.npz", masks)

    # 3. What does each mask, its complement and a random mask of its size perform?
    tasks = split_by_operation(valid, whole="iid")
    labels = layer_labels(network.params)
    table = jm.evaluate(
        evaluate,
        network.params,
        masks,
        tasks,
        data=valid,
        params_axis=0,
        key=control_key,
        control="control",
        first_half=first_half(list(labels), round_up=True),
    )
    results = {
        "question": "Which weights add, which multiply, and how many do both operations share?",
        "notes": [
            "Validation sums all occur in training, as in the paper: this is no claim of generalisation."
        ],
        "model": config.model,
        "runs": config.seeds,
        **summarise(found, table, labels, tasks=OPERATIONS, histogram=config.estimator == "gumbel_sigmoid"),
        "confusion": {
            name: confusion(predict, network.params, mask, valid)
            for name, mask in (masks | {f"not {n}": jm.invert(m) for n, m in masks.items()}).items()
        },
    }
    return results | {"checks": checks(results)}


def confusion(predict, params, mask, valid) -> dict[str, Any]:
    """Returns which operation's answer comes out when one is asked for, in percent (Fig. 12)."""
    examples = jax.tree.map(jnp.asarray, valid)

    def one(run):
        predicted = jnp.argmax(predict(jm.apply_mask(*run), examples), axis=-1)
        return operation_confusion(predicted, candidate_labels(examples["digits"]), examples["op"])

    percent = np.asarray(jax.lax.map(one, (params, mask)))
    return {
        "rows": list(OPERATIONS),
        "columns": [*OPERATIONS, "none"],
        "percent": array_stat(percent),
    }


def checks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours; each must hold in the mean over runs."""
    accuracy = {m: {t: s["mean"] for t, s in row.items()} for m, row in results["accuracy"].items()}
    unmasked, control = accuracy["unmasked"]["iid"], accuracy["control"]["iid"]
    own = [accuracy[op][op] for op in OPERATIONS]
    other = [accuracy["add"]["mul"], accuracy["mul"]["add"]]
    total = {op: results["sharing"][op]["total"]["mean"] for op in OPERATIONS}
    io_layers = [layer for layer in results["layers"] if is_outer(layer)]
    outer = np.mean([results["sharing"]["add"][layer]["mean"] for layer in io_layers])
    hidden = [layer for layer in results["layers"] if layer not in io_layers]
    inner = np.mean([results["sharing"]["add"][layer]["mean"] for layer in hidden])
    wrong = [np.array(results["confusion"][op]["percent"]["mean"]) for op in OPERATIONS]
    follows = [wrong[0][1, 0], wrong[1][0, 1]]
    expected = "the mask's own operation" if results["model"] == "fnn" else "mostly neither answer"
    nothing = [wrong[0][1, 2], wrong[1][0, 2]]
    return [
        check(
            "the control mask keeps the accuracy",
            "above 95% of the unmasked accuracy (C.2)",
            f"{control:.4f} of {unmasked:.4f}",
            control >= 0.95 * unmasked,
        ),
        check(
            "each mask performs its own operation",
            "high",
            f"add {own[0]:.3f}, mul {own[1]:.3f}",
            min(own) >= 0.9,
        ),
        check(
            "and not the other one",
            "broken (Fig. 10)",
            f"mul with the add mask {other[0]:.3f}, add with the mul mask {other[1]:.3f}",
            max(other) <= 0.05,
        ),
        check(
            "multiplication needs more weights",
            "3.8 times (Fig. 11)",
            f"{results['weights_ratio']['mean']:.2f} times",
            results["weights_ratio"]["mean"] >= 1.5,
        ),
        check(
            "input and output layers are shared more than hidden ones",
            "yes (Fig. 1)",
            f"share of the add mask: {outer:.2f} outer, {inner:.2f} inner",
            outer > inner,
        ),
        check(
            "the larger mask shares a smaller part of itself",
            "yes (Fig. 1)",
            f"add {total['add']:.2f}, mul {total['mul']:.2f}",
            total["mul"] < total["add"],
        ),
        check(
            "asked for the other operation, a masked network gives",
            f"{expected} (Fig. 12)",
            f"the mask's own: {follows[0]:.0f}%, {follows[1]:.0f}%; "
            f"neither: {nothing[0]:.0f}%, {nothing[1]:.0f}%",
            min(follows) > 50 if results["model"] == "fnn" else min(nothing) > 50,
        ),
        check(
            "inverted masks perform poorly",
            "yes (Fig. 10)",
            ", ".join(f"not {op}: {max(accuracy[f'not {op}'].values()):.3f}" for op in OPERATIONS),
            max(max(accuracy[f"not {op}"].values()) for op in OPERATIONS) < 0.5,
        ),
    ]


if __name__ == "__main__":
    cli.main("addmul", PRESETS, run, validate, estimator=configs.make_estimator)
