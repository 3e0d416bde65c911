"""What Bena and Goodman say of specialization, beside what was measured."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from jaxmod.summary import check

__all__ = ["MEASURES", "SPARSE", "checks"]

MEASURES = ("bottleneck", "mask", "correlation")
"""The paper's three."""
SPARSE = 0.01
"""The part of the links below which the paper finds specialization."""


def checks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the statements of the paper beside what was measured."""
    rows = [_accurate(found, kind) for kind in ("plain", "bottleneck")]
    rows.append(_both_decide(found))
    rows += [_monotone(found, name) for name in MEASURES]
    if found["density"][0] < SPARSE <= found["density"][-1]:
        rows += [_threshold(found, name) for name in ("bottleneck", "correlation")]
    rows += _dense(found)
    own = found["measures"]["mask"]["own"][0]
    if found["links"][0] == 1 and own:
        rows.append(
            check("one link: masks lie in the own sub-network", "1", f"{own['mean']:.3f}", own["mean"] > 0.95)
        )
    cut = max(x for s in found["accuracy"]["links cut"] for x in s["runs"])
    # 0.75 over all pairs; over 8,000 that are drawn 0.015 more is three standard errors.
    rows.append(
        check("without its links no network passes 0.75", "(bound)", f"at most {cut:.3f}", cut <= 0.765)
    )
    return rows + (_control_checks(found["controls"], found) if found["controls"] else [])


def _accurate(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    accuracy = found["accuracy"][kind]
    runs = [(n, x) for n, s in zip(found["links"], accuracy, strict=True) for x in s["runs"]]
    below = [f"{x:.3f} ({n} links)" for n, x in runs if x < 0.9]
    return check(
        "every network performs the task" + (", with a bottleneck" if kind == "bottleneck" else ""),
        "good at every p",
        f"{len(runs) - len(below)} of {len(runs)} networks reach 0.90"
        + (f"; below: {', '.join(below[:8])}{' ...' if len(below) > 8 else ''}" if below else ""),
        not below,
    )


def _both_decide(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whether answers come from both sub-networks: one that never decides is trained for messages."""
    runs = [x for s in found["decided"]["plain"] for x in s["runs"]]
    both = sum(x < 0.9 for x in runs)
    ours = f"each has a tenth of the answers or more in {both} of {len(runs)} networks"
    return check("both sub-networks decide", "(competition)", ours, both == len(runs))


def _means(found: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns the mean specialization for each number of links; NaN where it is undefined."""
    return np.array([s["mean"] if s else np.nan for s in found["measures"][name]["contrast"]])


def _monotone(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    means = _means(found, name)
    defined = np.isfinite(means)
    rank = float("nan")
    if defined.sum() > 1 and np.ptp(means[defined]) > 0:
        rank = float(stats.spearmanr(np.array(found["modularity"])[defined], means[defined])[0])  # pyright: ignore[reportArgumentType]
    ours = f"rank correlation {rank:.2f}; from {means[-1]:.2f} to {means[0]:.2f}"
    return check(f"{name}: specialization rises with Q", "yes (Fig. 3)", ours, rank > 0.9)


def _threshold(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns whether nearly all of the rise, from all links to the most specialized, is below p = 0.01."""
    means, sparse = _means(found, name), np.array(found["density"]) < SPARSE
    rise, late = np.nanmax(means) - means[-1], np.nanmax(means) - np.nanmax(means[~sparse])
    part = late / rise if rise > 0 else float("nan")
    return check(f"{name}: rises only below p = 0.01", "yes (Fig. 3)", f"{part:.0%} of the rise", part >= 0.8)


def _dense(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the statements about p = 0.18 and p = 1, where these were measured."""
    rows, p = [], np.array(found["density"])
    near = int(np.argmin(abs(p - 0.18)))
    if 0.1 < p[near] < 0.3:
        at = {name: _means(found, name)[near] for name in MEASURES}
        ours = ", ".join(f"{name} {x:.2f}" for name, x in at.items())
        rows.append(
            check(
                f"p = {p[near]:.2f}: little or no specialization",
                "yes (Fig. 3)",
                ours,
                all(x < 0.25 for x in at.values()),
            )
        )
    own = found["measures"]["mask"]["own"][-1]
    if p[-1] == 1 and own:
        statement, ours = "p = 1: masks lie in both sub-networks alike", f"{own['mean']:.2f}"
        untrained = found["controls"] and found["controls"]["untrained share"]
        if untrained:  # what is due to the images alone, each of which arrives in its own sub-network
            ours += f"; untrained networks {untrained['mean']:.2f}"
        rows.append(check(statement, "0.5", ours, abs(own["mean"] - 0.5) < 0.1))
    return rows


def _control_checks(controls: Mapping[str, Any], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    deep_r, still, fixed = (
        np.array([s["mean"] for s in controls[kind]]) for kind in ("Deep-R", "no random walk", "fixed links")
    )
    masked, untrained = found["accuracy"]["masked"][0]["mean"], controls["untrained masks"]["mean"]
    readout, trained = (
        controls[name]["own"][0]["mean"] for name in ("untrained readouts", "readouts of all units")
    )
    reach = [row["q"] for row in controls["top_q"] if row["own"] and row["own"]["mean"] > 0.95]
    rows = [
        check(
            "Deep-R without the random walk", "changes little",
            f"accuracy differs by {abs(deep_r - still).mean():.3f}", abs(deep_r - still).mean() < 0.03,
        ),
        check(
            "masks of untrained networks", "clearly worse",
            f"accuracy {untrained:.2f} for {masked:.2f}", untrained < masked - 0.1,
        ),
        check(
            "new readouts of all units, of untrained networks", "very good, hence the bottleneck",
            f"accuracy {readout:.2f} on the own digit; of trained ones {trained:.2f}", readout > 0.8,
        ),
        check(
            "the largest q whose masks lie in the own sub-network", "0.05",
            f"{max(reach):g}" if reach else "none", bool(reach) and max(reach) == 0.05,
        ),
    ]  # fmt: skip
    if max(controls["density"]) <= SPARSE:
        ours = f"accuracy {fixed.mean():.3f} for {deep_r.mean():.3f}"
        worse = fixed.mean() < deep_r.mean() - 0.1
        rows.append(check("links at fixed random places, p <= 0.01", "much worse", ours, worse))
    return rows
