"""The allocator's settings take hold, and give way to the user's own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)

# Page faults of writing 64 MiB over and over, after a first time.
FAULTS = """
import ctypes, resource
from aprm_jax.training.allocator import keep_freed_memory
told = {told}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def fill():
    block = libc.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill()
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(told: str, **environment: str) -> tuple[str, int]:
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"
    }
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(told=told)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    answer, count = done.stdout.split()
    return answer, int(count)


def test_freed_memory_is_used_again_without_page_faults():
    _, before = faults("None")
    answer, after = faults("keep_freed_memory()")
    assert answer == "True"
    # 4 x 16,384 pages of 4 KiB; larger pages make fewer on either side.
    assert after * 8 < before


def test_the_environment_comes_first():
    assert faults("keep_freed_memory()", MALLOC_ARENA_MAX="2")[0] == "False"
