"""Scores the steps of solutions in a pipe: `python -m aprm_jax.score MODEL < in > out`.

A JSON object a line in, one a line out, in the same order and as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aprm_jax.data.jsonl import RawRow

_FAILED, _BAD_ROWS, _USAGE = 1, 1, 2
_ROWS = 64  # of a batch: the most that the models' programs take at once

_EPILOG = """\
in:   {"prompt": "3 + 4?", "completions": ["3 + 4 = 7", "7"]}, or question and steps;
      with --text=reply {"question": "3 + 4?", "reply": "3 + 4 = 7\\n7"}; "id" is kept
out:  {"line": 1, "key": "9f...", "scores": [0.98, null]}
      the probability that each step is correct; null: the step does not fit the model

Lines that cannot be scored are named on stderr, and the others go on.
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
        "hub; likelihood:SOLVER, scores:FILE, oracle:NAME; several are combined",
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

    from aprm_jax.data.jsonl import RowError, parse_row
    from aprm_jax.data.solutions import GivenSolution, parse_solution
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

    with tqdm.tqdm(unit=" rows", file=sys.stderr, disable=None) as bar:
        for batch in _arriving(lines):
            for solution, found in score_stream(parsed(batch), verifier, _ROWS):
                out.write(json.dumps(scored_row(solution, found)).encode() + b"\n")
                bar.update()
            out.flush()
            bar.set_postfix(tokens=getattr(verifier, "tokens_read", 0), refresh=False)
    return _BAD_ROWS if failed else 0


def _arriving(lines: IO[bytes]) -> Iterator[list[RawRow]]:
    """Rows as they arrive: whoever writes one and waits for its score gets it.

    A thread reads, and is never more than a batch ahead.
    """
    from aprm_jax.data.stream import line_rows

    waiting: queue.Queue[Any] = queue.Queue(_ROWS)

    def read() -> None:
        try:
            for row in line_rows(lines):
                waiting.put(row)
            waiting.put(None)
        except BaseException as error:  # raised again where somebody handles it
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    end: Any = ...
    while end is ...:
        batch, item = [], waiting.get()
        while True:
            if item is None or isinstance(item, BaseException):
                end = item
                break
            batch.append(item)
            if len(batch) == _ROWS or waiting.empty():
                break
            item = waiting.get()
        if batch:
            yield batch
    if end is not None:
        raise end


def _say(message: str, bar: Any) -> None:
    bar.write(f"aprm_jax.score: {message}", file=sys.stderr)


def _failed(message: str, code: int = _FAILED) -> int:
    print(f"aprm_jax.score: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
