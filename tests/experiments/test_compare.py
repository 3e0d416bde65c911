"""Finished runs beside each other: made-up ones, compared by hand; what cannot be compared is named."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import class_removal, compare, mask_stability, scan, transfer
from jaxmod import figures, reports
from jaxmod.reports import stat

PAIRS = ((0, 1), (2, 3), (4, 5))


def removal(drop, seed, runs=2, noise=1.0, pairs=PAIRS):
    """Returns what class_removal finds of networks that take the classes of each pair for each other."""
    random = np.random.default_rng(seed)
    control = np.tile(100 * np.eye(10), (runs, 1, 1))
    partner = {a: b for x, y in pairs for a, b in ((x, y), (y, x))}
    without = []
    for c in range(10):
        changed = control + noise * random.random((runs, 10, 10)) * (1 - np.eye(10))
        changed[:, c, c] -= drop
        changed[:, c, partner.get(c, (c + 1) % 10)] += drop
        without.append(changed.tolist())
    measured = {
        **{
            "accuracy": [0.8] * runs,
            "control accuracy": [0.7 + 0.001 * drop] * runs,
            "density": [0.3] * runs,
        },
        **{"control": control.tolist(), "without": without, "remaining": [[0.9] * runs] * 10},
        "flips": [[]] * 10,
    }
    names = [str(c) for c in range(10)]
    return {"notes": ["Made up."], "removal": {"classes": names, **class_removal.describe(measured)}}


def write(folder, config, results):
    """Makes the folder of a finished run."""
    experiment = type(config).__module__.rpartition(".")[2]
    folder.mkdir()
    record = {"experiment": experiment, **dataclasses.asdict(config)}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "results.json").write_text(json.dumps({"experiment": experiment, **results}))
    return str(folder)


def compared(folders):
    """Returns the comparison, as it is read back."""
    found = compare.run(compare.Config(tuple(folders), permutations=99))
    return json.loads(json.dumps(found)) | {"experiment": "compare"}


@pytest.fixture(scope="module")
def architectures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("architectures")
    of = {"cnn": (60.0, 0), "cnn-no-dropout": (40.0, 1), "resnet": (95.0, 2)}
    folders = [
        write(folder / f"run-{i}", class_removal.Config(architecture=name), removal(*given))
        for i, (name, given) in enumerate(of.items())
    ]
    return folders, compared(folders)


def test_architectures_that_swap_the_same_classes_agree(architectures):
    folders, found = architectures
    assert list(found["compared"]["networks"]) == ["cnn", "cnn-no-dropout", "resnet"]
    assert len(found["compared"]["agreement"]) == 3
    for pair in found["compared"]["agreement"]:
        assert pair["off the diagonal"]["correlation"] > 0.95
        assert pair["off the diagonal"]["p"] == 0.01
        assert len(pair["single networks"]["runs"]) == 4
    assert len(found["compared"]["own"]["cnn"]["runs"]) == 1
    assert all(row["holds"] for row in found["checks"]) and len(found["checks"]) == 6
    first = json.loads(Path(folders[0], "results.json").read_text())["removal"]
    matrices = np.array([d["mean"] for d in first["differences"]])
    np.testing.assert_allclose(found["compared"]["networks"]["cnn"]["differences"], matrices)


def test_architectures_that_swap_others_do_not(tmp_path):
    other = ((0, 5), (1, 2), (3, 4), (6, 8), (7, 9))
    folders = [
        write(tmp_path / "a", class_removal.Config(), removal(60.0, 0)),
        write(tmp_path / "b", class_removal.Config(architecture="cnn-no-dropout"),
              removal(61.0, 1, pairs=other)),
    ]  # fmt: skip
    found = compared(folders)
    agree, less, third = (row["holds"] for row in found["checks"])
    assert not agree and not less and not third  # as accurate, drops as large


def test_correlations_are_those_of_every_two_networks():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(3, 2, 3, 3)), random.normal(size=(3, 4, 3, 3))
    off = ~np.eye(3, dtype=bool)
    expected = [
        np.corrcoef(a[:, i][:, off].ravel(), b[:, j][:, off].ravel())[0, 1]
        for i in range(2)
        for j in range(4)
    ]
    assert compare.correlations(a, b) == pytest.approx(expected)
    assert len(compare.correlations(b)) == 6 and compare.correlations(a[:, :1]) == []


def stability(iou):
    of = {"IoU": stat([iou, iou]), "chance": stat([0.1] * 2), "IoU, hidden layers": stat([iou] * 2)}
    return {"notes": [], "stability": {"order": of, "noise": of}}


def test_masks_of_networks_with_dropout_agree_less(tmp_path):
    folders = [
        write(tmp_path / "a", mask_stability.Config(architecture="cnn"), stability(0.7)),
        write(tmp_path / "b", mask_stability.Config(), stability(0.8)),
    ]
    found = compared(folders)
    assert [row["holds"] for row in found["checks"]] == [True, True]
    assert "0.700" in reports.summary(found)
    (path,) = figures.draw_all(found, tmp_path / "figures").values()
    assert path.stem == "stability"


def turns(start, share):
    row = {name: stat([share]) for name in ("layer 1", "layer 2", "output", "total")}
    none = {name: stat([0.0]) for name in row}
    found = {
        **{"tasks": ["T1", "T2", "T3"], "accuracy": [[stat([0.9])] * n for n in (1, 2, 3)], "changed": 0},
        **{"sharing": [none, row, row], "chance": [stat([0.0]), *[stat([0.1])] * 2], "reset": False},
        **{"density": [stat([0.2])] * 3, "logits": [2.0, start], "baseline": None},
    }
    return {"notes": [], "transfer": found}


@pytest.mark.parametrize(("low", "holds"), [(0.45, [True, True, True]), (0.15, [False, False, True])])
def test_variants_of_transfer(tmp_path, low, holds):
    folders = [
        write(tmp_path / name, transfer.Config(new_logit=start), turns(start, share))
        for name, start, share in (("plain", 2.0, 0.2), ("zero", 0.0, 0.3), ("less", -1.0, low))
    ]
    found = compared(folders)
    assert list(found["compared"]["variants"]) == ["new_logit=2.0", "new_logit=0.0", "new_logit=-1.0"]
    assert [row["holds"] for row in found["checks"]] == holds
    paths = figures.draw_all(found, tmp_path / "figures")
    assert {p.stem for p in paths.values()} == {"fig03_fig15_variants", "sharing_over_tasks"}


def test_variants_of_transfer_that_differ_in_several_ways(tmp_path):
    folders = [
        write(tmp_path / name, transfer.Config(**changes), turns(changes.get("new_logit", 2.0), share))
        for name, changes, share in (
            ("a", {}, 0.2), ("b", {"new_logit": 0.0}, 0.3), ("c", {"num_samples": 2}, 0.1),
            ("d", {"num_samples": 2, "new_logit": -1.0}, 0.4),
        )
    ]  # fmt: skip
    found = compared(folders)
    names = ["plain", "new_logit=0.0", "num_samples=2", "new_logit=-1.0, num_samples=2"]
    assert list(found["compared"]["variants"]) == names
    assert [row["ours"] for row in found["checks"]][0] == "20% from 2, 30% from 0, 40% from -1"


def test_it_can_be_shown(architectures, tmp_path):
    _, found = architectures
    assert "How far confusion differences correlate" in reports.summary(found)
    paths = figures.draw_all(found, tmp_path)
    assert {p.stem for p in paths.values()} == {"fig06_networks", "agreement"}


def split_accuracies(own, direct=True):
    """Returns results of `scan` in which the masks of the splits have this accuracy on their test parts."""
    splits = ["turn_left", "jump", "length"]
    tests = ["simple", *splits]
    names = ["network", "control", *splits, *(f"direct {split}" for split in splits if direct)]
    accuracy = {name: {test: stat([0.97, 0.99]) for test in tests} for name in names}
    for split in splits:
        accuracy[split][split] = stat([own, own])
    learned = {name: stat([0.991, 0.991]) for name in names}
    layers = ["encoder l0 ih", "output"] if direct else ["encoder 0 norms", "output"]
    density = {"control": {layer: stat([0.25, 0.5]) for layer in [*layers, "total"]}}
    found = {"splits": splits, "accuracy": accuracy, "learned": learned, "layers": layers, "density": density}
    return {"notes": [], "scan": found}


def test_networks_for_scan(tmp_path):
    folders = [
        write(tmp_path / "a", scan.Config(), split_accuracies(0.4)),
        write(tmp_path / "b", scan.Config(model="transformer"), split_accuracies(0.985)),
    ]
    found = compared(folders)
    assert list(found["compared_scan"]["networks"]) == ["lstm", "transformer"]
    assert [(row["check"].split()[0], row["holds"]) for row in found["checks"]] == [
        ("lstm:", True), ("lstm:", False), ("transformer:", False), ("transformer:", True),
    ]  # fmt: skip
    assert [row[:2] for row in found["tables"][0]["rows"]][:2] == [["lstm", "turn_left"], ["lstm", "jump"]]
    assert "40.0" in reports.summary(found) and "99.1" in reports.summary(found)
    paths = figures.draw_all(found, tmp_path / "figures")
    assert {p.stem for p in paths.values()} == {"fig04a_networks", "fig16_networks"}
    short = write(tmp_path / "c", scan.Config(embedding=200), split_accuracies(0.4, direct=False))
    without = compared([folders[0], short])
    assert list(without["compared_scan"]["networks"]) == ["embedding=16", "embedding=200"]
    assert len(without["checks"]) == 3  # one run has no networks trained on each split
    kept = {row[0]: row[1:] for row in without["tables"][1]["rows"]}
    assert list(kept) == ["encoder l0 ih", "output", "encoder 0 norms", "total"]
    assert kept["encoder l0 ih"] == [stat([25, 50]), None] and kept["total"] == [stat([25, 50])] * 2
    assert list(figures.draw_all(without, tmp_path / "more")) == list(paths)[:1]
    other = write(tmp_path / "d", scan.Config(without=("around",)), split_accuracies(0.4))
    with pytest.raises(ValueError, match="different values of without: none, around"):
        compare.validate(compare.Config((folders[0], other)))


def test_runs_that_differ_in_nothing_that_tells_are_called_by_their_folders():
    record = {"experiment": "class_removal", "architecture": "cnn"}
    assert compare.names(("x/a", "y/b"), [record, record]) == ["a", "b"]
    assert compare.names(("x/a", "y/a"), [record, record]) == ["x/a", "y/a"]


def test_what_else_is_different_is_said(tmp_path):
    configs = {"a": {}, "b": {"architecture": "cnn-no-dropout"}, "c": {"seeds": 3, "mask_steps": 7}}
    folders = {
        name: write(tmp_path / name, class_removal.Config(**changes), removal(60.0, 0))
        for name, changes in configs.items()
    }
    assert compared([folders["a"], folders["b"]])["notes"] == ["Made up."]
    plain = class_removal.Config()
    assert compared([folders["a"], folders["c"]])["notes"] == [
        "Made up.",
        f"The runs also differ in seeds ({plain.seeds}; 3), mask_steps ({plain.mask_steps}; 7).",
    ]


def test_what_cannot_be_compared_is_named(tmp_path, architectures):
    folders, _ = architectures

    def refused(message, *workdirs, **changes):
        with pytest.raises(ValueError, match=message):
            compare.validate(compare.Config(workdirs, **changes))

    refused("workdirs=: expected two or more")
    refused("expected two or more different ones", folders[0], folders[1], f"{folders[0]}/")
    refused("has no results.json: it is no run, or not finished", folders[0], str(tmp_path / "none"))
    other = write(tmp_path / "transfer", transfer.Config(), turns(2.0, 0.2))
    refused("different values of experiment: class_removal, transfer", folders[0], other)
    digits = write(tmp_path / "digits", class_removal.Config(dataset="digits"), removal(50.0, 0))
    refused("different values of dataset: cifar10, digits", folders[0], digits)
    (tmp_path / "addmul").mkdir()
    (tmp_path / "addmul" / "results.json").write_text('{"experiment": "addmul"}')
    refused("is of addmul; runs of class_removal", folders[0], str(tmp_path / "addmul"))
    refused("permutations=0", *folders, permutations=0)
    refused("permutations=1: expected 2 or more", *folders, permutations=1)
    refused("seed=-1", *folders, seed=-1)
    changes = [{"notes": [], "stability": {change: of}} for change, of in stability(0.5)["stability"].items()]
    masks = [write(tmp_path / f"{i}", mask_stability.Config(), of) for i, of in enumerate(changes)]
    refused("no change in common", *masks)
