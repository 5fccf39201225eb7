"""MATH-APS and trees of OmegaPRM (Luo et al., arXiv 2406.06592) as OpenR writes them.

A tree (Wang et al., arXiv 2410.09671, `omegaPRM_v2`), its root the question:

    {"question": "...", "final_answer": "...", "reasoning_steps":
      {"text": "...", "mc_value": 0.5, "children": [
        {"text": "First, ...", "mc_value": 0.75, "children": [...]}, ...]}}

`mc_value` is the share of sampled completions from there that are right. MATH-APS is
flat, one beginning of a solution a row, whose label is that of its last step:

    {"question": "...", "process": "First, ...\\n\\nThen ...", "label": ["+"]}
"""

from __future__ import annotations

import re
from typing import Any

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.labelled import LabelledSolution, from_labels
from aprm_jax.data.readers.base import StepSource, optional_text, spelt_list, step_label
from aprm_jax.data.readers.numbered import without_number

_TREES = ("reasoning_steps", "tree_structure", "tree")
_TAG = re.compile(r"ки|\n{4,}")  # OpenR's separators of steps
_BLANK = re.compile(r"\n\s*\n")


def parse(row: dict) -> list[LabelledSolution]:
    """The solutions of a row: one for each leaf of a tree."""
    tree = next((row[name] for name in _TREES if isinstance(row.get(name), dict)), None)
    if tree is None and isinstance(row.get("children"), list):
        tree = row
    if tree is None:
        return [_flat(row)]
    question = (optional_text(row, "question") or optional_text(tree, "text")).strip()
    if not question:
        raise RowError("neither a field 'question' nor a text of the tree's root")
    found = [_solution(question, steps, labels) for steps, labels in _leaves(tree)]
    if not found:
        raise RowError("the tree has no step below its root")
    return found


def _leaves(tree: dict) -> list[tuple[list[str], list[float]]]:
    """Steps and labels on the way to each leaf, in preorder."""
    found = []
    waiting: list[tuple[Any, list[str], list[float]]] = [(tree, [], [])]
    while waiting:
        node, steps, labels = waiting.pop()
        if not isinstance(node, dict):
            raise RowError("a node of the tree must be an object")
        if node is not tree:
            # A node may add nothing to its parent; its children then follow that.
            text = without_number(optional_text(node, "text"))
            if text:
                label = step_label(node.get("mc_value"), "mc_value")
                steps, labels = [*steps, text], [*labels, label]
        children = node.get("children") or []
        if not isinstance(children, list):
            raise RowError("field 'children' must be a list")
        waiting.extend((child, steps, labels) for child in reversed(children))
        if not children and steps:
            found.append((steps, labels))
    return found


def _flat(row: dict) -> LabelledSolution:
    question = require_str(row, "question").strip()
    text = require_str(row, "process").replace("\r\n", "\n")
    parts = (_TAG if _TAG.search(text.strip()) else _BLANK).split(text)
    steps = [step for part in parts if (step := without_number(part))]
    values = spelt_list(row, "label")
    labels = [step_label(value, f"label {k}") for k, value in enumerate(values)]
    if len(labels) == 1:
        labels = [step_label(None, "")] * (len(steps) - 1) + labels
    if len(labels) != len(steps):
        raise RowError(f"{len(steps)} steps and {len(labels)} labels")
    return _solution(question, steps, labels)


def _solution(question: str, steps: list[str], labels: list[float]) -> LabelledSolution:
    return from_labels(question, steps, labels)


SOURCES = (StepSource("math_aps", parse, hub=("datasets:openreasoner/MATH-APS",)),)
