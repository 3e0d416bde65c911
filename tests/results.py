"""Made-up `results.json` contents in the form the experiments write."""

from typing import Any

from jaxmod.reports import stat


def around(mean: float, runs: int, spread: float = 0.02) -> dict[str, Any]:
    """A Stat with this mean, and `spread` as its standard deviation if there is more than one run."""
    return stat([mean] if runs == 1 else [mean - spread, *[mean] * (runs - 2), mean + spread])


def make_results(experiment: str = "addmul", tasks: tuple[str, str] = ("add", "mul"), runs: int = 3):
    """Every part of the results of an experiment on two tasks."""
    first, second = tasks
    layers = ["layer 1", "layer 2", "output"]
    names = [*layers, "total"]
    accuracy = {
        "unmasked": (0.99, 0.98),
        "control": (0.98, 0.96),
        first: (0.98, 0.0),
        second: (0.02, 0.95),
        f"not {first}": (0.02, 0.1),
        f"not {second}": (0.1, 0.02),
        "not control": (0.01, 0.01),
        "random control": (0.2, 0.1),
        f"random {first}": (0.02, 0.01),
        f"random {second}": (0.01, 0.03),
    }
    percent = {"mean": [[98.0, 1.0, 1.0], [90.0, 2.0, 8.0]], "std": None if runs == 1 else [[0.5] * 3] * 2}
    matrix = {"rows": [*tasks], "columns": [*tasks, "none"], "percent": percent}

    def per_layer(mean: float) -> dict[str, Any]:
        return {name: around(mean, runs) for name in names}

    def chance(mean: float) -> dict[str, Any]:
        return {
            name: {
                "expected": around(mean, runs),
                "z": around(30.0, runs, 2),
                "log10_p": around(-200.0, runs, 9),
            }
            for name in names
        }

    results = {
        "experiment": experiment,
        "preset": "quick",
        "question": "Which weights add & which multiply? <b>",
        "notes": ["Validation is not disjoint from training."],
        "model": "fnn",
        "runs": runs,
        "layers": layers,
        "tasks": [*tasks],
        "accuracy": {
            mask: {"iid": around((x + y) / 2, runs), first: around(x, runs), second: around(y, runs)}
            for mask, (x, y) in accuracy.items()
        },
        "density": {"control": around(0.3, runs), first: around(0.1, runs), second: around(0.2, runs)},
        "sharing": {first: per_layer(0.6), second: per_layer(0.2)},
        "iou": per_layer(0.15),
        "io_min": per_layer(0.6),
        "chance": {first: chance(0.3), second: chance(0.1)},
        "chance_in_control": {first: chance(0.7), second: chance(0.25)},
        "remaining": {first: per_layer(0.5), second: per_layer(0.6)},
        "weights": {
            mask: {name: around(n, runs, 100) for name in names}
            for mask, n in (("control", 9000), (first, 2000), (second, 6000))
        },
        "weights_ratio": around(3.0, runs),
        "half_mask": {"early masked": around(2.0, runs), "late masked": around(5.0, runs)},
        "histogram": {
            "edges": [i / 500 for i in range(501)],
            "mean": [100.0, *[0.0] * 498, 50.0],
            "std": None if runs == 1 else [1.0] * 500,
            "counts": [1000, *[0] * 498, 500],
        },
        "checks": [
            {"check": "own operation", "paper": "yes", "ours": "0.98", "holds": True},
            {"check": "more weights", "paper": "3.8 times", "ours": "1.1 times", "holds": False},
        ],
    }
    if experiment == "addmul":
        results["confusion"] = {mask: matrix for mask in ("control", first, second, f"not {first}")}
    return results


def make_study(parameter: str, runs: int = 3):
    """The results of a study of one setting."""
    values = {
        "beta": [1e-5, 1e-4, 1e-3],
        "size": ["small", "big"],
        "temperature": [0.5, 1.0, 2.0],
        "num_samples": [1, 2, 4, 8],
    }[parameter]
    points = [
        {
            "value": value,
            "control accuracy": around(0.98 - 0.05 * i, runs),
            "total sharing": around(0.5 - 0.1 * i, runs),
            "gradient variance": around(1e-6 / (i + 1), runs, 1e-8),
        }
        for i, value in enumerate(values)
    ]
    study = {
        "experiment": "robustness",
        "study": parameter,
        "model": "fnn",
        "parameter": parameter,
        "runs": runs,
    }
    return {**study, "chosen": 1e-4, "points": points}
