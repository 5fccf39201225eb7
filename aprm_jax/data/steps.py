"""The one step builder: (question, steps, labels) to ids, by ids, for every user.

Training, evaluation, search and the game all build their sequences here, so the same
list of steps always has the same ids. A solution is the lines
`question, step_1, ..., step_n`; each line ends with the `<step>` token. With
`window=None` a solution is one causal sequence; with `window=w` each step is a
segment of its own that sees the last `w` lines before it, and the segments of a
solution lie packed in one row, so that one forward pass scores all its steps.

    solve     <bos> line .. <step> | s <step>
    perturb   <bos> s <perturb> line .. <step> | s' <step>

Only tokens right of the bar are learned from or scored (`step_ids >= 0`).

Positions count through a segment. With `line_stride=n` the k-th line instead starts at
position `n * k`, the separator before it included: where a step rewrites the line
before it, a token then stands at a fixed distance from what it copies, which a small
decoder with relative positions learns many times sooner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import flax.struct
import numpy as np
from jaxtyping import Float32, Int32
from transformers import PreTrainedTokenizerFast

from aprm_jax.config.errors import UserError

STEP_TOKEN = "<step>"
PERTURB_TOKEN = "<perturb>"
UNLABELLED = math.nan


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One row of ids before padding. T tokens, S steps.

    Attributes:
      tokens: ids.
      positions: position within the segment; see `StepBuilder.positions`.
      segment_ids: segment of each token, from one; zero is padding.
      step_ids: index of the step that a token belongs to, its `<step>` included;
        -1 for context.
      labels: 1 correct, 0 incorrect, between them soft; NaN where unlabelled.
      ends: of a segment that branches (see `data/trees.py`), the last column that
        still sees each token; None where all later ones of the segment do.
    """

    tokens: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T"]
    segment_ids: Int32[np.ndarray, " T"]
    step_ids: Int32[np.ndarray, " T"]
    labels: Float32[np.ndarray, " S"]
    ends: Int32[np.ndarray, " T"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@flax.struct.dataclass
class StepBatch:
    """Rows padded to one shape."""

    tokens: Int32[np.ndarray, "B T"]
    positions: Int32[np.ndarray, "B T"]
    segment_ids: Int32[np.ndarray, "B T"]  # 0 is padding
    step_ids: Int32[np.ndarray, "B T"]  # -1 is context or padding
    labels: Float32[np.ndarray, "B S"]  # 0 where masked
    label_mask: Float32[np.ndarray, "B S"]  # 1 where labelled
    step_mask: Float32[np.ndarray, "B S"]  # 1 where the row has that step
    # The last column that sees each token, where a segment branches; else None.
    ends: Int32[np.ndarray, "B T"] | None = None


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a model's reply is: one step, or why it is none.

    Attributes:
      step: the step; None where it is none.
      reason: of the builder's `reasons`; "" for a step.
    """

    step: str | None
    reason: str


class TooLongError(UserError, ValueError):
    """A row does not fit the longest bucket."""


class StepBuilder:
    """Turns text into rows of ids for one tokenizer.

    `reasons` are those why a sampled reply can be no step.

    Args:
      tokenizer: knows `<step>` and `<perturb>`, `bos_token` and `pad_token`.
      window: how many lines before a step it may see; None for all.
      buckets: lengths that rows are padded to, ascending.
      line_stride: 0 for contiguous positions; else where lines start.
    """

    reasons: tuple[str, ...] = (
        "unfinished",  # cut off before its end, or not closed as a step
        "empty",
    )

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        window: int | None,
        buckets: Sequence[int],
        line_stride: int = 0,
    ):
        if window is not None and window < 1:
            raise ValueError(f"window must be None or at least 1, not {window}")
        if list(buckets) != sorted(set(buckets)) or not buckets:
            raise ValueError(f"buckets must ascend and not be empty: {buckets}")
        self.tokenizer = tokenizer
        self.window = window
        self.buckets = tuple(buckets)
        self.line_stride = line_stride
        self._backend = tokenizer.backend_tokenizer
        # Text of a model or of a file may spell "<step>": it must stay text.
        self._backend.encode_special_tokens = True
        self._cache: dict[str, tuple[int, ...]] = {}
        vocab = self._backend.get_vocab(with_added_tokens=True)
        for token in (STEP_TOKEN, PERTURB_TOKEN):
            if token not in vocab:
                raise ValueError(f"the tokenizer has no {token!r} token")
        self.step_id: int = vocab[STEP_TOKEN]
        self.perturb_id: int = vocab[PERTURB_TOKEN]
        self.bos_id: int = vocab[str(tokenizer.bos_token)]
        self.pad_id: int = vocab[str(tokenizer.pad_token)]
        eos = vocab.get(str(tokenizer.eos_token))
        # What ends a sampled step.
        self.stop_ids: tuple[int, ...] = (
            (self.step_id,) if eos is None else (self.step_id, eos)
        )

    @property
    def branches(self) -> bool:
        """Whether a solution's ids begin with those of its beginnings, as a tree's do.

        See `data/trees.py`.
        """
        return self.window is None

    def positions(self, ids: Sequence[int]) -> Int32[np.ndarray, " T"]:
        """Positions of one segment's ids; they ascend also past an overlong line."""
        if not self.line_stride:
            return np.arange(len(ids), dtype=np.int32)
        openers = (self.bos_id, self.step_id, self.perturb_id)
        out, line, position = np.zeros(len(ids), np.int32), -1, -1
        for i, token in enumerate(ids):
            position += 1
            if token in openers:
                line += 1
                position = max(position, self.line_stride * line)
            out[i] = position
        return out

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of one line, special tokens spelt out as text."""
        ids = self._cache.get(text)
        if ids is None:
            ids = tuple(self._backend.encode(text, add_special_tokens=False).ids)
            if len(self._cache) >= 1 << 16:
                self._cache.clear()
            self._cache[text] = ids
        return ids

    def decode(self, ids: Sequence[int] | Int32[np.ndarray, " T"]) -> str:
        """The text of one line, up to and without its `<step>`."""
        ids = [int(i) for i in ids]
        if self.step_id in ids:
            ids = ids[: ids.index(self.step_id)]
        return self._backend.decode(ids, skip_special_tokens=False).strip()

    def read_reply(self, reply: Sequence[int], stopped: bool) -> Reply:
        """The step that a sampled reply consists of, or why it is not one step.

        Args:
          reply: its ids, the stop token included.
          stopped: whether a stop token ended it.
        """
        if not stopped or reply[-1] != self.step_id:
            return Reply(None, "unfinished")
        text = self.decode(reply[:-1])
        return Reply(text, "") if text else Reply(None, "empty")

    def context(self, question: str, prefix: Sequence[str]) -> list[int]:
        """`<bos>` and the visible lines, each closed by `<step>`: a solver's prompt."""
        lines = [question, *prefix]
        if self.window is not None:
            lines = lines[-self.window :]
        ids = [self.bos_id]
        for line in lines:
            ids.extend(self.encode(line))
            ids.append(self.step_id)
        return ids

    def perturb_context(
        self, question: str, prefix: Sequence[str], step: str
    ) -> list[int]:
        """The Generator's prompt: the correct step, `<perturb>`, then the context.

        The context stands last so that what a solver has learned still applies: the
        reply follows the same lines at the same distances as a solver's next step.
        """
        context = self.context(question, prefix)
        return [self.bos_id, *self.encode(step), self.perturb_id, *context[1:]]

    def solution(
        self,
        question: str,
        steps: Sequence[str],
        labels: Sequence[float] | None = None,
    ) -> StepRow:
        """A whole solution; one label a step, NaN or `labels=None` for none."""
        if labels is not None and len(labels) != len(steps):
            raise ValueError(f"{len(steps)} steps but {len(labels)} labels")
        values = [UNLABELLED] * len(steps) if labels is None else list(labels)
        if self.window is None:
            ids = self.context(question, ())
            step_ids = [-1] * len(ids)
            for k, step in enumerate(steps):
                line = [*self.encode(step), self.step_id]
                ids.extend(line)
                step_ids.extend([k] * len(line))
            return self._row([(ids, step_ids)], values)
        segments = []
        for k, step in enumerate(steps):
            segments.append(self._segment(self.context(question, steps[:k]), step, k))
        return self._row(segments, values)

    def step(
        self,
        question: str,
        prefix: Sequence[str],
        step: str,
        label: float = UNLABELLED,
    ) -> StepRow:
        """One step after its prefix."""
        return self._row(
            [self._segment(self.context(question, prefix), step, 0)], [label]
        )

    def perturbation(
        self, question: str, prefix: Sequence[str], step: str, candidate: str
    ) -> StepRow:
        """The Generator's sequence: the candidate is the scored step."""
        context = self.perturb_context(question, prefix, step)
        return self._row([self._segment(context, candidate, 0)], [UNLABELLED])

    def continuation(self, context: Sequence[int], reply: Sequence[int]) -> StepRow:
        """A sampled reply, by its own ids, after the context that it was drawn for.

        Its positions count on from the context's last one, as the sampler's do,
        whatever a hostile reply consists of.
        """
        before = self.positions(context)
        after = before[-1] + 1 + np.arange(len(reply), dtype=np.int32)
        size = len(context) + len(reply)
        step_ids = np.zeros(size, np.int32)
        step_ids[: len(context)] = -1
        return StepRow(
            tokens=np.asarray([*context, *reply], np.int32),
            positions=np.concatenate([before, after]),
            segment_ids=np.ones(size, np.int32),
            step_ids=step_ids,
            labels=np.asarray([UNLABELLED], np.float32),
        )

    def bucket(self, length: int) -> int:
        """The smallest bucket that holds `length` tokens."""
        for size in self.buckets:
            if length <= size:
                return size
        raise TooLongError(
            f"a row of {length} tokens does not fit the longest bucket "
            f"({self.buckets[-1]}): raise model.buckets or shorten the data"
        )

    def fits(self, row: StepRow) -> bool:
        """Whether a row fits the longest bucket."""
        return len(row) <= self.buckets[-1]

    def collate(
        self,
        rows: Sequence[StepRow],
        *,
        length: int | None = None,
        max_steps: int | None = None,
        batch_size: int | None = None,
    ) -> StepBatch:
        """Pads rows to one shape.

        Args:
          rows: at least one row.
          length: T; by default the bucket of the longest row.
          max_steps: S; by default the most steps of any row.
          batch_size: B; by default `len(rows)`. Missing rows are padding.

        Raises:
          TooLongError: a row is longer than `length` or the longest bucket.
        """
        longest = max(len(row) for row in rows)
        length = self.bucket(longest) if length is None else length
        if longest > length:
            raise TooLongError(f"a row of {longest} tokens does not fit {length}")
        most = max(len(row.labels) for row in rows)
        max_steps = most if max_steps is None else max_steps
        if most > max_steps:
            raise TooLongError(f"a row of {most} steps does not fit {max_steps}")
        size = len(rows) if batch_size is None else batch_size
        if len(rows) > size:
            raise ValueError(f"{len(rows)} rows do not fit a batch of {size}")
        tokens = np.full((size, length), self.pad_id, np.int32)
        positions = np.zeros((size, length), np.int32)
        segment_ids = np.zeros((size, length), np.int32)
        step_ids = np.full((size, length), -1, np.int32)
        labels = np.zeros((size, max_steps), np.float32)
        label_mask = np.zeros((size, max_steps), np.float32)
        step_mask = np.zeros((size, max_steps), np.float32)
        branching = any(row.ends is not None for row in rows)
        ends = np.full((size, length), length - 1, np.int32) if branching else None
        for b, row in enumerate(rows):
            n, s = len(row), len(row.labels)
            tokens[b, :n] = row.tokens
            positions[b, :n] = row.positions
            segment_ids[b, :n] = row.segment_ids
            step_ids[b, :n] = row.step_ids
            known = ~np.isnan(row.labels)
            labels[b, :s] = np.where(known, row.labels, 0.0)
            label_mask[b, :s] = known
            step_mask[b, :s] = 1.0
            if ends is not None and row.ends is not None:
                ends[b, :n] = row.ends
        return StepBatch(
            tokens=tokens,
            positions=positions,
            segment_ids=segment_ids,
            step_ids=step_ids,
            labels=labels,
            label_mask=label_mask,
            step_mask=step_mask,
            ends=ends,
        )

    def _segment(
        self, context: Sequence[int], step: str, index: int
    ) -> tuple[list[int], list[int]]:
        line = [*self.encode(step), self.step_id]
        return [*context, *line], [-1] * len(context) + [index] * len(line)

    def _row(
        self,
        segments: Sequence[tuple[Sequence[int], Sequence[int]]],
        labels: Sequence[float],
    ) -> StepRow:
        segment_ids = [s + 1 for s, (ids, _) in enumerate(segments) for _ in ids]
        return StepRow(
            tokens=np.asarray([i for ids, _ in segments for i in ids], np.int32),
            positions=np.concatenate([self.positions(ids) for ids, _ in segments]),
            segment_ids=np.asarray(segment_ids, np.int32),
            step_ids=np.asarray([i for _, ids in segments for i in ids], np.int32),
            labels=np.asarray(labels, np.float32),
        )


def pack(
    rows: Sequence[StepRow], length: int, max_steps: int | None = None
) -> list[StepRow]:
    """Packs rows first-fit into rows of at most `length` tokens.

    Segments and steps are renumbered, so that no row attends to another and each label
    stays with its step.

    Args:
      rows: any number of rows.
      length: most tokens of a packed row.
      max_steps: most steps of a packed row; None for no limit.

    Raises:
      TooLongError: a row alone is longer, or has more steps.
    """
    # A step has at least its `<step>` token, so `length` limits nothing.
    most = length if max_steps is None else max_steps
    bins: list[list[StepRow]] = []
    free: list[int] = []
    free_steps: list[int] = []
    for row in rows:
        size, steps = len(row), len(row.labels)
        if size > length:
            raise TooLongError(f"a row of {size} tokens does not fit {length}")
        if steps > most:
            raise TooLongError(f"a row of {steps} steps does not fit {most}")
        pairs = enumerate(zip(free, free_steps, strict=True))
        index = next((i for i, (n, s) in pairs if size <= n and steps <= s), None)
        if index is None:
            bins.append([])
            free.append(length)
            free_steps.append(most)
            index = len(bins) - 1
        bins[index].append(row)
        free[index] -= size
        free_steps[index] -= steps
    return [_concatenate(part) for part in bins]


def _concatenate(rows: Sequence[StepRow]) -> StepRow:
    segment_ids, step_ids, ends = [], [], []
    segments = steps = columns = 0
    for row in rows:
        # Of a row that does not branch, the last column of all: no other segment sees.
        last = np.full(len(row), len(row) - 1, np.int32)
        ends.append((last if row.ends is None else row.ends) + columns)
        columns += len(row)
        segment_ids.append(row.segment_ids + segments)
        step_ids.append(np.where(row.step_ids >= 0, row.step_ids + steps, -1))
        segments += int(row.segment_ids[-1])
        steps += len(row.labels)
    return StepRow(
        tokens=np.concatenate([row.tokens for row in rows]),
        positions=np.concatenate([row.positions for row in rows]),
        segment_ids=np.concatenate(segment_ids).astype(np.int32),
        step_ids=np.concatenate(step_ids).astype(np.int32),
        labels=np.concatenate([row.labels for row in rows]),
        ends=np.concatenate(ends).astype(np.int32)
        if any(row.ends is not None for row in rows)
        else None,
    )
