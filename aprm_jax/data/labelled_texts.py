"""Solutions with labelled steps by "READER:SOURCE", and the right text in them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Unpack

from aprm_jax.data.jsonl import DataError, Limits
from aprm_jax.data.labelled import NEUTRAL, LabelledSolution, Solutions
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.problem import Problem
from aprm_jax.data.readers import read_steps


def split_source(text: str, field: str) -> tuple[str, str]:
    """ "READER:SOURCE" as (reader, source); the source may be "" for the hub's name.

    Raises:
      DataError: there is no colon.
    """
    reader, colon, source = text.partition(":")
    if not colon or not reader:
        raise DataError(
            f"{field}: {text!r} must be READER:SOURCE, for example "
            "prm800k:data/prm800k/phase1_train.jsonl.gz"
        )
    return reader, source


def read_labelled(
    text: str, *, unique: bool = True, **limits: Unpack[Limits]
) -> Solutions:
    """Reads "READER:SOURCE"; questions and steps stay as the data has them.

    Whoever scores a solution gives the text as it is, so that is what is learned and
    measured: what a layout cannot hold is the step builder's business alone.

    Raises:
      DataError: see `readers.read_steps`; or no solution has a label.
    """
    reader, source = split_source(text, "labelled solutions")
    rows = read_steps(source, reader, unique=unique, **limits)
    if not rows:
        raise DataError(f"{text}: no solution has a labelled step")
    return rows


def right_texts(
    solutions: Sequence[LabelledSolution], cut: float = NEUTRAL
) -> tuple[Problem, ...]:
    """The longest texts without a wrong step, none of them a beginning of another.

    A step is taken where its label, in whichever row, is at least `cut`, or where it
    has none but a row goes on behind it.
    """
    tree = PrefixTree()
    paths = [tree.add(s.question, s.steps) for s in solutions]
    wrong = {
        node
        for s, path in zip(solutions, paths, strict=True)
        for node, label in zip(path, s.labels, strict=True)
        if label < cut
    }
    known = {
        node
        for s, path in zip(solutions, paths, strict=True)
        for node, label in zip(path, s.labels, strict=True)
        if label >= cut
    }
    found: dict[int, Problem] = {}
    inside: set[int] = set()
    for s, path in zip(solutions, paths, strict=True):
        right = list(itertools.takewhile(lambda node: node not in wrong, path))
        while right and not (right[-1] in known or tree.children[right[-1]]):
            right.pop()  # nobody says anything of it, nor goes on from it
        if right:
            text = Problem(s.question, s.steps[: len(right)], "")
            found.setdefault(right[-1], text)
            inside.update(right[:-1])
    return tuple(text for node, text in found.items() if node not in inside)
