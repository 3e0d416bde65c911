"""The benchmark of linear cost, on a network of eight units."""

import json

import pytest

from benchmarks import scaling
from tests.benchmarks.tiny import TINY


def test_rows_table_and_plot(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(scaling, "NETWORKS", {"fnn-400-400-200": TINY})
    monkeypatch.setattr(scaling, "POINTS", {"samples": (1, 2, 4), "runs": (1, 3), "steps": (1, 2)})
    scaling.main(["--rounds=2", f"--plot={tmp_path / 'scaling.png'}"])
    *lines, _, head, first, _, _, _, _, _, last = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["axis"], row["count"]) for row in rows] == [
        *(("samples", 1), ("samples", 2), ("samples", 4)),
        *(("runs", 1), ("runs", 3), ("steps", 1), ("steps", 2)),
    ]
    assert [row["steps"] for row in rows] == [1] * 6 + [2]
    for row in rows:
        assert row["unit_ms"] == pytest.approx(row["chunk_ms"] / row["count"], abs=1e-3)
    ends = [row["off_line"] for row in rows if (row["axis"], row["count"]) != ("samples", 2)]
    assert ends == [0] * 6
    low, middle, high = (row["chunk_ms"] for row in rows[:3])
    assert rows[1]["off_line"] == pytest.approx(middle / (low + (high - low) / 3) - 1, abs=0.01)
    assert head.startswith("network") and first.split()[1:3] == ["samples", "1"]
    assert last.split()[1:3] == ["steps", "2"]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
