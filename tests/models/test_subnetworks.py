"""The two sub-networks against the equations in NumPy; links, decisions, and swapping."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmod import trees
from jaxmod.models.subnetworks import LINKS, SubNetworks, decide, place_links, swap

SMALL = SubNetworks(hidden=7, classes=4, steps=3)
WITH_BOTTLENECK = SubNetworks(hidden=7, classes=4, steps=3, bottleneck=2)


def init(model, key, features=5, links=None):
    params = jax.jit(lambda key: model.init(key, jnp.zeros((1, 2, features)))["params"])(key)
    return params if links is None else place_links(jax.random.fold_in(key, 1), params, links)


def images(batch=6, features=5, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 2, features)).astype(np.float32)


def numpy_network(params, x, steps, before=False):
    """The equations, example by example: states, features and readouts, each [batch, 2, ...]."""
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    nets, links = (p["net_0"], p["net_1"]), (p["links"]["to_0"]["kernel"], p["links"]["to_1"]["kernel"])
    found = []
    for pair in x.astype(np.float64):
        h = [np.zeros(len(links[0])), np.zeros(len(links[0]))]
        for _ in range(steps):
            new = []
            for n, net in enumerate(nets):
                z = pair[n] @ net["input"]["kernel"] + net["input"]["bias"]
                z = z + h[n] @ net["recurrent"]["kernel"] + net["recurrent"]["bias"]
                message = h[1 - n] @ links[n]
                new.append(np.tanh(z + (message @ net["recurrent"]["kernel"] if before else message)))
            h = new
        b = [
            s @ net["bottleneck"]["kernel"] + net["bottleneck"]["bias"] if "bottleneck" in net else s
            for s, net in zip(h, nets, strict=True)
        ]
        r = [s @ net["readout"]["kernel"] + net["readout"]["bias"] for s, net in zip(b, nets, strict=True)]
        found.append((h, b, r))
    return [np.stack([example[i] for example in found]) for i in range(3)]


@pytest.mark.parametrize(
    "model",
    [SMALL, WITH_BOTTLENECK, SMALL.clone(before_recurrence=True)],
    ids=["plain", "bottleneck", "before W_hh"],
)
@pytest.mark.parametrize("links", [0, 9, 49])
def test_the_equations(key, model, links):
    params, x = init(model, key, links=links), images()
    params = jax.tree.map(lambda w: 4 * w, params)  # far from linear
    states, features, readouts = numpy_network(params, x, model.steps, model.before_recurrence)
    variables = {"params": params}
    got = model.apply(variables, jnp.asarray(x), method="states")
    np.testing.assert_allclose(got, states, atol=1e-5)
    np.testing.assert_allclose(model.apply(variables, got, method="features"), features, atol=1e-5)
    np.testing.assert_allclose(model.apply(variables, jnp.asarray(x)), readouts, atol=1e-5)
    again = model.apply(variables, model.apply(variables, got, method="features"), method="readouts")
    np.testing.assert_allclose(again, readouts, atol=1e-5)


def test_messages_arrive_from_the_second_step_on(key):
    """Sub-network 0 learns of image 1 only through `to_0`, and not in the first step."""
    x = jnp.asarray(images())
    other = x.at[:, 1].add(1.0)
    cut = init(SMALL, key)
    linked = place_links(key, cut, 49)
    one_way = {**linked, "links": {**linked["links"], "to_0": cut["links"]["to_0"]}}
    for params, steps, seen in [(cut, 3, False), (linked, 1, False), (linked, 2, True), (one_way, 3, False)]:
        model = SubNetworks(hidden=7, classes=4, steps=steps)
        a, b = (model.apply({"params": params}, images)[:, 0] for images in (x, other))
        assert bool((a != b).any()) == seen


@pytest.mark.parametrize("bottleneck", [None, 5])
def test_the_network_of_the_paper(key, bottleneck):
    params = init(SubNetworks(bottleneck=bottleneck), key, 784)
    sizes = {path: leaf.size for path, leaf in trees.paths_and_leaves(params)}
    per_net = {
        "input/kernel": 78400,
        "input/bias": 100,
        "recurrent/kernel": 10000,
        "recurrent/bias": 100,
    }
    if bottleneck is None:
        per_net |= {"readout/kernel": 1000, "readout/bias": 10}
    else:
        per_net |= {
            "bottleneck/kernel": 500,
            "bottleneck/bias": 5,
            "readout/kernel": 50,
            "readout/bias": 10,
        }
    nets = {f"net_{n}/{path}": size for n in (0, 1) for path, size in per_net.items()}
    assert sizes == {**nets, "links/to_0/kernel": 10000, "links/to_1/kernel": 10000}
    assert all(re.fullmatch(LINKS, path) for path in sizes.keys() - nets.keys())
    assert not any(re.fullmatch(LINKS, path) for path in nets)
    maskable = [n for path, n in sizes.items() if re.fullmatch(r"net_./(recurrent|readout)/.*", path)]
    assert bottleneck or sum(maskable) == 22220
    for path, leaf in trees.paths_and_leaves({n: params[n] for n in ("net_0", "net_1")}):
        values = np.ravel(leaf)
        assert np.abs(values).max() < 0.1, path
        assert stats.kstest(values, "uniform", (-0.1, 0.2)).pvalue > 1e-4, path
    assert (params["net_0"]["input"]["kernel"] != params["net_1"]["input"]["kernel"]).any()
    assert not np.asarray(params["links"]["to_0"]["kernel"]).any()


def link_weights(params):
    return [np.asarray(params["links"][name]["kernel"]) for name in ("to_0", "to_1")]


@pytest.mark.parametrize("count", [0, 1, 8, 48, 49])
def test_so_many_links_each_way(key, count):
    params = init(SMALL, key)
    placed = place_links(key, params, count)
    assert [np.count_nonzero(w) for w in link_weights(placed)] == [count, count]
    for net in ("net_0", "net_1"):
        assert placed[net] is params[net]
    again = link_weights(place_links(jax.random.fold_in(key, 1), placed, 49 - count))
    assert [np.count_nonzero(w) for w in again] == [49 - count] * 2  # in place of the others


def test_runs_of_one_program_differ_in_their_links(key):
    counts = [0, 1, 30, 49]
    params = init(SMALL, key)
    keys = jax.random.split(key, len(counts))
    together = jax.jit(jax.vmap(place_links, in_axes=(0, None, 0)))(keys, params, jnp.array(counts))
    for run, count in enumerate(counts):
        alone = place_links(keys[run], params, count)
        for a, b in zip(link_weights(together), link_weights(alone), strict=True):
            np.testing.assert_array_equal(a[run], b)


def test_links_are_uniform_in_place_and_weight(key):
    params = init(SubNetworks(hidden=6), key)
    keys = jax.random.split(key, 2000)
    weights = link_weights(jax.jit(jax.vmap(place_links, in_axes=(0, None, None)))(keys, params, 9))
    for w in weights:
        assert stats.chisquare((w != 0).sum(axis=0).ravel()).pvalue > 1e-3
        assert stats.kstest(w[w != 0], "uniform", (-0.1, 0.2)).pvalue > 1e-3
    both = (weights[0] != 0) & (weights[1] != 0)  # one way has nothing to do with the other
    assert abs(both.mean() - (9 / 36) ** 2) < 5 * np.sqrt((9 / 36) ** 2 / both.size)


@pytest.mark.parametrize("count", [-1, 50])
def test_counts_out_of_range_are_refused(key, count):
    with pytest.raises(ValueError, match=re.escape(f"between 0 and 49 (hidden^2), got {count}")):
        place_links(key, init(SMALL, key), count)


def test_no_steps_are_refused(key):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        jax.eval_shape(SubNetworks(steps=0).init, key, jnp.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "model", [SMALL, WITH_BOTTLENECK, SubNetworks()], ids=["plain", "bottleneck", "paper"]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_swapped_sub_networks_give_swapped_readouts(key, model, compiled):
    params, x = init(model, key, links=20), jnp.asarray(images())
    forward = jax.jit(model.apply) if compiled else model.apply
    once = forward({"params": params}, x)
    swapped = forward({"params": swap(params)}, x[:, ::-1])
    np.testing.assert_array_equal(swapped, once[:, ::-1])
    assert jax.tree.structure(swap(params)) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(swap(swap(params))), jax.tree.leaves(params), strict=True):
        assert a is b


def test_the_more_certain_one_decides():
    readouts = np.random.default_rng(0).normal(size=(50, 2, 4)).astype(np.float32)
    answer, decider = decide(jnp.asarray(readouts))
    for example, (own, whose) in zip(readouts, zip(answer, decider, strict=True), strict=True):
        expected = 0 if example[0].max() >= example[1].max() else 1
        assert whose == expected
        np.testing.assert_array_equal(own, example[expected])
    assert set(np.asarray(decider)) == {0, 1}
    # Of the values themselves, not of their magnitudes.
    assert decide(jnp.array([[0.1, -5.0], [0.2, 0.0]]))[1] == 1


def test_ties_go_to_the_first():
    tied = jnp.array(list(itertools.permutations([0.0, 1.0])))[None]  # [1, 2, 2]: both reach 1
    answer, decider = decide(tied)
    np.testing.assert_array_equal(answer, tied[:, 0])
    assert decider.tolist() == [0]
    answer, decider = decide(jnp.zeros((3, 2, 10)))
    assert decider.tolist() == [0, 0, 0] and jnp.argmax(answer, axis=1).tolist() == [0, 0, 0]


def test_only_the_deciding_readout_has_a_gradient(key):
    params, x = init(SMALL, key, links=9), jnp.asarray(images(batch=20))
    params["net_1"] = params["net_0"]  # both decide about equally often

    @jax.jit
    def gradient(params, asked):
        def loss(params):
            answer, decider = decide(SMALL.apply({"params": params}, x))
            scores = jax.nn.log_softmax(answer)[:, 0]
            return jnp.sum(jnp.where(decider == asked, scores, 0.0)), decider

        return jax.grad(loss, has_aux=True)(params)

    for asked, other in ((0, 1), (1, 0)):
        grads, decider = gradient(params, asked)
        assert asked in np.asarray(decider)
        assert np.asarray(grads[f"net_{asked}"]["readout"]["kernel"]).any()
        assert not np.asarray(grads[f"net_{other}"]["readout"]["kernel"]).any()
        assert np.asarray(grads[f"net_{other}"]["input"]["kernel"]).any()  # through the links
