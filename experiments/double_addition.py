"""Double addition: is the same function reused? (Csordas et al. 2021, 4.1)

Figures 2, 7, 13, 14 of the paper. A network adds two pairs of two-digit numbers modulo 100; inputs and
outputs of the pairs are separate, the function is the same. A control mask is trained on both pairs,
then a mask on each pair alone. Do the two masks share weights, as one adder would, and does the network
still add the other pair when a pair's mask is inverted?

    python -m experiments.double_addition --preset=quick           # FNN 400,400,200
    python -m experiments.double_addition --preset=cpu             # FNN 400,400,400,400, 3 seeds
    python -m experiments.double_addition --preset=cpu --config.copy_weights=true
    python -m experiments.double_addition --preset=cpu --config.model=lstm [--config.mode=one_at_a_time]
    python -m experiments.double_addition --preset=paper           # FNN 2000,2000,2000,2000, 10 seeds

The README's table has times and numbers.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import cli, configs
from jaxmod.analysis.inversion import first_half
from jaxmod.data.arithmetic import encode_double_addition, load_double_addition
from jaxmod.losses import all_digits_right, digit_cross_entropy
from jaxmod.models import is_outer, layer_labels
from jaxmod.models.fnn import SIZES
from jaxmod.summary import check, summarise
from jaxmod.train.steps import without_state

PAIRS = ("pair 1", "pair 2")
STEPS_PER_PAIR = 3


class Mode(NamedTuple):
    """How the LSTM sees the pairs and says the sums, over two times three steps."""

    input_in_turn: bool
    shared_input: bool
    output_in_turn: bool
    shared_output: bool


MODES = {
    "together": Mode(False, False, False, False),  # the paper's Fig. 2
    "one_at_a_time": Mode(True, False, True, False),  # the paper's Fig. 14
    "only_one": Mode(True, False, False, False),
    "same_input": Mode(True, True, False, False),
    "same_output": Mode(False, False, True, True),
    "same_io": Mode(True, True, True, True),
}


@dataclasses.dataclass
class Config:
    """The paper's values are the defaults; those of the FNN, where the models differ."""

    model: str = "fnn"  # or lstm
    mode: str = "together"  # of the LSTM, one of MODES
    hidden: tuple[int, ...] = SIZES["big"]  # of the FNN
    lstm_hidden: int = 256
    copy_weights: bool = False  # positive control: pair 1 gets pair 2's wiring, so both share one adder
    zero_other_pair: bool = True  # LSTM, masks of a pair: its inputs alone are shown (the authors' code)
    seeds: int = 10
    seed: int = 0
    network_steps: int = 20_000
    network_learning_rate: float = 1e-3
    mask_steps: int = 20_000
    mask_learning_rate: float = 1e-2
    batch_size: int = 128  # examples of two pairs; the FNN sees each pair as an example of its own
    num_samples: int = 4  # for `batch_size` examples; the FNN draws as many for each pair
    fnn_beta: float = 4e-4  # alpha = beta / batch_size
    lstm_beta: float = 1e-4
    estimator: str = "gumbel_sigmoid"  # or edge_popup, hard_concrete: jaxmod.configs.make_estimator
    top_q: float = 0.05  # part of the weights that edge_popup keeps; beta is nothing to it
    temperature: float = 1.0  # of gumbel_sigmoid
    noise: str = "mix32"  # of the masks; or jax: the bits of jax.random
    bfloat16: bool = False  # frozen weights and activations of mask training; for accelerators
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    clip_norm: float = 1.0
    chunk_steps: int = 1000

    @property
    def beta(self) -> float:
        """The model's own."""
        return self.fnn_beta if self.model == "fnn" else self.lstm_beta

    @property
    def views(self) -> int:
        """How often the network sees an example: the FNN is shown the pairs one by one."""
        return 2 if self.model == "fnn" else 1


PRESETS = {
    "quick": Config(hidden=SIZES["small"], seeds=1, network_steps=5_000, mask_steps=3_000),
    "cpu": Config(hidden=(400,) * 4, lstm_hidden=128, seeds=3, network_steps=10_000, mask_steps=10_000),
    "paper": Config(),
}


def validate(config: Config) -> None:
    """Raises ValueError for values that cannot work, before any work."""
    configs.check_training(config, fewest_layers=2)
    configs.check_choice("mode", config.mode, MODES)
    if config.model == "lstm" and config.copy_weights:
        raise ValueError("copy_weights=True: only the FNN has separate wiring to copy; use model=fnn.")
    if config.model == "fnn" and config.mode != "together":
        raise ValueError(f"mode={config.mode!r} is one of the LSTM's; use model=lstm.")


