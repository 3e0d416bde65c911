"""Which of the figures of lesions (Filan et al. 2020) an experiment's results give."""

from typing import Any

from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.reports import Results
from jaxmod.structure import lesion_plots
from jaxmod.structure.importance import Double, across_layers

__all__ = ["lesion_plans"]


def lesion_plans(results: Results) -> list[Plan]:
    """Returns the figures of the lesions of each network."""
    studies = results["lesions"]
    plans = []
    for i, study in enumerate(studies):
        end, which = (f"_{i}", f" Network {i}.") if len(studies) > 1 else ("", "")
        if study["single"]:
            plans.append(_single(study, end, which))
        names = [s["name"] for s in study["single"] if s["kind"] == "important"]
        pairs = [d._asdict() for d in across_layers([Double(**d) for d in study["double"]], names)]
        if pairs:
            plans.append(_important(study, pairs, end, which))
        if study["double"]:
            plans.append(_matrix(study, end, which))
    return plans


def _single(study: Any, end: str, which: str) -> Plan:
    caption = (
        "Figure 5 of the paper: the change of accuracy when a sub-module (layer-cluster) is taken out. Bars: "
        f"as many random neurons of its layer, mean and standard deviation.{which}"
    )

    def draw(figure: Figure) -> None:
        lesion_plots.plot_single(study["single"], figure.subplots())

    return Plan(f"fig05_lesions{end}", caption, (7, 3.8), draw)


def _important(study: Any, pairs: list[Any], end: str, which: str) -> Plan:
    caption = (
        "Figure 6 of the paper: pairs of important sub-modules, X in the earlier layer. (a) what each adds "
        "to the harm of the other. (b) which need each other; below a name is the change of accuracy "
        f"(points) when it is taken out alone.{which}"
    )
    nodes = [s for s in study["single"] if s["kind"] == "important"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
        lesion_plots.plot_double(pairs, left).set_title("(a)", pad=52)
        lesion_plots.plot_dependencies(nodes, pairs, right).set_title("(b)", pad=52)

    return Plan(f"fig06_pairs{end}", caption, (10, 4.6), draw)


def _matrix(study: Any, end: str, which: str) -> Plan:
    caption = (
        "Figure A.6 of the paper, in points: on the diagonal the drop of accuracy when a sub-module is taken "
        "out, elsewhere what the row adds to the drop once the column is gone. Star: p < 1/50; ?: p = 1. "
        f"Empty: not taken out together. ALL is a whole layer.{which}"
    )
    inside = {name for d in study["double"] for name in (d["x"], d["y"])}
    shown = [s for s in study["single"] if s["name"] in inside]
    side = 2.2 + 0.31 * len(shown)

    def draw(figure: Figure) -> None:
        lesion_plots.plot_pairs(shown, study["double"], figure.subplots())

    return Plan(f"figA6_pairs{end}", caption, (side + 1.2, side), draw)
