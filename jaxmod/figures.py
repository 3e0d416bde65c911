"""Which figures an experiment's results give: drawn from `results.json` alone, written as PNG.

A figure that the paper has carries its number there.
"""

import functools
import math
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from jaxmod import files, plots, reports
from jaxmod.analysis.recovery_plots import recovery_plans
from jaxmod.joined.figures import specialization_plans
from jaxmod.language.mathematics_figures import mathematics_plans
from jaxmod.language.scan_figures import scan_comparison_plans, scan_plans
from jaxmod.plans import Plan
from jaxmod.reports import Results
from jaxmod.structure.agreement_plots import agreement_plans
from jaxmod.structure.cluster_figures import cluster_plans
from jaxmod.structure.lesion_figures import lesion_plans
from jaxmod.vision.comparison_figures import comparison_plans
from jaxmod.vision.figures import removal_plans, stability_plans, transfer_plans

__all__ = ["draw_all", "figure_paths"]

_PLANS: dict[str, Callable[[Results], list[Plan]]] = {
    "agreement": agreement_plans,
    "clusterings": cluster_plans,
    "specialization": specialization_plans,
    "lesions": lesion_plans,
    "compared": comparison_plans,
    "compared_scan": scan_comparison_plans,
    "transfer": transfer_plans,
    "stability": stability_plans,
    "removal": removal_plans,
    "recovery": recovery_plans,
    "scan": scan_plans,
    "mathematics": mathematics_plans,
}
"""Which figures belong to results that have a key; results of other experiments have several at once."""


