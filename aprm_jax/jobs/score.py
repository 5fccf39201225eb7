"""The step scores of a file of solutions, in its order; see `verifiers.stream`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aprm_jax.data.jsonl import RowError
from aprm_jax.data.solutions import GivenSolution, parse_solution
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.inputs import Writes
from aprm_jax.jobs.row_files import (
    RowJob,
    check_input,
    check_names,
    check_output,
    row_writes,
)
from aprm_jax.verifiers.protocol import Verifier
from aprm_jax.verifiers.score_file import parse_scores
from aprm_jax.verifiers.stream import score_stream, scored_row


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The input is there, and the verifiers may be."""
    c = context.config.score
    check_input("score.input", c.input)
    check_output("score.output", c.output)
    check_names(context, earlier, "score", c.verifiers)


def writes(context: Context) -> list[Writes]:
    """See `Job.writes`."""
    return [row_writes(context, "score")]


def run(context: Context) -> dict[str, Any]:
    """Scores what is not scored yet."""
    c = context.config.score

    def made(
        rows: Iterable[GivenSolution], verifier: Verifier
    ) -> Iterator[dict[str, Any]]:
        for solution, probabilities in score_stream(rows, verifier, c.batch):
            yield scored_row(solution, probabilities)

    return RowJob(
        context,
        "score",
        own=("text", "split"),
        parse=functools.partial(parse_solution, text=c.text, split=c.split),
        made=made,
        whole=_is_scored,
        count=_counted,
    ).run()


def _is_scored(solution: GivenSolution, written: Mapping[str, Any]) -> bool:
    try:
        return len(parse_scores(written)) == len(solution.steps)
    except RowError:
        return False


def _counted(written: Mapping[str, Any]) -> dict[str, int]:
    scores = written["scores"]
    unscored = sum(score is None for score in scores)
    return {"steps": len(scores), "unscored_steps": unscored, "empty": not scores}
