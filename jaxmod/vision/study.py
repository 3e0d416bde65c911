"""What the experiments on image networks share: their settings, the checks of these, and the networks."""

import dataclasses
from typing import Any, get_args

from jaxtyping import Array, Key

from jaxmod import configs
from jaxmod.data.images import IMAGES, load_images
from jaxmod.find import MaskConfig
from jaxmod.models.convolution import Method
from jaxmod.noise import Generator
from jaxmod.train.axes import Axes
from jaxmod.train.dense import DenseConfig, train_network
from jaxmod.types import Params
from jaxmod.vision import networks
from jaxmod.vision.networks import ARCHITECTURES, Functions, ImageData
from jaxmod.workdir import Stage

__all__ = ["StudyConfig", "check", "functions_of", "load_data", "mask_config", "network_config", "train"]

_EVALUATED = 256
"""Examples at the end of a chunk: all classes and networks at once must fit on the device."""


@dataclasses.dataclass
class StudyConfig:
    """Of networks that see images, and of masks over them. The paper's values for the simple CNN."""

    dataset: str = "cifar10"
    architecture: str = "cnn"  # or cnn-no-dropout, resnet
    channels: tuple[int, ...] = (32, 64, 128, 256)  # of the CNN
    blocks: int = 18  # in each group of the ResNet, which has 6 layers for each, and 2 more
    convolution: str = "auto"  # im2col where kernels are vmapped; or everywhere im2col, or lax: XLA's
    mapped: tuple[str, ...] = ()  # of runs, tasks, samples: one after another, to save memory
    seeds: int = 10
    seed: int = 0
    network_steps: int = 20_000
    network_learning_rate: float = 1e-3
    batch_size: int = 128
    mask_steps: int = 20_000
    mask_learning_rate: float = 1e-3
    num_samples: int = 4
    beta: float = 1e-4  # alpha = beta / the batch size of the masks
    estimator: str = "gumbel_sigmoid"  # or edge_popup, hard_concrete: jaxmod.configs.make_estimator
    top_q: float = 0.05  # part of the weights that edge_popup keeps; beta is nothing to it
    temperature: float = 1.0  # of gumbel_sigmoid
    noise: str = "mix32"  # of the masks; or jax: the bits of jax.random
    rao_blackwell: bool = False  # the mean slope given the sample in place of its own
    bfloat16: bool = False  # frozen weights and activations of mask training; for accelerators
    clip_norm: float = 1.0
    chunk_steps: int = 1000


def check(config: StudyConfig, mask_batch_size: int | None = None) -> None:
    """Raises ValueError unless a config's networks and masks can be trained, and its data are there.

    Args:
      config: of a study.
      mask_batch_size: as for `mask_config`.
    """
    configs.check_choice("dataset", config.dataset, IMAGES)
    configs.check_choice("architecture", config.architecture, ARCHITECTURES)
    configs.check_choice("convolution", config.convolution, ("auto", *get_args(Method)))
    configs.check_choice("noise", config.noise, get_args(Generator))
    for axis in config.mapped:
        configs.check_choice("mapped", axis, Axes._fields)
    positive = ("channels", "blocks", "seeds", "network_learning_rate", "clip_norm", "temperature")
    configs.check_positive(config, *positive)
    configs.make_estimator(config)
    network_config(config)
    mask_config(config, mask_batch_size)
    if config.architecture == "resnet" and config.network_learning_rate < 0.01:
        raise ValueError(
            f"network_learning_rate={config.network_learning_rate}: a ResNet is trained by SGD, in the paper "
            "with 0.1 for 64,000 steps, its masks with 0.03, batches of 256 and beta 2e-5 (class_removal has "
            "--preset=resnet110)."
        )
    try:
        data = load_data(config)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    functions_of(config, data)  # images too small for so many layers


def network_config(config: StudyConfig) -> DenseConfig:
    """Returns how the networks are trained."""
    return dataclasses.replace(configs.network_config(config), axes=_axes(config))


def mask_config(config: StudyConfig, batch_size: int | None = None, times: int = 1) -> MaskConfig:
    """Returns how the masks are trained.

    Args:
      config: of a study.
      batch_size: of the masks, if it is not that of the networks; `beta / batch_size` is alpha.
      times: as many steps.
    """
    found = configs.mask_config(dataclasses.replace(config, batch_size=batch_size or config.batch_size))
    return dataclasses.replace(found, steps=times * found.steps, eval_examples=_EVALUATED, axes=_axes(config))


def _axes(config: StudyConfig) -> Axes:
    return Axes()._replace(**dict.fromkeys(config.mapped, "map"))


def load_data(config: StudyConfig) -> ImageData:
    """Returns the images of a config's `dataset` as its `architecture` sees them; raises as `load_images`."""
    architecture: Any = config.architecture
    return networks.image_data(load_images(config.dataset), architecture)


def functions_of(config: StudyConfig, data: ImageData) -> Functions:
    """Returns the functions of a config's network.

    Raises:
      ValueError: the images are too small for so many layers.
    """
    architecture: Any = config.architecture
    method: Any = None if config.convolution == "auto" else config.convolution
    if method is None and config.seeds > 1 and "runs" not in config.mapped:
        method = "im2col"  # every network has kernels of its own, as masks have
    model = networks.make_model(architecture, tuple(config.channels), config.blocks, method)
    height, width, channels = data.train["image"].shape[1:]
    augment = architecture == "resnet"
    return networks.make_functions(model, (height, width, channels), data.mean, data.std, augment)


def train(
    config: StudyConfig,
    functions: Functions,
    data: ImageData,
    keys: Key[Array, " runs"],
    stage: Stage | None = None,
    progress: bool = False,
) -> Params:
    """Returns the variables of trained networks, leading runs axis.

    Args:
      config: of a study.
      functions: of its network.
      data: `train` is what the networks are trained on.
      keys: one for each run.
      stage: where checkpoints go.
      progress: report every chunk.
    """
    architecture: Any = config.architecture
    trained = train_network(
        functions.dense_loss,
        functions.init,
        data.train,
        keys=keys,
        config=network_config(config),
        optimizer=networks.make_optimizer(
            architecture, config.network_steps, config.network_learning_rate, config.clip_norm
        ),
        model_state=functions.state,
        workdir=stage,
        progress=progress,
    )
    return {"params": trained.params, **trained.model_state}
