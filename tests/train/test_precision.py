"""Every network computes in bfloat16 when it is given bfloat16 weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import networks
from jaxmod.models.cnn import SimpleCNN
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.models.resnet import ResNet
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer, TransformerConfig
from jaxmod.train.precision import draw_bfloat16, to_bfloat16
from tests.helpers import assert_trees_equal, equations

NETWORKS = {
    "fnn": networks.arithmetic(FNN((8, 8), outputs=20), 1),
    "lstm": networks.arithmetic(LSTMClassifier(8, layers=2, outputs=20), 1),
    "cnn": networks.images(SimpleCNN(outputs=10, channels=(4, 8)), 1),
    "resnet": networks.images(ResNet(blocks=1, outputs=10, channels=(4, 8, 8)), 1),
    "transformer": networks.sequences(
        Transformer(config=TransformerConfig(features=8, heads=2)), 6, (3, 4), 1
    ),
    "seq2seq": networks.sequences(Seq2SeqLSTM(hidden=8, embedding=4), 6, (3, 4), 1),
}


def test_only_floating_leaves_are_cast():
    tree = {"w": np.float32([1.0, 1.001]), "label": np.int32([3]), "none": None, "seen": jnp.array([True])}
    cast = to_bfloat16(tree)
    assert cast["w"].dtype == jnp.bfloat16 and cast["w"].tolist() == [1.0, 1.0]
    assert cast["label"].dtype == jnp.int32 and cast["none"] is None and cast["seen"].dtype == bool


def test_a_draw_is_cast_and_the_same_one_each_time():
    def draw(key, size):
        return {"x": jax.random.normal(key, (size,))}

    key = jax.random.key(0)
    assert_trees_equal(draw_bfloat16(draw)(key, 3), to_bfloat16(draw(key, 3)))
    assert draw_bfloat16(draw) is draw_bfloat16(draw)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_matrix_products_are_of_bfloat16(name):
    network = NETWORKS[name]
    key = jax.random.key(0)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:4]), network.examples())
    params, batch = jax.eval_shape(lambda: to_bfloat16((network.init(key), batch)))
    jaxpr = jax.make_jaxpr(jax.grad(network.loss_fn))(params, batch, key)
    products = [eqn for eqn in equations(jaxpr.jaxpr) if eqn.primitive.name == "dot_general"]
    assert len(products) > 3
    assert {x.aval.dtype for eqn in products for x in eqn.invars} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(network.loss_fn, params, batch, key).dtype == jnp.float32
