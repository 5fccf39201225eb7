"""Evaluation on labelled solutions: steps, first errors, categories, calibration.

The dev questions of the domain choose every threshold and every calibration. Beside
the PRMs stand chance, the position of a step alone, the likelihood of the language
model, and the scores of other PRMs that a file holds.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import question_id
from aprm_jax.data.labelled_domain import LabelledDomain, read_labelled, split_source
from aprm_jax.evals import baselines, outcome, processbench, step_sets, steps
from aprm_jax.evals.calibration import Platt, fit_platt
from aprm_jax.evals.scores_file import read_scores
from aprm_jax.evals.step_sets import StepSet
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.prm_labels import branches, row_shape
from aprm_jax.training.workdir import atomic_write
from aprm_jax.verifiers.labelled import merge
from aprm_jax.verifiers.scoring import (
    Scorer,
    StepScorer,
    likelihood_scorer,
    prm_scorer,
)

CHANCE, POSITION, LIKELIHOOD = "chance", "position", "likelihood"
DEV = "dev"
_EXAMPLES = 4  # solutions a set that the report shows
# Small batches: the attention of long rows outgrows a processor's caches.
_BATCH_SIZES, _BATCH_TOKENS = (4, 32), 1 << 13
_TINY = 1e-12  # keeps the log-odds of a stated probability of 0 or 1 finite

# Scores on the real line, one array a solution; as long as what fits a row.
Scores = dict[str, list[np.ndarray]]


def evaluation_sets(context: Context) -> list[StepSet]:
    """The dev set and those of `evaluate.sets`, read once a process.

    Raises:
      DataError: a source cannot be used, or a set's name is taken.
    """
    c = context.config
    domain = context.domain
    assert isinstance(domain, LabelledDomain)
    return list(
        _sets(
            domain,
            split_source(c.domain.train, "domain.train")[0],
            tuple(c.evaluate.sets),
            c.evaluate.neutral,
            c.domain.label_cut,
            context.root / "quarantine",
            c.domain.max_bad_share,
        )
    )


@functools.lru_cache(maxsize=2)
def _sets(
    domain: LabelledDomain,
    trained: str,
    entries: tuple[str, ...],
    neutral: str,
    cut: float,
    quarantine: Path,
    max_bad_share: float,
) -> tuple[StepSet, ...]:
    found = [step_sets.step_set(DEV, trained, domain.dev, neutral, cut)]
    if found[0].kind != step_sets.STEPS:
        raise DataError(
            f"domain.train: {trained} is a benchmark, not a set of step labels to "
            "train on and to choose thresholds from"
        )
    for entry in entries:
        name, _, source = entry.partition("=")
        if name == DEV:
            raise DataError(f"evaluate.sets: {name!r} is the domain's own dev split")
        reader, _ = split_source(source, "evaluate.sets")
        rows = read_labelled(
            source,
            unique=False,
            quarantine_dir=quarantine,
            max_bad_share=max_bad_share,
        )
        made = step_sets.step_set(name, reader, rows, neutral, cut)
        if not made.rows:
            raise DataError(f"evaluate.sets: {entry}: no solution has a labelled step")
        found.append(made)
    return tuple(found)


def given_scores(context: Context) -> dict[str, dict[str, list[np.ndarray]]]:
    """Verifier -> set -> probabilities of `evaluate.scores`.

    An entry is a folder with one `SET.jsonl` for each set that was scored, or a file if
    there is one set only.

    Raises:
      DataError: a file is missing or does not match its set, see `read_scores`.
    """
    c = context.config.evaluate
    sets = evaluation_sets(context)
    out: dict[str, dict[str, list[np.ndarray]]] = {}
    for entry in c.scores:
        name, _, where = entry.partition("=")
        if name in (CHANCE, POSITION, LIKELIHOOD, *c.prms):
            raise DataError(f"evaluate.scores: the name {name!r} is taken")
        path = Path(where)
        if path.is_file() and len(c.sets) == 1:
            files = {c.sets[0].partition("=")[0]: path}
        elif path.is_file():
            raise DataError(
                f"evaluate.scores: {path} is a file, but there are {len(c.sets)} sets: "
                "give a folder with a NAME.jsonl for each"
            )
        else:
            files = {s.name: path / f"{s.name}.jsonl" for s in sets}
            files = {key: file for key, file in files.items() if file.is_file()}
        if not files:
            names = ", ".join(f"{s.name}.jsonl" for s in sets)
            raise DataError(f"evaluate.scores: {path} has none of {names}")
        out[name] = {
            s.name: read_scores(files[s.name], s.ids, s.sizes)
            for s in sets
            if s.name in files
        }
    return out


def check(context: Context) -> None:
    """Reads every set and every file of scores: nothing was compiled yet."""
    if not context.config.evaluate.sets:
        raise DataError(
            "evaluate.sets is empty: name what to measure on, for example "
            "test=prm800k:data/prm800k/phase1_test.jsonl.gz"
        )
    domain = context.domain
    assert isinstance(domain, LabelledDomain)
    known = {question_id(row.question) for row in domain.labelled}
    for data in evaluation_sets(context):
        seen = {question_id(row.question) for row in data.rows} & known
        if seen:
            log.warning(
                "evaluate.sets: %d questions of %s are in the training data: its "
                "figures say less",
                len(seen),
                data.name,
            )
    given_scores(context)


def run(context: Context, part) -> dict[str, Any]:
    """Each set in turn; returns the flat summary.

    Args:
      context: of the stage.
      part: `part(name, compute)` computes a piece once and keeps it.
    """
    sets = evaluation_sets(context)
    for data in sets:
        _write_set(context.directory / "sets" / f"{data.name}.jsonl", data)
    dev = part(DEV, lambda: _dev(context, sets[0]))
    found = [dev]
    for data in sets[1:]:
        found.append(part(data.name, lambda d=data: _measure(context, d, dev)))
    return {k: v for piece in found for k, v in piece["summary"].items()}


def _dev(context: Context, data: StepSet) -> dict[str, Any]:
    """Thresholds and calibration, chosen on questions that nothing else sees."""
    summary: dict[str, float] = {}
    chosen: dict[str, dict[str, float]] = {}
    for name, scores in _scores(context, data).items():
        found = step_sets.judged(data.rows, scores)
        if len(set(found.labels.tolist())) < 2:
            raise JobError(
                f"the dev split has labelled steps of one kind only "
                f"({len(found.labels)} that fit a row): raise domain.dev_count"
            )
        platt = fit_platt(found.scores, found.labels)
        values, labels = step_sets.validation_first_errors(
            data.rows, [_probability(name, row) for row in scores]
        )
        chosen[name] = {
            "threshold": steps.best_threshold(
                _probability(name, found.scores), found.labels, "balanced_accuracy"
            ),
            "first_error": processbench.best_threshold(values, labels)
            if values
            else 0.5,
            "slope": platt.slope,
            "bias": platt.bias,
        }
        summary[f"steps.{DEV}.{name}.threshold"] = chosen[name]["threshold"]
        summary[f"steps.{DEV}.{name}.auc"] = steps.auc(found.scores, found.labels)
        summary[f"first_error.{DEV}.{name}.threshold"] = chosen[name]["first_error"]
    return {"summary": summary, "chosen": chosen}


def _measure(context: Context, data: StepSet, dev: dict[str, Any]) -> dict[str, Any]:
    measure = {
        step_sets.STEPS: _steps,
        step_sets.FIRST_ERROR: _first_errors,
        step_sets.CATEGORIES: _categories,
    }[data.kind]
    scores = _scores(context, data)
    # Whoever gave no scores for the dev questions is read at 0.5, uncalibrated.
    default = {"threshold": 0.5, "first_error": 0.5, "slope": 1.0, "bias": 0.0}
    out: dict[str, Any] = {"summary": {}, "reliability": {}}
    for name, values in scores.items():
        chosen = dev["chosen"].get(name, default)
        measure(context, data, name, values, chosen, out)
    out["solutions"] = _examples(data, scores)
    return out


def _steps(context, data, name, scores, chosen, out) -> None:
    found = step_sets.judged(data.rows, scores)
    if not len(found.labels):
        raise JobError(f"{data.name}: no labelled step fits a row: raise the buckets")
    platt = Platt(chosen["slope"], chosen["bias"])
    report = step_sets.steps_report(
        found,
        functools.partial(_probability, name),
        chosen["threshold"],
        platt,
        context.config.evaluate.bootstrap,
    )
    out["summary"] |= {f"steps.{data.name}.{name}.{k}": v for k, v in report.items()}
    out["reliability"][name] = {
        how: _diagram(values, found.labels)
        for how, values in (
            ("stated", _probability(name, found.scores)),
            ("calibrated", platt(found.scores)),
        )
    }
    log.info(
        "%s: %s, %s: AUC %.3f, accuracy %.3f, F1 of wrong steps %.3f, ECE %.3f (%.3f "
        "calibrated), %d steps",
        context.stage,
        data.name,
        name,
        report["auc"],
        report["accuracy"],
        report["f1"],
        report["ece"],
        report["ece_calibrated"],
        len(found.labels),
    )


def _first_errors(context, data, name, scores, chosen, out) -> None:
    values = [_probability(name, row) for row in scores]
    labels, threshold = data.first_errors, chosen["first_error"]
    report = outcome.first_error_report(values, labels, threshold)
    interval = step_sets.first_error_interval(
        step_sets.first_error_predictions(values, threshold),
        labels,
        context.config.evaluate.bootstrap,
    )
    report |= {"f1.low": interval.low, "f1.high": interval.high}
    cut = sum(len(row) < size for row, size in zip(scores, data.sizes, strict=True))
    report["cut"] = float(cut)
    out["summary"] |= {
        f"first_error.{data.name}.{name}.{k}": v for k, v in report.items()
    }
    log.info(
        "%s: %s, %s: F1 %.3f at threshold %.4g (accuracy on erroneous %.3f, on correct "
        "%.3f), %d solutions, %d cut",
        context.stage,
        data.name,
        name,
        report["f1"],
        report["threshold"],
        report["error_accuracy"],
        report["correct_accuracy"],
        len(labels),
        cut,
    )


def _categories(context, data, name, scores, chosen, out) -> None:
    values = [_probability(name, row) for row in scores]
    report = step_sets.category_report(data, values, chosen["threshold"])
    out["summary"] |= {f"category.{data.name}.{name}.{k}": v for k, v in report.items()}
    total = report["all.score"]
    log.info("%s: %s, %s: score %.3f", context.stage, data.name, name, total)


def _scores(context: Context, data: StepSet) -> Scores:
    """Every verifier's scores on the real line, log-odds but for the likelihood."""
    c = context.config
    sizes = data.sizes
    out: Scores = {
        CHANCE: [_logit(s) for s in baselines.chance_scores(sizes, c.seed)],
        POSITION: [
            _logit(baselines.position_scores(_rates(context), size)) for size in sizes
        ],
    }
    solver, _ = context.load(c.evaluate.solver, "evaluate.solver", "solver")
    read = {
        LIKELIHOOD: _read(context, likelihood_scorer(context.decoder), solver, data)
    }
    judge = context.of("prm")
    for name in c.evaluate.prms:
        params, spec = judge.load(name, "evaluate.prms", "prm")
        assert spec.reading is not None
        read[name] = _read(judge, prm_scorer(judge.decoder, spec.reading), params, data)
    # All models are measured on the same steps, those that fit a row of each.
    sizes = [min(map(len, rows)) for rows in zip(*read.values(), strict=True)]
    for name, rows in read.items():
        out[name] = [row[:size] for row, size in zip(rows, sizes, strict=True)]
    for name, by_set in given_scores(context).items():
        if data.name in by_set:
            out[name] = [_logit(row) for row in by_set[data.name]]
    return out


