"""The whole experiment on tiny networks: the form of its results, resumption, and its statistics by hand."""

import dataclasses
import functools
import json
import types

import numpy as np
import pytest

import jaxmod as jm
from experiments import agreement, clusterability, lesions
from jaxmod import conditions, figures, pages, reports
from jaxmod.structure import cluster_figures, cohens_d, published

TINY = clusterability.Config(
    conditions=("digits-dropout",),
    ks=(3, 2),
    shuffles=3,
    seeds=2,
    initial=3,
    hidden=(10, 8),
    epochs=0.05,
)


@functools.cache
def results():
    found = clusterability.run(TINY)
    return json.loads(json.dumps({"experiment": "clusterability", "preset": "tiny", **found}))


def test_every_condition_phase_and_k_has_its_clusterings():
    entries = results()["clusterings"]
    assert [(e["condition"], e["phase"], e["k"]) for e in entries] == [
        (name, phase, k) for name in TINY.conditions for phase in conditions.PHASES for k in (3, 2)
    ]
    for entry in entries:
        assert len(entry["n_cut"]["runs"]) == 2
        assert 0 <= entry["n_cut"]["mean"] <= entry["k"]
        kinds = ["layer", "layer-nonzero"] if entry["k"] == 3 else ["layer"]
        assert list(entry["nulls"]) == kinds and (entry["cohens_d"] is not None) == (len(kinds) == 2)
        for null in entry["nulls"].values():
            drawn = np.array(null["n_cuts"])
            assert drawn.shape == (2, 3)
            assert null["mean"] == pytest.approx(drawn.mean())
            below = [(d < own).sum() for own, d in zip(entry["n_cut"]["runs"], drawn, strict=True)]
            assert null["p"] == [(1 + b) / 4 for b in below]
            assert null["below_all"] == np.mean([b == 0 for b in below])


def test_accuracies_are_of_both_phases():
    by_phase = results()["accuracy_by_phase"]
    assert list(by_phase) == list(TINY.conditions)
    for phases in by_phase.values():
        for values in phases.values():
            assert 0 <= values["test"]["mean"] <= 1 and len(values["train"]["runs"]) == 2


def test_tables_figures_and_report(tmp_path):
    tables = reports.tables(results())
    titles = [table.title for table in tables]
    assert titles[0] == "The paper's statements and ours"
    assert "Accuracy (%)" in titles and "Shuffles that keep the topology" in titles
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    paths = figures.draw_all(results(), tmp_path)
    assert {path.name for path in paths.values()} == {
        *("fig01_network.png", "fig02_n_cut_and_accuracy.png", "fig03_initial.png", "fig04_shuffles.png"),
        *("figA1_cohens_d.png", "violins_digits-dropout_unpruned.png", "violins_digits-dropout_pruned.png"),
    }
    (n_cuts,) = (table for table in tables if table.title.startswith("N-cuts"))
    assert "below 3" in n_cuts.header and "residual" in n_cuts.note  # 3 shuffles: no 32 to be the first
    assert all(path.stat().st_size > 5000 for path in paths.values())
    pages.write_report(results(), {}, paths, tmp_path / "report.html")
    assert "Figure 4 of the paper" in (tmp_path / "report.html").read_text()


def test_what_the_results_say_of_themselves():
    assert results()["notes"] == ["Data of digits-dropout: digits of scikit-learn."]
    assert results()["initial"]["sizes"] == [64, 10, 8] == clusterability.initial_sizes(TINY)
    first = dataclasses.replace(TINY, conditions=("mnist", "digits"))
    assert clusterability.initial_sizes(first) == [784, 10, 8]
    for entry in results()["clusterings"]:
        assert len(entry["clusters"]) == 2 and 2 <= max(entry["clusters"]) <= entry["k"]
        assert 0 <= entry["residual"] < 1e-4


def test_violins_have_the_paper_s_numbers_for_mnist_alone():
    entry = results()["clusterings"][0]
    names = {
        cluster_figures._violins(entry | {"condition": name, "phase": phase}).name
        for name in ("mnist", "mnist-dropout", "cifar10") for phase in conditions.PHASES
    }  # fmt: skip
    assert names == {
        *(f"figA{i}_violins" for i in (2, 3, 4, 5)), "violins_cifar10_unpruned", "violins_cifar10_pruned",
    }  # fmt: skip
    unpruned = cluster_figures._violins(entry | {"condition": "mnist-dropout", "phase": "unpruned"})
    assert unpruned.name == "figA3_violins" and unpruned.caption.startswith("Figure A.3 of the paper")


