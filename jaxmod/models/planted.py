"""Networks with known modules: circuits trained apart, joined as blocks among weights that carry no function.

The inputs are four digits, one-hot. Circuit k computes a function of its own of two of them,

    (d_k + (k + 1) d_(k+1)) mod 5,   k = 0, 1, 2, 3, and d_4 is d_0,

with hidden layers of ReLUs and no bias. Each of three tasks has two answers: that of circuit 0, which all of
them share, and that of a circuit of its own. So the weights of a task are known, and so are those that two
tasks have in common. The rest are distractors:

    twins    pairs of units with equal inputs and opposite outputs, which cancel. They read every unit and
             write to every unit, and a mask that keeps half of a pair disturbs all circuits.
    dead     units with negative weights alone, so that they are never above zero, whatever the mask. What
             they write is never read.

Their weights are drawn from those of the circuits in the same layer, and all units of a layer are shuffled:
neither size nor place tells a distractor.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Key

from jaxmod.types import BinaryMask, Params

__all__ = [
    "BASE",
    "CIRCUITS",
    "TASKS",
    "Distractors",
    "Planted",
    "circuit_examples",
    "examples",
    "forward",
    "init_circuit",
    "one_hot",
    "plant",
    "smallest",
]

BASE = 5
"""A prime, so that every factor but 0 permutes the digits."""
TASKS: tuple[str, ...] = ("first", "second", "other")
CIRCUITS: tuple[str, ...] = ("shared", *TASKS)


class Distractors(NamedTuple):
    """How many units of each hidden layer carry no function, and how densely they are connected."""

    twins: int = 4
    """Pairs."""
    dead: int = 16
    density: float = 0.2
    """The part of their possible weights that is not zero."""


class Planted(NamedTuple):
    """A network and its modules."""

    params: Params
    truth: dict[str, BinaryMask]
    """By task: the weights of its two circuits, up to its own outputs."""
    twins: BinaryMask
    """The weights from or to a twin."""


def forward(params: Params, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """Returns the outputs of a perceptron without biases."""
    *hidden, output = _kernels(params)
    for kernel in hidden:
        x = jax.nn.relu(x @ kernel)
    return x @ output


def one_hot(digits: Int[Array, "*batch n"]) -> Float[Array, "*batch inputs"]:
    """Returns digits as inputs, one block of `BASE` for each."""
    return jax.nn.one_hot(digits, BASE).reshape(*digits.shape[:-1], -1)


def circuit_examples() -> dict[str, Int[np.ndarray, "..."]]:
    """Returns all pairs of digits and their sums modulo `BASE`: what every circuit is trained on."""
    digits = _all_digits(2)
    return {"digits": digits, "answer": digits.sum(axis=1) % BASE}


def examples() -> dict[str, Int[np.ndarray, "..."]]:
    """Returns all inputs of a joined network, `digits [n, 4]`, and `answers [n, task, 2]`.

    The second answer is that of the shared circuit.
    """
    digits = _all_digits(len(CIRCUITS))
    values = [
        (digits[:, k] + (k + 1) * digits[:, (k + 1) % len(CIRCUITS)]) % BASE for k in range(len(CIRCUITS))
    ]
    answers = [np.stack([own, values[0]], axis=1) for own in values[1:]]
    return {"digits": digits, "answers": np.stack(answers, axis=1)}


def init_circuit(key: Key[Array, ""], hidden: Sequence[int]) -> Params:
    """Returns the start of a circuit: kernels from N(0, 2 / inputs)."""
    sizes = (2 * BASE, *hidden, BASE)
    keys = jax.random.split(key, len(sizes) - 1)
    return _params(
        [
            jax.random.normal(k, shape) * (2 / shape[0]) ** 0.5
            for k, shape in zip(keys, zip(sizes, sizes[1:], strict=False), strict=True)
        ]
    )


def smallest(circuit: Params, margin: float = 1.0) -> Params:
    """Returns a trained circuit without the weights that it can spare, so that each of the rest is needed.

    One by one the weight goes that costs least, as long as for every example the right output stays `margin`
    above all others. Without any one of the weights that are left, some example falls below that.

    Raises:
      ValueError: the circuit has not learnt its function with this margin.
    """
    kept, worst = _smallest(circuit, margin)
    if worst < margin:
        raise ValueError(
            f"a circuit's right output is {worst:.3g} above the others at worst, expected {margin} or more; "
            "train it for longer, or prune it less."
        )
    return kept


@jax.jit
def _smallest(circuit: Params, margin: ArrayLike) -> tuple[Params, Float[Array, ""]]:
    flat, unravel = jax.flatten_util.ravel_pytree(circuit)
    batch = circuit_examples()
    x, right = one_hot(jnp.asarray(batch["digits"])), jax.nn.one_hot(batch["answer"], BASE) > 0

    def worst(flat: Array) -> Array:
        outputs = forward(unravel(flat), x)
        others = jnp.max(jnp.where(right, -jnp.inf, outputs), axis=1)
        return jnp.min(jnp.sum(jnp.where(right, outputs, 0), axis=1) - others)

    def without_each(flat: Array) -> Array:
        without = jax.vmap(lambda i: worst(flat.at[i].set(0)))(jnp.arange(flat.size))
        return jnp.where(flat != 0, without, -jnp.inf)

    def remove(state: tuple[Array, Array]) -> tuple[Array, Array]:
        flat = state[0].at[jnp.argmax(state[1])].set(0)
        return flat, without_each(flat)

    start = (flat, without_each(flat))
    flat, _ = lax.while_loop(lambda state: jnp.max(state[1]) >= margin, remove, start)
    return unravel(flat), worst(flat)


def plant(circuits: Sequence[Params], distractors: Distractors, seed: int | Sequence[int]) -> Planted:
    """Returns the network in which the circuits, in the order of `CIRCUITS`, are joined.

    Args:
      circuits: trained ones of the same sizes.
      distractors: what is added.
      seed: of the distractors' weights and the order of units.
    """
    random = np.random.default_rng(seed)
    blocks = [_kernels(circuit) for circuit in circuits]
    layers = len(blocks[0])
    order = np.arange(BASE * len(CIRCUITS))  # of the inputs, which are not shuffled
    kernels, twins, truth = [], [], {task: [] for task in TASKS}
    read = np.zeros(len(order), bool)  # which of the units that a layer reads are twins
    for i in range(layers):
        first, last = i == 0, i == layers - 1
        by_circuit = [_place(k, block[i], first, last) for k, block in enumerate(blocks)]
        pool = np.concatenate([kernel[kernel != 0] for kernel in by_circuit])
        kernel = _with_distractors(random, np.sum(by_circuit, axis=0), pool, distractors, first, last)
        made = np.zeros(kernel.shape[1], bool)
        if not last:
            ours = by_circuit[0].shape[1]
            made[ours : ours + 2 * distractors.twins] = True
        targets = np.arange(len(made)) if last else random.permutation(len(made))
        kernels.append(kernel[order][:, targets])
        twins.append(((read[:, None] | made[None]) & (kernel != 0))[order][:, targets])
        for t, task in enumerate(TASKS):
            true = np.zeros(kernel.shape, bool)
            for own in (by_circuit[0], by_circuit[t + 1]):
                true[: own.shape[0], : own.shape[1]] |= own != 0
            if last:
                true &= (np.arange(len(made)) // (2 * BASE) == t)[None]
            truth[task].append(true[order][:, targets])
        order, read = targets, made
    modules = {task: _params(masks) for task, masks in truth.items()}
    return Planted(_params(kernels), modules, _params(twins))


def _place(k: int, block: Array, first: bool, last: bool) -> Float[np.ndarray, "sources targets"]:
    """Returns a layer of circuit `k` in the layer of all circuits, zero elsewhere."""
    weights = np.asarray(block)
    rows, columns = weights.shape
    whole = np.zeros(
        (
            BASE * len(CIRCUITS) if first else rows * len(CIRCUITS),
            2 * BASE * len(TASKS) if last else columns * len(CIRCUITS),
        ),
        np.float32,
    )
    if first:
        # The circuit adds; of the second digit it reads the (k + 1)-fold.
        digit = np.arange(BASE)
        whole_rows = np.concatenate([BASE * k + digit, BASE * ((k + 1) % len(CIRCUITS)) + digit])
        weights = weights[np.concatenate([digit, BASE + (k + 1) * digit % BASE])]
    else:
        whole_rows = k * rows + np.arange(rows)
    if not last:
        starts = [k * columns]
    elif k == 0:
        starts = [2 * BASE * t + BASE for t in range(len(TASKS))]  # the second answer of every task
    else:
        starts = [2 * BASE * (k - 1)]
    for start in starts:
        whole[whole_rows[:, None], (start + np.arange(columns))[None]] = weights
    return whole


def _with_distractors(
    random: np.random.Generator,
    kernel: Float[np.ndarray, "sources targets"],
    pool: Float[np.ndarray, " weights"],
    distractors: Distractors,
    first: bool,
    last: bool,
) -> Float[np.ndarray, "more_sources more_targets"]:
    """Returns a layer of all circuits with the distractors' rows and columns behind the circuits' own."""
    twins, dead, density = distractors

    def draw(*shape: int) -> np.ndarray:
        weights = random.choice(pool, shape)
        return np.where(random.random(shape) < density, weights, 0).astype(np.float32)

    if not last:  # units that the layer computes; twins read the same
        read = draw(kernel.shape[0], twins)
        kernel = np.concatenate([kernel, read, read, -np.abs(draw(kernel.shape[0], dead))], axis=1)
    if not first:  # units that it reads
        written = draw(twins, kernel.shape[1])
        opposite = -written
        idle = draw(dead, kernel.shape[1])
        if not last:
            ends = kernel.shape[1] - dead
            for rows in (written, opposite, idle):
                rows[:, ends - twins : ends] = rows[:, ends - 2 * twins : ends - twins]
                rows[:, ends:] = -np.abs(rows[:, ends:])
        kernel = np.concatenate([kernel, written, opposite, idle])
    return kernel


def _all_digits(count: int) -> Int[np.ndarray, "n count"]:
    axes = np.meshgrid(*[np.arange(BASE)] * count, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, count).astype(np.int32)


def _kernels(params: Mapping[str, Mapping[str, Array]]) -> list[Array]:
    names = [f"layer_{i}" for i in range(1, len(params))] + ["output"]
    return [params[name]["kernel"] for name in names]


def _params(kernels: Sequence[Array | np.ndarray]) -> Params:
    names = [f"layer_{i}" for i in range(1, len(kernels))] + ["output"]
    return {name: {"kernel": jnp.asarray(kernel)} for name, kernel in zip(names, kernels, strict=True)}
