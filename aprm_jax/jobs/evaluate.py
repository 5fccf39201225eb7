"""Evaluation: solver accuracy by method, steps, first errors, a fresh attacker.

A validation set chooses every threshold and every calibration: the dev questions of a
labelled domain; else what the solver samples on the dev split, judged by the oracle.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.evals import (
    categories,
    first_errors,
    outcome,
    pressure,
    selection,
    step_labels,
    step_sets,
    steps,
)
from aprm_jax.evals.records import (
    RESULTS,
    Record,
    Results,
    by_name,
    metric_records,
    write_results,
)
from aprm_jax.evals.step_sets import Judged, StepSet
from aprm_jax.evals.validation import Chosen, choose
from aprm_jax.files import atomic_write
from aprm_jax.jobs import samples, step_data
from aprm_jax.jobs.attack import attack_prm
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.parts import Part, arrays_path, keep, kept
from aprm_jax.jobs.records.evaluate import (
    OUTCOME,
    THRESHOLDS,
    attacked,
    measured,
    sampled,
    split_solvers,
)
from aprm_jax.jobs.step_data import DEV
from aprm_jax.jobs.verifier_tables import shown_aggregation
from aprm_jax.jobs.verifiers import model_scores, set_scores
from aprm_jax.solvers.protocol import Solution
from aprm_jax.verifiers.protocol import Scored, StepScores

DEV_PROBLEMS = 150  # enough for a threshold, the only thing that dev decides here
DEV_SAMPLES = 4
THRESHOLD_SEED = 1_000_033  # of the corruptions that a threshold is chosen on
_FOREIGN_DRAWS = 1000  # numbers of draws between two solvers


# `part(name, compute)` computes a part of an evaluation once, and keeps it.
Keeping = Callable[[str, Callable[[], Part]], Part]


def run(context: Context) -> dict[str, Any]:
    """Writes `results.json`, the same flat in `summary.json`, and `per_problem/`.

    Each split, set and attack is kept as it ends: a killed evaluation goes on there.
    """
    records = evaluate(context, functools.partial(keep, context))
    write_results(context.directory / RESULTS, records)
    _write_json(context.directory / "summary.json", by_name(records))
    return {}


def piece(context: Context, name: str) -> None:
    """Computes and keeps one of `records.evaluate.pieces`."""
    _pieces(context, functools.partial(keep, context))[name]()


def evaluate(context: Context, part: Keeping) -> list[Record]:
    """All records, part by part."""
    computed = _pieces(context, part)
    last = [attacked(name) for name in context.config.evaluate.attack_prms]
    attacks = [computed.pop(name) for name in last if name in computed]
    parts = [compute() for compute in computed.values()]
    parts += _measured_sets(context, part)
    parts += [compute() for compute in attacks]
    return [Record.from_json(row) for piece in parts for row in piece["records"]]


def _pieces(context: Context, part: Keeping) -> dict[str, Callable[[], Part]]:
    """What computes each of `records.evaluate.pieces`, or of labelled sets the first.

    Each calls the ones that it needs, which are kept.
    """
    c = context.config
    computed: dict[str, Callable[[], Part]] = {}

    def add(name: str, compute: Callable[[], Part]) -> None:
        computed[name] = functools.partial(part, name, compute)

    if c.domain.name == "labelled":
        add(THRESHOLDS, lambda: _labelled_dev(context))
        return computed
    splits = split_solvers(c)
    for name, (split, who) in splits.items():
        add(sampled(name), lambda s=split, w=who: _sampled(context, s, w))
    add(THRESHOLDS, lambda: _dev(context))
    for name, (split, who) in splits.items():
        drawn = computed[sampled(name)]
        add(
            name,
            lambda s=split, w=who, d=drawn: _split(
                context, s, w, d(), _chosen(computed[THRESHOLDS]())
            ),
        )
    if c.domain.model_solutions:
        add(OUTCOME, lambda: _outcome(context))
    for prm in c.evaluate.attack_prms:
        add(attacked(prm), lambda n=prm: attack_prm(context, n))
    return computed


def _chosen(dev: Part) -> dict[str, Chosen]:
    return {name: Chosen.from_json(row) for name, row in dev["chosen"].items()}


def _measured_sets(context: Context, part: Keeping) -> Iterator[Part]:
    """Each set in turn; the one that tunes the others' thresholds first."""
    chosen = _chosen(_pieces(context, part)[THRESHOLDS]())
    sets = step_data.evaluation_sets(context)
    if context.config.domain.name == "labelled":
        for data in (step_data.dev_set(context), *sets):
            samples.write_set(context.directory / "sets" / f"{data.name}.jsonl", data)
    done: dict[str, Part] = {}
    tuned: dict[str, float] = {}
    for data in sorted(sets, key=lambda data: not _tunes(data)):
        piece = part(data.name, lambda d=data, t=tuned: _measure(context, d, chosen, t))
        done[data.name] = piece
        tuned = tuned or piece.get("tuned", {})
    yield from (done[data.name] for data in sets)
    located = [data.name for data in sets if data.reader == step_sets.PROCESSBENCH]
    results = Results(
        Record.from_json(row) for piece in done.values() for row in piece["records"]
    )
    yield kept(first_errors.mean_records(results, located))


