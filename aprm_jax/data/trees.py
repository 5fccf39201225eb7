"""Many solutions of one question as a tree: what they share stands in a row once.

Data sets of step labels rate several candidates for each step of a path, so that one
beginning belongs to hundreds of solutions. A row here holds a question and steps in
preorder; each step sees the steps that lead to it, at the positions that it has in its
own solution, and no other. A decoder reads every step as it would read it in a row of
its solution alone, and reads it once.

A tree that is longer than a row goes on in another one, which repeats the path to where
it goes on as mere context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

import numpy as np

from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.rows import UNLABELLED, StepRow
from aprm_jax.data.steps import RowFormat, StepBuilder

STEP_TOKENS = 8  # a row of many has room for a step in so many of its tokens


@dataclasses.dataclass(frozen=True)
class TreeRow:
    """A row of ids, and which step each of its steps is. S steps.

    Attributes:
      row: the ids; its labels are those of the nodes, each in one row alone.
      nodes: S nodes of the tree.
    """

    row: StepRow
    nodes: tuple[int, ...]


def tree_rows(
    builder: RowFormat,
    tree: PrefixTree,
    *,
    length: int,
    max_steps: int,
    labels: Mapping[int, float] | None = None,
    branch: bool = True,
) -> list[TreeRow]:
    """Rows that hold every step of some solutions.

    Args:
      builder: gives the ids.
      tree: the solutions; a step may stand in many of them.
      length: most tokens of a row. A step that does not fit a row together with what
        leads to it is left out, and so is what follows it.
      max_steps: most steps of a row.
      labels: of the nodes; one without is NaN.
      branch: whether the model can read rows that branch. Where it cannot, or the
        builder cannot make them, each solution is a row of its own, and what it shares
        with others is read again.

    Returns:
      The rows, question by question, in order of first appearance.
    """
    rows: list[TreeRow] = []
    for question in tree.questions:
        part = tree, question, length, max_steps, labels or {}
        if branch and can_branch(builder):
            rows += _laid_out(builder, *part)
        else:
            rows += _one_each(builder, *part)
    return rows


def can_branch(builder: RowFormat) -> TypeGuard[StepBuilder]:
    """Whether rows of a builder can hold several solutions of a question."""
    return isinstance(builder, StepBuilder) and builder.branches


def _one_each(
    builder: RowFormat,
    tree: PrefixTree,
    question: int,
    length: int,
    max_steps: int,
    labels: Mapping[int, float],
) -> list[TreeRow]:
    rows: list[TreeRow] = []
    seen: set[int] = set()
    for leaf, _ in _preorder(tree, question):
        if tree.children[leaf]:
            continue
        text, steps = tree.steps(leaf)
        size = steps_that_fit(builder, text, steps[:max_steps], length)
        nodes = tuple(tree.path(leaf)[1 : size + 1])
        if not nodes or nodes[-1] in seen:
            continue
        known = [
            UNLABELLED if node in seen else labels.get(node, UNLABELLED)
            for node in nodes
        ]
        rows.append(TreeRow(builder.solution(text, steps[:size], known), nodes))
        seen.update(nodes)
    return rows


def steps_that_fit(
    builder: RowFormat, question: str, steps: Sequence[str], length: int
) -> int:
    """The most steps, from the first, whose row has at most `length` tokens."""
    if not steps or len(builder.solution(question, steps)) <= length:
        return len(steps)
    fits, fails = 0, len(steps)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if len(builder.solution(question, steps[:middle])) <= length:
            fits = middle
        else:
            fails = middle
    return fits


def _preorder(tree: PrefixTree, question: int) -> Iterator[tuple[int, int]]:
    """(node, depth) of a question's steps; the first step's depth is 1."""
    waiting = [(node, 1) for node in reversed(tree.children[question])]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting.extend((child, depth + 1) for child in reversed(tree.children[node]))


@dataclasses.dataclass
class _Open:
    """A row in the making: lines in preorder."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    positions: list[int] = dataclasses.field(default_factory=list)
    step_ids: list[int] = dataclasses.field(default_factory=list)
    # Of each line its depth and first column; the question's depth is 0.
    lines: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    nodes: list[int] = dataclasses.field(default_factory=list)

    def add(self, ids: list[int], positions: np.ndarray, depth: int, step: int) -> None:
        self.lines.append((depth, len(self.tokens)))
        self.tokens += ids
        self.positions += positions.tolist()
        self.step_ids += [step] * len(ids)

    def close(self, labels: Mapping[int, float]) -> TreeRow:
        size = len(self.tokens)
        ends = np.zeros(size, np.int32)
        open_lines: list[tuple[int, int, int]] = []  # depth, first column, past the end
        starts = [start for _, start in self.lines] + [size]
        for k, (depth, start) in enumerate(self.lines):
            while open_lines and open_lines[-1][0] >= depth:
                _, first, past = open_lines.pop()
                ends[first:past] = start - 1
            open_lines.append((depth, start, starts[k + 1]))
        for _, first, past in open_lines:
            ends[first:past] = size - 1
        known = [labels.get(node, UNLABELLED) for node in self.nodes]
        row = StepRow(
            tokens=np.asarray(self.tokens, np.int32),
            positions=np.asarray(self.positions, np.int32),
            segment_ids=np.ones(size, np.int32),
            step_ids=np.asarray(self.step_ids, np.int32),
            labels=np.asarray(known, np.float32),
            ends=ends,
        )
        return TreeRow(row, tuple(self.nodes))


def _laid_out(
    builder: StepBuilder,
    tree: PrefixTree,
    question: int,
    length: int,
    max_steps: int,
    labels: Mapping[int, float],
) -> list[TreeRow]:
    rows: list[TreeRow] = []
    row: _Open | None = None
    # The lines that lead to a node, the question's first.
    lines = [builder.context(tree.texts[question], ())]
    lost: int | None = None  # depth of a step that fits no row
    for node, depth in _preorder(tree, question):
        if lost is not None and depth > lost:
            continue
        lost = None
        line = [*builder.encode(tree.texts[node]), builder.step_id]
        del lines[depth:]
        before = [i for ids in lines for i in ids]
        lines.append(line)
        if len(before) + len(line) > length:
            lost = depth
            continue
        positions = builder.positions([*before, *line])
        full = row is None or (
            len(row.tokens) + len(line) > length or len(row.nodes) == max_steps
        )
        if row is None or full:
            if row is not None:
                rows.append(row.close(labels))
            row, start = _Open(), 0
            for above, ids in enumerate(lines[:-1]):
                row.add(ids, positions[start : start + len(ids)], above, -1)
                start += len(ids)
        row.add(line, positions[len(before) :], depth, len(row.nodes))
        row.nodes.append(node)
    if row is not None:
        rows.append(row.close(labels))
    return rows
