import re

import numpy as np
import pytest

from jaxmod import reports
from tests.results import make_results, make_study


def test_stat_has_the_sample_standard_deviation():
    values = [0.5, 0.75, 1.0]
    stat = reports.stat(values)
    assert stat["runs"] == values
    assert stat["mean"] == pytest.approx(np.mean(values))
    assert stat["std"] == pytest.approx(np.std(values, ddof=1))
    assert reports.stat(np.float32(0.5)) == {"mean": 0.5, "std": None, "runs": [0.5]}


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_stat_refuses_what_is_not_a_number_per_run(values):
    with pytest.raises(ValueError, match="one number per run"):
        reports.stat(values)


@pytest.mark.parametrize(
    "values, options, text",
    [
        ([0.978, 0.984], {"percent": True}, "98.1 ± 0.4"),
        ([0.981], {"percent": True}, "98.1"),
        ([120_000, 121_000], {"digits": 0}, "120,500 ± 707"),
        ([-0.0001], {}, "-0.0"),
        ([1.5e-6, 2.5e-6], {"digits": None}, "2e-06 ± 7.1e-07"),
    ],
)
def test_format_stat(values, options, text):
    assert reports.format_stat(reports.stat(values), **options) == text


def test_format_stat_of_nothing():
    assert reports.format_stat(None) == "-"


def test_array_stat_is_the_stat_of_every_element():
    runs = np.random.RandomState(0).rand(3, 2, 4)
    ours = reports.array_stat(runs)
    for index in np.ndindex(2, 4):
        stat = reports.stat(runs[:, *index])
        assert np.array(ours["mean"])[index] == pytest.approx(stat["mean"])
        assert np.array(ours["std"])[index] == pytest.approx(stat["std"])
    assert reports.array_stat(runs[:1]) == {"mean": runs[0].tolist(), "std": None}


def test_sharing_table_has_chance_beside_every_share():
    results = {key: make_results()[key] for key in ("layers", "sharing", "chance", "iou")}
    lines = reports.summary(results).splitlines()
    assert re.split(r"  +", lines[1]) == [
        "layer", "add shared", "by chance", "mul shared", "by chance", "IoU",
    ]  # fmt: skip
    assert re.split(r"  +", lines[3]) == [
        "layer 1", "60.0 ± 2.0", "30.0 ± 2.0", "20.0 ± 2.0", "10.0 ± 2.0", "15.0 ± 2.0",
    ]  # fmt: skip
    assert [line.split("  ")[0] for line in lines[3:]] == ["layer 1", "layer 2", "output", "total"]
    assert len({len(line) for line in lines[1:]}) == 1  # aligned


def test_accuracy_table_has_every_mask_and_task():
    results = make_results()
    (table,) = reports.tables({key: results[key] for key in ("accuracy", "density")})
    assert table.header == ["weights in use", "iid", "add", "mul", "kept"]
    assert [row[0] for row in table.rows] == list(results["accuracy"])
    assert table.rows[0][-1] == "-"  # no density is stored for the unmasked network


def test_summary_prints_what_is_there():
    summary = reports.summary(make_results())
    for title in ("Sharing (%)", "Accuracy", "The paper's statements"):
        assert title in summary
    assert summary.splitlines()[-2:] == ["NO   more weights", "     paper: 3.8 times; ours: 1.1 times"]
    points = reports.summary(make_study("num_samples"))
    assert points.splitlines()[1].split("  ")[0] == "num_samples"
    assert "gradient variance" in points


def test_stat_names_are_those_that_all_points_have():
    one, two = (
        {"value": 1, "a": reports.stat([1]), "b": reports.stat([1])},
        {"value": 2, "a": reports.stat([1])},
    )
    assert reports.stat_names([one, two]) == ["a"]


def test_an_experiment_may_bring_tables_of_its_own():
    stat = reports.stat([2.0, 2.1])
    own = {
        "title": "N-cuts",
        "header": ["network", "n-cut", "p", "shuffles"],
        "rows": [["trained", stat, 0.00311, 320], ["shuffled", None, -0.0, 0]],
        "note": "Lower: more clusterable.",
        "digits": 2,
    }
    (table,) = reports.tables({"tables": [own]})
    assert table.rows == [["trained", "2.05 ± 0.07", "0.00", "320"], ["shuffled", "-", "0.00", "0"]]
    assert (table.title, table.note, table.words) == ("N-cuts", "Lower: more clusterable.", 1)
    assert reports.summary({"tables": [own | {"detail": True}]}) == ""
