"""What a model wrote after a prompt, and whether that is one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32
from transformers import PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply, from the sampler to the loss. T tokens.

    Attributes:
      ids: as drawn, the stop token included.
      logprobs: the sampler's log-probability of each.
      stopped: whether a stop token ended it, not the room for it.
      text: what it says, without the stop token; "" until a `ReplyFormat` has read it.
      reason: why it is no step, of the format's `reasons`; "" for a step.
      forced: tokens at its beginning that another model drew.
    """

    ids: tuple[int, ...]
    logprobs: Float32[np.ndarray, " T"] = dataclasses.field(compare=False)
    stopped: bool
    text: str = ""
    reason: str = ""
    forced: int = dataclasses.field(default=0, compare=False)


class ReplyFormat:
    """Reads replies that are a line of ours, closed by `<step>`.

    Attributes:
      reasons: why a sampled reply can be no step.
      line_end: a text that ends a reply wherever in a token it stands, or "".
      line_end_ids: the tokens, of `stop_ids`, that it stands in.

    Args:
      tokenizer: decodes them.
      step_id: closes a line.
      stop_ids: what ends a sampled reply.
      end_id: what a reply that is to be learned ends with; by default `step_id`.
    """

    reasons: tuple[str, ...] = (
        "unfinished",  # cut off before its end, or not closed as a step
        "empty",
    )
    line_end: str = ""
    line_end_ids: frozenset[int] = frozenset()

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        step_id: int,
        stop_ids: tuple[int, ...],
        end_id: int | None = None,
    ):
        self._backend = tokenizer.backend_tokenizer
        self.step_id = step_id
        self.stop_ids = stop_ids
        self.end_id = step_id if end_id is None else end_id

    def decode(self, ids: Sequence[int] | Int32[np.ndarray, " T"]) -> str:
        """The text of one line, up to and without its `<step>`."""
        ids = [int(i) for i in ids]
        if self.step_id in ids:
            ids = ids[: ids.index(self.step_id)]
        text = self._backend.decode(ids, skip_special_tokens=False)
        return (text.partition(self.line_end)[0] if self.line_end else text).strip()

    def read(self, reply: Reply) -> Reply:
        """The reply with its text, and why it is no step."""
        # What stands before the end of a line, in one token with it, is of the line.
        whole = not reply.stopped or reply.ids[-1] in self.line_end_ids
        body = reply.ids if whole else reply.ids[:-1]
        text = self.decode(body)
        return dataclasses.replace(reply, text=text, reason=self._reason(reply, text))

    def _reason(self, reply: Reply, text: str) -> str:
        if not reply.stopped or reply.ids[-1] != self.step_id:
            return "unfinished"
        return self.no_step(text)

    def no_step(self, text: str) -> str:
        """Why the text of a reply that ended as it should is no step; "" for a step."""
        return "" if text else "empty"
