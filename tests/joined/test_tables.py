"""What the tables have of measures that some networks do not define."""

from jaxmod.joined.tables import describe


def test_undefined_networks_are_left_out():
    nothing = [[0.0, 0.0], [1.0, 1.0]]  # neither mask keeps a weight of the first sub-network
    some = [[0.75, 0.25], [0.25, 0.75]]
    found = describe([[some, nothing], [nothing, nothing], [some, [[None, 1.0], [0.0, 1.0]]]])
    assert found["undefined"] == [1, 2, 1]
    assert found["contrast"][0]["runs"] == found["contrast"][2]["runs"] == [0.5]
    assert found["contrast"][1] is None
    assert found["own"][1]["runs"] == [0.5, 0.5] and found["own"][2]["runs"] == [0.75]
