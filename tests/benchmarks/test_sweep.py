"""The benchmark of many runs at once, on a network of eight units."""

import json

from benchmarks import sweep
from tests.benchmarks.tiny import TINY


def test_rows_and_table(monkeypatch, capsys):
    monkeypatch.setattr(sweep, "NETWORKS", {"tiny": TINY})
    sweep.main(["--networks=tiny", "--runs=1,3", "--modes=map,vmap", "--rounds=2"])
    *lines, _, head, first, _, _, last = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["runs"], row["mode"]) for row in rows] == [(1, "map"), (1, "vmap"), (3, "map"), (3, "vmap")]
    for row in rows:
        assert row["steps"] == 1  # a quarter of 3, but one at least
        assert row["throughput"] > 0 and row["sequence"] > 0 and row["gain"] > 0
    assert head.startswith("network") and first.split()[:3] == ["tiny", "1", "map"]
    assert last.split()[:3] == ["tiny", "3", "vmap"]


def test_defaults():
    given = sweep.parse([])
    assert given.runs == ["1", "2", "4", "10", "32"] and given.modes == ["map", "vmap"]
