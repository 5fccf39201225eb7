"""Evaluator of robustness: how often a fresh attacker fools a frozen R.

Axes: S situations, each a question with right steps, to one of which G replies.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special
from jaxtyping import Bool, Int

from aprm_jax.evals.intervals import (
    Interval,
    bootstrap_statistic,
    harmonic,
    share,
)
from aprm_jax.game.arena import Arena
from aprm_jax.game.config import GameConfig
from aprm_jax.game.metrics import logged
from aprm_jax.game.rollouts import Situation
from aprm_jax.game.rounds import LoopState, Rounds
from aprm_jax.oracle.verdict import Label
from aprm_jax.training.metrics import to_scalar
from aprm_jax.training.timing import PhaseTimer

SET, SEARCHED_RATE = "robustness", "searched_fool_rate"
SCORE = "robustness_score"
RATES = ("game/fool_rate", "game/success_rate", "game/still_correct_rate")
PROBED = 5  # rounds that the attacker is measured on, before and after; no training
SEARCHED = 64  # replies to a situation that a searching attacker takes the best of
_PROBES = 1 << 20  # the first of these rounds: far behind the last of any training
_EXAMPLES = 24
_SPARE = 4  # times the rounds that a budget would last if every reply were another


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the attacker's replies to the same situations come to; nobody learns.

    Attributes:
      replies: to each situation.
      wrong: of those, wrong by the oracle.
      fooled: of those, accepted by R: its P(correct) is at least a half.
      right: replies that are right after all.
      kinds: of wrong replies, kind -> (how many, how many of those accepted).
      examples: wrong replies that R believes most, as `rounds.logged` has them.
      situations: what was replied to.
    """

    replies: Int[np.ndarray, " S"]
    wrong: Int[np.ndarray, " S"]
    fooled: Int[np.ndarray, " S"]
    right: Int[np.ndarray, " S"]
    kinds: Mapping[str, tuple[int, int]]
    examples: Sequence[Mapping[str, Any]] = ()
    situations: Sequence[Situation] = ()

    @property
    def fool_rate(self) -> float:
        """Share of wrong replies that R accepts; NaN where nothing is wrong."""
        return _share(self.fooled.sum(), self.wrong.sum())

    @property
    def searched_rate(self) -> float:
        """Share of situations with a wrong reply where R accepts one: the best of all.

        NaN where there is none.
        """
        return _share((self.fooled > 0).sum(), (self.wrong > 0).sum())

    def rates(self) -> dict[str, float]:
        """As records have them."""
        total = self.replies.sum()
        return {
            "fool_rate": self.fool_rate,
            "success_rate": _share(self.fooled.sum(), total),
            "still_correct_rate": _share(self.right.sum(), total),
        }

    def interval(self, resamples: int) -> Interval:
        """The fool rate with its interval over situations.

        Where none of the wrong replies passes, or each, it is the exact one of a share
        of the situations that have any: replies to one are no independent draws.
        """
        some = self.wrong > 0
        if some.any() and self.fool_rate in (0.0, 1.0):
            return share(self.fooled[some] > 0)

        def statistic(drawn: np.ndarray) -> np.ndarray:
            fooled, wrong = (x[drawn].sum(axis=1) for x in (self.fooled, self.wrong))
            return np.where(wrong > 0, fooled / np.maximum(wrong, 1), np.nan)

        count, value = len(self.wrong), self.fool_rate
        return bootstrap_statistic(statistic, count, value, resamples=resamples)


@dataclasses.dataclass(frozen=True)
class Siege:
    """An attack within a budget.

    Attributes:
      calls: of the oracle, that the attacker had learned from at each probe; the first
        is 0.
      probes: one each.
      searched: at the end, with `SEARCHED` replies to each situation; None where the
        attacker diverged.
      accepted: of the probes' situations, whether R accepts the right step itself.
      rounds: that were played.
      diverged: whether the last update was not finite; nothing was measured behind it.
    """

    calls: Sequence[int]
    probes: Sequence[Probe]
    searched: Probe | None
    accepted: Bool[np.ndarray, " S"]
    rounds: int
    diverged: bool

    @property
    def strongest(self) -> int:
        """The number of the probe with the highest fool rate."""
        rates = [-1.0 if math.isnan(p.fool_rate) else p.fool_rate for p in self.probes]
        return int(np.argmax(rates))


