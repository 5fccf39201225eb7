"""Grade-school word problems (GSM8K and data of its form) as a domain.

A step is a line of the human solution; the last one is `#### N`. The calculator
annotations `<<48/2=24>>` stay in the text: the solver writes them, the oracle reads
them. Data whose steps have none (ProcessBench) may be scored by a model that was
trained with `strip_annotations`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from aprm_jax.data.gsm8k import canonical, parse_row
from aprm_jax.data.jsonl import Limits
from aprm_jax.data.problem import Problem
from aprm_jax.data.sources import read_source, source_path
from aprm_jax.tasks.text import TextDomain


class Gsm8kDomain(TextDomain):
    """Implements `Domain` on question/answer rows of GSM8K's form.

    Its sources are paths or names; see `data/sources.py`.

    Args:
      strip_annotations: removes `<<...>>` from the steps. The oracle then reads bare
        equalities, and knows less.
      dev_count, common: see `TextDomain`.
    """

    name = "gsm8k"

    def __init__(
        self, *, dev_count: int = 500, strip_annotations: bool = False, **common: Any
    ):
        self._parse = functools.partial(parse_row, strip_annotations=strip_annotations)
        super().__init__(dev_count=dev_count, **common)

    def _read(self, source: str, split: str, limits: Limits) -> Sequence[Problem]:
        path = source_path(source)
        split = split if path is None or path.is_dir() else ""
        rows = read_source(source, split, self._parse, **limits)
        self.num_bad += rows.num_bad
        return rows

    def answer(self, steps: Sequence[str]) -> str | None:
        """The number that the first concluding step states, as `1080`."""
        found = super().answer(steps)
        return None if found is None else canonical(found)
