"""The benchmark of convolutions, on a network of two channels."""

import json

import jax

from benchmarks import convolution


def test_every_method_and_mode_has_a_row(capsys):
    convolution.main(["--channels=2", "--rounds=1", "--modes=vmap,unroll"])
    *lines, _, head, _, _, _, _, _, _ = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    kinds = [("dense", ""), *(("mix32", mode) for mode in ("vmap", "unroll"))]
    assert {(row["method"], row["masks"], row["samples_axis"]) for row in rows} == {
        (method, *kind) for method in ("im2col", "lax") for kind in kinds
    }
    for kind in ("dense", "mix32"):
        assert min(row["times_best"] for row in rows if row["masks"] == kind) == 1
    assert all(row["step_ms"] > 0 and row["compile_s"] > 0 for row in rows)
    assert head.split() == [
        *("method", "masks", "samples", "runs", "step", "ms", "times", "best", "compile", "s")
    ]


class Chunk:
    """Takes a second for every run."""

    compile_seconds, estimate = 3.0, (10**9, 10**9)

    def __init__(self, runs):
        self.runs = runs

    def __call__(self):
        return float(self.runs)


def test_what_does_not_fit_has_no_time(capsys, monkeypatch):
    def full(network, params, key, runs):
        if key[0] == "lax":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: full\nand more")
        return Chunk(runs)

    monkeypatch.setattr(convolution, "_chunk", full)
    convolution.main(["--channels=2", "--rounds=1", "--modes=map", "--runs=3", "--steps=2"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(row["method"], row["step_ms"]) for row in rows] == [("im2col", 1500)] * 2 + [("lax", None)] * 2
    assert {row.get("failed") for row in rows} == {None, "RESOURCE_EXHAUSTED: full"}
