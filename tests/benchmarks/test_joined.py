"""The benchmark of joined sub-networks, on networks of eight units."""

import json

from benchmarks import joined
from jaxmod.joined.training import Training


def test_rows_and_table(monkeypatch, capsys):
    monkeypatch.setattr(joined, "CHUNK_STEPS", 2)
    monkeypatch.setattr(joined.training, "Training", lambda: Training(hidden=8, batch_size=4))
    joined.main(["--links=3", "--runs=3", "--modes=map,vmap", "--rounds=2"])
    *lines, _, head, first, last = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["links"], row["runs"], row["mode"]) for row in rows] == [(3, 3, "map"), (3, 3, "vmap")]
    assert all(row["ratio"] > 0 and row["ms_alone"] > 0 for row in rows)
    assert [row["target"] is None for row in rows] == [False, True]  # on a CPU runs are mapped
    assert head.startswith("links") and first.split()[:3] == ["3", "3", "map"]
    assert last.split()[:3] == ["3", "3", "vmap"]