def _read(
    context: Context, score: StepScorer, params: Any, data: StepSet
) -> list[np.ndarray]:
    """Scores of every step that fits a row, batched by length."""
    scorer = Scorer(
        score,
        context.builder,
        max_steps=row_shape(context)["max_steps"],
        batch_sizes=_BATCH_SIZES,
        max_tokens=_BATCH_TOKENS,
    )
    pairs = [(row.question, row.steps) for row in data.rows]
    return scorer.trees(params, pairs, branch=branches(context))


@functools.lru_cache(maxsize=2)
def _position_rates(domain: LabelledDomain, neutral: str, cut: float) -> np.ndarray:
    rows = merge(domain.labelled, neutral=neutral, soft=False, cut=cut)
    known = [
        (k, label) for row in rows for k, label in enumerate(row.labels) if row.first[k]
    ]
    return baselines.position_rates([k for k, _ in known], [v for _, v in known])


def _rates(context: Context) -> np.ndarray:
    domain = context.domain
    assert isinstance(domain, LabelledDomain)
    c = context.config
    return _position_rates(domain, c.evaluate.neutral, c.domain.label_cut)


def _logit(values: np.ndarray) -> np.ndarray:
    return scipy.special.logit(
        np.clip(np.asarray(values, np.float64), _TINY, 1 - _TINY)
    )