def _tunes(data: StepSet) -> bool:
    place = (step_sets.PROCESSBENCH, first_errors.TUNED_ON)
    return (data.reader, data.origin) == place


def _labelled_dev(context: Context) -> Part:
    """Thresholds and calibration, chosen on questions that nothing else sees."""
    data = step_data.dev_set(context)
    chosen: dict[str, Chosen] = {}
    records: list[Record] = []
    for name, said in set_scores(context, data).items():
        judged = step_sets.judged(data.rows, said.rows)
        scored = judged.labels[~np.isnan(judged.scores)]
        if len(set(scored.tolist())) < 2:
            log.warning(
                "%s: the dev split has labelled steps of one kind only (%d that fit a "
                "row): %s is read at 0.5, uncalibrated. Raise domain.dev_count",
                context.stage,
                len(scored),
                name,
            )
            chosen[name] = Chosen()
            continue
        stated = said.scale.probability
        rows = step_sets.first_error_rows(data.rows, said.probabilities())
        chosen[name] = choose(
            judged.scores, judged.labels, stated, "balanced_accuracy", rows
        )
        auc = steps.auc(judged.scores, judged.labels)
        records += _chosen_records(name, chosen[name])
        records += metric_records(step_labels.SET, DEV, name, {"auc": auc})
        wrong = float(sum(label >= 0 for label in rows[1]))
        counts = {"num_error": wrong, "num_correct": len(rows[1]) - wrong}
        records += metric_records(first_errors.SET, DEV, name, counts)
    return kept(records, chosen={k: v.to_json() for k, v in chosen.items()})


def _chosen_records(name: str, chosen: Chosen) -> list[Record]:
    steps_at = {"threshold": chosen.threshold}
    first_at = {"threshold": chosen.first_error}
    return [
        *metric_records(step_labels.SET, DEV, name, steps_at),
        *metric_records(first_errors.SET, DEV, name, first_at),
    ]


