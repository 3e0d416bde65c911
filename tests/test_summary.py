"""summarise: a hand-made table becomes the statistics of results.json."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod.analysis.chance import Chance
from jaxmod.analysis.evaluate import Evaluation, Overlap
from jaxmod.analysis.sharing import Sharing
from jaxmod.reports import stat
from jaxmod.summary import check, summarise

RUNS = 2
LABELS = {"layer_1/kernel": "layer 1", "output/kernel": "output"}
LAYERS = ["layer 1", "output", "total"]
PATHS = [*LABELS, "total"]
ROWS = ["unmasked", "control", "add", "mul", "not add", "random mul", "early masked", "late masked"]


def per_run(value):
    """Returns a number that tells its place apart, and one more in the second run."""
    return jnp.array([value, value + 1.0])


def by_path(base):
    return {path: per_run(base + 10 * i) for i, path in enumerate(PATHS)}


def overlap(base):
    chance = {p: Chance(*(per_run(base + 100 + 10 * i + j) for j in range(4))) for i, p in enumerate(PATHS)}
    within = {p: Chance(*(x + 100 for x in c)) for p, c in chance.items()}
    shared = {p: Sharing(*(per_run(base + 10 * i + j) for j in range(3))) for i, p in enumerate(PATHS)}
    return Overlap(shared, chance, within, per_run(base + 500))


@pytest.fixture
def found():
    """Modules of ten weights, of which the control keeps nine."""
    logits = jnp.where(jnp.arange(10)[None] < 9, jnp.full((RUNS, 10), 9.0), -9.0)
    return {name: jm.Found({"w": logits > 0}, {"w": logits}, {}) for name in ("control", "add", "mul")}


@pytest.fixture
def table():
    tasks = ["iid", "add", "mul"]
    masked = {name: i for i, name in enumerate(ROWS) if name != "unmasked"}
    return Evaluation(
        {
            mask: {
                task: {"accuracy": per_run(10.0 * i + j), "other": jnp.ones((RUNS, 5))}
                for j, task in enumerate(tasks)
            }
            for i, mask in enumerate(ROWS)
        },
        weights={
            name: {path: n.astype(int) for path, n in by_path(1000 * i).items()} for name, i in masked.items()
        },
        density={name: by_path(0.1 * i) for name, i in masked.items()},
        overlaps={("add", "mul"): overlap(0.0), ("mul", "add"): overlap(1000.0)},
        remaining={"add": by_path(2000), "mul": by_path(3000)},
    )


@pytest.fixture
def results(found, table):
    return summarise(found, table, LABELS, tasks=("add", "mul"))


def test_the_schema(results):
    assert set(results) == {
        "layers", "tasks", "accuracy", "density", "sharing", "iou", "io_min", "chance", "chance_in_control",
        "remaining", "weights", "weights_ratio", "half_mask", "histogram",
    }  # fmt: skip
    assert results["layers"] == ["layer 1", "output"] and results["tasks"] == ["add", "mul"]
    for name in ("sharing", "remaining", "chance", "chance_in_control"):
        assert list(results[name]) == ["add", "mul"]
        assert all(list(row) == LAYERS for row in results[name].values())
    assert list(results["iou"]) == list(results["io_min"]) == LAYERS
    assert list(results["weights"]) == ["control", "add", "mul"]
    assert json.loads(json.dumps(results, allow_nan=False)) == results  # plain types all through


def test_logits_that_are_no_probabilities_have_no_histogram(results, found, table):
    without = summarise(found, table, LABELS, tasks=("add", "mul"), histogram=False)
    assert without == results | {"histogram": None}


def test_accuracies_are_those_of_all_rows_but_the_halves(results):
    assert list(results["accuracy"]) == ROWS[:-2]
    assert results["accuracy"]["mul"]["add"] == stat([31.0, 32.0])
    assert results["accuracy"]["unmasked"]["iid"]["std"] == pytest.approx(0.5**0.5)
    assert list(results["density"]) == ROWS[1:-2]
    assert results["density"]["not add"]["runs"] == pytest.approx([20.4, 21.4])


def test_half_masks_lose_points_of_the_whole_task(results):
    assert results["half_mask"] == {"early masked": stat([-5000.0] * 2), "late masked": stat([-6000.0] * 2)}


def test_overlaps_are_the_task_s_with_the_other(results):
    assert results["sharing"]["add"]["layer 1"] == stat([0.0, 1.0])
    assert results["sharing"]["mul"]["total"] == stat([1020.0, 1021.0])
    assert results["iou"]["output"] == stat([11.0, 12.0])
    assert results["io_min"]["total"] == stat([22.0, 23.0])
    chance = results["chance"]["mul"]["output"]
    assert chance == {"expected": stat([1111, 1112]), "z": stat([1112, 1113]), "log10_p": stat([1113, 1114])}
    within = results["chance_in_control"]["add"]["total"]
    assert within == {"expected": stat([221, 222]), "z": stat([222, 223]), "log10_p": stat([223, 224])}


def test_counts_are_those_of_the_table(results):
    assert results["weights"]["control"]["layer 1"] == stat([1000, 1001])
    assert results["weights"]["mul"]["total"] == stat([3020, 3021])
    assert results["remaining"]["mul"]["output"] == stat([3010, 3011])
    assert results["weights_ratio"] == stat([500, 501])


def test_the_histogram_is_that_of_the_control(results):
    histogram = results["histogram"]
    assert len(histogram["edges"]) == 501 and len(histogram["mean"]) == len(histogram["std"]) == 500
    assert sum(histogram["counts"]) == 2 * 10
    # Nine of ten logits are 9 in both runs, one is -9; a bin is 1/500 wide.
    assert histogram["counts"][-1] == 18 and histogram["counts"][0] == 2
    assert histogram["mean"][-1] == pytest.approx(0.9 * 500)
    assert histogram["std"][-1] == pytest.approx(0, abs=1e-4)


def test_one_run_has_no_deviation(found, table):
    one = {name: jax.tree.map(lambda x: x[:1], module) for name, module in found.items()}
    first = Evaluation(
        *jax.tree.map(lambda x: x[:1], (dict(table),)), **jax.tree.map(lambda x: x[:1], vars(table))
    )
    results = summarise(one, first, LABELS, tasks=("add", "mul"))
    assert results["histogram"]["std"] is None and results["weights_ratio"]["std"] is None
    assert results["weights_ratio"]["runs"] == [500.0]


def test_the_order_of_tasks_turns_the_ratio(found, table):
    results = summarise(found, table, LABELS, tasks=("mul", "add"))
    assert results["weights_ratio"] == stat([1500, 1501])
    assert results["iou"]["layer 1"] == stat([1001.0, 1002.0])


@pytest.mark.parametrize("missing", ["unmasked", "late masked", "remaining"])
def test_a_table_without_key_control_or_half_is_refused(found, table, missing):
    if missing == "remaining":
        table.remaining = {}
    else:
        del table[missing]
    with pytest.raises(ValueError, match=r"pass key, control and first_half to jm\.evaluate"):
        summarise(found, table, LABELS, tasks=("add", "mul"))


def test_a_check_is_a_row():
    row = check("it holds", "yes", "0.99", np.bool_(True))
    assert row == {"check": "it holds", "paper": "yes", "ours": "0.99", "holds": True}
    assert row["holds"] is True
