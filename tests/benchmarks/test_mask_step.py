"""The benchmark of a masked step, on a network of eight units."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from benchmarks import mask_step
from benchmarks.networks import NETWORKS
from tests.benchmarks.tiny import TINY, WEIGHTS


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(mask_step, "NETWORKS", {"tiny": TINY})
    monkeypatch.setattr(mask_step, "measure_bandwidth", lambda: 1e9)
    monkeypatch.setattr(mask_step, "measure_peak", lambda: 1e9)


def test_a_tiny_network_from_flags_to_table_and_plot(tiny, capsys, tmp_path):
    out, plot = tmp_path / "new" / "rows.jsonl", tmp_path / "step.png"
    mask_step.main(
        [
            "--networks=tiny",
            "--masks=mix32,naive",
            "--rounds=2",
            "--samples=4",
            f"--out={out}",
            f"--plot={plot}",
        ]
    )
    printed = capsys.readouterr().out.strip().splitlines()
    rows = [json.loads(line) for line in printed[:2]]
    assert rows == [json.loads(line) for line in out.read_text().splitlines()]
    for row, kind in zip(rows, ("mix32", "naive"), strict=True):
        assert (row["network"], row["weights"], row["masks"]) == ("tiny", WEIGHTS, kind)
        assert (row["samples"], row["steps"], row["rounds"], row["target"]) == (
            *(4, 3, 2),
            1e9 if kind == "mix32" else None,
        )
        assert row["jax"] == jax.__version__ and row["platform"] == jax.default_backend() and row["device"]
        for number in ("dense_ms", "mask_ms", "ratio", "mask_compile_s", "moved_bytes"):
            assert row[number] > 0
        # Forward and for the weights' gradient, and for that of the hidden layer's values.
        assert row["peak_ms"] == pytest.approx(1e3 * 2 * (2 * WEIGHTS + 8 * 20) * 128 / 1e9, abs=1e-3)
        assert row["floor_bytes"] == 4 * WEIGHTS * 36
        assert row["floor_ms"] == pytest.approx(1e3 * row["floor_bytes"] / 1e9, abs=1e-3)
    assert printed[3].split("  ")[0] == "network" and printed[4].split()[:3] == ["tiny", "mix32", "4"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_pytorch_takes_its_turns_too(tiny):
    pytest.importorskip("torch")
    from benchmarks import torch_step

    calls = []

    def masked():
        calls.append("masked")
        time.sleep(0.002)

    with pytest.MonkeyPatch.context() as patch:
        steps = (lambda: calls.append("dense"), masked)
        patch.setattr(torch_step, "contender", lambda name, n, batch_size: steps)
        (row,) = mask_step.measure("tiny", TINY, [("mix32", 2)], rounds=3, torch=True)
    assert calls.count("dense") == calls.count("masked") == 4  # a first call, then the rounds
    assert row["torch_ms"] >= 2
    # A median of ratios, not the ratio of the medians: equal to it only roughly.
    assert row["times_faster_than_torch"] > 0
    assert mask_step.table([row]).splitlines()[0].endswith("times faster  target")


def test_the_table_says_whether_the_target_is_met():
    row = {
        "network": "n", "masks": "mix32", "samples": 4, "dense_ms": 10.0, "mask_ms": 20.0, "ratio": 2.0,
        "target": 2.0, "floor_ms": 1.0, "mask_compile_s": 3.0, "moved_bytes": 3.0, "floor_bytes": 2.0,
        "peak_ms": 5.0,
    }  # fmt: skip
    text = mask_step.table([row, row | {"ratio": 2.1}, row | {"target": None}])
    _, met, missed, none = text.splitlines()
    assert "<= 2 yes" in met and "<= 2 NO" in missed and "<= 2" not in none


def test_naive_masks_are_timed_with_four_samples_and_left_out_where_they_are_slow(tiny, monkeypatch):
    asked = []

    def measure(name, network, kinds, rounds, torch):
        asked.append((name, kinds, torch))
        yield from ()

    monkeypatch.setattr(mask_step, "NETWORKS", NETWORKS)
    monkeypatch.setattr(mask_step, "measure", measure)
    mask_step.main(["--networks=cnn,fnn-2000x4"])
    ours = [("mix32", n) for n in (1, 4, 8)]
    assert asked == [("cnn", [*ours, ("naive", 4)], False), ("fnn-2000x4", ours, False)]
    asked.clear()
    mask_step.main(["--networks=fnn-2000x4", "--full"])
    assert asked == [("fnn-2000x4", [*ours, ("naive", 4)], True)]
    asked.clear()
    mask_step.main(["--full"])
    assert [name for name, *_ in asked] == list(NETWORKS)  # ResNet-110 too
    assert dict((name, torch) for name, _, torch in asked)["resnet-110"] is False


def test_naive_masks_have_the_law_and_the_gradient_of_the_straight_through_estimator(key):
    logits = {"w": jnp.full(20_000, 0.5)}
    sample = mask_step.naive_sample(key, logits)["w"]
    assert set(np.unique(sample)) == {0.0, 1.0}
    p = 1 / (1 + np.exp(-0.5))
    assert abs(float(sample.mean()) - p) < 4 * np.sqrt(p * (1 - p) / 20_000)
    naive, ours = (
        np.asarray(jax.grad(lambda x, f=f: f(key, x)["w"].sum())(logits)["w"])
        for f in (mask_step.naive_sample, jm.gumbel_sigmoid().sample)
    )
    assert abs(naive.mean() - ours.mean()) < 4 * np.hypot(naive.std(), ours.std()) / np.sqrt(20_000)


def test_the_bandwidth_of_a_copy_is_a_sane_number():
    assert 1e8 < mask_step.measure_bandwidth(size=2**20, rounds=2) < 1e14


def test_the_flags_by_default():
    given = mask_step.parse([])
    assert given.networks == [name for name in NETWORKS if name != "resnet-110"]
    assert given.masks == ["mix32", "naive"] and given.samples == ["1", "4", "8"] and not given.full


@pytest.mark.parametrize("name", [n for n in NETWORKS])
def test_the_loss_of_every_network_has_a_shape(name):
    network = NETWORKS[name]
    params = jax.eval_shape(network.init, jax.random.key(0))
    batch = jax.tree.map(lambda x: x[:4], network.examples())
    assert jax.eval_shape(network.loss_fn, params, batch, None).shape == ()
    assert network.batch_size % 8 == 0 and set(network.targets) == {"cpu", "gpu"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--networks=fnn-9", "expected one or more of fnn-400-400-200, fnn-2000x4, lstm-2x256"),
        ("--masks=rbg", "expected one or more of mix32, bfloat16, rao_blackwell, threefry2x32"),
        ("--masks=", "expected one or more of"),
        ("--samples=3", "expected one or more of 1, 2, 4, 8, 16"),
        ("--rounds=0", "--rounds=0"),
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