def _dev(context: Context) -> Part:
    """Thresholds, chosen on a split that no figure at a threshold is reported on."""
    c = context.config.evaluate
    if DEV in c.splits:
        log.warning(
            "%s: evaluate.splits has dev, whose problems choose the thresholds and the "
            "calibration: what depends on them is left out there",
            context.stage,
        )
    problems = context.domain.problems("dev", min(DEV_PROBLEMS, c.problems))
    solutions = samples.sample(context, 0, problems, DEV_SAMPLES) if c.splits else []
    scored = samples.sample_scores(context, solutions) if c.splits else {}
    located, located_scores = [], {}
    if step_data.evaluation_sets(context):
        # The solver's own samples will not do: of a weak one hardly any is right.
        domain = context.domain
        written = first_errors.located_errors(
            domain, domain.oracle, problems, THRESHOLD_SEED
        )
        located = [step_sets.benchmark_row(row) for row in written]
        located_scores = model_scores(context, [(r.question, r.steps) for r in located])
    chosen: dict[str, Chosen] = {}
    for name in dict.fromkeys([*scored, *located_scores]):
        stated = (located_scores or scored)[name].scale.probability
        rows, judged = None, Judged(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
        if located:
            said = located_scores[name]
            rows = step_sets.first_error_rows(located, said.probabilities())
            judged = step_sets.judged(located, said.rows)
        values, labels = judged.scores, judged.labels
        if scored:
            values, labels, _ = samples.judged_steps(
                context, solutions, scored[name].rows
            )
        chosen[name] = choose(values, labels, stated, "accuracy", rows)
    records = [r for name, c in chosen.items() for r in _chosen_records(name, c)]
    return kept(records, chosen={k: v.to_json() for k, v in chosen.items()})


def _sampled(context: Context, split: str, solver: str) -> Part:
    """What a solver writes for a split's problems: samples, and greedily.

    `solver` is one of `evaluate.solvers`; "" is the run's own.
    """
    c = context.config.evaluate
    problems = context.domain.problems(split, c.problems)
    draw = 1 + context.domain.splits.index(split)
    if solver:
        draw += _FOREIGN_DRAWS * (1 + c.solvers.index(solver))
    drawn = samples.sample(context, draw, problems, max(c.samples), solver=solver)
    greedy = samples.sample(context, 100 + draw, problems, 1, 0.0, solver)
    return kept([], samples=samples.to_json(drawn), greedy=samples.to_json(greedy))


def _split(
    context: Context,
    split: str,
    solver: str,
    drawn: Part,
    chosen: dict[str, Chosen],
) -> Part:
    """Every verifier's choice among what `_sampled` drew, and what its steps score."""
    c = context.config.evaluate
    problems = context.domain.problems(split, c.problems)
    solutions = samples.from_json(drawn["samples"], problems)
    greedy = samples.from_json(drawn["greedy"], problems)
    scored = samples.sample_scores(context, solutions, solver)
    rows = selection.table(
        context.domain,
        problems,
        solutions,
        {name: samples.log_scores(said) for name, said in scored.items()},
        c.aggregations,
        c.samples,
    )
    right = selection.correctness(context.domain, problems, greedy)[:, 0]
    rows["", "greedy"] = right.astype(np.float64)
    records = selection.solver_records(split, rows, c.bootstrap, solver)
    count = {"problems": float(len(problems))}
    records += metric_records(selection.SET, split, "", count, solver)
    if len(c.samples) > 1:
        records += pressure.pressure_records(
            split, rows, list(scored), c.aggregations, c.samples, c.bootstrap, solver
        )
    right = selection.correctness(context.domain, problems, solutions)
    winners = {}
    for name, said in scored.items():
        how = shown_aggregation(said.aggregation, c.aggregations)
        kinds, winners[name] = samples.wrong_winners(
            context, problems, solutions, right, {name: said}, how
        )
        records += pressure.winner_records(split, name, kinds, len(problems), solver)
        if not solver:
            records += _judged(context, split, name, solutions, said, chosen[name])
    name = measured(split, solver)
    _save_arrays(arrays_path(context.directory, name), rows)
    shown = samples.sample_examples(context, problems, solutions, scored)
    return kept(records, solutions=shown, winners=winners)


def _judged(
    context: Context,
    split: str,
    name: str,
    solutions: list[list[Solution]],
    said: Scored[list[StepScores]],
    chosen: Chosen,
) -> list[Record]:
    """A verifier on the single steps of what was sampled, and on each kind of error.

    Of dev, which chose it, nothing is at the threshold or calibrated.
    """
    raw, labels, kinds = samples.judged_steps(context, solutions, said.rows)
    if not len(labels):  # no step that the oracle can judge
        return []
    values, threshold = said.scale.probability(raw), chosen.threshold
    report = steps.classification_report(values, labels, threshold=threshold)
    if chosen.platt is not None:
        report["ece_calibrated"] = steps.reliability(chosen.platt(raw), labels).ece
    left_out = {*steps.AT_THRESHOLD, "ece_calibrated"} if split == DEV else set()
    by_kind = steps.per_kind_report(values, labels, kinds, threshold=threshold)
    records = []
    for set_, kind, metrics in (
        (step_labels.SET, "", report),
        *(("kinds", kind, metrics) for kind, metrics in by_kind.items()),
    ):
        kept_ = {k: v for k, v in metrics.items() if k not in left_out}
        records += metric_records(set_, split, name, kept_, part=kind)
    return records


def _outcome(context: Context) -> Part:
    """AUC of the outcome on graded solutions that other models wrote."""
    graded = step_data.read_graded(context)
    records: list[Record] = []
    for name, said in model_scores(
        context, [(s.question, s.steps) for s in graded]
    ).items():
        made = outcome.outcome_records(
            name,
            said.rows,
            [s.is_correct for s in graded],
            [s.model for s in graded],
            [s.question for s in graded],
        )
        records += made
        log.info(
            "%s: outcome of %d solutions from %s: AUC %.3f",
            context.stage,
            len(graded),
            name,
            made[0].value,
        )
    return kept(records)


def _measure(
    context: Context,
    data: StepSet,
    chosen: dict[str, Chosen],
    tuned: dict[str, float],
) -> Part:
    """Every verifier on one set, by the evaluator of the set's kind."""
    scores = set_scores(context, data)
    records: list[Record] = []
    more: dict[str, Any] = {"reliability": {}}
    for name, said in scores.items():
        # Whoever gave no scores for the dev questions is read at 0.5, uncalibrated.
        choice = chosen.get(name, Chosen())
        values = said.probabilities()
        if data.kind == step_sets.STEPS:
            records += _steps(context, data, name, said, choice, more["reliability"])
        elif data.kind == step_sets.CATEGORIES:
            at = {"": choice.threshold}
            records += categories.category_records(data, name, values, at)
        else:
            mine = data.reader == step_sets.PROCESSBENCH
            at = choice.first_error_thresholds(
                said.scale.probability, tuned.get(name) if mine else None
            )
            records += first_errors.first_error_records(
                data.name,
                name,
                values,
                data.first_errors,
                at,
                context.config.evaluate.bootstrap,
            )
    if _tunes(data):
        results = Results(records)
        best = f"threshold{first_errors.HINDSIGHT}"
        more["tuned"] = {
            name: results.value(first_errors.SET, data.name, name, best)
            for name in scores
        }
    _log_results(context.stage, data, Results(records))
    return kept(records, solutions=samples.set_examples(data, scores), **more)


def _steps(
    context: Context,
    data: StepSet,
    name: str,
    said: Scored[StepScores],
    chosen: Chosen,
    diagrams: dict[str, Any],
) -> list[Record]:
    judged = step_sets.judged(data.rows, said.rows)
    if np.isnan(judged.scores).all():
        raise JobError(f"{data.name}: no labelled step fits a row: raise the buckets")
    stated = said.scale.probability
    diagrams[name] = step_labels.diagrams(judged, stated, chosen.platt)
    return step_labels.step_records(
        data.name,
        name,
        judged,
        stated,
        chosen.threshold,
        chosen.platt,
        context.config.evaluate.bootstrap,
    )


_LOGGED = {
    step_sets.STEPS: (step_labels.SET, "", ("auc", "accuracy", "f1", "unscored")),
    step_sets.CATEGORIES: (
        categories.SET,
        categories.TOTAL,
        ("score", "threshold", "score@0.5", "unscored"),
    ),
    step_sets.FIRST_ERROR: (
        first_errors.SET,
        "",
        (
            "f1",
            "threshold",
            "f1@0.5",
            "f1@platt",
            "threshold@platt",
            "f1@gsm8k",
            "threshold@gsm8k",
            "cut",
        ),
    ),
}


def _log_results(stage: str, data: StepSet, results: Results) -> None:
    """A line a verifier: figures, each with its threshold."""
    set_, part, metrics = _LOGGED[data.kind]
    for name in dict.fromkeys(record.verifier for record in results):
        known = [results.find(set_, data.name, name, m, part) for m in metrics]
        text = ", ".join(f"{r.metric} {r.value:.4g}" for r in known if r)
        log.info("%s: %s, %s: %s", stage, data.name, name, text)


def _save_arrays(path: Path, arrays: dict[selection.Method, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    plain: dict[str, Any] = {
        selection.label(method): np.asarray(v) for method, v in arrays.items()
    }
    np.savez_compressed(buffer, **plain)
    atomic_write(path, buffer.getvalue())


def _write_json(path: Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=1, sort_keys=True))
