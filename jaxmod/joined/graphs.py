"""Joined sub-networks as graphs: how many links they really have, and how well they fall apart."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from jaxmod.structure import cluster, n_cut
from jaxmod.structure.modularity import linked_modularity
from jaxmod.structure.ncut import Seed
from jaxmod.types import Params

__all__ = ["count_links", "n_cuts", "step_weights"]


def count_links(params: Params) -> dict[str, np.ndarray]:
    """Returns `counts` [runs, 2], of the links to each sub-network, and the `modularity` [runs] they make.

    Args:
      params: of `SubNetworks`, leading runs axis.
    """
    kernels = [np.asarray(params["links"][name]["kernel"]) for name in ("to_0", "to_1")]
    counts = np.stack([np.count_nonzero(kernel, axis=(1, 2)) for kernel in kernels], axis=1)
    modularity = [linked_modularity((int(a), int(b)), kernels[0].shape[-1]) for a, b in counts]
    return {"counts": counts, "modularity": np.array(modularity)}


def step_weights(params: Params) -> Float[np.ndarray, "before after"]:
    """Returns |W| from all units one step before to all units: the recurrence and the links as a graph.

    Args:
      params: of one network; or with a leading runs axis, which the weights then have too.
    """
    inner = [np.abs(params[name]["recurrent"]["kernel"]) for name in ("net_0", "net_1")]
    to_0, to_1 = (np.abs(params["links"][name]["kernel"]) for name in ("to_0", "to_1"))
    return np.block([[inner[0], to_1], [to_0, inner[1]]])


def n_cuts(params: Params, seeds: Sequence[Seed]) -> dict[str, np.ndarray]:
    """Returns the n-cut [runs] of the sub-networks, `own`, and of two clusters that are looked for, `found`.

    `agree` is the part of the units, before and after a step, whose cluster is their sub-network.

    Args:
      params: leading runs axis.
      seeds: of k-means, one for each run.
    """
    graphs = step_weights(jax.device_get({name: params[name] for name in ("net_0", "net_1", "links")}))
    groups = np.repeat([0, 1], graphs.shape[-1] // 2).astype(np.int32)
    own, found, agree = [], [], []
    for weights, seed in zip(graphs, seeds, strict=True):
        clusters = cluster([weights], 2, seed=seed)
        same = float(np.mean(np.concatenate(clusters.labels) == np.tile(groups, 2)))
        own.append(n_cut([weights], [groups, groups]))
        found.append(clusters.n_cut)
        agree.append(max(same, 1 - same))
    return {name: np.array(x) for name, x in (("own", own), ("found", found), ("agree", agree))}
