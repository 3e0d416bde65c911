"""Which way of convolving is fastest when every mask sample has kernels of its own.

    python -m benchmarks.convolution
    python -m benchmarks.convolution --rounds=9

A masked step of the simple CNN, S = 4. The kernels of the samples differ, so vmapping over them makes
XLA's convolutions grouped (`lax`) and the matrix products of im2col batched; `map` and `unroll` do one
sample after another. A JSON line per method and mode, then a table; `times best` is the median over the
rounds of the ratio to the fastest one.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import jax
from absl import flags

from benchmarks import harness
from benchmarks.mask_step import mask_chunk
from benchmarks.networks import images
from jaxmod.models.cnn import SimpleCNN
from jaxmod.models.convolution import Method
from jaxmod.train.axes import Axes, Mode

NUM_SAMPLES, CHUNK_STEPS = 4, 2


def measure(channels: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Yields a row per method of the convolutions and mode of the samples."""
    chunks = {}
    for method in get_args(Method):
        network = images(SimpleCNN(outputs=10, channels=channels, dropout=False, method=method), CHUNK_STEPS)
        params = jax.jit(network.init)(jax.random.key(0))
        for mode in get_args(Mode):
            chunks[method, mode] = mask_chunk(network, params, "mix32", NUM_SAMPLES, Axes(samples=mode))
    seconds = harness.take_turns(chunks, rounds)
    best = min(seconds, key=lambda key: statistics.median(seconds[key]))
    for (method, mode), times in seconds.items():
        yield {
            "benchmark": "convolution",
            "method": method,
            "samples_axis": mode,
            "samples": NUM_SAMPLES,
            "rounds": rounds,
            "step_ms": round(1000 * statistics.median(times) / CHUNK_STEPS, 3),
            "times_best": round(harness.ratio(times, seconds[best]), 2),
            "compile_s": round(chunks[method, mode].compile_seconds, 2),
            **harness.environment(),
        }


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    flags.DEFINE_multi_integer("channels", [32, 64, 128, 256], "of the network.", 1, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "of one chunk of each.", lower_bound=1, flag_values=values)
    return harness.parse("convolution", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    rows = harness.publish(measure(given.channels, given.rounds), given.out)
    lines = [("method", "samples", "step ms", "times best", "compile s")]
    for row in rows:
        numbers = (f"{row['step_ms']:.1f}", f"{row['times_best']:.2f}", f"{row['compile_s']:.1f}")
        lines.append((row["method"], row["samples_axis"], *numbers))
    print(f"\n{harness.table(lines)}")


if __name__ == "__main__":
    main()
