"""Whole solutions from a scripted solver: when they end, and what is kept of them."""

from __future__ import annotations

import jax
import pytest
import tiny_game
from scripted import ScriptedSampler
from tiny_game import DOMAIN

from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import numbered

KEY = jax.random.key(0)


def _solve(reply, starts, count=1, *, builder=None, max_steps=4, **changes):
    builder = builder or tiny_game.builder()
    sampler = ScriptedSampler(builder, reply, **changes)
    solver = LocalSolver(sampler, None, DOMAIN, builder)
    found = solver.solve(starts, count, KEY, max_steps=max_steps)
    return found, sampler


def test_a_solution_ends_with_its_concluding_step():
    chain = {"1 + 2 + 3": "3 + 3", "3 + 3": "6", "4 + 4": "8"}
    found, sampler = _solve(
        lambda line, _: chain[line], [("1 + 2 + 3", ()), ("4 + 4", ())]
    )
    ((one,), (two,)) = found
    assert one.question == "1 + 2 + 3" and one.steps == ("3 + 3", "6") and one.finished
    assert two.steps == ("8",) and two.finished
    # Those that are done are not asked again.
    assert sampler.requests == [["1 + 2 + 3", "4 + 4"], ["3 + 3"]]
    # "3 + 3 <step>" has four tokens, "6 <step>" two.
    assert one.min_logprob == (-4 / 8, -2 / 8)
    assert one.sum_logprob == (-(1 + 2 + 3 + 4) / 8, -(1 + 2) / 8)
    assert one.logprobs[1] == (-1 / 8, -2 / 8)
    # The ids that were drawn, their stop included.
    closed = tiny_game.builder().step_id
    assert [ids[-1] for ids in one.tokens] == [closed, closed]
    assert [tiny_game.builder().decode(ids) for ids in one.tokens] == ["3 + 3", "6"]


def test_every_start_has_its_solutions_in_order():
    found, sampler = _solve(
        lambda line, k: f"{line[0]} + {k}",
        [("1 + 1", ()), ("2 + 2", ("2 + 3",))],
        3,
        max_steps=2,
    )
    assert [[s.steps[0] for s in row] for row in found] == [
        ["1 + 0", "1 + 1", "1 + 2"],
        ["2 + 3"] * 3,
    ]
    assert [s.question for row in found for s in row] == ["1 + 1"] * 3 + ["2 + 2"] * 3
    assert [len(s.steps) for row in found for s in row] == [2] * 6
    assert not any(s.finished for row in found for s in row)
    # The prefix counts; only sampled steps have log-probabilities.
    assert [len(s.min_logprob) for row in found for s in row] == [2, 2, 2, 1, 1, 1]
    assert len(sampler.requests) == 2 and len(sampler.requests[0]) == 6


def test_a_solutions_randomness_depends_on_its_problem_and_number_alone():
    """Not on who is still unfinished beside it, nor on how many are drawn."""
    chain = {"1 + 2 + 3": "3 + 3", "3 + 3": "6", "4 + 4": "8"}
    starts = [("4 + 4", ()), ("1 + 2 + 3", ())]
    for count in (1, 3):
        _, sampler = _solve(lambda line, _: chain[line], starts, count)
        first, second = sampler.draws
        assert len(set(first)) == 2 * count
        assert second == first[count:]  # the other problem is done
    assert first[:3] == [0, 1, 2] and first[3] == second[0] == 1 << 16


@pytest.mark.parametrize(
    ("starts", "count"), [(3, 5), (2, (1 << 16) + 1), ((1 << 16) + 1, 2)]
)
def test_no_two_solutions_share_their_randomness(starts, count):
    draws = numbered(starts, count)
    assert len(set(draws)) == len(draws) == starts * count
    assert min(draws) >= 0
    assert max(draws) < 1 << 32


@pytest.mark.parametrize("cut", ["3 + 3...", "6...", "6<eos>"])
def test_a_step_that_never_closes_ends_a_solution_unfinished(cut):
    """Also where its text would conclude it."""
    (((one,)), sampler) = _solve(lambda line, _: cut, [("1 + 2 + 3", ())])
    (solution,) = one
    assert not solution.finished and not solution.closed
    assert len(sampler.requests) == 1
    assert solution.steps == (cut.removesuffix("...").removesuffix("<eos>"),)


def test_a_prompt_that_no_longer_fits_ends_a_solution_unfinished():
    builder = tiny_game.builder(None, (64,))  # the prompt holds all lines so far
    found, sampler = _solve(
        lambda line, _: "3 + 3",
        [("1 + 2 + 3", ()), ("1 + 2", ())],
        builder=builder,
        prompt_buckets=(12,),
        max_steps=9,
    )
    # <bos> and 6 tokens, 4 more a step: 7, 11, then 15 > 12. The other: 5, 9, 13.
    assert [len(row[0].steps) for row in found] == [2, 2]
    assert not any(row[0].finished for row in found)
    assert all(row[0].closed for row in found)  # its last step is whole
    assert len(sampler.requests) == 2


def test_a_start_of_full_length_is_not_sampled():
    found, sampler = _solve(
        lambda line, _: "9", [("1 + 2 + 3", ("3 + 3", "6 + 0"))], max_steps=2
    )
    assert found[0][0].steps == ("3 + 3", "6 + 0") and not found[0][0].finished
    assert sampler.requests == []
    assert _solve(lambda line, _: "9", [])[0] == []


def test_a_real_sampler_is_asked_with_the_builders_prompts():
    """Greedy solutions of a model of random weights, step by step as asked alone."""
    builder = tiny_game.builder(line_stride=12)
    sampler = tiny_game.sampler(builder, 6)
    backbone = tiny_game.generator()["backbone"]
    starts = [(p.question, p.prefix) for p in tiny_game.POINTS[:3]]
    solver = LocalSolver(sampler, backbone, DOMAIN, builder)
    found = solver.solve(starts, 1, KEY, max_steps=5, temperature=0.0)
    for (question, prefix), (solution,) in zip(starts, found, strict=True):
        assert solution.steps[: len(prefix)] == prefix
        first = sampler.sample(
            backbone, [builder.context(question, prefix)], KEY, temperature=0.0
        )
        ids = first.tokens[0, : first.lengths[0]]
        assert solution.steps[len(prefix)] == builder.decode(
            ids[:-1] if first.stopped[0] else ids
        )
        assert solution.min_logprob[0] == pytest.approx(
            first.logprobs[0, : first.lengths[0]].min(), abs=1e-5
        )
