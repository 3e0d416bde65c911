"""Analyses of masks: how far modules overlap, what chance would give, and what they compute.

Pure functions of masks and predictions, written for one run; `jax.vmap` adds the runs axis.
"""
