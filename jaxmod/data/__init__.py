"""Data of the experiments: loaders return arrays, one module per family."""

from jaxmod.data import arithmetic

__all__ = ["arithmetic"]
