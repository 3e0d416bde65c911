"""The benchmark of convolutions, on a network of two channels."""

import json

from benchmarks import convolution


def test_every_method_and_mode_has_a_row(capsys):
    convolution.main(["--channels=2", "--rounds=1"])
    *lines, _, head, _, _, _, _, _, _ = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {(row["method"], row["samples_axis"]) for row in rows} == {
        (method, mode) for method in ("im2col", "lax") for mode in ("vmap", "map", "unroll")
    }
    assert min(row["times_best"] for row in rows) == 1
    assert all(row["step_ms"] > 0 and row["compile_s"] > 0 for row in rows)
    assert head.split() == ["method", "samples", "step", "ms", "times", "best", "compile", "s"]
