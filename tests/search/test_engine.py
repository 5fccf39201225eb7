"""The engine on a solver whose distribution is known: what is drawn, what it cost."""

from __future__ import annotations

import dataclasses
import itertools
import math
import zlib
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from tiny_game import DOMAIN
from tiny_search import Answers, FakeSolver, FakeVerifier, distribution, engine, walk

from aprm_jax.jobs.search import _curve
from aprm_jax.oracle.answers import grade
from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.mcts import MCTS
from aprm_jax.search.methods import DVTS, Beam, BestOfN, Rebase
from aprm_jax.search.outcome import outcome
from aprm_jax.search.pick import anytime, candidates, pick
from aprm_jax.search.tree import ROOT, Tree
from aprm_jax.solvers.protocol import Solution, Written
from aprm_jax.solvers.stepwise import UncachedSolver
from aprm_jax.verifiers.protocol import Scale
from aprm_jax.verifiers.stepwise import OracleSteps

SAME = Answers().same_answer
QUESTIONS = [f"question {k}" for k in range(400)]
METHODS = [
    BestOfN(1),
    BestOfN(4),
    Beam(4, 2),
    Beam(9, 3),
    DVTS(4, 2),
    Rebase(4),
]
ALL = [*METHODS, MCTS(iterations=8)]


def share(steps) -> float:
    """A probability that differs from solution to solution."""
    return zlib.crc32(" ".join(steps).encode()) / (1 << 32)


def _found(tree, how="min"):
    return candidates(tree, Answers(), Scale.LOG_ODDS, Aggregation(how))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_verifier_that_tells_nothing_apart_chooses_a_plain_sample(method):
    """Not a short one, which arrives first, nor one that was drawn often."""
    trees = engine(method).search(QUESTIONS, 0)
    chosen = Counter()
    for tree in trees:
        best = pick(_found(tree), "best")
        assert best is not None
        chosen[best.steps] += 1
    expected = distribution()
    assert set(chosen) <= set(expected)
    counts = [chosen[s] for s in expected]
    shares = np.array(list(expected.values())) * len(trees)
    assert scipy.stats.chisquare(counts, shares).pvalue > 1e-3


def test_a_question_gets_the_same_whoever_is_beside_it():
    for method in ALL:
        many = engine(method, share).search(QUESTIONS[:20], 3)
        for k in (0, 7, 19):
            (alone,) = engine(method, share).search([QUESTIONS[k]], 3)
            assert repr(alone.nodes) == repr(many[k].nodes)
            assert _costs(alone) == _costs(many[k])
    other = engine(BestOfN(4)).search(QUESTIONS[:20], 4)
    first = engine(BestOfN(4)).search(QUESTIONS[:20], 3)
    assert repr([t.nodes for t in other]) != repr([t.nodes for t in first])


def _costs(tree):
    shared = ("seconds", "peak_kv_bytes")
    return {k: v for k, v in tree.ledger.to_json().items() if k not in shared}


def test_fewer_slots_are_the_first_of_more():
    (few,), (many,) = (engine(BestOfN(n)).search(["q"], 1) for n in (4, 16))
    of_few = {s: c.steps for c in _found(few) for s in c.slots}
    of_many = {s: c.steps for c in _found(many) for s in c.slots}
    assert len(of_few) == 4 and of_few == {s: of_many[s] for s in range(4)}


def test_equal_siblings_are_one_node_that_is_read_once_and_counts_as_many():
    verifier = FakeVerifier()
    (tree,) = engine(
        BestOfN(64),
        verifier=verifier,
        rule=lambda s: {"a": 1.0} if not s else {"= 1": 1.0},
    ).search(["q"], 0)
    assert len(tree.nodes) == 3 and tree[1].children == [2]
    assert verifier.read_steps == [("a",), ("a", "= 1")]
    (candidate,) = _found(tree)
    assert candidate.slots == tuple(range(64))
    assert tree.ledger.decoded == 128  # drawn they were


def test_rows_of_what_is_done_are_left_out():
    solver = FakeSolver()
    trees = engine(BestOfN(8), solver=solver).search(QUESTIONS[:5], 0)
    sizes = [len(call) for call in solver.calls]
    assert sizes[0] == 40 and sizes == sorted(sizes, reverse=True)
    drawn = sum(len(n.slots) for t in trees for n in t.nodes)
    assert sum(sizes) == drawn
    assert len(solver.begun) == 1  # nothing is read twice
    for call in solver.calls:
        assert not any(steps and steps[-1].startswith("=") for _, steps in call)


