"""Step builders of instruction models: told in words what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from aprm_jax.data import prompts
from aprm_jax.data.replies import Reply, ReplyFormat
from aprm_jax.data.steps import StepBuilder


class PromptedReplies(ReplyFormat):
    """Takes replies in words by strict rules: `prompts.no_step`.

    With a chat template a reply ends with the turn; without one, at the end of the
    line too, where a model that only continues text would go on. Most tokenizers have
    many tokens that end a line (".\n", "\n\n"): each of them stops.
    """

    reasons = prompts.REASONS

    def __init__(self, tokenizer: PreTrainedTokenizerFast, step_id: int):
        added = tokenizer.added_tokens_decoder.items()
        self._special = {index for index, token in added if token.special}
        backend = tokenizer.backend_tokenizer
        ends = [backend.get_vocab(with_added_tokens=True)[str(tokenizer.eos_token)]]
        if tokenizer.chat_template:
            ends += prompts.turn_ends(tokenizer)
        elif found := prompts.ids_with(tokenizer, "\n"):
            self.line_end, self.line_end_ids = "\n", frozenset(found)
            ends += found
            ends += prompts.encode(tokenizer, "\n")[-1:]
        super().__init__(tokenizer, step_id, tuple(dict.fromkeys(ends)), ends[-1])

    def _reason(self, reply: Reply, text: str) -> str:
        if not reply.stopped:
            return "unfinished"
        if not self._special.isdisjoint(reply.ids[:-1]):
            return "unprintable"
        return self.no_step(text)

    def no_step(self, text: str) -> str:
        """See `prompts.no_step`."""
        return prompts.no_step(text)


class PromptedBuilder(StepBuilder):
    """Asks in words.

    Attributes:
      cue: what stands before a reply where there is no chat template.

    Args:
      tokenizer: as `prompts.prepare_tokenizer` makes it.
      window: see `StepBuilder`.
      buckets: likewise.
      prompt: of `config.prompt`; "" for the default.
    """

    cue: str

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        window: int | None,
        buckets: Sequence[int],
        prompt: str = "",
    ):
        super().__init__(tokenizer, window, buckets)
        self.prompt = prompt

    def _reply_format(self) -> ReplyFormat:
        return PromptedReplies(self.tokenizer, self.step_id)

    def _closed(self, step: str) -> list[int]:
        """As a model would write it: a space behind the cue, one token with the end.

        A step of several lines becomes one: the first line's end would be its own.
        """
        end = self.replies.line_end
        if not end:
            return super()._closed(step)
        step = " ".join(filter(None, map(str.strip, step.split(end))))
        before, ids = self.encode(self.cue.rstrip()), self.encode(self.cue + step + end)
        line = ids[len(before) :]
        joined = ids[: len(before)] == before and line
        if joined and line[-1] in self.replies.line_end_ids:
            return list(line)
        return super()._closed(step)


class PromptedGenerator(PromptedBuilder):
    """A Generator that is told to rewrite a step."""

    cue = prompts.GENERATOR_CUE

    def perturb_context(
        self, question: str, prefix: Sequence[str], step: str
    ) -> list[int]:
        """The prompt, up to where the reply begins."""
        return prompts.generator_prompt_ids(
            self.tokenizer, question, prefix, step, self.prompt
        )


class PromptedSolver(PromptedBuilder):
    """A solver that is told to write the next step.

    Each step follows a prompt of its own, which shows all lines before it.

    Args:
      tokenizer: see `PromptedBuilder`.
      buckets: likewise.
      prompt: likewise.
    """

    cue = prompts.SOLVER_CUE

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        buckets: Sequence[int],
        prompt: str = "",
    ):
        # A window, for steps are segments of their own; one that leaves out no line.
        super().__init__(tokenizer, sys.maxsize, buckets, prompt)

    def context(self, question: str, prefix: Sequence[str]) -> list[int]:
        """The prompt, up to where the step begins."""
        return prompts.solver_prompt_ids(self.tokenizer, question, prefix, self.prompt)

    def context_text(self, question: str, prefix: Sequence[str]) -> str:
        """See `StepBuilder.context_text`."""
        return prompts.solver_prompt_text(self.tokenizer, question, prefix, self.prompt)
