"""The whole experiment on tiny networks: the form of its results, resumption, and its statistics by hand."""

import dataclasses
import functools
import json

import numpy as np
import pytest

import jaxmod as jm
from experiments import agreement, clusterability, lesions
from jaxmod import conditions, figures, pages, reports
from jaxmod.structure import published

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
        *("figA1_cohens_d.png", "figA2_violins.png", "figA3_violins.png"),
    }
    assert all(path.stat().st_size > 5000 for path in paths.values())
    pages.write_report(results(), {}, paths, tmp_path / "report.html")
    assert "Figure 4 of the paper" in (tmp_path / "report.html").read_text()


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
    assert clusterability._significant(entry)["holds"]  # 0.5 of two networks, 0.7 of ten


def test_published_numbers_are_complete():
    main = ("mnist", "mnist-dropout", "fashion_mnist", "fashion_mnist-dropout", "cifar10", "cifar10-dropout")
    assert all((name, k) in published.SHUFFLED for name in main for k in (2, 4, 7, 10))
    assert set(published.ACCURACY) >= {*main, *published.MIXTURES}
    assert {name for name, _ in published.SHUFFLED} | set(published.MIXTURES) <= set(conditions.CONDITIONS)
    assert all((name, phase) in published.EFFECT for name in main for phase in conditions.PHASES)


@pytest.mark.parametrize("preset", clusterability.PRESETS)
def test_presets_are_valid(preset, monkeypatch):
    monkeypatch.setattr(conditions, "load", lambda condition: None)
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
    assert not held["untrained networks"]
    made["clusterings"][3] = entry("mnist-dropout", "pruned", 2.3)
    held = {row["check"]: row["holds"] for row in clusterability.checks(made)}
    assert not held["pruning lowers the n-cut"] and not held["so does dropout, pruned or not"]
    assert not held["mnist-dropout, pruned, k=4: mean n-cut within two sd of the paper's"]
