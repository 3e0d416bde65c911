"""What a masked step costs beside a dense step of the same network, batch and optimiser.

    python -m benchmarks.mask_step
    python -m benchmarks.mask_step --networks=fnn-2000x4,cnn --samples=1,4,8 --masks=mix32,rao_blackwell
    python -m benchmarks.mask_step --full        # also PyTorch, the naive FNN 2000x4 and ResNet-110

Dense and masked steps are those of the library, in the chunks that `find_modules` and `train_network` run.
They take turns, a chunk each a round, so that a busy machine slows all; a ratio is the median over the
rounds. Compilation and a first chunk come before and are not in it. A JSON line per network, kind of mask
and number of samples, then a table with the targets. Naive masks (two uniforms from `jax.random` and autodiff
through all of it) are timed with 4 samples only: they may take ten times as long.

`floor` is what a step must move at least, in bytes: per sample, weights and logits are read, their product
is written and read by the products of both passes, the gradient is written and read; the samples share one
reading of weights and logits for their slopes; Adam reads and writes three arrays. Matrix products are
library calls, so their operands go through memory. `moved` is what XLA counts for the compiled step (it
counts a loop's body once), caches not considered. `floor ms` is the floor at the bandwidth of adding 1 to a
large array in place on this device. `peak ms` is what the dense step's matrix products would take at the
rate of one large product: no step of that network is faster on this device.
"""

import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import jaxmod as jm
from benchmarks import harness
from benchmarks.networks import NETWORKS, Network
from jaxmod import trees
from jaxmod.train import devices, loops, precision, steps
from jaxmod.train.axes import Axes, resolve_axes
from jaxmod.train.state import DenseState, MaskState
from jaxmod.train.tasks import make_source

DEFAULT = [name for name in NETWORKS if name != "resnet-110"]
SLOW_NAIVE = "fnn-2000x4"  # a second a step
CLIP_NORM, ALPHA = 1.0, 1e-6


def naive_sample(key, logits):
    """Samples as one writes them down: two uniforms from `jax.random`, and autodiff through all of it."""

    def one(key, x):
        noise = jax.random.uniform(key, (2, *x.shape), minval=1e-10, maxval=1.0)
        gumbels = -jnp.log(-jnp.log(noise))
        soft = jax.nn.sigmoid(x + gumbels[0] - gumbels[1])
        return soft + jax.lax.stop_gradient((soft > 0.5).astype(x.dtype) - soft)

    return jax.tree.map(one, trees.split_keys(key, logits), logits)


MASKS: dict[str, tuple[jm.Estimator, str]] = {
    "mix32": (jm.gumbel_sigmoid(), "threefry2x32"),
    "bfloat16": (jm.gumbel_sigmoid(), "threefry2x32"),
    "rao_blackwell": (jm.gumbel_sigmoid(rao_blackwell=True), "threefry2x32"),
    "threefry2x32": (jm.gumbel_sigmoid(noise="jax"), "threefry2x32"),
    "philox4x32": (jm.gumbel_sigmoid(noise="jax"), "philox4x32"),
    "naive": (jm.gumbel_sigmoid()._replace(name="naive", sample=naive_sample), "threefry2x32"),
}
"""Kinds of mask: the estimator, and the implementation of its keys. `bfloat16`: weights and examples so."""


def make_chunk(
    step: steps.Step,
    state: Any,
    network: Network,
    impl: str,
    axes: Axes,
    *,
    runs: int = 1,
    bfloat16: bool = False,
    **inputs: Any,
) -> harness.Chunk:
    """Returns the compiled chunk of a step, all runs starting from one state."""
    source = make_source({"task": network.examples()})
    draw = precision.draw_bfloat16(source.draw) if bfloat16 else source.draw
    mesh = devices.runs_mesh(runs)
    program = loops.Program(step, draw, _no_metrics, network.batch_size, 1, resolve_axes(axes), mesh)
    keys = {"key": jax.random.split(jax.random.key(1, impl=impl), runs)}
    rates = {"alpha": jnp.full(runs, ALPHA), "learning_rate": jnp.full(runs, 1e-2)}
    shared = {**inputs, "pool": source.pool, "shared_key": jax.random.key(2)}
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *jnp.shape(x))), state)
    return harness.Chunk(program, network.chunk_steps, state, keys | rates, source.task, shared)