def test_kinds_of_shuffles_are_told_by_their_names_and_not_by_their_order():
    random = np.random.default_rng(0)
    own = [1.0, 1.0]
    drawn = {
        "layer": random.normal(2, 0.1, (2, 9)).tolist(),
        "layer-nonzero": [[1.5 + i / 9 for i in range(9)]] * 2,
    }
    given, turned = (
        clusterability.describe({"n_cuts": own, "nulls": {kind: drawn[kind] for kind in kinds}})
        for kinds in (("layer", "layer-nonzero"), ("layer-nonzero", "layer"))
    )
    assert given["cohens_d"] == turned["cohens_d"] and given["clusters"] is None  # a part of earlier days
    assert given["cohens_d"]["runs"][0] == pytest.approx(
        cohens_d(*map(np.array, [x[0] for x in drawn.values()]))
    )
    row, other = (
        clusterability._effect_table([{"condition": "lines", "phase": "pruned"} | entry])["rows"][0]
        for entry in (given, turned)
    )
    assert row == other and row[3] == given["nulls"]["layer"]["mean"]


def test_shuffles_that_are_all_equal_cost_no_results():
    equal = {"layer": [[2.0] * 3, [0.1] * 3], "layer-nonzero": [[2.0] * 3, [0.1] * 3]}
    found = clusterability.describe({"n_cuts": [2.0, 0.1], "nulls": equal})
    assert found["cohens_d"] is None
    json.dumps(found, allow_nan=False)


def test_the_picture_is_drawn_once_and_of_the_last_condition(monkeypatch):
    drawn = []
    stat = reports.stat([0.5])
    accuracy = {phase: {"train": stat, "test": stat} for phase in conditions.PHASES}
    monkeypatch.setattr(conditions, "load", lambda _: types.SimpleNamespace(source="made up"))
    networks = types.SimpleNamespace(
        params={phase: {"output": {"kernel": np.ones((1, 4, 3))}} for phase in conditions.PHASES}
    )
    monkeypatch.setattr(conditions, "train_networks", lambda *_: networks)
    monkeypatch.setattr(clusterability, "measure_accuracy", lambda *_: accuracy)
    monkeypatch.setattr(clusterability, "cluster_networks", lambda *_: {"n_cuts": [0.5], "nulls": {}})
    monkeypatch.setattr(clusterability, "draw_network", lambda name, *_: drawn.append(name))
    config = dataclasses.replace(TINY, conditions=("digits", "mnist", "lines"), seeds=1, initial=0)
    clusterability.run(config)
    assert drawn == ["lines"]


