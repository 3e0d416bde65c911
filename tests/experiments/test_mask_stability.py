"""Mask stability at toy size: what is changed and what is not, IoU and chance by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from experiments import mask_stability
from jaxmod import figures, files, find, reports
from jaxmod.data.images import load_images
from jaxmod.vision import study

TINY = mask_stability.Config(
    dataset="digits",
    channels=(3, 4),
    pairs=2,
    seeds=2,
    network_steps=4,
    mask_steps=6,
    mask_learning_rate=0.5,
    batch_size=16,
    num_samples=2,
    chunk_steps=6,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the results, the arguments of each training of masks, and what it found."""
    trainings, find_modules = [], find.find_modules

    def remember(*args, **options):
        found = find_modules(*args, **options)
        trainings.append((args, options, found))
        return found

    folder = tmp_path_factory.mktemp("stability")
    with pytest.MonkeyPatch.context() as patch, jm.Workdir.open(folder, {}) as workdir:
        patch.setattr(jm, "find_modules", remember)
        results = mask_stability.run(TINY, workdir)
        files.write_json(folder / "results.json", results)
        assert mask_stability.run(TINY, workdir) == results  # nothing is trained anew
    return results, trainings[: len(TINY.changes) + 1]


def test_every_change_has_its_numbers(trained, tmp_path):
    results, _ = trained
    assert tuple(results["stability"]) == TINY.changes
    for of in results["stability"].values():
        assert len(of["IoU"]["runs"]) == 4  # networks times pairs
        assert 0 < of["chance"]["mean"] < of["IoU"]["mean"] < 1
        assert of["IoU"] != of["IoU, hidden layers"]
    assert "What two masks have in common" in reports.summary(results)
    (path,) = figures.draw_all(results | {"experiment": "mask_stability"}, tmp_path).values()
    assert path.stat().st_size > 5000


def test_one_thing_is_changed_at_a_time(trained):
    _, (first, *others) = trained
    (_, _, rows), options, _ = first
    for change, ((_, _, other), changed, _) in zip(TINY.changes, others, strict=True):
        same_keys = (jax.random.key_data(changed["keys"]) == jax.random.key_data(options["keys"])).all()
        assert same_keys == (change != "order and noise")
        assert (changed["estimator"] is options["estimator"]) == (change != "noise")
        assert changed["config"].steps == options["config"].steps * (2 if change == "twice the steps" else 1)
        for name in rows:
            assert (rows[name] == other[name]).all() == (change != "order")
            np.testing.assert_array_equal(np.sort(rows[name]), np.sort(other[name]))


def test_iou_and_chance_are_those_of_counts(key):
    a, b = (
        {"params": {"conv": {"kernel": jax.random.bernoulli(k, 0.6, (1, 40))}, "output": {"kernel": m}}}
        for k, m in zip(jax.random.split(key), (jnp.ones((1, 5), bool),) * 2, strict=True)
    )
    found = mask_stability.compare(a, b)
    x, y = (np.asarray(m["params"]["conv"]["kernel"][0]) for m in (a, b))
    assert found["IoU, hidden layers"] == pytest.approx([(x & y).sum() / (x | y).sum()])
    assert found["IoU"] == pytest.approx([((x & y).sum() + 5) / ((x | y).sum() + 5)])
    expected = x.sum() * y.sum() / 40
    assert found["chance, hidden layers"] == pytest.approx([expected / (x.sum() + y.sum() - expected)])
    assert found["weights"] == [x.sum() + 5]


def test_pairs_are_different_ones_and_the_same_every_time():
    config = dataclasses.replace(TINY, pairs=90)
    pairs = mask_stability.draw_pairs(config)
    assert len(set(pairs)) == 90 and all(a != b for a, b in pairs)
    assert pairs == mask_stability.draw_pairs(config)
    assert pairs != mask_stability.draw_pairs(dataclasses.replace(config, seed=1))


def test_masks_are_those_of_the_estimator_that_is_asked_for(monkeypatch):
    class Asked(Exception):  # noqa: N818
        pass

    def find_modules(*args, **options):
        raise Asked(options["estimator"].name)

    monkeypatch.setattr(jm, "find_modules", find_modules)
    config = dataclasses.replace(TINY, estimator="hard_concrete", noise="jax")
    data = study.load_data(config)
    functions = study.functions_of(config, data)
    for change, expected in (("", jm.hard_concrete(noise="jax")), ("noise", jm.hard_concrete())):
        with pytest.raises(Asked) as asked:
            mask_stability.find_masks(
                config, functions, None, data, [(0, 1)], jax.random.split(jax.random.key(0), 2), change,
                stage=None, progress=False,
            )  # fmt: skip
        assert str(asked.value) == expected.name


@pytest.mark.parametrize(("iou", "holds"), [(0.9, True), (0.8, False)])
def test_what_is_said_of_the_iou(iou, holds):
    of = {"IoU": reports.stat([iou]), "chance": reports.stat([0.4])}
    (row,) = mask_stability.checks({"stability": {"order and noise": of}})
    assert row["holds"] == holds
    of["chance"] = reports.stat([0.95])  # masks that keep nearly everything say nothing
    (row,) = mask_stability.checks({"stability": {"order and noise": of}})
    assert not row["holds"]


@pytest.mark.parametrize("preset", mask_stability.PRESETS)
def test_presets_are_valid_but_for_their_data(preset, monkeypatch):
    monkeypatch.setattr(study, "load_images", lambda name: load_images("digits"))
    mask_stability.validate(dataclasses.replace(mask_stability.PRESETS[preset], channels=(4, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": 91}, "pairs=91: ten classes have 90 ordered pairs"),
        ({"pairs": 0}, "pairs=0"),
        ({"changes": ("sleep",)}, "changes='sleep': expected one of"),
        ({"changes": ()}, "changes=''"),
        ({"dataset": "cifar"}, "dataset='cifar'"),
        ({"channels": (4,) * 5}, "SimpleCNN"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=16"),
        ({"estimator": "edge_popup"}, "masks of estimator=edge_popup have no noise"),
        ({"estimator": "edge"}, "estimator='edge': expected one of gumbel_sigmoid, edge_popup"),
    ],
)
def test_values_that_cannot_work_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        mask_stability.validate(dataclasses.replace(TINY, **changes))
