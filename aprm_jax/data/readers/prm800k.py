"""PRM800K (Lightman et al., arXiv 2305.20050): human ratings of single steps.

Two forms. The original has one row a labelling session: at each step several
candidates, each rated, one of them chosen to go on from. The flat form has one row a
candidate: `instruction`, `responses` (the prefix), `next_response` and its `rating`.
"""

from __future__ import annotations

from typing import Any

from aprm_jax.data.jsonl import (
    RowError,
    require_dict,
    require_str,
    require_strings,
)
from aprm_jax.data.labelled import LabelledSolution, from_ratings, question_id
from aprm_jax.data.readers.base import StepSource, step_rating


def parse(row: dict) -> list[LabelledSolution]:
    """Solutions of one row of either form.

    A flat row is one solution whose last step alone is labelled. An original row is
    the chosen path, each step with its rating, and one solution for every candidate
    beside the path, where again the last step alone is labelled. A prefix that people
    wrote or chose is never rated a second time.
    """
    if "instruction" in row:
        return [_flat(row)]
    if isinstance(row.get("label"), dict):
        return _nested(row)
    raise RowError(
        "neither PRM800K's original form (question, label.steps) nor its flat one "
        f"(instruction, responses, next_response, rating): {', '.join(sorted(row)[:8])}"
    )


def _flat(row: dict) -> LabelledSolution:
    question = require_str(row, "instruction")
    prefix = require_strings(row, "responses", allow_empty=True)
    steps = [*prefix, require_str(row, "next_response")]
    ratings: list[int | None] = [None] * len(prefix)
    ratings.append(step_rating(row.get("rating"), "rating"))
    finished = row.get("is_solution")
    return from_ratings(
        question,
        steps,
        ratings,
        finished=finished if isinstance(finished, bool) else None,
    )


def _nested(row: dict) -> list[LabelledSolution]:
    question = require_str(require_dict(row, "question"), "problem")
    reason = str(row["label"].get("finish_reason") or "")
    where = {"problem_id": question_id(question), "category": reason}
    levels = row["label"].get("steps")
    if not isinstance(levels, list):
        raise RowError("field 'label.steps' must be a list")
    path: list[str] = []
    ratings: list[int | None] = []
    beside: list[LabelledSolution] = []
    lost = False  # a step of the path, and with it the end
    for k, level in enumerate(levels):
        candidates = _candidates(level, k)
        chosen = _chosen(level, candidates, k)
        for i, candidate in enumerate(candidates):
            if i == chosen or candidate is None or candidate[1] is None:
                continue
            text, rating = candidate
            unknown: list[int | None] = [None] * len(path)
            beside.append(
                from_ratings(question, [*path, text], [*unknown, rating], **where)
            )
        taken = None if chosen is None else candidates[chosen]
        if taken is None:  # what was written from here on follows nothing that we know
            lost = chosen is not None or k + 1 < len(levels)
            break
        path.append(taken[0])
        ratings.append(taken[1])
    if not path:
        raise RowError("no step has a completion")
    finished = reason == "solution" and not lost
    return [from_ratings(question, path, ratings, **where, finished=finished), *beside]


def _candidates(level: Any, k: int) -> list[tuple[str, int | None] | None]:
    """(text, rating) of a step's completions, the human one last.

    A null completion keeps its place: `chosen_completion` counts it.
    """
    if not isinstance(level, dict):
        raise RowError(f"step {k} must be an object")
    listed = level.get("completions") or []
    if not isinstance(listed, list):
        raise RowError(f"step {k}: field 'completions' must be a list")
    found: list[tuple[str, int | None] | None] = []
    for entry in [*listed, level.get("human_completion")]:
        if entry is None or (isinstance(entry, dict) and entry.get("text") is None):
            found.append(None)
            continue
        if isinstance(entry, str):
            entry = {"text": entry}
        if not isinstance(entry, dict):
            raise RowError(f"step {k}: a completion must be an object")
        text = require_str(entry, "text")
        found.append((text, step_rating(entry.get("rating"), f"step {k}: rating")))
    return found


def _chosen(level: dict, candidates: list[Any], k: int) -> int | None:
    """Index of the candidate that the session went on from; None where it ended."""
    chosen = level.get("chosen_completion")
    if chosen is not None:
        listed = len(level.get("completions") or [])
        if type(chosen) is not int or not 0 <= chosen < listed:
            raise RowError(
                f"step {k}: chosen_completion {chosen!r} of {listed} completions"
            )
        return chosen
    if candidates[-1] is not None:  # the human one
        return len(candidates) - 1
    # The session ended here: its last step belongs to the path all the same.
    return next((i for i, found in enumerate(candidates) if found is not None), None)


SOURCES = (
    StepSource(
        "prm800k",
        parse,
        hub=(
            "datasets:tasksource/PRM800K",
            "datasets:Birchlabs/openai-prm800k-stepwise-critic",
        ),
    ),
)