def test_the_ledger_counts_what_each_question_cost():
    trees = engine(BestOfN(8)).search(QUESTIONS[:5], 0)
    for tree in trees:
        ledger = tree.ledger
        assert ledger.decoded == sum(len(n.slots) for n in tree.nodes)
        assert ledger.prefilled == 1  # the question
        read = tree.nodes[1:]
        assert ledger.verifier_tokens == 1 + len(read)
        assert ledger.flops == 2.0 * (ledger.decoded + 1) + 4.0 * (1 + len(read))
        assert 800 < ledger.peak_kv_bytes <= 800 + 80 and ledger.seconds > 0
        assert ledger.oracle_calls == 0


def _cut(steps):
    """Half of the solutions are cut off in the middle of a step."""
    return {"= 1": 0.5, "a...": 0.5} if steps else {"a": 1.0}


@pytest.mark.parametrize("method", ALL[1:], ids=str)
def test_what_was_cut_off_never_wins(method):
    trees = engine(method, lambda s: 0.9, rule=_cut).search(QUESTIONS[:50], 0)
    for tree in trees:
        found = _found(tree)
        assert all(c.steps == ("a", "= 1") for c in found)
        cut = [n for n in tree.nodes if n.text == "a..."]
        assert all(not n.closed and math.isnan(n.score) for n in cut)
    assert any(n.text == "a..." for t in trees for n in t.nodes)


@pytest.mark.parametrize("method", ALL, ids=str)
@pytest.mark.parametrize("how", ["best", "vote", "majority"])
def test_no_whole_solution_is_no_answer(method, how):
    for rule in (
        lambda s: {"a": 1.0},  # goes on for ever
        lambda s: {"a...": 1.0},  # never closes a step
        lambda s: {},  # has no room for the question
        lambda s: {"a": 1.0} if not s else {},  # has none for a second step
        lambda s: {"=": 1.0},  # ends without an answer
    ):
        (tree,) = engine(method, rule=rule).search(["q"], 0)
        assert pick(_found(tree), how) is None
        points = anytime(tree, _found(tree), how, method.group, SAME)
        assert points and all(p["answer"] is None for p in points)
        assert max(n.depth for n in tree.nodes) <= 8


@pytest.mark.parametrize("how", ["best", "vote"])
def test_what_the_verifier_did_not_read_wins_by_no_score(how):
    def says(steps):
        return math.nan if "b" in steps else 0.2

    for method in ALL[1:]:
        for tree in engine(method, says).search(QUESTIONS[:30], 0):
            best = pick(_found(tree), how)
            assert best is None or "b" not in best.steps


def test_what_nobody_scored_has_no_score():
    """A row says null: 0 would be the verifier's word that it is wrong."""
    says = [None, lambda steps: math.nan]
    for verifier in (None, FakeVerifier(says[1])):
        searcher = engine(BestOfN(4), verifier=verifier)
        (tree,) = searcher.search(["q"], 0)
        row = outcome(tree, searcher, Answers(), "majority").to_json()
        assert row["answer"] is not None and row["score"] is None
        assert {c["score"] for c in row["candidates"]} == {None}
    searcher = engine(BestOfN(4), share)
    (tree,) = searcher.search(["q"], 0)
    row = outcome(tree, searcher, Answers(), "best").to_json()
    assert row["score"] == row["candidates"][0]["score"] > 0


def test_without_a_verifier_the_majority_wins():
    trees = engine(BestOfN(32), verifier=None).search(QUESTIONS[:30], 0)
    for tree in trees:
        found = candidates(tree, Answers(), None, Aggregation("min"))
        votes = Counter(float(c.answer or 0) for c in found for _ in c.slots)
        best = pick(found, "majority")
        assert best is not None and best.scores == ()
        assert votes[float(best.answer or 0)] == max(votes.values())
        assert tree.ledger.verifier_tokens == 0


def test_answers_are_grouped_by_what_they_mean():
    rule = {"= 1": 0.3, "= 1.0": 0.3, "= 2": 0.4}
    (tree,) = engine(BestOfN(500), rule=lambda s: rule).search(["q"], 0)
    found = _found(tree)
    for how in ("majority", "vote"):
        best = pick(found, how)
        assert best is not None and best.answer in ("1", "1.0")
    groups = {c.answer: c.group for c in found}
    assert groups["1"] == groups["1.0"] != groups["2"]


