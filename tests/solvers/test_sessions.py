"""A solver that keeps its cache writes what one writes that reads all prompts again."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny_game
import tiny_solver
from tiny_game import CONFIG, DOMAIN

from aprm_jax.data.prompted import PromptedSolver
from aprm_jax.data.prompts import prepare_tokenizer
from aprm_jax.models.flops import attention_flops
from aprm_jax.sampling.methods import Truncation
from aprm_jax.solvers.protocol import StepSolver
from aprm_jax.solvers.stepwise import UncachedSolver

KEY = jax.random.key(0)
STARTS = [("1 + 2 * 3", ()), ("4 + 1 * 7 - 8", ("4 + 7 - 8",)), ("7 * 8", ())]


def _prompted(prompt: str) -> PromptedSolver:
    tokenizer = prepare_tokenizer(DOMAIN.tokenizer, CONFIG.vocab_size)
    return PromptedSolver(tokenizer, (64, 128), prompt)


BUILDERS = {
    "whole": lambda: tiny_game.builder(None, (64, 128), line_stride=9),
    "hostile": lambda: tiny_game.builder(None, (64, 128), line_stride=9),
    "window": lambda: tiny_game.builder(1, (64, 128)),
    # The lines stand in the middle of a prompt, or at its very beginning.
    "prompted": lambda: _prompted("{question} = ? {prefix} + 1 + 1 + 1 ="),
    "prefix_first": lambda: _prompted("{prefix} = {question}"),
}


def _walk(solver: StepSolver, seed: int, rounds=4, starts=STARTS, **options):
    """What a random search is written, and the state after each round."""
    rng, states, out = np.random.default_rng(seed), [], []
    rows = solver.begin(starts)
    parents = list(range(len(starts)))
    for turn in range(rounds):
        draws = rng.integers(0, 1 << 32, len(parents)).tolist()
        key = jax.random.fold_in(KEY, turn)
        rows, written = solver.extend(rows, parents, draws, key, **options)
        out.append(written)
        states.append(rows)
        # Those that go on, some of them more than once, and as many as fall to them.
        alive = [i for i, step in enumerate(written) if step.closed]
        if not alive:
            break
        parents = sorted(rng.choice(alive, int(rng.integers(1, 9))).tolist())
    return out, states


def _same(found, expected):
    assert [[s.text for s in row] for row in found] == [
        [s.text for s in row] for row in expected
    ]
    for mine, other in zip(found, expected, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert (a.tokens, a.closed, a.finished) == (b.tokens, b.closed, b.finished)
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_random_search_is_written_the_same_steps(name):
    builder = BUILDERS[name]()
    solver = tiny_solver.solver(builder, hostile=name == "hostile")
    anew = UncachedSolver.of(solver)
    found, states = _walk(solver, 1)
    expected, reread = _walk(anew, 1)
    _same(found, expected)
    assert [s.starts for s in states] == [s.starts for s in reread]
    assert states[-1].num_bytes > 0 and len(found) == 4
    spent, naive = (sum(sum(rows.prefilled) for rows in x) for x in (states, reread))
    assert spent < naive
    # The questions and their prefixes; of what was drawn that which reads differently.
    once = sum(len(builder.context(*start)) for start in STARTS)
    assert name != "whole" or spent == once
    assert name != "hostile" or once < spent


@pytest.mark.parametrize("name", ["whole", "prompted"])
def test_whole_solutions_are_those_of_prompts_built_anew(name):
    solver = tiny_solver.solver(BUILDERS[name](), grader=DOMAIN)
    options = {
        "max_steps": 4,
        "temperature": 0.8,
        "truncation": Truncation(top_p=0.9),
    }
    found = solver.solve(STARTS, 3, KEY, **options)
    anew = dataclasses.replace(solver)
    object.__setattr__(anew, "_goes_on", lambda *_: False)
    for mine, other in zip(found, anew.solve(STARTS, 3, KEY, **options), strict=True):
        for a, b in zip(mine, other, strict=True):
            assert dataclasses.replace(a, logprobs=()) == dataclasses.replace(
                b, logprobs=()
            )
            for one, two in zip(a.logprobs, b.logprobs, strict=True):
                np.testing.assert_allclose(one, two, atol=1e-5)
    assert any(len(s.steps) > 2 for row in found for s in row)


def test_a_whole_search_compiles_few_programs():
    """Rows and their lengths are powers of two: a second search compiles nothing."""
    solver = tiny_solver.solver(BUILDERS["whole"]())
    starts = [("1 + 2 * 3", ())]

    def search(wide):
        rows = solver.begin(starts)
        rows, _ = solver.extend(rows, [0] * 16, list(range(16)), KEY)
        for depth in range(1, 7):
            alive = wide >> (depth // 3)
            parents = [k % len(rows.starts) for k in range(alive)]
            rows, _ = solver.extend(rows, parents, parents, KEY)

    search(16)
    known = solver.sampler.num_compiled
    # A prefill; rows 16, 8, 4 and heads of 32 or 64 slots, gathered and sampled.
    assert known <= 20
    search(16)
    assert solver.sampler.num_compiled == known
    search(13)  # padded to the same
    assert solver.sampler.num_compiled <= known + 2


def test_a_row_without_room_is_left_out_and_counted_nowhere():
    solver = tiny_solver.solver(tiny_game.builder(None, (12,)), new=4)
    starts = [("7 * 8", ()), ("1 + 2 + 3 * 4", ("1 + 2 + 12", "3 + 12"))]
    rows, (one, none) = solver.extend(solver.begin(starts), [0, 1], [0, 1], KEY)
    assert none.text == "" and none.tokens == () and not none.closed
    assert one.tokens and rows.prefilled == (5, 0)
    rows, (again,) = solver.extend(rows, [1], [2], KEY)
    assert again.tokens == () and rows.session is None


def test_a_branch_is_entered_from_the_rows_that_are_there():
    """Of a question that stays, its steps; beside one that had no row any more."""
    builder = BUILDERS["whole"]()
    solver = tiny_solver.solver(builder)
    rows, written = solver.extend(solver.begin(STARTS), [0, 1, 1], [4, 1, 2], KEY)
    ((question, steps),) = [rows.starts[1]]
    other = ("7 - 1", ("6",))
    starts = [(question, (*STARTS[1][1], "7 - 8")), (question, steps), other]
    assert written[1].closed and steps != STARTS[1][1]
    anew = UncachedSolver.of(solver)
    expected = anew.extend(anew.begin(starts), [0, 1, 2], [5, 6, 7], KEY)[1]
    rows, found = solver.extend(solver.begin(starts, rows), [0, 1, 2], [5, 6, 7], KEY)
    _same([found], [expected])
    # What the rows lack: a step; nothing, for it was drawn; all but <bos>.
    lacking = (len(builder.encode("7 - 8")) + 1, 0, len(builder.context(*other)) - 1)
    assert rows.prefilled == lacking
    # No row is there: all is read.
    rows = solver.begin(starts[:1], solver.begin(STARTS))
    rows, _ = solver.extend(rows, [0], [5], KEY)
    assert rows.prefilled == (len(builder.context(*starts[0])),)


def test_attention_is_counted_for_each_token_once():
    builder = BUILDERS["whole"]()
    solver = tiny_solver.solver(builder)
    rows, spent, length = solver.begin(STARTS[:1]), 0.0, 0
    for turn in range(3):
        rows, (step,) = solver.extend(rows, [0], [turn], KEY)
        spent += rows.attention[0]
        length += rows.prefilled[0] + len(step.tokens)
        assert step.closed
    assert spent == attention_flops(solver.sampler.config, length, length)
    anew = UncachedSolver.of(solver)
    rows, (step,) = anew.extend(anew.begin(STARTS[:1]), [0], [0], KEY)
    size = rows.prefilled[0] + len(step.tokens)
    assert rows.attention == (attention_flops(solver.sampler.config, size, size),)
