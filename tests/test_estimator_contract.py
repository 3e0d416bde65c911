"""The contract of every estimator, over one table; what each promises of its own stands in its own tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import masks, trees
from tests.estimator_trees import equal, mixed_params, spread_logits, total
from tests.helpers import tiny_evaluate, tiny_loss, tiny_params, two_tasks

ESTIMATORS = [
    jm.gumbel_sigmoid(),
    jm.gumbel_sigmoid(temperature=0.5, init=0.0),
    jm.gumbel_sigmoid(noise="jax"),
    jm.gumbel_sigmoid(rao_blackwell=True),
    jm.edge_popup(),
    jm.edge_popup(0.4),
    jm.hard_concrete(),
    jm.hard_concrete(temperature=0.4, init=0.0, stretch=0.3),
    jm.hard_concrete(noise="jax"),
]
FACTORIES = [jm.gumbel_sigmoid, jm.edge_popup, jm.hard_concrete]


def table(chosen):
    return pytest.mark.parametrize("est", chosen, ids=lambda est: est.name)


each_estimator = table(ESTIMATORS)
each_stochastic = table([est for est in ESTIMATORS if est.stochastic])
each_binary = table([est for est in ESTIMATORS if "hard_concrete" not in est.name])
each_factory = pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)


@each_estimator
def test_init_mirrors_params(est, key):
    params = mixed_params()
    logits = est.init(key, params)
    trees.check_mirrors(logits, params, "logits")
    assert logits["hidden"]["bias"] is None
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(logits))
    assert equal(logits, est.init(key, params))
    only = est.init(key, params, where=r"output/.*")
    assert only["hidden"]["kernel"] is None and only["output"]["kernel"].shape == (5, 3)
    with pytest.raises(ValueError, match="selects no leaf"):
        est.init(key, params, where="absent")


@each_estimator
def test_samples_lie_between_0_and_1_and_are_like_the_logits(est, key):
    logits = spread_logits()
    mask = est.sample(key, logits)
    assert jax.tree.structure(mask) == jax.tree.structure(logits)
    for m, x in zip(jax.tree.leaves(mask), jax.tree.leaves(logits), strict=True):
        assert m.shape == x.shape and m.dtype == x.dtype
        assert (m >= 0).all() and (m <= 1).all()
        assert {0.0, 1.0} <= set(np.unique(m).tolist())


@each_binary
def test_samples_are_zeros_and_ones(est, key):
    for m in jax.tree.leaves(est.sample(key, spread_logits())):
        assert set(np.unique(m).tolist()) == {0.0, 1.0}


@each_estimator
def test_apply_mask_keeps_the_dtypes_of_params(est, key):
    params = mixed_params()
    module = masks.apply_mask(params, est.sample(key, est.init(key, params)))
    assert jax.tree.map(lambda w: w.dtype, module) == jax.tree.map(lambda w: w.dtype, params)


@each_estimator
def test_a_sample_is_given_by_the_key(est, key):
    logits = spread_logits()
    mask = est.sample(key, logits)
    assert equal(mask, est.sample(key, logits))
    other = {"a": jnp.zeros(200), "b": jnp.zeros(200)}
    assert equal(est.sample(key, other), est.sample(jax.random.key(1), other)) != est.stochastic


@each_stochastic
def test_samples_differ_by_leaf(est, key):
    mask = est.sample(key, {"a": jnp.zeros(200), "b": jnp.zeros(200)})
    assert not np.array_equal(mask["a"], mask["b"])


@each_estimator
def test_jit_and_vmap_agree_with_the_plain_call(est, key):
    logits = {"w": jnp.linspace(-4, 4, 30).reshape(5, 6), "b": None}
    keys = jax.random.split(key, 2)

    def sample_and_grad(key, logits):
        return est.sample(key, logits), jax.grad(lambda x: total(est.sample(key, x)))(logits)

    jitted = jax.jit(sample_and_grad)
    stacked = jax.jit(jax.vmap(sample_and_grad, (0, None)))(keys, logits)
    for i, k in enumerate(keys):
        mask, grad = sample_and_grad(k, logits)
        for other_mask, other_grad in (jitted(k, logits), jax.tree.map(lambda x, i=i: x[i], stacked)):
            np.testing.assert_allclose(other_mask["w"], mask["w"], atol=1e-6)
            assert equal(jax.tree.map(lambda m: m > 0.5, other_mask), jax.tree.map(lambda m: m > 0.5, mask))
            np.testing.assert_allclose(other_grad["w"], grad["w"], rtol=1e-5, atol=1e-6)


@each_estimator
def test_vmap_over_logits_of_runs(est, key):
    keys = jax.random.split(key, 3)
    logits = {"w": jnp.linspace(-3, 3, 3 * 20).reshape(3, 20)}
    together = jax.vmap(est.sample)(keys, logits)
    for i in range(3):
        alone = est.sample(keys[i], {"w": logits["w"][i]})["w"]
        np.testing.assert_allclose(together["w"][i], alone, atol=1e-6)


@each_estimator
def test_the_gradient_is_finite_and_reaches_every_leaf(est, key):
    logits = jax.tree.map(lambda x: x / 8, spread_logits())
    grad = jax.grad(lambda x: total(est.sample(key, x)))(logits)
    assert jax.tree.structure(grad) == jax.tree.structure(logits)
    for leaf in jax.tree.leaves(grad):
        assert jnp.isfinite(leaf).all() and (leaf > 0).any()


@each_estimator
@pytest.mark.parametrize("logit", [-50.0, 50.0])
def test_extreme_logits_are_finite(est, key, logit):
    logits = {"w": jnp.full((1000,), logit)}
    value, grad = jax.value_and_grad(lambda x: total(est.sample(key, x)) + est.penalty(x))(logits)
    assert jnp.isfinite(value) and jnp.isfinite(grad["w"]).all()
    if est.stochastic:  # where the ranking alone counts, one value says nothing
        np.testing.assert_array_equal(est.sample(key, logits)["w"], float(logit > 0))


@each_estimator
def test_threshold_is_bool_and_deterministic(est):
    logits = {"w": jnp.array([-1.0, -0.0, 0.0, 1e-30, 2.0]), "b": None, "v": jnp.linspace(-4, 4, 60)}
    binary = est.threshold(logits)
    assert binary["b"] is None and binary["w"].dtype == binary["v"].dtype == bool
    assert equal(binary, jax.jit(est.threshold)(logits))
    if est.stochastic:
        assert binary["w"].tolist() == [False, False, False, True, True]
    else:
        assert equal(binary, jax.tree.map(lambda m: m == 1, est.sample(jax.random.key(0), logits)))


@each_estimator
def test_the_penalty_is_a_scalar_that_more_weights_do_not_lower(est):
    logits = spread_logits()
    value, grad = jax.value_and_grad(est.penalty)(logits)
    assert value.shape == () and all((g >= 0).all() for g in jax.tree.leaves(grad))


@each_estimator
def test_estimators_work_on_a_tree_of_one_masked_leaf_among_none(est, key):
    logits = {"a": None, "w": jnp.zeros((6, 5)), "c": {"d": None}}
    mask = est.sample(key, logits)
    assert mask["a"] is None and mask["c"] == {"d": None} and mask["w"].shape == (6, 5)


@each_factory
def test_equal_arguments_give_the_same_object_and_another_name_means_another_one(factory):
    assert factory() is factory()
    first = {jm.gumbel_sigmoid: "temperature", jm.edge_popup: "q", jm.hard_concrete: "temperature"}[factory]
    assert factory(1) is factory(**{first: 1.0})
    assert factory(1).name == factory(1.0).name != factory(0.5).name
    assert factory().name.startswith(f"{factory.__name__}({first}=")
    names = [est.name for est in ESTIMATORS]
    assert len(set(names)) == len(names)


@each_factory
@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_numbers_that_make_no_estimator_are_refused(factory, number):
    with pytest.raises(ValueError, match=f"must be .*{number}"):
        factory(number)


@each_factory
def test_modules_are_found_with_every_estimator(factory, key, tmp_path):
    config = jm.MaskConfig(
        steps=60, batch_size=16, num_samples=2, learning_rate=3e-2, chunk_steps=30, eval_examples=32
    )
    est = jm.edge_popup(0.4) if factory is jm.edge_popup else factory()
    params = jax.vmap(tiny_params)(jax.random.split(key, 2))

    def find(estimator=est):
        keys = jax.random.split(key, 2)
        return jm.find_modules(
            tiny_loss,
            params,
            two_tasks(),
            keys=keys,
            config=config,
            estimator=estimator,
            evaluate=tiny_evaluate,
            params_axis=0,
            workdir=tmp_path,
        )

    found = find()["forward"]
    assert np.isfinite(found.history["loss"]).all() and found.history["density"].shape == (2, 2)
    start = jax.vmap(est.init, (0, 0))(jax.random.split(key, 2), params)
    assert not equal(found.logits, start)
    assert equal(found.mask, jax.vmap(est.threshold)(found.logits))
    assert equal(find()["forward"], found)  # a finished folder gives the same again
    with pytest.raises(ValueError, match=rf"estimator: .*{factory.__name__}"):
        find(jm.gumbel_sigmoid(init=1.0))