def test_a_vote_weighs_rewards_with_multiplicity():
    rule = {"= 1": 0.25, "= 2": 0.75}
    said = {"= 1": 0.9, "= 2": 0.2}
    (tree,) = engine(BestOfN(200), lambda s: said[s[-1]], rule=lambda s: rule).search(
        ["q"], 0
    )
    found = _found(tree)
    counts = {c.answer: len(c.slots) for c in found}
    assert 0.9 * counts["1"] > 0.2 * counts["2"] and counts["1"] < counts["2"]
    winners = {how: pick(found, how) for how in ("best", "vote", "majority")}
    picked = {how: winner and winner.answer for how, winner in winners.items()}
    assert picked == {"best": "1", "vote": "1", "majority": "2"}


def test_the_curve_of_independent_slots_is_what_smaller_searches_answer():
    (tree,) = engine(BestOfN(16), share).search(["q"], 5)
    points = anytime(tree, _found(tree), "best", 1, SAME)
    assert [p["slots"] for p in points] == [1, 2, 4, 8, 16]
    for point in points:
        (small,) = engine(BestOfN(point["slots"]), share).search(["q"], 5)
        best = pick(_found(small), "best")
        assert point["answer"] == (best and best.answer)
        assert point["tokens"] == small.ledger.decoded
    (tree,) = engine(DVTS(16, 4), share).search(["q"], 5)
    for point in anytime(tree, _found(tree), "best", 4, SAME):
        (small,) = engine(DVTS(point["slots"], 4), share).search(["q"], 5)
        best = pick(_found(small), "best")
        assert point["answer"] == (best and best.answer)
        assert point["tokens"] == small.ledger.decoded


def test_the_curve_of_a_beam_is_what_it_had_after_each_round():
    trees = engine(Beam(9, 3), share).search(QUESTIONS[:20], 0)
    for tree in trees:
        points = anytime(tree, _found(tree), "best", 0, SAME)
        tokens = [p["tokens"] for p in points]
        assert tokens == sorted(tokens) and tokens[-1] == tree.ledger.decoded
        best = pick(_found(tree), "best")
        assert points[-1]["answer"] == (best and best.answer)
        assert points[0]["rounds"] >= 2  # no solution has one step


def test_the_curve_knows_no_vote_that_was_cast_later():
    """MCTS* draws from a node again: an equal child of an earlier one is its vote."""
    tree = Tree("q", 8)
    drawn = [["= 1"], ["= 2", "= 2"], ["= 1", "= 1"]]
    for texts in drawn:
        for slot, text in enumerate(texts):
            tree.add(ROOT, 0, slot, Written(text, (0,), finished=True))
        tree.spent.append(0)
    found = candidates(tree, Answers(), None, Aggregation("min"))
    points = anytime(tree, found, "majority", 0, SAME)
    assert [(p["rounds"], p["answer"]) for p in points] == [
        (1, "1"),
        (2, "2"),
        (3, "1"),
    ]


class Spelt(Answers):
    """Answers compared as texts: "1/3" may stand for "0.333", not the reverse."""

    def same_answer(self, given: str | None, expected: str) -> bool:
        return grade(given, expected)


def _drawn(*rounds: list[str]) -> Tree:
    """A tree of solutions of one step, each by its slot."""
    tree = Tree("q", 8)
    for texts in rounds:
        for slot, text in enumerate(texts):
            tree.add(ROOT, 0, slot, Written(f"= {text}", (0,), finished=True))
        tree.spent.append(0)
    return tree


@pytest.mark.parametrize("order", [*itertools.permutations(["1/3", "0.333", "7", "7"])])
def test_a_majority_of_a_tree_depends_on_no_order(order):
    grader = Spelt()
    tree = _drawn([*order, "1/3", "0.333"])
    found = candidates(tree, grader, None, Aggregation("min"))
    best = pick(found, "majority")
    assert best is not None and best.answer == "1/3"
    # One node that was drawn twice has two votes.
    assert {c.answer: len(c.slots) for c in found} == {"1/3": 2, "0.333": 2, "7": 2}


