"""The benchmark of a masked step, on a network of eight units."""

import json

import jax
import pytest

from benchmarks import mask_step
from benchmarks.mask_step import Network
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier


def test_a_tiny_network_from_flags_to_table(monkeypatch, capsys):
    monkeypatch.setattr(mask_step, "NETWORKS", {"tiny": Network(FNN((8,), outputs=20))})
    monkeypatch.setattr(mask_step, "EXAMPLES", 300)
    mask_step.main(["--networks=tiny", "--impls=philox4x32", "--steps=3", "--rounds=2", "--samples=1"])
    line, *rest = capsys.readouterr().out.strip().splitlines()
    row = json.loads(line)
    assert row["network"] == "tiny" and row["weights"] == 42 * 8 + 8 * 20
    assert (row["impl"], row["samples"], row["steps"], row["rounds"]) == ("philox4x32", 1, 3, 2)
    assert row["jax"] == jax.__version__ and row["platform"] == jax.default_backend() and row["device"]
    for number in ("dense_ms", "mask_ms", "ratio", "dense_compile_s", "mask_compile_s"):
        assert row[number] > 0
    assert rest[1].split("  ")[0] == "network"
    assert rest[2].startswith("tiny     philox4x32")


def test_the_table_says_whether_the_target_is_met():
    row = {
        "network": "n",
        "impl": "philox4x32",
        "samples": 4,
        "dense_ms": 10.0,
        "mask_ms": 50.0,
        "ratio": 5.0,
    }
    text = mask_step.table([row, row | {"mask_ms": 51.0, "ratio": 5.1}])
    head, met, missed = text.splitlines()
    assert head.endswith("at most 5") and met.endswith("5.00   yes") and missed.endswith("5.10   no")


@pytest.mark.parametrize(
    "network", [Network(FNN((8,), outputs=20)), Network(LSTMClassifier(4, outputs=20), 3)]
)
def test_the_loss_is_that_of_the_experiment(network):
    batch = {
        "digits": jax.numpy.zeros((5, 4), int),
        "op": jax.numpy.zeros(5, int),
        "labels": jax.numpy.zeros((5, 2), int),
    }
    params = jax.eval_shape(network.model.init, jax.random.key(0), mask_step.shown(network, batch))["params"]
    loss = jax.eval_shape(mask_step.make_loss(network), params, batch, None)
    assert loss.shape == ()


def test_the_flags_are_those_of_the_target_by_default():
    given = mask_step.parse([])
    assert given.networks == ["fnn-400-400-200", "fnn-2000x4", "lstm-2x256"]
    assert given.impls == ["threefry2x32", "philox4x32"] and given.samples == 4


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--networks=fnn-9", "expected one or more of fnn-400-400-200, fnn-2000x4, lstm-2x256"),
        ("--impls=rbg", "expected one or more of threefry2x32, philox4x32"),
        ("--impls=", "expected one or more of"),
        ("--samples=3", "must divide the batch of 128"),
        ("--steps=0", "--steps=0"),
        ("--speed=9", "speed"),
        ("fast", "'fast' is no option"),
    ],
)
def test_bad_flags_are_named(argument, message):
    with pytest.raises(SystemExit, match=message):
        mask_step.parse([argument])


def test_help_shows_the_flags(capsys):
    with pytest.raises(SystemExit):
        mask_step.parse(["--help"])
    text = capsys.readouterr().out
    assert "python -m benchmarks.mask_step" in text and "--rounds" in text