def make_network(config: Config):
    """Returns `init(key) -> params` and `predict(params, digits, shown) -> outputs`.

    The outputs are `[batch, pair, 2, 10]`; `shown` `[batch, pair]` is 0 where a pair's inputs are zeroed.
    """
    mode = MODES[config.mode]
    model = configs.make_model(config, outputs=20 if mode.shared_output else 40)

    def see(digits, shown):
        encoded = encode_double_addition(digits, shown)
        return encoded if config.model == "fnn" else lstm_inputs(mode, encoded)

    def init(key):
        return model.init(key, see(jnp.zeros((1, 2, 4), jnp.uint8), jnp.ones((1, 2))))["params"]

    def predict(params, digits, shown):
        x = see(digits, shown).astype(jax.tree.leaves(params)[0].dtype)
        outputs: Any = model.apply({"params": params}, x)
        return outputs.reshape(-1, 2, 2, 10) if config.model == "fnn" else lstm_answers(mode, outputs)

    return init, predict


def lstm_inputs(mode: Mode, encoded):
    """Returns `[batch, 6, 80 or 40]` from the encoded pairs `[batch, 80]`."""
    pairs = encoded.reshape(-1, 2, 40)
    steps = []
    for step in range(2 * STEPS_PER_PAIR):
        turn = step // STEPS_PER_PAIR
        if mode.shared_input:
            steps.append(pairs[:, turn])
        elif mode.input_in_turn:
            steps.append((pairs * jax.nn.one_hot(turn, 2)[None, :, None]).reshape(-1, 80))
        else:
            steps.append(encoded)
    return jnp.stack(steps, axis=1)


def lstm_answers(mode: Mode, outputs):
    """Returns `[batch, pair, 2, 10]` from the outputs at all steps, read at the pair's last or the last."""
    digits = outputs.reshape(*outputs.shape[:2], -1, 2, 10)
    last = 2 * STEPS_PER_PAIR - 1
    steps = (STEPS_PER_PAIR - 1 if mode.output_in_turn else last, last)
    slots = (0, 0) if mode.shared_output else (0, 1)
    return jnp.stack([digits[:, step, slot] for step, slot in zip(steps, slots, strict=True)], axis=1)


def make_task(config: Config, pairs: tuple[int, ...]):
    """Returns `sample_batch(key, batch_size, data)` for the sums of these pairs.

    For the FNN each pair is an example of its own, the first pair's first: with twice the samples, each
    of them sees one pair only, as if the network were called twice.
    """

    def sample_batch(key, batch_size, data):
        one_each = config.model == "fnn"
        count = batch_size // len(pairs) if one_each else batch_size
        rows = jax.random.randint(key, (count,), 0, len(data["labels"]))
        batch = jax.tree.map(lambda x: x[rows], data)
        if one_each:
            slots = [jnp.broadcast_to(jax.nn.one_hot(pair, 2), (count, 2)) for pair in pairs]
            wanted = shown = jnp.concatenate(slots)
            batch = jax.tree.map(lambda x: jnp.concatenate([x] * len(pairs)), batch)
        else:
            wanted = jnp.broadcast_to(sum(jax.nn.one_hot(pair, 2) for pair in pairs), (count, 2))
            shown = wanted if config.zero_other_pair else jnp.ones((count, 2))
        return {**batch, "shown": shown, "wanted": wanted}

    return sample_batch


def copy_second_pair(params):
    """Returns the FNN with pair 2's input and output wiring copied onto pair 1's: a positive control."""
    first, output = params["layer_1"], params["output"]
    kernel, out, bias = first["kernel"], output["kernel"], output["bias"]
    return params | {
        "layer_1": first | {"kernel": kernel.at[:40].set(kernel[40:])},
        "output": {"kernel": out.at[:, :20].set(out[:, 20:]), "bias": bias.at[:20].set(bias[20:])},
    }


