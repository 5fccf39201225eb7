"""How G looks beyond what it writes by itself: see docs/method.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from aprm_jax.config.game import ExploreConfig
from aprm_jax.data.replies import Reply
from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import StepBuilder
from aprm_jax.game.archive import Archive
from aprm_jax.game.rollouts import Perturbation, Prompt
from aprm_jax.models.decoder import Decoder
from aprm_jax.oracle.verdict import Label
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.verifiers.scoring import Scorer, likelihood_scorer

_TEMPERATURES = (0.5, 2.0)
_NATS = 6.0  # a step with a token less likely than this is not plausible at all


class Explorer:
    """Explores for G, with the help of a solver where the config says so.

    Args:
      config: what is done.
      builder: of G, and of the solver.
      decoder: likewise.
      sampler: likewise.
      solver: its parameters; None where it does not help.
    """

    def __init__(
        self,
        config: ExploreConfig,
        builder: StepBuilder,
        decoder: Decoder,
        sampler: Sampler,
        solver: Any = None,
    ):
        self.config, self.builder, self.sampler = config, builder, sampler
        self.solver = solver
        self.scorer = Scorer(
            likelihood_scorer(decoder), builder, max_steps=1, batch_sizes=(16, 128)
        )

    def asked(
        self,
        prompts: Sequence[Prompt],
        kinds: Sequence[str],
        archive: Archive | None,
        rng: np.random.Generator,
    ) -> list[Prompt]:
        """Some of the prompts ask for a kind of error: one that R is fooled by."""
        if archive is None or not self.config.kinds:
            return list(prompts)
        weights = archive.fool_rates * [b.size > 0 for b in archive.buffers]
        if not weights.sum():
            return list(prompts)
        shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)
        count = round(self.config.kinds * len(prompts))
        chosen = rng.choice(len(kinds), size=count, p=shares)
        first = [
            Prompt.of(self.builder, p.situation, kinds[k], kinds)
            for p, k in zip(prompts, chosen, strict=False)
        ]
        return [*first, *prompts[count:]]

    def draw(
        self,
        backbone: Any,
        prompts: Sequence[Prompt],
        group_size: int,
        key: Any,
        rng: np.random.Generator,
    ) -> list[list[Reply]]:
        """Replies to each prompt, with the log-probabilities of what drew them."""
        c, n = self.config, len(prompts)
        tempered = round(c.tempered * n)
        forced = min(round(c.forced * n), n - tempered)
        temperature = float(rng.uniform(*_TEMPERATURES))
        ids = [p.ids for p in prompts for _ in range(group_size)]
        ends = [tempered * group_size, (tempered + forced) * group_size, len(ids)]
        replies: list[Reply] = []
        start = 0
        for end, how in zip(ends, ("tempered", "forced", ""), strict=True):
            numbers = range(start, end)
            if len(numbers):
                own = [ids[i] for i in numbers]
                if how == "forced":
                    asked = [prompts[i // group_size] for i in numbers]
                    replies += self._forced(backbone, asked, own, key, numbers, rng)
                else:
                    samples = self.sampler.sample(
                        backbone,
                        own,
                        key,
                        draws=numbers,
                        temperature=temperature if how else 1.0,
                    )
                    replies += [samples.reply(k) for k in range(len(own))]
            start = end
        return [
            replies[i : i + group_size] for i in range(0, len(replies), group_size)
        ]

    def _forced(self, backbone, prompts, ids, key, numbers, rng) -> list[Reply]:
        contexts = [
            tuple(self.builder.context(p.situation.question, p.situation.prefix))
            for p in prompts
        ]
        solved = self.sampler.sample(
            self.solver["backbone"], contexts, jax.random.fold_in(key, 1), draws=numbers
        )
        openings = []
        for k in range(len(prompts)):
            reply = solved.reply(k)
            most = len(reply.ids) - 1  # G at least ends it
            n = min(int(rng.integers(1, self.config.forced_tokens + 1)), most)
            openings.append((reply.ids[:n], reply.logprobs[:n]))
        asked = [
            (*prompt, *opening)
            for prompt, (opening, _) in zip(ids, openings, strict=True)
        ]
        samples = self.sampler.sample(backbone, asked, key, draws=numbers)
        room, out = self.sampler.max_new_tokens, []
        for k, (opening, logprobs) in enumerate(openings):
            rest = samples.reply(k)
            whole = (*opening, *rest.ids)
            out.append(
                Reply(
                    whole[:room],
                    np.concatenate([logprobs, rest.logprobs])[:room],
                    rest.stopped and len(whole) <= room,
                )
            )
        return out

    def bonus(
        self, perturbations: Sequence[Perturbation]
    ) -> Float32[np.ndarray, " N"] | None:
        """What each is paid besides; None for nothing."""
        if not self.config.plausible:
            return None
        rows: dict[int, StepRow] = {}
        for i, p in enumerate(perturbations):
            if p.verdict.label != Label.INCORRECT:
                continue
            point = p.situation
            rows[i] = self.builder.step(point.question, point.prefix, p.reply.text)
        said = self.scorer.rows(self.solver, rows)
        out = np.zeros(len(perturbations), np.float32)
        for i in rows:
            out[i] = max(0.0, 1.0 + float(said[i][0]) / _NATS)
        return self.config.plausible * out

    def paid(
        self,
        perturbations: Sequence[Perturbation],
        p_correct: Float32[np.ndarray, " N"],
    ) -> Float32[np.ndarray, " N"]:
        """R's probabilities that G is paid by: 0 for another kind than was asked for."""
        missed = [p.prompt.kind not in ("", p.verdict.kind) for p in perturbations]
        return np.where(missed, 0.0, p_correct)
