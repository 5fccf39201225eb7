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

import abc
import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerFast

from aprm_jax.data.replies import ReplyFormat
from aprm_jax.data.rows import UNLABELLED, Batcher, StepRow

STEP_TOKEN = "<step>"
PERTURB_TOKEN = "<perturb>"
_MARK = re.compile(r"<\S+>|\[\S+\]")


class RowFormat(Batcher, abc.ABC):
    """Lays solutions out as rows of ids: all that a PRM's user asks of its builder.

    Args:
      tokenizer: of the texts.
      pad_id: see `Batcher`.
      buckets: likewise.
      window: how many lines before a step it may see; None for all.
      line_stride: 0 for contiguous positions; else where lines start.

    Attributes:
      bos_id: opens a row.
      step_id: ends a step, or stands where a published PRM is read.
    """

    bos_id: int
    step_id: int

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        pad_id: int,
        buckets: Sequence[int],
        window: int | None = None,
        line_stride: int = 0,
    ):
        super().__init__(pad_id, buckets)
        if window is not None and window < 1:
            raise ValueError(f"window must be None or at least 1, not {window}")
        self.tokenizer = tokenizer
        self.window = window
        self.line_stride = line_stride

    def solution(
        self,
        question: str,
        steps: Sequence[str],
        labels: Sequence[float] | None = None,
    ) -> StepRow:
        """A whole solution; one label a step, NaN or `labels=None` for none."""
        if labels is None:
            labels = [UNLABELLED] * len(steps)
        if len(labels) != len(steps):
            raise ValueError(f"{len(steps)} steps but {len(labels)} labels")
        return self._lay_out(question, steps, range(len(steps)), labels)

    def step(
        self,
        question: str,
        prefix: Sequence[str],
        step: str,
        label: float = UNLABELLED,
    ) -> StepRow:
        """One step after its prefix: it alone is read."""
        return self._lay_out(question, [*prefix, step], [len(prefix)], [label])

    def bare(self, question: str, label: float = UNLABELLED) -> StepRow:
        """The question alone, read where it ends, as one step: how good it is.

        Here that is the separator which would close an empty first step.
        """
        return self._lay_out(question, [""], [0], [label])

    @abc.abstractmethod
    def _lay_out(
        self,
        question: str,
        steps: Sequence[str],
        read: Sequence[int],
        labels: Sequence[float],
    ) -> StepRow:
        """The row in which the steps of the indices `read` are scored."""

    def positions(self, ids: Sequence[int]) -> Int32[np.ndarray, " T"]:
        """Positions of one segment's ids."""
        return np.arange(len(ids), dtype=np.int32)

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


