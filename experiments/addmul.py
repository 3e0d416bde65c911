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
import optax

import jaxmod as jm
from jaxmod import cli
from jaxmod.analysis.confusion import operation_confusion
from jaxmod.analysis.inversion import first_half
from jaxmod.data.arithmetic import candidate_labels, encode_addmul, load_addmul
from jaxmod.losses import all_digits_right, digit_cross_entropy
from jaxmod.models import layer_labels
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.summary import check, half_mask_drop, summarise
from jaxmod.train.steps import without_state

OPERATIONS = ("add", "mul")
LSTM_STEPS = 3

SIZES = {"small": (400, 400, 200), "medium": (800,) * 4, "big": (2000,) * 4, "huge": (4000,) * 4}
"""The paper's feed-forward networks, by name."""


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults."""

    model: str = "fnn"  # or lstm
    hidden: tuple[int, ...] = SIZES["big"]  # of the FNN; the paper's sizes are in SIZES
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
    temperature: float = 1.0
    clip_norm: float = 1.0
    chunk_steps: int = 1000


PRESETS = {
    "quick": Config(hidden=SIZES["small"], seeds=1, network_steps=8_000, mask_steps=10_000),
    "cpu": Config(hidden=SIZES["small"], lstm_hidden=128, seeds=3),
    "paper": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, before any work."""
    cli.check_choice("model", config.model, ("fnn", "lstm"))
    cli.check_positive(
        config, "hidden", "lstm_hidden", "seeds", "network_learning_rate", "temperature", "clip_norm"
    )
    if config.model == "fnn" and len(config.hidden) < 2:
        raise ValueError(
            f"hidden={config.hidden}: expected two sizes or more, for a layer between the outer ones."
        )
    for build in (network_config, mask_config):
        build(config)  # they check their own values


def network_config(config: Config) -> jm.DenseConfig:
    """Returns how the network is trained."""
    return jm.DenseConfig(config.network_steps, config.batch_size, config.chunk_steps)


def mask_config(config: Config) -> jm.MaskConfig:
    """Returns how the masks are trained."""
    return jm.MaskConfig(
        steps=config.mask_steps,
        batch_size=config.batch_size,
        num_samples=config.num_samples,
        learning_rate=config.mask_learning_rate,
        beta=config.beta,
        clip_norm=config.clip_norm,
        chunk_steps=config.chunk_steps,
    )


def make_network(config: Config):
    """Returns `init(key) -> params` and `predict(params, batch) -> digit logits [batch, 2, 10]`."""
    if config.model == "fnn":
        model = FNN(config.hidden, outputs=20)
    else:
        model = LSTMClassifier(config.lstm_hidden, layers=2, outputs=20)

    def see(batch):
        x = encode_addmul(batch["digits"], batch["op"])
        return x if config.model == "fnn" else jnp.repeat(x[:, None], LSTM_STEPS, axis=1)

    def init(key):
        return model.init(key, see({"digits": jnp.zeros((1, 4), int), "op": jnp.zeros(1, int)}))["params"]

    def predict(params, batch):
        outputs: Any = model.apply({"params": params}, see(batch))
        last = outputs if config.model == "fnn" else outputs[:, -1]
        return last.reshape(-1, 2, 10)

    return init, predict


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: networks, then the control and the operations' masks, then the analyses."""
    train, valid = load_addmul("train"), load_addmul("valid")
    key = jax.random.key(config.seed, impl="threefry2x32")
    keys, control_key = jax.random.split(key, config.seeds), jax.random.fold_in(key, 2**31)
    init, predict = make_network(config)

    def loss_fn(params, batch, key):
        del key
        return jnp.mean(digit_cross_entropy(predict(params, batch), batch["labels"]))

    def evaluate(params, batch):
        return {"accuracy": all_digits_right(predict(params, batch), batch["labels"])}

    # 1. Train the networks on both operations.
    network = jm.train_network(
        without_state(loss_fn),
        init,
        train,
        keys=keys,
        config=network_config(config),
        optimizer=optax.chain(
            optax.clip_by_global_norm(config.clip_norm), optax.adam(config.network_learning_rate)
        ),
        evaluate=evaluate,
        workdir=workdir.stage("network") if workdir else None,
        progress=progress,
    )

    # 2. Freeze the weights; train the control mask on everything, a mask on each operation alone.
    found = jm.find_modules(
        loss_fn,
        network.params,
        split_by_operation(train, whole="control"),
        keys=keys,
        config=mask_config(config),
        estimator=jm.gumbel_sigmoid(temperature=config.temperature),
        data=train,
        evaluate=evaluate,
        params_axis=0,
        workdir=workdir.stage("masks") if workdir else None,
        progress=progress,
    )
    masks = {name: module.mask for name, module in found.items()}
    if workdir:
        jm.save_masks(workdir.path / "masks.npz", masks)

    # 3. What does each mask, its complement and a random mask of its size perform?
    tasks = split_by_operation(valid, whole="iid")
    table = jm.evaluate(
        evaluate,
        network.params,
        masks,
        tasks,
        data=valid,
        params_axis=0,
        key=control_key,
        control="control",
    )
    labels = layer_labels(network.params)
    results = {
        "question": "Which weights add, which multiply, and how many do both operations share?",
        "notes": [
            "Validation sums all occur in training, as in the paper: this is no claim of generalisation."
        ],
        "model": config.model,
        "runs": config.seeds,
        **summarise(found, table, labels, tasks=OPERATIONS),
        "confusion": {
            name: confusion(predict, network.params, mask, valid)
            for name, mask in (masks | {f"not {n}": jm.invert(m) for n, m in masks.items()}).items()
        },
        "half_mask": half_mask_drop(
            evaluate, network.params, masks["control"], first_half(list(labels), round_up=True), valid
        ),
    }
    return results | {"checks": checks(results)}


def split_by_operation(data, whole: str) -> dict[str, np.ndarray]:
    """Returns the rows of each task: everything (named `whole`), additions, multiplications."""
    rows = {whole: np.arange(len(data["op"]))}
    return rows | {name: np.flatnonzero(data["op"] == op) for op, name in enumerate(OPERATIONS)}


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
        "percent": {
            "mean": percent.mean(0).tolist(),
            "std": percent.std(0, ddof=1).tolist() if len(percent) > 1 else None,
        },
    }


def checks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours; each must hold in the mean over runs."""
    accuracy = {m: {t: s["mean"] for t, s in row.items()} for m, row in results["accuracy"].items()}
    unmasked, control = accuracy["unmasked"]["iid"], accuracy["control"]["iid"]
    own = [accuracy[op][op] for op in OPERATIONS]
    other = [accuracy["add"]["mul"], accuracy["mul"]["add"]]
    total = {op: results["sharing"][op]["total"]["mean"] for op in OPERATIONS}
    io_layers = [layer for layer in results["layers"] if layer in ("layer 1", "l0 ih", "output")]
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
    cli.main("addmul", PRESETS, run, validate)
