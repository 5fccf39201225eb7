"""What a server is sent for a step, and how what it sends back is read.

As text, for it goes to a tokenizer of the server's own; or as ids, to a server that has
the tokenizer of a model in this process, and tells which ones it drew.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from aprm_jax.data import prompts
from aprm_jax.data.replies import Reply
from aprm_jax.data.steps import StepBuilder
from aprm_jax.servers.client import EndpointError
from aprm_jax.solvers.completions import Choice

Prompt = str | tuple[int, ...]


class Layout(Protocol):
    """Prompts and replies of a server."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What each request says beside its prompt."""
        ...

    def prompt(self, question: str, prefix: Sequence[str]) -> Prompt | None:
        """What the next step follows; None where there is no room for one."""
        ...

    def read(self, choice: Choice) -> tuple[str, bool]:
        """A step, and whether it is a whole one, so that another could follow."""
        ...


class TextLayout(abc.ABC):
    """Prompts and replies as text."""

    stops: tuple[str, ...]  # that end a step
    # How many of them, the last ones, are special tokens. A server ends at those by
    # itself, and does not see them in its own text.
    special: int

    @abc.abstractmethod
    def prompt(self, question: str, prefix: Sequence[str]) -> str | None:
        """See `Layout.prompt`."""

    @abc.abstractmethod
    def no_step(self, text: str) -> str:
        """Why a reply that ended is no step; "" for a step, "empty" without a text."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """See `Layout.fields`: where a step ends."""
        stops = self.stops[: len(self.stops) - self.special]
        return {"stop": list(stops)} if stops else {}

    def read(self, choice: Choice) -> tuple[str, bool]:
        """See `Layout.read`."""
        text, stopped = choice.text, choice.stopped
        for stop in self.stops:  # some servers leave it in
            text, found, _ = text.partition(stop)
            stopped |= bool(found)
        text = text.strip()
        # An empty line is a bad step, but it is one.
        return text, stopped and self.no_step(text) in ("", "empty")


@dataclasses.dataclass(frozen=True)
class WordLayout(TextLayout):
    """Words alone, for a model that nobody knows more of: a step is a line.

    Attributes:
      words: of `config.prompt.solver`; "" for the default.
    """

    words: str = ""
    stops: tuple[str, ...] = ("\n",)
    special: int = 0

    def prompt(self, question: str, prefix: Sequence[str]) -> str:
        """See `Layout.prompt`; how much room there is the server knows."""
        return prompts.solver_prompt_text(None, question, prefix, self.words)

    def no_step(self, text: str) -> str:
        """See `TextLayout.no_step`."""
        return prompts.no_step(text)


class BuilderLayout(TextLayout):
    """A step builder's prompts, for a server with the builder's tokenizer.

    Args:
      builder: of a solver; positions are contiguous.
    """

    def __init__(self, builder: StepBuilder):
        self._builder = builder
        tokenizer, known = builder.tokenizer, builder.tokenizer.added_tokens_decoder
        replies = builder.replies
        stop_ids = [i for i in replies.stop_ids if i not in replies.line_end_ids]
        stop_ids.sort(key=lambda i: i in known)
        read = [str(tokenizer.decode([i], skip_special_tokens=False)) for i in stop_ids]
        self.stops = tuple(filter(None, (replies.line_end, *read)))
        self.special = sum(i in known for i in stop_ids)
        # A server's tokenizer opens a text as it was made to.
        opened = tokenizer.backend_tokenizer.encode("", add_special_tokens=True).ids
        self._opened = (
            str(tokenizer.bos_token) if opened[:1] == [builder.bos_id] else ""
        )

    def prompt(self, question: str, prefix: Sequence[str]) -> str | None:
        """See `Layout.prompt`; the room is that of the builder's rows."""
        if len(self._builder.context(question, prefix)) > self._builder.buckets[-1]:
            return None
        text = self._builder.context_text(question, prefix)
        return text.removeprefix(self._opened)

    def no_step(self, text: str) -> str:
        """See `TextLayout.no_step`."""
        return self._builder.replies.no_step(text)


class IdLayout:
    """A step builder's prompts as ids, for a server that draws from its very model.

    What it draws is what a sampler in this process could: every token, up to one that
    ends a reply. Such fields are vLLM's; others may not know them.

    Args:
      builder: of a solver; positions are contiguous.
      vocab_size: how many ids its model has.
    """

    def __init__(self, builder: StepBuilder, vocab_size: int):
        self._builder, self._vocab_size = builder, vocab_size
        self._stops = frozenset(builder.replies.stop_ids)
        self.fields: Mapping[str, Any] = {
            "stop_token_ids": sorted(self._stops),
            # What the model's own files say of its end and of sampling does not count.
            "ignore_eos": True,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "logprobs": 1,
            "return_token_ids": True,
        }

    def prompt(self, question: str, prefix: Sequence[str]) -> tuple[int, ...] | None:
        """See `Layout.prompt`; the room is that of the builder's rows."""
        ids = self._builder.context(question, prefix)
        return tuple(ids) if len(ids) <= self._builder.buckets[-1] else None

    def read(self, choice: Choice) -> tuple[str, bool]:
        """See `Layout.read`: by the ids, as what a sampler drew in this process.

        Raises:
          EndpointError: they are no ids of the model.
        """
        if max(choice.tokens) >= self._vocab_size:
            raise EndpointError(
                f"solver.endpoint: the server drew the id {max(choice.tokens)}, and "
                f"the solver has {self._vocab_size}: it serves another model"
            )
        stopped = choice.tokens[-1] in self._stops
        drawn = Reply(choice.tokens, np.asarray(choice.logprobs, np.float32), stopped)
        reply = self._builder.replies.read(drawn)
        return reply.text, reply.reason in ("", "empty")
