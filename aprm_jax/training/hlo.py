"""An optimised program's text: its computations, walked as often as they run.

A TPU's compiler hides a collective behind products: it begins in one fusion, goes on in
others and ends in a last one, and the text has it in each. It is told once, where it
begins. What the compiler thinks that each of its fusions takes stands there too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

Ran = tuple[str, int]  # a line, and how often it runs
COLLECTIVES = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
)
_NAMED = re.compile(r"^\s*(?:ENTRY\s+)?%?([\w.\-]+)\s*\(.*\)\s*->.*\{\s*$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation|"
    r"called_computations|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
OPERATION = re.compile(r"=\s*(\(.*?\)|\S+)\s+([a-z][\w\-]*)\(")
# What is looked at: lines that call, tell each other something, or bound a loop.
_KEPT = re.compile(
    r"calls=|to_apply=|body=|computations?=|s32\[\]\S* constant|AsyncCollective|"
    "estimated_cycles|" + "|".join(COLLECTIVES)
)
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"?(\d+)"?\}')
_BOUND = re.compile(r"s32\[\](?:\{[^}]*\})? constant\((\d+)\)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NO_ESTIMATE = 10**12  # of what it knows nothing about, it says a number like this


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by name, and the entry's name."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        header = _NAMED.match(line) if lines is None else None
        if header is not None:
            lines = bodies.setdefault(header[1], [])
            entry = header[1] if line.lstrip().startswith("ENTRY") else entry
        elif line.rstrip() == "}":  # other lines that begin so are of a kernel's notes
            lines = None
        elif lines is not None and _KEPT.search(line):
            lines.append(line.partition(", metadata=")[0] + _noted(line))
    return bodies, entry


def _noted(line: str) -> str:
    """What is read of a line's notes."""
    found = [_TRIPS.search(line) if " while(" in line else None, _CYCLES.search(line)]
    return "".join(f", {note[0]}" for note in found if note is not None)


def walk(
    bodies: Mapping[str, list[str]],
    name: str,
    times: int,
    unknown: int,
    cost: Callable[[Sequence[Ran]], float],
) -> Iterator[Ran]:
    """(line, how often it runs) of a computation and all that it calls.

    Of a condition's branches the one whose lines `cost` most.
    """
    lines = bodies.get(name, ())
    goes_on = not any('"AsyncCollectiveStart"' in line for line in lines)
    for line in lines:
        if not (goes_on and "chain_id=" in line):
            yield line, times
        operation = OPERATION.search(line)
        if operation is None:
            continue
        turns = times
        if operation[2] in ("async-update", "async-done"):
            continue  # what their start has said
        if operation[2] == "while":
            turns *= _trips(line, bodies, unknown)
        if operation[2] in COLLECTIVES:
            continue
        inner = [
            list(walk(bodies, called, turns, unknown, cost))
            for match in _CALLED.finditer(line)
            for called in re.findall(r"[\w.\-]+", match[1])
            if called in bodies
        ]
        if operation[2] == "conditional":
            inner = [max(inner, key=cost, default=[])]
        for ran in inner:
            yield from ran


def _trips(line: str, bodies: Mapping[str, list[str]], unknown: int) -> int:
    if (known := _TRIPS.search(line)) is not None:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = bodies.get(condition[1], []) if condition else []
    bounds = _BOUND.findall("\n".join(lines))
    return int(bounds[0]) if len(bounds) == 1 else unknown


def estimated_cycles(text: str, *, unknown_trips: int = 1) -> int:
    """Cycles that a TPU's compiler thinks a program's fusions and copies take.

    Without collectives and kernels, of which it says nothing; of branches the dearest;
    0 for other platforms.

    Args:
      text: `compiled.as_text()`.
      unknown_trips: turns of loops whose number the program decides while it runs.
    """
    bodies, entry = computations(text)

    def of(name: str) -> int:
        total = 0
        for line in bodies.get(name, ()):
            operation = OPERATION.search(line)
            inner = [of(called) for called in _branches(line, operation)]
            if operation is not None and operation[2] == "while":
                inner = [_trips(line, bodies, unknown_trips) * sum(inner)]
            cycles = _CYCLES.search(line)
            own = int(cycles[1]) if cycles else 0
            total += max(inner, default=0) + (own if own < _NO_ESTIMATE else 0)
        return total

    return of(entry)


def _branches(line: str, operation: re.Match[str] | None) -> list[str]:
    """What a loop or a condition runs; nothing of a fusion, whose line has it all."""
    if operation is None or operation[2] not in ("while", "conditional"):
        return []
    called = [match[0] for match in _CALLED.finditer(line)]
    running = (one for one in called if not one.startswith("condition="))
    return [name for one in running for name in re.findall(r"%([\w.\-]+)", one)]
