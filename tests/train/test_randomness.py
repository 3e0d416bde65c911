"""Keys: typed, vectors allowed, streams apart."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.train.randomness import Stream, check_keys, shared_stream, step_keys, stream_key


def test_raw_keys_are_refused_naming_the_remedy():
    with pytest.raises(ValueError, match=r"uint32.*jax\.random\.key"):
        check_keys(jnp.zeros(2, jnp.uint32))
    with pytest.raises(ValueError, match=r"42.*jax\.random\.key"):
        check_keys(42)


def test_rbg_and_odd_shapes_are_refused(key):
    with pytest.raises(ValueError, match="'rbg'"):
        check_keys(jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        check_keys(jax.random.split(key, (2, 2)))
    with pytest.raises(ValueError, match="non-empty"):
        check_keys(jax.random.split(key, 2)[:0])
    check_keys(key)
    check_keys(jax.random.split(key, 3))


def test_streams_and_steps_never_meet(key):
    shared = jax.random.key(7)
    keys = [k for step in range(20) for k in step_keys(key, shared, jnp.int32(step))[:-1]]
    keys += [stream_key(key, s) for s in Stream]
    data = [tuple(np.asarray(jax.random.key_data(k))) for k in keys]
    assert all(a != b for a, b in itertools.combinations(data, 2))


def test_the_shared_key_does_not_depend_on_the_run():
    shared = jax.random.key(7)
    a, b = (step_keys(jax.random.key(i), shared, jnp.int32(3)).shared for i in (0, 1))
    assert a == b


def test_what_all_runs_share_is_no_runs_own():
    # `split` gives the runs what `fold_in` gives the first steps.
    runs = jax.random.split(jax.random.key(3), 50)
    steps = jax.vmap(lambda step: jax.random.fold_in(jax.random.key(3), step))(jnp.arange(50))
    np.testing.assert_array_equal(jax.random.key_data(runs), jax.random.key_data(steps))

    of_steps = jax.vmap(lambda step: step_keys(runs[0], shared_stream(3), step).shared)(jnp.arange(50))
    own = {tuple(data) for data in np.asarray(jax.random.key_data(runs)).tolist()}
    assert not own & {tuple(data) for data in np.asarray(jax.random.key_data(of_steps)).tolist()}
    assert jax.random.key_data(shared_stream(3)).tolist() != jax.random.key_data(shared_stream(4)).tolist()
