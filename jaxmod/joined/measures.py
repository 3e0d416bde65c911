"""How specialized joined sub-networks are: what Bena and Goodman measure on pairs of digits."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxmod import masks
from jaxmod.analysis import specialization
from jaxmod.data.digit_pairs import Pairs, scaled
from jaxmod.find import MaskConfig, find_modules
from jaxmod.joined.training import cut_links, make_loss
from jaxmod.models.subnetworks import SubNetworks, decide
from jaxmod.train import devices
from jaxmod.types import Batch, BinaryMask, Estimator, Params
from jaxmod.workdir import Stage

__all__ = [
    "MASKED",
    "MaskMeasured",
    "Measured",
    "find_masks",
    "mask_optimizer",
    "masked_accuracy",
    "measure",
    "measure_masks",
    "retrained_accuracy",
]

MASKED = r"net_[01]/(recurrent|readout)/(kernel|bias)"
"""What masks are over: all weights of the sub-networks but those of the inputs; not the links."""

_PARTS = {"net_0": r"net_0/.*", "net_1": r"net_1/.*"}
_IMAGES_AT_ONCE = 4096


class Measured(NamedTuple):
    """What networks do on the test pairs, leading runs axis. `[n, k]`: sub-network n, digit k."""

    accuracy: Float[Array, " runs"]
    without_links: Float[Array, " runs"]
    """The accuracy when all links are cut."""
    decided: Float[Array, " runs"]
    """Share of the answers that come from sub-network 0."""
    correlation: Float[Array, "runs 2 2"]
    """Expected correlation of a sub-network's last states over pairs that have digit k in common."""
    skipped: Int[Array, "runs 2"]
    """Pairs whose states do not vary over the units of sub-network n, and have no correlation."""
    cka: Float[Array, "runs 2 2"]
    """Linear CKA of the last states and those of other pairs with the same digit k."""


def measure(model: Any, params: Params, pairs: Pairs, key: Key[Array, ""], draws: int = 4) -> Measured:
    """Returns accuracies, and how alike the states of pairs with a common digit are.

    Args:
      model: with or without a bottleneck.
      params: leading runs axis.
      pairs: of the test split.
      key: of the other pairs that CKA compares with; the same for all runs.
      draws: of them.
    """
    others = [
        jax.vmap(specialization.partners, (0, None))(jax.random.split(key, draws), d)
        for d in jnp.asarray(pairs.digit).T
    ]
    return devices.map_runs(_measure(model), params, pairs, others)


@functools.lru_cache(maxsize=16)  # the same functions again, so that no program is compiled twice
def _measure(model: Any) -> Any:
    def one(params: Params, pairs: Pairs, others: Any) -> Measured:
        digit = jnp.asarray(pairs.digit)
        states = _apply(model, params, pairs.image, model.states)
        readouts: Any = model.apply({"params": params}, states, method=_read)
        answer, decider = decide(readouts)
        cut = _apply(model, cut_links(params), pairs.image, model.__call__)
        correlations = [
            [specialization.state_correlation(states[:, n], d, model.classes) for d in digit.T]
            for n in range(2)
        ]
        alike = [
            [jnp.mean(lax.map(lambda i, n=n: _cka(states[:, n], i), drawn)) for drawn in others]
            for n in range(2)
        ]
        return Measured(
            accuracy=_right(answer, pairs.target),
            without_links=_right(decide(cut)[0], pairs.target),
            decided=jnp.mean(decider == 0),
            correlation=jnp.array([[c.value for c in row] for row in correlations]),
            skipped=jnp.stack([row[0].skipped for row in correlations]),
            cka=jnp.array(alike),
        )

    return one


def _read(model: SubNetworks, states: Array) -> Array:
    return model.readouts(model.features(states))


def _cka(states: Array, partners: Array) -> Array:
    return specialization.linear_cka(states, states[partners])


def _right(logits: Array, labels: Any) -> Array:
    return jnp.mean(jnp.argmax(logits, axis=-1) == jnp.asarray(labels))


def _apply(model: Any, params: Params, images: Any, method: Any) -> Array:
    """Returns what a method of the model gives for images, some thousand at once."""

    def one(image: Array) -> Array:
        return model.apply({"params": params}, scaled(image)[None], method=method)[0]

    return lax.map(one, jnp.asarray(images), batch_size=_IMAGES_AT_ONCE)


def retrained_accuracy(
    model: Any,
    params: Params,
    train: Pairs,
    test: Pairs,
    keys: Key[Array, " runs"],
    *,
    repeats: int,
    steps: int,
    epoch: int,
    batch_size: int = 128,
) -> Float[Array, "runs 2 2"]:
    """Returns the test accuracy of new readouts of each sub-network for each digit, `[run, n, k]`.

    Everything else is frozen, the links are active, and there is no competition for the answer (the
    bottleneck measure). With a model without a bottleneck it is the paper's negative control.

    Args:
      model: whose readouts are trained anew.
      params: leading runs axis.
      train: pairs of the training split.
      test: of the test split.
      keys: one for each run.
      repeats: trainings whose accuracies are averaged.
      steps: of each training.
      epoch: steps after which the rate falls.
      batch_size: of the readouts' training.
    """
    one = _retrained(model, repeats, steps, epoch, batch_size)
    return devices.map_runs(one, (params, keys), train, test)


