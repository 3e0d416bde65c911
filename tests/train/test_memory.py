"""The estimate against counts by hand, and against what XLA says after compiling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxmod as jm
from jaxmod.train import devices, loops, memory
from jaxmod.train.axes import Axes
from jaxmod.train.memory import Memory
from tests.helpers import tiny_data, tiny_loss, tiny_params

KB = 1000  # of 250 float32


def of(f, *shapes):
    return memory.estimate(jax.make_jaxpr(f)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)))


def test_by_hand():
    assert of(lambda x: x + 1, (250,)) == Memory(KB, KB)
    assert of(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), (250,)) == Memory(KB, 2 * KB)  # one dies as one is born

    def keeps(x):
        a = jnp.sin(x)
        return a + jnp.sin(jnp.sin(jnp.sin(a)))

    assert of(keeps, (250,)) == Memory(KB, 3 * KB)
    assert of(lambda x, y: x, (250,), (3, 250)) == Memory(4 * KB, 0)


def test_a_mapped_axis_counts_once_and_a_vmapped_one_in_full():
    def f(x):
        return jnp.sum(jnp.sin(jnp.sin(x)))

    assert of(lambda x: lax.map(f, x), (8, 250)) == Memory(8 * KB, 2 * KB + 8 * 4 + 4 - 4)
    assert of(jax.vmap(f), (8, 250)).temporaries == 16 * KB


def test_keys_are_small_and_conditions_count_their_larger_branch(key):
    def f(key, x):
        del key
        return lax.cond(x[0] > 0, lambda: jnp.sum(jnp.sin(x)), lambda: jnp.sum(jnp.sin(jnp.outer(x, x))))

    found = memory.estimate(jax.make_jaxpr(f)(key, jnp.ones(250)))
    assert found.arguments == 16 + KB
    assert 250 * KB <= found.temporaries <= 502 * KB


def wide_params(key, sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [{"kernel": jax.random.normal(k, (a, b)) / a**0.5} for k, a, b in shapes]


def wide_loss(params, batch, key):
    del key
    x = batch["x"]
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"])
    return jnp.mean((x @ params[-1]["kernel"])[:, 0] ** 2)


def recurrent_loss(params, batch, key):
    """Activations dwarf the weights."""
    del key

    def cell(h, x):
        return jnp.tanh(h @ params["layer_1"]["kernel"] + x), None

    x = jnp.broadcast_to(batch["x"][None, :, :1], (50, len(batch["x"]), 16))
    h, _ = lax.scan(cell, jnp.zeros((len(batch["x"]), 16)), x)
    return jnp.mean(h**2)


class Captured(Exception):  # noqa: N818
    pass


def traced(monkeypatch, loss, params, axes, samples=2):
    """Returns the traced program of find_modules for four runs, of which a device has two."""

    class Spy:
        def trace(self, *args):
            raise Captured(chunk.trace(*args))

    chunk = loops._compiled_chunk
    with monkeypatch.context() as patch, pytest.raises(Captured) as caught:
        patch.setattr(loops, "_compiled_chunk", Spy())
        jm.find_modules(
            loss, params, {"a": tiny_data(0), "b": tiny_data(1)}, keys=jax.random.split(jax.random.key(0), 4),
            config=jm.MaskConfig(4, 64, samples, eval_examples=64, axes=axes),
        )  # fmt: skip
    return caught.value.args[0]


@pytest.mark.parametrize(
    ("network", "axes"),
    [
        ("tiny", Axes("unroll", "map", "map")),
        ("tiny", Axes("vmap", "vmap", "vmap")),
        ("middle", Axes("unroll", "map", "map")),
        ("middle", Axes("vmap", "map", "vmap")),
        ("recurrent", Axes("map", "vmap", "map")),
        pytest.param("middle", Axes("vmap", "vmap", "vmap"), marks=pytest.mark.slow),
        pytest.param("middle", Axes("map", "map", "unroll"), marks=pytest.mark.slow),
        pytest.param("recurrent", Axes("vmap", "vmap", "vmap"), marks=pytest.mark.slow),
    ],
)
def test_within_a_factor_of_two_of_what_the_compiler_says(key, monkeypatch, network, axes):
    loss, params = {
        "tiny": (tiny_loss, tiny_params(key)),
        "middle": (wide_loss, wide_params(key, (6, 300, 300, 4))),
        "recurrent": (recurrent_loss, {"layer_1": {"kernel": jnp.eye(16)}}),
    }[network]
    program = traced(monkeypatch, loss, params, axes)
    arguments, temporaries = memory.estimate(program.jaxpr)
    said = program.lower().compile().memory_analysis()
    # Labels that a loss does not read are given, but not kept.
    assert arguments == pytest.approx(said.argument_size_in_bytes, rel=0.1)
    assert said.temp_size_in_bytes / 2 <= temporaries <= said.temp_size_in_bytes * 2


def search(key, monkeypatch, limit, progress=False):
    monkeypatch.setattr(memory, "_limit", lambda mesh: (limit, 1))
    return jm.find_modules(
        tiny_loss, tiny_params(key), {"a": tiny_data()}, keys=key, progress=progress,
        config=jm.MaskConfig(2, 8, 2, chunk_steps=2, eval_examples=8, axes=Axes("vmap", "map", "vmap")),
    )  # fmt: skip


def test_what_cannot_fit_is_refused_before_compiling(key, monkeypatch):
    before = loops._compiled_chunk._cache_size()
    with pytest.raises(MemoryError, match=r"of 2 kB; its weights.* Train fewer runs or tasks at a time"):
        search(key, monkeypatch, 2000)
    program = traced(monkeypatch, tiny_loss, tiny_params(key), Axes("vmap", "map", "vmap"))
    arguments, temporaries = memory.estimate(program.jaxpr)
    monkeypatch.setattr(memory, "_limit", lambda mesh: (arguments + temporaries // 4, 1))
    with pytest.warns(
        UserWarning, match=r"axes=Axes\(samples='map', runs='map'\), a smaller batch_size .*num_s"
    ):
        memory.check(program.jaxpr, Axes("vmap", "map", "vmap"))
    assert loops._compiled_chunk._cache_size() == before


def test_progress_begins_with_the_memory(key, monkeypatch, capsys):
    search(key, monkeypatch, 16e9, progress=True)
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("memory: about ") and first.endswith(" kB of 16 GB")


def test_the_cpus_devices_share_the_machines_memory():
    one, count = memory._limit(None)
    assert count == 1 and one > 1e8
    assert memory._limit(devices.runs_mesh(2)) == (one // 2, 2)


def test_bytes_in_words():
    words = [memory._bytes(n) for n in (512, 51_000, 1.24e6, 16e9, 2e12)]
    assert words == ["1 kB", "51 kB", "1.2 MB", "16 GB", "2 TB"]
    assert np.all([len(w) < 8 for w in words])


def test_a_device_that_is_full_says_what_to_change():
    axes = Axes("vmap", "map", "vmap")
    advice = "does not fit.*axes=Axes\\(samples='map', runs='map'\\).*num_samples"
    with pytest.raises(MemoryError, match=advice):
        with memory.out_of_memory(axes):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with memory.out_of_memory(axes):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")
