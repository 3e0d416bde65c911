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
from jaxmod.models import SubNetworks

TINY = specialization.Config(
    dataset="digits",
    links=(1, 20, 64),
    seeds=2,
    hidden=8,
    bottleneck=3,
    epochs=1,
    bottleneck_epochs=1,
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


def test_the_graph_of_a_step_has_both_sub_networks_and_the_links():
    weights = {
        "net_0": {"recurrent": {"kernel": np.array([[1.0]])}},
        "net_1": {"recurrent": {"kernel": np.array([[-2.0]])}},
        "links": {"to_0": {"kernel": np.array([[3.0]])}, "to_1": {"kernel": np.array([[-4.0]])}},
    }
    # From unit 0 to unit 1 leads the link to sub-network 1.
    np.testing.assert_array_equal(specialization.step_weights(weights), [[1, 4], [3, 2]])


def measured(contrasts, density=(1e-4, 1e-3, 0.2, 1.0)):
    """Returns results with these values of the specialization, the same by each measure."""
    values = [[[[1 + c, 1 - c], [1 - c, 1 + c]]] for c in contrasts]
    good = [reports.stat([0.95, 0.93])] * len(density)
    return {
        "links": [max(1, round(10_000 * p)) for p in density],
        "density": list(density),
        "modularity": [0.5 - p / 2 for p in density],
        "measures": {name: specialization.describe(values) for name in specialization.MEASURES},
        "accuracy": {"plain": good, "bottleneck": good, "links cut": [reports.stat([0.6])] * len(density)},
        "decided": {"plain": [reports.stat([0.5, 0.7])] * len(density)},
        "controls": None,
    }


def held(found):
    return {row["check"]: row["holds"] for row in specialization.checks(found)}


def test_what_is_said_of_the_measures():
    found = held(measured([0.8, 0.6, 0.1, 0.0]))
    rises, only = "bottleneck: specialization rises with Q", "bottleneck: rises only below p = 0.01"
    assert found[rises] and found[only] and found["p = 0.20: little or no specialization"]
    found = held(measured([0.8, 0.75, 0.3, 0.0]))
    assert found[rises] and not found[only] and not found["p = 0.20: little or no specialization"]
    found = held(measured([0.0, 0.1, 0.2, 0.3]))
    assert not found[rises] and not found[only]
    constant = held(measured([0.5] * 4))
    assert not constant[rises] and not constant[only]
    dense = held(measured([0.4, 0.2, 0.1], density=(0.1, 0.3, 1.0)))
    assert only not in dense  # nothing was measured below 0.01


def test_every_network_has_to_perform_the_task():
    found, statement = measured([0.8, 0.6, 0.1, 0.0]), "every network performs the task"
    assert held(found)[statement]
    found["accuracy"]["plain"] = [reports.stat([0.99, 0.89])] * 4  # their mean is above 0.9
    row = specialization.checks(found)[0]
    assert not row["holds"] and row["ours"].startswith("4 of 8 networks reach 0.90; below: 0.890 (1 links)")


def test_one_sub_network_may_not_give_all_answers():
    found, statement = measured([0.8, 0.6, 0.1, 0.0]), "both sub-networks decide"
    assert held(found)[statement]
    found["decided"]["plain"] = [reports.stat([0.5, 0.99])] * 4
    row = {row["check"]: row for row in specialization.checks(found)}[statement]
    assert not row["holds"] and row["ours"].endswith("in 4 of 8 networks")


def test_what_is_said_of_the_controls():
    found = measured([0.8, 0.6, 0.1, 0.0])
    found["accuracy"]["masked"] = [reports.stat([0.9])] * 4
    side = {"own": [reports.stat([0.95])]}
    controls = {
        **{"links": [1], "density": [1e-4], "Deep-R": [reports.stat([0.9])]},
        **{"no random walk": [reports.stat([0.89])], "fixed links": [reports.stat([0.7])]},
        **{"untrained masks": reports.stat([0.5]), "untrained readouts": side, "readouts of all units": side},
        "top_q": [{"q": q, "own": reports.stat([own])} for q, own in ((0.02, 1.0), (0.05, 0.96), (0.1, 0.9))],
    }
    assert all(row["holds"] for row in specialization._control_checks(controls, found))
    controls["fixed links"] = [reports.stat([0.85])]
    controls["top_q"][2]["own"] = reports.stat([0.96])
    judged = {row["check"]: row["holds"] for row in specialization._control_checks(controls, found)}
    assert not judged["links at fixed random places, p <= 0.01"]
    assert not judged["the largest q whose masks lie in the own sub-network"]
    dense = specialization._control_checks(controls | {"density": [0.5]}, found)
    assert not any("fixed random places" in row["check"] for row in dense)


def test_undefined_networks_are_left_out():
    nothing = [[0.0, 0.0], [1.0, 1.0]]  # neither mask keeps a weight of the first sub-network
    some = [[0.75, 0.25], [0.25, 0.75]]
    found = specialization.describe([[some, nothing], [nothing, nothing], [some, [[None, 1.0], [0.0, 1.0]]]])
    assert found["undefined"] == [1, 2, 1]
    assert found["contrast"][0]["runs"] == found["contrast"][2]["runs"] == [0.5]
    assert found["contrast"][1] is None
    assert found["own"][1]["runs"] == [0.5, 0.5] and found["own"][2]["runs"] == [0.75]


def test_a_study_with_undefined_networks_can_be_shown(results, tmp_path):
    found = results["specialization"]
    gone = found["measures"]["mask"] | {"contrast": [None, *found["measures"]["mask"]["contrast"][1:]]}
    changed = found | {"measures": found["measures"] | {"mask": gone}}
    shown = results | {"experiment": "specialization", "specialization": changed}
    shown |= {"tables": specialization.tables(changed), "checks": specialization.checks(changed)}
    reports.summary(shown)
    assert len(figures.draw_all(shown, tmp_path)) == 4


def test_undefined_numbers_are_none():
    assert specialization._listed(np.array([[1.0, np.nan]])) == [[1.0, None]]
