"""Clustering weight graphs: ours against scikit-learn's, on the same shuffles of pruned MNIST-size networks.

    python -m benchmarks.structure
    python -m benchmarks.structure --shuffles=64 --rounds=3 --networks=0 --calibrated=0

The network is an MLP 784, 256 x 4, 10 with 90% of each layer zero. A time is that of a shuffle: drawing,
eigenvectors, k-means with 10 restarts, n-cut. scikit-learn takes a few of the same shuffles, with as many
BLAS threads as it likes and with one, which is often faster. `agreement` rows say how far the n-cuts of both
lie apart on random pruned networks; `calibration` rows are the n-cuts of five networks of each kind beside
what they should be.
"""

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import harness
from jaxmod.structure import Clustering, cluster_many, cluster_shuffles
from jaxmod.structure.ncut import Method
from jaxmod.train import devices

SIZES = (784, 256, 256, 256, 256, 10)
K = 4
TARGETS: dict[Method, float] = {"sklearn": 5.0, "sklearn-lobpcg": 2.0}
"""How many times faster than each solver ours has to be."""

CALIBRATION: dict[tuple[str, int], tuple[float, float]] = {
    ("dense", 2): (0.385, 0.385),
    ("dense", 4): (2.31, 2.41),
    ("dense", 7): (5.26, 5.29),
    ("dense", 10): (8.25, 8.35),
    ("pruned", 2): (0.325, 0.325),
    ("pruned", 4): (2.03, 2.06),
    ("pruned", 7): (4.68, 4.74),
    ("pruned", 10): (7.37, 7.48),
}
"""(kind, k) -> the n-cuts that five networks of the kind had with scikit-learn."""


def network(kind: str, seed: int, sizes: Sequence[int] = SIZES) -> list[np.ndarray]:
    """Returns |W| of Glorot-uniform layers ("dense"), or of Gaussian ones of which a tenth is kept."""
    random = np.random.default_rng(seed)
    layers = []
    for shape in itertools.pairwise(sizes):
        if kind == "dense":
            limit = (6 / sum(shape)) ** 0.5
            layers.append(np.abs(random.uniform(-limit, limit, shape)).astype(np.float32))
        else:
            w = np.abs(random.standard_normal(shape)).astype(np.float32)
            layers.append(np.where(w >= np.quantile(w, 0.9), w, np.float32(0)))
    return layers


def time_shuffles(
    shuffles: int, few: int, rounds: int, sizes: Sequence[int] = SIZES
) -> Iterator[dict[str, Any]]:
    """Yields a row for each method: milliseconds a shuffle, and how many times longer than ours."""
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    weights = network("pruned", 0, sizes)
    found: dict[str, np.ndarray] = {}

    def contender(method: Method, count: int, threads: int | None = None) -> Callable[[], float]:
        def run() -> float:
            with threadpool_limits(threads):
                started = time.perf_counter()
                found[method] = cluster_shuffles(weights, K, count, seed=1, method=method)
                return (time.perf_counter() - started) / count

        return run

    ours = contender("jaxmod", shuffles)
    first = ours()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # kilobytes, on Linux
    contenders: dict[tuple[Method, int | None], Callable[[], float]] = {("jaxmod", None): ours}
    contenders |= {(m, threads): contender(m, few, threads) for m in TARGETS for threads in (None, 1)}
    seconds = harness.take_turns(contenders, rounds)
    for (method, threads), times in seconds.items():
        both = min(len(found["jaxmod"]), len(found[method]))
        gaps = np.abs(found["jaxmod"][:both] - found[method][:both])
        is_ours = method == "jaxmod"
        yield {
            "benchmark": "structure",
            "measure": "time",
            "method": method,
            "blas_threads": threads,
            "graphs": len(found[method]),
            "ms_a_graph": round(1e3 * statistics.median(times), 2),
            "times_ours": round(harness.ratio(times, seconds["jaxmod", None]), 1),
            "target": TARGETS.get(method),
            "n_cut": round(float(found[method].mean()), 4),
            "median_gap": round(float(np.median(gaps)), 4),
            "compile_s": round(max(first - times[0], 0) * shuffles, 1) if is_ours else None,
            "peak_mb": round(peak) if is_ours else None,
            **harness.environment(),
        }


