"""Value labels of a solver whose every word is known with its probability."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.stats
import tiny_game
from scripted import ScriptedSampler
from tiny_search import Answers, Rule, walk

from aprm_jax.data.problem import Problem
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers import progress
from aprm_jax.verifiers.progress import prover_statistics
from aprm_jax.verifiers.value_labels import (
    Coverage,
    ValueNode,
    ValueSampler,
    ValueTree,
)

PROBLEMS = [Problem(f"question {k}", (), str(k % 3)) for k in range(6)]


@dataclasses.dataclass
class RuleSolver:
    """Implements `Solver` by a rule of `tiny_search`; remembers what it was asked."""

    rule: Rule = walk
    asked: list = dataclasses.field(default_factory=list)

    def solve(self, starts, count, key, *, max_steps, temperature=1.0, **options):
        self.asked.append([(q, tuple(steps)) for q, steps in starts])
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        out = []
        for question, prefix in starts:
            group = [
                self._one(rng, question, tuple(prefix), max_steps) for _ in range(count)
            ]
            out.append(group)
        return out

    def _one(self, rng, question, steps, most):
        before = len(steps)
        while (len(steps) < most and not steps[-1:]) or not steps[-1].startswith("="):
            if len(steps) >= most:
                break
            shares = self.rule(steps)
            text = str(rng.choice(list(shares), p=list(shares.values())))
            steps = (*steps, text)
            if text.endswith("..."):
                return Solution(question, steps, False, closed=False)
        done = steps[-1].startswith("=")
        return Solution(question, steps, done, tokens=((1, 2),) * (len(steps) - before))


def _sampler(base=None, prover=None, **fields):
    coverage = Coverage(**({"n_cov": 4, "n_mc": 5, "max_steps": 8} | fields))
    return ValueSampler(base or RuleSolver(), prover, Answers(), coverage)


def test_the_whole_step_behind_which_there_is_no_room_has_a_value():
    # <bos> and 6 tokens, 4 more a step: of 12 there is room for two steps, not three.
    builder = tiny_game.builder(None, (64,))
    sampler = ScriptedSampler(builder, lambda *_: "3 + 3", prompt_buckets=(12,))
    solver = LocalSolver(sampler, None, tiny_game.DOMAIN, builder)
    problem = Problem("1 + 2 + 3", (), "6")
    (tree,) = _trees(_sampler(solver), [problem])
    assert [node.text for node in tree.nodes] == ["1 + 2 + 3", "3 + 3", "3 + 3"]
    # Nothing can be written there, so its completions do not arrive.
    assert [node.drawn for node in tree.nodes] == [4, 4, 4]
    assert tree.nodes[-1].counts == (0, 5)


def _trees(sampler, problems=PROBLEMS, measured=0):
    return sampler.trees(problems, jax.random.key(3), measured)


def _exact(steps, answer) -> float:
    """The chance to arrive, by recursion."""
    if steps and steps[-1].startswith("="):
        return float(float(steps[-1][1:]) == float(answer))
    return sum(p * _exact((*steps, t), answer) for t, p in walk(steps).items() if p)


def test_every_distinct_prefix_is_completed_once_and_its_counts_are_kept():
    solver = RuleSolver()
    trees = _trees(_sampler(solver))
    seeds, roots, rest = solver.asked
    assert seeds == roots == [(p.question, ()) for p in PROBLEMS]
    assert len(rest) == len(set(rest))
    wanted = set()
    for tree, problem in zip(trees, PROBLEMS, strict=True):
        assert tree.question == problem.question
        assert tree.nodes[0].drawn == 4 and tree.nodes[0].counts[1] == 5 + 4
        for k, node in enumerate(tree.nodes[1:], 1):
            steps = tree.steps(k)
            of_parent = [n.drawn for n in tree.nodes if n.parent == k]
            if steps[-1].startswith("="):
                right = float(steps[-1][1:]) == float(problem.answer)
                assert node.exact and node.counts == (int(right), 1)
            else:
                wanted.add((problem.question, steps))
                assert not node.exact and node.counts[1] == 5
                assert sum(of_parent) == node.drawn
        spent = tree.spent
        completed = sum(not n.exact for n in tree.nodes)
        assert spent["completions"] == spent["answered"] == 5 * completed
        assert spent["seeds"] == spent["finished"] == 4 and spent["tokens"] > 0
    assert set(rest) == wanted


def test_values_are_those_of_the_policy():
    trees = _trees(_sampler(n_cov=2, n_mc=4000), PROBLEMS[:2])
    for tree, problem in zip(trees, PROBLEMS, strict=False):
        for steps, value in tree.labels():
            exact = _exact(steps, problem.answer)
            spread = np.sqrt(exact * (1 - exact) / 4000)
            assert abs(value - exact) <= 5 * spread


def test_the_same_key_gives_the_same_and_json_keeps_it_all():
    one, two = (_trees(_sampler()) for _ in range(2))
    assert one == two
    again = [ValueTree.from_json(json.loads(json.dumps(t.to_json()))) for t in one]
    assert again == one


def test_so_many_prefixes_of_a_question_at_random():
    trees = _trees(_sampler(n_cov=16, prefixes=2))
    chosen = set()
    for tree in trees:
        done = [
            k for k, n in enumerate(tree.nodes) if k and n.counts[1] and not n.exact
        ]
        assert len(done) == 2 and tree.nodes[0].counts[1] == 21
        chosen.add(tuple(tree.steps(k) for k in done))
    assert len(chosen) > 1  # not the same of each


def _lost(steps):
    """From "b" on nothing arrives at 1; from "a" half does."""
    if not steps:
        return {"a": 0.5, "b": 0.5}
    if len(steps) == 1:
        return {"a": 0.5, "b": 0.5}
    return {"= 0": 1.0} if "b" in steps else {"= 1": 1.0}


def test_first_pits_are_of_wrong_rollouts_and_end_where_none_arrives():
    problems = [Problem("q", (), "1")]
    solver = RuleSolver(_lost)
    (tree,) = _trees(
        _sampler(solver, n_cov=64, n_mc=400, how="first_pit", high=0.2), problems
    )
    found = dict(tree.labels())
    # "b" is a pit, also after "a"; nothing behind is asked, nor what is right.
    assert set(found) == {(), ("a",), ("b",), ("a", "b")}
    assert found["b",] == found["a", "b"] == 0.0 and 0.2 < found["a",] < 0.8
    asked = {steps for call in solver.asked[1:] for _, steps in call}
    assert asked == {(), ("a",), ("b",), ("a", "b")}
    # Of paths that never pass a high value nothing but the question is learned.
    (tree,) = _trees(
        _sampler(solver, n_cov=64, n_mc=400, how="first_pit", high=0.9), problems
    )
    assert set(dict(tree.labels())) == {()}


def test_what_breaks_off_is_no_prefix_and_what_has_no_room_has_not_arrived():
    def rule(steps):
        return {"a": 0.5, "a...": 0.5} if not steps else {"a": 1.0}

    (tree,) = _trees(_sampler(RuleSolver(rule), n_cov=32, max_steps=2), PROBLEMS[:1])
    assert [tree.steps(k) for k in range(3)] == [(), ("a",), ("a", "a")]
    last = tree.nodes[2]
    assert len(tree.nodes) == 3 and last.exact and last.counts == (0, 1)
    assert tree.spent["finished"] == tree.spent["answered"] == 0


def test_another_policys_values_are_completed_by_it_and_measured_against_the_bases():
    base, prover = RuleSolver(), RuleSolver(lambda steps: {"= 1": 1.0})
    trees = _trees(_sampler(base, prover), measured=2)
    for k, (tree, problem) in enumerate(zip(trees, PROBLEMS, strict=True)):
        right = problem.answer == "1"
        assert tree.nodes[0].counts == (5 * right, 5)  # the base's rollouts are not its
        for node in tree.nodes:
            if not node.exact:
                assert node.counts == (5 * right, 5)
                assert node.base[1] == (5 if k < 2 else 0)
            elif k < 2:
                assert node.base == node.counts
    assert len(base.asked) == 2 and len(prover.asked) == 2
    states = [s for tree in trees for s in tree.siblings(4, True)]
    found = progress.prover_statistics(states, 0.3)
    assert found.distinguishability >= 0 and found.states > 0


@pytest.mark.parametrize("other", [False, True])
def test_siblings_are_what_the_counts_say(other):
    nodes = [ValueNode(-1, "q", 6, (3, 9))]
    nodes += [
        ValueNode(0, "a", 4, (2, 5), (1, 5)),
        ValueNode(0, "b", 2, (5, 5), (4, 5)),
    ]
    nodes += [ValueNode(1, "= 1", 3, (1, 1), (1, 1), exact=True), ValueNode(1, "c", 1)]
    (found,) = ValueTree("q", nodes).siblings(3, other)  # of "a" one child is unknown
    assert found.counts.tolist() == [4, 2]
    q, noise = np.array([0.4, 1.0]), np.array([0.4 * 0.6 / 4, 0.0])
    if other:
        of_base = [0.2 * 0.8 / 4] * 2
        expected = [0.2, 0.8], q, of_base, noise, [0, 0]
    else:
        # Of 5 completions 3 failed: a triple of them, of 10, has no success. Twice as
        # many as 3 are not there, so how noisy that is stays unknown.
        expected = q, [1 - 1 / 10, 1.0], noise, [np.nan, np.nan], [np.nan, np.nan]
    _, *rest = dataclasses.astuple(found)
    for mine, wanted in zip(rest, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-12)


@pytest.mark.parametrize("best", [2, 4])
@pytest.mark.parametrize("q", [0.05, 0.3, 0.8])
def test_the_best_of_k_is_estimated_without_bias(best, q):
    tried = 2 * best + 1
    chance = scipy.stats.binom.pmf(np.arange(tried + 1), tried, q)
    found = []
    for right in range(tried + 1):
        nodes = [ValueNode(-1, "q", 2, (0, 0))]
        nodes.append(ValueNode(0, "a", 2, (right, tried)))
        [of] = ValueTree("q", nodes).siblings(best, False)
        found.append([of.base, of.prover, of.prover_noise, of.shared_noise])
    base, prover, noise, shared = np.array(found)[:, :, 0].T
    truth = 1 - (1 - q) ** best
    np.testing.assert_allclose(chance @ prover, truth)
    np.testing.assert_allclose(chance @ noise, chance @ (prover - truth) ** 2)
    covariance = chance @ ((prover - truth) * (base - q))
    np.testing.assert_allclose(chance @ shared, covariance)


def _pair(rights, tried: int) -> ValueTree:
    children = [
        ValueNode(0, name, 1, (int(right), tried))
        for name, right in zip("ab", rights, strict=True)
    ]
    return ValueTree("q", [ValueNode(-1, "q", 2, (0, 0)), *children])


def test_a_prover_that_tells_nothing_apart_is_not_good():
    rng, best, tried = np.random.default_rng(0), 4, 8
    drawn = rng.binomial(tried, 0.1, (20_000, 2))  # both steps are worth 0.1
    states = [s for row in drawn for s in _pair(row, tried).siblings(best, False)]
    found = prover_statistics(states)
    assert abs(found.distinguishability) < 2e-3 and abs(found.alignment) < 1e-3
    few = prover_statistics(_pair((1, 2), tried - 1).siblings(best, False))
    assert few.reading.startswith("unknown: too few completions")