def test_a_run_that_was_stopped_computes_no_part_twice(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    asked = []

    def stop(config, graphs, phase, k):
        asked.append((phase, k))
        if len(asked) == 3:
            raise Stop
        return {"n_cuts": [len(asked) / 7, 0.5], "nulls": {}}

    monkeypatch.setattr(clusterability, "cluster_networks", stop)
    monkeypatch.setattr(clusterability, "draw_network", lambda *_: None)
    monkeypatch.setattr(clusterability, "cluster_initial", lambda _: [1.0])
    with jm.Workdir.open(tmp_path, {}) as workdir, pytest.raises(Stop):
        clusterability.run(TINY, workdir)
    with jm.Workdir.open(tmp_path, {}) as workdir:
        again = clusterability.run(TINY, workdir)
    # Three before the stop, of which two were finished; then the third again and the fourth.
    assert len(asked) == 3 + 2
    kept = [entry["n_cut"]["runs"][0] for entry in again["clusterings"]]
    assert kept == [i / 7 for i in (1, 2, 4, 5)]


def test_without_shuffles_only_the_networks_are_clustered():
    config = dataclasses.replace(TINY, shuffles=0, initial=0)
    found = clusterability.run(config)
    assert all(not entry["nulls"] and entry["cohens_d"] is None for entry in found["clusterings"])
    assert found["initial"] is None
    reports.summary(found)


def test_the_papers_numbers_stand_beside_ours():
    stat = reports.stat([2.0, 2.02])
    null = {
        "n_cuts": [[2.1, 2.2], [2.1, 2.0]],
        "mean": 2.1,
        "std": 0.07,
        "below_all": 0.5,
        "below_first": 0.5,
    }
    entry = {"condition": "mnist", "phase": "pruned", "k": 4, "n_cut": stat, "nulls": {"layer": null}}
    row = clusterability._n_cut_table([entry | {"cohens_d": None}])["rows"][0]
    assert row[4:] == ["2.000 ± 0.035", "2.100 ± 0.070", "2.042 ± 0.017", "0.5", "0.5", "0.7"]
    assert clusterability._near_paper(entry)["holds"]
    assert not clusterability._near_paper(entry | {"n_cut": reports.stat([2.1, 2.1])})["holds"]
    assert clusterability._significant(entry)["paper"] == "70%"
    for below, holds in ((0.3, False), (0.4, True), (1.0, True)):
        judged = clusterability._significant(entry | {"nulls": {"layer": null | {"below_first": below}}})
        assert judged["holds"] == holds


def test_published_numbers_are_complete():
    main = ("mnist", "mnist-dropout", "fashion_mnist", "fashion_mnist-dropout", "cifar10", "cifar10-dropout")
    assert all((name, k) in published.SHUFFLED for name in main for k in (2, 4, 7, 10))
    assert set(published.ACCURACY) >= {*main, *published.MIXTURES}
    assert {name for name, _ in published.SHUFFLED} | set(published.MIXTURES) <= set(conditions.CONDITIONS)
    assert all((name, phase) in published.EFFECT for name in main for phase in conditions.PHASES)
    assert published.SHUFFLED["fashion_mnist-dropout", 10] == (1.0, 6.460, 0.041, 7.339, 0.034)
    assert published.SHUFFLED["cifar10", 4] == (0.1, 2.06, 0.14, 2.001, 0.017)
    assert published.SHUFFLED["memorization", 4] == (1.0, 1.880, 0.017, 2.008, 0.014)
    assert published.UNPRUNED["kilo-epoch-dropout"] == (2.329, 0.020)
    assert published.MIXTURES["lines-mnist-sep-dropout"] == (1.517, 0.020)
    assert published.ACCURACY["lines-dropout"] == (0.913, 0.312)
    assert published.EFFECT["fashion_mnist-dropout", "pruned"] == 14.89


@pytest.mark.parametrize("preset", clusterability.PRESETS)
def test_presets_are_valid(preset, monkeypatch):
    loaded = types.SimpleNamespace(x_train=range(60_000))
    monkeypatch.setattr(conditions, "load", lambda condition: loaded)
    clusterability.validate(clusterability.PRESETS[preset])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": ()}, "conditions='': expected one of"),
        ({"conditions": ("mnits",)}, "conditions='mnits': expected one of mnist,"),
        ({"nulls": ("layers",)}, "nulls='layers': expected one of layer,"),
        ({"nulls": ()}, "nulls=''"),
        ({"ks": (1,)}, "ks=1: expected 2 clusters or more"),
        ({"ks": ()}, "ks=: expected one or more numbers above 0"),
        ({"shuffles": -1}, "shuffles=-1: expected 0 or more"),
        ({"sparsity": 0.3}, "sparsity=0.3: expected 0.5"),
        ({"seeds": 0}, "seeds=0: expected a number above 0"),
        ({"conditions": ("digits", "digits")}, "conditions=digits,digits: expected each of them once"),
        ({"nulls": ("layer", "layer")}, "nulls=layer,layer: expected each of them once"),
        ({"ks": (3, 2, 3)}, "ks=3,2,3: expected each of them once"),
        ({"ks": (2, 92)}, "ks=92: expected 2 clusters or more, and fewer than the 92 neurons of digits"),
        ({"epochs": 1e6}, "epochs=1000000.0: DenseConfig: steps="),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        clusterability.validate(dataclasses.replace(TINY, **changes))


@pytest.mark.parametrize(
    ("experiment", "field"),
    [(clusterability, "conditions"), (agreement, "conditions"), (lesions, "condition")],
)
def test_data_that_are_not_there_are_missed_before_any_work(experiment, field, monkeypatch, tmp_path):
    monkeypatch.setattr("jaxmod.data.sources.read_tfds", lambda *_, **__: None)
    given = "mnist" if field == "condition" else ("mnist",)
    config = dataclasses.replace(experiment.PRESETS["quick"], **{field: given})
    for folder, message in ((tmp_path, "mnist is not on this computer"), (tmp_path / "no", "not a folder")):
        monkeypatch.setenv("JAXMOD_DATA", str(folder))
        with pytest.raises(ValueError, match=message):
            experiment.validate(config)


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
    held = {row["check"]: row["holds"] for row in clusterability.checks(made)}
    assert held["pruning lowers the n-cut"] and held["so does dropout, pruned or not"]
    assert held["mnist, pruned, k=4: mean n-cut within two sd of the paper's"]
    assert "mnist, pruned, k=4: n-cut and accuracy are unrelated" in held
    untrained = "all untrained networks lie in the paper's range"
    assert not held[untrained]
    made["initial"]["n_cuts"] = [2.299, 2.4]
    assert not {row["check"]: row["holds"] for row in clusterability.checks(made)}[untrained]
    made["initial"]["n_cuts"] = [2.301, 2.449]
    assert {row["check"]: row["holds"] for row in clusterability.checks(made)}[untrained]
    made["clusterings"][3] = entry("mnist-dropout", "pruned", 2.3)
    held = {row["check"]: row["holds"] for row in clusterability.checks(made)}
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
    return {row["check"]: row["holds"] for row in clusterability.checks(results)}


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
            assert holds is None or clusterability._shape(entry)["holds"] == holds
            assert "shuffles have" in clusterability._shape(entry)["check"]


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
    paper = clusterability._paper_n_cuts()
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
