"""The benchmark of clustering, on graphs of a few neurons."""

import json

import pytest

from benchmarks import structure

SIZES = (30, 16, 16, 6)


def test_rows_and_table(capsys, monkeypatch):
    monkeypatch.setattr(structure, "CALIBRATION", {("dense", 4): (1.0, 2.0)})
    structure.main(["--shuffles=3", "--few=2", "--networks=3", "--calibrated=2"], SIZES)
    lines, *tables = capsys.readouterr().out.strip().split("\n\n")
    *timed, apart, calibrated = [json.loads(line) for line in lines.splitlines()]
    assert [row["method"] for row in timed] == ["jaxmod", "sklearn", "sklearn", *["sklearn-lobpcg"] * 2]
    assert [row["graphs"] for row in timed] == [3, 2, 2, 2, 2]
    assert timed[0]["times_ours"] == 1 and timed[0]["peak_mb"] > 0
    assert [row["target"] for row in timed] == [None, 5, 5, 2, 2]
    assert apart["networks"] == 3 and apart["median_gap"] < 0.1
    assert calibrated["kind"] == "dense" and len(calibrated["ours"]) == 2
    assert [len(table.splitlines()) for table in tables] == [6, 2, 2]


def test_networks_are_pruned():
    pruned = structure.network("pruned", 0, SIZES)
    assert all(abs((w > 0).mean() - 0.1) < 0.02 for w in pruned)
    assert all((w > 0).all() for w in structure.network("dense", 0, SIZES))


def test_bad_flags_are_named():
    with pytest.raises(SystemExit, match="shuffles"):
        structure.parse(["--shuffles=0"])
