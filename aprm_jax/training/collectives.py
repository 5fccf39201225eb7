"""What devices tell each other in a compiled program: counted from its text.

XLA's own cost analysis leaves collectives out. Here the program's computations are
walked from its entry, loops as often as they turn, and every collective is told by its
kind, its bytes, and the axes of the mesh that it crosses.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from aprm_jax.training.hlo import OPERATION, Ran, computations, walk

# A program is read by the shape of its mesh alone.
Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh

# Bytes on the wire a device and byte of the whole array, in a ring of n.
_RINGS = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}
_ARRAY = re.compile(r"\b([a-z]+[0-9]+(?:e[0-9]m[0-9][a-z0-9]*)?|pred)\[([0-9,]*)\]")
# Groups as axes of a mesh of their own, the devices in its order.
_MESHED = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}:]*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective of a program, on one device.

    Attributes:
      kind: "all-gather", "reduce-scatter", "all-reduce", "all-to-all" or
        "collective-permute".
      shape: of the largest array it gives (of a reduce-scatter: takes), with its dtype.
      bytes: of all the arrays that it gives (takes), once.
      times: how often it runs.
      group: the devices of one group, by their places in the mesh.
      axes: of the mesh, that they lie along; () where that is not known.
    """

    kind: str
    shape: tuple[int, ...]
    bytes: int
    times: int
    group: tuple[int, ...]
    axes: tuple[str, ...]

    @property
    def devices(self) -> int:
        """That take part in one group."""
        return len(self.group)

    @property
    def wire_bytes(self) -> float:
        """What a device sends, all times together, in a ring."""
        if self.devices < 2:
            return 0.0
        return self.times * self.bytes * _RINGS[self.kind](self.devices)


def collectives(text: str, mesh: Mesh, *, unknown_trips: int = 1) -> list[Collective]:
    """The collectives of an optimised program; of branches those of the dearest.

    Args:
      text: `compiled.as_text()`.
      mesh: what it was compiled for.
      unknown_trips: turns of loops whose number the program decides while it runs.
    """
    bodies, entry = computations(text)

    def told(lines: Iterable[Ran]) -> list[Collective]:
        found = (_collective(line, times, mesh) for line, times in lines)
        return [one for one in found if one is not None]

    def cost(lines: Iterable[Ran]) -> float:
        return sum(one.wire_bytes for one in told(lines))

    return told(walk(bodies, entry, 1, unknown_trips, cost))


def by_axes(found: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """{axes: {kind: bytes on the wire a device}}, largest axes first."""
    out: dict[str, dict[str, float]] = {}
    for one in found:
        kinds = out.setdefault("+".join(one.axes) or "unknown", {})
        kinds[one.kind] = kinds.get(one.kind, 0.0) + one.wire_bytes
    return dict(sorted(out.items(), key=lambda item: -sum(item[1].values())))


def _collective(line: str, times: int, mesh: Mesh) -> Collective | None:
    operation = OPERATION.search(line)
    if operation is None:
        return None
    kind, starts = operation[2].removesuffix("-start"), operation[2].endswith("-start")
    if kind not in _RINGS:
        return None
    arrays = list(_arrays(operation[1]))
    if starts and kind != "all-reduce" and len(arrays) > 1:
        # (what it takes, what it gives), and of a permutation two counters.
        arrays = arrays[1:2] if kind == "collective-permute" else _second_half(arrays)
    groups = _groups(line, kind, mesh.size)
    scale = len(groups[0]) if kind == "reduce-scatter" else 1
    largest = max(arrays, key=lambda array: array[1], default=((), 0))
    return Collective(
        kind=kind,
        shape=largest[0],
        bytes=scale * sum(size for _, size in arrays),
        times=times,
        group=groups[0],
        axes=_axes(groups[0], mesh),
    )


def _second_half(arrays: list) -> list:
    return arrays[len(arrays) // 2 :]


def _arrays(shapes: str) -> Iterator[tuple[tuple[int, ...], int]]:
    for dtype, sizes in _ARRAY.findall(shapes):
        shape = tuple(int(size) for size in sizes.split(",") if size)
        bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
        yield shape, int(np.prod(shape, dtype=np.int64)) * bits // 8


def _groups(line: str, kind: str, devices: int) -> list[tuple[int, ...]]:
    """The groups of devices, each at its place in the mesh."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?\})\}", line)
        return _listed(pairs[1]) if pairs else [tuple(range(devices))]
    if (meshed := _MESHED.search(line)) is not None:
        return _along(meshed[1], meshed[2])
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", line)
    if listed is not None:
        return _listed(listed[1])
    dealt = re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line
    )
    if dealt is None:
        return [tuple(range(devices))]
    shape, source = _numbers(dealt[1]), _numbers(dealt[2])
    ids = np.arange(int(np.prod(source))).reshape(source)
    if dealt[3]:
        ids = ids.transpose(_numbers(dealt[3]))
    return [tuple(int(i) for i in row) for row in ids.reshape(shape[0], -1)]


def _along(sizes: str, axes: str) -> list[tuple[int, ...]]:
    """Groups along `axes`, as 'a','c', of a mesh, as 'a'=2,'b'=4,'c'=1."""
    shape = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", sizes)}
    along = re.findall(r"'(\w+)'", axes)
    ids = np.arange(math.prod(shape.values())).reshape(tuple(shape.values()))
    across = [name for name in shape if name not in along]
    order = [list(shape).index(name) for name in (*across, *along)]
    groups = ids.transpose(order).reshape(-1, math.prod(shape[name] for name in along))
    return [tuple(int(i) for i in group) for group in groups]


def _listed(groups: str) -> list[tuple[int, ...]]:
    return [tuple(_numbers(group)) for group in re.findall(r"\{([\d,\s]*)\}", groups)]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


def _axes(group: Sequence[int], mesh: Mesh) -> tuple[str, ...]:
    """The axes along which a group's devices differ."""
    if max(group, default=0) >= mesh.size:
        return ()
    places = [_place(i, tuple(mesh.shape.values())) for i in group]
    return tuple(
        axis
        for axis, column in zip(mesh.axis_names, zip(*places, strict=True), strict=True)
        if any(a != b for a, b in itertools.pairwise(column))
    )


@functools.cache
def _place(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(index, shape))