class StepBuilder(RowFormat):
    """Our own rows, and the prompts that solvers and Generators go on from.

    Args:
      tokenizer: knows `<step>` and `<perturb>`, `bos_token` and `pad_token`.
      window: see `RowFormat`.
      buckets: likewise.
      line_stride: likewise.

    Attributes:
      replies: what ends a sampled step, and which replies are one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        window: int | None,
        buckets: Sequence[int],
        line_stride: int = 0,
    ):
        self._backend = tokenizer.backend_tokenizer
        # Text of a model or of a file may spell "<step>": it must stay text.
        self._backend.encode_special_tokens = True
        vocab = self._backend.get_vocab(with_added_tokens=True)
        for token in (STEP_TOKEN, PERTURB_TOKEN):
            if token not in vocab:
                raise ValueError(f"the tokenizer has no {token!r} token")
        pad_id: int = vocab[str(tokenizer.pad_token)]
        super().__init__(tokenizer, pad_id, buckets, window, line_stride)
        self._cache: dict[str, tuple[int, ...]] = {}
        self.step_id = vocab[STEP_TOKEN]
        self.perturb_id: int = vocab[PERTURB_TOKEN]
        self.bos_id = vocab[str(tokenizer.bos_token)]
        self.replies = self._reply_format()

    def _reply_format(self) -> ReplyFormat:
        eos = self._backend.token_to_id(str(self.tokenizer.eos_token))
        stops = (self.step_id,) if eos is None else (self.step_id, eos)
        return ReplyFormat(self.tokenizer, self.step_id, stops)

    @property
    def branches(self) -> bool:
        """Whether a solution's ids begin with those of its beginnings, as a tree's do.

        See `data/trees.py`.
        """
        return self.window is None

    def positions(self, ids: Sequence[int]) -> Int32[np.ndarray, " T"]:
        """Positions of one segment's ids; they ascend also past an overlong line."""
        if not self.line_stride:
            return super().positions(ids)
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
        return self.replies.decode(ids)

    def context(self, question: str, prefix: Sequence[str]) -> list[int]:
        """`<bos>` and the visible lines, each closed by `<step>`: a solver's prompt."""
        ids = [self.bos_id]
        for line in self._visible(question, prefix):
            ids.extend(self.encode(line))
            ids.append(self.step_id)
        return ids

    def bare(self, question: str, label: float = UNLABELLED) -> StepRow:
        """See `RowFormat.bare`; it ends with the question's own `<step>`."""
        ids = self.context(question, ())
        return self._row([(ids, [-1] * (len(ids) - 1) + [0])], [label])

    def context_text(self, question: str, prefix: Sequence[str]) -> str:
        """The same prompt as text, for a server with this tokenizer.

        The special tokens that it spells are those of the layout: where a line spells
        one, the spelling is broken up.
        """
        lines = [defuse(self.tokenizer, s) for s in self._visible(question, prefix)]
        return "".join(
            [str(self.tokenizer.bos_token), *(s + STEP_TOKEN for s in lines)]
        )

    def _visible(self, question: str, prefix: Sequence[str]) -> list[str]:
        lines = [question, *prefix]
        return lines if self.window is None else lines[-self.window :]

    def perturb_context(
        self, question: str, prefix: Sequence[str], step: str
    ) -> list[int]:
        """The Generator's prompt: the correct step, `<perturb>`, then the context.

        The context stands last so that what a solver has learned still applies: the
        reply follows the same lines at the same distances as a solver's next step.
        """
        context = self.context(question, prefix)
        return [self.bos_id, *self.encode(step), self.perturb_id, *context[1:]]

    def _lay_out(
        self,
        question: str,
        steps: Sequence[str],
        read: Sequence[int],
        labels: Sequence[float],
    ) -> StepRow:
        if self.window is None:
            ids, index = self.context(question, ()), {k: i for i, k in enumerate(read)}
            step_ids = [-1] * len(ids)
            for k, step in enumerate(steps):
                line = [*self.encode(step), self.step_id]
                ids.extend(line)
                step_ids.extend([index.get(k, -1)] * len(line))
            return self._row([(ids, step_ids)], labels)
        segments = [
            self._segment(self.context(question, steps[:k]), steps[k], i)
            for i, k in enumerate(read)
        ]
        return self._row(segments, labels)

    def perturbation(
        self, question: str, prefix: Sequence[str], step: str, candidate: str
    ) -> StepRow:
        """The Generator's sequence: the candidate is the scored step."""
        context = self.perturb_context(question, prefix, step)
        return self._row([self._segment(context, candidate, 0)], [UNLABELLED])

    def _closed(self, step: str) -> list[int]:
        """A step as a reply that is to be learned, with its end."""
        return [*self.encode(step), self.replies.end_id]

    def continuation(self, context: Sequence[int], *replies: Sequence[int]) -> StepRow:
        """Sampled replies, by their own ids, after the context they were drawn for.

        Each is a step of the row. Of several, none sees another: the context branches,
        and stands in the row once. Positions count on from the context's last one, as
        the sampler's do, whatever a hostile reply consists of.
        """
        before = self.positions(context)
        after = [
            before[-1] + 1 + np.arange(len(ids), dtype=np.int32) for ids in replies
        ]
        step_ids = [-1] * len(context)
        for k, ids in enumerate(replies):
            step_ids += [k] * len(ids)
        tokens = [*context, *(i for ids in replies for i in ids)]
        row = self._row([(tokens, step_ids)], [UNLABELLED] * len(replies))
        ends = None
        if len(replies) > 1:
            sizes = np.array([len(ids) for ids in replies])
            last = len(context) + np.cumsum(sizes) - 1
            whole = np.full(len(context), len(tokens) - 1)
            ends = np.concatenate([whole, np.repeat(last, sizes)]).astype(np.int32)
        positions = np.concatenate([before, *after])
        return dataclasses.replace(row, positions=positions, ends=ends)

    def _segment(
        self, context: Sequence[int], step: str, index: int
    ) -> tuple[list[int], list[int]]:
        line = self._closed(step)
        return [*context, *line], [-1] * len(context) + [index] * len(line)


def marks(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What a text must not spell, the longest first: one may be a part of another.

    Special tokens, and ordinary added ones that the chat template writes, for they are
    marks of turns too, as DeepSeek's `<｜User｜>`. Others (Gemma's `<table>`, line
    breaks) are text.
    """
    template = str(tokenizer.chat_template)
    words = {
        t.content
        for t in tokenizer.added_tokens_decoder.values()
        if t.special or (_MARK.fullmatch(t.content) and t.content in template)
    }
    return sorted((w for w in words if len(w) > 1), key=lambda w: (-len(w), w))


def defuse(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """The text with the spelling of each of `marks` broken up by a space."""
    for word in marks(tokenizer):
        text = text.replace(word, f"{word[0]} {word[1:]}")
    return text
