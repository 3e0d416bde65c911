"""Deep-R: training a fixed number of weights that may change their places (Bellec et al. 2018).

A weight is a fixed sign times a magnitude. Where the magnitude reaches zero the weight goes, and another one
appears at random somewhere in the same leaf, so that their number never changes.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt32

from jaxmod import noise as random
from jaxmod import topk, trees
from jaxmod.types import Params

__all__ = ["DeepRState", "LeafState", "Rate", "deep_r", "paper_noise", "paper_rate"]

Rate: TypeAlias = Callable[[Int[Array, ""], Float[Array, ""]], ArrayLike]
"""`rate(step, density)`: a number that may depend on the step, from 0 on, and on the leaf's density."""

_TINY = 1e-10
"""The magnitude of a weight that has just appeared."""


class LeafState(NamedTuple):
    """What `deep_r` keeps of a leaf."""

    key: UInt32[Array, "2"]
    """The words of a Threefry key: checkpoints take no typed ones."""
    num_active: Int[Array, ""]
    """How many entries are active."""
    positive: Bool[Array, "..."]
    """The sign of each entry, dormant ones too."""
    age: Int[Array, "..."]
    """Steps of Adam since the entry became active; 0 if it is dormant. So are the moments."""
    mu: Float[Array, "..."]
    nu: Float[Array, "..."]


class DeepRState(NamedTuple):
    """What `deep_r` carries."""

    step: Int[Array, ""]
    leaves: Any
    """Mirrors the params, with a `LeafState` for each leaf."""


