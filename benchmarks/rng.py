"""What random bits cost, alone and inside the product with the weights that they mask.

    python -m benchmarks.rng
    python -m benchmarks.rng --stream | dieharder -a -g 200     # a battery of tests on mix32

Alone: words are written to memory. Fused: `w * (u > p)` is, and the generator has done well if its words
never are. The generators take turns; a time is the median over the rounds. `--stream` writes the words of
mix32, in leaves of 2**20 words under keys split from one, until the reader closes the pipe.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jaxtyping import Array

from benchmarks import harness
from jaxmod import noise

STREAM_LEAF = 2**20

GENERATORS: dict[str, tuple[str, Callable[..., Array]]] = {
    "mix32": ("threefry2x32", noise.mix32),
    "threefry2x32, written out": ("threefry2x32", noise.bits),
    "threefry2x32, jax.random": ("threefry2x32", jax.random.bits),
    "philox4x32, jax.random": ("philox4x32", jax.random.bits),
    "threefry4x32, jax.random": ("threefry4x32", jax.random.bits),
}
"""name -> (implementation of the key, `bits(key, shape)`)."""


def measure(size: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields a row per generator and use: nanoseconds per word, compile time."""
    shape = (size // 1024, 1024)
    w, p = jnp.ones(shape), jnp.full(shape, 0.88)

    def alone(bits: Callable[..., Array], key: Array) -> Array:
        return bits(key, shape)

    def fused(bits: Callable[..., Array], key: Array) -> Array:
        u = (bits(key, shape) >> 9).astype(jnp.float32) * 2.0**-23
        return jnp.where(u < p, w, 0.0)

    contenders: dict[Any, Callable[[], float]] = {}
    compile_seconds = {}
    for name, (impl, bits) in GENERATORS.items():
        key = jax.random.key(0, impl=impl)
        for use in (alone, fused):
            started = time.perf_counter()
            compiled = jax.jit(use, static_argnums=0).lower(bits, key).compile()
            compile_seconds[name, use.__name__] = time.perf_counter() - started
            contenders[name, use.__name__] = _timed(compiled, key)
    seconds = harness.take_turns(contenders, rounds)
    for (name, use), times in seconds.items():
        yield {
            "benchmark": "rng",
            "generator": name,
            "use": use,
            "words": size,
            "ns_per_word": round(1e9 * statistics.median(times) / size, 4),
            "times_mix32": round(harness.ratio(times, seconds["mix32", use]), 2),
            "compile_s": round(compile_seconds[name, use], 2),
            **harness.environment(),
        }


def _timed(compiled: Callable[..., Array], key: Array) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        compiled(key).block_until_ready()
        return time.perf_counter() - started

    run()
    return run


def stream(seed: int) -> None:
    """Writes raw words to the standard output, until nobody reads them."""
    draw = jax.jit(noise.mix32, static_argnums=1)
    key = jax.random.key(seed)
    try:
        while True:
            key, leaf = jax.random.split(key)
            sys.stdout.buffer.write(memoryview(jax.device_get(draw(leaf, (STREAM_LEAF,)))))
    except BrokenPipeError:
        sys.stderr.close()  # Python would complain of the pipe once more when it ends


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags."""
    values = flags.FlagValues()
    flags.DEFINE_integer("words", 2**23, "in a call; rounded down to 1024.", 1024, flag_values=values)
    flags.DEFINE_integer("rounds", 9, "of one call of each.", lower_bound=1, flag_values=values)
    flags.DEFINE_boolean("stream", False, "write raw words of mix32 instead.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the stream.", flag_values=values)
    return harness.parse("rng", __doc__, values, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures; a JSON line each, then the table."""
    given = parse(sys.argv[1:] if argv is None else argv)
    if given.stream:
        stream(given.seed)
        return
    rows = harness.publish(measure(given.words // 1024 * 1024, given.rounds), given.out)
    lines = [("generator", "use", "ns a word", "times mix32")]
    lines += [
        (row["generator"], row["use"], f"{row['ns_per_word']:.2f}", f"{row['times_mix32']:.1f}")
        for row in rows
    ]
    print(f"\n{harness.table(lines)}")


if __name__ == "__main__":
    main()
