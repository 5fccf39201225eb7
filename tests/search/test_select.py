"""Votes, best-of-n, and the estimators against enumeration of all subsets."""

import itertools

import numpy as np
import pytest

from aprm_jax.oracle.answers import grade
from aprm_jax.search import select


def test_majority():
    assert select.majority_vote(["3", "5", "5", "3", "7"]) == "3"  # tie: the first
    assert select.majority_vote([None, None, None, "7"]) == "7"
    assert select.majority_vote([None, None]) is None
    assert select.majority_vote([]) is None
    assert select.majority_of_n([["1", "2", "2"], ["4", "5", "5"]], 2) == ["1", "4"]


def test_a_vote_counts_answers_that_mean_the_same_together():
    spelled = ["3", r"\frac{1}{2}", "0.5", "3", "1/2", None, "$0.50"]
    assert select.majority_vote(spelled) == "3"
    assert select.majority_vote(spelled, grade) == r"\frac{1}{2}"
    assert select.weighted_vote(["2x", "1", "x+x"], [0.4, 0.5, 0.2], grade) == "2x"
    assert select.majority_of_n([["3", "0.5", "1/2"]], 3, grade) == ["0.5"]
    assert select.majority_of_n([["3", "0.5", "1/2"]], 3) == ["3"]


def test_a_vote_asks_once_about_a_pair_of_spellings():
    asked = []

    def same(a: str, b: str) -> bool:
        asked.append((a, b))
        return a.casefold() == b.casefold()

    assert select.majority_vote(["a", "B", "A", "b", "b"] * 9, same) == "b"
    # In either direction: A, B and a with b, a with A, and b with B and A with a for
    # which of them speaks.
    assert len(asked) == len(set(asked)) == 8


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        # grade("1/3", "0.333") holds, grade("0.333", "1/3") does not.
        ({"1/3": 2, "0.333": 2, "7": 3}, "1/3"),
        ({"1/3": 1, "0.333": 3, "7": 3}, "1/3"),
        ({"1/3": 1, "0.333": 1, "7": 3}, "7"),
        ({"pi": 1, "3.14": 2, "3": 2}, "pi"),
        # 10% is 10 or 0.1, which differ: it goes with the one that more say.
        ({"10%": 1, "10": 3, "0.1": 2, "7": 3}, "10"),
    ],
)
def test_a_vote_depends_on_no_order_of_the_candidates(votes, winner):
    cast = [answer for answer, count in votes.items() for _ in range(count)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        answers = [cast[k] for k in rng.permutation(len(cast))]
        assert select.majority_vote(answers, grade) == winner
        weights = [0.5] * len(answers)
        assert select.weighted_vote(answers, weights, grade) == winner


def _groups(cast, same, rng) -> frozenset[tuple[str, frozenset[str]]]:
    """Who speaks for whom, of answers in some order."""
    answers = [cast[k] for k in rng.permutation(len(cast))]
    alike = select.groups(answers, same)
    members: dict[str, set[str]] = {}
    for answer, place in zip(answers, alike, strict=True):
        assert place is not None and alike[place] == place
        members.setdefault(answers[place], set()).add(answer)
    return frozenset((who, frozenset(of)) for who, of in members.items())


def test_groups_and_who_speaks_for_them_depend_on_no_order():
    """Of a relation that is neither symmetric nor transitive."""
    rng = np.random.default_rng(0)
    cast = [f"n{k}" for k in range(8) for _ in range(k + 1)]
    pairs = list(itertools.permutations(sorted(set(cast)), 2))
    for _ in range(50):
        holds = {pair for pair in pairs if rng.random() < 0.2}

        def same(one: str, other: str, holds: set = holds) -> bool:
            return (one, other) in holds

        assert len({_groups(cast, same, rng) for _ in range(5)}) == 1


def test_votes_of_an_answer_may_be_counted_before():
    """Two candidates, of which one was drawn five times."""

    def same(one: str, other: str) -> bool:
        return (one, other) in {("a", "c"), ("b", "c")}

    assert select.groups(["a", "b", "c"], same) == [0, 1, 0]
    assert select.groups(["a", "b", "c"], same, votes=[1, 5, 1]) == [0, 1, 1]


def test_integers_of_many_values_are_not_asked_about():
    asked = []

    def same(a: str, b: str) -> bool:
        asked.append((a, b))
        return float(a) == float(b)

    answers = [str(k) for k in range(500)] + ["+7", "7.0", " 7", "7"]
    alike = select.groups(answers, same)
    assert alike[:500] == list(range(500)) and alike[500:] == [7, 7, 7, 7]
    # +7 and 7 are integers of one value; 7.0 is none, and may be any of the first.
    integers = {str(k) for k in range(500)} | {"+7"}
    assert {a for a in asked if {*a} <= integers} == {("+7", "7"), ("7", "+7")}
    assert len(asked) <= 2 * (2 + select.MOST_COMPARED)


@pytest.mark.parametrize("count", [100, 400])
def test_an_answer_is_compared_with_the_most_frequent_others_alone(count):
    asked = 0

    def same(a: str, b: str) -> bool:
        nonlocal asked
        asked += 1
        return a.casefold() == b.casefold()

    rare = [f"x_{k}" for k in range(count)]
    answers = [*rare, "Often", "Often", "oFTEN", "X_5", "often"]
    alike = select.groups(answers, same)
    often, late = answers.index("Often"), answers.index("X_5")
    assert [alike[k] for k in (-5, -4, -3, -1)] == [often] * 4
    # The sixth is among the 64 first of the rare ones.
    assert alike[late] == 5
    assert asked <= 2 * select.MOST_COMPARED * len(set(answers))
    few = select.groups(rare[:70], same)
    assert few == list(range(70))


def test_weights_that_are_no_numbers_abstain():
    nan = float("nan")
    assert select.heaviest([0, 1, 1, None], [0.5, nan, 0.4, 9.0]) == 0
    assert select.heaviest([0, 1, 1], [0.5, 0.3, 0.3]) == 1
    assert select.heaviest([None, 0], [1.0, nan]) is None


def test_weighted_vote():
    assert select.weighted_vote(["a", "b", "b"], [0.9, 0.4, 0.4]) == "a"
    assert select.weighted_vote(["a", "b", "b"], [0.7, 0.4, 0.4]) == "b"
    assert select.weighted_vote([None, "b"], [9.0, 0.0]) == "b"
    with pytest.raises(ValueError, match="nan"):
        select.weighted_vote(["a"], [float("nan")])
    with pytest.raises(ValueError, match="2 answers but 1"):
        select.weighted_vote(["a", "b"], [1.0])


def enumerate_best(scores, correct, n):
    values = []
    for subset in itertools.combinations(range(len(scores)), n):
        best = max(scores[i] for i in subset)
        top = [correct[i] for i in subset if scores[i] == best]
        # Nobody wins where nothing may.
        values.append(sum(top) / len(top) if best > -np.inf else 0)
    return np.mean(values)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_expectations_equal_enumeration(n):
    rng = np.random.default_rng(n)
    # Few distinct scores, so ties abound; -inf may never win, also alone.
    scores = rng.integers(0, 4, size=(20, 7)).astype(float)
    scores[0] = -np.inf
    scores[1:10][rng.random((9, 7)) < 0.5] = -np.inf
    correct = rng.integers(0, 2, size=(20, 7))
    expected = [enumerate_best(s, c, n) for s, c in zip(scores, correct, strict=True)]
    got = select.expected_best_of_n(scores, correct, n)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    passed = [
        np.mean([max(s) for s in itertools.combinations(row, n)]) for row in correct
    ]
    np.testing.assert_allclose(select.pass_at_n(correct, n), passed, atol=1e-12)


def test_limits():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 64))
    correct = rng.integers(0, 2, size=(50, 64))
    mean = correct.mean(axis=1)
    np.testing.assert_allclose(select.expected_best_of_n(scores, correct, 1), mean)
    chosen = np.take_along_axis(correct, scores.argmax(axis=1)[:, None], 1)[:, 0]
    np.testing.assert_allclose(select.expected_best_of_n(scores, correct, 64), chosen)
    # An oracle's scores reach pass@n.
    np.testing.assert_allclose(
        select.expected_best_of_n(correct.astype(float), correct, 8),
        select.pass_at_n(correct, 8),
    )


@pytest.mark.parametrize("n", [0, 5])
def test_impossible_n(n):
    with pytest.raises(ValueError, match="there are 4 samples"):
        select.expected_best_of_n(np.zeros(4), np.zeros(4), n)
    with pytest.raises(ValueError, match="there are 4 samples"):
        select.pass_at_n(np.zeros(4), n)
