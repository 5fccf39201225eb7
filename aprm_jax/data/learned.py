"""What a language model learns of prepared rows: of a solution, its right beginning.

The rule is that of `labelled_texts.right_texts`: nothing from the first step on that
any row calls wrong, and no last step that has no label where others have, for nothing
goes on behind it. A solution without any label is its author's, and learned whole.
Questions that somebody holds out are left out: which these are may have changed since
the data were prepared.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from aprm_jax.data.prepared import to_row
from aprm_jax.data.rows import StepRow


class LearnedRows(Sequence[StepRow]):
    """The rows of a prepared split, cut to what is learned of them; S steps a row.

    Args:
      source: as `prepared.open_split` has it.
      held_out: `question_id` of questions that are left out.
      cut: labels below it are wrong.

    Attributes:
      num_held_out: solutions of questions that are left out.
      num_wrong: other steps that are not learned: wrong ones, and what follows them.
      num_unlabelled: last steps that are not learned: they have no label.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        held_out: Collection[str],
        cut: float,
    ):
        self._source = source
        self.num_held_out = self.num_wrong = self.num_unlabelled = 0
        kept = [i for i, row in enumerate(source) if _question(row) not in held_out]
        self.num_held_out = len(source) - len(kept)
        wrong = _wrong_beginnings(source, kept, cut)
        self._learned: list[tuple[int, int]] = []  # a row, and how many of its steps
        for i in kept:
            row = to_row(source[i])
            right = _right(row, wrong)
            learned = right - (right == len(row.labels) and _ends_unknown(row.labels))
            self.num_wrong += len(row.labels) - right
            self.num_unlabelled += right - learned
            if learned:
                self._learned.append((i, learned))

    def __len__(self) -> int:
        return len(self._learned)

    def __getitem__(self, index: Any) -> StepRow:
        """Row `index` up to its last step that is learned, an integer from 0.

        Raises:
          IndexError: there is no such row, by which iteration ends.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        at, steps = self._learned[index]
        return _beginning(to_row(self._source[at]), steps)


def _question(example: Mapping[str, Any]) -> str:
    name = example["question_id"]
    return name.decode() if isinstance(name, bytes) else name


def _wrong_beginnings(
    source: Sequence[Mapping[str, Any]], rows: Sequence[int], cut: float
) -> frozenset[bytes]:
    """What the rows begin with up to the first step that they call wrong."""
    found: set[bytes] = set()
    for i in rows:
        labels = np.asarray(source[i]["labels"])
        if (labels < cut).any():  # NaN is below nothing
            row = to_row(source[i])
            found.add(_digests(row)[int(np.argmax(labels < cut))])
    return frozenset(found)


def _right(row: StepRow, wrong: frozenset[bytes]) -> int:
    """How many steps come before the first that any row calls wrong."""
    digests = _digests(row) if wrong else ()
    first = (k for k, digest in enumerate(digests) if digest in wrong)
    return next(first, len(row.labels))


def _ends_unknown(labels: Float32[np.ndarray, " S"]) -> bool:
    """Whether a solution has labels, and its last step none."""
    unknown = np.isnan(labels)
    return bool(unknown[-1]) and not unknown.all()


def _digests(row: StepRow) -> list[bytes]:
    """Of each step, a hash of the ids up to its end: question, steps before it, it."""
    hashed, start, out = hashlib.blake2b(digest_size=16), 0, []
    tokens = np.ascontiguousarray(row.tokens)
    for end in _ends(row):
        hashed.update(tokens[start:end].tobytes())
        out.append(hashed.digest())
        start = end
    return out


def _ends(row: StepRow) -> list[int]:
    """Of each step, the column behind its last id."""
    steps = np.arange(len(row.labels))
    last = len(row) - 1 - np.argmax(row.step_ids[::-1] == steps[:, None], axis=1)
    return (last + 1).tolist()


def _beginning(row: StepRow, steps: int) -> StepRow:
    """The row up to the end of so many steps; no earlier id sees what is left out."""
    if steps == len(row.labels):
        return row
    end = _ends(row)[steps - 1]
    return dataclasses.replace(
        row,
        **{
            name: getattr(row, name)[:end]
            for name in ("tokens", "positions", "segment_ids", "step_ids")
        },
        labels=row.labels[:steps],
    )
