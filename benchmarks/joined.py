"""What replicates of joined sub-networks cost when they train in one program: per network, against one alone.

    python -m benchmarks.joined
    python -m benchmarks.joined --links=10000 --runs=100 --modes=map,vmap
    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m benchmarks.joined

Training steps of the paper's size (100 units, batch 128, Deep-R and Adadelta), with images of noise. The
program of several runs and that of one, called once for each, take turns. `ratio` is the median over the
rounds of the time of the former to that of the latter; it may be 1 at most. With several devices the runs
share them, as in `experiments.specialization`, where each core of a CPU is one.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import harness
from jaxmod.data.digit_pairs import Pairs
from jaxmod.joined import training
from jaxmod.train import devices, loops, steps
from jaxmod.train.axes import Axes, Mode, resolve_axes
from jaxmod.train.state import DenseState
from jaxmod.train.tasks import make_source

EXAMPLES = 2048
CHUNK_STEPS = 30  # about a third of a second
TARGET = 1.0


def noise_pairs() -> Pairs:
    """Returns pairs of the size of MNIST's images."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (EXAMPLES, 2, 28, 28), np.uint8)
    digit = random.integers(0, 10, (EXAMPLES, 2), np.int32)
    return Pairs(image, digit, digit[:, 0])


def chunk(how: training.Training, length: int, links: int, runs: int, mode: Mode) -> harness.Chunk:
    """Returns a compiled chunk of the training of so many networks."""
    pairs, model = noise_pairs(), training.make_model(how)
    source = make_source({"network": {"image": pairs.image, "label": pairs.target}})
    keys = jax.random.split(jax.random.key(0), runs)
    params = training.start(model, pairs, keys, jnp.full(runs, links))
    optimizer = training.make_optimizer(how, training.epoch_steps(how, pairs))
    program = loops.Program(
        step=steps.make_dense_step(training.make_loss(model), optimizer),
        draw=source.draw,
        observe=lambda *_: {},
        batch_size=how.batch_size,
        observe_size=1,
        axes=resolve_axes(Axes(runs=mode)),
        mesh=devices.runs_mesh(runs),
        order="epochs",
    )
    state = DenseState(params, None, jax.vmap(optimizer.init)(params))
    shared = {"pool": source.pool, "shared_key": jax.random.key(1)}
    return harness.Chunk(program, length, state, {"key": keys}, source.task, shared)


def measure(
    how: training.Training, length: int, links: int, runs: int, modes: Sequence[Mode], rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields a row per mode."""
    own_mode = resolve_axes(Axes()).runs or "vmap"
    alone = chunk(how, length, links, 1, own_mode)
    together = {mode: chunk(how, length, links, runs, mode) for mode in modes}

    def in_sequence() -> float:
        return sum(alone() for _ in range(runs))

    seconds = harness.take_turns({"sequence": in_sequence, **together}, rounds)
    trained = runs * length
    for mode, of in together.items():
        yield {
            "benchmark": "joined",
            "links": links,
            "runs": runs,
            "mode": mode,
            "steps": length,
            "rounds": rounds,
            "ms_alone": round(1e3 * statistics.median(seconds["sequence"]) / trained, 3),
            "ms_together": round(1e3 * statistics.median(seconds[mode]) / trained, 3),
            "ratio": round(harness.ratio(seconds[mode], seconds["sequence"]), 3),
            "target": TARGET if mode == own_mode else None,
            "compile_s": round(of.compile_seconds, 2),
            **harness.environment(),
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows for reading."""
    lines: list[tuple[str, ...]] = [
        ("links", "runs", "mode", "ms a step alone", "together", "ratio", "target", "compile s")
    ]
    for row in rows:
        numbers = (f"{row['ms_alone']:.2f}", f"{row['ms_together']:.2f}", f"{row['ratio']:.2f}")
        numbers += (harness.verdict(row["ratio"], row["target"], "<="), f"{row['compile_s']:.1f}")
        lines.append((str(row["links"]), str(row["runs"]), row["mode"], *numbers))
    return harness.table(lines)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    own_mode = resolve_axes(Axes()).runs or "vmap"
    harness.define_list(values, "modes", [own_mode], ("vmap", "map"), "how the runs' axis is run")
    flags.DEFINE_integer("runs", 10, "networks.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("links", 60, "each way.", lower_bound=0, upper_bound=10_000, flag_values=values)
    flags.DEFINE_integer("rounds", 5, "of one chunk of each.", lower_bound=1, flag_values=values)
    return harness.parse("joined", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the flags ask for; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    rows = measure(training.Training(), CHUNK_STEPS, given.links, given.runs, given.modes, given.rounds)
    print(f"\n{table(harness.publish(rows, given.out))}")


if __name__ == "__main__":
    main()
