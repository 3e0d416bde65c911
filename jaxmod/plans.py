"""What a figure is before it is drawn."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

__all__ = ["Plan"]


class Plan(NamedTuple):
    """A figure of an experiment's report."""

    name: str
    """Of the file, without its ending."""
    caption: str
    size: tuple[float, float]
    """Inches."""
    draw: Callable[[Figure], None]
