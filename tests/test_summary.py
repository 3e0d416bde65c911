"""summarise: hand-made modules and tables become the statistics of results.json."""

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
from jaxmod.summary import check, half_mask_drop, summarise
from tests.helpers import tiny_data, tiny_evaluate, tiny_params

RUNS = 2
LABELS = {"layer_1/kernel": "layer 1", "output/kernel": "output"}
LAYERS = ["layer 1", "output", "total"]
METRIC = "right"


def module(*kept):
    """A module over a [2, 3] and a [4] leaf that keeps the first so many weights of each in every run."""
    first = np.arange(6).reshape(2, 3)[None] < np.array([k for k, _ in kept])[:, None, None]
    second = np.arange(4)[None] < np.array([k for _, k in kept])[:, None]
    mask = {
        "layer_1": {"kernel": jnp.asarray(first), "bias": None},
        "output": {"kernel": jnp.asarray(second)},
    }
    logits = jax.tree.map(lambda m: jnp.where(m, 9.0, -9.0), mask)
    return jm.Found(mask, logits, {})


def per_run(value):
    return jnp.array([value, value + 1.0])


def overlap(base, with_control=True):
    """Numbers that tell each place in the table apart."""
    paths = [*LABELS, "total"]
    chance = {p: Chance(*(per_run(base + 100 + 10 * i + j) for j in range(4))) for i, p in enumerate(paths)}
    within = {p: Chance(*(x + 100 for x in c)) for p, c in chance.items()}
    shared = {p: Sharing(*(per_run(base + 10 * i + j) for j in range(3))) for i, p in enumerate(paths)}
    return Overlap(shared, chance, within if with_control else None)


FOUND = {"control": module((6, 3), (5, 4)), "add": module((2, 1), (3, 0)), "mul": module((4, 2), (6, 3))}


@pytest.fixture
def table():
    rows = ["unmasked", "control", "add", "mul", "not add", "random mul"]
    made = Evaluation(
        {
            mask: {
                task: {METRIC: per_run(10.0 * i + j), "other": jnp.ones((RUNS, 5))}
                for j, task in enumerate(["iid", "add", "mul"])
            }
            for i, mask in enumerate(rows)
        }
    )
    made.overlaps = {("add", "mul"): overlap(0.0), ("mul", "add"): overlap(1000.0)}
    return made


@pytest.fixture
def results(table):
    return summarise(FOUND, table, LABELS, tasks=("add", "mul"), metric=METRIC)


def test_the_schema(results):
    assert set(results) == {
        "layers", "tasks", "accuracy", "density", "sharing", "iou", "io_min", "chance", "chance_in_control",
        "remaining", "weights", "weights_ratio", "histogram",
    }  # fmt: skip
    assert results["layers"] == ["layer 1", "output"] and results["tasks"] == ["add", "mul"]
    for name in ("sharing", "remaining", "chance", "chance_in_control"):
        assert list(results[name]) == ["add", "mul"]
        assert all(list(row) == LAYERS for row in results[name].values())
    assert list(results["iou"]) == list(results["io_min"]) == LAYERS
    assert list(results["weights"]) == ["control", "add", "mul"]
    assert json.loads(json.dumps(results, allow_nan=False)) == results  # plain types all through


def test_accuracies_are_those_of_the_metric(results):
    assert list(results["accuracy"]) == ["unmasked", "control", "add", "mul", "not add", "random mul"]
    assert results["accuracy"]["mul"]["add"] == stat([31.0, 32.0])
    assert results["accuracy"]["unmasked"]["iid"]["std"] == pytest.approx(0.5**0.5)


def test_overlaps_are_the_task_s_with_the_other(results):
    assert results["sharing"]["add"]["layer 1"] == stat([0.0, 1.0])
    assert results["sharing"]["mul"]["total"] == stat([1020.0, 1021.0])
    assert results["iou"]["output"] == stat([11.0, 12.0])
    assert results["io_min"]["total"] == stat([22.0, 23.0])
    chance = results["chance"]["mul"]["output"]
    assert chance == {"expected": stat([1111, 1112]), "z": stat([1112, 1113]), "log10_p": stat([1113, 1114])}
    within = results["chance_in_control"]["add"]["total"]
    assert within == {"expected": stat([221, 222]), "z": stat([222, 223]), "log10_p": stat([223, 224])}


