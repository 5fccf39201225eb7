"""Searches for better answers: questions in, a line a question out, resumable."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.config import ConfigError, flat, for_stage, nearest
from aprm_jax.data.jsonl import DataError
from aprm_jax.evals import intervals
from aprm_jax.evals.records import Record, by_name, metric_records, write_results
from aprm_jax.files import (
    atomic_write,
    damaged,
    sealed,
    to_json,
    unsealed,
)
from aprm_jax.jobs.context import Context, JobError, log
from aprm_jax.jobs.inputs import Writes
from aprm_jax.jobs.kept_rows import (
    Progress,
    appending,
    check_made_by,
    claimed,
    read_back,
)
from aprm_jax.jobs.records.search import SearchConfig
from aprm_jax.jobs.row_files import (
    check_names,
    check_output,
    judged_in,
    located,
    run_verifier,
)
from aprm_jax.jobs.solvers import open_solver, written_by
from aprm_jax.jobs.spent import Spent
from aprm_jax.jobs.step_data import LIKELIHOOD
from aprm_jax.jobs.tree_data import SOLUTIONS
from aprm_jax.models.io import ModelFileError
from aprm_jax.search.build import EFFECTIVE, make_engine
from aprm_jax.search.engine import Engine
from aprm_jax.search.outcome import Outcome, outcome, tree_json
from aprm_jax.tasks.protocols import Grader
from aprm_jax.tasks.questions import read_asked
from aprm_jax.training import hosts
from aprm_jax.verifiers.models import BrokenModelError
from aprm_jax.verifiers.named import fingerprint_of
from aprm_jax.verifiers.protocol import Verifier
from aprm_jax.verifiers.stepwise import OracleSteps

MADE_BY = "made_by.json"
SET = "search"  # of the records
ORACLE = "oracle"  # the domain's
TRAIN = "train"  # a split of the problems that are trained on
_TRAINING = 1 << 40  # number of the first of these: none that a game plays with
_KEY = 60  # of the random key, beside those of other stages
_SUMMED = ("index", "split", "answer", "why", "correct", "curve", "ledger")
# What changes nothing that a row says; whether it has its tree is seen in it.
_ASIDE = ("output", "bootstrap", "batch", "problems", "splits", "questions", "trees")

_Right = Callable[[str | None], bool]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question of the run.

    Attributes:
      split: of the domain, or the file's name.
      question: the text.
      reference: the right answer; "" where nobody says.
    """

    split: str
    question: str
    reference: str = ""


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """The questions can be read; before anything is made.

    Raises:
      DataError, ConfigError: names the field and what would be right.
    """
    c = context.config.search
    check_names(context, earlier, "search", [*_names(c), *_prover(c)])
    if c.aggregation == EFFECTIVE:
        for name in (*c.verifiers, *_prover(c)):
            if _lacks_values(context, name, earlier.get(name, "")):
                raise ConfigError(
                    f'search.aggregation="effective" needs values, and {name!r} is a '
                    f"stage of job={earlier[name]}: name one of job=pav"
                )
    check_output("search.output", c.output)
    if c.questions:
        _file_questions(context)


def _lacks_values(context: Context, name: str, job: str) -> bool:
    """Whether the PRM of an earlier stage says whether steps are correct, no more."""
    if job == "aprm":  # one that starts from a PAV may have kept its values
        return for_stage(context.config, name).game.right_targets == "correct"
    return job == "prm"


def writes(context: Context) -> list[Writes]:
    """See `Job.writes`."""
    output = _output(context)
    return [Writes("search.output", output, (_record(output),))]


def _output(context: Context) -> Path:
    """The file of rows."""
    named = context.config.search.output
    return Path(named or context.root / context.stage / SOLUTIONS)


def _record(output: Path) -> Path:
    """What the rows were made by."""
    return output.with_name(
        MADE_BY if output.name == SOLUTIONS else f"{output.name}.{MADE_BY}"
    )


def run(context: Context) -> dict[str, Any]:
    """Searches what is missing; returns the counts that `done.json` keeps."""
    questions = _questions(context)
    output = _output(context)
    with claimed(output, "search.output"):
        rows = _all_rows(context, questions, output)
    for row in rows:
        ledger = row["ledger"]
        context.spent.add(_spent(ledger))
    return _summary(context, rows, output)


