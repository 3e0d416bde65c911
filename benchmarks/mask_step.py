"""What a masked step costs beside a dense step of the same network, batch and optimiser.

    python -m benchmarks.mask_step
    python -m benchmarks.mask_step --networks=fnn-400-400-200,lstm-2x256 --impls=philox4x32 --samples=8

Dense and masked steps are those of the library, in the chunks that `find_modules` and `train_network`
run. They take turns, a chunk each a round, so that a busy machine slows both; a ratio is the median over
the rounds of masked by dense time. Compilation and a first chunk come before and are not in it. A JSON
line per network and generator, then a table. The target: at most 5 times a dense step, with philox4x32.
"""

import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import flags
from flax import linen as nn

import jaxmod as jm
from jaxmod.data.arithmetic import encode_addmul, load_addmul
from jaxmod.losses import digit_cross_entropy
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.train import loops, steps
from jaxmod.train.axes import Axes, resolve_axes
from jaxmod.train.state import DenseState, MaskState
from jaxmod.train.tasks import make_source

TARGET = 5.0
BATCH_SIZE = 128
EXAMPLES = 100_000


class Network(NamedTuple):
    """A network of the addition/multiplication experiment."""

    model: nn.Module
    time_steps: int = 0
    """At how many steps an LSTM sees the input; 0 for a network without time."""


NETWORKS = {
    "fnn-400-400-200": Network(FNN((400, 400, 200), outputs=20)),
    "fnn-2000x4": Network(FNN((2000,) * 4, outputs=20)),
    "lstm-2x256": Network(LSTMClassifier(256, layers=2, outputs=20), time_steps=3),
}
IMPLS = ("threefry2x32", "philox4x32")


class Contender:
    """One kind of step, compiled for a chunk, and the state that it goes on from."""

    def __init__(self, program: loops.Program, length: int, state: Any, **inputs: Any):
        # What `fit` calls, compiled ahead so that compiling has a time of its own.
        arguments = (inputs["runs"], inputs["tasks"], inputs["shared"], jnp.int32(0))
        self._state = jax.tree.map(lambda x: jnp.array(x[None, None]), state)
        started = time.perf_counter()
        compiled = loops._compiled_chunk.lower(program, length, self._state, *arguments).compile()
        self.compile_seconds = time.perf_counter() - started
        self._chunk = lambda state: compiled(state, *arguments)[0]
        self._length = length
        self.milliseconds_per_step()  # warm-up

    def milliseconds_per_step(self) -> float:
        """Runs a chunk and returns its time per step."""
        started = time.perf_counter()
        self._state = jax.block_until_ready(self._chunk(self._state))
        return 1000 * (time.perf_counter() - started) / self._length


def make_loss(network: Network) -> Callable[..., jax.Array]:
    """Returns `loss(params, batch, key)` of the addition/multiplication experiment."""

    def loss_fn(params, batch, key):
        del key
        outputs: Any = network.model.apply({"params": params}, shown(network, batch))
        last = outputs[:, -1] if network.time_steps else outputs
        return jnp.mean(digit_cross_entropy(last.reshape(-1, 2, 10), batch["labels"]))

    return loss_fn


def shown(network: Network, batch: dict[str, jax.Array]) -> jax.Array:
    """Returns what the network sees of a batch."""
    x = encode_addmul(batch["digits"], batch["op"])
    return jnp.repeat(x[:, None], network.time_steps, axis=1) if network.time_steps else x


