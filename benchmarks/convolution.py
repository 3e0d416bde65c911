"""Which way of convolving is fastest when every mask sample has kernels of its own.

    python -m benchmarks.convolution
    python -m benchmarks.convolution --rounds=9
    python -m benchmarks.convolution --runs=100 --masks=mix32,bfloat16  # a GPU: 10 classes of 10 networks
    python -m benchmarks.convolution --network=resnet-110 --runs=10 --modes=vmap --runs_modes=vmap,map

A dense and a masked step of the simple CNN or the ResNet, S = 4. The kernels of the samples differ, so
vmapping over them makes XLA's convolutions grouped (`lax`) and the matrix products of im2col batched; `map`
and `unroll` do one sample after another. Runs, which are networks or left-out classes, are vmapped, mapped or
unrolled as `--runs_modes` says. A JSON line per method, kind of mask and modes, then a table; `times best` is
the median over the rounds of the ratio to the fastest one of its kind. What does not fit has no time.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import jax
from absl import flags

from benchmarks import harness
from benchmarks.mask_step import dense_chunk, mask_chunk
from benchmarks.networks import Network, images
from jaxmod.models.cnn import SimpleCNN
from jaxmod.models.convolution import Method
from jaxmod.models.resnet import ResNet110
from jaxmod.train.axes import Axes, Mode

NUM_SAMPLES = 4
DENSE = "dense"
KINDS = ("mix32", "bfloat16")


def make_network(name: str, channels: Sequence[int], method: Method, chunk_steps: int) -> Network:
    """Returns the simple CNN, or the ResNet."""
    if name == "cnn":
        return images(SimpleCNN(outputs=10, channels=channels, dropout=False, method=method), chunk_steps)
    return images(ResNet110(outputs=10, method=method), chunk_steps)


def measure(given: flags.FlagValues) -> Iterator[dict[str, Any]]:
    """Yields a row per method of the convolutions, kind of step, and modes of samples and runs."""
    chunks, failed = {}, {}
    for method in get_args(Method):
        network = make_network(given.network, given.channels, method, given.steps)
        params = jax.jit(network.init)(jax.random.key(0))
        for key in _contenders(method, given):
            try:
                chunks[key] = _chunk(network, params, key, given.runs)
            except jax.errors.JaxRuntimeError as error:
                failed[key] = str(error).partition("\n")[0]
    seconds = harness.take_turns(chunks, given.rounds)
    for key in (*seconds, *failed):
        method, kind, samples, runs_mode = key
        row = {
            "benchmark": "convolution",
            "network": given.network,
            "method": method,
            "masks": kind,
            "samples_axis": samples,
            "runs_axis": runs_mode,
            "samples": NUM_SAMPLES,
            "runs": given.runs,
            "rounds": given.rounds,
            "step_ms": None,
            "times_best": None,
        }
        if key in failed:
            row["failed"] = failed[key]
        else:
            alike = [other for other in seconds if other[1] == kind]
            best = min(alike, key=lambda other: statistics.median(seconds[other]))
            row |= {
                "step_ms": round(1000 * statistics.median(seconds[key]) / given.steps, 3),
                "times_best": round(harness.ratio(seconds[key], seconds[best]), 2),
                "compile_s": round(chunks[key].compile_seconds, 2),
                "estimate_gb": round(sum(chunks[key].estimate) / 1e9, 2),
            }
        yield row | harness.environment()


def _contenders(method: Method, given: flags.FlagValues) -> Iterator[tuple[str, str, str, str]]:
    for runs_mode in given.runs_modes:
        yield method, DENSE, "", runs_mode
        for kind in given.masks:
            for mode in given.modes:
                yield method, kind, mode, runs_mode


def _chunk(network: Network, params: Any, key: tuple[Any, str, Any, Any], runs: int) -> harness.Chunk:
    _, kind, samples, runs_mode = key
    if kind == DENSE:
        return dense_chunk(network, params, Axes(runs=runs_mode), runs)
    return mask_chunk(network, params, kind, NUM_SAMPLES, Axes(samples=samples, runs=runs_mode), runs)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    modes = get_args(Mode)
    default = "map" if jax.default_backend() == "cpu" else "vmap"
    flags.DEFINE_enum("network", "cnn", ["cnn", "resnet-110"], "which network.", flag_values=values)
    flags.DEFINE_multi_integer("channels", [32, 64, 128, 256], "of the CNN.", 1, flag_values=values)
    harness.define_list(values, "masks", KINDS[:1], KINDS, "kinds of mask")
    harness.define_list(values, "modes", modes, modes, "how samples are run")
    harness.define_list(values, "runs_modes", [default], modes, "how runs are run")
    flags.DEFINE_integer("runs", 1, "trained together.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("steps", 2, "in a timed call.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "of one chunk of each.", lower_bound=1, flag_values=values)
    return harness.parse("convolution", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    rows = harness.publish(measure(given), given.out)
    lines: list[tuple[str, ...]] = [
        ("method", "masks", "samples", "runs", "step ms", "times best", "compile s")
    ]
    for row in rows:
        names = (row["method"], row["masks"], row["samples_axis"], row["runs_axis"])
        numbers = ("-", "-", "-")
        if "failed" not in row:
            numbers = (f"{row['step_ms']:.1f}", f"{row['times_best']:.2f}", f"{row['compile_s']:.1f}")
        lines.append((*names, *numbers))
    print(f"\n{harness.table(lines)}")


if __name__ == "__main__":
    main()
