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
from jaxmod.structure import cluster_figures

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
