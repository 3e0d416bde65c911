"""The benchmark of buckets, on a grammar of 198 commands and a network of four units."""

import json

import numpy as np
import pytest

from benchmarks import buckets
from jaxmod.data.scan import load_scan
from jaxmod.language.buckets import make_buckets
from jaxmod.models.seq2seq import Seq2SeqLSTM

SMALL = ("around", "opposite", "thrice", "twice", "look", "run")


def test_every_number_of_buckets_has_a_row(capsys, monkeypatch):
    monkeypatch.setitem(buckets.NETWORKS, "lstm", Seq2SeqLSTM(embedding=2, hidden=4, layers=1))
    monkeypatch.setattr(buckets, "load_scan", lambda: load_scan(SMALL))
    monkeypatch.setattr(buckets, "NUM_SAMPLES", 1)  # compiles in a quarter of the time
    buckets.main(["--networks=lstm", "--buckets=2", "--batch_size=8", "--steps=2", "--rounds=1"])
    line, _, head, _ = capsys.readouterr().out.strip().splitlines()
    row = json.loads(line)
    assert (row["network"], row["buckets"], row["steps"]) == ("lstm", 2, 2)
    assert row["step_ms"] > 0 and row["times_faster"] > 0 and row["compile_s"] > 0
    assert head.split()[:2] == ["network", "buckets"]


def test_a_batch_that_samples_cannot_share_is_refused():
    with pytest.raises(SystemExit, match="--batch_size=6: 4 samples need an equal part"):
        buckets.main(["--batch_size=6"])


def test_parts_are_those_of_the_shapes():
    made = make_buckets({"simple": load_scan(SMALL).examples}, 2)
    (short, long), lengths = made.shapes, made.examples["source_length"] + made.examples["target_length"]
    share = (lengths <= np.quantile(lengths, 0.5, method="higher")).mean()
    expected, drawn = buckets.parts(made, 1)
    assert expected == pytest.approx(share * sum(short) / sum(long) + 1 - share, abs=0.02)
    assert min(abs(drawn - sum(short) / sum(long)), abs(drawn - 1)) < 1e-6