def draw_all(results: Results, folder: str | PathLike[str]) -> dict[str, Path]:
    """Draws every figure that `results` gives; returns `{caption: path}`.

    A file is replaced only when it is complete.
    """
    paths = figure_paths(results, folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(plots.STYLE):
        for plan in _plans(results):
            figure = Figure(figsize=plan.size, layout="constrained")
            plan.draw(figure)
            files.write_atomically(paths[plan.caption], functools.partial(figure.savefig, format="png"))
    return paths


def figure_paths(results: Results, folder: str | PathLike[str]) -> dict[str, Path]:
    """Returns `{caption: path}` of the figures that `draw_all` makes, without drawing them."""
    return {plan.caption: Path(folder) / f"{plan.name}.png" for plan in _plans(results)}


def _plans(results: Results) -> list[Plan]:
    for key, plans_of in _PLANS.items():
        if key in results:
            return plans_of(results)
    if "points" in results:
        return [*_histogram_plan(results), _points_plan(results)]
    plans = []
    for key, plan in (
        ("sharing", _sharing_plan),
        ("accuracy", _accuracy_plan),
        ("weights", _weights_plan),
        ("confusion", _confusion_plan),
    ):
        if results.get(key):
            plans.append(plan(results))
    return [*plans, *_histogram_plan(results)]


def _named(results: Results, kind: str, number: int | None) -> tuple[str, str]:
    """Returns the file's name and the beginning of the caption."""
    if number is None:
        return kind, f"{_model(results)}: "
    return f"fig{number:02d}_{kind}", f"Figure {number} of the paper, {_model(results)}: "


def _model(results: Results) -> str:
    return str(results.get("model", results.get("experiment", ""))).upper()


def _spread(results: Results) -> str:
    runs = results.get("runs", 1)
    return f" Mean and standard deviation over {runs} runs." if runs > 1 else " One run."


def _sharing_plan(results: Results) -> Plan:
    numbers = {"addmul": 1, "double_addition": 13}
    name, start = _named(results, "sharing", numbers.get(results["experiment"]))
    caption = (
        f"{start}the part of each mask that the other mask has too, per layer. Filled diamonds: random masks "
        "of the same sizes; hollow: random parts of the control mask. A bar that ends at its diamond is "
        f"chance, not reuse.{_spread(results)}"
    )

    def draw(figure: Figure) -> None:
        ax = plots.plot_sharing(results, figure.subplots())
        ax.set_title("How much of each mask is shared", pad=36 if "chance" in results else 22)

    return Plan(name, caption, (7, 3.8), draw)


def _accuracy_plan(results: Results) -> Plan:
    pairs = {"together": 2, "one_at_a_time": 14}.get(results.get("mode", "together"))
    numbers = {"addmul": 10, "double_addition": None if results.get("copied") else pairs}
    name, start = _named(results, "accuracy", numbers.get(results["experiment"]))
    caption = (
        f"{start}accuracy under the control mask (Full), each mask and its inverse. The diamonds are random "
        f"masks with as many weights in each layer.{_spread(results)}"
    )

    def draw(figure: Figure) -> None:
        ax = plots.plot_accuracy(results, figure.subplots())
        ax.set_title("What each part of the network can do", pad=22)

    return Plan(name, caption, (7, 3.8), draw)


def _weights_plan(results: Results) -> Plan:
    name, start = _named(results, "weights", 11 if results["experiment"] == "addmul" else None)
    first, second = results["tasks"]
    caption = f"{start}weights that each mask keeps, per layer."
    if (ratio := results.get("weights_ratio")) is not None:
        caption += f" {second} / {first} in total: {reports.format_stat(ratio, digits=2)}."

    def draw(figure: Figure) -> None:
        plots.plot_weights(results, figure.subplots()).set_title("Weights in each mask", pad=22)

    return Plan(name, caption + _spread(results), (7, 3.4), draw)


def _confusion_plan(results: Results) -> Plan:
    name, start = _named(results, "confusion", 12)
    caption = (
        f"{start}the operation that is performed (columns) when one is requested (rows), "
        f"under each mask.{_spread(results)}"
    )
    masks = list(results["confusion"])
    across = min(len(masks), 3)
    down = math.ceil(len(masks) / across)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(down, across, squeeze=False).flat
        for ax, mask in zip(axes, masks, strict=False):
            title = f"inverted {mask[4:]} mask" if mask.startswith("not ") else f"{mask} mask"
            plots.plot_confusion(results["confusion"][mask], ax).set_title(title)
        for ax in list(axes)[len(masks) :]:
            ax.set_axis_off()

    return Plan(name, caption, (2.4 * across, 2.1 * down), draw)


def _histogram_plan(results: Results) -> list[Plan]:
    if not results.get("histogram"):
        return []
    name, start = _named(results, "histogram", 7)
    caption = (
        f"{start}how decided the control mask is: the distribution of the probabilities that its weights are "
        f"kept. (a) without the bin at 0, (b) all bins, logarithmic.{_spread(results)}"
    )

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        plots.plot_histogram(results["histogram"], left, cut=0.0002).set_title("(a) linear, without 0")
        plots.plot_histogram(results["histogram"], right, log=True).set_title("(b) logarithmic")

    return [Plan(name, caption, (7, 3), draw)]


def _points_plan(results: Results) -> Plan:
    """Plans figure 8 where beta varies, else a panel for all shares and one for every other Stat."""
    points, parameter = results["points"], results["parameter"]
    stats = reports.stat_names(points)
    name, start = _named(results, parameter, {"beta": 8, "size": 9}.get(parameter))
    accuracy, sharing = "control accuracy", "total sharing"
    if parameter == "beta" and {accuracy, sharing} <= set(stats):
        caption = f"{start}accuracy of the control mask against beta, coloured by the total sharing."

        def draw_beta(figure: Figure) -> None:
            plots.plot_sensitivity(points, figure.subplots(), accuracy, sharing, results.get("chosen"))

        return Plan(name, caption + _spread(results), (6, 3.6), draw_beta)

    shares = [stat for stat in stats if reports.is_share(stat)]
    panels = ([shares] if shares else []) + [[stat] for stat in stats if stat not in shares]
    caption = f"{start}what changes with {parameter}. Dots are single runs."
    across = min(len(panels), 2)
    down = math.ceil(len(panels) / across)

    def draw(figure: Figure) -> None:
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for ax, panel in zip(axes, panels, strict=False):
            plots.plot_points(points, ax, panel, parameter)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()

    return Plan(name, caption + _spread(results), (3.6 * across + 0.8, 2.8 * down + 0.4), draw)
