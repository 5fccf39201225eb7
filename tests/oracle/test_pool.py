"""The process pool: answers, deadlines, and what is left when its owner dies."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aprm_jax.oracle.pool import EquivalencePool, PoolConfig, PoolError

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENT = 20.0  # seconds of a job that has to be decided on a busy machine
HANGS = "9^{9^{9^{9}}}"

OWNER = """
import time
from aprm_jax.oracle.pool import EquivalencePool, PoolConfig
pool = EquivalencePool(PoolConfig(workers=1, deadline_s=20.0))
print(pool.equal("x+x", "2x"), *pool.pids, flush=True)
pool.submit("9^{9^{9^{9}}}", "1")
time.sleep(600)
"""


@pytest.fixture(scope="module")
def pool():
    with EquivalencePool(PoolConfig(workers=1, deadline_s=PATIENT)) as pool:
        yield pool


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\sqrt{8}", r"3\sqrt{2}", False),
        (r"\sin^2 x+\cos^2 x", "1", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+1", False),
        (r"\left(1,2\right]", "(1,2]", True),
        # Read on the second attempt alone, with the parser's whole stack.
        (r"\left(30+v_{1}\right)", "v_{1}+30", True),
        (r"\left(30+v_{1}\right)", "v_{2}+30", False),
        ("x", "y", False),
        # Math-Verify alone calls it equal.
        (r"\sqrt{2}", "1.41421356", None),
        # Math-Verify alone reads the first as 1.
        ("5,000 1+", "1", None),
        ("__import__('os')", "1", None),
        (r"\def\a{\a\a}\a", "1", None),
    ],
)
def test_answers(pool, a, b, answer):
    assert pool.equal(a, b) is answer


@pytest.mark.parametrize(
    "text", ["", "x" * 1_001, "$x$", "x\0", "x\n", "\ud800", "(" * 300, "٣", "{" * 900]
)
def test_text_that_is_not_decided_harms_nothing(pool, text):
    assert pool.equal(text, "x") is not True
    assert pool.equal("x", text) is not True
    assert pool.equal("x+x", "2x") is True
    assert len(pool.pids) == 1


def test_a_job_past_its_deadline_is_undecided_and_the_next_one_is_served():
    with EquivalencePool(PoolConfig(workers=1, deadline_s=1.0)) as pool:
        pool.equal("x", "x")
        first = pool.pids
        assert pool.equal(HANGS, "1") is None
        for _ in range(5):  # a second may be short on a busy machine
            answer = pool.equal("2", "2")
            if answer is not None:
                break
        assert answer is True
        assert pool.pids != first
        assert not _alive(first[0])


def test_workers_are_recycled_and_none_is_left():
    config = PoolConfig(workers=1, deadline_s=PATIENT, recycle_after=2)
    with EquivalencePool(config) as pool:
        seen = set()
        for _ in range(3):
            assert pool.equal("x+x", "2x") is True
            seen.update(pool.pids)
    assert len(seen) == 2
    assert not any(map(_alive, seen))


def test_memory_is_bounded(pool):
    limits = Path(f"/proc/{pool.pids[0]}/limits")
    if not limits.is_file():
        pytest.skip("no /proc: this system does not bound a process's memory")
    line = next(x for x in limits.read_text().splitlines() if "address space" in x)
    assert str(PoolConfig().memory_mb * 2**20) in line


def test_closing_decides_what_waits():
    pool = EquivalencePool(PoolConfig(workers=1, deadline_s=1.0))
    futures = [pool.submit(HANGS, str(k)) for k in range(20)]
    pool.close()
    done = concurrent.futures.wait(futures, timeout=30)
    assert not done.not_done
    assert {future.result() for future in futures} == {None}
    with pytest.raises(PoolError, match="closed"):
        pool.submit("x", "x")
    pool.close()


def test_workers_die_with_a_killed_owner_whose_script_has_no_guard(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as owner:
        assert owner.stdout is not None
        answer, pid = owner.stdout.readline().split()
        assert answer == "True"
        assert _alive(int(pid))
        owner.send_signal(signal.SIGKILL)
    for _ in range(200):
        if not _alive(int(pid)):
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its owner")


def test_workers_import_no_jax():
    says = "any(m in sys.modules for m in ('jax', 'flax', 'transformers'))"
    assert _after_loading("import sys", says) == "False\n"


def test_the_parser_tries_without_its_stack_first():
    # Three times as slow, and no other sign of it, where its classes have moved.
    imports = "from latex2sympy2_extended.antlr_parser import PSParser"
    says = "PSParser.math.__module__"
    assert _after_loading(imports, says) == "aprm_jax.oracle.worker\n"


def _after_loading(imports: str, says: str) -> str:
    code = f"from aprm_jax.oracle import worker; worker._load(); {imports}"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print({says})"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "field",
    [{"workers": 0}, {"deadline_s": 0.0}, {"memory_mb": 64}, {"recycle_after": -1}],
)
def test_bounds_are_checked(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        PoolConfig(**field)


def test_processes_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with (
        EquivalencePool(PoolConfig(workers=1)) as pool,
        pytest.raises(PoolError, match="nonexistent"),
    ):
        for _ in range(200):
            assert pool.equal("x", "x") is None
            time.sleep(0.01)


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie of somebody else does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (
        status.is_file() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    )


def test_a_pool_without_math_verify_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PoolError, match=r"aprm_jax\[pool\]"):
        EquivalencePool()
