"""The image networks of Csordas et al. 2021 (appendix C.7): what they see, how they are trained and masked.

The simple CNN is trained on 80% of the training images, drawn as by the authors' code, and judged on the
others; the ResNet on all of them with random crops and flips, and judged on the test images.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Int, Int32, Key, UInt8

from jaxmod.data.images import CLASSES, Images
from jaxmod.models.cnn import SimpleCNN
from jaxmod.models.convolution import Method
from jaxmod.models.resnet import ResNet
from jaxmod.train import devices
from jaxmod.types import Batch, Params

__all__ = [
    "ARCHITECTURES",
    "MASKED",
    "OUTPUT",
    "Architecture",
    "Functions",
    "ImageData",
    "augmented",
    "image_data",
    "make_functions",
    "make_model",
    "make_optimizer",
    "predict",
]

Architecture = Literal["cnn", "cnn-no-dropout", "resnet"]
ARCHITECTURES: tuple[Architecture, ...] = ("cnn", "cnn-no-dropout", "resnet")

MASKED = r"params/.*"
"""What masks are over: all weights and biases, of BatchNorm scale and shift; not its statistics."""
OUTPUT = r"params/output/.*"
"""The output layer."""

_SPLIT_SEED = 0xC1CAFA52
_MARGIN = 4
# Of red, green and blue, as they were published with the ResNet.
_RESNET_SCALE = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_AT_ONCE = 512


class ImageData(NamedTuple):
    """Images as a network of some architecture sees them; grey ones have one channel."""

    train: dict[str, np.ndarray]
    """`image`, uint8 [examples, height, width, channels], and `label`."""
    valid: dict[str, np.ndarray]
    mean: tuple[float, ...]
    """Of each channel of all training images, pixels counting to 1."""
    std: tuple[float, ...]
    source: str
    """What they are: for reports."""


def image_data(images: Images, architecture: Architecture) -> ImageData:
    """Returns what a network is trained on, what it is judged by, and how pixels are scaled.

    Raises:
      ValueError: a split would have no example of some class.
    """
    x_train, x_test = (x if x.ndim == 4 else x[..., None] for x in (images.x_train, images.x_test))
    train, test = ({"image": x, "label": y} for x, y in ((x_train, images.y_train), (x_test, images.y_test)))
    if architecture == "resnet":
        valid, judged = test, "the test images"
    else:
        kept = np.random.RandomState(_SPLIT_SEED).rand(len(x_train)) > 0.2
        train, valid = ({name: x[rows] for name, x in train.items()} for rows in (kept, ~kept))
        judged = f"{len(valid['label'])} of the training images, not trained on"
    for name, part in (("training", train), ("validation", valid)):
        if absent := sorted(set(range(CLASSES)) - set(part["label"].tolist())):
            raise ValueError(f"no {name} image of class {', '.join(map(str, absent))} ({images.source}).")
    if architecture == "resnet" and x_train.shape[-1] == 3:
        mean, std = _RESNET_SCALE
    else:
        mean, std = _scale(x_train)
    return ImageData(train, valid, mean, std, f"{images.source}, judged by {judged}")


def _scale(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, from how often each of the 256 values occurs."""
    value, moments = np.arange(256) / 255, []
    for channel in range(x.shape[-1]):
        part = np.bincount(x[..., channel].ravel(), minlength=256) / x[..., channel].size
        mean = part @ value
        moments.append((float(mean), float(np.sqrt(part @ (value - mean) ** 2))))
    mean, std = zip(*moments, strict=True)
    return mean, std


class Functions(NamedTuple):
    """A network for `train_network` and `find_modules`, as pure functions.

    `variables` are `{"params": ...}` and, if the network has BatchNorm, `"batch_stats"` beside them.
    """

    init: Any
    """`key -> params`."""
    state: Params
    """What training starts from beside the params: the statistics of BatchNorm, or nothing."""
    dense_loss: Any
    """`(params, state, batch, key) -> (loss, (state, metrics))`: dropout and BatchNorm as in training."""
    mask_loss: Any
    """`(variables, batch, key) -> loss`: no dropout, statistics of BatchNorm as they are."""
    right: Any
    """`(variables, batch) -> {"accuracy": [batch]}`."""
    logits: Any
    """`(variables, images) -> [batch, classes]`."""


def make_model(
    architecture: Architecture, channels: tuple[int, ...], blocks: int, method: Method | None = None
) -> Any:
    """Returns the network: channels of the CNN's convolutions, blocks in each group of the ResNet."""
    if architecture == "resnet":
        return ResNet(blocks, CLASSES, method=method)
    return SimpleCNN(CLASSES, channels, dropout=architecture == "cnn", method=method)


