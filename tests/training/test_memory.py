"""What is freed is kept, unless the user says else; what lacks is told."""

from __future__ import annotations

import errno
import os
import platform
import re
import subprocess
import sys

import command
import jax
import jax.numpy as jnp
import pytest

from aprm_jax.training import memory
from aprm_jax.training.memory import drop_programs_at_limit, ran_out

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)

# Page faults of writing 64 MiB over and over, after a first time.
FAULTS = """
import ctypes, resource
from aprm_jax.training.memory import keep_freed_memory
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


def _raised(error, cause=None):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 268435456 bytes."),
        _raised(ValueError("cannot save"), _raised(KeyError("x"), MemoryError())),
    ],
    ids=repr,
)
def test_whoever_says_it_memory_that_lacks_is_recognised(error):
    assert ran_out(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the file says: out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError('RESOURCE_EXHAUSTED: writing "a": No space left on device [28]'),
        RuntimeError('RESOURCE_EXHAUSTED: writing "a": Disk quota exceeded [122]'),
        RuntimeError("INVALID_ARGUMENT: shapes differ"),
    ],
    ids=repr,
)
def test_other_errors_are_not_taken_for_it(error):
    assert not ran_out(error)


# Bytes of address space, and a config that wants more.
COMMAND = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
from aprm_jax.main import entry
entry()
"""


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (1_000_000_000, r"1 GB of address space \(ulimit -v\).* raise the limit"),
        (
            3_000_000_000,
            r"solver \(sft\): the memory does not suffice: .*a smaller sft\.batch_size",
        ),
    ],
)
def test_the_command_says_what_needs_less_memory(tmp_path, limit, said):
    done = subprocess.run(
        [
            *(sys.executable, "-c", COMMAND, str(limit), command.QUICKSTART),
            *("--config.model.d_model=4096", "--config.model.d_ff=16384"),
            *("--workdir=run", command.CACHE),
        ],
        cwd=tmp_path,
        env=command.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    [message] = done.stderr.splitlines()
    assert re.search(said, message), message


def mappings() -> int:
    return memory._MAPPINGS.read_text().count("\n")


@pytest.mark.skipif(not memory._MOST.exists(), reason="the system has no such limit")
def test_programs_are_dropped_before_the_kernel_has_no_mappings_left(
    tmp_path, monkeypatch
):
    programs = [jax.jit(lambda x, k=k: x * k + k) for k in range(30)]
    for program in programs:
        program(jnp.ones(3))
    before = mappings()
    assert not drop_programs_at_limit()  # far from the kernel's
    assert mappings() >= before

    limit = tmp_path / "max_map_count"
    limit.write_text(f"{2 * before - 2}\n")
    monkeypatch.setattr(memory, "_MOST", limit)
    assert drop_programs_at_limit()
    assert mappings() < before - len(programs)
    assert programs[3](jnp.ones(3)).tolist() == [6.0, 6.0, 6.0]  # compiled again


def test_programs_are_kept_where_the_system_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MOST", tmp_path / "missing")
    assert not drop_programs_at_limit()