@functools.lru_cache(maxsize=16)
def _retrained(model: Any, repeats: int, steps: int, epoch: int, batch_size: int) -> Any:
    tx = specialization.readout_optimizer(epoch)

    def features(images: Any, params: Params) -> Array:
        return _apply(model, params, images, lambda module, x: module.features(module.states(x)))

    def one(run: tuple[Params, Array], train: Pairs, test: Pairs) -> Array:
        params, key = run
        seen, unseen = features(train.image, params), features(test.image, params)

        def trained(key: Array, n: Array, k: Array) -> Array:
            readout = specialization.train_readout(
                key,
                seen[:, n],
                jnp.asarray(train.digit)[:, k],
                classes=model.classes,
                optimizer=tx,
                steps=steps,
                batch_size=batch_size,
            )
            labels = jnp.asarray(test.digit)[:, k]
            return specialization.readout_accuracy(readout, unseen[:, n], labels)

        n, k, _ = (x.ravel() for x in jnp.meshgrid(*map(jnp.arange, (2, 2, repeats)), indexing="ij"))
        accuracies = jax.vmap(trained)(jax.random.split(key, n.size), n, k)
        return accuracies.reshape(2, 2, repeats).mean(axis=-1)

    return one


@functools.cache
def mask_optimizer(learning_rate: float) -> optax.GradientTransformation:
    """Returns SGD with momentum 0.9 and weight decay 5e-4, as in the code; the paper has the rate alone."""
    return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(learning_rate, momentum=0.9))


def find_masks(
    model: Any,
    params: Params,
    pairs: Pairs,
    keys: Key[Array, " runs"],
    config: MaskConfig,
    estimator: Estimator,
    optimizer: optax.GradientTransformation | None = None,
    workdir: Stage | None = None,
    progress: bool = False,
) -> tuple[BinaryMask, BinaryMask]:
    """Returns for each digit the mask with which the networks name it, leading runs axis.

    Args:
      model: without a bottleneck.
      params: leading runs axis.
      pairs: of the training split.
      keys: one for each run.
      config: of the training of the masks.
      estimator: of the masks.
      optimizer: None: that of `find_modules`.
      workdir: where checkpoints go.
      progress: report every chunk.
    """
    with warnings.catch_warnings():
        # A mask of a specialized network keeps nothing of the other sub-network: the result, not a mistake.
        warnings.filterwarnings("ignore", message=".* keeps no weight of ")
        found = find_modules(
            _mask_loss(model),
            params,
            {f"digit {k}": _naming(k) for k in (0, 1)},
            data={"image": pairs.image, "digit": pairs.digit},
            keys=keys,
            config=config,
            where=MASKED,
            estimator=estimator,
            optimizer=optimizer,
            params_axis=0,
            workdir=workdir,
            progress=progress,
        )
    return found["digit 0"].mask, found["digit 1"].mask


@functools.cache
def _naming(k: int) -> Any:
    """Returns the task of naming digit k. Both read the same images, which are on the device once."""

    def sample_batch(key: Key[Array, ""], batch_size: int, data: Any) -> Batch:
        rows = jax.random.randint(key, (batch_size,), 0, len(data["digit"]))
        return {"image": data["image"][rows], "label": data["digit"][rows, k]}

    return sample_batch


@functools.lru_cache(maxsize=16)
def _mask_loss(model: Any) -> Any:
    dense = make_loss(model)

    def loss(params: Params, batch: Batch, key: Key[Array, ""]) -> Array:
        return dense(params, None, batch, key)[0]

    return loss


class MaskMeasured(NamedTuple):
    """Where masks lie and what they can do, leading runs axis."""

    share: Float[Array, "runs 2 2"]
    """`[n, k]`: the part of the mask for digit k that lies in sub-network n; NaN if it keeps nothing."""
    accuracy: Float[Array, "runs 2"]
    """Of the networks under the mask for digit k, on that digit."""
    density: Float[Array, " 2"]
    """The part of the weights that the masks for digit k keep, mean over runs."""


def measure_masks(
    model: Any, params: Params, found: tuple[BinaryMask, BinaryMask], pairs: Pairs
) -> MaskMeasured:
    """Returns what the masks for both digits are like, leading runs axis.

    Args:
      model: without a bottleneck.
      params: leading runs axis.
      found: from `find_masks`.
      pairs: of the test split.
    """
    one = functools.partial(specialization.mask_shares, parts=_PARTS)
    shares = [jax.vmap(one)(mask) for mask in found]
    accuracy = [
        masked_accuracy(model, params, mask, pairs.image, pairs.digit[:, k]) for k, mask in enumerate(found)
    ]
    return MaskMeasured(
        share=jnp.stack([jnp.stack([of[n] for of in shares], axis=-1) for n in _PARTS], axis=1),
        accuracy=jnp.stack(accuracy, axis=-1),
        density=jnp.stack([jnp.mean(masks.density(mask)) for mask in found]),
    )


def masked_accuracy(
    model: Any, params: Params, mask: BinaryMask, images: Any, labels: Any
) -> Float[Array, " runs"]:
    """Returns how often masked networks name a label of the images; leading runs axis."""
    return devices.map_runs(_masked(model), (params, mask), images, labels)


@functools.lru_cache(maxsize=16)
def _masked(model: Any) -> Any:
    def one(given: tuple[Params, BinaryMask], images: Any, labels: Any) -> Array:
        return _right(decide(_apply(model, masks.apply_mask(*given), images, model.__call__))[0], labels)

    return one
