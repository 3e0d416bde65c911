"""jaxmod finds the weights of a trained network that perform a given function.

Freeze the weights, learn a binary mask over them on one sub-task, and the mask is the module. Masks are
a pytree beside the params of any JAX network, joined by `apply_mask`.
"""

from jaxmod.alpha import find_alpha
from jaxmod.analysis.evaluate import Evaluation, evaluate
from jaxmod.analysis.sharing import sharing
from jaxmod.edge_popup import edge_popup
from jaxmod.estimators import gumbel_sigmoid
from jaxmod.find import Found, MaskConfig, find_modules
from jaxmod.hard_concrete import hard_concrete
from jaxmod.masks import (
    apply_mask,
    density,
    difference,
    intersection,
    invert,
    load_masks,
    random_mask_like,
    save_masks,
    union,
)
from jaxmod.train.axes import Axes
from jaxmod.train.dense import DenseConfig, Trained, train_network
from jaxmod.train.loops import NonFiniteError
from jaxmod.types import Estimator
from jaxmod.workdir import Workdir

__version__ = "0.1.0"

__all__ = [
    "Axes",
    "DenseConfig",
    "Estimator",
    "Evaluation",
    "Found",
    "MaskConfig",
    "NonFiniteError",
    "Trained",
    "Workdir",
    "apply_mask",
    "density",
    "difference",
    "edge_popup",
    "evaluate",
    "find_alpha",
    "find_modules",
    "gumbel_sigmoid",
    "hard_concrete",
    "intersection",
    "invert",
    "load_masks",
    "random_mask_like",
    "save_masks",
    "sharing",
    "train_network",
    "union",
]