def attack(
    arena: Arena,
    config: GameConfig,
    *,
    generator: Any,
    prm: Any,
    head: str,
    seed: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains a fresh attacker for `config.updates` rounds against a frozen R.

    Args:
      arena: where it is played; its verifier, where it has one, is the R under
        attack.
      config: the attacker's game; its `updates` is the budget.
      generator: the attacker's start, the same for every R that is compared.
      prm: the R under attack, {} for a verifier; it does not learn.
      head: R's, of `heads.HEADS`.
      seed: of the attack; one that R was not trained with.
      progress: called with each round's number and rates.

    Returns:
      `fool_rate` (share of wrong perturbations that R calls correct, at 0.5),
      `success_rate` (share of all perturbations that are wrong and pass) and
      `still_correct_rate`, after the training, and `start_*`, the same before it: both
      of the same problems, far behind those that it trains on, over all replies to
      them. `searched_fool_rate` is what the attacker achieves when it searches as
      well: the share of situations where R believes one of its `SEARCHED` replies that
      are wrong, among those where any is.
      NaN for a `fool_rate` where nothing was wrong. `diverged` is 1 where the last
      update of the attacker was not finite: the rates after the training are NaN then.
    """
    rounds = _attacker(arena, config, generator, prm, head, seed)
    state, diverged = rounds.state, False
    before = measure(rounds, state).rates()
    for done, after, metrics in _trained(rounds, config.updates):
        state, diverged = after, _nonfinite(metrics)
        if progress:
            progress(done, {name: metrics[name] for name in RATES if name in metrics})
    start = {f"start_{name}": rate for name, rate in before.items()}
    if diverged:  # a broken attacker's replies say nothing about R
        rates = dict.fromkeys((*before, SEARCHED_RATE), math.nan)
    else:
        searched = measure(rounds, state, group_size=SEARCHED)
        rates = measure(rounds, state).rates()
        rates |= {SEARCHED_RATE: searched.searched_rate}
    return rates | start | {"diverged": float(diverged)}


def besiege(
    arena: Arena,
    config: GameConfig,
    *,
    generator: Any,
    prm: Any,
    head: str,
    seed: int,
    budget: int,
    points: int,
    situations: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> Siege:
    """Attacks as `attack` does, until the oracle was asked `budget` times.

    What is asked to measure is not counted. An attacker that repeats itself asks for
    few verdicts a round: it gives up after `_SPARE` times the rounds that a budget of
    new replies lasts, and its last probe then stands at the calls that it made.

    Args:
      arena, config, generator, prm, head, seed: see `attack`.
      budget: verdicts on the attacker's replies.
      points: probes behind the one at the start, evenly spaced.
      situations: of a probe, at least.
      progress: called with rounds, calls and the last round's fool rate.
    """
    c = config
    most = _SPARE * math.ceil(budget / (c.groups * c.group_size))
    config = dataclasses.replace(config, updates=most)
    rounds = _attacker(arena, config, generator, prm, head, seed)
    probed = math.ceil(situations / c.groups)
    state, diverged, done, calls = rounds.state, False, 0, 0
    marks, probes = [0], [measure(rounds, state, probed)]
    accepted = _accepted(rounds, state, probes[0].situations)
    for done, after, metrics in _trained(rounds, most):
        state, diverged = after, _nonfinite(metrics)
        calls += int(metrics["game/oracle_calls"])
        if progress:
            progress(done, calls, metrics.get("game/fool_rate", math.nan))
        if diverged or calls >= budget:
            break
        if calls * points // budget > marks[-1] * points // budget:
            marks.append(calls)
            probes.append(measure(rounds, state, probed))
    searched = None
    if not diverged:
        marks.append(calls)
        probes.append(measure(rounds, state, probed))
        searched = measure(rounds, state, probed, group_size=SEARCHED)
    return Siege(marks, probes, searched, accepted, done, diverged)


def robustness_score(siege: Siege, resamples: int) -> Interval:
    """How well a verifier holds, in one number from 0 to 1.

    The harmonic mean of two shares, 0 where either is: of the attacker's wrong steps
    those that R calls wrong, where the attacker was strongest within its budget; and of
    the right steps that they stand for, those that R calls right. R says right from
    P(correct) = 0.5 on. One that refuses everything is fooled by nobody, and has 0; one
    that tells all apart has 1. It is quoted with the budget and the attacker:
    "robustness 0.83 at 10,000 oracle calls, attacker SmolLM2-135M".

    Args:
      siege: the attack.
      resamples: of the interval, over situations. Where one of the shares is 0 or 1 no
        resample shows another: the interval then comes from those of the two.
    """
    probe = siege.probes[siege.strongest]
    accepted = siege.accepted.astype(np.float64)
    if probe.fool_rate in (0.0, 1.0) or accepted.mean() in (0.0, 1.0):
        return harmonic(_caught(probe.interval(resamples)), share(accepted))

    def statistic(drawn: np.ndarray) -> np.ndarray:
        fooled, wrong = (x[drawn].sum(axis=-1) for x in (probe.fooled, probe.wrong))
        caught = np.where(wrong > 0, 1 - fooled / np.maximum(wrong, 1), np.nan)
        right = accepted[drawn].mean(axis=-1)
        both = caught + right
        return np.where(both == 0, 0.0, 2 * caught * right / np.maximum(both, 1e-300))

    count = len(accepted)
    value = float(statistic(np.arange(count)))
    return bootstrap_statistic(statistic, count, value, resamples=resamples)


def _caught(fooled: Interval) -> Interval:
    return Interval(1 - fooled.mean, 1 - fooled.high, 1 - fooled.low)


def measure(
    rounds: Rounds, state: LoopState, probed: int = 0, group_size: int = 0
) -> Probe:
    """What G's replies come to as it is, in rounds that nobody learns from.

    Args:
      rounds: the attack.
      state: of it.
      probed: how many rounds; 0 for `PROBED`.
      group_size: replies to a situation; 0 for the config's.
    """
    parts: list[Int[np.ndarray, "4 _"]] = []
    kinds: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    found: list[tuple[float, Any]] = []
    situations: list[Situation] = []
    for step in range(_PROBES, _PROBES + (probed or PROBED)):
        played = rounds.play(state, step, PhaseTimer(), group_size=group_size)
        prompts = played.prompts[: rounds.config.groups]
        situations += [prompt.situation for prompt in prompts]
        counts = np.zeros((4, len(prompts)), np.int64)
        for p, odds in zip(played.perturbations, played.log_odds, strict=True):
            wrong = p.verdict.label == Label.INCORRECT
            fooled = wrong and odds >= 0.0
            right = p.verdict.label == Label.CORRECT
            counts[:, p.group] += p.count * np.array([1, wrong, fooled, right])
            if wrong:
                kinds[p.verdict.kind] += p.count
                passed[p.verdict.kind] += p.count * int(fooled)
                found.append((float(odds), p))
        parts.append(counts)
    best = sorted(found, key=lambda pair: -pair[0])[:_EXAMPLES]
    shares = scipy.special.expit([odds for odds, _ in best])
    return Probe(
        *np.concatenate(parts, axis=1),
        kinds={kind: (n, passed[kind]) for kind, n in kinds.most_common()},
        examples=logged(0, [p for _, p in best], shares, _EXAMPLES) if best else [],
        situations=situations,
    )


def _attacker(
    arena: Arena, config: GameConfig, generator: Any, prm: Any, head: str, seed: int
) -> Rounds:
    return Rounds(
        arena,
        # What it begins from is kept for other attackers: in int8 it were there twice.
        dataclasses.replace(config, references="full"),
        generator=generator,
        prm=prm,
        head=head,
        seed=seed,
        train_prm=False,
    )


def _trained(
    rounds: Rounds, updates: int
) -> Iterator[tuple[int, LoopState, dict[str, float]]]:
    """Rounds done, the state behind them, and the last one's metrics."""
    state, timer = rounds.state, PhaseTimer()
    for step in range(updates):
        output = rounds.step_fn(state, step, timer)
        state = output.state
        yield step + 1, state, {n: to_scalar(v) for n, v in output.metrics.items()}


def _nonfinite(metrics: Mapping[str, float]) -> bool:
    return metrics.get("nonfinite", 0.0) > 0


def _accepted(
    rounds: Rounds, state: LoopState, situations: Sequence[Situation]
) -> Bool[np.ndarray, " S"]:
    """Whether R calls the right step of each situation right."""
    return rounds.scores(state, situations) >= 0.0


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else math.nan
