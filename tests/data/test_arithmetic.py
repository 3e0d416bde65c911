"""The arithmetic data against a loop over examples, the paper's counts, and the encodings by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod.data.arithmetic import (
    candidate_labels,
    encode_addmul,
    encode_double_addition,
    load_addmul,
    load_double_addition,
    split_by_operation,
)

SPLITS = [("train", 0), ("test", 1), ("valid", 2)]


def to_digits(number):
    return [number % 10, number // 10 % 10]


@pytest.mark.parametrize(("split", "stream"), SPLITS)
def test_addmul_is_that_of_a_loop(split, stream):
    random = np.random.RandomState(0x12345678 + stream)
    operands, ops = random.randint(0, 100, (500, 2)), random.randint(0, 2, (500,))
    data = load_addmul(split, 500)
    assert {name: (x.dtype, x.shape) for name, x in data.items()} == {
        "digits": (np.uint8, (500, 4)),
        "op": (np.uint8, (500,)),
        "labels": (np.uint8, (500, 2)),
    }
    for n, ((a, b), op) in enumerate(zip(operands.tolist(), ops.tolist(), strict=True)):
        assert data["digits"][n].tolist() == to_digits(a) + to_digits(b)
        assert data["op"][n] == op
        assert data["labels"][n].tolist() == to_digits(a * b if op else a + b)


@pytest.mark.parametrize(("split", "stream"), SPLITS)
def test_double_addition_is_that_of_a_loop(split, stream):
    random = np.random.RandomState(0x12345678 + stream)
    first, second = random.randint(0, 100, (500, 1, 2)), random.randint(0, 100, (500, 1, 2))
    data = load_double_addition(split, 500)
    assert {name: (x.dtype, x.shape) for name, x in data.items()} == {
        "digits": (np.uint8, (500, 2, 4)),
        "labels": (np.uint8, (500, 2, 2)),
    }
    for n in range(500):
        for pair, source in enumerate((first, second)):
            a, b = (int(x) for x in source[n, 0])
            assert data["digits"][n, pair].tolist() == to_digits(a) + to_digits(b)
            assert data["labels"][n, pair].tolist() == to_digits(a + b)


def test_addmul_counts_of_the_paper():
    train, valid = load_addmul("train"), load_addmul("valid")
    assert np.bincount(train["op"]).tolist() == [499_448, 500_552]
    assert np.bincount(valid["op"]).tolist() == [4_951, 5_049]
    assert len(load_addmul("test")["op"]) == 10_000
    # Every combination is seen in training: validation is not disjoint from it.
    a, b = (train["digits"][:, i] + 10 * train["digits"][:, i + 1].astype(int) for i in (0, 2))
    assert len(np.unique((a * 100 + b) * 2 + train["op"])) == 20_000


def test_double_addition_counts_of_the_paper():
    train, valid = load_double_addition("train"), load_double_addition("valid")
    powers = np.array([1, 10, 100, 1000])
    seen = [train["digits"][:, pair] @ powers for pair in range(2)]
    assert [len(np.unique(pairs)) for pairs in seen] == [10_000, 10_000]
    joint = valid["digits"].reshape(-1, 8) @ np.concatenate([powers, 10_000 * powers])
    repeated = np.isin(joint, seen[0] + 10_000 * seen[1]).mean()
    assert 0.005 < repeated < 0.015


def test_operations_split_the_rows():
    valid = load_addmul("valid")
    rows = split_by_operation(valid, whole="iid")
    assert {name: len(r) for name, r in rows.items()} == {"iid": 10_000, "add": 4_951, "mul": 5_049}
    assert set(valid["op"][rows["mul"]]) == {1}


@pytest.mark.parametrize("load", [load_addmul, load_double_addition])
def test_wrong_splits_and_sizes_are_refused(load):
    with pytest.raises(ValueError, match="one of 'train', 'valid', 'test', got 'validation'"):
        load("validation")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        load("train", 0)


def test_encode_addmul_by_hand():
    # 17 + 90 and 4 * 23, the units first.
    digits = jnp.array([[7, 1, 0, 9], [4, 0, 3, 2]], jnp.uint8)
    x = encode_addmul(digits, jnp.array([0, 1], jnp.uint8))
    assert x.shape == (2, 42)
    assert x.dtype == jnp.float32
    assert np.flatnonzero(x[0]).tolist() == [7, 11, 20, 39, 40]
    assert np.flatnonzero(x[1]).tolist() == [4, 10, 23, 32, 41]
    assert set(np.unique(x)) == {0.0, 1.0}


def test_encode_double_addition_by_hand():
    digits = jnp.array([[[7, 1, 0, 9], [4, 0, 3, 2]]] * 4, jnp.uint8)
    shown = jnp.array([[1, 1], [1, 0], [0, 1], [0, 0]], jnp.uint8)
    x = encode_double_addition(digits, shown)
    assert x.shape == (4, 80)
    assert x.dtype == jnp.float32
    first, second = [7, 11, 20, 39], [44, 50, 63, 72]
    assert [np.flatnonzero(row).tolist() for row in x] == [first + second, first, second, []]


def test_encodings_under_jit_and_vmap():
    addmul, double = load_addmul("test", 12), load_double_addition("test", 12)
    digits, op = jnp.asarray(addmul["digits"]), jnp.asarray(addmul["op"])
    stacked = jax.jit(jax.vmap(encode_addmul))(digits.reshape(3, 4, 4), op.reshape(3, 4))
    np.testing.assert_array_equal(stacked.reshape(12, 42), encode_addmul(digits, op))
    pairs, shown = jnp.asarray(double["digits"]), jnp.arange(24).reshape(12, 2) % 3 > 0
    stacked = jax.jit(jax.vmap(encode_double_addition))(
        pairs.reshape(3, 4, 2, 4), shown.astype(int).reshape(3, 4, 2)
    )
    np.testing.assert_array_equal(stacked.reshape(12, 80), encode_double_addition(pairs, shown.astype(int)))


def test_candidates_hold_both_answers():
    data = load_addmul("valid")
    candidates = candidate_labels(data["digits"])
    assert isinstance(candidates, np.ndarray)
    assert candidates.dtype == np.uint8
    np.testing.assert_array_equal(candidates[np.arange(10_000), data["op"]], data["labels"])
    on_device = jax.jit(candidate_labels)(jnp.asarray(data["digits"]))
    assert on_device.dtype == jnp.uint8
    np.testing.assert_array_equal(on_device, candidates)


def test_candidates_coincide_for_the_paper_share_of_pairs():
    a, b = np.divmod(np.arange(10_000), 100)
    digits = np.stack([a % 10, a // 10, b % 10, b // 10], axis=1).astype(np.uint8)
    both = candidate_labels(digits)
    expected = sum((x + y) % 100 == x * y % 100 for x in range(100) for y in range(100))
    assert (both[:, 0] == both[:, 1]).all(axis=1).sum() == expected == 40
