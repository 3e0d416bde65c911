"""Figures of the agreement of clusters and classes: what is drawn, and in which order."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxmod import figures, files
from jaxmod.structure.agreement import agreement
from jaxmod.structure.agreement_plots import matched_rows, plot_agreement, plot_contingency


@pytest.fixture
def condition():
    random = np.random.default_rng(0)

    def rows():
        labels = [[random.integers(3, size=30) for _ in range(2)] for _ in range(2)]
        return [found._asdict() for found in agreement(*labels, shuffles=9)]

    networks = {key: [rows(), rows()] for key in ("clusters and classes", "classes twice")}
    return {"layers": ["layer 1", "layer 2"], **networks}


def test_rows_are_matched_to_columns():
    assert matched_rows(np.array([[0, 0, 9], [0, 0, 0], [7, 1, 0], [1, 5, 0]])) == [2, 3, 0]
    assert matched_rows(np.array([[0, 2], [3, 0], [1, 1]])) == [1, 0, 2]


def test_the_table_shows_the_counts():
    ax = plot_contingency(np.array([[0, 4], [12, 0], [0, 0]]), Figure().subplots(), rows=[1, 0])
    assert [(*text.get_position(), text.get_text()) for text in ax.texts] == [(0, 0, "12"), (1, 1, "4")]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "0"]


def test_there_is_a_dot_for_each_network_and_layer(condition):
    ax = plot_agreement(condition, Figure().subplots())
    dots = [line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"]
    expected = [
        row["ami"] for key in ("classes twice", "clusters and classes") for n in condition[key] for row in n
    ]
    np.testing.assert_allclose(np.ravel(dots), expected)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["layer 1", "layer 2", "all"]


def test_the_results_give_a_figure_for_all_and_one_for_each_condition(tmp_path, condition):
    results = files.plain({"agreement": {"one": condition, "two": condition}}, lambda path, number: number)
    paths = figures.draw_all(results, tmp_path)
    assert [path.name for path in paths.values()] == [
        "agreement.png",
        "agreement_one.png",
        "agreement_two.png",
    ]
    assert all(path.stat().st_size > 10_000 for path in paths.values())
