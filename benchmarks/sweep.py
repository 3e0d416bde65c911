"""What many runs at once gain: R runs in one compiled program against R runs one after another.

    python -m benchmarks.sweep
    python -m benchmarks.sweep --networks=fnn-2000x4 --runs=1,2,4 --modes=map,vmap

Masks are trained, S = 4. The runs of a program are on an axis that is mapped, vmapped or unrolled, or
spread over the devices where there are several (XLA_FLAGS=--xla_force_host_platform_device_count=2 makes
two of a CPU). In sequence means that the program of one run is called once for each. Chunks take turns;
`throughput` is steps of all runs per second, `gain` the median over the rounds of its ratio to the
sequence's. The target is for ten runs of the small FNN in the backend's own mode.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import harness
from benchmarks.mask_step import mask_chunk
from benchmarks.networks import NETWORKS, Network
from jaxmod.train.axes import Axes, Mode, resolve_axes

NUM_SAMPLES = 4
CHUNK_PART = 4  # of the network's chunk, so that 32 runs do not take half a minute
TARGETS = {"cpu": 1.0, "gpu": 5.0}
"""The least gain of ten runs of the small FNN, by platform."""


def measure(
    name: str, network: Network, runs: Sequence[int], modes: Sequence[Mode], rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields a row per number of runs and mode."""
    network = network._replace(chunk_steps=max(1, network.chunk_steps // CHUNK_PART))
    params = jax.jit(network.init)(jax.random.key(0))
    alone = mask_chunk(network, params, "mix32", NUM_SAMPLES)
    for count in runs:
        chunks = {
            mode: mask_chunk(network, params, "mix32", NUM_SAMPLES, Axes(runs=mode), count) for mode in modes
        }

        def in_sequence(count: int = count) -> float:
            return sum(alone() for _ in range(count))

        seconds = harness.take_turns({"sequence": in_sequence, **chunks}, rounds)
        for mode, chunk in chunks.items():
            yield {
                "benchmark": "sweep",
                "network": name,
                "runs": count,
                "mode": mode,
                "samples": NUM_SAMPLES,
                "steps": chunk.length,
                "rounds": rounds,
                "throughput": round(count * chunk.length / statistics.median(seconds[mode]), 2),
                "sequence": round(count * chunk.length / statistics.median(seconds["sequence"]), 2),
                "gain": round(harness.ratio(seconds["sequence"], seconds[mode]), 3),
                "target": _target(name, count, mode),
                "compile_s": round(chunk.compile_seconds, 2),
                **harness.environment(),
            }


def _target(name: str, count: int, mode: str) -> float | None:
    judged = (name, count, mode) == ("fnn-400-400-200", 10, resolve_axes(Axes()).runs)
    return TARGETS.get(jax.default_backend()) if judged else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    titles = ("network", "runs", "mode", "steps/s together", "in sequence", "gain", "target", "compile s")
    lines: list[tuple[str, ...]] = [titles]
    for row in rows:
        numbers = (f"{row['throughput']:.1f}", f"{row['sequence']:.1f}", f"{row['gain']:.2f}")
        numbers += (harness.verdict(row["gain"], row["target"], ">="),)
        lines.append((row["network"], str(row["runs"]), row["mode"], *numbers, f"{row['compile_s']:.1f}"))
    return harness.table(lines)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    modes = ["map", "vmap"] if jax.default_backend() == "cpu" else ["vmap", "map"]
    harness.define_list(values, "networks", ["fnn-400-400-200"], NETWORKS, "which networks")
    harness.define_list(values, "runs", ["1", "2", "4", "10", "32"], map(str, range(1, 257)), "how many runs")
    harness.define_list(values, "modes", modes, ("vmap", "map", "unroll"), "how the runs' axis is run")
    flags.DEFINE_integer("rounds", 5, "of one chunk of each.", lower_bound=1, flag_values=values)
    return harness.parse("sweep", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    runs = [int(n) for n in given.runs]

    def rows() -> Iterator[dict[str, Any]]:
        for name in given.networks:
            yield from measure(name, NETWORKS[name], runs, given.modes, given.rounds)

    print(f"\n{table(harness.publish(rows(), given.out))}")


if __name__ == "__main__":
    main()
