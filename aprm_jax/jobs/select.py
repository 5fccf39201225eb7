"""The best of the candidates of each question in a file; see `search.choice`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aprm_jax.data.solutions import GivenCandidates, parse_candidates
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.inputs import Writes
from aprm_jax.jobs.records.select import SelectConfig
from aprm_jax.jobs.row_files import (
    RowJob,
    check_input,
    check_names,
    check_output,
    row_writes,
)
from aprm_jax.oracle import answers
from aprm_jax.search.choice import choose, solution_scores
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.tasks.protocols import Grader
from aprm_jax.verifiers.protocol import Scored, StepScores, Verifier
from aprm_jax.verifiers.score_file import written_scores
from aprm_jax.verifiers.stream import batches, written_name


class AnyAnswerGrader(AnswerGrader):
    """Takes the last clear statement of an answer, or else a solution's last line."""

    def answer(self, steps: Sequence[str]) -> str | None:
        """See `oracle.answers.extract`."""
        return answers.extract("\n".join(steps))


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The input is there, and the verifiers may be."""
    c = context.config.select
    check_input("select.input", c.input)
    check_output("select.output", c.output)
    check_names(context, earlier, "select", c.verifiers)


def writes(context: Context) -> list[Writes]:
    """See `Job.writes`."""
    return [row_writes(context, "select")]


def run(context: Context) -> dict[str, Any]:
    """Chooses for each question that has no choice yet."""
    c, grader = context.config.select, _grader(context)
    made = functools.partial(_chosen, config=c, grader=grader)
    results = RowJob(
        context,
        "select",
        own=("split", "pick", "aggregation", "answers"),
        parse=functools.partial(parse_candidates, split=c.split),
        made=made,
        whole=_is_whole,
        count=_counted,
    ).run()
    if graded := results.get("graded"):
        results["accuracy"] = results.get("correct", 0) / graded
        log.info("%s: accuracy %.4f of %d", context.stage, results["accuracy"], graded)
    return results


def _grader(context: Context) -> Grader:
    how, domain = context.config.select.answers, context.config.domain.name
    if how == "auto":
        return AnyAnswerGrader()
    arithmetic = how == "domain" and domain == "arithmetic"
    return ArithmeticDomain(0) if arithmetic else AnswerGrader()


def _chosen(
    rows: Iterable[GivenCandidates],
    verifier: Verifier,
    config: SelectConfig,
    grader: Grader,
) -> Iterator[dict[str, Any]]:
    """What is written of each row, batch by batch."""
    how = config.aggregation or getattr(verifier, "aggregation", "min")
    for batch in batches(rows, config.batch):
        pairs = [(row.question, steps) for row in batch for steps in row.candidates]
        scored: Scored[StepScores] = Scored.by(verifier, pairs)
        scores = iter(scored.rows)
        for row in batch:
            of_row = Scored(scored.scale, [next(scores) for _ in row.candidates])
            yield _written(row, of_row, how, config.pick, grader)


def _written(
    row: GivenCandidates,
    scored: Scored[StepScores],
    aggregation: str,
    pick: str,
    grader: Grader,
) -> dict[str, Any]:
    logs = [scored.scale.log_probability(scores) for scores in scored.rows]
    totals = solution_scores(row.candidates, logs, aggregation)
    found = [grader.answer(steps) if steps else None for steps in row.candidates]
    choice = choose(row.candidates, found, totals, pick, grader.same_answer)
    candidates = [
        {"answer": answer, "score": score, "scores": written_scores(scores)}
        for answer, score, scores in zip(
            found,
            written_scores(np.exp(totals)),
            scored.probabilities(),
            strict=True,
        )
    ]
    won = choice.index
    best = candidates[won] if won is not None else dict.fromkeys(("answer", "score"))
    out = written_name(row) | {
        "index": won,
        "solution": list(row.candidates[won]) if won is not None else None,
        "answer": best["answer"],
        "score": best["score"],
        "by": choice.by,
        "candidates": candidates,
    }
    if row.reference is not None:
        right = grader.same_answer(out["answer"], row.reference)
        out |= {"reference": row.reference, "correct": right}
    return out


def _is_whole(row: GivenCandidates, written: Mapping[str, Any]) -> bool:
    candidates, index = written.get("candidates"), written.get("index")
    return (
        isinstance(candidates, list)
        and len(candidates) == len(row.candidates)
        and (index is None or index in range(len(candidates)))
        and isinstance(written.get("by"), str)
        and (row.reference is None or isinstance(written.get("correct"), bool))
    )


def _counted(written: Mapping[str, Any]) -> dict[str, int]:
    by = written["by"]
    graded = "correct" in written
    return {
        f"chosen_by_{by}" if by else "without_a_choice": 1,
        "graded": int(graded),
        "correct": int(graded and written["correct"]),
    }
