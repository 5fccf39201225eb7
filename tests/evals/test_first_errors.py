"""First errors at several thresholds, their mean, and where thresholds come from."""

import numpy as np
import pytest
import scipy.special

from aprm_jax.evals import first_errors
from aprm_jax.evals.calibration import Platt
from aprm_jax.evals.processbench import processbench_score
from aprm_jax.evals.records import Record, Results
from aprm_jax.evals.validation import Chosen, choose
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.arithmetic import ArithmeticDomain

NAN = np.nan


def measured(split, scores, labels, thresholds):
    return Results(
        first_errors.first_error_records(split, "v", scores, labels, thresholds, 50)
    )


def value(found, metric, split="math"):
    return found.value("first_error", split, "v", metric)


def test_every_figure_stands_beside_its_threshold():
    scores = [np.array([0.9, 0.4]), np.array([0.6, 0.7]), np.array([0.3, NAN, NAN])]
    found = measured("math", scores, [1, -1, 2], {"": 0.65, "@0.5": 0.5})
    assert (value(found, "f1"), value(found, "threshold")) == (0.0, 0.65)
    assert value(found, "error_accuracy") == 0.5
    # Of the erroneous ones the second is found too early.
    assert value(found, "f1@0.5") == pytest.approx(2 / 3)
    assert value(found, "threshold@0.5") == 0.5
    assert value(found, "f1@hindsight") == pytest.approx(2 / 3)
    assert 0.4 < value(found, "threshold@hindsight") <= 0.6
    assert (value(found, "cut"), value(found, "unscored")) == (1, 0)
    assert value(found, "num_error") == 2 and value(found, "num_correct") == 1


def test_cutting_half_the_rows_gives_nothing_to_who_calls_everything_wrong():
    labels = [0, 0, -1, -1] * 5
    whole = [np.zeros(3) for _ in labels]
    cut = [np.full(3, NAN) if k % 2 else row for k, row in enumerate(whole)]
    for scores, unscored in ((whole, 0), (cut, 10)):
        found = measured("math", scores, labels, {"": 0.5})
        assert value(found, "f1") == 0.0
        assert value(found, "unscored") == value(found, "cut") == unscored
    assert value(found, "error_accuracy") == 0.5
    # And nothing is lost to who finds the error before the cut.
    early = [np.array([0.1, NAN]), np.array([0.9, 0.9])]
    assert value(measured("math", early, [0, -1], {"": 0.5}), "f1") == 1.0


def test_the_interval():
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 3, 500)
    guess = np.where(rng.random(500) < 0.6, truth, 3)
    interval = first_errors.f1_interval(guess, truth, 2000)
    assert interval.mean == processbench_score(guess, truth)["f1"]
    assert interval.low < interval.mean < interval.high
    # Half the width is near two standard errors of a share of 125 rows, about 0.08.
    assert 0.05 < interval.high - interval.low < 0.2


def _exact(hits, rows):
    return scipy.stats.binomtest(hits, rows).proportion_ci(0.95)


