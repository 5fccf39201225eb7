"""What the trees of a search teach: values of steps, and solutions that are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import LabelledSolution, from_labels, question_id
from aprm_jax.data.problem import Problem
from aprm_jax.files import damaged, unsealed
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.held_out import note_held_out
from aprm_jax.search.values import value_labels

SOLUTIONS = "solutions.jsonl"  # what job=search writes into its stage's folder
Node = Mapping[str, Any]


def check(context: Context, earlier: Mapping[str, str], field: str, name: str) -> None:
    """An earlier stage searches, or the file of a search is there.

    Raises:
      DataError: names the field and what would be right.
    """
    if not is_search(context, earlier, name):
        searches = [stage for stage, job in earlier.items() if job == "search"]
        raise DataError(
            f"{field}: {name!r} is neither an earlier stage of job=search "
            f"({', '.join(searches) or 'there is none'}) nor a file or folder of "
            f"one's {SOLUTIONS}"
        )


def is_search(context: Context, earlier: Mapping[str, str], name: str) -> bool:
    """Whether a name is that of an earlier search, or of what one has written."""
    return earlier.get(name) == "search" or tree_file(context, name) is not None


def check_values(context: Context, earlier: Mapping[str, str]) -> None:
    """A PRM that learns values names searches; see `check`."""
    c = context.config.prm
    if c.negatives != "values":
        return
    if not c.data:
        raise DataError(
            "prm.data is empty: prm.negatives='values' learns from the trees of the "
            "stages of job=search that it names"
        )
    for name in c.data:
        check(context, earlier, "prm.data", name)


def tree_file(context: Context, name: str) -> Path | None:
    """The rows of a search: a stage's, a folder's, or a file; None for none."""
    places = (context.root / name / SOLUTIONS, Path(name) / SOLUTIONS, Path(name))
    return next((path for path in places if path.is_file()), None)


def value_solutions(context: Context, names: Sequence[str]) -> list[LabelledSolution]:
    """Every whole solution of the trees, its labels the values of its steps.

    Raises:
      JobError: no tree has a right answer, so no distance to one is known.
      DamagedFileError: a row is not what was written.
    """
    out: list[LabelledSolution] = []
    searched = right = 0
    for question, nodes in _trees(context, names, "prm.data"):
        values = value_labels([n["parent"] for n in nodes], _verdicts(nodes))
        searched, known = searched + 1, values and values[0] == 0
        right += bool(known)
        for k, node in enumerate(nodes):
            if node["finished"] and known:
                path = _path(nodes, k)
                out.append(
                    from_labels(
                        question,
                        [nodes[i]["text"] for i in path],
                        [values[i] for i in path],
                        source="search",
                        problem_id=question_id(question),
                        finished=True,
                    )
                )
    _say_learned(
        context, searched, right, f"{len(out)} whole solutions", "prm.data", names
    )
    return out


def right_solutions(context: Context, names: Sequence[str]) -> list[Problem]:
    """The distinct solutions of the trees whose answers are right.

    Raises:
      JobError, DamagedFileError: as of `value_solutions`.
    """
    found: dict[tuple[str, tuple[str, ...]], Problem] = {}
    searched, questions = 0, set()
    for question, nodes in _trees(context, names, "sft.data"):
        searched += 1
        for k, verdict in enumerate(_verdicts(nodes)):
            if verdict:
                steps = tuple(nodes[i]["text"] for i in _path(nodes, k))
                found.setdefault((question, steps), Problem(question, steps, ""))
                questions.add(question)
    count = f"{len(found)} right solutions"
    _say_learned(context, searched, len(questions), count, "sft.data", names)
    return list(found.values())


def _say_learned(
    context: Context,
    searched: int,
    right: int,
    found: str,
    field: str,
    names: Sequence[str],
) -> None:
    if not right:
        raise JobError(
            f"{field}: none of the {searched} trees of {', '.join(names)} has a right "
            "answer: search more problems or longer (search.problems, "
            "search.iterations), or with another solver"
        )
    log.info(
        "%s: %s; %d of %d trees have a right one", context.stage, found, right, searched
    )


def _trees(
    context: Context, names: Sequence[str], field: str
) -> Iterator[tuple[str, list[Node]]]:
    """The question and the nodes of each tree that was kept and can be judged.

    A search of an evaluation split teaches nothing: its questions are left out.

    Raises:
      DataError: there is no such file, or not a tree in it.
    """
    held = total = 0
    for name in names:
        path = tree_file(context, name)
        if path is None:
            raise DataError(f"{field}: {name}: no {SOLUTIONS} is there")
        found = False
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = unsealed(line)
                if row is None:
                    remedy = "Search again: run the stage's command with a new output."
                    place = f"{path}, line {number}"
                    raise damaged(place, "is not what was written", remedy)
                if "tree" in row and row["reference"] is not None:
                    found, total = True, total + 1
                    if context.domain.is_held_out(row["question"]):
                        held += 1
                        continue
                    yield row["question"], row["tree"]
        if not found:
            raise DataError(
                f"{field}: {path} has no tree of a question whose answer is known: "
                "search with search.trees >= search.problems, on problems with answers "
                "(a search that is there is not gone on with: name another stage)"
            )
    if held == total:
        raise DataError(
            f"{field}: every tree of {', '.join(names)} is of a question that is held "
            "out to evaluate on: search training problems (search.splits=train)"
        )
    note_held_out(context, field, held, "trees")


def _verdicts(nodes: Sequence[Node]) -> list[bool | None]:
    """Of whole solutions whether they are right."""
    return [bool(n.get("correct")) if n["finished"] else None for n in nodes]


def _path(nodes: Sequence[Node], node: int) -> list[int]:
    """The nodes from the first step to this one."""
    path: list[int] = []
    while node > 0:
        path.append(node)
        node = nodes[node]["parent"]
    return path[::-1]
