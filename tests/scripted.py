"""A sampler that says what a test wrote down, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tiny

from aprm_jax.data.steps import StepBuilder
from aprm_jax.sampling.methods import Truncation
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.sampling.session import Session
from aprm_jax.sampling.stops import Stops


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
        self.batch_buckets, self.stops = (16,), Stops(builder.replies.stop_ids)
        self.config = tiny.decoder()
        self.builder, self.reply = builder, reply
        self.prompt_buckets = tuple(prompt_buckets)
        self.max_new_tokens = max_new_tokens
        self.requests: list[list[str]] = []
        self.temperatures: list[float] = []
        self.draws: list[list[int]] = []
        self.asked: dict[str, int] = {}

    @property
    def tokens_read(self) -> int:
        """None: no model reads them."""
        return 0

    def session(self, params: Any, prompts: Sequence[Sequence[int]]) -> Session:
        """Rows of the same sampler."""
        del params
        return _ScriptedSession(self, prompts)

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


class _ScriptedSession(Session):
    """The part of a session that a solver uses."""

    num_bytes = 0  # pyright: ignore[reportAssignmentType]
    config = tiny.decoder()  # pyright: ignore[reportAssignmentType]
    lengths = range(99)  # pyright: ignore[reportAssignmentType]

    def __init__(self, sampler: ScriptedSampler, prompts: Sequence[Sequence[int]]):
        self._sampler, self._rows = sampler, [list(ids) for ids in prompts]

    def gather(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[i] for i in rows]

    def follow(self, rows: Sequence[Sequence[int]]) -> list[int]:
        self._rows = [list(ids) for ids in rows]
        return [0] * len(rows)

    def sample(self, key: Any, *, stops: Any, max_new_tokens: int, **options: Any):
        del stops, max_new_tokens
        return self._sampler.sample(None, self._rows, key, **options)
