"""A sampler that says what a test wrote down, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aprm_jax.data.steps import StepBuilder
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.sampler import Sampler, Samples


class ScriptedSampler(Sampler):
    """Answers each prompt with `reply(its last line, how often it was asked)`.

    A reply that ends with an ellipsis is cut off before it: the room ran out. One that
    ends with `<eos>` ends with that token. The k-th token has log-probability -k / 8.
    """

    def __init__(
        self,
        builder: StepBuilder,
        reply: Callable[[str, int], str],
        *,
        prompt_buckets: Sequence[int] = (64,),
        max_new_tokens: int = 16,
    ):
        self.builder, self.reply = builder, reply
        self.prompt_buckets = tuple(prompt_buckets)
        self.max_new_tokens = max_new_tokens
        self.requests: list[list[str]] = []
        self.temperatures: list[float] = []
        self.draws: list[list[int]] = []
        self.asked: dict[str, int] = {}

    def sample(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        key: Any,
        *,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
        draws: Sequence[int] | None = None,
    ) -> Samples:
        del params, key, truncation
        self.draws.append(list(range(len(prompts)) if draws is None else draws))
        builder, (n, width) = self.builder, (len(prompts), self.max_new_tokens)
        self.temperatures.append(temperature)
        self.requests.append([])
        out = Samples(
            tokens=np.full((n, width), builder.pad_id, np.int32),
            logprobs=np.zeros((n, width), np.float32),
            lengths=np.zeros(n, np.int32),
            stopped=np.zeros(n, bool),
        )
        for i, prompt in enumerate(prompts):
            assert 0 < len(prompt) <= self.prompt_buckets[-1]
            starts = [k for k, t in enumerate(prompt[:-1]) if t == builder.step_id]
            line = builder.decode(prompt[starts[-1] + 1 if starts else 1 :])
            self.requests[-1].append(line)
            text = self.reply(line, self.asked.get(line, 0))
            self.asked[line] = self.asked.get(line, 0) + 1
            ids = list(builder.encode(text.removesuffix("...").removesuffix("<eos>")))
            if text.endswith("<eos>"):
                ids.append(int(builder.tokenizer.eos_token_id))
            elif not text.endswith("..."):
                ids.append(builder.step_id)
            out.tokens[i, : len(ids)] = ids
            out.logprobs[i, : len(ids)] = -np.arange(1, len(ids) + 1) / 8
            out.lengths[i] = len(ids)
            out.stopped[i] = not text.endswith("...")
        return out
