"""The step builder of a Generator that is an instruction model, told what to do."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from aprm_jax.data import prompts
from aprm_jax.data.steps import Reply, StepBuilder, StepRow


class PromptedBuilder(StepBuilder):
    """Asks for a perturbation in words, and takes the reply by strict rules.

    With a chat template a reply ends with the turn; without one, at the end of the
    line too, where a model that only continues text would go on.

    Args:
      tokenizer: as `prompts.prepare_tokenizer` makes it.
      window: see `StepBuilder`.
      buckets: likewise.
      prompt: of `config.prompt.generator`; "" for the default.
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
        self.end_id: int = vocab[str(tokenizer.eos_token)]
        self.stop_ids = (self.end_id,)
        if not tokenizer.chat_template:
            newline = self._backend.encode("\n", add_special_tokens=False).ids
            self.stop_ids += tuple(newline[-1:])

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

    def read_reply(self, reply: Sequence[int], stopped: bool) -> Reply:
        """The step that a reply consists of, by `prompts.parse_reply`."""
        if not stopped:
            return Reply(None, "unfinished")
        body = list(reply[:-1])
        if not self._special.isdisjoint(body):
            return Reply(None, "unprintable")
        return prompts.parse_reply(self._backend.decode(body))
