"""What buckets of lengths save: masked steps on SCAN, all commands padded to the longest against buckets.

    python -m benchmarks.buckets
    python -m benchmarks.buckets --networks=lstm --buckets=4 --buckets=8

Both take turns, a chunk each a round, so that a busy machine slows all; a ratio is the median over the
rounds. Which bucket a step has is drawn, so that a chunk may have more long ones than there are on average;
`expected` is the mean over 10,000 steps of the steps of source and target, `drawn` that over those which
were timed, both in parts of the longest. A JSON line each, then a table.
"""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import jaxmod as jm
from benchmarks import harness
from jaxmod.data.scan import load_scan
from jaxmod.language import networks
from jaxmod.language.buckets import Buckets, make_buckets
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer
from jaxmod.train import loops, randomness, steps
from jaxmod.train.axes import Axes
from jaxmod.train.state import MaskState
from jaxmod.train.tasks import make_source

NETWORKS = {"lstm": Seq2SeqLSTM(), "transformer": Transformer()}
"""Those of the paper."""
CLIP_NORM, NUM_SAMPLES = 5.0, 4


def mask_chunk(model: Any, buckets: Buckets, batch_size: int, chunk_steps: int) -> harness.Chunk:
    """Returns the compiled chunk of mask training of one run, in buckets."""
    functions = networks.make_functions(model, shapes=buckets.shapes)
    source = make_source(buckets.tasks, buckets.examples)
    estimator, adam = jm.gumbel_sigmoid(), steps.clipped_adam(CLIP_NORM)
    step = steps.make_mask_step(functions.mask_loss, estimator, adam, NUM_SAMPLES, "unroll")
    program = loops.Program(step, source.draw, lambda *_: {}, batch_size, 1, Axes("unroll", "map", "map"))
    params = jax.jit(functions.init)(jax.random.key(0))
    logits = estimator.init(jax.random.key(0), params, functions.where)
    state = jax.tree.map(lambda x: jnp.asarray(x)[None], MaskState(logits, adam.init(logits)))
    runs = {
        "key": jax.random.split(jax.random.key(1), 1),
        "alpha": jnp.full(1, 1e-6),
        "learning_rate": jnp.full(1, 1e-2),
    }
    held = jax.tree.map(lambda _: None, logits)
    shared = {"params": params, "held": held, "pool": source.pool, "shared_key": jax.random.key(2)}
    return harness.Chunk(program, chunk_steps, state, runs, source.task, shared)


def parts(buckets: Buckets, chunk_steps: int) -> tuple[float, float]:
    """Returns `(expected, drawn)`: the steps of a batch in parts of the longest, on average and as timed."""
    (sample,) = buckets.tasks.values()
    data = jax.tree.map(jnp.asarray, buckets.examples)

    def bucket(step: jax.Array) -> jax.Array:
        keys = randomness.step_keys(jax.random.key(1), jax.random.key(2), step)
        return sample(keys.data, 1, data, keys.shared)["bucket"][0]

    cost = np.array([sum(shape) for shape in buckets.shapes]) / sum(np.max(buckets.shapes, axis=0))
    drawn = np.asarray(jax.jit(jax.vmap(bucket))(jnp.arange(10_000)))
    return float(cost[drawn].mean()), float(cost[drawn[:chunk_steps]].mean())


def measure(
    models: Mapping[str, Any],
    examples: Mapping[str, np.ndarray],
    counts: Sequence[int],
    batch_size: int,
    chunk_steps: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Yields a row per network and number of buckets, a step without buckets beside each."""
    for name, model in models.items():
        made = {count: make_buckets({"simple": examples}, count) for count in (1, *counts)}
        chunks = {n: mask_chunk(model, buckets, batch_size, chunk_steps) for n, buckets in made.items()}
        seconds = harness.take_turns(chunks, rounds)
        for count in counts:
            expected, drawn = parts(made[count], chunk_steps)
            yield {
                "benchmark": "buckets",
                "network": name,
                "buckets": len(made[count].shapes),
                "batch_size": batch_size,
                "steps": chunk_steps,
                "rounds": rounds,
                "step_ms": _ms(seconds[count], chunk_steps),
                "whole_ms": _ms(seconds[1], chunk_steps),
                "times_faster": round(harness.ratio(seconds[1], seconds[count]), 2),
                "expected": round(expected, 3),
                "drawn": round(drawn, 3),
                "compile_s": round(chunks[count].compile_seconds, 1),
                "whole_compile_s": round(chunks[1].compile_seconds, 1),
                **harness.environment(),
            }


def _ms(seconds: Sequence[float], chunk_steps: int) -> float:
    return round(1000 * statistics.median(seconds) / chunk_steps, 2)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    harness.define_list(values, "networks", list(NETWORKS), NETWORKS, "networks")
    flags.DEFINE_multi_integer("buckets", [6], "how many.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("batch_size", 256, "of a step.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("steps", 30, "in a chunk.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "of one chunk of each.", lower_bound=1, flag_values=values)
    return harness.parse("buckets", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    if given.batch_size % NUM_SAMPLES:
        sys.exit(f"--batch_size={given.batch_size}: {NUM_SAMPLES} samples need an equal part of it each.")
    models = {name: NETWORKS[name] for name in given.networks}
    sizes = (given.buckets, given.batch_size, given.steps, given.rounds)
    rows = harness.publish(measure(models, load_scan().examples, *sizes), given.out)
    head = ["network", "buckets", "step ms", "without ms", "times faster", "expected", "drawn", "compile s"]
    forms = {"step_ms": ".1f", "whole_ms": ".1f", "times_faster": ".2f", "expected": ".2f", "drawn": ".2f"}
    lines = [head]
    for row in rows:
        numbers = [format(row[key], form) for key, form in (forms | {"compile_s": ".1f"}).items()]
        lines.append([row["network"], str(row["buckets"]), *numbers])
    print(f"\n{harness.table(lines)}")


if __name__ == "__main__":
    main()