def run(config: Config, workdir: jm.Workdir | None = None, progress: bool = False) -> dict[str, Any]:
    """Returns the results: networks, then the control and the pairs' masks, then the analyses."""
    train, valid = load_double_addition("train"), load_double_addition("valid")
    keys, control_key = configs.run_keys(config)
    init, predict = make_network(config)
    train = jax.tree.map(jnp.asarray, train)

    def loss_fn(params, batch, key):
        del key
        answers = predict(params, batch["digits"], batch["shown"])
        per_pair = jax.vmap(digit_cross_entropy, in_axes=1, out_axes=1)(answers, batch["labels"])
        return jnp.mean(jnp.sum(batch["wanted"] * per_pair, axis=1) / jnp.sum(batch["wanted"], axis=1))

    def evaluate(params, batch):
        count = len(batch["labels"])
        if config.model == "fnn":  # one call for each pair, the other pair zeroed
            shown = jnp.broadcast_to(jnp.eye(2)[:, None], (2, count, 2))
            answers = [predict(params, batch["digits"], shown[pair])[:, pair] for pair in range(2)]
            answers = jnp.stack(answers, axis=1)
        else:
            answers = predict(params, batch["digits"], jnp.ones((count, 2)))
        right = jax.vmap(all_digits_right, in_axes=1, out_axes=1)(answers, batch["labels"])
        return {"accuracy": jnp.all(right | (batch["wanted"] == 0), axis=1)}

    # 1. Train the networks on both pairs.
    both = make_task(config, (0, 1))
    network = jm.train_network(
        without_state(loss_fn),
        init,
        both,
        data=train,
        keys=keys,
        config=configs.network_config(config, views=config.views),
        optimizer=configs.network_optimizer(config),
        evaluate=evaluate,
        workdir=workdir,
        progress=progress,
    )
    params = jax.vmap(copy_second_pair)(network.params) if config.copy_weights else network.params

    # 2. Freeze the weights; train the control mask on both pairs, a mask on each pair alone.
    found = jm.find_modules(
        loss_fn,
        params,
        {"control": both} | {name: make_task(config, (pair,)) for pair, name in enumerate(PAIRS)},
        keys=keys,
        config=configs.mask_config(config, views=config.views),
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

    # 3. What does each mask, its complement and a random mask of its size perform on either pair?
    count = len(valid["labels"])
    wanted = {"iid": (1, 1), "pair 1": (1, 0), "pair 2": (0, 1)}
    tasks = {
        name: valid | {"wanted": np.tile(np.array(pair, np.float32), (count, 1))}
        for name, pair in wanted.items()
    }
    labels = layer_labels(params)
    table = jm.evaluate(
        evaluate,
        params,
        masks,
        tasks,
        params_axis=0,
        key=control_key,
        control="control",
        io_layers=[path for path, label in labels.items() if is_outer(label)],
        first_half=first_half(list(labels), round_up=False),
    )
    results = {
        "question": "Do both additions use the same weights, as one adder would?",
        "notes": [
            "Validation pairs all occur in training, as in the paper: this is no claim of generalisation."
        ],
        "model": config.model,
        "mode": config.mode,
        "runs": config.seeds,
        "copied": config.copy_weights,
        **summarise(found, table, labels, tasks=PAIRS, histogram=config.estimator == "gumbel_sigmoid"),
    }
    return results | {"checks": checks(results)}


def checks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the paper's statements beside ours, as means over runs."""
    accuracy = {mask: {t: s["mean"] for t, s in row.items()} for mask, row in results["accuracy"].items()}
    unmasked, control = accuracy["unmasked"]["iid"], accuracy["control"]["iid"]
    own = [accuracy[pair][pair] for pair in PAIRS]
    other = [accuracy["pair 1"]["pair 2"], accuracy["pair 2"]["pair 1"]]
    kept = [accuracy["not pair 1"]["pair 2"], accuracy["not pair 2"]["pair 1"]]
    lost = [accuracy["not pair 1"]["pair 1"], accuracy["not pair 2"]["pair 2"]]
    share = {
        layer: np.mean([results["sharing"][p][layer]["mean"] for p in PAIRS]) for layer in results["layers"]
    }
    outer = [share[layer] for layer in results["layers"] if is_outer(layer)]
    inner = [share[layer] for layer in results["layers"] if not is_outer(layer)]
    total = np.mean([results["sharing"][pair]["total"]["mean"] for pair in PAIRS])
    common = [
        check(
            "the control mask keeps the accuracy",
            "above 95% of the unmasked accuracy (C.2)",
            f"{control:.4f} of {unmasked:.4f}",
            control >= 0.95 * unmasked,
        ),
        check(
            "the mask of a pair solves that pair",
            "near 100% (Fig. 2)",
            f"{own[0]:.3f}, {own[1]:.3f}",
            min(own) >= 0.9,
        ),
    ]
    if results["copied"]:
        return common + [
            check(
                "with copied weights the hidden layers are shared",
                "high (a positive control of the authors' code)",
                f"{np.mean(inner):.2f} of the mask",
                np.mean(inner) > 0.5,
            )
        ]
    return common + [
        check(
            "and only that pair",
            "yes (Fig. 2)",
            f"the other pair {other[0]:.3f}, {other[1]:.3f}",
            max(other) <= 0.05,
        ),
        check(
            "without a pair's mask the other pair still works",
            "only slightly lower (Fig. 2)",
            f"{kept[0]:.3f}, {kept[1]:.3f}; the pair itself {lost[0]:.3f}, {lost[1]:.3f}",
            min(kept) >= 0.5 and max(lost) <= 0.05,
        ),
        check(
            "the masks of the pairs share little",
            "up to 25% per layer (Fig. 13)",
            f"{total:.3f} in all, at most {max(inner):.3f} in a hidden layer",
            max(inner) <= 0.25,
        ),
        check(
            "nothing in the first and last layer",
            "zero (Fig. 13)",
            ", ".join(f"{x:.3f}" for x in outer),
            max(outer) <= 0.02,
        ),
    ]


if __name__ == "__main__":
    cli.main("double_addition", PRESETS, run, validate, estimator=configs.make_estimator)
