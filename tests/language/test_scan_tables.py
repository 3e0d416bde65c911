"""Tables of SCAN: each number in its place."""

from jaxmod.language import scan_tables
from jaxmod.reports import stat


def test_accuracies_stand_under_their_splits():
    found = {
        "splits": ["jump"],
        "accuracy": {
            "control": {"simple": stat([0.9]), "jump": stat([0.8])},
            "direct jump": {"simple": stat([0.3]), "jump": stat([0.1])},
        },
        "learned": {"control": stat([0.95]), "direct jump": stat([0.7])},
        "density": {"control": {"output": stat([0.5]), "total": stat([0.25])}},
        "layers": ["output"],
        "tokens": ["I_JUMP", "END"],
        "removed": {"jump": [stat([40.0]), None]},
        "sharing": {
            "jump": {
                **{"shared": {"total": stat([0.6])}, "by chance": {"total": stat([0.2])}, "z": stat([5.0])},
                **{"shared in control": stat([0.7]), "by chance in control": stat([0.4])},
                "z in control": stat([3.0]),
            }
        },
        "remaining": {"jump": {"output": stat([0.5]), "total": stat([0.5])}},
        "remaining by chance": {"jump": {"output": stat([0.1]), "total": stat([0.1])}},
        "broken": {"jump": [{"command": "jump", "expected": "I_JUMP", "got": "I_WALK I_JUMP"}]},
    }
    made = {table["title"].split(" (")[0]: table for table in scan_tables.tables(found)}
    accuracy = made["Accuracy on test parts"]
    assert accuracy["header"] == ["weights in use", "learned", "simple", "jump", "kept"]
    means = [[x and x["mean"] for x in row[1:]] for row in accuracy["rows"]]
    assert means == [[95, 90, 80, 25], [70, 30, 10, None]]
    sharing = made["Sharing of the split masks with the union of the others"]["rows"][0]
    assert [round(x["mean"]) for x in sharing[1:]] == [60, 20, 5, 70, 40, 3]
    kept = made["Part of the control mask that a mask keeps"]["rows"]
    assert [[row[0], *(x["mean"] for x in row[1:])] for row in kept] == [
        ["output", 50, 10],
        ["total", 50, 10],
    ]
    assert made["Commands that break under a mask"]["rows"] == [["jump", "jump", "JUMP", "WALK JUMP"]]
    assert all(len(row) == len(t["header"]) for t in made.values() for row in t["rows"])
