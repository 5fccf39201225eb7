"""Methods on small trees whose every step was worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_search import FakeSolver, FakeVerifier, engine

from aprm_jax.search.aggregate import AGGREGATIONS, Aggregation
from aprm_jax.search.mcts import MCTS
from aprm_jax.search.methods import DVTS, Beam, BestOfN, Expand, Rebase, allocation
from aprm_jax.search.tree import ROOT, Tree
from aprm_jax.solvers.protocol import Written
from aprm_jax.verifiers.protocol import Scale, logit


class Played:
    """A policy, and the tree that it is played on; steps are given with a reward."""

    def __init__(self, method, max_steps=8):
        self.tree = Tree("q", max_steps)
        self.policy = method.search(self.tree)
        self.wanted = next(self.policy)

    def draw(self, *children: list[tuple[str, float]]) -> list[Expand] | None:
        """Gives each expansion its children; what the method wants next, or None."""
        new = []
        for expand, given in zip(self.wanted, children, strict=True):
            assert len(given) == len(expand.slots)
            nodes: dict[int, None] = {}
            for slot, (text, reward) in zip(expand.slots, given, strict=True):
                whole = not text.endswith("...")
                final = text.startswith("=")
                step = Written(text, (), (), whole, final)
                node = self.tree.add(expand.node, expand.lane, slot, step)
                if self.tree.is_usable(node):  # the engine scores no other
                    self.tree[node].reward = reward
                    self.tree[node].order = np.log(reward) if reward else -np.inf
                nodes[node] = None
            new.append(list(nodes))
        self.tree.spent.append(0)
        try:
            self.wanted = self.policy.send(new)
        except StopIteration:
            return None
        return self.wanted

    def named(self) -> list[tuple[str, list[int]]]:
        """What goes on: the steps up to it, and the slots of its children."""
        return [(" ".join(self.tree.steps(e.node)), list(e.slots)) for e in self.wanted]


def test_best_of_n_keeps_every_slot():
    play = Played(BestOfN(3))
    assert play.named() == [("", [0, 1, 2])]
    play.draw([("a", 0.1), ("b", 0.9), ("a", 0.1)])
    assert play.named() == [("a", [0, 2]), ("b", [1])]
    assert play.draw([("c", 0.5), ("= 1", 0.5)], [("d...", 0.5)])
    assert play.named() == [("a c", [0])]
    assert play.draw([("= 2", 0.5)]) is None


def test_a_beam_keeps_the_best_and_grows_each():
    play = Played(Beam(4, 2))
    assert play.named() == [("", [0, 1, 2, 3])]
    play.draw([("a", 0.3), ("b", 0.9), ("c", 0.5), ("d", 0.4)])
    # Two of four, best first, two children each.
    assert play.named() == [("b", [0, 1]), ("c", [2, 3])]
    assert [play.tree[n].dropped for n in range(1, 5)] == [True, False, False, True]
    play.draw([("e", 0.2), ("= 1", 0.8)], [("f", 0.6), ("g", 0.7)])
    # The whole solution keeps its place, which costs nothing: one goes on.
    assert play.named() == [("c g", [0, 1])]
    play.draw([("= 2", 0.1), ("h", 0.75)])
    assert play.named() == [("c g h", [0, 1])]
    # All the best are whole: the end. The others stay candidates.
    assert play.draw([("= 3", 0.74), ("i", 0.01)]) is None
    assert [play.tree[n].text for n in play.tree.finished()] == ["= 1", "= 2", "= 3"]


def test_equal_siblings_hold_a_place_each_in_a_beam():
    play = Played(Beam(6, 2))
    same = [("a", 0.9), ("b", 0.8), ("a", 0.9), ("c", 0.7), ("d", 0.1), ("e", 0.2)]
    play.draw(same)
    # Three places: two for "a", which gets four children.
    assert play.named() == [("a", [0, 1, 2, 3]), ("b", [4, 5])]
    play = Played(Beam(4, 2))
    play.draw([("a", 0.9)] * 4)
    assert play.named() == [("a", [0, 1, 2, 3])]


def test_a_beam_that_has_nothing_to_go_on_from_ends():
    play = Played(Beam(4, 2))
    assert play.draw([("a...", 0.9)] * 4) is None
    play = Played(Beam(4, 2), max_steps=1)
    assert play.draw([("a", 0.9)] * 4) is None


def test_subtrees_of_dvts_do_not_see_each_other():
    play = Played(DVTS(6, 2))
    assert [(e.lane, list(e.slots)) for e in play.wanted] == [
        (0, [0, 1]),
        (1, [2, 3]),
        (2, [4, 5]),
    ]
    # The worst subtree goes on too, and equal steps of two subtrees are two nodes.
    play.draw(
        [("a", 0.9), ("b", 0.8)], [("a", 0.1), ("c", 0.05)], [("d", 0.3), ("= 1", 0.4)]
    )
    assert [(e.lane, play.tree[e.node].text) for e in play.wanted] == [
        (0, "a"),
        (1, "a"),
    ]
    assert play.wanted[0].node != play.wanted[1].node
    # A subtree ends when its best is whole; the other goes on alone.
    play.draw([("= 2", 0.5), ("e", 0.4)], [("f", 0.2), ("f", 0.2)])
    assert [(e.lane, list(e.slots)) for e in play.wanted] == [(1, [2, 3])]
    assert play.draw([("= 3", 0.1), ("= 4", 0.2)]) is None
    assert len(play.tree.finished()) == 4


@pytest.mark.parametrize(
    ("rewards", "copies", "width", "expected"),
    [
        # exp(s / 0.2) is 90.02, 12.18, 1.65: shares .867, .117, .016.
        # ceil(8 x .867) = 7; of the 1 that is left ceil(.881) = 1; then nothing.
        ([0.9, 0.5, 0.1], [1, 1, 1], 8, [7, 1, 0]),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], 8, [2, 2, 2, 2]),
        ([0.5, 0.5, 0.5], [1, 1, 1], 8, [3, 3, 2]),  # ceil(2.67), ceil(5/2), 2
        ([0.5, 0.5], [2, 1], 6, [4, 2]),  # two copies get two shares
        ([0.9, 0.8], [1, 1], 1, [1, 0]),
        ([0.2], [3], 7, [7]),
        ([1.0, 0.0], [1, 1], 16, [16, 0]),  # ceil(16 x .9933)
    ],
)
def test_rebase_allocates_the_width(rewards, copies, width, expected):
    assert allocation(rewards, copies, width, 0.2) == expected


def test_an_allocation_spends_the_width_whatever_the_rewards():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 12))
        rewards = sorted(rng.random(n).tolist(), reverse=True)
        copies = rng.integers(1, 4, n).tolist()
        width = int(rng.integers(1, 40))
        for temperature in (1e-3, 0.2, 100.0):
            given = allocation(rewards, copies, width, temperature)
            assert sum(given) == width and min(given) >= 0


def test_rebase_spends_one_place_on_each_leaf_that_ended():
    play = Played(Rebase(8))
    play.draw([("a", 0.9)] + [("b", 0.5)] + [("= 1", 0.9)] * 3 + [("c...", 0.9)] * 3)
    # Six ended, two are left: ceil(2 x .881) = 2, then none.
    assert play.named() == [("a", [0, 1])]
    assert play.tree[2].dropped
    play.draw([("= 2", 0.9), ("d", 0.1)])
    assert play.named() == [("a d", [0])]
    assert play.draw([("= 3", 0.9)]) is None
    assert len(play.tree.finished()) == 3


def test_rebase_spends_nothing_on_what_was_not_read():
    """It can win by no score, nor can what follows it; a low score is better."""
    play = Played(Rebase(8))
    play.draw([("a", 0.2)] * 4 + [("b", 0.0)] * 4)
    assert play.named() == [("a", list(range(8)))]
    assert play.tree[2].dropped
    play = Played(Rebase(4))
    play.draw([("a", 0.0)] * 2 + [("b", 0.0)] * 2)
    assert play.named() == [("a", [0, 1]), ("b", [2, 3])]


# The guide of a whole search: one option, one other answer.
_PATHS = {
    ("a",): 0.6,
    ("a", "x"): 0.6,
    ("a", "x", "= 1"): 0.6,  # least 0.6, product 0.216, mean 0.6, last 0.6
    ("b",): 0.5,
    ("b", "x"): 0.95,
    ("b", "x", "= 2"): 0.7,  # 0.5, 0.333, 0.717, 0.7
    ("c",): 0.2,
    ("c", "x"): 0.2,
    ("c", "x", "= 3"): 0.99,  # 0.2, 0.04, 0.463, 0.99
    ("d",): 0.55,
    ("d", "x"): 1.0,
    ("d", "x", "= 4"): 0.58,  # 0.55, 0.319, 0.71, 0.58
}


def test_every_aggregation_changes_what_a_search_answers():
    def rule(steps):
        if not steps:
            return dict.fromkeys("abcd", 0.25)
        if len(steps) == 1:
            return {"x": 1.0}
        return {f"= {'abcd'.index(steps[0]) + 1}": 1.0}

    answers = {}
    for how in AGGREGATIONS:
        search = engine(
            BestOfN(32), _PATHS.__getitem__, rule=rule, aggregation=Aggregation(how)
        )
        (tree,) = search.search(["q"], 0)
        (best, *_) = tree.ranked(tree.finished())
        answers[how] = tree[best].text
    assert answers == {
        "min": "= 1",
        "product": "= 2",
        "mean": "= 2",
        "last": "= 3",
    }
    # Where the sums of logs and of probabilities part: one bad step of three.
    one_bad, even = [0.99, 0.05, 0.99], [0.4, 0.4, 0.4]
    order = {
        how: Aggregation(how)(Scale.LOG_ODDS, logit([one_bad, even]).tolist())[0]
        for how in ("product", "mean")
    }
    assert order["product"][0] < order["product"][1]
    assert order["mean"][0] > order["mean"][1]


def test_what_was_not_read_comes_last():
    order, reward = Aggregation("mean")(
        Scale.LOG_ODDS, [[np.nan, 9.0], [-9.0], [9.0, np.nan]]
    )
    assert order[0] == order[2] == -np.inf and order[1] > -np.inf
    assert reward[0] == reward[2] == 0.0


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_certainty_is_no_silence(how):
    """A probability of 0 or 1 is a score, also of several steps together."""
    paths = [[-np.inf, -np.inf], [0.0, 0.0], [np.nan, 0.0]]
    order, reward = Aggregation(how)(Scale.LOG_PROBABILITY, paths)
    assert order[1] > order[0] > order[2] == -np.inf
    assert reward == [0.0, 1.0, 0.0]


def test_an_unknown_aggregation_is_named():
    with pytest.raises(ValueError, match="'median' is none of min, product, mean"):
        Aggregation("median")


def _mcts(**changes) -> Played:
    options = {"iterations": 9, "branch": 2, "roll_steps": 1, "exploration": 0.5}
    return Played(MCTS(**(options | changes)))


def test_mcts_values_and_visits_by_hand():
    play = _mcts()
    assert play.named() == [("", [0, 1])]
    play.draw([("a", 0.6), ("b", 0.4)])
    # Rolls on from the best child. V(a) = (0.6 + 0.8) / 2 = 0.7; root: 0.7, 1 visit.
    assert play.named() == [("a", [0])]
    play.draw([("x", 0.8)])
    # b was never visited: 0.4 + 1 against 0.7 + 0.5 sqrt(2 ln 1 / 1) = 0.7.
    assert play.named() == [("b", [0, 1])] and play.wanted[0].anew
    play.draw([("c", 0.1), ("d", 0.3)])
    assert play.named() == [("b d", [0])]
    play.draw([("y", 0.1)])
    # V(d) = (0.3 + 0.1) / 2 = 0.2, V(b) = 0.2, V(root) = (0.7 + 0.2) / 2.
    # a: 0.7 + 0.5 sqrt(2 ln 2 / 1) beats b: 0.2 + the same.
    assert play.named() == [("a", [0, 1])]
    play.draw([("x", 0.8), ("z", 0.5)])
    # What was rolled before is now a child, and one node.
    assert [play.tree[n].text for n in play.tree[1].children] == ["x", "z"]
    assert play.named() == [("a x", [0])]
    assert not play.wanted[0].anew
    play.draw([("w", 1.0)])
    # V(x) = 0.9, V(a) = 0.9 with 2 visits, V(root) = (2 x 0.9 + 0.2) / 3 = 0.667.
    # a: 0.9 + 0.5 sqrt(2 ln 3 / 2) = 1.424; b: 0.2 + 0.5 sqrt(2 ln 3) = 0.941.
    # Below a: z unvisited 0.5 + 1 beats x: 0.9 + 0.5 sqrt(2 ln 2 / 1) = 1.489.
    assert play.named() == [("a z", [0, 1])]


def test_mcts_ends_at_a_whole_solution_that_is_good_enough():
    play = _mcts(end=0.9)
    play.draw([("= 1", 0.95), ("a", 0.2)])
    assert play.wanted == []  # nothing to roll: it keeps step with the others
    # "= 1" has a visit: 0.95 + 0.5 sqrt(2 ln 1) against 0.2 + 1 of the other.
    play.draw()
    assert play.named() == [("a", [0, 1])]
    play.draw([("b", 0.1), ("c", 0.1)])
    # Now "= 1" is chosen: 0.95 is enough.
    assert play.draw([("d", 0.1)]) is None


def test_mcts_goes_on_from_a_solution_that_is_not_good_enough():
    play = _mcts(end=0.99, iterations=4)
    play.draw([("= 1", 0.95), ("a", 0.2)])
    play.draw()
    play.draw([("b", 0.1), ("c", 0.1)])
    # Iteration 3 visits "= 1" without drawing, and 4 again: then it is over.
    assert play.draw([("d", 0.1)]) is None


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("lost", ["cut...", "a step too far"])
def test_what_was_cut_off_wins_no_roll(lost, place):
    """Nobody scores it, and it takes no part: the best of what is whole goes on."""
    options = {"iterations": 9, "branch": 2, "roll_branch": 2, "unvisited": 0.0}
    play = Played(MCTS(**options, roll_steps=1), max_steps=2)
    play.draw([("a", 0.6), ("b", 0.5)])
    drawn = [("= 1", 0.95)]
    drawn.insert(place, (lost, 0.0))
    play.draw(drawn)
    # V(a) = (0.6 + 0.95) / 2 = 0.775 beats b's 0.5; by what was cut off it were 0.3.
    assert play.named() == [("a", [0, 1])]
    play = Played(MCTS(**options, roll_steps=2))
    play.draw([("a", 0.6), ("b", 0.5)])
    drawn = [("x", 0.1)]
    drawn.insert(place, ("cut...", 0.0))
    play.draw(drawn)
    assert play.named() == [("a x", [0, 1])]


def test_mcts_does_not_go_on_for_ever_where_nothing_can():
    play = _mcts(iterations=50)
    assert play.draw([("a...", 0.0), ("b...", 0.0)]) == []
    assert play.draw() is None


def test_searches_of_mcts_keep_step_and_read_a_branch_anew():
    solver = FakeSolver(lambda steps: {"a": 0.5, "b": 0.5})
    search = engine(MCTS(iterations=6), solver=solver)
    search.search(["one", "two", "three"], 0)
    assert len(solver.begun) == 6
    for starts in solver.begun:
        assert [q for q, _ in starts] == ["one", "two", "three"]


def test_a_search_reads_each_new_step_once():
    verifier, solver = FakeVerifier(), FakeSolver()
    search = engine(Beam(4, 2), verifier=verifier, solver=solver)
    (tree,) = search.search(["q"], 0)
    assert len(verifier.read_steps) == len(set(verifier.read_steps))
    assert len(verifier.read_steps) == len(tree.nodes) - 1
    assert tree[ROOT].children
