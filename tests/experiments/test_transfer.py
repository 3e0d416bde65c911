"""Transfer at toy size: permutations, old tasks, the baseline, resumed."""

import dataclasses
import shutil

import numpy as np
import pytest

import jaxmod as jm
from experiments import transfer
from jaxmod import figures, files, reports
from jaxmod.data.images import load_images

TINY = transfer.Config(
    dataset="digits",
    hidden=(12, 8),
    tasks=3,
    seeds=2,
    steps=30,
    learning_rate=0.1,
    batch_size=16,
    num_samples=2,
    beta=0.05,
    chunk_steps=30,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    with jm.Workdir.open(folder, {}) as workdir:
        found = transfer.run(TINY, workdir)
        shutil.rmtree(folder / "parts")  # networks are there: what is measured is the same
        assert transfer.run(TINY, workdir) == found
    files.write_json(folder / "results.json", found)
    return found


def test_old_tasks_are_solved_as_before(results):
    found = results["transfer"]
    assert [len(row) for row in found["accuracy"]] == [1, 2, 3]
    for q in range(3):
        assert found["accuracy"][-1][q] == found["accuracy"][q][q]
    assert found["changed"] == 0
    assert results["checks"][0]["holds"]


def test_sharing_is_by_layer_and_the_first_task_shares_nothing(results):
    first, *others = results["transfer"]["sharing"]
    assert list(first) == ["layer 1", "layer 2", "output", "total"]
    assert all(x == 0 for stat in first.values() for x in stat["runs"])
    assert all(0 < row["total"]["mean"] < 1 for row in others)
    none, *chance = results["transfer"]["chance"]
    assert none["mean"] == 0 and all(0 < s["mean"] < 1 for s in chance)


def test_it_can_be_shown(results, tmp_path):
    assert "Shared with earlier tasks" in reports.summary(results | {"experiment": "transfer"})
    paths = figures.draw_all(results, tmp_path)
    assert {path.stem for path in paths.values()} == {"fig03_sharing", "accuracy_of_tasks"}
    prefer = results["transfer"] | {"logits": [2.0, 0.0]}
    names = {path.stem for path in figures.figure_paths(results | {"transfer": prefer}, "x").values()}
    assert "fig15_sharing" in names


def test_with_another_first_layer_nothing_is_said_of_old_tasks():
    config = dataclasses.replace(TINY, tasks=2, reset_first_layer=True, baseline=False, seeds=1)
    found = transfer.run(config)
    assert found["transfer"]["reset"] and found["transfer"]["baseline"] is None
    assert not any("as before" in row["check"] for row in found["checks"])


def test_pixels_are_permuted_as_in_the_authors_code():
    examples = {"image": np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), "label": np.array([0, 1])}
    rows = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(transfer.permuted(0, examples)["image"], rows)
    order = np.random.RandomState(3).permutation(4)
    np.testing.assert_array_equal(transfer.permuted(3, examples)["image"], rows[:, order])


def made(changed=0, lost=False, logits=(2.0, 2.0), output=0.9, total=0.4):
    stat = reports.stat
    row = {"layer 1": stat([0.2]), "layer 2": stat([0.3]), "output": stat([output]), "total": stat([total])}
    last = [stat([0.8 if lost else 0.95]), stat([0.96])]
    return {
        **{"tasks": ["T1", "T2"], "accuracy": [[stat([0.95])], last], "changed": changed, "reset": False},
        **{"sharing": [row, row], "density": [stat([0.1])] * 2, "logits": logits},
        **{"baseline": [stat([0.97]), stat([0.965])], "chance": [stat([0.0]), stat([0.1])]},
    }


def test_what_is_said():
    assert all(row["holds"] for row in transfer.checks(made()))
    assert not transfer.checks(made(changed=1))[0]["holds"]
    assert not transfer.checks(made(lost=True))[0]["holds"]
    assert not transfer.checks(made(total=0.6))[1]["holds"]
    assert not transfer.checks(made(output=0.1))[2]["holds"]
    prefer = {row["check"]: row["holds"] for row in transfer.checks(made(logits=(2.0, 0.0), total=0.6))}
    assert not prefer["more than half of each mask stays unique"]


@pytest.mark.parametrize("preset", transfer.PRESETS)
def test_presets_are_valid_but_for_their_data(preset, monkeypatch):
    monkeypatch.setattr(transfer, "load_images", lambda name: load_images("digits"))
    transfer.validate(transfer.PRESETS[preset])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar10"}, "dataset='cifar10'"),
        ({"tasks": 1}, "tasks=1: expected 2 or more"),
        ({"hidden": (8,)}, "expected 2 sizes or more"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=16"),
        (
            {"estimator": "edge_popup"},
            "estimator='edge_popup': expected one of gumbel_sigmoid, hard_concrete",
        ),
        ({"estimator": "hard_concrete", "rao_blackwell": True}, "rao_blackwell=True does not go with"),
        ({"noise": "philox"}, "noise='philox': expected one of"),
    ],
)
def test_values_that_cannot_work_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        transfer.validate(dataclasses.replace(TINY, **changes))
