"""What chance would give: the overlap of two random masks of the same sizes in each layer.

If one of two masks with `k` and `m` of a layer's `n` weights is shuffled, the number of weights
they share is hypergeometric, with mean `k m / n` and variance `k m (n-k) (n-m) / (n^2 (n-1))`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32
from scipy.special import gammaln, log_ndtr

from jaxmod import masks, trees
from jaxmod.analysis.sharing import weights_kept
from jaxmod.types import BinaryMask

__all__ = ["Chance", "chance_overlap"]


class Chance(NamedTuple):
    """An overlap beside what chance gives."""

    overlap: Float[Array, ""]
    """The observed part of the target mask that is shared, as `Sharing.shared`."""
    expected: Float[Array, ""]
    """The same for random masks of the same sizes in each layer, on average."""
    z: Float[Array, ""]
    """Standard deviations above (+) or below (-) the expected overlap; 0 if it cannot vary."""
    log10_p: Float[Array, ""]
    """log10 of the probability of an overlap at least as far out on that side (one tail, <= 0)."""


def chance_overlap(
    target: BinaryMask,
    reference: BinaryMask,
    within: BinaryMask | None = None,
    *,
    runs_axis: int | None = None,
) -> dict[str, Chance]:
    """Returns `{path: Chance, ..., "total": Chance}` for the overlap of two masks.

    A layer's `log10_p` is exact. The total is a sum of independent hypergeometric numbers: means
    and variances add, and its `log10_p` is the normal approximation (with continuity correction),
    an order of magnitude where |z| is large.

    The tails need float64, so this is a function of the host: it cannot be jitted or vmapped.

    Args:
      target: the mask whose shared part is asked for.
      reference: the mask it is compared with.
      within: the weights that a random mask may choose from, e.g. the control mask: do two modules
        share more than any two parts of the trained network's needed weights do? What the masks
        keep outside of it is left out, so `overlap` is `|t & r & c| / |t & c|`. Default: all.
      runs_axis: 0 if all masks have a leading runs axis; the statistics then have it too.

    Raises:
      ValueError: the masks differ in structure or shapes; a leaf's path is `"total"`.
    """
    if runs_axis is None:
        target, reference, within = jax.tree.map(lambda m: m[None], (target, reference, within))
    runs = next((m.shape[0] for m in jax.tree.leaves(target)), 1)
    counts = np.asarray(jax.jit(jax.vmap(_counts, axis_size=runs))(target, reference, within))
    table = np.stack([_statistics(*run) for run in counts.astype(np.int64)], axis=-1)
    if runs_axis is None:
        table = table[..., 0]
    paths = [path for path, _ in trees.paths_and_leaves(target)] + ["total"]
    return {path: Chance(*jnp.asarray(fields)) for path, fields in zip(paths, table, strict=True)}


def _counts(target: BinaryMask, reference: BinaryMask, within: BinaryMask | None) -> Int32[Array, "4 layers"]:
    """Returns the sizes of overlap, target, reference, and of the weights to choose from."""
    if within is None:
        sizes = weights_kept(jax.tree.map(lambda m: jnp.ones(jnp.shape(m), bool), target))
    else:
        target, reference = masks.intersection(target, within), masks.intersection(reference, within)
        sizes = weights_kept(within)
    both = weights_kept(masks.intersection(target, reference))
    kept = (both, weights_kept(target), weights_kept(reference), sizes)
    return jnp.array([[part[path] for path in both if path != "total"] for part in kept], jnp.int32)


def _statistics(both: np.ndarray, k: np.ndarray, m: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Returns the fields of `Chance` `[layers + 1, 4]` from counts `[layers]`, the total last."""
    tails = [_log_tail(*map(int, layer)) for layer in zip(both, k, m, n, strict=True)]
    least = np.maximum(n, 1).astype(float)
    mean = k * m / least
    variance = mean * (n - k) / least * (n - m) / np.maximum(n - 1, 1)
    both, k, mean, variance = (np.append(x, x.sum()) for x in (both, k, mean, variance))
    deviation, scale = both - mean, np.sqrt(np.where(variance > 0, variance, 1.0))
    normal = log_ndtr(-np.maximum(np.abs(deviation) - 0.5, 0) / scale)
    log_p = np.append(tails, normal[-1]) / np.log(10)
    fields = [
        both / np.maximum(k, 1),
        mean / np.maximum(k, 1),
        np.where(variance > 0, deviation / scale, 0.0),
        np.where(variance > 0, log_p, 0.0),
    ]
    return np.stack(fields, axis=1).astype(np.float32)


def _log_tail(both: int, k: int, m: int, n: int) -> float:
    """Returns log P(X >= both), or of X <= both where that is the side of the deviation."""
    if both * n < k * m:
        both, m = k - both, n - m  # few in common with a mask is many in common with its complement
    # From the mean outwards the terms fall at least as fast as a normal density, so ten standard
    # deviations hold the sum (60 more for the skew of small numbers). Far out, where logsf of
    # SciPy sums the whole support, this stays exact and short.
    deviation = np.sqrt(k * (m / max(n, 1)) * (1 - k / max(n, 1)) * (n - m) / max(n - 1, 1))
    x = np.arange(both, both + min(min(k, m) - both, int(10 * deviation) + 60), dtype=float)
    ratios = np.log((k - x) / (x + 1)) + np.log((m - x) / (n - k - m + x + 1))
    first = _log_choose(k, both) + _log_choose(n - k, m - both) - _log_choose(n, m)
    return min(float(first + np.log1p(np.exp(np.cumsum(ratios)).sum())), 0.0)


def _log_choose(n: int, k: int) -> float:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
