"""One training step of each kind: dense weights, mask logits, both.

A step is `step(inputs, state, batch, keys) -> (state, metrics)` for one run and one task. `inputs`
holds what the step reads and never changes: frozen params, alpha, learning rate. Factories are
cached, so equal arguments give the same function and the compiled programs are reused.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxmod import masks, trees
from jaxmod.train.axes import Mode, over
from jaxmod.train.randomness import StepKeys
from jaxmod.train.state import DenseState, JointState, MaskState
from jaxmod.types import Batch, Estimator, Logits, Metrics, Params

__all__ = [
    "Step",
    "clipped_adam",
    "combine",
    "frozen_but",
    "make_dense_step",
    "make_joint_step",
    "make_mask_step",
    "with_all_keys",
    "without_state",
]

_CACHED = functools.lru_cache(maxsize=64)


Step: TypeAlias = Callable[[dict[str, Any], Any, Batch, StepKeys], tuple[Any, Metrics]]
"""`step(inputs, state, batch, keys) -> (state, metrics)`, for one run and one task."""


@_CACHED
def clipped_adam(clip_norm: float | None) -> optax.GradientTransformationExtraArgs:
    """Returns clipping by global norm, then Adam (eps 1e-8), whose `update` takes `learning_rate`.

    The rate is an argument because it may differ between the runs of one compiled program.
    eps is part of the method: the smallest alphas are of its size, so the loss is not rescaled.
    """
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    tx = optax.chain(clip, optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8))

    def update_fn(updates, state, params=None, *, learning_rate, **extra_args):
        del extra_args
        updates, state = tx.update(updates, state, params)
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(tx.init, update_fn)  # pyright: ignore[reportArgumentType]


@_CACHED
def with_all_keys(loss_fn: Callable[..., Any], has_aux: bool) -> Callable[..., tuple[Array, Metrics]]:
    """Returns `loss(params, batch, key, shared_key) -> (loss, metrics)` for a user's `loss_fn`."""
    wants_shared = "shared_key" in inspect.signature(loss_fn).parameters

    def loss(params: Params, batch: Batch, key: Key[Array, ""], shared_key: Key[Array, ""]):
        extra = {"shared_key": shared_key} if wants_shared else {}
        value = loss_fn(params, batch, key, **extra)
        return value if has_aux else (value, {})

    return loss


