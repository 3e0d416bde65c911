"""What the benchmarks share."""

import jax
import jax.numpy as jnp

from benchmarks import harness


def test_products_are_counted_as_often_as_they_run():
    w, x = jnp.ones((3, 5)), jnp.ones((7, 3))

    def looped(x):
        return jax.lax.scan(lambda c, _: (c + jax.jit(jnp.matmul)(x, w).sum(), None), 0.0, length=4)[0]

    one = 2 * 7 * 3 * 5
    assert harness.product_flops(jax.make_jaxpr(lambda x: x @ w)(x).jaxpr) == one
    assert harness.product_flops(jax.make_jaxpr(looped)(x).jaxpr) == 4 * one
    batched = jax.make_jaxpr(jax.vmap(lambda x: x @ w))(jnp.ones((6, 7, 3))).jaxpr
    assert harness.product_flops(batched) == 6 * one
    assert harness.product_flops(jax.make_jaxpr(jnp.sin)(x).jaxpr) == 0
    images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = jax.make_jaxpr(
        lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    )
    assert harness.product_flops(convolve(images).jaxpr) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