def test_a_smaller_budget_counts_its_own_votes_together():
    """ "1/3", drawn last, speaks for nobody before; nor does it join their groups."""
    grader = Spelt()
    tree = _drawn(["0.333", "7", "0.333", "1/3"])
    found = candidates(tree, grader, None, Aggregation("min"))
    same = grader.same_answer
    points = anytime(tree, found, "majority", 1, same)
    assert [(p["slots"], p["answer"]) for p in points] == [
        (1, "0.333"),
        (2, "0.333"),
        (4, "1/3"),
    ]
    # "10%" goes with "10" as long as that has more votes.
    found = candidates(
        tree := _drawn(["10%", "10"], ["0.1", "0.1"], ["7", "7", "7"]),
        grader,
        None,
        Aggregation("min"),
    )
    points = anytime(tree, found, "majority", 0, same)
    for point, shown in zip(points, (2, 4, 7), strict=True):
        texts = ["10%", "10", "0.1", "0.1", "7", "7", "7"][:shown]
        alone = _drawn(texts)
        best = pick(candidates(alone, grader, None, Aggregation("min")), "majority")
        assert best is not None and point["answer"] == best.answer


@dataclasses.dataclass
class Ends:
    """A `Solver` whose next step is always this, cut off; None for no room."""

    text: str | None

    def solve(self, starts, count, key, *, max_steps, **options):
        more = () if self.text is None else (self.text,)
        return [
            [Solution(q, (*steps, *more), False, closed=False)] * count
            for q, steps in starts
        ]


@pytest.mark.parametrize("text", ["", "x"])
def test_an_empty_step_that_was_cut_off_is_no_lack_of_room(text):
    """A server tells no tokens: nothing but the step itself says that it was drawn."""
    solver = UncachedSolver.of(Ends(text))
    searcher = engine(BestOfN(4), verifier=None, solver=solver)
    (tree,) = searcher.search(["q"], 0)
    found = outcome(tree, searcher, Answers(), "majority")
    assert found.why == "no solution was concluded"
    assert [point["slots"] for point in found.curve] == [1, 2, 4]
    searcher = engine(BestOfN(4), verifier=None, solver=UncachedSolver.of(Ends(None)))
    (tree,) = searcher.search(["q"], 0)
    found = outcome(tree, searcher, Answers(), "majority")
    assert found.why == "the question does not fit the solver"


def test_the_curve_of_subtrees_has_no_budget_below_one():
    (none,) = engine(DVTS(8, 4), rule=lambda s: {}).search(["q"], 0)
    (some,) = engine(DVTS(8, 4), share).search(["q"], 0)
    curves = [
        [p | {"correct": False} for p in anytime(tree, _found(tree), "best", 4, SAME)]
        for tree in (none, some)
    ]
    assert set(_curve(curves)) == {"accuracy@4 slots", "accuracy@8 slots"}


def test_the_bare_questions_score_is_kept():
    (tree,) = engine(BestOfN(1), verifier=FakeVerifier(start=0.25)).search(["q"], 0)
    assert tree[ROOT].score == pytest.approx(math.log(0.25 / 0.75))
    assert sum(walk(()).values()) == 1.0


def test_the_oracle_reaches_the_ceiling_of_any_right_sample():
    """Also where a wrong step leads to the right answer, or a step is undecidable."""

    def rule(steps):
        if not steps:
            return {"2 + 12": 0.3, "2 + 7": 0.5, "what?": 0.2}
        return {"14": 0.2, "9": 0.5, "15": 0.3}

    def right(candidate):
        return DOMAIN.same_answer(candidate.answer, "14")

    verifier = OracleSteps(DOMAIN.oracle, {"2 + 3 * 4": "14"}, DOMAIN)
    solver = FakeSolver(rule, ends=DOMAIN.is_final)
    reached = []
    for n in (1, 2, 4, 8):
        search = engine(
            BestOfN(n),
            solver=solver,
            verifier=verifier,
            aggregation=Aggregation("last"),
        )
        shares = []
        for seed in range(60):
            (tree,) = search.search(["2 + 3 * 4"], seed)
            found = candidates(tree, DOMAIN, verifier.scale, search.aggregation)
            best = pick(found, "best")
            assert best is not None and right(best) == any(map(right, found))
            assert tree.ledger.oracle_calls <= len(tree.nodes)
            shares.append(right(best))
        reached.append(np.mean(shares))
    np.testing.assert_allclose(reached, 1 - 0.8 ** np.array([1, 2, 4, 8]), atol=0.15)
