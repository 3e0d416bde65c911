"""A made-up clustering of two networks, with the shuffles of each."""

from jaxmod.reports import stat

NULL = {
    "n_cuts": [[2.1, 2.2], [2.1, 2.0]],
    "mean": 2.1,
    "std": 0.07,
    "below_all": 0.5,
    "below_first": 0.5,
}
ENTRY = {
    "condition": "mnist",
    "phase": "pruned",
    "k": 4,
    "n_cut": stat([2.0, 2.02]),
    "nulls": {"layer": NULL},
    "cohens_d": None,
}
