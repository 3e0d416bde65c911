"""What the statements judge, on made-up clusterings that hold and that do not."""

import numpy as np
import pytest

from jaxmod import conditions, reports
from jaxmod.structure import cluster_checks, published
from tests.structure.clusterings import ENTRY, NULL


def test_statements_are_judged_by_the_conditions_at_hand():
    def entry(condition, phase, value):
        n_cut = reports.stat([value - 0.01, value, value + 0.01, value, value - 0.005])
        return {"condition": condition, "phase": phase, "k": 4, "n_cut": n_cut, "nulls": {}, "cohens_d": None}

    values = {"mnist": (2.44, 2.0), "mnist-dropout": (2.23, 1.84)}
    made = {
        "clusterings": [
            entry(name, phase, value)
            for name, both in values.items()
            for phase, value in zip(conditions.PHASES, both, strict=True)
        ],
        "accuracy_by_phase": {
            name: {phase: {"test": reports.stat([0.9, 0.8, 0.9, 0.85, 0.9])} for phase in conditions.PHASES}
            for name in values
        },
        "initial": {"k": 4, "n_cuts": [2.31, 2.5], "sizes": [784, 256, 256, 256, 256]},
        "runs": 5,
    }
    held = {row["check"]: row["holds"] for row in cluster_checks.checks(made)}
    assert held["pruning lowers the n-cut"] and held["so does dropout, pruned or not"]
    assert held["mnist, pruned, k=4: mean n-cut within two sd of the paper's"]
    assert "mnist, pruned, k=4: n-cut and accuracy are unrelated" in held
    untrained = "all untrained networks lie in the paper's range"
    assert not held[untrained]
    made["initial"]["n_cuts"] = [2.299, 2.4]
    assert not {row["check"]: row["holds"] for row in cluster_checks.checks(made)}[untrained]
    made["initial"]["n_cuts"] = [2.301, 2.449]
    assert {row["check"]: row["holds"] for row in cluster_checks.checks(made)}[untrained]
    made["clusterings"][3] = entry("mnist-dropout", "pruned", 2.3)
    held = {row["check"]: row["holds"] for row in cluster_checks.checks(made)}
    assert not held["pruning lowers the n-cut"] and not held["so does dropout, pruned or not"]
    assert not held["mnist-dropout, pruned, k=4: mean n-cut within two sd of the paper's"]


def judged(entries, accuracy=0.9):
    """Returns whether each statement holds of these `(condition, phase, k, n-cut, more)`."""
    stat = reports.stat
    made = [
        {"condition": name, "phase": phase, "k": k, "n_cut": stat([value]), "nulls": {}, "cohens_d": None}
        | more
        for name, phase, k, value, more in entries
    ]
    names = dict.fromkeys(name for name, *_ in entries)
    results = {
        "clusterings": made,
        "accuracy_by_phase": {
            name: {phase: {"test": stat([accuracy])} for phase in conditions.PHASES} for name in names
        },
        "initial": None,
        "runs": 1,
    }
    return {row["check"]: row["holds"] for row in cluster_checks.checks(results)}


def both_phases(name, value, more=None, k=4):
    return [(name, "unpruned", k, 2.4, {}), (name, "pruned", k, value, more or {})]


@pytest.mark.parametrize(
    ("d", "with_dropout", "without"), [(9.45, 1, 0), (-1.24, 0, 1), (2.5, 1, 0), (-3, 0, 0)]
)
def test_what_is_said_of_the_topology_is_what_is_judged(d, with_dropout, without):
    more = {"cohens_d": reports.stat([d])}
    far = judged(both_phases("mnist-dropout", 2.0, more))
    near = judged(both_phases("mnist", 2.0, more))
    end = "shuffles that keep the topology"
    assert far[f"mnist-dropout, pruned, k=4: {end} are far more clusterable, d > 2"] == with_dropout
    assert near[f"mnist, pruned, k=4: {end} differ little, d from -2 to 2"] == without