def agreement(networks: int, sizes: Sequence[int] = SIZES) -> Iterator[dict[str, Any]]:
    """Yields a row: n-cuts of random pruned networks, ours and scikit-learn's."""
    graphs = [network("pruned", 100 + i, sizes) for i in range(networks)]
    ours, theirs = (_n_cuts(cluster_many(graphs, K, method=m)) for m in ("jaxmod", "sklearn"))
    yield {
        "benchmark": "structure",
        "measure": "agreement",
        "networks": networks,
        "ours": round(float(ours.mean()), 4),
        "theirs": round(float(theirs.mean()), 4),
        "median_gap": round(float(np.median(np.abs(ours - theirs))), 5),
        "mean_gap": round(float(np.mean(ours - theirs)), 5),
        "largest_gap": round(float(np.max(np.abs(ours - theirs))), 5),
        **harness.environment(),
    }


def calibration(networks: int, sizes: Sequence[int] = SIZES) -> Iterator[dict[str, Any]]:
    """Yields a row for each kind of network and number of clusters."""
    for (kind, k), expected in CALIBRATION.items():
        graphs = [network(kind, i, sizes) for i in range(networks)]
        ours, theirs = (_n_cuts(cluster_many(graphs, k, method=m)) for m in ("jaxmod", "sklearn"))
        yield {
            "benchmark": "structure",
            "measure": "calibration",
            "kind": kind,
            "k": k,
            "expected": expected,
            "ours": [round(float(f(ours)), 3) for f in (np.min, np.max)],
            "theirs": [round(float(f(theirs)), 3) for f in (np.min, np.max)],
            **harness.environment(),
        }


def _n_cuts(found: list[Clustering]) -> np.ndarray:
    return np.array([c.n_cut for c in found])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    tables = {
        "time": (
            "method",
            "blas_threads",
            "graphs",
            "ms_a_graph",
            "times_ours",
            "target",
            "n_cut",
            "median_gap",
        ),
        "agreement": ("networks", "ours", "theirs", "median_gap", "mean_gap", "largest_gap"),
        "calibration": ("kind", "k", "ours", "theirs", "expected"),
    }
    shown = []
    for measure, names in tables.items():
        lines = [[_cell(row[name]) for name in names] for row in rows if row["measure"] == measure]
        if lines:
            shown.append(harness.table([[name.replace("_", " ") for name in names], *lines]))
    return "\n\n".join(shown)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "-".join(f"{x:.3f}" for x in value)
    return "" if value is None else str(value)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    flags.DEFINE_integer("shuffles", 320, "that ours clusters in a call.", 1, flag_values=values)
    flags.DEFINE_integer("few", 8, "of them that scikit-learn clusters in a call.", 1, flag_values=values)
    flags.DEFINE_integer("rounds", 1, "of one call of each.", 1, flag_values=values)
    flags.DEFINE_integer("networks", 50, "of the agreement; 0: leave it out.", 0, flag_values=values)
    flags.DEFINE_integer("calibrated", 5, "networks of each kind; 0: none.", 0, flag_values=values)
    return harness.parse("structure", __doc__, values, argv)


def main(argv: Sequence[str] | None = None, sizes: Sequence[int] = SIZES) -> None:
    """Measures what the flags ask for; a JSON line each, then the tables."""
    given = parse(sys.argv[1:] if argv is None else argv)

    def rows() -> Iterator[dict[str, Any]]:
        yield from time_shuffles(given.shuffles, given.few, given.rounds, sizes)
        if given.networks:
            yield from agreement(given.networks, sizes)
        if given.calibrated:
            yield from calibration(given.calibrated, sizes)

    print(f"\n{table(harness.publish(rows(), given.out))}")


if __name__ == "__main__":
    devices.one_for_each_core()
    main()