def paper_rate(
    *, steps_per_epoch: int | None = None, decay: float = 0.95, highest: float = 0.1, lowest: float = 0.01
) -> Rate:
    """Returns the learning rate of Bena and Goodman: `0.1 (p / 1e-4)^(-1/4)` at density `p`, 0.01 at p = 1.

    Below p = 1e-4, one link of 100 x 100, it is 0.1.

    Args:
      steps_per_epoch: if not None, the rate is multiplied by `decay` after every so many steps.
      decay: see there.
      highest: the rate at p = 1e-4.
      lowest: the rate at p = 1; in between it is geometric in p.

    Raises:
      ValueError: steps_per_epoch or a rate is not positive.
    """
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"paper_rate: steps_per_epoch must be at least 1, got {steps_per_epoch}.")
    for name, value in (("decay", decay), ("highest", highest), ("lowest", lowest)):
        if not value > 0:
            raise ValueError(f"paper_rate: {name} must be positive, got {value}.")

    def rate(step: Int[Array, ""], density: Float[Array, ""]) -> Array:
        sparsest = 1e-4
        way = jnp.log(jnp.maximum(density, sparsest) / sparsest) / jnp.log(1 / sparsest)
        at_density = highest * (lowest / highest) ** way
        return at_density if steps_per_epoch is None else at_density * decay ** (step // steps_per_epoch)

    return rate


def paper_noise(size: float = 1e-4) -> Rate:
    """Returns the random walk of Bena and Goodman, `size (1 - p)` at density `p`; 1e-4 as in their code."""
    return lambda step, density: size * (1 - density)


def deep_r(
    learning_rate: float | Rate,
    *,
    noise: float | Rate = 1e-4,
    l1: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer Deep-R with Adam: the number of non-zero entries of each leaf never changes.

    An entry that is exactly 0 is dormant, the others are active. How many are active is counted by `init`,
    for each leaf (and run) by itself. A step, on the magnitudes `phi = |w|` of the active entries:

    1. the walk `phi += rate * noise * N(0, 1)` and the pull `phi -= rate * l1`;
    2. Adam's step on phi, its bias corrected for the steps since this entry became active;
    3. entries with `phi <= 0` become dormant; their weights, moments and ages are then 0;
    4. as many dormant entries, chosen uniformly, become active at 1e-10. Those of 3 are among them.

    Signs never change: active entries have that of their weight, dormant ones the one they had before or, if
    they have not been active yet, one that was drawn at `init`. An active entry comes no closer to zero in
    one step than 1e-10 or a millionth of itself, whichever is more, so that rounding cannot make it 0.
    Gradients of dormant entries are ignored. NaN in that of an active entry makes the weight NaN.

    If somebody else has changed the params since `init`, the non-zero entries are those that are active. Of
    too many the largest stay, and the others go; too few are filled up.

    Use it inside `optax.partition` or `optax.masked` for some leaves only. Random numbers depend on `seed`,
    on the leaf's number and on its contents at `init`, so that runs that start from different weights draw
    different ones.

    Args:
      learning_rate: of Adam, the walk and the pull; or `rate(step, density)`, such as `paper_rate()`.
      noise: the size of the walk; or `size(step, density)`, such as `paper_noise()`.
      l1: the size of the pull towards zero.
      b1: Adam's decay of the first moment.
      b2: Adam's decay of the second moment.
      eps: what Adam adds to the root of the second moment.
      seed: of the random numbers.

    Raises:
      ValueError: b1 or b2 out of range; from `init`: a leaf is not float32; from `update`: no params.
    """

    for name, value in (("b1", b1), ("b2", b2)):
        if not 0 < value < 1:
            raise ValueError(f"deep_r: {name} must be between 0 and 1, got {value}.")

    def init_fn(params: Params) -> DeepRState:
        trees.check_arrays(params)
        for path, leaf in trees.paths_and_leaves(params):
            if leaf.dtype != jnp.float32:
                raise ValueError(
                    f"deep_r: leaf {path!r} is {leaf.dtype}, expected float32, in which small steps are not "
                    "lost. Convert it, or leave it to another optimizer with optax.partition."
                )
        leaves, treedef = jax.tree.flatten(params)
        states = [_start(seed, i, jnp.asarray(leaf)) for i, leaf in enumerate(leaves)]
        return DeepRState(jnp.zeros((), jnp.int32), treedef.unflatten(states))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError("deep_r: update needs the params, as in update(grads, state, params).")
        grads, treedef = jax.tree.flatten(updates)
        stepped = []
        for g, w, leaf in zip(
            grads, treedef.flatten_up_to(params), treedef.flatten_up_to(state.leaves), strict=True
        ):
            density = leaf.num_active / max(w.size, 1)
            rate, size = (
                jnp.asarray(f(state.step, density) if callable(f) else f) for f in (learning_rate, noise)
            )
            walk, places = _seeds(leaf.key, state.step)
            drift = rate * (size * _normal(walk, w.shape) - l1)
            active, leaf = _active(w, leaf)
            adam, leaf = _adam(g, active, leaf, b1, b2, eps)
            stepped.append(_rewire(w, active, drift - rate * adam, leaf, places))
        moves, states = zip(*stepped, strict=True) if stepped else ((), ())
        return treedef.unflatten(moves), DeepRState(state.step + 1, treedef.unflatten(states))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


@jax.jit  # op by op, each of its hashes would be compiled by itself
def _start(seed: int | Array, number: int | Array, weights: Array) -> LeafState:
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number)
    contents = lax.bitcast_convert_type(weights, jnp.uint32)

    def word(seeds: Array) -> Array:
        hashed = random.scramble(contents, *(random.mix32(s, weights.shape) for s in seeds))
        return jnp.sum(hashed, dtype=jnp.uint32)

    words = jnp.stack([word(seeds) for seeds in random.bits(key, (2, 2, 2))])
    (signs,) = random.bits(jax.random.wrap_key_data(words, impl="threefry2x32"), (1, 2))
    drawn = random.uniform(signs, weights.shape) < 0.5
    return LeafState(
        key=words,
        num_active=jnp.sum(weights != 0, dtype=jnp.int32),
        positive=jnp.where(weights != 0, weights > 0, drawn),
        age=jnp.zeros(weights.shape, jnp.int32),
        mu=jnp.zeros_like(weights),
        nu=jnp.zeros_like(weights),
    )


def _seeds(words: UInt32[Array, "2"], step: Int[Array, ""]) -> UInt32[Array, "2 2"]:
    # The key itself drew the signs.
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), step)
    return random.bits(key, (2, 2))


def _normal(seed: UInt32[Array, "2"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    return jnp.sqrt(2.0) * lax.erf_inv(2 * random.uniform(seed, shape) - 1)


def _active(w: Float[Array, "..."], leaf: LeafState) -> tuple[Bool[Array, "..."], LeafState]:
    """Returns which entries are active, and the state with the signs of what is not zero."""
    present = w != 0
    leaf = leaf._replace(positive=jnp.where(present, w > 0, leaf.positive))
    too_many = jnp.sum(present) > leaf.num_active
    active = lax.cond(too_many, lambda: present & topk.largest(jnp.abs(w), leaf.num_active), lambda: present)
    return active, leaf


def _adam(
    grad: Float[Array, "..."], active: Bool[Array, "..."], leaf: LeafState, b1: float, b2: float, eps: float
) -> tuple[Float[Array, "..."], LeafState]:
    """Returns Adam's direction on the magnitudes, uphill, and the state with its moments."""
    grad = jnp.where(leaf.positive, grad, -grad)
    age = leaf.age + 1
    mu, nu = b1 * leaf.mu + (1 - b1) * grad, b2 * leaf.nu + (1 - b2) * grad**2
    # 1 - b^age without the cancellation, which costs b2 four of its seven digits in the first step.
    mu_hat, nu_hat = (m / -jnp.expm1(age * math.log(b)) for m, b in ((mu, b1), (nu, b2)))
    kept = [jnp.where(active, x, 0) for x in (age, mu, nu)]
    return mu_hat / (jnp.sqrt(nu_hat) + eps), leaf._replace(age=kept[0], mu=kept[1], nu=kept[2])


def _rewire(
    w: Float[Array, "..."],
    active: Bool[Array, "..."],
    change: Float[Array, "..."],
    leaf: LeafState,
    places: UInt32[Array, "2"],
) -> tuple[Float[Array, "..."], LeafState]:
    """Returns the update `u` for changes of the magnitudes: `w + u` has `num_active` that are not zero."""
    # Computed once: rounded otherwise elsewhere in the program, an entry could be dead here and alive there.
    change = lax.optimization_barrier(change)
    phi = jnp.abs(w)
    alive = active & ~(change <= -phi)  # NaN stays alive, and is seen
    missing = leaf.num_active - jnp.sum(alive)

    def births() -> Array:
        return topk.largest(jnp.where(alive, -1.0, random.uniform(places, w.shape)), missing)

    # In most steps none is missing, and a search for none takes as long as one for many. (Runs that are
    # vmapped search in every step.)
    born = lax.cond(missing > 0, births, lambda: jnp.zeros(w.shape, bool))
    # The step after which next to nothing is left. 1e-10 itself cannot be reached from far: phi - phi is 0,
    # and what is closer to phi is coarser than that.
    nearly_all = jnp.minimum(phi, jnp.maximum(phi * 2.0**-20, _TINY)) - phi
    reborn = jnp.where(w == 0, _TINY, nearly_all)
    moved = jnp.where(alive, jnp.maximum(change, nearly_all), jnp.where(born, reborn, -phi))
    kept = [jnp.where(alive, x, 0) for x in (leaf.age, leaf.mu, leaf.nu)]
    update = jnp.where(leaf.positive, moved, -moved)
    return update, leaf._replace(age=kept[0], mu=kept[1], nu=kept[2])
