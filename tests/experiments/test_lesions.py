"""The lesion experiment at toy size: the whole chain, its figures, and that a stopped run goes on."""

import dataclasses
import json
import types

import numpy as np
import pytest

import jaxmod as jm
from experiments import lesions
from jaxmod import conditions, files, reports
from jaxmod.figures import draw_all
from jaxmod.structure.importance import Double, Single

TINY = lesions.Config(condition="digits", hidden=(12, 10), epochs=0.15, k=3, seeds=2, double_controls=50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lesions")


@pytest.fixture(scope="module")
def results(folder):
    with jm.Workdir.open(folder, dataclasses.asdict(TINY)) as workdir:
        return lesions.run(TINY, workdir)


def test_results_have_the_figures_numbers_and_are_plain(results, tmp_path):
    files.write_json(tmp_path / "results.json", {"experiment": "lesions", **results})
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["runs"] == len(stored["lesions"]) == 2
    for study in stored["lesions"]:
        modules = len(study["single"])
        assert 2 <= modules <= 6 and len(study["double"]) == modules * (modules - 1) // 2
    assert len(stored["checks"]) == 7
    assert stored["notes"][-1] == "Data of digits: digits of scikit-learn."
    titles = [table.title for table in reports.tables(stored)]
    assert "Single lesions of network 1 (table A.18)" in titles
    assert len(draw_all(stored, tmp_path)) >= 4


def test_networks_differ_and_a_lesion_is_that_of_the_cluster(results, folder):
    first, second = results["lesions"]
    assert first["single"] != second["single"]
    labels = json.loads((folder / "parts" / "network 0, clusters.json").read_text())["value"]["labels"]
    for single in first["single"]:
        layer, cluster = map(int, single["name"].split("-"))
        ids = np.array(labels[layer])
        assert single["neurons"] == np.sum(ids == cluster)
        assert single["proportion"] == np.sum(ids == cluster) / np.sum(ids >= 0)


def test_each_double_lesion_counts_the_single_ones(results):
    for study in results["lesions"]:
        drop = {single["name"]: single["drop"] for single in study["single"]}
        for row in study["double"]:
            pair = Double(**row)
            assert pair.drop == pytest.approx(pair.delta_x + drop[pair.y])
            assert pair.drop == pytest.approx(pair.delta_y + drop[pair.x])


def test_a_stopped_run_goes_on_with_the_part_that_is_missing(results, folder, monkeypatch):
    parts = sorted((folder / "parts").iterdir())
    missing = [path for path in parts if "pairs with" in path.name][-1]
    missing.unlink()
    monkeypatch.setattr(lesions, "single_lesions", None)  # would be called if it were computed again
    with jm.Workdir.open(folder, dataclasses.asdict(TINY)) as workdir:
        again = lesions.run(TINY, workdir)
    assert json.dumps(again) == json.dumps(results)
    assert missing.exists()


@pytest.mark.parametrize("kind", [None, "complete"])
def test_networks_without_sub_modules_or_with_whole_layers_alone(kind, tmp_path):
    row = Single("1-0", 0.5, 1 / 101, 1.0, 10, 1.0, "complete", 0.5, 0.0)._asdict()
    study = {"accuracy": 0.1, "n_cut": 0.0, "single": [row] * (kind is not None), "double": [], "edges": []}
    checks = lesions.checks([study])
    assert len(checks) == 7 and not checks[1]["holds"] == (kind is None) and not checks[3]["holds"]
    stored = {"experiment": "lesions", "lesions": [study], "tables": lesions.tables([study])}
    assert len(draw_all(stored, tmp_path)) == (kind is not None)


def test_important_pairs_are_of_two_layers():
    config = dataclasses.replace(TINY, pairs="important")
    found = lesions.sub_modules([np.zeros(3, int), np.arange(4) % 2, np.arange(4) % 2, np.zeros(2, int)])
    pairs = lesions.choose_pairs(config, found, {"1-0", "1-1", "2-0"})
    assert [(x.name, y.name) for x, y in pairs] == [("1-0", "2-0"), ("1-1", "2-0")]
    assert len(lesions.choose_pairs(TINY, found, set())) == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"condition": "fashion-mnist"}, "condition='fashion-mnist': expected one of fashion_mnist"),
        ({"pairs": "none"}, "pairs='none': expected one of all, important"),
        ({"controls": 50}, "controls=50: expected 100 or more"),
        ({"double_controls": 49}, "double_controls=49: expected 50 or more"),
        ({"k": 1}, "k=1: expected 2 clusters or more"),
        ({"condition": "digits", "hidden": (6,), "k": 80}, "k=80: expected .* fewer than the 80 neurons"),
        ({"condition": "digits", "epochs": 1e6}, "epochs=1000000.0: "),
        ({"hidden": ()}, "hidden"),
        ({"seeds": 0}, "seeds=0"),
    ],
)
def test_impossible_values_are_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        lesions.validate(dataclasses.replace(lesions.Config(), **values))


@pytest.mark.parametrize("preset", lesions.PRESETS)
def test_presets_are_possible(preset, monkeypatch):
    loaded = types.SimpleNamespace(x_train=range(60_000))
    monkeypatch.setattr(conditions, "load", lambda condition: loaded)
    lesions.validate(lesions.PRESETS[preset])
