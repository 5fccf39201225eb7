"""Steps that a reader may take in another way than they are meant, kind by kind."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.oracle.verdict import Label

CASES = [
    json.loads(line)
    for line in Path(__file__)
    .with_name("readings.jsonl")
    .read_text("utf-8")
    .split("\n")
    if line
]
ALLOWED = {
    "correct": {Label.CORRECT},
    "incorrect": {Label.INCORRECT},
    "undecidable": {Label.UNDECIDABLE},
    # Where the words leave it open, only the harmful answer is wrong.
    "not correct": {Label.INCORRECT, Label.UNDECIDABLE},
    "not incorrect": {Label.CORRECT, Label.UNDECIDABLE},
}
ORACLE = TextOracle()


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{k}-{case['kind']}" for k, case in enumerate(CASES)]
)
def test_steps_are_read_as_they_are_meant(case):
    verdict = ORACLE.judge(
        case["question"], case["prefix"], case["original"], case["candidate"]
    )
    assert verdict.label in ALLOWED[case["says"]], verdict


def test_every_kind_has_several_steps():
    kinds = Counter(case["kind"] for case in CASES)
    assert len(kinds) == 15
    assert min(kinds.values()) >= 8
    assert {case["says"] for case in CASES} == set(ALLOWED)
