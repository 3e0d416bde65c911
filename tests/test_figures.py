import pytest

from jaxmod import figures
from tests.results import make_results, make_study

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "results, names",
    [
        (
            make_results(),
            ["fig01_sharing", "fig10_accuracy", "fig11_weights", "fig12_confusion", "fig07_histogram"],
        ),
        (
            make_results("double_addition", ("pair 1", "pair 2"), runs=1),
            ["fig13_sharing", "fig02_accuracy", "weights", "fig07_histogram"],
        ),
        (
            make_results("double_addition", ("pair 1", "pair 2")) | {"mode": "one_at_a_time"},
            ["fig13_sharing", "fig14_accuracy", "weights", "fig07_histogram"],
        ),
        (make_study("beta"), ["fig08_beta"]),
        (make_study("size", runs=1), ["fig09_size"]),
        (make_study("temperature"), ["temperature"]),
    ],
)
def test_an_experiment_has_the_figures_of_the_paper(results, names, tmp_path):
    paths = figures.figure_paths(results, tmp_path)
    assert [path.stem for path in paths.values()] == names
    for caption, name in zip(paths, names, strict=True):
        assert not name.startswith("fig") or f"Figure {int(name[3:5])} of the paper" in caption
        assert ("One run." if results["runs"] == 1 else "standard deviation over 3 runs") in caption


@pytest.mark.parametrize("results", [make_results(), make_results(runs=1), make_study("num_samples")])
def test_figures_are_written(results, tmp_path):
    folder = tmp_path / "figures"
    paths = figures.draw_all(results, folder)
    assert paths == figures.figure_paths(results, folder)
    assert sorted(folder.iterdir()) == sorted(paths.values())  # nothing half-written is left
    for path in paths.values():
        content = path.read_bytes()
        assert content.startswith(PNG) and len(content) > 5000


def test_parts_that_are_not_there_are_left_out(tmp_path):
    results = {key: value for key, value in make_results().items() if not key.startswith(("chance", "hist"))}
    results["accuracy"] = {"control": results["accuracy"]["control"], "add": results["accuracy"]["add"]}
    assert len(figures.draw_all(results | {"confusion": {}}, tmp_path)) == 3
