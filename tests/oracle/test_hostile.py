"""Arbitrary text against the text oracle and its pool: bounded, and nothing is left."""

from __future__ import annotations

import os
import resource
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aprm_jax.oracle.pool import EquivalencePool, PoolConfig
from aprm_jax.oracle.steps.text import KINDS, TextOracle
from aprm_jax.oracle.verdict import Label

DEADLINE = 1.0  # seconds of a job, and of processor time in this process
PATIENCE = 300.0  # seconds, after which a verdict on a busy machine has got lost
GROWTH = 256 * 2**10  # KiB that this process may grow by over all of it

PIECES = (
    *("0123456789+-*/^_(){}[]|,;:!%$&=<>. \\xyniaBA'\n\x00"),
    *("9^9^9", "((9!)!)!", "2^{2^{2^{2}}}", "(" * 40, r"\frac{" * 30, "1+" * 200),
    *(r"\frac{1}{2}", r"\sqrt{12}", r"\sqrt[3]{5}", r"\sin x", r"\pi", r"2\sqrt{3}"),
    *(r"\def\a{\a\a}\a", r"\newcommand{\b}{\b\b}\b", r"\input{/etc/passwd}"),
    *("__import__('os').system('true')", "{0.__class__}", "%s%n%x", "1e999", "0/0"),
    *("\ud800", "٣", "１", "х", "²", "½", "−", "\u202e", "\u200b", "𝟙"),
    *("<<1+1=3>>", "#### 5", "# Answer\n\n7", " so ", " half of ", r"\text{ if }"),
    *("x = 3", "2x = 7", "1 + 1 = 2", "5 = 6", r"\boxed{4}", "a" * 500),
)
TEXT = (
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
    | st.text(max_size=60)
    | st.binary(max_size=60).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
ANNOTATED = "She sells 48 / 2 = <<48/2=24>>24 clips."
PLAIN = r"So $x = \sqrt{12}$ and $48 / 2 = 24$."


class Watched:
    """A pool with the ids of every process that it has had."""

    def __init__(self):
        self.pool = EquivalencePool(PoolConfig(workers=1, deadline_s=DEADLINE))
        self.seen: set[int] = set()
        self.undecided = 0

    def look(self) -> None:
        self.seen.update(self.pool.pids)


@pytest.fixture(scope="module")
def watched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watched = Watched()
    with watched.pool:
        yield watched
        watched.look()
    assert watched.seen, "no text got as far as the pool"
    for pid in watched.seen:  # killed, and waited for: not even a zombie
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


def _bounded(ask):
    """What `ask` returns; it may not keep this process busy beyond the deadline."""
    start = time.process_time()
    found = ask()
    assert time.process_time() - start < DEADLINE
    return found


@given(TEXT, TEXT, st.sampled_from([None, ANNOTATED, PLAIN, ""]))
@settings(deadline=None, max_examples=120, derandomize=True)
def test_any_text_gets_a_verdict(watched, text, other, original):
    oracle = TextOracle(watched.pool)
    for known in (original, other):
        future = _bounded(lambda: oracle.submit(other, (text, other), known, text))  # noqa: B023
        watched.look()
        verdict = future.result(timeout=PATIENCE)
        assert verdict.label in Label
        assert verdict.label != Label.INCORRECT or verdict.kind in KINDS
        verdict.reason.encode("ascii")
        if verdict.span is not None:
            assert 0 <= verdict.span[0] <= verdict.span[1] <= len(text)
        watched.look()


@given(TEXT, TEXT)
@settings(deadline=None, max_examples=25, derandomize=True)
def test_any_text_gets_an_answer_of_the_pool(watched, a, b):
    future = _bounded(lambda: watched.pool.submit(a, b))
    answer = future.result(timeout=PATIENCE)
    assert answer in (True, False, None)
    watched.look()


@pytest.mark.parametrize(
    "text",
    [
        "1" * 2**20,
        "1+" * 2**19,
        "(" * 2**20,
        "=" * 2**20,
        "$" * 2**20,
        "\ud800" * 2**20,
    ],
    ids=lambda text: ascii(text[:2]),
)
@pytest.mark.parametrize("place", range(4))
def test_a_megabyte_in_any_place_is_bounded(watched, text, place):
    parts = ["How many?", "1 + 1 = 2", "1 + 2 = 3", "2 + 2 = 4"]
    parts[place] = text
    question, line, original, candidate = parts
    oracle = TextOracle(watched.pool)
    verdict = _bounded(lambda: oracle.judge(question, (line,), original, candidate))
    if place == 3:
        assert verdict.kind == "too_long"