def measure(
    name: str, network: Network, impls: Sequence[str], *, num_samples: int, length: int, rounds: int
) -> list[dict[str, Any]]:
    """Returns a row per key implementation: the dense step's time, the masked step's, their ratio."""
    source = make_source({"addmul": load_addmul("train", EXAMPLES)})
    axes = resolve_axes(Axes(samples="unroll"))
    loss_fn = make_loss(network)
    first = {"digits": jnp.zeros((1, 4), int), "op": jnp.zeros(1, int)}
    params = jax.jit(network.model.init)(jax.random.key(0), shown(network, first))["params"]

    def contender(step: steps.Step, state: Any, impl: str, runs: dict[str, Any], shared: dict[str, Any]):
        program = loops.Program(step, source.draw, lambda *_: {}, BATCH_SIZE, 1, axes)
        runs = jax.tree.map(lambda x: jnp.asarray(x)[None], runs | {"key": jax.random.key(1, impl=impl)})
        shared = shared | {"pool": source.pool, "shared_key": jax.random.key(2)}
        return Contender(program, length, state, runs=runs, tasks=source.task, shared=shared)

    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    dense_step = steps.make_dense_step(lambda p, state, b, k: (loss_fn(p, b, k), (state, {})), adam)
    dense = contender(dense_step, DenseState(params, None, adam.init(params)), IMPLS[0], {}, {})

    estimator, masked_adam = jm.gumbel_sigmoid(), steps.clipped_adam(1.0)
    mask_step = steps.make_mask_step(loss_fn, estimator, masked_adam, num_samples, axes.samples or "unroll")
    logits = estimator.init(jax.random.key(0), params)
    rates = {"alpha": 1e-4 / BATCH_SIZE, "learning_rate": 1e-2}
    frozen = {"params": params, "held": jax.tree.map(lambda _: None, logits)}
    masked = {
        impl: contender(mask_step, MaskState(logits, masked_adam.init(logits)), impl, rates, frozen)
        for impl in impls
    }

    times = [
        (dense.milliseconds_per_step(), *(m.milliseconds_per_step() for m in masked.values()))
        for _ in range(rounds)
    ]
    dense_ms, *masked_ms = zip(*times, strict=True)
    return [
        {
            "benchmark": "mask_step",
            "network": name,
            "weights": sum(x.size for x in jax.tree.leaves(logits)),
            "impl": impl,
            "samples": num_samples,
            "batch_size": BATCH_SIZE,
            "steps": length,
            "rounds": rounds,
            "dense_ms": round(statistics.median(dense_ms), 4),
            "mask_ms": round(statistics.median(ms), 4),
            "ratio": round(statistics.median(m / d for m, d in zip(ms, dense_ms, strict=True)), 3),
            "dense_compile_s": round(dense.compile_seconds, 2),
            "mask_compile_s": round(masked[impl].compile_seconds, 2),
            **environment(),
        }
        for impl, ms in zip(impls, masked_ms, strict=True)
    ]


def environment() -> dict[str, Any]:
    """Returns device and versions."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "cpus": os.cpu_count(),
        **versions,
        "jaxmod": jm.__version__,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    titles = ("network", "generator", "samples", "dense ms", "masked ms", "ratio", f"at most {TARGET:g}")
    lines = [titles] + [
        (
            row["network"], row["impl"], str(row["samples"]), f"{row['dense_ms']:.2f}",
            f"{row['mask_ms']:.2f}", f"{row['ratio']:.2f}", "yes" if row["ratio"] <= TARGET else "no",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags. They are a set of their own, so that importing this module defines none."""
    values = flags.FlagValues()

    def define_list(name: str, allowed: Sequence[str], text: str) -> None:
        flags.DEFINE_list(name, list(allowed), f"{text}: some of {', '.join(allowed)}.", flag_values=values)
        flags.register_validator(
            name,
            lambda given: given and set(given) <= set(allowed),
            f"expected one or more of {', '.join(allowed)}.",
            flag_values=values,
        )

    define_list("networks", list(NETWORKS), "which networks")
    define_list("impls", IMPLS, "key implementations")
    flags.DEFINE_integer("steps", 20, "in a chunk", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rounds", 9, "of one chunk of each", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("samples", 4, "masks a step; a divisor of 128", lower_bound=1, flag_values=values)
    flags.register_validator(
        "samples",
        lambda n: BATCH_SIZE % n == 0,
        f"must divide the batch of {BATCH_SIZE}.",
        flag_values=values,
    )
    if {"--help", "-h"} & set(argv):
        print(f"{__doc__}\n{values.get_help()}")
        raise SystemExit(0)
    try:
        _, *rest = values(["mask_step", *argv])
    except flags.Error as error:
        sys.exit(f"mask_step: {error}")
    if rest:
        sys.exit(f"mask_step: {rest[0]!r} is no option; see --help.")
    return values


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    rows = []
    for name in given.networks:
        options = {"num_samples": given.samples, "length": given.steps, "rounds": given.rounds}
        for row in measure(name, NETWORKS[name], given.impls, **options):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
