"""Step scores that another PRM gave, read from JSONL and checked against a set.

One row a solution, `{"id": "math-17", "scores": [0.98, 0.41]}`: probabilities that each
step is correct, one a step; null for a step that the PRM could not score, which counts
as a miss. `id` is the one in the evaluation's `sets/NAME.jsonl`; `"index"`, the 0-based
number of the solution, may stand in its place, or neither, and the rows are then in the
set's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from aprm_jax.data.jsonl import DataError, read_rows, require_int, require_str
from aprm_jax.verifiers.score_file import parse_scores


def read_scores(
    path: str | Path, ids: Sequence[str], sizes: Sequence[int]
) -> list[Float[np.ndarray, " _"]]:
    """The scores of every solution of a set, in the set's order; NaN for null.

    Args:
      path: the file.
      ids: of the set's solutions.
      sizes: their numbers of steps.

    Raises:
      DataError: a row is malformed, unknown, missing or there twice, or has another
        number of scores than its solution has steps; names the file and the row.
    """
    named: set[str] = set()
    rows = read_rows(path, lambda row: _parse(row, named), max_bad_share=0.0)
    if len(named) > 1:
        raise DataError(
            f"{path}: rows name their solution in different ways ("
            f"{', '.join(sorted(named))}); use one of them throughout"
        )
    places = {name: k for k, name in enumerate(ids)}
    found: dict[int, np.ndarray] = {}
    for number, (key, scores) in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if isinstance(key, str):
            if key not in places:
                raise DataError(f"{where}: id {key!r} is none of the set's {len(ids)}")
            at = places[key]
        else:
            at = number - 1 if key is None else key
            if not 0 <= at < len(ids):
                raise DataError(
                    f"{where}: solution {at} of a set of {len(ids)}, counted from 0"
                )
        if at in found:
            raise DataError(f"{where}: solution {ids[at]!r} stands there twice")
        if len(scores) != sizes[at]:
            raise DataError(
                f"{where}: {len(scores)} scores, but solution {ids[at]!r} has "
                f"{sizes[at]} steps; null stands for a step that was not scored"
            )
        found[at] = scores
    missing = [k for k in range(len(ids)) if k not in found]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(ids)} solutions have no scores, the first "
            f"is {ids[missing[0]]!r}"
        )
    return [found[k] for k in range(len(ids))]


def _parse(row: dict, named: set[str]) -> tuple[str | int | None, np.ndarray]:
    key: str | int | None = None
    if "id" in row:
        key = require_str(row, "id")
    elif "index" in row:
        key = require_int(row, "index")
    scores = parse_scores(row)
    named.add({str: "id", int: "index"}.get(type(key), "neither"))
    return key, scores
