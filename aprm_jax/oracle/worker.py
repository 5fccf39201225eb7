"""The process behind `oracle.pool`: compares two mathematical texts, one job a time.

Frames on both pipes are a 4-byte length and JSON: `[a, b]` in, `true`, `false` or
`null` out; `null` first, once it is ready. It leaves when its input ends or its parent
dies, and its memory is bounded, because text that a model wrote reaches a parser and a
simplifier here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import queue
import resource
import struct
import sys
import threading
from typing import Any, BinaryIO

from aprm_jax.children import die_with

_HEADER = struct.Struct(">I")
_POINTS = 3  # where a symbolic comparison is confirmed
_DIGITS = 30
_REMEMBERED = 256  # parsed texts
_SMALL = 1e-9  # relative; differences below it may be rounding


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame; None at the end of the stream or in a broken frame."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (size,) = _HEADER.unpack(header)
    body = stream.read(size)
    return body if len(body) == size else None


def frame(body: bytes) -> bytes:
    """A frame that `read_frame` reads."""
    return _HEADER.pack(len(body)) + body


def main(parent: int, memory_bytes: int) -> None:
    """Serves jobs from standard input until it ends.

    Args:
      parent: process id of the pool; a worker of another parent is an orphan.
      memory_bytes: address space that this process may take (Linux enforces it).
    """
    die_with(parent)
    jobs = sys.stdin.buffer
    # Whatever a library prints must not end up between the frames.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    logging.disable(logging.CRITICAL)
    compare = _load()
    compare(r"\sin^2 x+\cos^2 x", "1")  # sympy imports and builds tables on first use
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    pending: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs, pending), daemon=True).start()
    replies.write(frame(b"null"))
    replies.flush()
    while True:
        a, b = json.loads(pending.get())
        try:
            answer = compare(a, b)
        except MemoryError:
            os._exit(1)  # the heap is not to be trusted any more
        except Exception:  # any parser error on any text: not comparable
            answer = None
        replies.write(frame(json.dumps(answer).encode()))
        replies.flush()


def _listen(jobs: BinaryIO, pending: queue.SimpleQueue[bytes]) -> None:
    while (body := read_frame(jobs)) is not None:
        pending.put(body)
    os._exit(0)  # the parent closed the pipe, or is gone


def _load() -> Any:
    import math_verify

    _predict_without_the_stack()
    config = [math_verify.LatexExtractionConfig()]

    @functools.lru_cache(_REMEMBERED)  # sides recur: plain numbers, the reference
    def parse(text: str) -> Any:
        found = math_verify.parse(
            f"${text}$", config, parsing_timeout=0, raise_on_error=True
        )
        # Text that it cannot parse comes back as a string.
        return None if not found or isinstance(found[0], str) else found[0]

    def compare(a: str, b: str) -> bool | None:
        gold, target = parse(a), parse(b)
        if gold is None or target is None:
            return None
        same = math_verify.verify(gold, target, timeout_seconds=0, raise_on_error=True)
        return _confirmed(gold, target, bool(same))

    return compare


def _predict_without_the_stack() -> None:
    """Has Math-Verify's parser look ahead without its call stack first.

    Nearly all its time goes into predictions with the whole stack, which it never
    remembers. By ANTLR's documentation (`PredictionMode.SLL`) a parse without it is
    either the same tree or a syntax error; after an error it is done over in full.
    """
    # Another version of these libraries may lack them: slower, and the same answers.
    with contextlib.suppress(ImportError, AttributeError):
        from antlr4.atn.PredictionMode import PredictionMode
        from latex2sympy2_extended.antlr_parser import PSParser

        full: Any = PSParser.math

        def math(self: Any) -> Any:
            self._interp.predictionMode = PredictionMode.SLL
            try:
                return full(self)
            except MemoryError:
                raise
            except Exception:  # Math-Verify's listener raises no narrower one
                tokens = self.getTokenStream()
                tokens.tokenSource.reset()
                tokens.setTokenSource(tokens.tokenSource)
                self.setTokenStream(tokens)
                self._interp.predictionMode = PredictionMode.LL
                return full(self)

        PSParser.math = math


def _confirmed(gold: Any, target: Any, same: bool) -> bool | None:
    """The answer where numbers support it: simplifiers and roundings may fail.

    Math-Verify calls 1.41421356 equal to the root of 2, and two forms of one expression
    different where sympy fails to simplify their difference.
    """
    import sympy

    if not (isinstance(gold, sympy.Expr) and isinstance(target, sympy.Expr)):
        return same
    gap: Any = sympy.Add(gold, -target)
    names = sorted(gold.free_symbols | target.free_symbols, key=str)
    gaps = []
    for k in range(_POINTS if names else 1):
        point: dict[Any, Any] = {
            name: sympy.Rational(7 * j + 5 * k + 3, 2 * j + 3)
            for j, name in enumerate(names)
        }
        value = gap.subs(point).evalf(_DIGITS)
        size = max(1.0, abs(complex(gold.subs(point).evalf(_DIGITS))))
        gaps.append(abs(complex(value)) / size)
    differs = any(g > _SMALL for g in gaps)
    if any(g != g for g in gaps):
        return None
    return same if differs != same else None
