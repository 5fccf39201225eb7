"""Solutions that begin alike, as one tree: a step is what leads to it and its text.

Nodes are integers, so a solution of S steps takes room for S nodes; a key that spelt
out the steps before each step would take room for S squared.
"""

from __future__ import annotations

from collections.abc import Sequence

ROOT = -1  # what leads to a question: nothing


class PrefixTree:
    """Questions and steps as nodes, numbered in order of first appearance.

    Attributes:
      parents: of each node, the one that leads to it; `ROOT` for a question.
      texts: of each node, the question or the step.
      children: of each node, those that it leads to, in order of first appearance.
      questions: nodes of the questions.
    """

    def __init__(self):
        self.parents: list[int] = []
        self.texts: list[str] = []
        self.children: list[list[int]] = []
        self.questions: list[int] = []
        self._known: dict[tuple[int, str], int] = {}

    def __len__(self) -> int:
        """How many nodes there are, questions among them."""
        return len(self.texts)

    def add(self, question: str, steps: Sequence[str]) -> list[int]:
        """The nodes of a solution's steps, made where they are missing."""
        node, path = self._child(ROOT, question), []
        for step in steps:
            node = self._child(node, step)
            path.append(node)
        return path

    def path(self, node: int) -> list[int]:
        """The nodes from the question to `node`, both among them."""
        out = []
        while node != ROOT:
            out.append(node)
            node = self.parents[node]
        return out[::-1]

    def steps(self, node: int) -> tuple[str, tuple[str, ...]]:
        """The question of a node, and the texts of the steps up to and with it."""
        question, *steps = (self.texts[n] for n in self.path(node))
        return question, tuple(steps)

    def _child(self, parent: int, text: str) -> int:
        node = self._known.setdefault((parent, text), len(self.texts))
        if node == len(self.texts):
            self.parents.append(parent)
            self.texts.append(text)
            self.children.append([])
            siblings = self.questions if parent == ROOT else self.children[parent]
            siblings.append(node)
        return node