def _mean(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


@pytest.mark.parametrize(
    ("error_hits", "errors", "correct_hits", "corrects"),
    [(20, 20, 20, 20), (0, 20, 0, 20), (2, 2, 40, 40), (0, 9, 3, 9), (1, 1, 30, 40)],
)
def test_a_kind_that_is_all_right_or_all_wrong_has_an_exact_interval(
    error_hits, errors, correct_hits, corrects
):
    truth = np.array([0] * errors + [-1] * corrects)
    missed = [
        *(np.arange(errors) >= error_hits),
        *(np.arange(corrects) >= correct_hits),
    ]
    found = first_errors.f1_interval(np.where(missed, 5, truth), truth, 200)
    shares = [_exact(error_hits, errors), _exact(correct_hits, corrects)]
    ends = [_mean(*(getattr(s, end) for s in shares)) for end in ("low", "high")]
    f1 = _mean(error_hits / errors, correct_hits / corrects)
    assert (found.mean, found.low, found.high) == pytest.approx((f1, *ends))
    assert found.low < found.high  # however sure the rows look


def test_a_resample_without_a_kind_of_row_is_left_out():
    truth = np.array([0] * 3 + [-1] * 57)  # no erroneous row in 5 % of resamples
    guess = np.where(np.isin(np.arange(60), [0, 20, 30]), 5, truth)
    drawn = np.random.default_rng(0).integers(60, size=(500, 60))
    both = [rows for rows in drawn if (truth[rows] == 0).any()]
    assert 0.9 * 500 < len(both) < 500
    expected = [processbench_score(guess[r], truth[r])["f1"] for r in both]
    found = first_errors.f1_interval(guess, truth, 500)
    assert found.stderr == pytest.approx(np.std(expected))
    ends = np.quantile(expected, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    # Without a correct row, or with too few, nobody knows.
    for rows in (np.arange(3), np.array([0, 1, 21, 20])):
        none = first_errors.f1_interval(guess[rows], truth[rows], 100)
        assert np.isnan(none.low) and np.isnan(none.high)


def test_the_mean_says_which_splits_it_is_over():
    found = Results(
        Record("first_error", split, "a.b/c", metric, f1)
        for split, metric, f1 in (
            ("gsm8k", "f1", 0.6),
            ("math", "f1", 0.3),
            ("math", "f1@gsm8k", 0.5),
            ("omnimath", "f1", 0.0),
            ("omnimath", "f1@gsm8k", 0.1),
        )
    )
    splits = ["gsm8k", "math", "omnimath"]
    made = {(r.split, r.metric): r for r in first_errors.mean_records(found, splits)}
    assert made.keys() == {
        ("gsm8k+math+omnimath", "f1"),
        ("math+omnimath", "f1@gsm8k"),  # not on the split that it was tuned on
    }
    assert made["gsm8k+math+omnimath", "f1"].value == pytest.approx(0.3)
    assert made["math+omnimath", "f1@gsm8k"].value == pytest.approx(0.3)
    assert {r.verifier for r in made.values()} == {"a.b/c"}
    assert first_errors.mean_records(found, ["math"]) == []


def test_a_threshold_needs_rows_of_both_kinds():
    rows = [np.array([0.9, 0.2]), np.array([0.8, 0.9])] * 5
    labels = [1, -1] * 5
    assert first_errors.validation_threshold(rows, labels) == pytest.approx(0.5)
    assert first_errors.validation_threshold(rows[:9], labels[:9]) is None
    assert first_errors.validation_threshold(rows[::2], labels[::2]) is None


def test_without_enough_whole_solutions_the_calibration_decides():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    scores = rng.normal(2.0 * labels + 3.0, 1.0)  # even odds at 4
    chosen = choose(scores, labels, scipy.special.expit, "accuracy", ([], []))
    assert chosen.first_error == pytest.approx(scipy.special.expit(4.0), abs=5e-3)
    at = chosen.first_error_thresholds(scipy.special.expit, 0.25)
    assert at == {
        "": chosen.first_error,
        "@0.5": 0.5,
        "@platt": chosen.first_error,
        "@gsm8k": 0.25,
    }
    assert Chosen.from_json(chosen.to_json()) == chosen
    # Of one kind alone nothing is calibrated, and 0.5 is what is left.
    alone = choose(scores, np.ones(4000), scipy.special.expit, "accuracy", ([], []))
    assert alone.platt is None and alone.first_error == 0.5
    assert "@platt" not in alone.first_error_thresholds(scipy.special.expit)


@pytest.mark.parametrize("bias", [0.3, -0.3])
def test_a_calibration_without_slope_calls_all_steps_alike(bias):
    at = Chosen(platt=Platt(0.0, bias)).first_error_thresholds(scipy.special.expit)
    calls = np.array([0.0, 1.0]) >= at["@platt"]
    assert calls.tolist() == [bias > 0] * 2


@pytest.fixture(scope="module")
def located():
    domain = ArithmeticDomain(seed=0)
    problems = domain.problems("dev", 20)
    return (
        domain,
        problems,
        first_errors.located_errors(domain, domain.oracle, problems, seed=3),
    )


def _first(row):
    return row.labels.index(0.0) if 0.0 in row.labels else -1


def test_every_solution_is_there_once_without_an_error(located):
    _, problems, rows = located
    clean = [(row.question, row.steps) for row in rows if _first(row) == -1]
    assert clean == [(p.question, p.steps) for p in problems]


def test_a_located_error_is_the_only_step_that_was_changed_and_is_wrong(located):
    domain, problems, rows = located
    right = {p.question: p.steps for p in problems}
    wrong = [row for row in rows if _first(row) >= 0]
    assert len(wrong) > len(problems) / 2
    for row in wrong:
        k, given = _first(row), right[row.question]
        changed = [i for i, s in enumerate(row.steps) if s != given[i]]
        assert changed == [k]
        verdict = domain.oracle.judge(
            row.question, row.steps[:k], given[k], row.steps[k]
        )
        assert verdict.label == Label.INCORRECT


def test_the_corruptions_are_those_of_their_seed(located):
    domain, problems, rows = located
    again = first_errors.located_errors(domain, domain.oracle, problems, seed=3)
    assert repr(again) == repr(rows)  # NaN equals nothing
    assert repr(
        first_errors.located_errors(domain, domain.oracle, problems, seed=4)
    ) != repr(rows)
