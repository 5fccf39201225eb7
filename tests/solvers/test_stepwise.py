"""Solvers that are asked step by step write what they write in one go."""

from __future__ import annotations

import jax
import tiny_game
from scripted import ScriptedSampler
from tiny_game import DOMAIN

from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import StepSolver
from aprm_jax.solvers.stepwise import UncachedSolver

KEY = jax.random.key(0)


def _scripted(reply, **changes) -> UncachedSolver:
    builder = tiny_game.builder(None, (64,))
    sampler = ScriptedSampler(builder, reply, **changes)
    return UncachedSolver.of(LocalSolver(sampler, {"embed": {}}, DOMAIN, builder))


def test_a_step_alone_is_the_first_that_a_whole_solution_has():
    builder = tiny_game.builder(line_stride=12)
    backbone = tiny_game.generator()["backbone"]
    local = LocalSolver(tiny_game.sampler(builder, 6), backbone, DOMAIN, builder)
    starts = [(p.question, p.prefix) for p in tiny_game.POINTS[:3]]
    draws = [7, 1 << 31, 12]
    solved = [
        local.solve([s], 1, KEY, max_steps=len(s[1]) + 1, draws=[d])[0][0]
        for s, d in zip(starts, draws, strict=True)
    ]
    solver: StepSolver = UncachedSolver.of(local)
    rows = solver.begin(starts)
    assert rows.prefilled == (0, 0, 0) and rows.num_bytes == 0
    rows, written = solver.extend(rows, [2, 0, 1], [12, 7, 1 << 31], KEY)
    for step, i in zip(written, [2, 0, 1], strict=True):
        assert step.text == solved[i].steps[-1]
        assert step.tokens == solved[i].tokens[-1]
        assert step.logprobs == solved[i].logprobs[-1]
        assert (step.closed, step.finished) == (solved[i].closed, solved[i].finished)
    assert rows.prefilled[1] == len(builder.context(*starts[0]))
    kernels = jax.tree.leaves(backbone)
    assert solver.flops_per_token == 2 * sum(x.size for x in kernels)  # tied


def test_rows_go_on_from_their_parents():
    chain = {"1 + 2 + 3": "3 + 3", "3 + 3": "6", "4 + 4": "4 + ..."}
    solver = _scripted(lambda line, _: chain[line])
    rows = solver.begin([("1 + 2 + 3", ()), ("4 + 4", ())])
    rows, first = solver.extend(rows, [0, 1, 0], [0, 1, 2], KEY)
    assert [step.text for step in first] == ["3 + 3", "4 +", "3 + 3"]
    assert [step.closed for step in first] == [True, False, True]
    rows, second = solver.extend(rows, [2, 2], [3, 4], KEY)
    assert [step.text for step in second] == ["6", "6"]
    assert all(step.finished for step in second)
    assert rows.starts == (("1 + 2 + 3", ("3 + 3", "6")),) * 2


def test_a_prompt_without_room_gets_no_step_and_costs_nothing():
    solver = _scripted(lambda line, _: "3 + 3", prompt_buckets=(9,))
    rows = solver.begin([("1 + 2 + 3", ("3 + 3",)), ("1 + 2", ())])
    rows, (none, one) = solver.extend(rows, [0, 1], [0, 1], KEY)
    assert none.text == "" and none.tokens == () and not none.closed
    assert one.text == "3 + 3" and one.closed
    assert rows.prefilled == (0, 5)
