"""The paper's statements, held against numbers that are made up."""

from jaxmod import reports
from jaxmod.joined import checks
from jaxmod.joined.tables import describe


def measured(contrasts, density=(1e-4, 1e-3, 0.2, 1.0)):
    """Returns results with these values of the specialization, the same by each measure."""
    values = [[[[1 + c, 1 - c], [1 - c, 1 + c]]] for c in contrasts]
    good = [reports.stat([0.95, 0.93])] * len(density)
    return {
        "links": [max(1, round(10_000 * p)) for p in density],
        "density": list(density),
        "modularity": [0.5 - p / 2 for p in density],
        "measures": {name: describe(values) for name in checks.MEASURES},
        "accuracy": {"plain": good, "bottleneck": good, "links cut": [reports.stat([0.6])] * len(density)},
        "decided": {"plain": [reports.stat([0.5, 0.7])] * len(density)},
        "controls": None,
    }


def held(found):
    return {row["check"]: row["holds"] for row in checks.checks(found)}


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
    row = checks.checks(found)[0]
    assert not row["holds"] and row["ours"].startswith("4 of 8 networks reach 0.90; below: 0.890 (1 links)")


def test_one_sub_network_may_not_give_all_answers():
    found, statement = measured([0.8, 0.6, 0.1, 0.0]), "both sub-networks decide"
    assert held(found)[statement]
    found["decided"]["plain"] = [reports.stat([0.5, 0.99])] * 4
    row = {row["check"]: row for row in checks.checks(found)}[statement]
    assert not row["holds"] and row["ours"].endswith("in 4 of 8 networks")


def test_what_is_said_of_the_controls():
    found = measured([0.8, 0.6, 0.1, 0.0])
    found["accuracy"]["masked"] = [reports.stat([0.9])] * 4
    side = {"own": [reports.stat([0.95])]}
    controls = {
        **{"links": [1], "density": [1e-4], "Deep-R": [reports.stat([0.9])]},
        **{"no random walk": [reports.stat([0.89])], "fixed links": [reports.stat([0.7])]},
        "untrained share": reports.stat([0.68]),
        **{"untrained masks": reports.stat([0.5]), "untrained readouts": side, "readouts of all units": side},
        "top_q": [{"q": q, "own": reports.stat([own])} for q, own in ((0.02, 1.0), (0.05, 0.96), (0.1, 0.9))],
    }
    assert all(row["holds"] for row in checks._control_checks(controls, found))
    controls["fixed links"] = [reports.stat([0.85])]
    controls["top_q"][2]["own"] = reports.stat([0.96])
    judged = {row["check"]: row["holds"] for row in checks._control_checks(controls, found)}
    assert not judged["links at fixed random places, p <= 0.01"]
    assert not judged["the largest q whose masks lie in the own sub-network"]
    dense = checks._control_checks(controls | {"density": [0.5]}, found)
    assert not any("fixed random places" in row["check"] for row in dense)


def test_masks_at_p_of_one_stand_beside_those_of_untrained_networks():
    found = measured([0.8, 0.6, 0.1, 0.3])
    found["controls"] = {"untrained share": reports.stat([0.68])}
    row = checks._dense(found)[-1]
    assert row["ours"].endswith("; untrained networks 0.68") and not row["holds"]
