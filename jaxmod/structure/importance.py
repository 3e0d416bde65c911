"""Which parts of a network matter, alone and given each other (Filan et al. 2020, lesions).

Every lesion is held against lesions of as many random neurons of the same layer.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmod.structure.lesions import SubModule, count_right, hidden_sizes, random_lesions
from jaxmod.structure.shuffles import p_value
from jaxmod.types import Params

__all__ = [
    "Double",
    "Kind",
    "Single",
    "across_layers",
    "classify",
    "dependencies",
    "double_lesions",
    "single_lesions",
]

HARM = 0.01
"""The drop of accuracy that counts: one percentage point."""
SMALL = 0.05
"""A sub-module with a smaller part of its layer is small."""
P_SINGLE, P_DOUBLE = 1 / 100, 1 / 50
"""Significant is a p below: with the paper's 100 and 50 controls, if a lesion does more harm than each."""
_SINGLE, _DOUBLE = 0, 1

Kind: TypeAlias = Literal[
    "complete",
    "small",
    "important",
    "prunable",
    "least_important",
    "sig-but-not-diff",
    "diff-but-not-sig",
    "other",
]


class Single(NamedTuple):
    """What the lesion of one sub-module does: a row of table A.18."""

    name: str
    drop: float
    """Of the accuracy; below zero if the lesion does good."""
    p: float
    """`(1 + how many controls do more harm) / (1 + controls)`, as in the paper's code."""
    p_with_ties: float
    """The same with the controls that do as much harm, as North et al. count."""
    neurons: int
    proportion: float
    """Of the connected neurons of the layer."""
    kind: Kind
    random_mean: float
    """Drop of the controls."""
    random_std: float
    """The same; with n in the denominator."""


class Double(NamedTuple):
    """What the lesions of two sub-modules X and Y do together: a row of table A.19."""

    x: str
    y: str
    drop: float
    """Of both lesions at once."""
    delta_x: float
    """delta(X, Y): what X adds to the drop once Y is gone."""
    delta_y: float
    """delta(Y, X): what Y adds to the drop once X is gone."""
    p_x: float
    """Of X given Y: `(1 + how many random X' do as much harm with Y, or more) / (1 + controls)`."""
    p_y: float

    @property
    def x_important(self) -> bool:
        """Whether X is important given that Y is gone."""
        return self.p_x < P_DOUBLE and self.delta_x >= HARM

    @property
    def y_important(self) -> bool:
        """Whether Y is important given that X is gone."""
        return self.p_y < P_DOUBLE and self.delta_y >= HARM

    def turned(self) -> "Double":
        """Returns the same pair with Y first."""
        return Double(self.y, self.x, self.drop, self.delta_y, self.delta_x, self.p_y, self.p_x)


def single_lesions(
    params: Params,
    inputs: Float[Array, "examples features"],
    labels: Int[Array, " examples"],
    modules: Sequence[SubModule],
    key: Key[Array, ""],
    controls: int = 100,
) -> list[Single]:
    """Returns what the lesion of each sub-module does, beside those of random neurons of its layer.

    Args:
      params: of an `MLP`.
      inputs: the examples on which accuracy is measured.
      labels: their classes.
      modules: from `sub_modules`.
      key: of the controls. Those of a sub-module depend on the key, its name and its size alone.
      controls: how many for each.
    """
    sizes = hidden_sizes(params)
    lesions = [_keep(sizes)]
    for x in modules:
        random = random_lesions(_fold(key, _SINGLE, x.layer, x.cluster), x.connected, x.size, controls)
        lesions += [_keep(sizes, (x.layer, x.neurons)), _keep(sizes, (x.layer, random))]
    whole, *counts = _counted(params, inputs, labels, lesions)
    examples = len(labels)
    found = []
    for x, own, random in zip(modules, counts[::2], counts[1::2], strict=True):
        drop, randoms = float(whole[0] - own[0]) / examples, (whole - random) / examples
        p, ties = (_p_value(own[0], random, equal) for equal in (False, True))
        proportion = x.size / int(np.count_nonzero(x.connected))
        found.append(
            Single(
                x.name,
                drop,
                p,
                ties,
                x.size,
                proportion,
                classify(drop, p, proportion),
                float(randoms.mean()),
                float(randoms.std()),
            )
        )
    return found


