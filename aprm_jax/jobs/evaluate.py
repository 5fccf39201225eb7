"""Evaluation: solver accuracy by method, step classification, a fresh attacker."""

from __future__ import annotations

import functools
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from aprm_jax.data.domain import Problem
from aprm_jax.data.gsm8k import ModelSolution, read_model_solutions
from aprm_jax.evals import intervals, outcome, processbench, selection, steps
from aprm_jax.evals.robustness import attack
from aprm_jax.game.rounds import GameConfig
from aprm_jax.jobs import evaluate_labelled
from aprm_jax.jobs.context import Context, log
from aprm_jax.models.lora import LoraConfig
from aprm_jax.search.aggregate import log_sigmoid
from aprm_jax.search.solve import Solution, sample_solutions
from aprm_jax.training.workdir import atomic_write
from aprm_jax.verifiers.monte_carlo import LabelledStep, oracle_labels
from aprm_jax.verifiers.scoring import likelihood_scorer, prm_scorer

DEV_PROBLEMS = 150  # enough for a threshold, the only thing that dev decides here
DEV_SAMPLES = 4
LIKELIHOOD = "likelihood"
THRESHOLD_SEED = 1_000_033  # of the corruptions that a threshold is chosen on
ATTACK_SEED = 1_000_003  # no training run uses it

# [problem][sample] -> log-scale score of each step
Scores = list[list[np.ndarray]]


def run(context: Context) -> dict[str, Any]:
    """Writes `summary.json` (flat), `per_problem.npz` and `solutions.json`.

    Each split and each attack is kept as it ends: a killed evaluation goes on there.
    """
    c = context.config.evaluate
    if context.config.domain.name == "labelled":
        summary = evaluate_labelled.run(context, functools.partial(_part, context))
        _write_json(context.directory / "summary.json", summary)
        return {}
    dev = _part(context, "thresholds", lambda: _dev(context))
    parts = [dev]
    for split in c.splits:
        parts.append(_part(context, split, lambda s=split: _split(context, s, dev)))
    if context.config.domain.model_solutions:
        parts.append(_part(context, "outcome", lambda: _outcome(context)))
    if context.config.domain.processbench:
        parts.append(
            _part(context, "processbench", lambda: _processbench(context, dev))
        )
    for name in c.attack_prms:
        parts.append(
            _part(context, f"attack_{name}", lambda n=name: _attack(context, n))
        )
    summary = {k: v for part in parts for k, v in part["summary"].items()}
    _write_json(context.directory / "summary.json", summary)
    return {}


def _part(context: Context, name: str, compute) -> dict[str, Any]:
    """A piece of the evaluation, computed once and kept."""
    path = context.directory / "parts" / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    log.info("%s: %s", context.stage, name)
    start = time.perf_counter()
    part = compute()
    part["seconds"] = time.perf_counter() - start
    path.parent.mkdir(exist_ok=True)
    _write_json(path, part)
    return part


def _dev(context: Context) -> dict[str, Any]:
    """Thresholds, chosen on a split that nothing else is reported on."""
    c = context.config.evaluate
    problems = context.domain.problems("dev", min(DEV_PROBLEMS, c.problems))
    summary = {}
    solutions = _sample(context, 0, problems, DEV_SAMPLES) if c.splits else []
    scored = _scores(context, solutions) if c.splits else {}
    for name, scores in scored.items():
        values, labels, _ = _labelled(context, solutions, scores, name)
        summary[f"steps.dev.{name}.threshold"] = (
            steps.best_threshold(values, labels, "accuracy") if len(labels) else 0.5
        )
    if context.config.domain.processbench:
        summary |= _first_error_thresholds(context, problems)
    return {"summary": summary}


def _split(context: Context, split: str, dev: dict[str, Any]) -> dict[str, Any]:
    c = context.config.evaluate
    problems = context.domain.problems(split, c.problems)
    draw = 1 + context.domain.splits.index(split)
    solutions = _sample(context, draw, problems, max(c.samples))
    greedy = _sample(context, 100 + draw, problems, 1, temperature=0.0)
    scored = _scores(context, solutions)
    log_scores = {
        name: [[log_sigmoid(s) for s in row] for row in scores]
        if name != LIKELIHOOD
        else scores
        for name, scores in scored.items()
    }
    rows = selection.table(
        context.domain, problems, solutions, log_scores, c.aggregations, c.samples
    )
    rows["greedy"] = selection.correctness(context.domain, problems, greedy)[:, 0]
    summary = {}
    for name, values in rows.items():
        interval = intervals.bootstrap(
            np.asarray(values, np.float64), resamples=c.bootstrap
        )
        summary[f"solver.{split}.{name}"] = interval.mean
        summary[f"solver.{split}.{name}.low"] = interval.low
        summary[f"solver.{split}.{name}.high"] = interval.high
    for name, scores in scored.items():
        values, labels, kinds = _labelled(context, solutions, scores, name)
        if not len(labels):
            continue  # no step that the oracle can judge
        threshold = dev["summary"][f"steps.dev.{name}.threshold"]
        report = steps.classification_report(values, labels, threshold=threshold)
        for metric, value in report.items():
            summary[f"steps.{split}.{name}.{metric}"] = value
        by_kind = steps.per_kind_report(values, labels, kinds, threshold=threshold)
        for kind, metrics in by_kind.items():
            for metric, value in metrics.items():
                summary[f"kinds.{split}.{name}.{kind}.{metric}"] = value
    _save_arrays(context.directory / "per_problem" / f"{split}.npz", rows)
    return {
        "summary": summary,
        "solutions": _examples(context, problems, solutions, scored),
    }


