"""Layers of sequence models, shares against counting, and what breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import trees
from jaxmod.language import measures, networks
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer, TransformerConfig

MODELS = {
    "lstm": Seq2SeqLSTM(5, 4, embedding=3, hidden=4, layers=2),
    "transformer": Transformer(5, 4, TransformerConfig(4, 6, heads=2, layers=2)),
}
LSTM_LAYERS = [f"{side} l{k} {w}" for side in ("encoder", "decoder") for k in (0, 1) for w in ("ih", "hh")]


def random_masks(name, count, density=0.5, runs=2):
    functions = networks.make_functions(MODELS[name])
    shapes = jax.eval_shape(functions.init, jax.random.key(0))
    chosen = trees.select(jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes), functions.where)
    random = np.random.default_rng(4)
    return [
        jax.tree.map(lambda x, c: random.random((runs, *x.shape)) < density if c else None, shapes, chosen)
        for _ in range(count)
    ]


def test_layers_of_the_lstm_in_order():
    (mask,) = random_masks("lstm", 1)
    found = measures.layers(mask)
    assert list(found) == [*LSTM_LAYERS, "output"]
    assert found["encoder l1 ih"] == ["encoder/l1_ih/kernel"] and found["output"] == ["output/kernel"]


def test_layers_of_the_transformer_hold_every_leaf_once():
    (mask,) = random_masks("transformer", 1)
    found = measures.layers(mask)
    encoder = [f"encoder {k} {part}" for k in (0, 1) for part in ("self attention", "feed forward", "norms")]
    assert list(found)[:6] == encoder and list(found)[-2:] == ["decoder 1 norms", "output"]
    assert len(found["decoder 0 cross attention"]) == 4 and len(found["decoder 0 norms"]) == 6
    paths = sorted(path for of in found.values() for path in of)
    assert paths == sorted(path for path, _ in trees.paths_and_leaves(mask))


def test_a_leaf_of_another_model_is_named():
    with pytest.raises(ValueError, match="'hidden/kernel' is of no layer of a Seq2SeqLSTM"):
        measures.layers({"hidden": {"kernel": jnp.ones((1, 2, 2), bool)}})


@pytest.mark.parametrize("name", MODELS)
def test_shares_are_counted(name):
    target, reference = random_masks(name, 2)
    leaves = [dict(trees.paths_and_leaves(m)) for m in (target, reference)]
    found = measures.shares(target, reference)
    groups = measures.layers(target) | {"total": list(leaves[0])}
    assert list(found) == list(groups)
    for label, paths in groups.items():
        for run in range(2):
            shared = whole = expected = 0.0
            for path in paths:
                t, r = (of[path][run] for of in leaves)
                shared, whole = shared + (t & r).sum(), whole + t.sum()
                expected += t.sum() * r.sum() / t.size
            np.testing.assert_allclose(found[label].shared[run], shared / max(whole, 1))
            np.testing.assert_allclose(found[label].expected[run], expected / max(whole, 1))
    kept = measures.weights_by_layer(target)
    assert kept["total"].tolist() == [sum(x[run].sum() for x in leaves[0].values()) for run in range(2)]


def test_totals_are_those_of_sharing():
    target, reference = random_masks("lstm", 2)
    expected = jax.vmap(lambda t, r: jm.sharing(t, r)["total"].shared)(target, reference)
    np.testing.assert_allclose(measures.shares(target, reference)["total"].shared, expected, rtol=1e-6)
    nothing = jax.tree.map(jnp.zeros_like, target)
    assert not measures.shares(nothing, reference)["output"].shared.any()


def test_removed_output_weights():
    control, mask = random_masks("lstm", 2)
    control["output"]["kernel"][1, :, 2] = False
    removed = measures.removed_outputs(control, mask)
    assert removed.shape == (2, 5) and np.isnan(removed[1, 2])
    kept, left = control["output"]["kernel"][0, :, 3], mask["output"]["kernel"][0, :, 3]
    gone = sum(bool(a) and not b for a, b in zip(kept, left, strict=True))
    assert removed[0, 3] == 100 * gone / kept.sum()


def test_accuracy_of_groups():
    right = np.array([[True, False, True, True], [False, False, True, False]])
    found = measures.accuracy_by_group(right, np.array([0, 0, 2, 2]), 4)
    np.testing.assert_array_equal(found, [[0.5, np.nan, 1, np.nan], [0, np.nan, 0.5, np.nan]])


def test_what_breaks_is_shown_from_short_to_middling():
    before, after = np.ones(20, bool), np.zeros(20, bool)
    before[3], after[5] = False, True
    length = np.arange(20)[::-1]
    found = measures.breaking(before, after, length, shown=4)
    assert found[0] == 19 and len(found) == 4
    assert (np.diff(length[found]) > 0).all() and length[found].max() <= 11
    assert not {3, 5} & set(measures.breaking(before, after, length, shown=20))
    assert measures.breaking(before, before, length, shown=4) == []
