"""Tables of the Mathematics Dataset: each number in its place."""

from jaxmod.language import mathematics_tables
from jaxmod.reports import stat


def study(**groups):
    def share(value):
        return {label: {"shared": stat([value]), "expected": stat([value / 2])} for label in ("a", "total")}

    names = ("no mask", "control", "easy")
    return {
        "accuracy": {name: {g: stat([x]) for g, x in groups.items()} for name in names},
        "density": {
            "control": {"a": stat([0.5]), "total": stat([0.4])},
            "easy": {"a": stat([0.3]), "total": stat([0.2])},
        },
        "layers": ["a"],
        "sharing": {"remaining": share(0.6), "easy mask in control": share(0.8)},
        "broken": [{"question": "Sort 2, 1.", "expected": "1, 2", "easy mask": "2, 1"}],
    }


def test_tasks_stand_below_each_other():
    tables = mathematics_tables.tables({"sort": study(easy=0.9, hard=0.5), "collect": study(easy=0.7)})
    accuracy, shares, broken = tables
    assert accuracy["header"] == ["task", "weights in use", "easy", "hard", "kept"]
    means = [[*row[:2], *(x and x["mean"] for x in row[2:])] for row in accuracy["rows"]]
    assert means[1] == ["sort", "control", 90, 50, 40] and means[3] == ["collect", "no mask", 70, None, None]
    assert [x["mean"] for x in shares["rows"][0][2:]] == [50, 30, 60, 30, 80, 40]
    assert [row[:2] for row in shares["rows"]] == [
        [t, x] for t in ("sort", "collect") for x in ("a", "total")
    ]
    assert broken["rows"][1] == ["collect", "Sort 2, 1.", "1, 2", "2, 1"]
