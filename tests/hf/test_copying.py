"""Copies by blocks equal NumPy's own, whatever the layouts and types."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from aprm_jax.hf import copying

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("block", [1, 64, 1 << 19])
def test_assign_equals_numpys(order, block, monkeypatch):
    monkeypatch.setattr(copying, "_BLOCK", block)
    values = np.random.default_rng(0).normal(size=(5, 7, 11))
    for ours, theirs in itertools.product(DTYPES, DTYPES):
        source = values.astype(theirs).transpose(order)
        target, wanted = (np.full(source.shape, 9, ours) for _ in range(2))
        copying.assign(target, source)
        wanted[...] = source
        np.testing.assert_array_equal(target, wanted)


def test_assign_fills_a_slice_and_nothing_beside_it(monkeypatch):
    monkeypatch.setattr(copying, "_BLOCK", 16)
    target = np.zeros((4, 6, 8), np.float32)
    source = np.arange(1.0, 29.0, dtype=np.float32).reshape(7, 4).T
    copying.assign(target[:, 3, 1:], source)
    np.testing.assert_array_equal(target[:, 3, 1:], source)
    assert np.count_nonzero(target) == source.size


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1), (3, 1, 2)])
def test_contiguous_takes_every_shape(shape, monkeypatch):
    monkeypatch.setattr(copying, "_BLOCK", 4)
    array = np.random.default_rng(0).normal(size=shape).astype(ml_dtypes.bfloat16)
    found = copying.contiguous(array.T)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array.T)


def test_what_is_contiguous_is_not_copied():
    array = np.ones((3, 4))
    assert copying.contiguous(array) is array
