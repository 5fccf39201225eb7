"""Lets the C library keep memory that the process will want again.

XLA's CPU backend allocates its temporary arrays anew in every step. glibc maps large
ones and gives them back when they are freed, so that each step pays for the page
faults of the one before: a fifth to a quarter of a small model's CPU time.
"""

from __future__ import annotations

import ctypes
import os
import platform

# malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_SETTINGS = (
    (_ARENA_MAX, 1),  # one heap that all threads reuse, not one each
    (_MMAP_MAX, 0),  # large arrays live on it too
    (_TRIM_THRESHOLD, 2**31 - 1),  # and what is freed stays there
    (_TOP_PAD, 64 * 2**20),  # bytes by which it grows
)


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory; call it before large arrays are made.

    Resident memory then stays at its peak until the process ends.

    Returns:
      Whether it was told: not where the C library is another one, nor where the
      environment has settings for malloc of its own.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    if "GLIBC_TUNABLES" in os.environ or any(
        name.startswith("MALLOC_") for name in os.environ
    ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all([mallopt(name, value) == 1 for name, value in _SETTINGS])