@pytest.mark.parametrize("below", [0.0, 0.4, 0.6])
def test_the_exceptions_are_judged_where_the_paper_has_them(below):
    null = {"n_cuts": [[2.0, 2.1]], "mean": 2.05, "std": 0.05, "below_all": below, "below_first": below}
    more = {"nulls": {"layer": null}}
    found = judged([*both_phases("mnist", 0.33, more, k=2), *both_phases("cifar10", 0.3, more, k=2)])
    exception = "an exception, less than half of the networks lie below their shuffles"
    assert found[f"mnist, pruned, k=2: {exception}"] == (below < 0.5)
    assert f"cifar10, pruned, k=2: {exception}" not in found
    found = judged(both_phases("kilo-epoch", 2.08, more))
    assert found[f"kilo-epoch, pruned, k=4: {exception}"] == (below < 0.5)
    assert found["kilo-epoch, unpruned, k=4: the n-cut stays in the range of untrained networks, 2.3 to 2.45"]


def test_the_shapes_of_the_shuffles_of_unpruned_networks():
    random = np.random.default_rng(0)
    two = np.where(np.arange(300) % 2, 2.4, 2.5) + random.normal(0, 0.01, 300)
    tail = 2.3 + random.exponential(0.02, 300)
    for drawn, modes, right in (
        (two, True, False),
        (tail, None, True),
        (random.normal(2, 1, 300), False, False),
    ):
        more = {"nulls": {"layer": {"n_cuts": [drawn.tolist()] * 2, "below_all": 1.0, "below_first": 1.0}}}
        for name, holds in (("mnist", modes), ("mnist-dropout", right)):
            entry = {"condition": name, "phase": "unpruned", "k": 4, **more}
            assert holds is None or cluster_checks._shape(entry)["holds"] == holds
            assert "shuffles have" in cluster_checks._shape(entry)["check"]


def test_both_kinds_of_shuffles_of_unpruned_networks_are_alike():
    for d, holds in ((-0.1, True), (0.8, False)):
        entries = [
            ("lines", "unpruned", 4, 2.4, {"cohens_d": reports.stat([d])}),
            ("lines", "pruned", 4, 2.0, {}),
        ]
        assert (
            judged(entries)["lines, unpruned, k=4: both kinds of shuffles are alike, d from -0.5 to 0.5"]
            == holds
        )


@pytest.mark.parametrize(("accuracy", "holds"), [(0.1, True), (0.3, False)])
def test_cifar10_is_not_learned_with_more_dropout(accuracy, holds):
    found = judged(both_phases("cifar10-dropout-0.5", 2.0), accuracy)
    assert found["cifar10-dropout-0.5: nothing is learned, accuracy from 8 to 12%"] == holds


def test_mixtures_are_judged_by_what_the_paper_has_of_them():
    paper = cluster_checks._paper_n_cuts()
    names = [name for name in (*published.MIXTURES, "mnist", "cifar10") if not name.endswith("-dropout")]
    found = judged([row for name in names for row in both_phases(name, paper[name])])
    said = {
        "the order of the mixtures is the paper's, correlation above 0.7",
        "mnist-cifar10-sep has the lower n-cut than mnist-cifar10",
        "lines-mnist-sep has the higher n-cut than lines-mnist",
        "lines-cifar10-sep lies below lines and cifar10",  # the paper's exception
        "lines-mnist lies between lines and mnist",
        "mnist-cifar10 lies below mnist and cifar10",
    }
    assert said <= found.keys() and all(found[statement] for statement in said)
    turned = judged([row for name in names for row in both_phases(name, 4 - paper[name])])
    assert not any(turned[statement] for statement in said if "between" not in statement)
    same = judged([row for name in names for row in both_phases(name, 2.0)])
    assert not any("order" in statement for statement in same)  # no rank where all are equal


def test_n_cuts_and_significance_are_judged_by_the_papers_numbers():
    assert cluster_checks._near_paper(ENTRY)["holds"]
    assert not cluster_checks._near_paper(ENTRY | {"n_cut": reports.stat([2.1, 2.1])})["holds"]
    assert cluster_checks._significant(ENTRY)["paper"] == "70%"
    for below, holds in ((0.3, False), (0.4, True), (1.0, True)):
        judged = cluster_checks._significant(ENTRY | {"nulls": {"layer": NULL | {"below_first": below}}})
        assert judged["holds"] == holds
