"""Trees that the tests of estimators share."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxmod as jm
from jaxmod import trees


def mixed_params():
    return {
        "hidden": {"kernel": jnp.ones((6, 5)), "bias": jnp.zeros(5)},
        "output": {"kernel": jnp.ones((5, 3), jnp.bfloat16)},
    }


def spread_logits():
    """Logits from -4 to 4 in each leaf, so that samples of both kinds occur."""
    logits = jm.gumbel_sigmoid().init(jax.random.key(0), mixed_params())
    return jax.tree.map(lambda x: jnp.linspace(-4, 4, x.size).reshape(x.shape), logits)


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def total(tree):
    return trees.tree_sum(jnp.sum, tree)
