"""Flax Linen models of the experiments. They know nothing of masks: `init` gives a plain dict."""

import math
import re

from jaxmod import trees
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.models.mlp import MLP
from jaxmod.models.subnetworks import SubNetworks
from jaxmod.types import Params

__all__ = ["FNN", "LSTMClassifier", "MLP", "SubNetworks", "is_outer", "layer_labels"]


def layer_labels(params: Params) -> dict[str, str]:
    """Returns `{path: label}` of the weight matrices and kernels of a model of ours, input first.

    The labels are those of `results.json`: "layer 1", ..., "output", or "l0 ih", "l0 hh", ..., or "stem",
    "group 1 conv 1", ... A mask that mirrors the params will do as well.

    >>> import jax.numpy as jnp
    >>> layer_labels({"output": {"kernel": jnp.ones((2, 1))}, "layer_1": {"kernel": jnp.ones((3, 2))}})
    {'layer_1/kernel': 'layer 1', 'output/kernel': 'output'}
    """
    found = []
    for path, _ in trees.paths_and_leaves(params):
        if match := re.fullmatch(r"(?:.*?/)??((?:group_[^/]+/)?[^/]+)/kernel", path):
            found.append((path, match[1]))
    ordered = sorted(found, key=lambda x: _depth(x[1]))
    return {path: re.sub("[/_]", " ", name) for path, name in ordered}


def is_outer(label: str) -> bool:
    """Returns whether the layer of this label reads the input or writes the output."""
    return label in ("layer 1", "l0 ih", "output")


def _depth(name: str) -> tuple[float, bool, bool, str]:
    # Dicts come sorted by name ("l0_hh" before "l0_ih"); this is the order in which data pass. A group of
    # a ResNet has its first block apart.
    number = re.search(r"\d+", name)
    depth = 0 if name == "stem" else int(number[0]) if number else math.inf
    return (depth, "_start/" not in name, name.endswith("_hh"), name)
