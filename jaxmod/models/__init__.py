"""Flax Linen models of the experiments. They know nothing of masks: `init` gives a plain dict."""

import math
import re

from jaxmod import trees
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.types import Params

__all__ = ["FNN", "LSTMClassifier", "layer_labels"]


def layer_labels(params: Params) -> dict[str, str]:
    """Returns `{path: label}` of the weight matrices of an `FNN` or `LSTMClassifier`, input first.

    The labels are those of `results.json`: "layer 1", ..., "output", or "l0 ih", "l0 hh", ...
    A mask that mirrors the params will do as well.

    >>> import jax.numpy as jnp
    >>> layer_labels({"output": {"kernel": jnp.ones((2, 1))}, "layer_1": {"kernel": jnp.ones((3, 2))}})
    {'layer_1/kernel': 'layer 1', 'output/kernel': 'output'}
    """
    found = []
    for path, _ in trees.paths_and_leaves(params):
        if match := re.fullmatch(r"(?:.*/)?([^/]+)/kernel", path):
            found.append((path, match[1]))
    return {path: name.replace("_", " ") for path, name in sorted(found, key=lambda x: _depth(x[1]))}


def _depth(name: str) -> tuple[float, bool]:
    # Dicts come sorted by name ("l0_hh" before "l0_ih"); this is the order in which data pass.
    number = re.search(r"\d+", name)
    return (int(number[0]) if number else math.inf, name.endswith("_hh"))