@functools.lru_cache(maxsize=16)  # the same functions again, so that no program is compiled twice
def make_functions(
    model: Any,
    shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    augment: bool,
) -> Functions:
    """Returns a network's functions.

    Under masks every sample has kernels of its own: the convolutions of a model whose method is None are
    then matrix products with a batch axis, on all backends, where XLA's would have groups.

    Args:
      model: from `make_model`.
      shape: of an image.
      mean: subtracted from each channel, pixels counting to 1.
      std: what is left is divided by it.
      augment: random crops and flips, for the network and for its masks.
    """

    masked = model.clone(method=model.method or "im2col")

    def scaled(image: Array, dtype: Any = jnp.float32) -> Array:
        centre, spread = (jnp.array(of).reshape(1, 1, 1, -1) for of in (mean, std))
        return ((image.astype(jnp.float32) / 255 - centre) / spread).astype(dtype)

    def start(key: Array) -> Params:
        return model.init(key, jnp.zeros((1, *shape)))

    def dense_loss(params: Params, state: Any, batch: Batch, key: Key[Array, ""]):
        augment_key, dropout_key = jax.random.split(key)
        image = augmented(augment_key, batch["image"]) if augment else batch["image"]
        logits, state = model.apply(
            {"params": params, **state},
            scaled(image),
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(state),
        )
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["label"])
        return _cross_entropy(logits, batch["label"]), (state, {"accuracy": accuracy})

    def logits(variables: Params, image: Array) -> Array:
        dtype = jax.tree.leaves(variables)[0].dtype
        return masked.apply(variables, scaled(image, dtype)).astype(jnp.float32)

    def mask_loss(variables: Params, batch: Batch, key: Key[Array, ""]) -> Array:
        image = augmented(key, batch["image"]) if augment else batch["image"]
        return _cross_entropy(logits(variables, image), batch["label"])

    def right(variables: Params, batch: Batch) -> dict[str, Array]:
        return {"accuracy": jnp.argmax(logits(variables, batch["image"]), axis=-1) == batch["label"]}

    state = {name: value for name, value in start(jax.random.key(0)).items() if name != "params"}
    return Functions(lambda key: start(key)["params"], state, dense_loss, mask_loss, right, logits)


def _cross_entropy(logits: Array, labels: Array) -> Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def augmented(
    key: Key[Array, ""], image: UInt8[Array, "batch height width channels"]
) -> UInt8[Array, "batch height width channels"]:
    """Returns each image shifted by up to 4 pixels both ways, black coming in, and half of them mirrored."""
    batch, height, width, channels = image.shape
    shift_key, flip_key = jax.random.split(key)
    padded = jnp.pad(image, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))
    shifts = jax.random.randint(shift_key, (batch, 2), 0, 2 * _MARGIN + 1)
    crop = functools.partial(lax.dynamic_slice, slice_sizes=(height, width, channels))
    cropped = jax.vmap(lambda x, at: crop(x, (at[0], at[1], 0)))(padded, shifts)
    flipped = jax.random.bernoulli(flip_key, shape=(batch, 1, 1, 1))
    return jnp.where(flipped, cropped[:, :, ::-1], cropped)


def make_optimizer(
    architecture: Architecture, steps: int, learning_rate: float, clip_norm: float
) -> optax.GradientTransformation:
    """Returns what trains the networks.

    CNN: clipping by global norm, then Adam. ResNet: SGD with momentum 0.9, weight decay 1e-4 on all params, a
    tenth of the rate after half of the steps and again after three quarters, no clipping.
    """
    if architecture == "resnet":
        rate = optax.piecewise_constant_schedule(learning_rate, {steps // 2: 0.1, 3 * steps // 4: 0.1})
        return optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(rate, momentum=0.9))
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate))


def predict(
    functions: Functions, variables: Params, image: UInt8[Array, "examples height width channels"]
) -> Int32[Array, "runs examples"]:
    """Returns the class that each network sees in each image; variables have a leading runs axis."""
    return devices.map_runs(_seen(functions.logits), variables, image)


@functools.lru_cache(maxsize=16)
def _seen(logits: Any) -> Any:
    def one(variables: Params, image: Array) -> Int[Array, " examples"]:
        def classified(x: Array) -> Array:
            return jnp.argmax(logits(variables, x[None])[0]).astype(jnp.int32)

        return lax.map(classified, image, batch_size=_AT_ONCE)

    return one
