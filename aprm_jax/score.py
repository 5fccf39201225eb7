"""Scores the steps of solutions in a pipe: `python -m aprm_jax.score MODEL < in > out`.

A JSON object a line in, one a line out, in the same order and as soon as it is known.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aprm_jax.data.jsonl import RawRow
    from aprm_jax.data.solutions import GivenSolution

_FAILED, _BAD_ROWS, _USAGE = 1, 1, 2
_ROWS = 64  # of a batch: the most that the models' programs take at once
_MOST_CHARS = 1 << 22  # of a batch's lines; a line that has more is one by itself

_EPILOG = """\
in:   {"prompt": "3 + 4?", "completions": ["3 + 4 = 7", "7"]}, or question and steps;
      with --text=reply {"question": "3 + 4?", "reply": "3 + 4 = 7\\n7"}; "id" is kept
out:  {"line": 1, "key": "9f...", "scores": [0.98, null]}
      the probability that each step is correct; null: the step does not fit the model

Lines that cannot be scored are named on stderr, and the others go on. An error ends
it: what is scored is written before, and the lines that were taken in are named.
exit codes: 0 all lines are scored; 1 some are not, or an error; 2 wrong usage;
            130 Ctrl-C; 141 nobody reads the output any more
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Scores stdin to its end; the exit code."""
    arguments = _parser().parse_args(argv)
    # Either is None where the shell has closed it.
    if sys.stdin is None or sys.stdin.isatty():
        usage = "python -m aprm_jax.score MODEL < in.jsonl > out.jsonl"
        return _failed(f"nothing is piped in: {usage}", _USAGE)
    if sys.stdout is None:
        return _failed("stdout is closed, and the scores are written there")
    # Quiet, and before these libraries are imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from aprm_jax.config.errors import UserError

    try:
        # A file of its own: the thread that waits for a line locks it, and Python takes
        # the lock of `sys.stdin` as it ends.
        lines = os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
        return _score(arguments, lines, sys.stdout.buffer)
    except UserError as error:
        return _failed(str(error))
    except BrokenPipeError:
        # Python flushes stdout once more as it ends, into the same broken pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        return _failed(f"{error.filename or 'stdout'}: {error.strerror}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aprm_jax.score",
        description="Scores the steps of solutions from stdin to stdout.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        nargs="+",
        metavar="MODEL",
        help="a PRM: a run's, stage's or model's folder, an export, OWNER/NAME on the "
        "hub; likelihood:SOLVER, scores:FILE, oracle:NAME, a server's address; several "
        "are combined",
    )
    parser.add_argument(
        "--combine",
        default="mean",
        choices=("mean", "min", "product"),
        help="of several: what of their probabilities (default: %(default)s)",
    )
    parser.add_argument(
        "--text", default="", metavar="FIELD", help="the solution is one text, there"
    )
    parser.add_argument(
        "--split",
        default="lines",
        choices=("lines", "paragraphs"),
        help="what the steps of such a text are (default: %(default)s)",
    )
    return parser


def _score(arguments: argparse.Namespace, lines: IO[bytes], out: IO[bytes]) -> int:
    """Imports, loads and scores: all that takes time."""
    import tqdm

    from aprm_jax.config.errors import UserError
    from aprm_jax.data.jsonl import RowError, parse_row
    from aprm_jax.data.solutions import parse_solution
    from aprm_jax.verifiers.named import open_verifier
    from aprm_jax.verifiers.stream import score_stream, scored_row

    verifier = open_verifier(arguments.model, arguments.combine)
    of_text, failed = (arguments.text, arguments.split), 0

    def parsed(batch: list[RawRow]) -> Iterator[GivenSolution]:
        nonlocal failed
        for row in batch:
            try:
                yield parse_row(row, parse_solution, row.line, *of_text)
            except RowError as error:
                failed += 1
                _say(f"line {row.line}: {error}", bar)

    waiting: dict[int, GivenSolution] = {}

    def written(solutions: Iterable[GivenSolution]) -> None:
        for solution, found in score_stream(solutions, verifier, _ROWS):
            out.write(json.dumps(scored_row(solution, found)).encode() + b"\n")
            waiting.pop(solution.line)
            bar.update()
        out.flush()

    with tqdm.tqdm(unit=" rows", file=sys.stderr, disable=None) as bar:
        for batch in _arriving(lines):
            waiting = {solution.line: solution for solution in parsed(batch)}
            try:
                written(list(waiting.values()))
            except UserError as error:
                with contextlib.suppress(UserError):
                    for some in _known(list(waiting.values()), error):
                        written(some)
                out.flush()
                for line in waiting:
                    _say(f"line {line}: not scored", bar)
                raise
            bar.set_postfix(tokens=getattr(verifier, "tokens_read", 0), refresh=False)
    return _BAD_ROWS if failed else 0


def _known(
    waiting: list[GivenSolution], error: Exception
) -> Iterator[list[GivenSolution]]:
    """What may still be scored after an error, without any new request, in turn."""
    from aprm_jax.verifiers.served import NotScoredError
    from aprm_jax.verifiers.stream import batches

    first = next(batches(waiting, _ROWS))
    if isinstance(error, NotScoredError):
        missing = set(error.missing)
        yield [s for s in first if (s.question, s.steps) not in missing]
    else:
        yield from ([solution] for solution in first)


def _arriving(lines: IO[bytes]) -> Iterator[list[RawRow]]:
    """Rows as they arrive: whoever writes one and waits for its score gets it.

    A thread reads, and is never more than a batch and a line ahead.
    """
    from aprm_jax.data.stream import line_rows

    waiting = _Waiting()

    def read() -> None:
        try:
            for row in line_rows(lines):
                waiting.put(row)
            waiting.end(None)
        except BaseException as error:  # raised again where somebody handles it
            waiting.end(error)

    threading.Thread(target=read, daemon=True).start()
    while batch := waiting.take():
        yield batch
    if waiting.error is not None:
        raise waiting.error


class _Waiting:
    """Rows that were read and not scored yet: no more than a batch of them.

    Attributes:
      error: what ended the reading, once `take` gave nothing; None for the end.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._rows: deque[RawRow] = deque()
        self._chars, self._ended = 0, False
        self._changed = threading.Condition()

    def put(self, row: RawRow) -> None:
        """Adds a row, once there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(len(row.text)))
            self._rows.append(row)
            self._chars += len(row.text)
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """Nothing follows."""
        with self._changed:
            self.error, self._ended = error, True
            self._changed.notify_all()

    def take(self) -> list[RawRow]:
        """All that wait, at least one; [] at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._rows or self._ended)
            batch = list(self._rows)
            self._rows.clear()
            self._chars = 0
            self._changed.notify_all()
        return batch

    def _has_room(self, chars: int) -> bool:
        few = len(self._rows) < _ROWS and self._chars + chars <= _MOST_CHARS
        return few or not self._rows


def _say(message: str, bar: Any) -> None:
    bar.write(f"aprm_jax.score: {message}", file=sys.stderr)


def _failed(message: str, code: int = _FAILED) -> int:
    print(f"aprm_jax.score: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
