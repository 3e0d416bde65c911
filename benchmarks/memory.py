"""How much memory mask training takes, against samples, runs and the size of the network.

    python -m benchmarks.memory
    python -m benchmarks.memory --networks=fnn-2000x4 --samples=1,4,8 --runs=1,4 --modes=map,vmap

Each row compiles a chunk and asks XLA what it will hold: arguments (state, frozen weights, data) and
temporaries. `peak` is the most that the device has held, where it counts that, in the rows that raised it.
`estimate` is what a run says before it compiles (`jaxmod.train.memory`).
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import harness
from benchmarks.mask_step import mask_chunk
from benchmarks.networks import NETWORKS, Network
from jaxmod.train.axes import Axes, Mode


def measure(
    name: str, network: Network, samples: Sequence[int], runs: Sequence[int], modes: Sequence[Mode]
) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of samples and runs, and each way to run both axes."""
    params = jax.jit(network.init)(jax.random.key(0))
    peak = _peak()
    for n in samples:
        for count in runs:
            for mode in modes:
                axes = Axes(samples=mode, runs=mode)
                chunk = mask_chunk(network, params, "mix32", n, axes, count)
                held: Any = chunk.compiled.memory_analysis()
                earlier, peak = peak, _peak()
                yield {
                    "benchmark": "memory",
                    "network": name,
                    "samples": n,
                    "runs": count,
                    "mode": mode,
                    "arguments_mb": _mb(held.argument_size_in_bytes),
                    "temporaries_mb": _mb(held.temp_size_in_bytes),
                    "estimate_mb": _mb(sum(chunk.estimate)),
                    "peak_mb": _mb(peak) if peak > earlier else None,
                    **harness.environment(),
                }


def _peak() -> int:
    """Returns the most bytes that the device has held, 0 if it does not count them."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def _mb(size: float) -> float:
    return round(size / 1e6, 2)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    lines: list[tuple[str, ...]] = [
        ("network", "S", "runs", "mode", "arguments MB", "temporaries MB", "estimate MB", "peak MB")
    ]
    for row in rows:
        numbers = [row[f"{name}_mb"] for name in ("arguments", "temporaries", "estimate", "peak")]
        shown = ["" if x is None else f"{x:.1f}" for x in numbers]
        lines.append((row["network"], str(row["samples"]), str(row["runs"]), row["mode"], *shown))
    return harness.table(lines)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    modes = ("vmap", "map", "unroll")
    harness.define_list(values, "networks", ["fnn-400-400-200", "fnn-2000x4"], NETWORKS, "which networks")
    harness.define_list(values, "samples", ["1", "4", "8"], map(str, (1, 2, 4, 8, 16)), "masks a step")
    harness.define_list(values, "runs", ["1", "4"], map(str, range(1, 257)), "how many runs")
    harness.define_list(values, "modes", ["vmap", "map"], modes, "how samples and runs are run")
    return harness.parse("memory", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    samples, runs = [int(n) for n in given.samples], [int(n) for n in given.runs]

    def rows() -> Iterator[dict[str, Any]]:
        for name in given.networks:
            yield from measure(name, NETWORKS[name], samples, runs, given.modes)

    print(f"\n{table(harness.publish(rows(), given.out))}")


if __name__ == "__main__":
    main()