def classify(drop: float, p: float, proportion: float) -> Kind:
    """Returns the class of a sub-module, by the rules of the paper's code; the first that fits.

    `complete`: the whole layer. `small`: less than 5% of it. `important`: p < 1/100, a drop of one point or
    more. `prunable` and `least_important`: p = 1, as every control does more harm; a drop below one point, or
    not. `sig-but-not-diff`: p < 1/100. `diff-but-not-sig`: a drop of more than one point. `other`: the rest.

    Args:
      drop: of the accuracy, 0.01 for one point.
      p: of the sub-module.
      proportion: its part of the connected neurons of the layer.
    """
    if proportion >= 1:
        return "complete"
    if proportion < SMALL:
        return "small"
    if p >= 1:
        return "least_important" if drop >= HARM else "prunable"
    if p < P_SINGLE:
        return "important" if drop >= HARM else "sig-but-not-diff"
    return "diff-but-not-sig" if drop > HARM else "other"


def double_lesions(
    params: Params,
    inputs: Float[Array, "examples features"],
    labels: Int[Array, " examples"],
    pairs: Iterable[tuple[SubModule, SubModule]],
    key: Key[Array, ""],
    controls: int = 50,
) -> list[Double]:
    """Returns what the lesions of each pair do together, and how important each is given the other.

    X is important given Y if it adds one point or more to the drop, and no random X' does as much harm
    together with Y. X' are as many connected neurons of the layer of X; none of them are in Y.

    Args:
      params: of an `MLP`.
      inputs: the examples on which accuracy is measured.
      labels: their classes.
      pairs: X and Y, two sub-modules.
      key: of the controls.
      controls: how many for each of the two.
    """
    sizes = hidden_sizes(params)
    pairs = list(pairs)
    alone = {module.name: module for pair in pairs for module in pair}
    lesions = [_keep(sizes), *(_keep(sizes, (x.layer, x.neurons)) for x in alone.values())]
    for x, y in pairs:
        lesions.append(_keep(sizes, (x.layer, x.neurons), (y.layer, y.neurons)))
        for one, other in ((x, y), (y, x)):
            free = one.connected & ~other.neurons if one.layer == other.layer else one.connected
            stream = _fold(key, _DOUBLE, one.layer, one.cluster, other.layer, other.cluster)
            random = random_lesions(stream, free, one.size, controls)
            lesions.append(_keep(sizes, (one.layer, random), (other.layer, other.neurons)))
    whole, *counts = _counted(params, inputs, labels, lesions)
    only = dict(zip(alone, counts, strict=False))
    examples = len(labels)
    found = []
    for i, (x, y) in enumerate(pairs):
        both, random_x, random_y = counts[len(alone) + 3 * i :][:3]
        without = (whole, only[y.name], only[x.name])
        drop, delta_x, delta_y = (float(n[0] - both[0]) / examples for n in without)
        ps = (_p_value(both[0], random, count_equal=True) for random in (random_x, random_y))
        found.append(Double(x.name, y.name, drop, delta_x, delta_y, *ps))
    return found


def across_layers(doubles: Iterable[Double], modules: Collection[str]) -> list[Double]:
    """Returns the pairs of these sub-modules that lie in two layers; X is the one in the earlier layer."""
    pairs = [d for d in doubles if {d.x, d.y} <= set(modules) and _layer(d.x) != _layer(d.y)]
    return [d if _layer(d.x) < _layer(d.y) else d.turned() for d in pairs]


def dependencies(doubles: Iterable[Double], modules: Collection[str]) -> list[tuple[str, str]]:
    """Returns the edges of the dependency graph, each from an earlier layer to a later one.

    There is an edge from X to Y if one of them is not important given that the other is gone. If X is
    not, all that X gives goes through Y; if Y is not, all that Y takes comes from X.

    Args:
      doubles: from `double_lesions`. Pairs of one layer say nothing here.
      modules: the names of the nodes: of the important sub-modules.
    """
    return [(d.x, d.y) for d in across_layers(doubles, modules) if not (d.x_important and d.y_important)]


def _layer(name: str) -> int:
    return int(name.split("-")[0])


def _fold(key: Array, *numbers: int) -> Array:
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def _p_value(right: int, random: np.ndarray, count_equal: bool) -> float:
    return float(p_value(float(right), random.astype(np.float64), count_equal=count_equal))


def _keep(sizes: Sequence[int], *gone: tuple[int, np.ndarray]) -> list[np.ndarray]:
    """Returns what lesions leave of each hidden layer; `gone` are layers with neurons, one set or several."""
    lesions = max([len(neurons) for _, neurons in gone if neurons.ndim == 2], default=1)
    keep = [np.ones((lesions, size), bool) for size in sizes]
    for layer, neurons in gone:
        keep[layer - 1] &= ~np.atleast_2d(neurons)
    return keep


def _counted(params: Params, inputs: Array, labels: Array, lesions: list[list[np.ndarray]]):
    """Returns `count_right` for each of these groups of lesions, all evaluated together."""
    together = [np.concatenate(layer) for layer in zip(*lesions, strict=True)]
    ends = np.cumsum([len(group[0]) for group in lesions])[:-1]
    return np.split(count_right(params, inputs, labels, together), ends)
