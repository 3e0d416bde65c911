"""Data of the experiments: loaders return arrays, one module per family."""

from jaxmod.data import arithmetic, grey, images, lines, sources, variants

__all__ = ["arithmetic", "grey", "images", "lines", "sources", "variants"]
