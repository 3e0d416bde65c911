"""The metrics of a workdir in TensorBoard or Weights & Biases, during a run or after it.

    python -m jaxmod.exports runs/addmul-quick --to=tensorboard --out=logs
    python -m jaxmod.exports runs/addmul-quick --to=wandb --out=PROJECT

They read `metrics.jsonl`, which every run leaves behind, so that training depends on neither. The extras
`tensorboard` and `wandb` of the package install what is needed.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

__all__ = ["read_scalars", "to_tensorboard", "to_wandb"]


def read_scalars(workdir: str | PathLike[str]) -> Iterator[tuple[str, int, float]]:
    """Yields `(tag, step, value)`, tag `phase/task/metric`, with `/run N` where there are several runs.

    Values that were not finite are left out.

    Raises:
      ValueError: the workdir has no `metrics.jsonl`.
    """
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        raise ValueError(f"{workdir} has no metrics.jsonl; is it the workdir of a run?")
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        phase, task, step = entry.pop("phase"), entry.pop("task"), entry.pop("step")
        for name, values in entry.items():
            runs = values if isinstance(values, list) else [values]
            for run, value in enumerate(runs):
                tag = f"{phase}/{task}/{name}" + (f"/run {run}" if len(runs) > 1 else "")
                if value is not None:
                    yield tag, step, float(value)


def to_tensorboard(workdir: str | PathLike[str], logdir: str | PathLike[str]) -> None:
    """Writes the metrics of a workdir as TensorBoard events into `logdir`."""
    from tensorboard.summary import Writer  # pyright: ignore[reportMissingImports]

    scalars = list(read_scalars(workdir))
    writer = Writer(str(logdir))
    for tag, step, value in scalars:
        writer.add_scalar(tag, value, step)
    writer.close()


def to_wandb(workdir: str | PathLike[str], project: str) -> None:
    """Logs the metrics and the config of a workdir as a run of a Weights & Biases project."""
    import wandb  # pyright: ignore[reportMissingImports]

    scalars = list(read_scalars(workdir))
    config = json.loads((Path(workdir) / "config.json").read_text(encoding="utf-8"))
    with wandb.init(project=project, name=Path(workdir).name, config=config) as run:
        # Stages start at step 0 each, so the step is a value of its own, not W&B's rising counter.
        for tag, step, value in scalars:
            run.log({tag: value, "step": step})


def main(argv: Sequence[str] | None = None) -> None:
    """Exports as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxmod.exports", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("workdir")
    parser.add_argument("--to", choices=("tensorboard", "wandb"), required=True)
    parser.add_argument("--out", required=True, help="TensorBoard's log folder, or the W&B project")
    arguments = parser.parse_args(argv)
    export = to_tensorboard if arguments.to == "tensorboard" else to_wandb
    try:
        export(arguments.workdir, arguments.out)
    except (ValueError, ImportError) as error:
        parser.error(
            f"{error} (pip install 'jaxmod[{arguments.to}]')"
            if isinstance(error, ImportError)
            else str(error)
        )


if __name__ == "__main__":
    main()
