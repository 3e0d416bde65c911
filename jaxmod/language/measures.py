"""What masks of sequence models keep, share and get wrong, layer by layer and example by example."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmod import masks, trees
from jaxmod.analysis.sharing import weights_kept
from jaxmod.types import BinaryMask

__all__ = [
    "Share",
    "accuracy_by_group",
    "breaking",
    "layers",
    "removed_outputs",
    "shares",
    "weights_by_layer",
]

_KINDS = ("ih", "hh", "self attention", "cross attention", "feed forward", "norms")
_PATHS = (
    (r"(encoder|decoder)/l(\d+)_(ih|hh)/.*", "{0} l{1} {2}"),
    (r"(encoder|decoder)_(\d+)/(self_attention|cross_attention|feed_forward)/.*", "{0} {1} {2}"),
    (r"(encoder|decoder)_(\d+)/\w+_(norm)/.*", "{0} {1} norms"),
)


def layers(mask: BinaryMask) -> dict[str, list[str]]:
    """Returns `{label: paths}` of the layers of a `Seq2SeqLSTM` or `Transformer`, input first, output last.

    The matrices of an attention are one layer, those of a feed-forward part likewise, the norms of a
    Transformer's layer too.

    Raises:
      ValueError: a leaf of the mask is of neither model.
    """
    found: dict[tuple[object, ...], tuple[str, list[str]]] = {}
    for path, _ in trees.paths_and_leaves(mask):
        label, order = _label(path)
        found.setdefault(order, (label, []))[1].append(path)
    return dict(found[order] for order in sorted(found))


def _label(path: str) -> tuple[str, tuple[int, int, int]]:
    """Returns the label of a leaf's layer and what it is sorted by."""
    if path == "output/kernel":
        return "output", (2, 0, 0)
    for pattern, form in _PATHS:
        if match := re.fullmatch(pattern, path):
            label = form.format(*match.groups()).replace("_", " ")
            kind = next(i for i, kind in enumerate(_KINDS) if label.endswith(kind))
            return label, (int(match[1] == "decoder"), int(match[2]), kind)
    raise ValueError(f"mask leaf {path!r} is of no layer of a Seq2SeqLSTM or a Transformer.")


def weights_by_layer(mask: BinaryMask) -> dict[str, Int[np.ndarray, " runs"]]:
    """Returns `{label: weights that the mask keeps, ..., "total"}`; the mask has a runs axis."""
    return _by_layer(mask, _counts(mask))


class Share(NamedTuple):
    """The part of a target mask's layer that a reference mask has too."""

    shared: Float[np.ndarray, " runs"]
    """`|t & r| / |t|`; 0 if the target keeps nothing."""
    expected: Float[np.ndarray, " runs"]
    """The same for random masks of the same sizes in each matrix, on average."""


def shares(target: BinaryMask, reference: BinaryMask) -> dict[str, Share]:
    """Returns `{label: Share, ..., "total": Share}`; the masks have a runs axis.

    With the other masks' union as the reference this is the sharing of Csordas et al. 2021; with the control
    mask as the target it is what remains of it; the rest of what the control keeps is exclusive to it.
    """
    both, t, r = (_counts(m) for m in (masks.intersection(target, reference), target, reference))
    expected = {path: t[path] * (r[path] / m[0].size) for path, m in trees.paths_and_leaves(target)}
    found, chance, whole = (_by_layer(target, of) for of in (both, expected, t))
    return {
        label: Share(found[label] / np.maximum(n, 1), chance[label] / np.maximum(n, 1))
        for label, n in whole.items()
    }


def _counts(mask: BinaryMask) -> dict[str, np.ndarray]:
    counted = {path: np.asarray(n, np.int64) for path, n in jax.vmap(weights_kept)(mask).items()}
    return {path: n for path, n in counted.items() if path != "total"}


def _by_layer(mask: BinaryMask, counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {label: np.sum([counts[path] for path in paths], axis=0) for label, paths in layers(mask).items()}
    return found | {"total": np.sum(list(found.values()), axis=0)}


def removed_outputs(control: BinaryMask, mask: BinaryMask) -> Float[np.ndarray, "runs tokens"]:
    """Returns, for each output token, the percentage of the control's output weights that a mask lacks.

    `|c & ~m| / |c|` in each column of the output kernel (Csordas et al. 2021, figure 4b); NaN where the
    control keeps none.
    """
    kept, left = (np.asarray(m["output"]["kernel"]) for m in (control, mask))
    count = kept.sum(axis=1)
    removed = (kept & ~left).sum(axis=1)
    return np.where(count > 0, 100 * removed / np.maximum(count, 1), np.nan)


def accuracy_by_group(
    right: Bool[np.ndarray, "runs examples"], group: Int[np.ndarray, " examples"], count: int
) -> Float[np.ndarray, "runs groups"]:
    """Returns the part of each group's examples that is right; NaN for a group without examples.

    >>> accuracy_by_group(np.array([[True, False, True]]), np.array([0, 0, 1]), 2).tolist()
    [[0.5, 1.0]]
    """
    size = np.bincount(group, minlength=count).astype(float)
    size[size == 0] = np.nan
    return np.stack([np.bincount(group, weights=run, minlength=count) / size for run in right])


def breaking(
    before: Bool[np.ndarray, " examples"],
    after: Bool[np.ndarray, " examples"],
    length: Int[np.ndarray, " examples"],
    shown: int,
) -> list[int]:
    """Returns examples that are right before and wrong after, some of each length of the shorter half."""
    rows = np.flatnonzero(before & ~after)
    rows = rows[np.argsort(length[rows], kind="stable")]
    picked = np.linspace(0, max(len(rows) - 1, 0) / 2, min(shown, len(rows))).round().astype(int)
    return rows[np.unique(picked)].tolist()
