"""Convolution as a matrix product against XLA's own: values, gradients, vmapped kernels, what is stored."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxmod.models.convolution import check_images, convolve, patches

LAYOUT = ("NHWC", "HWIO", "NHWC")
im2col = functools.partial(convolve, dimension_numbers=LAYOUT, method="im2col")

# The convolutions of the models, then other strides, pads, windows and sides.
CASES = [
    ((8, 8), (3, 3), (1, 1), [(1, 1), (1, 1)]),
    ((8, 8), (3, 3), (2, 2), [(1, 1), (1, 1)]),
    ((7, 9), (3, 3), (2, 2), [(1, 1), (1, 1)]),
    ((8, 8), (1, 1), (2, 2), [(0, 0), (0, 0)]),
    ((7, 5), (1, 1), (1, 1), [(0, 0), (0, 0)]),
    ((9, 7), (2, 3), (1, 2), [(0, 1), (2, 0)]),
    ((7, 8), (3, 3), (2, 2), "SAME"),
    ((7, 8), (5, 3), (3, 1), "VALID"),
]


def draw(shape, size):
    """Returns images of three channels and a kernel with four outputs."""
    random = np.random.RandomState(0)
    x, kernel = random.randn(2, *shape, 3), random.randn(*size, 3, 4)
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def value_and_grads(conv, *args):
    """Returns the outputs and both gradients of a loss that is different for every output."""

    def loss(*args):
        y = conv(*args)
        return jnp.sum(jnp.sin(y) * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)), y

    (_, y), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(*args)
    return y, *grads


def assert_close(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(("shape", "size", "strides", "padding"), CASES)
def test_values_and_gradients_are_those_of_lax(shape, size, strides, padding):
    args = draw(shape, size)
    assert_close(
        value_and_grads(lambda x, k: im2col(x, k, strides, padding), *args),
        value_and_grads(
            lambda x, k: lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=LAYOUT), *args
        ),
    )


@pytest.mark.parametrize("each_its_images", [False, True])
@pytest.mark.parametrize(("shape", "size", "strides", "padding"), CASES[1:4])
def test_vmapped_kernels(shape, size, strides, padding, each_its_images):
    x, kernel = draw(shape, size)
    scales = jnp.array([1.0, -2.0, 0.5])
    kernels = kernel[None] * scales[:, None, None, None, None]
    axes = (0, 0) if each_its_images else (None, 0)
    x = jnp.stack([x, x + 1, x - 1]) if each_its_images else x
    grouped = functools.partial(lax.conv_general_dilated, dimension_numbers=LAYOUT)
    assert_close(
        value_and_grads(jax.vmap(lambda x, k: im2col(x, k, strides, padding), axes), x, kernels),
        value_and_grads(jax.vmap(lambda x, k: grouped(x, k, strides, padding), axes), x, kernels),
    )


def test_patches_are_what_the_kernel_sees():
    x, _ = draw((5, 6), (3, 3))
    found = patches(x, (3, 3), (2, 1), [(1, 1), (0, 0)])
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    assert found.shape == (2, 3, 4, 27)
    for row in range(3):
        for column in range(4):
            seen = padded[:, 2 * row : 2 * row + 3, column : column + 3]
            np.testing.assert_array_equal(found[:, row, column], seen.reshape(2, 27))


def test_backward_stores_no_patches():
    x, kernel = draw((8, 8), (3, 3))
    _, backward = jax.vjp(lambda x, k: im2col(x, k, (1, 1), "SAME"), x, kernel)
    assert sum(leaf.size for leaf in jax.tree.leaves(backward)) <= x.size + kernel.size


def primitives(**options):
    x, kernel = draw((8, 8), (3, 3))
    f = functools.partial(convolve, dimension_numbers=LAYOUT, **options)
    text = str(jax.make_jaxpr(lambda x, k: f(x, k, (1, 1), "SAME"))(x, kernel))
    return {name for name in ("conv_general_dilated", "dot_general") if name in text}


def test_backend_decides_unless_told(monkeypatch):
    product, convolution = {"dot_general"}, {"conv_general_dilated"}
    assert primitives() == product
    assert primitives(method="lax") == convolution
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert primitives() == convolution
    assert primitives(method="im2col") == product


def test_in_a_linen_layer(key):
    x, _ = draw((8, 7), (3, 3))
    ours = nn.Conv(4, (3, 3), strides=2, padding=1, conv_general_dilated=convolve)
    theirs = nn.Conv(4, (3, 3), strides=2, padding=1)
    variables = theirs.init(key, x)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-5)


def test_dtype_is_kept():
    x, kernel = (a.astype(jnp.bfloat16) for a in draw((8, 8), (3, 3)))
    assert im2col(x, kernel, (1, 1), "SAME").dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "options",
    [
        {"dimension_numbers": None},
        {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
        {"dimension_numbers": LAYOUT, "rhs_dilation": (2, 2)},
        {"dimension_numbers": LAYOUT, "lhs_dilation": (1, 2)},
        {"dimension_numbers": LAYOUT, "feature_group_count": 3},
    ],
)
def test_what_im2col_does_not_do_is_refused(options):
    x, kernel = draw((8, 8), (3, 3))
    with pytest.raises(ValueError, match=r"im2col takes images .* method='lax' takes them all"):
        convolve(x, kernel, (1, 1), "SAME", **options, method="im2col")


def test_other_channels_than_the_kernel_are_refused():
    x, kernel = draw((8, 8), (3, 3))
    with pytest.raises(ValueError, match=r"got inputs \(2, 8, 8, 2\), kernel \(3, 3, 3, 4\)"):
        im2col(x[..., :2], kernel, (1, 1), "SAME")


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'im2col', 'lax' or None, got 'fft'"):
        # The test run's type checker would refuse it first.
        inspect.unwrap(convolve)(*draw((8, 8), (3, 3)), (1, 1), "SAME", method="fft")


@pytest.mark.parametrize("shape", [(6, 8, 8), (6, 3, 8, 3)])
def test_other_than_images_is_refused(shape):
    message = r"Net got inputs of shape .* expected \[batch, height, width, channels\] of at least 4 by 4"
    with pytest.raises(ValueError, match=message):
        check_images(jnp.zeros(shape), "Net", smallest=4)
