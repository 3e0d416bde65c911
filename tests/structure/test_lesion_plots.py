"""The figures of lesions, drawn from rows like those of the published tables."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from jaxmod import figures, plots
from jaxmod.structure import lesion_plots
from jaxmod.structure.importance import Double, Single


def single(name, drop, proportion, kind="important"):
    return Single(name, drop, 1 / 101, 1 / 101, 20, proportion, kind, 0.001, 0.002)._asdict()


def double(x, y, delta_x, delta_y, p_x=1 / 51, p_y=1 / 51):
    return Double(x, y, 0.1, delta_x, delta_y, p_x, p_y)._asdict()


SINGLES = [
    single("1-0", 0.187, 0.25), single("1-1", 0.055, 0.25), single("1-2", 0.0, 0.01, "small"),
    single("2-0", 0.03, 0.4), single("3-0", 0.04, 0.5),
]  # fmt: skip
DOUBLES = [
    double("1-0", "2-0", 0.1, 0.1),
    double("1-0", "3-0", 0.1, -0.01, p_y=1.0),
    double("2-0", "3-0", 0.005, 0.02),
    double("1-1", "3-0", 0.0, 0.0),
    double("1-0", "1-1", 0.2, 0.1),
]
RESULTS = {"experiment": "lesions", "lesions": [{"single": SINGLES, "double": DOUBLES}]}
IMPORTANT = [s for s in SINGLES if s["kind"] == "important"]


@pytest.fixture
def ax():
    with matplotlib.rc_context(plots.STYLE):
        return Figure((7, 4), layout="constrained").subplots()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_single_lesions_are_points_by_class_and_important_ones_have_names(ax):
    lesion_plots.plot_single(SINGLES, ax)
    assert sorted(texts(ax)) == ["1-0", "1-1", "2-0", "3-0"]
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["important"][0], (25, -18.7))
    np.testing.assert_allclose(lines["small"], [(1, 0)])
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_pairs_are_points_by_what_each_needs(ax):
    lesion_plots.plot_double(DOUBLES[:4], ax)
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["both (1)"], [(10, 10)])
    np.testing.assert_allclose(lines["only X (1)"], [(10, -1)])
    np.testing.assert_allclose(lines["only Y (1)"], [(0.5, 2)])
    np.testing.assert_allclose(lines["neither (1)"], [(0, 0)])


def test_the_graph_has_an_arrow_for_each_dependency(ax):
    lesion_plots.plot_dependencies(IMPORTANT, DOUBLES[:4], ax)
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 3
    assert texts(ax) == ["1-0\n-18.7", "1-1\n-5.5", "2-0\n-3.0", "3-0\n-4.0"]


def test_an_arrow_is_bent_around_a_node(ax):
    ax.set(xlim=(0, 4), ylim=(-1, 1))
    assert lesion_plots._bend(ax, (1, 0), (3, 0), []) == 0
    assert lesion_plots._bend(ax, (1, 0), (3, 0), [(2, 0.9)]) == 0
    above, below = (lesion_plots._bend(ax, (1, 0), (3, 0), [(2, y)]) for y in (0.02, -0.02))
    assert above * below < 0
    # Positive is to the right of the way, here downwards, away from a node above.
    assert above > 0


def test_the_matrix_has_each_direction_of_a_pair(ax):
    lesion_plots.plot_pairs(SINGLES, DOUBLES, ax)
    cells = {tuple(map(int, text.get_position())): text for text in ax.texts}  # (column, row)
    assert len(cells) == 5 + 2 * len(DOUBLES)
    assert cells[0, 0].get_text() == "18.7" and cells[0, 0].get_fontweight() == "bold"
    assert cells[4, 0].get_text() == "10.0*" and cells[0, 4].get_text() == "-1.0?"
    assert cells[1, 0].get_text() == "20.0*"
    assert [label.get_text() for label in ax.get_yticklabels()][1:3] == ["1-1 IMP", "1-2 SMA"]


def test_an_experiment_has_the_figures_of_the_paper(tmp_path):
    paths = figures.draw_all(RESULTS, tmp_path)
    assert [path.name for path in paths.values()] == [
        "fig05_lesions.png", "fig06_pairs.png", "figA6_pairs.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in paths.values())


def test_networks_have_figures_of_their_own_and_no_pairs_are_no_figure(tmp_path):
    none = {"single": SINGLES[2:3], "double": []}
    paths = figures.draw_all(RESULTS | {"lesions": [RESULTS["lesions"][0], none]}, tmp_path)
    assert [path.stem for path in paths.values()] == [
        "fig05_lesions_0", "fig06_pairs_0", "figA6_pairs_0", "fig05_lesions_1",
    ]  # fmt: skip
