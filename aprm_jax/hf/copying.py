"""Copies of arrays whose axes change their order, as quick as memory allows."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 19  # bytes of the source, of which a cache holds two


def assign(target: np.ndarray, source: np.ndarray) -> None:
    """`target[...] = source`, by blocks of what lies together in the source.

    The transpose of a large matrix at once misses the cache at every element (measured:
    six times slower in bfloat16). Where types are equal, bits are copied.
    """
    if target.dtype == source.dtype:
        bits = np.dtype(f"u{target.itemsize}")  # NumPy copies its own types quicker
        target, source = target.view(bits), source.view(bits)
    if source.nbytes <= _BLOCK or source.flags.c_contiguous:
        target[...] = source
        return
    strides = np.where(np.array(source.shape) > 1, source.strides, -1)
    axis = int(strides.argmax())
    step = max(1, _BLOCK * source.shape[axis] // source.nbytes)
    for start in range(0, source.shape[axis], step):
        cut = (*(slice(None) for _ in range(axis)), slice(start, start + step))
        assign(target[cut], source[cut])


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in C order: itself, or a copy."""
    if array.flags.c_contiguous:
        return array
    out = np.empty(array.shape, array.dtype)
    assign(out, array)
    return out