def frozen_but(trained: str, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns an optimizer that moves only the leaves of the params whose paths match a regex."""

    def labels(params: Params) -> Any:
        chosen = trees.select(params, trained)
        return jax.tree.map(lambda moves: "moves" if moves else "stays", chosen)

    kinds: Any = {"moves": optimizer, "stays": optax.set_to_zero()}
    return optax.partition(kinds, labels)


@_CACHED
def without_state(loss_fn: Callable[[Params, Batch, Key[Array, ""]], Array]) -> Callable[..., Any]:
    """Returns the `dense_loss` of a network whose layers carry nothing along."""

    def dense_loss(params: Params, model_state: Any, batch: Batch, key: Key[Array, ""]):
        return loss_fn(params, batch, key), (model_state, {})

    return dense_loss


def combine(trained: Logits, held: Logits) -> Logits:
    """Returns the logits of both trees: trained where there are any, else held."""
    return jax.tree.map(lambda t, h: h if t is None else t, trained, held, is_leaf=lambda x: x is None)


def _masked_objective(
    loss_fn: Callable[..., Any], estimator: Estimator, num_samples: int, mode: Mode, has_aux: bool
) -> Callable[..., tuple[Float[Array, ""], Metrics]]:
    """Returns the mean loss of sampled masks, each on its part of the batch, plus `alpha * penalty`.

    The batch is cut into contiguous parts (Csordas et al. 2021, section 3).
    """

    per_sample_loss = with_all_keys(loss_fn, has_aux)

    def one(key: Array, part: Batch, params: Params, logits: Logits, loss_key: Array, shared: Array):
        return per_sample_loss(
            masks.apply_mask(params, estimator.sample(key, logits)), part, loss_key, shared
        )

    def objective(
        params: Params, trained: Logits, held: Logits | None, alpha: Array, batch: Batch, keys: StepKeys
    ):
        noise_keys = jax.random.split(keys.noise, num_samples)
        loss_keys = jax.random.split(keys.loss, num_samples)
        parts = jax.tree.map(lambda x: x.reshape(num_samples, -1, *x.shape[1:]), batch)
        logits = trained if held is None else combine(trained, held)
        per_sample = over(one, mode, (0, 0, None, None, 0, None))
        losses, metrics = per_sample(noise_keys, parts, params, logits, loss_keys, keys.shared)
        loss = jnp.mean(losses)
        return loss + alpha * estimator.penalty(trained), {"loss": loss, **jax.tree.map(jnp.mean, metrics)}

    return objective


@_CACHED
def make_mask_step(
    loss_fn: Callable[..., Any],
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    num_samples: int,
    mode: Mode = "vmap",
    has_aux: bool = False,
) -> Step:
    """Returns the step that trains mask logits over frozen weights.

    The objective is the mean loss over the samples plus `alpha * penalty(logits)`. Its `inputs`:
    `params`, `alpha`, `learning_rate`, and `held`: logits that are sampled but not trained.
    The gradient is clipped over the trained logits only.
    """
    objective = _masked_objective(loss_fn, estimator, num_samples, mode, has_aux)
    tx = optax.with_extra_args_support(optimizer)

    def step(inputs: dict[str, Any], state: MaskState, batch: Batch, keys: StepKeys):
        grads, metrics = jax.grad(objective, argnums=1, has_aux=True)(
            inputs["params"], state.logits, inputs["held"], inputs["alpha"], batch, keys
        )
        updates, opt_state = tx.update(
            grads, state.opt_state, state.logits, learning_rate=inputs["learning_rate"]
        )
        return MaskState(optax.apply_updates(state.logits, updates), opt_state), metrics

    return step


@_CACHED
def make_dense_step(dense_loss: Callable[..., Any], optimizer: optax.GradientTransformation) -> Step:
    """Returns the step that trains the weights themselves, without masks.

    `dense_loss(params, model_state, batch, key) -> (loss, (model_state, metrics))`, with a further
    parameter `shared_key` if it has one of that name. An optimizer that takes `step` receives its number.
    """
    wants_shared = "shared_key" in inspect.signature(dense_loss).parameters
    tx = optax.with_extra_args_support(optimizer)

    def step(inputs: dict[str, Any], state: DenseState, batch: Batch, keys: StepKeys):
        del inputs
        grad_fn = jax.value_and_grad(dense_loss, has_aux=True)
        extra = {"shared_key": keys.shared} if wants_shared else {}
        (loss, (model_state, metrics)), grads = grad_fn(
            state.params, state.model_state, batch, keys.loss, **extra
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params, step=keys.step)
        params = optax.apply_updates(state.params, updates)
        return DenseState(params, model_state, opt_state), {"loss": loss, **metrics}

    return step


@_CACHED
def make_joint_step(
    loss_fn: Callable[..., Any],
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    num_samples: int,
    mode: Mode = "vmap",
    has_aux: bool = False,
) -> Step:
    """Returns the step that trains weights and mask logits together (Csordas et al. 2021, section 4.2).

    `inputs["used"]` is a binary mask of the weights that earlier tasks use: their gradient is zeroed
    before clipping, so that with a fresh Adam they stay exactly as they are. The optimizer runs over
    the pair `(params, logits)`.
    """
    objective = _masked_objective(loss_fn, estimator, num_samples, mode, has_aux)
    tx = optax.with_extra_args_support(optimizer)

    def step(inputs: dict[str, Any], state: JointState, batch: Batch, keys: StepKeys):
        (weight_grads, logit_grads), metrics = jax.grad(objective, argnums=(0, 1), has_aux=True)(
            state.params, state.logits, None, inputs["alpha"], batch, keys
        )
        trained = (state.params, state.logits)
        free = masks.apply_mask(weight_grads, masks.invert(inputs["used"]))
        updates, opt_state = tx.update(
            (free, logit_grads), state.opt_state, trained, learning_rate=inputs["learning_rate"]
        )
        params, logits = jax.tree.map(jnp.add, trained, updates)
        return JointState(params, logits, opt_state), metrics

    return step
