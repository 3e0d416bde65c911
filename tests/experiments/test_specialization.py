"""`experiments.specialization` at tiny size: every part of the results, the same when resumed."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from experiments import specialization
from jaxmod import figures, reports
from jaxmod.data.images import load_images
from jaxmod.joined.checks import checks
from jaxmod.joined.tables import tables
from jaxmod.models import SubNetworks

TINY = specialization.Config(
    dataset="digits",
    links=(1, 20, 64),
    seeds=2,
    hidden=8,
    bottleneck=3,
    epochs=1,
    bottleneck_epochs=1,
    passes=1,
    batch_size=64,
    mask_repeats=1,
    readout_epochs=1,
    readout_repeats=1,
    top_qs=(0.5, 1.0),
    gumbel_seeds=1,
    gumbel_steps=4,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specialization")
    with jm.Workdir.open(folder, {"experiment": "specialization"}) as workdir:
        found = specialization.run(TINY, workdir)
        # What was measured is gone, what was trained is there: everything is as before.
        shutil.rmtree(folder / "parts")
        assert specialization.run(TINY, workdir) == found
    like = SubNetworks(TINY.hidden).init(jax.random.key(0), jnp.zeros((1, 2, 64)))["params"]
    masks = jm.load_masks(folder / "masks.npz", like)
    assert {"masks, 64 links, digit 1", "masks, q=0.5, digit 0", "Gumbel-sigmoid masks, digit 0"} <= set(
        masks
    )
    return found


def test_every_measure_of_every_number_of_links(results):
    found = results["specialization"]
    assert found["density"] == [1 / 64, 20 / 64, 1.0]
    assert set(found["measures"]) == {"bottleneck", "mask", "correlation", "cka", "gumbel"}
    for name, measure in found["measures"].items():
        runs = 1 if name == "gumbel" else 2
        assert [len(s["runs"]) for s in measure["contrast"]] == [runs] * 3


def test_links_are_as_many_as_asked_for(results):
    found = results["specialization"]
    for count, runs, q, expected in zip(
        TINY.links,
        found["realised"]["counts"],
        found["realised"]["modularity"],
        found["modularity"],
        strict=True,
    ):
        np.testing.assert_array_equal(runs, count)
        np.testing.assert_allclose(q, expected, rtol=1e-9)


def test_shares_of_masks_sum_to_one(results):
    measure = results["specialization"]["measures"]["mask"]
    # M(0, k) + M(1, k) = 1, so the mean over n of own and other is 1.
    for own, other in zip(measure["own"], measure["other"], strict=True):
        np.testing.assert_allclose(np.add(own["runs"], other["runs"]), 1, atol=1e-6)


def test_the_n_cut_of_the_sub_networks_is_that_of_the_links(results):
    cuts = results["specialization"]["n_cut"]
    means = [s["mean"] for s in cuts["own"]]
    assert means == sorted(means) and 0 < means[0] < means[-1] < 2


def test_controls_are_beside_the_real_thing(results):
    controls = results["specialization"]["controls"]
    assert controls["links"] == [1]
    assert controls["Deep-R"][0]["runs"] == results["specialization"]["accuracy"]["plain"][0]["runs"]
    assert [row["q"] for row in controls["top_q"]] == [0.5, 1.0]
    np.testing.assert_allclose(controls["top_q"][1]["own"]["mean"], 0.5)  # all is kept


def test_tables_figures_and_checks_can_be_shown(results, tmp_path):
    shown = results | {"experiment": "specialization"}
    assert "Specialization" in reports.summary(shown)
    paths = figures.draw_all(shown, tmp_path)
    assert len(paths) == 4 and all(path.stat().st_size > 5000 for path in paths.values())


@pytest.mark.slow
def test_a_network_is_the_same_whatever_other_links_are_asked_for(results):
    alone = specialization.run(dataclasses.replace(TINY, links=(20,), controls=False, gumbel_seeds=0))[
        "specialization"
    ]
    together = results["specialization"]
    np.testing.assert_allclose(
        alone["accuracy"]["plain"][0]["runs"], together["accuracy"]["plain"][1]["runs"], atol=0.03
    )
    np.testing.assert_allclose(
        alone["measures"]["mask"]["own"][0]["runs"], together["measures"]["mask"]["own"][1]["runs"], atol=0.1
    )
    assert alone["n_cut"]["found"][0]["runs"] == pytest.approx(
        together["n_cut"]["found"][1]["runs"], abs=1e-3
    )
    np.testing.assert_allclose(
        alone["measures"]["correlation"]["own"][0]["runs"],
        together["measures"]["correlation"]["own"][1]["runs"],
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"links": (-1,)}, "links=-1: expected one or more numbers, 0 or above"),
        ({"links": ()}, "links=: expected one or more"),
        ({"links": (1, 65)}, "links=65: 8 units have 64 each way"),
        ({"links": (3, 3)}, "each number once"),
        ({"links": (20, 1)}, "links=20,1: .* the fewest links first"),
        ({"epochs": 10**8}, "more than 2\\*\\*32 examples"),
        ({"bottleneck_epochs": 10**8}, "more than 2\\*\\*32 examples"),
        ({"batch_size": 66}, "num_samples=4 does not divide batch_size=66"),
        ({"top_qs": (0.5, 1e-4)}, "q=0.0001 of 324 masked weights keeps none"),
        ({"top_q": 0.0}, "q must be above 0"),
        ({"dataset": "cifar10"}, "dataset"),
        ({"target_rule": "parity"}, "target_rule"),
        ({"noise": -1.0}, "noise=-1.0: expected 0 or more"),
        ({"gumbel_seeds": 3}, "there are only 2 networks"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_values_that_cannot_work_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        specialization.validate(dataclasses.replace(TINY, **changes))


def test_presets_are_valid_but_for_their_data(monkeypatch):
    monkeypatch.setattr(specialization, "load_images", lambda name: load_images("digits"))
    for config in specialization.PRESETS.values():
        specialization.validate(config)


def test_a_study_with_undefined_networks_can_be_shown(results, tmp_path):
    found = results["specialization"]
    gone = found["measures"]["mask"] | {"contrast": [None, *found["measures"]["mask"]["contrast"][1:]]}
    changed = found | {"measures": found["measures"] | {"mask": gone}}
    shown = results | {"experiment": "specialization", "specialization": changed}
    shown |= {"tables": tables(changed), "checks": checks(changed)}
    reports.summary(shown)
    assert len(figures.draw_all(shown, tmp_path)) == 4


def test_undefined_numbers_are_none():
    assert specialization._listed(np.array([[1.0, np.nan]])) == [[1.0, None]]