def _no_metrics(*_: Any) -> dict[str, Any]:
    return {}


def dense_chunk(network: Network, params: Any, axes: Axes = Axes(), runs: int = 1) -> harness.Chunk:
    """Returns a chunk of dense training."""
    adam = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adam(1e-3))
    step = steps.make_dense_step(steps.without_state(network.loss_fn), adam)
    return make_chunk(
        step, DenseState(params, None, adam.init(params)), network, "threefry2x32", axes, runs=runs
    )


def mask_chunk(
    network: Network, params: Any, masks: str, num_samples: int, axes: Axes = Axes(), runs: int = 1
) -> harness.Chunk:
    """Returns a chunk of mask training."""
    estimator, impl = MASKS[masks]
    adam = steps.clipped_adam(CLIP_NORM)
    mode = resolve_axes(axes).samples or "vmap"
    step = steps.make_mask_step(network.loss_fn, estimator, adam, num_samples, mode)
    logits = estimator.init(jax.random.key(0), params)
    half = masks == "bfloat16"
    frozen = {
        "params": precision.to_bfloat16(params) if half else params,
        "held": jax.tree.map(lambda _: None, logits),
    }
    state = MaskState(logits, adam.init(logits))
    return make_chunk(step, state, network, impl, axes, runs=runs, bfloat16=half, **frozen)