def _spent(ledger: Mapping[str, Any]) -> Spent:
    tokens = ("decoded", "prefilled", "verifier_tokens")
    return Spent(
        oracle_calls=ledger["oracle_calls"],
        sampled_tokens=ledger["decoded"],
        read_tokens=sum(ledger[name] for name in tokens),
        flops=round(ledger["flops"]),
    )


def _all_rows(
    context: Context, questions: Sequence[Asked], output: Path
) -> list[dict[str, Any]]:
    """A row of each question: those that are there, and those that were missing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    batch, trees = context.config.search.batch, context.config.search.trees

    def there() -> list[dict[str, Any]]:
        _check_made_by(context, output)
        return _resumed(output, questions, batch, trees)

    rows = hosts.from_leader(f"rows of {context.stage}", there)
    if len(rows) < len(questions):
        rows += _search(context, questions, output, rows)
    return rows


def _questions(context: Context) -> list[Asked]:
    """What is asked, in order."""
    c = context.config.search
    if c.questions:
        asked = _file_questions(context)
        if len(asked) > (most := c.problems or len(asked)):
            log.warning(
                "%s: the first %d of %d questions are searched; for all of them set "
                "search.problems=0",
                c.questions,
                most,
                len(asked),
            )
        return asked[:most]
    domain, out = context.domain, []
    for split in c.splits:
        if split == TRAIN:
            out += _training_questions(context)
            continue
        if split not in domain.splits:
            known = [TRAIN, *domain.splits]
            raise ConfigError(
                f"search.splits: {domain.name} has no split {split!r}, only "
                f"{', '.join(known)}.{nearest(split, known)}"
            )
        problems = domain.problems(split, c.problems)
        out += [Asked(split, p.question, p.answer) for p in problems]
    if not out:
        raise DataError(f"search.splits: there is no problem in {', '.join(c.splits)}")
    return out


def _training_questions(context: Context) -> list[Asked]:
    """Training problems, each once: the search of a question is that of its text."""
    count = context.config.search.problems
    drawn = (context.domain.train(_TRAINING + i) for i in range(2 * count))
    asked = {p.question: Asked(TRAIN, p.question, p.answer) for p in drawn}
    return list(asked.values())[:count]


def _file_questions(context: Context) -> list[Asked]:
    c = context.config.search
    rows = read_asked(c.questions, **context.limits)
    name = Path(c.questions.rpartition(":")[2]).name.partition(".")[0] or "questions"
    return [Asked(name, row.question, row.reference) for row in rows]


def _engine(context: Context, questions: Sequence[Asked]) -> Engine:
    c = context.config.search
    solver = open_solver(context, c.solver, "search.solver")
    verifier = _verifier(context, questions) if c.verifiers else None
    prover = run_verifier(context, _prover(c), "mean") if c.prover_values else None
    most = context.config.builder.max_steps
    return make_engine(c, solver, verifier, most, prover)


def _verifier(context: Context, questions: Sequence[Asked]) -> Verifier | OracleSteps:
    names = _names(context.config.search)
    if names == [ORACLE]:  # alone it is an upper bound
        answers = {a.question: a.reference for a in questions if a.reference}
        return OracleSteps(context.domain.oracle, answers, context.domain)
    return run_verifier(context, names, context.config.search.combine)


def _names(c: SearchConfig) -> list[str]:
    """The verifiers, as `verifiers.named` knows them."""
    own = f"{LIKELIHOOD}:{c.solver}"
    return [own if name == LIKELIHOOD else name for name in c.verifiers]


def _prover(c: SearchConfig) -> list[str]:
    """Who says the prover's values, where it is none of the verifiers."""
    return [c.prover_values] if c.prover_values else []


