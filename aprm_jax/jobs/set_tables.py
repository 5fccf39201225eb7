"""The tables of sets of labelled steps: single steps, first errors, categories."""

from __future__ import annotations

from aprm_jax.config import Config
from aprm_jax.evals import categories, first_errors, step_labels
from aprm_jax.evals.records import Results
from aprm_jax.jobs.step_data import CHANCE, DEV, PROCESSBENCH, TEST
from aprm_jax.jobs.verifier_tables import Figure, by_verifier, over
from aprm_jax.report.contents import Column, Table

# What a set is summed up by: the evaluator's set, metric, part, name of the column.
_MAIN = (
    (step_labels.SET, "auc", "", "step AUC"),
    (first_errors.SET, "f1", "", "F1"),
    (categories.SET, "score", categories.TOTAL, "PRM score"),
)


def set_names(config: Config) -> list[str]:
    """The sets that a run measures on."""
    if config.domain.name == "labelled":
        held = [] if config.domain.dev_count else [TEST]
        return held + [str(entry).partition("=")[0] for entry in config.evaluate.sets]
    return [PROCESSBENCH]


def overview(config: Config, results: Results, seeds: int = 1) -> Table:
    """A figure of every set, 95 % intervals, each with its threshold beside it."""
    units = over("questions and rows", seeds)
    figures = []
    for name in [*set_names(config), *_means(config, results)]:
        for set_, metric, part, heading in _MAIN:
            if name not in results.splits(set_):
                continue
            style = "number" if set_ == step_labels.SET else "percent"
            what = f"{name}: {heading}"
            if name not in set_names(config):
                what = f"mean of {name.replace('+', ', ')}"
            column = Column(what, style, share=True)
            figures.append(Figure(column, set_, name, metric, part))
            if style == "percent" and name in set_names(config):
                at = Column("threshold", "number", "", share=True)
                figures.append(Figure(at, set_, name, "threshold", part))
    return by_verifier(
        config,
        results,
        "Wrong steps found. Step AUC: a right step scores above a wrong one; F1: "
        f"ProcessBench's, on the first error; 95 % intervals over {units}. "
        "What was not scored counts as a miss.",
        figures,
    )


def _means(config: Config, results: Results) -> list[str]:
    """Splits that are means over several sets of first errors, the widest first."""
    sets = (*set_names(config), DEV)
    named = [s for s in results.splits(first_errors.SET) if s not in sets]
    return sorted(named, key=lambda name: -name.count("+"))


def set_table(config: Config, results: Results, name: str) -> Table:
    """Everything about one set."""
    makers = {
        step_labels.SET: _step_table,
        first_errors.SET: _first_error_table,
        categories.SET: _category_table,
    }
    for set_, make in makers.items():
        if name in results.splits(set_):
            return make(config, results, name)
    return Table(name, [], [])


def _step_table(config, results: Results, name: str) -> Table:
    chosen = [
        ("accuracy", Column("accuracy")),
        ("precision", Column("precision")),
        ("recall", Column("recall")),
        ("f1", Column("F1")),
        ("f1_correct", Column("F1 of right steps")),
        ("threshold", Column("threshold", "number", "", share=True)),
        ("auc", Column("AUC", "number", share=True)),
        ("ece", Column("ECE", "number", "min", share=True)),
        ("ece_calibrated", Column("ECE, calibrated", "number", "min", share=True)),
        ("unscored", Column("not scored", "count", "")),
    ]
    count = results.value(step_labels.SET, name, CHANCE, "count")
    share = results.value(step_labels.SET, name, CHANCE, "incorrect_share")
    return by_verifier(
        config,
        results,
        f"Single steps, {name}",
        [Figure(c, step_labels.SET, name, metric) for metric, c in chosen],
        f"{count:.0f} labelled steps, {share:.0%} of them wrong. Precision, recall and "
        "F1 are of catching wrong steps. Threshold (the best balanced accuracy) and "
        "calibration (Platt) from the dev questions. A step that does not fit a row is "
        "a miss; ECE is of the others.",
    )


