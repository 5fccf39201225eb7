"""How the text oracle's verdicts on PRM800K's steps agree with people's ratings."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Label, Verdict

BAD = -1
RATINGS = (-1, 0, 1)


@dataclasses.dataclass(frozen=True)
class Rated:
    """A step that people rated.

    Attributes:
      question: the problem.
      prefix: the steps before.
      step: the step.
      rating: -1, 0 or 1.
      original: another step at this place that people rated 1, the preferred one where
        there is one; None where there is none.
    """

    question: str
    prefix: tuple[str, ...]
    step: str
    rating: int
    original: str | None


def read_rated(path: str | Path, half: int | None = None) -> list[Rated]:
    """The distinct rated steps of a PRM800K phase-1 file in its flat form.

    Args:
      path: JSON lines, compressed.
      half: 0 or 1 takes the questions whose hash is even or odd; None takes all.
    """
    places: dict[tuple[str, tuple[str, ...]], dict[str, dict]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            question = row["instruction"]
            if row["rating"] is None or half not in (None, _half(question)):
                continue
            place = places.setdefault((question, tuple(row["responses"])), {})
            place.setdefault(row["next_response"], row)
    return [
        Rated(question, prefix, text, row["rating"], _original(place, text))
        for (question, prefix), place in places.items()
        for text, row in place.items()
    ]


def _half(question: str) -> int:
    return hashlib.sha256(question.encode()).digest()[0] % 2


def _original(place: dict[str, dict], step: str) -> str | None:
    good = [row for row in place.values() if row["rating"] == 1]
    good.sort(key=lambda row: not row["is_preferred_response"])
    # Not of the step itself: that would be a copy.
    return good[0]["next_response"] if good and good[0] is not place[step] else None


def judged(
    steps: Iterable[Rated], oracle: TextOracle, known: bool
) -> Iterator[tuple[Rated, Verdict]]:
    """The verdicts, with the original step (only where there is one) or without it."""
    asked = [
        (s, oracle.submit(s.question, s.prefix, s.original if known else None, s.step))
        for s in steps
        if not known or s.original is not None
    ]
    for step, future in asked:
        yield step, future.result()


def measure(pairs: Iterable[tuple[Rated, Verdict]]) -> dict:
    """Counts of ratings by verdict; precision and coverage of `incorrect`."""
    counts = {label.name: Counter() for label in Label}
    kinds: dict[str, Counter] = {}
    for step, verdict in pairs:
        counts[verdict.label.name][step.rating] += 1
        if verdict.label == Label.INCORRECT:
            kinds.setdefault(verdict.kind, Counter())[step.rating] += 1
    found = counts["INCORRECT"]
    bad = sum(c[BAD] for c in counts.values())
    return {
        "steps": sum(c.total() for c in counts.values()),
        "bad": bad,
        "ratings": {name: _by_rating(c) for name, c in counts.items()},
        "kinds": {kind: _by_rating(c) for kind, c in sorted(kinds.items())},
        "precision": found[BAD] / found.total() if found else None,
        "coverage": found[BAD] / bad if bad else None,
    }


def disagreements(
    pairs: Iterable[tuple[Rated, Verdict]], causes: dict[str, str]
) -> list[dict]:
    """Steps called incorrect that people did not rate -1, as short excerpts.

    Args:
      pairs: as `judged` gives them.
      causes: what somebody who read a step wrote down, by its `key`.
    """
    found = []
    for step, verdict in pairs:
        if verdict.label != Label.INCORRECT or step.rating == BAD:
            continue
        parts = (step.question, *step.prefix, step.step, str(step.original))
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        found.append(
            {
                "key": key,
                "cause": causes.get(key, ""),
                "rating": step.rating,
                "kind": verdict.kind,
                "reason": verdict.reason[:160],
                "step": step.step[:160],
                "original": step.original and step.original[:160],
            }
        )
    return found


def _by_rating(counts: Counter) -> dict[str, int]:
    return {str(rating): counts[rating] for rating in RATINGS}
