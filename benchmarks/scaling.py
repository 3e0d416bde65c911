"""Whether the cost of mask training grows linearly in samples, runs and steps.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --network=lstm-2x256 --plot=scaling.png

One of the three is varied, the others stay: S = 4, one run, a quarter of the network's chunk. All chunks take
turns. A JSON line per point with the milliseconds of a chunk, and a table with those of its unit (a sample of
a step, a run, a step). `off line` is how far a point lies from the straight line through the first and the
last of its axis: growth faster than linear would show as points below it.
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

POINTS = {"samples": (1, 2, 4, 8, 16), "runs": (1, 2, 4, 8, 16, 32), "steps": (1, 2, 4, 8)}
"""By axis; steps in chunks of one run."""
NUM_SAMPLES = 4
CHUNK_PART = 4  # of the network's chunk, so that 32 runs do not take half a minute


def measure(name: str, network: Network, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields a row per axis and point."""
    network = network._replace(chunk_steps=max(1, network.chunk_steps // CHUNK_PART))
    params = jax.jit(network.init)(jax.random.key(0))

    def chunk(axis: str, count: int) -> harness.Chunk:
        steps = network.chunk_steps * (count if axis == "steps" else 1)
        samples, runs = count if axis == "samples" else NUM_SAMPLES, count if axis == "runs" else 1
        return mask_chunk(network._replace(chunk_steps=steps), params, "mix32", samples, runs=runs)

    chunks = {(axis, n): chunk(axis, n) for axis, counts in POINTS.items() for n in counts}
    seconds = harness.take_turns(chunks, rounds)
    times = {key: 1000 * statistics.median(x) for key, x in seconds.items()}
    for (axis, n), chunk_ms in times.items():
        first, *_, last = POINTS[axis]
        line = times[axis, first] + (times[axis, last] - times[axis, first]) * (n - first) / (last - first)
        yield {
            "benchmark": "scaling",
            "network": name,
            "axis": axis,
            "count": n,
            "steps": chunks[axis, n].length,
            "rounds": rounds,
            "chunk_ms": round(chunk_ms, 3),
            "unit_ms": round(chunk_ms / n / network.chunk_steps, 4),
            "off_line": round(chunk_ms / line - 1, 3),
            **harness.environment(),
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    lines = [("network", "axis", "count", "chunk ms", "ms a step and unit", "off line")]
    for row in rows:
        numbers = (f"{row['chunk_ms']:.1f}", f"{row['unit_ms']:.3f}", f"{row['off_line']:+.0%}")
        lines.append((row["network"], row["axis"], str(row["count"]), *numbers))
    return harness.table(lines)


def plot(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Draws a chunk's time against each of the three, with the line through the first and the last point."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(POINTS), figsize=(9, 2.8), layout="constrained")
    for axes, axis in zip(panels, POINTS, strict=True):
        points = [(row["count"], row["chunk_ms"]) for row in rows if row["axis"] == axis]
        axes.plot(*zip(points[0], points[-1], strict=True), color="0.7", label="straight line")
        axes.plot(*zip(*points, strict=True), "o", label="measured")
        axes.set_xlabel({"steps": "steps (chunks)", "samples": "mask samples a step"}.get(axis, axis))
        axes.set_ylim(0)
        axes.set_xlim(0)
    panels[0].set_ylabel("ms a chunk")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    flags.DEFINE_enum("network", "fnn-400-400-200", list(NETWORKS), "which network.", flag_values=values)
    flags.DEFINE_integer("rounds", 5, "of one chunk of each.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("plot", None, "a .png of time against each axis.", flag_values=values)
    return harness.parse("scaling", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    rows = harness.publish(measure(given.network, NETWORKS[given.network], given.rounds), given.out)
    print(f"\n{table(rows)}")
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
