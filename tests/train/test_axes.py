"""Axes: every mode is a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.train.axes import Axes, over, resolve_axes


@pytest.mark.parametrize("mode", ["vmap", "map", "unroll"])
def test_every_mode_is_a_python_loop(key, mode):
    x = jax.random.normal(key, (3, 4))
    shared = jnp.arange(4.0)

    def f(x, shared, y):
        return {"sum": jnp.sum(x * shared), "pair": (x + 1, y["a"])}

    y = {"a": jnp.arange(3), "none": None}
    expected = [f(x[i], shared, {"a": y["a"][i]}) for i in range(3)]
    got = jax.jit(over(f, mode, (0, None, 0)))(x, shared, y)
    for i, one in enumerate(expected):
        jax.tree.map(lambda g, e, i=i: np.testing.assert_allclose(g[i], e, rtol=1e-6), got, one)


@pytest.mark.parametrize("mode", ["vmap", "map", "unroll"])
def test_gradients_pass_through(mode):
    def total(w):
        return jnp.sum(over(lambda x, w: x * w**2, mode, (0, None))(jnp.arange(3.0), w))

    assert jax.grad(total)(2.0) == pytest.approx(2 * 2.0 * 3.0)


def test_resolution_keeps_what_is_given_and_refuses_other_words():
    assert resolve_axes(Axes(samples="vmap", tasks="unroll")) == Axes("vmap", "unroll", "map")
    with pytest.raises(ValueError, match="runs must be 'vmap', 'map' or 'unroll', got 'pmap'"):
        resolve_axes(Axes(runs="pmap"))


@pytest.mark.parametrize(
    ("backend", "default"),
    [("cpu", Axes("unroll", "map", "map")), ("gpu", Axes("vmap", "vmap", "vmap"))],
)
def test_backend_decides_unless_told(monkeypatch, backend, default):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert resolve_axes(Axes()) == default
    assert resolve_axes(Axes(samples="map")) == default._replace(samples="map")
