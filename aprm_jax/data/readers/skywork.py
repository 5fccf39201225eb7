"""Skywork-OR1-RL-Data (He et al., arXiv 2505.22312): problems in the form of verl.

    {"data_source": "...", "ability": "math",
     "prompt": [{"role": "user", "content": "..."}],
     "reward_model": {"ground_truth": "[\\"2\\"]", "style": "rule"},
     "extra_info": {"index": 7, ...}}

`ground_truth` is an answer, or a JSON list of them, of which the first counts. Other
sets of verl's form read the same way, as DAPO-Math-17k. Problems with tests of code in
place of an answer are refused.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from aprm_jax.data.jsonl import RowError, require_dict
from aprm_jax.data.readers.base import (
    MathProblem,
    ProblemSource,
    chat_question,
    number_text,
    optional_text,
)


def parse(row: dict) -> list[MathProblem]:
    """A problem with its answer."""
    question = chat_question(row, "prompt")
    if optional_text(row, "ability") == "code":
        raise RowError("field 'ability' is 'code': its answer is a program")
    answer = _answer(require_dict(row, "reward_model").get("ground_truth"))
    return [
        MathProblem(
            question,
            answer,
            category=optional_text(row, "data_source"),
        )
    ]


def _answer(value: Any) -> str:
    if isinstance(value, str) and value.lstrip().startswith('["'):
        # An answer may begin like that and be no list.
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, list):
        if not value:
            raise RowError("field 'ground_truth' is an empty list")
        value = value[0]
    return number_text(value, "ground_truth")


SOURCES = (
    ProblemSource(
        "skywork",
        parse,
        hub=(
            "datasets:Skywork/Skywork-OR1-RL-Data",
            "datasets:BytedTsinghua-SIA/DAPO-Math-17k",
        ),
        split="math",
    ),
)