def _search(
    context: Context,
    questions: Sequence[Asked],
    output: Path,
    done: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Rows of the questions that are not done, written batch by batch."""
    c, domain = context.config.search, context.domain
    engine, key = _engine(context, questions), context.key(_KEY)
    tally = _Tally(done)
    progress = Progress(
        context.stage,
        "questions",
        len(done),
        len(questions),
        tokens=lambda: tally.drawn,
        more=tally.accuracy,
    )

    def drew(drawn: int) -> None:
        tally.tokens(drawn)
        progress.tick()

    rows: list[dict[str, Any]] = []
    for start in range(len(done), len(questions), c.batch):
        part = questions[start : start + c.batch]
        try:
            trees = engine.search([a.question for a in part], key, drew)
        except BrokenModelError as error:
            raise JobError(f"{', '.join(c.verifiers)}: {error}") from error
        new = []
        for k, (asked, tree) in enumerate(zip(part, trees, strict=True), start):
            found = outcome(tree, engine, domain, c.pick)
            right = _right(asked, domain)
            row = {"index": k, "split": asked.split, **_graded(found, asked, right)}
            if k < c.trees:
                row["tree"] = _judged_tree(found, right)
            new.append(sealed(row))
        with appending(output) as write:
            write(new)
        rows += map(_kept, new)
        tally.add(new)
        progress.add(len(new))
    return rows


class _Tally:
    """What there is to say of a search while it runs.

    Attributes:
      drawn: tokens, by this start.
    """

    def __init__(self, done: Sequence[Mapping[str, Any]]):
        self.drawn = self._of_batch = 0
        self._right: list[bool] = []
        self.add(done)

    def tokens(self, drawn: int) -> None:
        """So many tokens were drawn for the batch up to now."""
        self.drawn += drawn - self._of_batch
        self._of_batch = drawn

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """These questions are done."""
        self._of_batch = 0
        self._right += [r["correct"] for r in rows if r["correct"] is not None]

    def accuracy(self) -> str:
        """Of the questions whose answers are known."""
        if not self._right:
            return ""
        share = sum(self._right) / len(self._right)
        return f"accuracy {share:.3f} of {len(self._right)}"


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary needs of a row: the candidates of all would fill the memory."""
    return {name: row[name] for name in _SUMMED}


def _right(asked: Asked, grader: Grader) -> _Right | None:
    """Whether an answer of a question is right; asked once about each."""
    if not asked.reference:
        return None

    @functools.cache
    def right(answer: str | None) -> bool:
        return answer is not None and bool(grader.same_answer(answer, asked.reference))

    return right


def _graded(found: Outcome, asked: Asked, right: _Right | None) -> dict[str, Any]:
    """A row with what is right in it, where the reference is known."""
    row = found.to_json()
    if right is None:
        return row | {"reference": None, "correct": None}
    curve = [point | {"correct": right(point["answer"])} for point in row["curve"]]
    correct = right(found.answer)
    return row | {"reference": asked.reference, "correct": correct, "curve": curve}


def _judged_tree(found: Outcome, right: _Right | None) -> list[dict[str, Any]]:
    """The tree, and at the end of whole solutions whether they are right."""
    nodes = tree_json(found.tree)
    if right is not None:
        for candidate in found.candidates:
            nodes[candidate.node]["correct"] = right(candidate.answer)
    return nodes


def _resumed(
    output: Path, questions: Sequence[Asked], batch: int, trees: int
) -> list[dict[str, Any]]:
    """The rows that are there, whole batches of them; what follows is cut off.

    A batch is redone whole: the rounding of a row depends on who lies beside it.

    Raises:
      DamagedFileError: a row is not what was written.
      JobError: a row is of another question, or has its tree and should not, or the
        reverse.
    """
    rows: list[dict[str, Any]] = []

    def take(line: bytes, number: int) -> None:
        rows.append(_read_row(output, line, number - 1, questions, trees))

    return rows[: read_back(output, take, len(questions), batch)]


def _read_row(
    output: Path, line: bytes, index: int, questions: Sequence[Asked], trees: int
) -> dict[str, Any]:
    remedy = "Delete this line and all after it: they are searched again."
    row = unsealed(line)
    if row is None:
        raise damaged(f"{output}, line {index + 1}", "is not what was written", remedy)
    asked = questions[index] if index < len(questions) else None
    found = row["index"], row["question"], row["reference"] or ""
    if asked is None or found != (index, asked.question, asked.reference):
        raise JobError(
            f"{output}, line {index + 1} is of another question or answer than the run "
            "has: delete the file, or name another search.output"
        )
    if ("tree" in row) != (index < trees):
        has = "a tree" if "tree" in row else "no tree"
        raise JobError(
            f"{output}, line {index + 1} has {has}, which does not go with "
            f"search.trees={trees}: delete the file, or name another search.output"
        )
    return _kept(row)


def _check_made_by(context: Context, output: Path) -> None:
    """Nothing that is there was made otherwise; what it was made by is kept."""
    c = context.config
    made_by = {f"search.{k}": v for k, v in flat(c.search).items() if k not in _ASIDE}
    made_by |= {"seed": c.seed, "builder": flat(c.builder)}
    made_by["domain"] = judged_in(context)
    made_by["writer"] = written_by(context, c.search.solver)
    own = f"{LIKELIHOOD}:{c.search.solver}"
    names = [own, *_names(c.search), *_prover(c.search)]
    found = [located(context, name) for name in dict.fromkeys(names)]
    made_by["models"] = [_fingerprint(name) for name in found]
    check_made_by(output, _record(output), made_by, "search.output")


def _fingerprint(name: str) -> str:
    """What changes where a verifier does; of the oracle, or no folder, the name."""
    try:
        return name if name == ORACLE else fingerprint_of(name)
    except ModelFileError:  # a backbone or server: `written_by` has what it is
        return name


def _summary(
    context: Context, rows: Sequence[Mapping[str, Any]], output: Path
) -> dict[str, Any]:
    """Writes the records of all rows, says them, and returns the counts."""
    c = context.config.search
    records: list[Record] = []
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        records += _records(c, split, of_split)
    if hosts.leader():
        write_results(context.directory / "results.json", records)
        atomic_write(context.directory / "summary.json", to_json(by_name(records)))
    unanswered = [row for row in rows if row["answer"] is None]
    for why in dict.fromkeys(row["why"] for row in unanswered):
        these = [row["index"] for row in unanswered if row["why"] == why]
        log.warning(
            "%s: %d of %d questions have no answer, the first in line %d: %s",
            context.stage,
            len(these),
            len(rows),
            these[0] + 1,
            why,
        )
    for record in records:
        if record.metric in ("accuracy", "answered"):
            ends = f" [{record.low:.3f}, {record.high:.3f}]"
            shown = f"{record.value:.3f}{ends if record.low == record.low else ''}"
            log.info("%s: %s %s %s", context.stage, record.split, record.metric, shown)
    log.info("%s: %s", context.stage, output)
    counts = {"questions": len(rows), "answered": len(rows) - len(unanswered)}
    return counts | {"elsewhere": [output] if c.output else []}


def _records(
    c: SearchConfig, split: str, rows: Sequence[Mapping[str, Any]]
) -> list[Record]:
    """Accuracy with its interval, the curve, and the mean cost of a question."""
    of = (SET, split, "+".join(c.verifiers))
    known = [row for row in rows if row["correct"] is not None]
    answered = [row["answer"] is not None for row in rows]
    records = metric_records(
        *of, {"questions": float(len(rows)), "answered": float(np.mean(answered))}
    )
    if known:
        right = np.array([row["correct"] for row in known], np.float64)
        interval = intervals.bootstrap(right, resamples=c.bootstrap)
        records += metric_records(*of, {"accuracy": interval})
        records += metric_records(*of, _curve([row["curve"] for row in known]))
    costs = {
        name: float(np.mean([row["ledger"][name] for row in rows]))
        for name in rows[0]["ledger"]
    }
    return records + metric_records(*of, costs, part="cost")


def _curve(curves: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Accuracy at each budget; a question is at the last that it has, until the next.

    Named "accuracy@8 slots", or rounds.
    """
    unit = "slots" if "slots" in curves[0][0] else "rounds"
    out = {}
    for budget in sorted({point[unit] for curve in curves for point in curve}):
        right = [
            next((p["correct"] for p in reversed(curve) if p[unit] <= budget), False)
            for curve in curves
        ]
        out[f"accuracy@{budget} {unit}"] = float(np.mean(right))
    return out