def _sample(
    context: Context,
    draw: int,
    problems: Sequence[Problem],
    count: int,
    temperature: float | None = None,
) -> list[list[Solution]]:
    c = context.config
    context = context.solver(c.evaluate.solver)
    solver, _ = context.load(c.evaluate.solver, "evaluate.solver", "solver")
    return sample_solutions(
        context.sampler,
        solver["backbone"],
        context.domain,
        context.builder,
        [(p.question, ()) for p in problems],
        count,
        context.key(20, draw),
        max_steps=c.builder.max_steps,
        temperature=c.evaluate.temperature if temperature is None else temperature,
    )


def _scores(context: Context, solutions: list[list[Solution]]) -> dict[str, Scores]:
    """Step scores of every verifier: log-odds, for the likelihood log p."""
    flat = [(s.question, s.steps) for row in solutions for s in row]
    out = {}
    for name, values in _scores_of(context, flat).items():
        scores = iter(values)
        out[name] = [[next(scores) for _ in row] for row in solutions]
    return out


def _scores_of(
    context: Context, solutions: Sequence[tuple[str, Sequence[str]]]
) -> dict[str, list[np.ndarray]]:
    """The same for any solutions; those that do not fit are scored up to there."""
    c = context.config.evaluate
    flat = [_scorable(context, *solution) for solution in solutions]
    out = {}
    for name in (*([LIKELIHOOD] if c.solver else []), *c.prms):
        if name == LIKELIHOOD:
            writer = context.solver(c.solver)
            params, _ = writer.load(c.solver, "evaluate.solver", "solver")
            scorer = writer.scorer(likelihood_scorer(writer.decoder))
        else:
            judge = context.of("prm")
            params, spec = judge.load(name, "evaluate.prms", "prm")
            assert spec.reading is not None
            scorer = judge.scorer(prm_scorer(judge.decoder, spec.reading))
        out[name] = scorer.solutions(params, flat)
    return out


