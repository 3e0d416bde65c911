"""What a run says while it works: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm

__all__ = ["Progress"]


class Progress:
    """Reports the chunks of one stage.

    Args:
      label: names the stage.
      steps: in all.
      file: default: standard error.
    """

    def __init__(self, label: str, steps: int, file: Any = None):
        self._file = file or sys.stderr
        self._label, self._steps, self._started = label, steps, time.perf_counter()
        self._terminal = getattr(self._file, "isatty", lambda: False)()
        self._bar: tqdm.tqdm | None = None

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Says how far the stage is; `metrics` are averaged over runs and tasks."""
        shown = "  ".join(f"{name} {np.mean(values):.4g}" for name, values in metrics.items())
        if self._terminal:
            # Made with the first news, so that a stage that was finished before shows none.
            if self._bar is None:
                self._bar = tqdm.tqdm(desc=self._label, total=self._steps, file=self._file, unit="step")
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(shown)
            if step >= self._steps:
                self._bar.close()
            return
        elapsed = time.perf_counter() - self._started
        print(
            f"{self._label}: step {step:,} of {self._steps:,}  {shown}  ({elapsed:.0f} s)",
            file=self._file,
            flush=True,
        )
