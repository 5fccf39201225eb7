"""The file of value labels: a line a question, whole batches, the same after a kill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from aprm_jax.config import flat
from aprm_jax.data.problem import Problem
from aprm_jax.files import cannot_write, damaged, sealed, to_json, unsealed
from aprm_jax.jobs.backbones import BACKBONE, ENDPOINT
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.row_files import judged_in
from aprm_jax.jobs.solvers import written_by
from aprm_jax.training import hosts
from aprm_jax.training.console import duration
from aprm_jax.training.timing import PhaseTimer
from aprm_jax.verifiers.named import fingerprint_of
from aprm_jax.verifiers.value_labels import ValueTree

LABELS = "labels.jsonl"
_SECONDS = 10.0  # between lines of progress


class LabelFile:
    """`labels.jsonl` of a stage: what made it, then the prefixes of each question.

    Args:
      context: of the stage.
      problems: in order.
    """

    def __init__(self, context: Context, problems: Sequence[Problem]):
        self._context, self._problems = context, problems
        self._batch = context.config.pav.batch
        self.path = context.directory / LABELS
        self._done = self._before = 0
        self._spent: dict[str, float] = {}
        self._began = self._said = time.monotonic()

    def read(self) -> list[ValueTree]:
        """What is there already, whole batches of it; the rest is cut off.

        Raises:
          DamagedFileError: a line is not what was written.
          JobError: it was made by another config, or of other questions.
        """
        made_by = self._made_by()
        if not self.path.exists():
            self._append([made_by])
            return []
        with self.path.open("rb") as file:
            lines = file.readlines()
        if not lines or not lines[0].endswith(b"\n"):  # killed before its first line
            os.truncate(self.path, 0)
            self._append([made_by])
            return []
        self._check_made_by(self._row(lines[0], 1), made_by)
        rows = [line for line in lines[1:] if line.endswith(b"\n")]
        whole = len(rows) == len(self._problems)
        kept = len(rows) if whole else len(rows) // self._batch * self._batch
        trees = [self._tree(line, k) for k, line in enumerate(rows[:kept])]
        os.truncate(self.path, sum(map(len, lines[: kept + 1])))
        self._done = self._before = kept
        total = len(self._problems)
        log.info("%s: %d of %d questions are there already", self.path, kept, total)
        return trees

    def add(self, trees: Sequence[ValueTree], timer: PhaseTimer) -> None:
        """Writes a batch, and says now and then how far it is and what took how long.

        Of several hosts the leader alone does.

        Raises:
          FileError: the file cannot be written.
        """
        if not hosts.leader():
            return
        self._append([tree.to_json() for tree in trees])
        for name, seconds in timer.pop().items():
            self._spent[name] = self._spent.get(name, 0.0) + seconds
        self._done += len(trees)
        total, now = len(self._problems), time.monotonic()
        if self._done < total and now - self._said < _SECONDS:
            return
        self._said = now
        rate = (now - self._began) / max(self._done - self._before, 1)
        phases = (f"{k.rpartition('/')[2]} {v:.1f} s" for k, v in self._spent.items())
        log.info(
            "[%s] %d/%d questions | %s | %s left",
            self._context.stage,
            self._done,
            total,
            ", ".join(phases),
            duration(rate * (total - self._done)),
        )

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(sealed(row)) + "\n" for row in rows)
        try:
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        row = unsealed(line)
        if row is None:
            remedy = "Delete this line and all after it: they are sampled again."
            raise damaged(
                f"{self.path}, line {number}", "is not what was written", remedy
            )
        return row

    def _tree(self, line: bytes, index: int) -> ValueTree:
        tree = ValueTree.from_json(self._row(line, index + 2))
        if (
            index >= len(self._problems)
            or tree.question != self._problems[index].question
        ):
            raise JobError(
                f"{self.path}, line {index + 2} is of another question than the run "
                "has: delete the file"
            )
        return tree

    def _check_made_by(self, known: dict[str, Any], made_by: dict[str, Any]) -> None:
        if other := sorted(k for k in made_by if known.get(k) != made_by[k]):
            raise JobError(
                f"{self.path} was made with other {', '.join(other)}: delete it, or "
                "choose another --workdir"
            )

    def _made_by(self) -> dict[str, Any]:
        """All that a line depends on; how many questions there are is not of it."""
        c = self._context.config
        aside = ("problems", "best_of")
        made_by = {f"pav.{k}": v for k, v in flat(c.pav).items() if k not in aside}
        if not c.pav.prover:  # nobody is measured beside the base
            del made_by["pav.measured"]
        elif c.pav.prover != c.pav.solver:
            made_by["pav.problems"] = c.pav.problems  # of which some are measured
        made_by |= {"seed": c.seed, "builder": flat(c.builder)}
        made_by["domain"] = [*judged_in(self._context), c.domain.train]
        made_by["models"] = [
            self._fingerprint(name) for name in (c.pav.solver, c.pav.prover) if name
        ]
        return json.loads(to_json(made_by))

    def _fingerprint(self, source: str) -> Any:
        named = written_by(self._context, source)
        if source in (BACKBONE, ENDPOINT):
            return named
        folder = self._context.model_path(source, "pav.solver")
        return [*named, fingerprint_of(str(folder))]
