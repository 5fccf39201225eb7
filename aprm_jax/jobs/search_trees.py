"""Search trees for the report, from the lines that searches left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.files import damaged, unsealed
from aprm_jax.jobs.search import SOLUTIONS
from aprm_jax.report.contents import Branch, SearchTree

_TREES = 2  # of a search; the page is to stay readable
_CHILDREN = 12  # of a step, and of the question
_DEPTH = 60  # steps below each other; the template goes down step by step


def search_trees(root: Path) -> list[SearchTree]:
    """The first trees of every search in a workdir.

    Raises:
      DamagedFileError: a line is not what was written.
    """
    out = []
    for path in sorted(root.glob(f"*/{SOLUTIONS}")):
        with path.open("rb") as file:
            for number, line in zip(range(1, _TREES + 1), file, strict=False):
                if not line.endswith(b"\n"):
                    break  # a kill tore it; the search goes on there
                row = unsealed(line)
                if row is None:
                    remedy = "Delete this line and all after it, and search again."
                    place = f"{path}, line {number}"
                    raise damaged(place, "is not what was written", remedy)
                if row.get("tree"):
                    out.append(_tree(row, path.parent.name))
    return out


def _tree(row: Mapping[str, Any], search: str) -> SearchTree:
    nodes = row["tree"]
    children: list[list[int]] = [[] for _ in nodes]
    depth = [0] * len(nodes)
    for index, node in enumerate(nodes[1:], start=1):
        children[node["parent"]].append(index)
        depth[index] = depth[node["parent"]] + 1
    won = _won(nodes, children, row["solution"] or ())
    made: dict[int, Branch] = {}
    for index in range(len(nodes) - 1, 0, -1):  # children stand after their parents
        node = nodes[index]
        shown = _shown(nodes, children[index], won) if depth[index] < _DEPTH else []
        made[index] = Branch(
            text=node["text"],
            score=math.nan if node["score"] is None else node["reward"],
            count=node["count"],
            finished=node["finished"],
            dropped=node["dropped"] and index not in won,
            won=index in won,
            children=[made[child] for child in shown],
            left_out=len(children[index]) - len(shown),
        )
    shown = _shown(nodes, children[0], won)
    return SearchTree(
        question=row["question"],
        branches=[made[child] for child in shown],
        answer=row["answer"],
        expected=row["reference"],
        correct=row["correct"],
        why=row["why"] or _decided(row),
        method=f"{search}, {row['split']}",
        left_out=len(children[0]) - len(shown),
    )


def _shown(
    nodes: Sequence[Mapping[str, Any]], children: Sequence[int], won: set[int]
) -> list[int]:
    """What there is room for, the best first, and what won in any case."""
    ranked = sorted(children, key=lambda k: (k not in won, -nodes[k]["reward"], k))
    return sorted(ranked[:_CHILDREN], key=lambda k: (-nodes[k]["reward"], k))


def _won(
    nodes: Sequence[Mapping[str, Any]],
    children: Sequence[Sequence[int]],
    solution: Sequence[str],
) -> set[int]:
    """The nodes of the solution that was chosen: a path, the best of equal ones."""
    paths: list[list[int]] = [[0]]
    for k, text in enumerate(solution):
        last = k == len(solution) - 1
        paths = [
            [*path, child]
            for path in paths
            for child in children[path[-1]]
            if nodes[child]["text"] == text and (nodes[child]["finished"] or not last)
        ]
    best = max(paths, key=lambda p: nodes[p[-1]]["reward"], default=[])
    return set(best[1:])


def _decided(row: Mapping[str, Any]) -> str:
    """What the winner had and the others had not."""
    # Rows of an earlier version have no groups.
    every = [{"group": c["answer"]} | c for c in row["candidates"]]
    won = next((c["group"] for c in every if c["answer"] == row["answer"]), None)
    alike = [c for c in every if c["group"] == won]
    others = [c for c in every if c["group"] != won and c["score"] is not None]
    samples, total = (sum(c["count"] for c in cs) for cs in (alike, every))
    text = f"{samples} of {total} whole samples say so"
    if row["score"] is not None:
        text = f"score {row['score']:.2f}; {text}"
    if others:
        best = max(others, key=lambda c: c["score"])
        said = "one without an answer" if best["answer"] is None else best["answer"]
        text += f", the best of the others is {said} with {best['score']:.2f}"
    return text
