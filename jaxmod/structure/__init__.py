"""How modular a network is as a graph of its weights: clusters, n-cut, shuffles (Filan et al. 2020)."""

from jaxmod.structure.graph import adjacency, weight_layers
from jaxmod.structure.ncut import Clustering, cluster, cluster_many, n_cut
from jaxmod.structure.shuffles import below_first, cluster_shuffles, cohens_d, p_value, pooled, shuffled

__all__ = [
    "Clustering",
    "adjacency",
    "below_first",
    "cluster",
    "cluster_many",
    "cluster_shuffles",
    "cohens_d",
    "n_cut",
    "p_value",
    "pooled",
    "shuffled",
    "weight_layers",
]
