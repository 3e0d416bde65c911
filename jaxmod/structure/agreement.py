"""Do two ways of dividing the neurons of a network agree: clusters of its weights, and modules by masks?

A control mask is trained on all classes, and then one mask on all classes but c. A weight that the control
keeps and that mask drops is a class weight of c: it was kept for c alone (Csordas et al. 2021, section 4.4).
Clusters (Filan et al. 2020) and classes then both label the neurons, and two labelings can be compared.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmod.structure import ncut

__all__ = ["Agreement", "ClassWeights", "Labels", "agreement", "class_weights", "neuron_classes"]

Labels: TypeAlias = Sequence[np.ndarray]
"""For each layer of neurons, a number >= 0 for each neuron; -1 where a neuron has none."""

_ROUNDING = 1e-9


class ClassWeights(NamedTuple):
    """The class weights at each neuron, incoming and outgoing ones, for each layer of neurons."""

    kept: tuple[Int[np.ndarray, " layer"], ...]
    """How many weights at the neuron the control mask keeps."""
    dropped: tuple[Int[np.ndarray, "layer classes"], ...]
    """How many of these the mask trained without a class drops."""


class Agreement(NamedTuple):
    """How far two labelings of the same neurons agree, and how far shuffled ones do."""

    ami: float
    """Adjusted mutual information: 1 for the same groups, about 0 for unrelated ones."""
    p: float
    """(1 + shuffles with an AMI at least as large) / (1 + shuffles), North et al. 2002."""
    shuffles_mean: float
    shuffles_std: float
    at_most: float
    """What groups of these sizes could reach: the AMI if those of one were parts of those of the other."""
    neurons: int
    """With a label in both; the others are left out."""
    counts: Int[np.ndarray, "first second"]
    """How many of them have each pair of labels."""


def class_weights(
    control: Sequence[Bool[np.ndarray, "fan_in fan_out"]],
    without: Sequence[Bool[np.ndarray, "classes fan_in fan_out"]],
) -> ClassWeights:
    """Returns the class weights at each neuron: those that the control mask keeps and a class's mask drops.

    Args:
      control: the control mask of each layer, in the order in which data pass. A weight that is zero should
        count as dropped by all masks. Give only layers whose masks were trained: where a mask is a
        copy of the control's, as in an output layer, nothing can be dropped.
      without: of the same layers, the mask trained without each class.

    Raises:
      ValueError: no layers, or the shapes do not fit.
    """
    shapes = [np.shape(m) for m in control]
    if not shapes or shapes != [np.shape(m)[1:] for m in without]:
        raise ValueError(
            f"control has masks of shapes {shapes}, so without must have [classes, fan in, fan out] of the "
            f"same layers, one or more; got {[np.shape(m) for m in without]}."
        )
    lost = [m[None] & ~w for m, w in zip(control, without, strict=True)]
    classes = {len(w) for w in without}
    if len(classes) > 1:
        raise ValueError(f"without must have the same classes in all layers, got {sorted(classes)}.")
    kept = _at_neurons([m[None] for m in control])
    return ClassWeights(tuple(x[:, 0] for x in kept), tuple(_at_neurons(lost)))


def neuron_classes(weights: ClassWeights) -> tuple[Int[np.ndarray, " layer"], ...]:
    """Returns the class of each neuron: that whose class weights it has most in excess.

    In a layer of neurons the part r_c of all kept weights are class weights of c, so that a neuron with n
    kept weights is expected to have n r_c. It has d_c. The class is the one with the largest

        z_c = (d_c - n r_c) / sqrt(n r_c (1 - r_c)),

    the excess in standard deviations of a binomial: neither classes with many class weights nor neurons
    with many weights win for that alone. Neurons without kept weights have no class (-1), and neither have
    those where no class is in excess. Of equal classes the first is taken.
    """
    labels = []
    for kept, dropped in zip(weights.kept, weights.dropped, strict=True):
        rate = (dropped.sum(axis=0) / max(kept.sum(), 1))[None, :]
        expected = kept[:, None] * rate
        spread = np.sqrt(expected * (1 - rate))
        z = np.where(spread > 0, (dropped - expected) / np.where(spread > 0, spread, 1), 0.0)
        labels.append(np.where(z.max(axis=1) > _ROUNDING, z.argmax(axis=1), -1))
    return tuple(labels)


def agreement(
    first: Labels, second: Labels, *, shuffles: int = 1000, seed: ncut.Seed = 0
) -> tuple[Agreement, ...]:
    """Returns how far two labelings agree: in each layer and, last, in all layers together.

    The labels of the second are shuffled among the neurons of a layer that have both labels. So for all
    layers together, a shuffle keeps how often each label occurs in each layer: labels that merely follow
    the layers have an AMI well above 0, and so do their shuffles. The AMI is 0, and p is 1,
    where no neuron has both labels, where one labeling has a single group, or where all groups of both are
    single neurons: nothing can agree or disagree.

    Args:
      first: one labeling.
      second: the other, of the same neurons.
      shuffles: how many.
      seed: of the shuffles.

    Raises:
      ValueError: the layers differ, or there are none; `shuffles` is not positive.
    """
    sizes = [np.shape(x) for x in first]
    if not sizes or sizes != [np.shape(x) for x in second]:
        raise ValueError(
            "first and second must have labels of the same layers, one or more, got shapes "
            f"{sizes} and {[np.shape(x) for x in second]}."
        )
    if shuffles < 1:
        raise ValueError(f"shuffles: {shuffles}, expected at least one.")
    groups = [1 + max(int(np.max(x, initial=0)) for x in labels) for labels in (first, second)]
    layers = []
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        both = (a >= 0) & (b >= 0)
        many = np.repeat(b[both][None], 1 + shuffles, axis=0)
        many[1:] = ncut.stream(seed, i).permuted(many[1:], axis=1)
        layers.append(_count_pairs(a[both], many, *groups))
    return tuple(_compare(counts) for counts in (*layers, np.sum(layers, axis=0)))


def _at_neurons(masks: Sequence[Bool[np.ndarray, "classes fan_in fan_out"]]) -> list[np.ndarray]:
    """Returns how many weights a mask keeps at each neuron, `[layer, classes]` for each layer of neurons."""
    incoming = [0, *(m.sum(axis=1).T for m in masks)]
    outgoing = [*(m.sum(axis=2).T for m in masks), 0]
    return [np.asarray(a + b) for a, b in zip(incoming, outgoing, strict=True)]


def _count_pairs(
    first: Int[np.ndarray, " n"], second: Int[np.ndarray, "shuffles n"], rows: int, columns: int
) -> Int[np.ndarray, "shuffles rows columns"]:
    cells = rows * columns
    at = np.arange(len(second))[:, None] * cells + first[None] * columns + second
    return np.bincount(at.ravel(), minlength=len(second) * cells).reshape(-1, rows, columns)


def _compare(counts: Int[np.ndarray, "shuffles rows columns"]) -> Agreement:
    """Returns the agreement of the first table of counts; the others, of shuffles, have the same sums."""
    ami, at_most = _adjusted_mutual_information(counts)
    own, others = ami[0], ami[1:]
    # Equal tables may differ by rounding: their numbers are summed in another order.
    p = (1 + np.count_nonzero(others >= own - _ROUNDING)) / (1 + len(others))
    neurons = int(counts[0].sum())
    return Agreement(
        float(own), float(p), float(others.mean()), float(others.std()), at_most, neurons, counts[0]
    )


def _adjusted_mutual_information(
    counts: Int[np.ndarray, "shuffles rows columns"],
) -> tuple[Float[np.ndarray, " shuffles"], float]:
    """Returns scikit-learn's adjusted_mutual_info_score for tables that agree in their sums, and its bound.

    The expected mutual information and the entropies depend on these alone, so they are taken once. No
    mutual information is above the smaller of both entropies.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    rows, columns = counts[0].sum(axis=1), counts[0].sum(axis=0)
    n = counts[0].sum()
    if n == 0:
        return np.zeros(len(counts)), 0.0
    together = rows[:, None] * columns[None, :] / n
    ratio = np.where(counts > 0, counts / np.where(together > 0, together, 1)[None], 1.0)
    information = np.sum(counts / n * np.log(ratio), axis=(1, 2))
    table = counts[0][rows > 0][:, columns > 0]
    expected = expected_mutual_information(table.astype(np.int64), int(n))
    entropies = [-np.sum(x / n * np.log(x / n)) for x in (rows[rows > 0], columns[columns > 0])]
    largest = np.mean(entropies) - expected
    if 1 in table.shape or largest < _ROUNDING:
        return np.zeros(len(counts)), 0.0
    return (information - expected) / largest, float((min(entropies) - expected) / largest)
