"""How the text oracle judges GSM8K's human steps, changed ones and reworded ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from oracle_changes import CHANGES, REWORDINGS, change, reword, stripped

from aprm_jax.oracle.numerals import format_number
from aprm_jax.oracle.steps.quantities import figures, licensed_by
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Label

READINGS = ("annotated", "plain")  # with `<<48/2=24>>`, and with these taken out
Step = tuple[str, list[str], str]  # question, steps before, step


def read_steps(path: str | Path, count: int, seed: int) -> list[Step]:
    """`count` steps drawn from a GSM8K file without replacement, `#### N` included."""
    steps: list[Step] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            lines = [" ".join(x.split()) for x in row["answer"].split("\n")]
            lines = [x for x in lines if x]
            question = " ".join(row["question"].split())
            steps += [(question, lines[:k], x) for k, x in enumerate(lines)]
    order = np.random.default_rng(seed).permutation(len(steps))[:count]
    return [steps[i] for i in order]


def measure(steps: Sequence[Step], seed: int, varied: int) -> dict:
    """Counts of verdicts by kind of variant and by reading; see `READINGS`.

    Args:
      steps: all of them are judged as they are.
      seed: of the changes; those of one step depend on nothing but it and the place.
      varied: how many of them, from the first on, are changed and reworded too.
    """
    oracle = TextOracle()
    constants = {Fraction(text) for text in oracle.config.constants}
    counts: dict[str, dict[str, Counter]] = {r: {} for r in READINGS}
    for place, (question, prefix, step) in enumerate(steps):
        variants = [("human", step)]
        if place < varied:
            rng = np.random.default_rng([seed, place])
            variants += _variants(rng, question, prefix, step, constants)
        for kind, text in variants:
            for reading in READINGS:
                plain = reading == "plain"
                before = [stripped(x) if plain else x for x in prefix]
                ours, theirs = (stripped(x) if plain else x for x in (text, step))
                known = None if kind == "human" else theirs
                if known is not None and ours == known:
                    continue  # nothing is left of the variant
                verdict = oracle.judge(question, before, known, ours)
                counts[reading].setdefault(kind, Counter())[verdict.label.name] += 1
    return {
        reading: {
            kind: {label.name: found[kind][label.name] for label in Label}
            for kind in ("human", *CHANGES, *REWORDINGS)
            if kind in found
        }
        for reading, found in counts.items()
    }


def _variants(
    rng: np.random.Generator,
    question: str,
    prefix: Sequence[str],
    step: str,
    constants: set[Fraction],
) -> Iterator[tuple[str, str]]:
    licence = set(constants)
    for text in (question, *prefix, step):
        licence |= licensed_by(text)
    known = (question, *prefix)
    quantities = [format_number(x) for text in known for x in figures(text)]
    for kind in CHANGES:
        text = change(rng, kind, step, quantities, licence)
        if text is not None:
            yield kind, text
    for kind in REWORDINGS:
        text = reword(rng, kind, step)
        if text is not None:
            yield kind, text