def test_counts_densities_and_ratios(results):
    assert results["weights"]["control"] == {
        "layer 1": stat([6, 5]),
        "output": stat([3, 4]),
        "total": stat([9, 9]),
    }
    assert results["weights"]["add"]["total"] == stat([3, 3])
    assert results["weights_ratio"] == stat([6 / 3, 9 / 3])
    assert results["remaining"]["mul"]["layer 1"]["runs"] == pytest.approx([4 / 6, 5 / 5])
    assert results["remaining"]["add"]["output"] == stat([np.float32(1 / 3), 0])
    densities = {name: s["runs"] for name, s in results["density"].items()}
    for name, kept in {"control": [9, 9], "add": [3, 3], "mul": [6, 9]}.items():
        assert densities[name] == pytest.approx([k / 10 for k in kept])
        assert densities[f"random {name}"] == densities[name]
        assert densities[f"not {name}"] == pytest.approx([1 - k / 10 for k in kept])


def test_the_histogram_is_that_of_the_control(results):
    histogram = results["histogram"]
    assert len(histogram["edges"]) == 501 and len(histogram["mean"]) == len(histogram["std"]) == 500
    assert sum(histogram["counts"]) == 2 * 10
    # Nine of ten logits are 9 in both runs, one is -9; a bin is 1/500 wide.
    assert histogram["counts"][-1] == 18 and histogram["counts"][0] == 2
    assert histogram["mean"][-1] == pytest.approx(0.9 * 500)
    assert histogram["std"][-1] == pytest.approx(0, abs=1e-4)


def test_one_run_has_no_deviation(table):
    one = {name: jax.tree.map(lambda x: x[:1], found) for name, found in FOUND.items()}
    first = Evaluation(jax.tree.map(lambda x: x[:1], dict(table)))
    first.overlaps = jax.tree.map(lambda x: x[:1], table.overlaps)
    results = summarise(one, first, LABELS, tasks=("add", "mul"), metric=METRIC)
    assert results["histogram"]["std"] is None and results["weights_ratio"]["std"] is None
    assert results["weights_ratio"]["runs"] == [2.0]


def test_another_control_and_order_of_tasks(table):
    found = {"all": FOUND["control"], "add": FOUND["add"], "mul": FOUND["mul"]}
    results = summarise(found, table, LABELS, tasks=("mul", "add"), metric=METRIC, control="all")
    assert results["weights_ratio"]["runs"] == pytest.approx([3 / 6, 3 / 9])
    assert results["iou"]["layer 1"] == stat([1001.0, 1002.0])


@pytest.mark.parametrize(
    "overlaps", [{}, {("add", "mul"): overlap(0), ("mul", "add"): overlap(1, with_control=False)}]
)
def test_a_table_without_controls_is_refused(table, overlaps):
    table.overlaps = overlaps
    with pytest.raises(ValueError, match=r"pass key and control to jm\.evaluate"):
        summarise(FOUND, table, LABELS, tasks=("add", "mul"), metric=METRIC)


def test_half_masks_lose_points(key):
    keys = jax.random.split(key, RUNS)
    params, data = jax.vmap(tiny_params)(keys), tiny_data()
    draw = jax.vmap(lambda key, w: jax.random.bernoulli(key, 0.5, w.shape))
    control = {name: {"kernel": draw(keys, layer["kernel"]), "bias": None} for name, layer in params.items()}
    drop = half_mask_drop(tiny_evaluate, params, control, ["layer_1/kernel"], data)
    assert set(drop) == {"early masked", "late masked"}

    def accuracy(run, *layers):
        masked = {
            name: layer
            | {"kernel": layer["kernel"][run] * (control[name]["kernel"][run] if name in layers else 1)}
            for name, layer in params.items()
        }
        masked = {name: layer | {"bias": layer["bias"][run]} for name, layer in masked.items()}
        return np.mean(tiny_evaluate(masked, data)["accuracy"])

    for name, layer in (("early masked", "layer_1"), ("late masked", "output")):
        expected = [float(100 * (accuracy(i, *params) - accuracy(i, layer))) for i in range(RUNS)]
        assert drop[name]["runs"] == pytest.approx(expected, abs=1e-3)


def test_a_check_is_a_row():
    row = check("it holds", "yes", "0.99", np.bool_(True))
    assert row == {"check": "it holds", "paper": "yes", "ours": "0.99", "holds": True}
    assert row["holds"] is True