# At which thresholds first errors are shown, and under which heading.
_AT = {
    first_errors.VALIDATION: "F1",
    first_errors.RAW: "F1 at 0.5",
    first_errors.PLATT: "F1 at 0.5, calibrated",
    first_errors.TUNED: "F1, tuned on gsm8k",
    first_errors.HINDSIGHT: "F1, best in hindsight",
}


def _first_error_table(config, results: Results, name: str) -> Table:
    figures = []
    for suffix, heading in _AT.items():
        best = "" if suffix == first_errors.HINDSIGHT else "max"
        columns = [(f"f1{suffix}", Column(heading, best=best))]
        if suffix != first_errors.RAW:
            at = Column("threshold", "number", "", share=True)
            columns.append((f"threshold{suffix}", at))
        if suffix == first_errors.VALIDATION:
            columns.append(("error_accuracy", Column("erroneous")))
            columns.append(("correct_accuracy", Column("correct")))
        figures += [Figure(c, first_errors.SET, name, m) for m, c in columns]
    cut = Column("cut", "count", "")
    figures.append(Figure(cut, first_errors.SET, name, "cut"))
    known = [f for f in figures if _measured(results, f)]
    return by_verifier(
        config,
        results,
        f"First errors, {name}",
        known,
        "F1, on erroneous and on correct solutions: at the threshold that is best on "
        "validation solutions that go up to their answer. Calibrated: Platt's fit on "
        "the validation steps. In hindsight: chosen on these rows, no result. Cut: "
        "solutions that do not fit a row; without an error found before, a miss.",
    )


def _measured(results: Results, figure: Figure) -> bool:
    return any(
        (r.set, r.split, r.metric) == (figure.set, figure.split, figure.metric)
        for r in results
    )


def first_error_means(config, results: Results) -> Table:
    """The mean over ProcessBench's splits that are there, at each threshold."""
    figures = []
    for name in _means(config, results):
        for suffix, heading in _AT.items():
            column = Column(f"{heading}: mean of {name.replace('+', ', ')}")
            figures.append(Figure(column, first_errors.SET, name, f"f1{suffix}"))
    known = [f for f in figures if _measured(results, f)]
    return by_verifier(config, results, "First errors, mean over the splits", known)


def _category_table(config, results: Results, name: str) -> Table:
    parts = results.parts(categories.SET, name)
    total = categories.TOTAL
    at = Column("threshold", "number", "", share=True)
    figures = [Figure(at, categories.SET, name, "threshold", total)]
    for suffix, where in (("", ""), (categories.OFFICIAL[0], " at 0.5")):
        metrics = {
            f"score{suffix}": Column(f"PRM score{where}"),
            f"f1_correct{suffix}": Column("F1 of right steps"),
            f"f1{suffix}": Column("F1 of wrong steps"),
            f"first_error{suffix}": Column("first error"),
            f"similarity{suffix}": Column("similarity", best=""),
        }
        figures += [
            Figure(column, categories.SET, name, metric, total)
            for metric, column in metrics.items()
        ]
    figures += [
        Figure(
            Column(f"{part.replace('_', ' ')} at 0.5"),
            categories.SET,
            name,
            f"score{categories.OFFICIAL[0]}",
            part,
        )
        for part in parts
        if part != total
    ]
    figures.append(
        Figure(
            Column("not scored", "count", ""), categories.SET, name, "unscored", total
        )
    )
    return by_verifier(
        config,
        results,
        f"Categories of errors, {name}",
        figures,
        "The benchmark's score: the mean of the F1 of right and of wrong steps; first "
        "error: of solutions whose first wrong step is called wrong; similarity: how "
        "far the share of accepted steps is from the original's. First at the "
        "validation threshold, then at the benchmark's own, 0.5, as every category is. "
        "A step without a score is a miss.",
    )
