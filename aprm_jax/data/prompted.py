"""Step builders of instruction models: told in words what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from aprm_jax.data import prompts
from aprm_jax.data.steps import Reply, StepBuilder, StepRow


class PromptedBuilder(StepBuilder):
    """Asks in words, and takes the reply by strict rules.

    With a chat template a reply ends with the turn; without one, at the end of the
    line too, where a model that only continues text would go on.

    Args:
      tokenizer: as `prompts.prepare_tokenizer` makes it.
      window: see `StepBuilder`.
      buckets: likewise.
      prompt: of `config.prompt`; "" for the default.
    """

    reasons = prompts.REASONS

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        window: int | None,
        buckets: Sequence[int],
        prompt: str = "",
    ):
        super().__init__(tokenizer, window, buckets)
        self.prompt = prompt
        added = tokenizer.added_tokens_decoder.items()
        self._special = {index for index, token in added if token.special}
        vocab = self._backend.get_vocab(with_added_tokens=True)
        ends = [vocab[str(tokenizer.eos_token)]]
        if tokenizer.chat_template:
            ends += prompts.turn_ends(tokenizer)
        else:
            newline = self._backend.encode("\n", add_special_tokens=False).ids
            ends += newline[-1:]
        self.stop_ids = tuple(dict.fromkeys(ends))

    def read_reply(self, reply: Sequence[int], stopped: bool) -> Reply:
        """The step that a reply consists of, by `prompts.parse_reply`."""
        if not stopped:
            return Reply(None, "unfinished")
        body = list(reply[:-1])
        if not self._special.isdisjoint(body):
            return Reply(None, "unprintable")
        return prompts.parse_reply(self._backend.decode(body))


class PromptedGenerator(PromptedBuilder):
    """A Generator that is told to rewrite a step."""

    def perturb_context(
        self, question: str, prefix: Sequence[str], step: str
    ) -> list[int]:
        """The prompt, up to where the reply begins."""
        return prompts.generator_prompt_ids(
            self.tokenizer, question, prefix, step, self.prompt
        )

    def perturbation(
        self, question: str, prefix: Sequence[str], step: str, candidate: str
    ) -> StepRow:
        """The prompt and the reply that is to be learned, its end included."""
        context = self.perturb_context(question, prefix, step)
        return self.continuation(context, [*self.encode(candidate), self.stop_ids[-1]])


class PromptedSolver(PromptedBuilder):
    """A solver that is told to write the next step.

    Each step follows a prompt of its own, which shows all lines before it.

    Args:
      tokenizer: see `PromptedBuilder`.
      buckets: likewise.
      prompt: likewise.
    """

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

    def _segment(
        self, context: Sequence[int], step: str, index: int
    ) -> tuple[list[int], list[int]]:
        line = [*self.encode(step), self.stop_ids[-1]]
        return [*context, *line], [-1] * len(context) + [index] * len(line)
