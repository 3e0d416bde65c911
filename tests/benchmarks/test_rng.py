"""The benchmark of random bits, and the stream that test batteries read."""

import io
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks import rng
from jaxmod import noise


def test_rows_and_table(monkeypatch, capsys):
    some = {name: rng.GENERATORS[name] for name in ("mix32", "philox4x32, jax.random")}
    monkeypatch.setattr(rng, "GENERATORS", some)
    rng.main(["--words=3000", "--rounds=2"])
    *lines, _, head, _, _, _, last = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["generator"], row["use"]) for row in rows] == [
        (g, u) for g in some for u in ("alone", "fused")
    ]
    assert all(row["words"] == 2048 and row["ns_per_word"] > 0 for row in rows)
    assert [row["times_mix32"] for row in rows[:2]] == [1, 1]
    assert head.startswith("generator") and last.startswith("philox4x32")


def test_every_generator_draws_words(key):
    for impl, bits in rng.GENERATORS.values():
        words = np.asarray(bits(jax.random.key(0, impl=impl), (4, 1024)))
        assert words.dtype == np.uint32 and abs((words >> 31).mean() - 0.5) < 0.05


def test_the_stream_is_mix32_under_split_keys(monkeypatch):
    class Closing(io.BytesIO):
        def write(self, data):
            if self.tell() >= 2 * 4 * 64:
                raise BrokenPipeError
            return super().write(data)

    written = Closing()
    monkeypatch.setattr(rng, "STREAM_LEAF", 64)
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"buffer": written}))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    rng.stream(seed=3)
    first, second = np.frombuffer(written.getvalue(), np.uint32).reshape(2, 64)
    key, leaf = jax.random.split(jax.random.key(3))
    np.testing.assert_array_equal(first, noise.mix32(leaf, (64,)))
    np.testing.assert_array_equal(second, noise.mix32(jax.random.split(key)[1], (64,)))


def test_bad_flags_are_named():
    with pytest.raises(SystemExit, match="words"):
        rng.parse(["--words=10"])