def measure(
    name: str,
    network: Network,
    kinds: Sequence[tuple[str, int]],
    rounds: int,
    torch: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yields a row per kind of mask and number of samples, the dense step beside each."""
    params = jax.jit(network.init)(jax.random.key(0))
    chunks = {"dense": dense_chunk(network, params)}
    chunks |= {f"{kind} {n}": mask_chunk(network, params, kind, n) for kind, n in kinds}
    contenders: dict[str, Any] = dict(chunks)
    if torch:
        from benchmarks import torch_step

        for n in {n for _, n in kinds}:
            dense, masked = torch_step.contender(name, n, batch_size=network.batch_size)
            contenders |= {f"torch dense {n}": _timed(dense), f"torch {n}": _timed(masked)}
    seconds = harness.take_turns(contenders, rounds)
    per_step = {
        key: [t / chunks[key].length for t in s] if key in chunks else s for key, s in seconds.items()
    }
    weights = sum(x.size for x in jax.tree.leaves(jm.gumbel_sigmoid().init(jax.random.key(0), params)))
    bandwidth, peak = measure_bandwidth(), measure_peak()
    flops = chunks["dense"].flops / chunks["dense"].length
    platform = jax.default_backend()
    for kind, n in kinds:
        chunk, times = chunks[f"{kind} {n}"], per_step[f"{kind} {n}"]
        counted: Any = chunk.compiled.cost_analysis()
        itemsize = 2 if kind == "bfloat16" else 4  # of weights, products and gradients; logits have 4
        floor = weights * ((6 * itemsize + 4) * n + itemsize + 28)
        judged = n == 4 and kind != "naive"
        row = {
            "benchmark": "mask_step",
            "network": name,
            "weights": weights,
            "masks": kind,
            "samples": n,
            "batch_size": network.batch_size,
            "steps": chunk.length,
            "rounds": rounds,
            "dense_ms": _ms(per_step["dense"]),
            "mask_ms": _ms(times),
            "ratio": round(harness.ratio(times, per_step["dense"]), 3),
            "target": network.targets.get(platform) if judged else None,
            "dense_compile_s": round(chunks["dense"].compile_seconds, 2),
            "mask_compile_s": round(chunk.compile_seconds, 2),
            "floor_bytes": floor,
            "moved_bytes": counted.get("bytes accessed"),
            "floor_ms": round(1000 * floor / bandwidth, 3),
            "bandwidth_gb_s": round(bandwidth / 1e9, 2),
            "peak_ms": round(1000 * flops / peak, 3),
            "peak_gflops": round(peak / 1e9, 1),
        }
        if torch:
            row |= {
                "torch_dense_ms": _ms(per_step[f"torch dense {n}"]),
                "torch_ms": _ms(per_step[f"torch {n}"]),
                "times_faster_than_torch": round(harness.ratio(per_step[f"torch {n}"], times), 2),
                "torch_target": network.torch_targets.get(platform) if judged else None,
            }
        yield row | harness.environment()


def _timed(step: Any) -> Any:
    def run() -> float:
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    run()
    return run


def _ms(seconds: Sequence[float]) -> float:
    return round(1000 * statistics.median(seconds), 4)


def measure_bandwidth(size: int = 2**26, rounds: int = 5) -> float:
    """Returns the bytes per second of a copy that no cache holds: reading and writing `size` floats."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # in place: new memory would cost more than the copy
    x, best = add(jnp.zeros(size)), math.inf
    for _ in range(rounds):
        started = time.perf_counter()
        x = add(x).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 8 * size / best


def measure_peak(size: int = 2048, rounds: int = 5) -> float:
    """Returns the floating-point operations per second of a matrix product of `size` x `size` floats."""
    multiply = jax.jit(jnp.matmul)
    x = jnp.ones((size, size))
    multiply(x, x).block_until_ready()
    best = math.inf
    for _ in range(rounds):
        started = time.perf_counter()
        multiply(x, x).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    titles = ["network", "masks", "S", "dense ms", "masked ms", "ratio", "target", "peak ms"]
    titles += ["floor ms", "moved/floor", "compile s"]
    torch = any("torch_ms" in row for row in rows)
    compile_target = 30.0 if jax.default_backend() == "cpu" else 60.0
    lines = [titles + ["torch ms", "times faster", "target"] * torch]
    for row in rows:
        cells = [row["network"], row["masks"], str(row["samples"])]
        cells += [f"{row['dense_ms']:.2f}", f"{row['mask_ms']:.2f}", f"{row['ratio']:.2f}"]
        cells += [harness.verdict(row["ratio"], row["target"], "<="), f"{row['peak_ms']:.2f}"]
        moved = row["moved_bytes"] / row["floor_bytes"]
        cells += [f"{row['floor_ms']:.2f}", f"{moved:.1f}"]
        cells += [
            f"{row['mask_compile_s']:.1f} {harness.verdict(row['mask_compile_s'], compile_target, '<=')}"
        ]
        if torch and "torch_ms" in row:
            faster = row["times_faster_than_torch"]
            cells += [f"{row['torch_ms']:.1f}", f"{faster:.1f}"]
            cells += [harness.verdict(faster, row["torch_target"], ">=")]
        lines.append(cells + [""] * (len(lines[0]) - len(cells)))
    return harness.table(lines)


def plot(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Draws the ratio against the number of samples, a line per network (masks of `mix32`)."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for name in dict.fromkeys(row["network"] for row in rows):
        points = sorted((row["samples"], row["ratio"]) for row in rows if row["network"] == name)
        axes.plot(*np.transpose(points), "o-", label=name)
    axes.set_xlabel("mask samples a step")
    axes.set_ylabel("masked / dense step")
    axes.set_xticks(sorted({row["samples"] for row in rows}))
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    harness.define_list(values, "networks", DEFAULT, NETWORKS, "which networks")
    harness.define_list(values, "masks", ["mix32", "naive"], MASKS, "which kinds of mask")
    harness.define_list(values, "samples", ["1", "4", "8"], map(str, (1, 2, 4, 8, 16)), "masks a step")
    flags.DEFINE_integer("rounds", 5, "of one chunk of each.", lower_bound=1, flag_values=values)
    flags.DEFINE_boolean(
        "full",
        False,
        "with PyTorch, the naive FNN 2000x4, and ResNet-110 unless networks are named.",
        flag_values=values,
    )
    flags.DEFINE_string("plot", None, "a .png of ratio against samples.", flag_values=values)
    return harness.parse("mask_step", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    networks = list(NETWORKS) if given.full and not given["networks"].present else given.networks

    def kinds(name: str) -> list[tuple[str, int]]:
        """Returns the kinds of mask and numbers of samples for a network."""
        chosen = [kind for kind in given.masks if given.full or (kind, name) != ("naive", SLOW_NAIVE)]
        return [(kind, int(n)) for kind in chosen for n in given.samples if kind != "naive" or n == "4"]

    def rows() -> Iterator[dict[str, Any]]:
        for name in networks:
            torch = given.full and bool(NETWORKS[name].torch_targets)
            yield from measure(name, NETWORKS[name], kinds(name), given.rounds, torch)

    measured = harness.publish(rows(), given.out)
    print(f"\n{table(measured)}")
    if given.plot:
        plot([row for row in measured if row["masks"] == given.masks[0]], given.plot)


if __name__ == "__main__":
    main()
