"""The benchmark of memory, on a network of eight units."""

import json

from benchmarks import memory
from tests.benchmarks.tiny import TINY, WEIGHTS


def test_rows_and_table(monkeypatch, capsys):
    monkeypatch.setattr(memory, "NETWORKS", {"tiny": TINY})
    memory.main(["--networks=tiny", "--samples=1,4", "--runs=2", "--modes=vmap"])
    *lines, _, head, first, second = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["samples"] for row in rows] == [1, 4]
    for row in rows:
        # Two runs hold logits and Adam's moments, and share the weights.
        assert row["arguments_mb"] * 1e6 >= 4 * WEIGHTS * (2 * 3 + 1) - 1e4
        assert row["temporaries_mb"] > 0 and row["estimate_mb"] > 0
    assert head.startswith("network") and first.split()[:4] == ["tiny", "1", "2", "vmap"]
    assert second.split()[1] == "4"
