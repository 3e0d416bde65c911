"""A convolution that is fast in a training loop: a matrix product on the CPU, XLA's own elsewhere.

XLA's CPU backend runs convolutions inside `lax.scan` on one thread and without its fast kernels. Laid out
as a matrix of patches (im2col), the same sum is one matrix product, which is 30 to 60 times faster.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["Method", "check_images", "convolve", "patches"]

Method = Literal["im2col", "lax"]
"""`im2col`: a matrix product over patches; `lax`: `lax.conv_general_dilated`."""

_LAYOUT = ("NHWC", "HWIO", "NHWC")

Pads = Sequence[tuple[int, int]]


def convolve(
    inputs: Float[Array, "..."],
    kernel: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Pads,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    *,
    precision: Any = None,
    method: Method | None = None,
) -> Float[Array, "..."]:
    """Returns `lax.conv_general_dilated` of the same arguments, to rounding.

    It fits where that function does, e.g. `nn.Conv(..., conv_general_dilated=convolve)`. With `im2col`
    the kernel may be vmapped: the matrix product gets a batch axis, where XLA's convolution gets groups.

    Args:
      method: `None` is `im2col` where the default backend is the CPU and `lax` elsewhere.

    Raises:
      ValueError: another method; or `im2col` of something other than images [batch, height, width,
        channels] and a kernel [height, width, in, out] without dilation or groups.
    """
    if method is None:
        method = "im2col" if jax.default_backend() == "cpu" else "lax"
    if method == "lax":
        return lax.conv_general_dilated(
            inputs,
            kernel,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            precision=precision,
        )
    if method != "im2col":
        raise ValueError(f"convolve: method must be 'im2col', 'lax' or None, got {method!r}.")
    _check_plain(inputs, kernel, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count)
    sides = inputs.shape[1:3], kernel.shape[:2]
    pads = lax.padtype_to_pads(*sides, window_strides, padding) if isinstance(padding, str) else padding

    # Patches are several times the inputs. Under `checkpoint` the backward pass makes them anew, so a scan
    # over layers does not store those of every layer; in a plain network XLA finds and shares them.
    @jax.checkpoint
    def product(inputs: Array, kernel: Array) -> Array:
        columns = patches(inputs, kernel.shape[:2], window_strides, pads)
        return jnp.matmul(columns, kernel.reshape(-1, kernel.shape[-1]), precision=precision)

    return product(inputs, kernel)


def patches(
    inputs: Float[Array, "batch height width channels"],
    size: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
) -> Float[Array, "batch rows columns patch"]:
    """Returns what the kernel sees at each place, in the order of a kernel [height, width, in]."""
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    last = [padded.shape[axis + 1] - size[axis] for axis in (0, 1)]
    return jnp.concatenate(
        [
            padded[:, i : i + last[0] + 1 : strides[0], j : j + last[1] + 1 : strides[1]]
            for i in range(size[0])
            for j in range(size[1])
        ],
        axis=-1,
    )


def _check_plain(
    inputs: Array, kernel: Array, lhs_dilation: Any, rhs_dilation: Any, dimension_numbers: Any, groups: int
) -> None:
    plain = inputs.ndim == kernel.ndim == 4 and inputs.shape[-1] == kernel.shape[2] and groups == 1
    if plain:
        shapes = (inputs.shape, kernel.shape)
        given = lax.conv_dimension_numbers(*shapes, dimension_numbers)
        dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
        plain = given == lax.conv_dimension_numbers(*shapes, _LAYOUT) and set(dilations) <= {1}
    if not plain:
        raise ValueError(
            "convolve: im2col takes images [batch, height, width, channels] and a kernel [height, width, in, "
            f"out] without dilation or groups, got inputs {inputs.shape}, kernel {kernel.shape}, dimension "
            f"numbers {dimension_numbers}, dilations {lhs_dilation} and {rhs_dilation}, {groups} groups; "
            "method='lax' takes them all."
        )


def check_images(x: Array, model: str, smallest: int = 1) -> None:
    """Raises ValueError unless `x` are images with a channel axis, of at least `smallest` pixels a side."""
    if x.ndim != 4 or min(x.shape[1:3]) < smallest:
        raise ValueError(
            f"{model} got inputs of shape {x.shape}, expected [batch, height, width, channels] of at least "
            f"{smallest} by {smallest} pixels; a grey image needs an axis of one channel."
        )
