"""The memory of the process: too little of it is told, what is freed is kept.

Besides bytes a process has a number of mappings, and a program that XLA compiled for
the CPU takes a dozen and more: many programs end in a segmentation fault.

XLA's CPU backend allocates its temporary arrays anew in every step. glibc maps large
ones and gives them back when they are freed, so that each step pays for the page
faults of the one before: a fifth to a quarter of a small model's CPU time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
from pathlib import Path

from aprm_jax.config.errors import UserError

# malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_SETTINGS = (
    (_ARENA_MAX, 1),  # one heap that all threads reuse, not one each
    (_MMAP_MAX, 0),  # large arrays live on it too
    (_TRIM_THRESHOLD, 2**31 - 1),  # and what is freed stays there
    (_TOP_PAD, 64 * 2**20),  # bytes by which it grows
)
# On two cores the smallest config ends in 1.3e9 bytes; with less LLVM, which compiles
# for the CPU, dies of a null pointer, and nobody is told why.
_LEAST_ADDRESS_SPACE = 1_500_000_000
_TOLD = re.compile(
    r"RESOURCE_EXHAUSTED|out of memory|std::bad_alloc|can't start new thread", re.I
)
# TensorStore calls a full disk RESOURCE_EXHAUSTED too.
_DISK = re.compile(
    "|".join(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))), re.I
)

# Linux: a line a mapping; how many a process may have; the share that programs may use,
# as one stage alone compiles thousands of mappings more.
_MAPPINGS, _MOST = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
_USED = 0.5


class OutOfMemoryError(UserError, MemoryError):
    """The memory does not suffice; the message says for what, and what needs less."""


def check_address_space() -> None:
    """Call it before JAX is imported.

    Raises:
      OutOfMemoryError: the process may have less than compiling anything takes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise OutOfMemoryError(
            f"this process may have {limit / 1e9:.2g} GB of address space (ulimit -v), "
            f"and JAX's compiler needs {_LEAST_ADDRESS_SPACE / 1e9:.2g} GB or more: "
            "raise the limit"
        )


def ran_out(error: BaseException | None) -> str:
    """What an error, or what it was raised from, says of memory; "" for another one.

    Python, the system, threads and XLA say it each in its own way.
    """
    while error is not None:
        text = " ".join(str(error).split())
        if isinstance(error, MemoryError):
            return text or "out of memory"
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return text
        told = isinstance(error, RuntimeError) and _TOLD.search(text)
        if told and not no_room(text):
            return text
        error = error.__cause__
    return ""


def no_room(text: str) -> str:
    """What an error's text says of a disk that takes no more; "" where nothing."""
    found = _DISK.search(text)
    return found[0] if found else ""


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


def drop_programs_at_limit() -> bool:
    """Forgets what was compiled once half of the process's mappings are used.

    What is needed again is compiled again, or read from the compilation cache. Without
    it LLVM dies of a segmentation fault at the kernel's limit (`vm.max_map_count`).

    Returns:
      Whether it did; never where the system does not tell.
    """
    try:
        with _MAPPINGS.open() as lines:
            used = sum(1 for _ in lines)
        most = int(_MOST.read_text())
    except OSError:
        return False
    if used <= _USED * most:
        return False
    import jax  # takes seconds, and `check_address_space` comes before it

    jax.clear_caches()
    return True
