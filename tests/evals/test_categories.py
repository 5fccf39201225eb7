"""PRMBench's metrics, against its own code's arithmetic written out again."""

import numpy as np
import pytest

from aprm_jax.data.labelled import from_labels
from aprm_jax.evals import step_sets
from aprm_jax.evals.categories import category_records
from aprm_jax.evals.records import Results


def row(category, name, labels):
    return from_labels(
        "q",
        "abcdefgh"[: len(labels)],
        [float(v) for v in labels],
        category=category,
        problem_id=name,
    )


def measured(rows, scores, threshold=0.5):
    data = step_sets.step_set("bench", "prmbench", rows)
    results = Results(category_records(data, "v", scores, {"": threshold}))
    return data, lambda part, metric: results.value(
        "category", "bench", "v", metric, part
    )


def test_categories_are_scored_as_the_benchmark_does():
    data, found = measured(
        [
            row("circular", "1", [1, 0, 0]),
            row("circular", "1", [1, 0, 0]),  # an id counts once
            row("multi_solutions", "1", [1, 1]),
            row("correct", "1", [1, 1]),
        ],
        [np.array([0.9, 0.8, 0.1]), np.array([0.9, 0.2]), np.array([0.1, 0.1])],
    )
    assert data.categories == ("circular", "multi_solutions", "correct")
    # circular: right 1/2 precision, 1 recall; wrong 1 precision, 1/2 recall.
    assert found("circular", "score") == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found("multi_solutions", "score") == pytest.approx(2 / 3)
    # All: TP 2, FP 1, FN 1, TN 1, the originals apart.
    assert found("all", "f1_correct") == pytest.approx(2 * 2 / (2 * 2 + 2))
    assert found("all", "f1") == pytest.approx(2 / (2 + 2))
    assert found("all", "score") == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found("all", "count") == 5 and found("correct", "accuracy") == 0
    # The first wrong step, of 0.8, passes; no original step is accepted.
    assert found("circular", "first_error") == 0
    assert np.isnan(found("circular", "similarity"))


def official(data, scores, threshold):
    """The benchmark's `evaluate_function` written out: per category and total."""
    accepted = {
        r.problem_id: np.mean(s > threshold)
        for r, c, s in zip(data.rows, data.categories, scores, strict=True)
        if c == "correct"
    }
    pools: dict[str, list] = {}
    for r, c, s in zip(data.rows, data.categories, scores, strict=True):
        positive, wrong = s > threshold, np.array(r.labels) == 0
        counts = (
            np.sum(positive & ~wrong),
            np.sum(positive & wrong),
            np.sum(~positive & wrong),
            np.sum(~positive & ~wrong),
        )
        first = [float(not positive[np.argmax(wrong)])] if wrong.any() else []
        same = accepted.get(r.problem_id)
        near = [abs(np.mean(positive) - same)] if same and c != "correct" else []
        for name in [c] if c == "correct" else [c, "total"]:
            pools.setdefault(name, []).append((counts, first, near))
    out = {}
    for name, found in pools.items():
        tp, fp, tn, fn = np.sum([c for c, _, _ in found], axis=0)
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        out[name] = {"f1_correct": 2 * precision * recall / (precision + recall)}
        if tn:
            precision, recall = tn / (tn + fn), tn / (tn + fp)
            out[name]["f1"] = 2 * precision * recall / (precision + recall)
        for metric, k in (("first_error", 1), ("similarity", 2)):
            values = [v for item in found for v in item[k]]
            if values:
                out[name][metric] = np.mean(values)
    return out


@pytest.mark.parametrize("seed", range(3))
def test_all_metrics_equal_the_benchmarks_own(seed):
    rng = np.random.default_rng(seed)
    kinds = ["circular", "redundency", "deception", "correct", "multi_solutions"]
    rows = []
    for name in range(12):
        for kind in kinds:
            labels = (rng.random(rng.integers(2, 8)) < 0.6).astype(float)
            if kind in ("correct", "multi_solutions"):
                labels[:] = 1
            rows.append(row(kind, str(name), labels))
    scores = [np.round(rng.random(len(r.steps)), 1) for r in rows]  # 0.5 among them
    data, found = measured(rows, scores, threshold=0.65)
    for suffix, threshold in (("", 0.6499999), ("@0.5", 0.5)):
        for name, metrics in official(data, scores, threshold).items():
            part = "all" if name == "total" else name
            for metric, value in metrics.items():
                assert found(part, metric + suffix) == pytest.approx(value), metric
    assert found("all", "threshold@0.5") == pytest.approx(0.5)
    assert found("all", "threshold") == 0.65


def test_a_step_without_a_score_is_a_miss_and_counted():
    nan = np.nan
    rows = [row("circular", "1", [1, 0, 0]), row("correct", "1", [1, 1])]
    _, whole = measured(rows, [np.array([0.9, 0.1, 0.1]), np.array([0.9, 0.9])])
    _, cut = measured(rows, [np.array([0.9, nan, nan]), np.array([0.9, 0.9])])
    assert whole("circular", "score") == whole("circular", "first_error") == 1.0
    assert cut("circular", "f1") == cut("circular", "first_error") == 0.0
    assert cut("circular", "accuracy") == pytest.approx(1 / 3)
    assert (cut("circular", "unscored"), whole("circular", "unscored")) == (2, 0)
    assert np.isnan(cut("circular", "similarity"))  # its share is not known


def test_a_solution_without_errors_has_no_first_error():
    _, found = measured([row("multi_solutions", "1", [1, 1])], [np.ones(2)])
    assert np.isnan(found("multi_solutions", "first_error"))
    assert np.isnan(found("multi_solutions", "similarity"))