def _probability(name: str, scores: np.ndarray) -> np.ndarray:
    """Scores on the real line as what the verifier states."""
    values = np.asarray(scores, np.float64)
    return np.exp(values) if name == LIKELIHOOD else scipy.special.expit(values)


def _diagram(values: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """The filled bins of a reliability diagram."""
    found = steps.reliability(values, labels)
    kept = found.weight > 0
    return {
        "score": found.score[kept].tolist(),
        "correct": found.correct[kept].tolist(),
        "weight": found.weight[kept].tolist(),
    }


def _examples(data: StepSet, scores: Scores) -> list[dict[str, Any]]:
    """A few solutions with labels and scores, for the report: some with an error."""
    errors = data.first_errors
    half = _EXAMPLES // 2
    chosen = [k for k, e in enumerate(errors) if e != processbench.NO_ERROR][:half]
    chosen += [k for k, e in enumerate(errors) if e == processbench.NO_ERROR][:half]
    return [
        {
            "question": data.rows[k].question,
            "steps": list(data.rows[k].steps),
            "labels": [None if v != v else v for v in data.rows[k].labels],
            "correct": errors[k] == processbench.NO_ERROR,
            "scores": {
                name: _probability(name, values[k]).tolist()
                for name, values in scores.items()
            },
        }
        for k in chosen
    ]


def _write_set(path: Path, data: StepSet) -> None:
    """What another PRM needs to score the set: id, question, steps."""
    path.parent.mkdir(exist_ok=True)
    lines = [
        json.dumps({"id": name, "question": row.question, "steps": list(row.steps)})
        for name, row in zip(data.ids, data.rows, strict=True)
    ]
    atomic_write(path, "\n".join(lines) + "\n")
