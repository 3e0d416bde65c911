"""Data of the experiments: loaders return arrays, one module per family."""

from jaxmod.data import (
    arithmetic,
    digit_pairs,
    grey,
    images,
    lines,
    mathematics,
    scan,
    sources,
    tokens,
    variants,
)

__all__ = [
    "arithmetic",
    "digit_pairs",
    "grey",
    "images",
    "lines",
    "mathematics",
    "scan",
    "sources",
    "tokens",
    "variants",
]