def _scorable(
    context: Context, question: str, steps: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """A solution without the steps from the first that does not fit a row."""
    solver = context.solver(context.config.evaluate.solver)
    builders = {solver.builder, context.of("prm").builder}
    for k, step in enumerate(steps):
        if not all(b.fits(b.step(question, steps[:k], step)) for b in builders):
            return question, tuple(steps[:k])
    return question, tuple(steps)


def _labelled(
    context: Context, solutions: list[list[Solution]], scores: Scores, name: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities, labels and kinds of the distinct judged steps of all samples."""
    values: dict[tuple, tuple[float, LabelledStep]] = {}
    for row, row_scores in zip(solutions, scores, strict=True):
        for solution, step_scores in zip(row, row_scores, strict=True):
            judged = oracle_labels([solution], context.domain)
            for step, score in zip(judged, step_scores, strict=False):
                key = (step.question, step.prefix, step.step)
                values[key] = (float(score), step)
    raw = np.array([score for score, _ in values.values()])
    labels = np.array([int(step.label) for _, step in values.values()])
    kinds = [step.kind for _, step in values.values()]
    return _probability(name, raw), labels, kinds


def _probability(name: str, scores: np.ndarray) -> np.ndarray:
    """What `_scores` gives, as probabilities of "correct"."""
    scores = np.asarray(scores, np.float64)
    return np.exp(scores) if name == LIKELIHOOD else scipy.special.expit(scores)


def read_graded(context: Context) -> list[ModelSolution]:
    """The file `domain.model_solutions`, its first `evaluate.graded` solutions."""
    c = context.config.domain
    rows = read_model_solutions(
        c.model_solutions,
        strip_annotations=c.strip_annotations,
        quarantine_dir=context.root / "quarantine",
        max_bad_share=c.max_bad_share,
    )
    return rows[: context.config.evaluate.graded or None]


def read_located(context: Context) -> list[processbench.ProcessBenchRow]:
    """The file `domain.processbench`."""
    c = context.config.domain
    return processbench.read_processbench(
        c.processbench,
        quarantine_dir=context.root / "quarantine",
        max_bad_share=c.max_bad_share,
    )


def _outcome(context: Context) -> dict[str, Any]:
    """AUC of the outcome on graded solutions that other models wrote."""
    graded = read_graded(context)
    scored = _scores_of(context, [(s.question, s.steps) for s in graded])
    summary = {}
    for name, scores in scored.items():
        report = outcome.outcome_report(
            scores, [s.is_correct for s in graded], [s.model for s in graded]
        )
        summary |= {f"outcome.{name}.{k}": v for k, v in report.items()}
        log.info(
            "%s: outcome of %d solutions from %s: AUC %.3f",
            context.stage,
            len(graded),
            name,
            report["auc"],
        )
    return {"summary": summary}


def _processbench(context: Context, dev: dict[str, Any]) -> dict[str, Any]:
    """ProcessBench's metric, thresholds from the dev split."""
    rows = read_located(context)
    solutions = [(row.problem, row.steps) for row in rows]
    scored = _scores_of(context, solutions)
    first = next(iter(scored.values()))  # all are cut alike
    cut = sum(len(a) < len(b) for a, (_, b) in zip(first, solutions, strict=True))
    summary = {"processbench.count": float(len(rows)), "processbench.cut": float(cut)}
    for name, scores in scored.items():
        report = outcome.first_error_report(
            [_probability(name, row) for row in scores],
            [row.label for row in rows],
            dev["summary"][f"processbench.{name}.threshold"],
        )
        summary |= {f"processbench.{name}.{k}": v for k, v in report.items()}
        log.info(
            "%s: ProcessBench, %s: F1 %.3f at threshold %.4g (accuracy on erroneous "
            "%.3f, on correct %.3f)",
            context.stage,
            name,
            report["f1"],
            report["threshold"],
            report["error_accuracy"],
            report["correct_accuracy"],
        )
    return {"summary": summary}


def _first_error_thresholds(
    context: Context, problems: Sequence[Problem]
) -> dict[str, float]:
    """For ProcessBench: the best ones on corrupted solutions of the dev split.

    The solver's own samples will not do: of a weak solver hardly one is without error.
    """
    rows = outcome.located_errors(context.domain, problems, THRESHOLD_SEED)
    scored = _scores_of(context, [(question, steps) for question, steps, _ in rows])
    thresholds = {}
    for name, scores in scored.items():
        known = [
            (_probability(name, values), label)
            for values, (_, _, label) in zip(scores, rows, strict=True)
            if label < len(values)
        ]
        thresholds[f"processbench.{name}.threshold"] = processbench.best_threshold(
            *map(list, zip(*known, strict=True))
        )
    return thresholds


def _attack(context: Context, name: str) -> dict[str, Any]:
    c = context.config
    generator, _ = context.of("generator").load(
        c.game.generator_from, "game.generator_from", "generator"
    )
    prm, spec = context.of("prm").load(name, "evaluate.attack_prms", "prm")
    config = GameConfig.of(
        c.game,
        updates=c.evaluate.attack_updates,
        generator_learning_rate=c.evaluate.attack_learning_rate,
        lora=LoraConfig.of(c.lora),
    )
    assert spec.reading is not None

    def progress(done: int, rates: dict[str, float]) -> None:
        if done % c.log_every == 0:
            log.info("attack on %s: round %d %s", name, done, rates)

    rates = attack(
        context.arena,
        config,
        generator=generator,
        prm=prm,
        reading=spec.reading,
        seed=ATTACK_SEED + c.seed,
        progress=progress,
    )
    return {"summary": {f"robustness.{name}.{k}": v for k, v in rates.items()}}


def _examples(context: Context, problems, solutions, scored, count: int = 6):
    """A few solutions with the verdicts and scores of their steps, for the report."""
    out = []
    for p, (problem, row) in enumerate(zip(problems[:count], solutions, strict=False)):
        solution = row[0]
        judged = oracle_labels([solution], context.domain)
        given = context.domain.answer(solution.steps) if solution.finished else None
        out.append(
            {
                "question": problem.question,
                "answer": problem.answer,
                "given": given,
                "correct": context.domain.same_answer(given, problem.answer),
                "steps": list(solution.steps),
                "labels": [step.label for step in judged],
                "kinds": [step.kind for step in judged],
                "scores": {
                    name: _probability(name, scores[p][0]).tolist()
                    for name, scores in scored.items()
                },
            }
        )
    return out


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    plain: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
    np.savez_compressed(buffer, **plain)
    atomic_write(path, buffer.getvalue())


def _write_json(path: Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=1, sort_keys=True))
