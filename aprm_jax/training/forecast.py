"""What a compiled step will need and take, told without a device to run it on.

A step is traced on shapes and compiled ahead of time for the chips. Memory is the
compiler's own account; operations are counted in the trace, which knows how often its
loops turn; collectives in the compiled text. Time is a roofline: the longest of what
arithmetic, memory and links need at the makers' peaks, as if they overlapped wholly,
and of what a TPU's compiler itself thinks that its fusions take. Taken as a bound: a
step is hardly shorter, and its MFU hardly higher.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from aprm_jax.models.attention import compiled_for
from aprm_jax.training.chips import Chip, Topology
from aprm_jax.training.collectives import Collective, by_axes, collectives
from aprm_jax.training.hlo import estimated_cycles
from aprm_jax.training.memory import ran_out
from aprm_jax.training.mesh import param_shardings

# As libtpu says that a program is too large, in either of two ways.
_USED = re.compile(
    r"([\d.]+)([KMG])(?: of |\) exceeds available HBM \()([\d.]+)([KMG])"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Program:
    """A step that is compiled.

    Attributes:
      name: of the step.
      function: compiled by `jax.jit`.
      args: what it is called with: shapes with shardings in place of arrays.
      holds: what of `args` is what: "parameters", "optimiser", ... → trees.
      twice: trees of `args` that stand there twice and in memory once.
      trips: turns of a loop that ends when its rows do.
      mesh: of its devices, where it is not that of the others.
      beside: bytes a chip that its stage keeps in memory while it runs, not of `args`.
    """

    name: str
    function: Any
    args: tuple[Any, ...]
    holds: Mapping[str, Any]
    twice: Any = ()
    trips: int = 1
    mesh: jax.sharding.Mesh | None = None
    beside: float = 0.0


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is told of a step; bytes and operations are a chip's.

    Attributes:
      name: of the step.
      holds: bytes of its arguments, by what they are.
      temporaries: bytes beside arguments and results: activations and gradients.
      beside: bytes that its stage keeps in memory meanwhile.
      peak: bytes in all.
      room: bytes that a chip has for it.
      flops: operations of its products.
      useful_flops: those of a step that computes nothing again; for MFU.
      hbm_bytes: read and written, at least: XLA counts a loop once, but of a loop
        over tokens each turn reads what the step holds.
      links: {axes of the mesh: {kind of collective: bytes on the wire}}.
      seconds: {"compute", "memory", "links"} at the peaks, and on TPUs "fusions", by
        their compiler's estimate.
      refusal: what the compiler said where it does not fit; "" elsewhere.
    """

    name: str
    holds: dict[str, float]
    temporaries: float
    beside: float
    peak: float
    room: float
    flops: float
    useful_flops: float
    hbm_bytes: float
    links: dict[str, dict[str, float]]
    seconds: dict[str, float]
    refusal: str = ""

    @property
    def fits(self) -> bool:
        """Whether the chip has room for it."""
        return not self.refusal and self.peak <= self.room

    @property
    def time(self) -> float:
        """Seconds of the step, at least."""
        return max(self.seconds.values(), default=0.0)

    @property
    def serial(self) -> float:
        """Seconds, at least, where no collective is hidden behind anything else."""
        rest = {what: s for what, s in self.seconds.items() if what != "links"}
        return max(rest.values(), default=0.0) + self.seconds.get("links", 0.0)

    @property
    def bound(self) -> str:
        """What the time is spent on."""
        return max(self.seconds, key=lambda what: self.seconds[what])

    def mfu(self, chip: Chip, seconds: float | None = None) -> float:
        """Useful operations as a share of what the chip could do in the time."""
        seconds = self.time if seconds is None else seconds
        return self.useful_flops / (chip.flops * seconds) if seconds else 0.0

    def as_json(self, chip: Chip) -> dict[str, Any]:
        """All of it, for a file."""
        told = {"fits": self.fits, "time": self.time, "bound": self.bound}
        serial = self.mfu(chip, self.serial)
        told |= {"mfu": self.mfu(chip), "mfu_serial": serial}
        return dataclasses.asdict(self) | told


def abstract(mesh: jax.sharding.Mesh, tree: Any) -> Any:
    """Arrays, or their shapes, as shapes where `training.mesh` puts them."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        tree,
        param_shardings(mesh, tree),
    )


def forecast(
    program: Program,
    topology: Topology,
    mesh: jax.sharding.Mesh,
    useful: Program | None = None,
) -> Forecast:
    """Compiles a step for the chips and reads what it needs.

    Args:
      program: the step.
      topology: the chips.
      mesh: of their devices.
      useful: the same step without anything computed again; by default `program`.
    """
    mesh = mesh if program.mesh is None else program.mesh
    # Devices of the CPU stand for GPUs, whose kernels they cannot run.
    platform = "tpu" if topology.is_tpu else "cpu"
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), compiled_for(platform):
        return _forecast(program, topology, mesh, useful)


def _forecast(
    program: Program,
    topology: Topology,
    mesh: jax.sharding.Mesh,
    useful: Program | None,
) -> Forecast:
    chip, size = topology.chip, mesh.size
    traced = program.function.trace(*program.args)
    flops = product_flops(traced.jaxpr.jaxpr, program.trips) / size
    plain = flops
    if useful is not None:
        again = useful.function.trace(*useful.args)
        plain = product_flops(again.jaxpr.jaxpr, useful.trips) / size
    holds = {name: float(shard_bytes(tree)) for name, tree in program.holds.items()}
    known: dict[str, Any] = {
        "name": program.name,
        "holds": holds,
        "beside": float(program.beside),
        "flops": flops,
        "useful_flops": plain,
    }
    try:
        compiled = traced.lower().compile()
    except Exception as error:
        if not (said := ran_out(error)):
            raise
        return _refused(known, said, topology)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    text = compiled.as_text()
    crossing = collectives(text, mesh, unknown_trips=program.trips)
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        - shard_bytes(program.twice)
        + program.beside
    )
    hbm = max(
        float(cost.get("bytes accessed", 0.0)),
        float(memory.argument_size_in_bytes - shard_bytes(program.twice))
        + float(memory.output_size_in_bytes),
        # Each turn of a loop over tokens reads the parameters and the cache.
        program.trips * sum(holds.values()),
    )
    return Forecast(
        **known,
        temporaries=float(memory.temp_size_in_bytes),
        peak=float(peak),
        room=topology.room,
        hbm_bytes=hbm,
        links=by_axes(crossing),
        seconds={
            "compute": flops / chip.flops,
            "memory": hbm / chip.bandwidth,
            "links": sum(_wire_seconds(one, topology) for one in crossing),
        }
        | _by_compiler(text, chip, program.trips),
    )


def _wire_seconds(one: Collective, topology: Topology) -> float:
    sent = one.wire_bytes
    return sent / topology.speed(one.group) if sent else 0.0


def _by_compiler(text: str, chip: Chip, trips: int) -> dict[str, float]:
    cycles = estimated_cycles(text, unknown_trips=trips) if chip.clock else 0
    return {"fusions": cycles / chip.clock} if cycles else {}


def _refused(known: dict[str, Any], said: str, topology: Topology) -> Forecast:
    """Of a step that the compiler found too large: it says how large."""
    used = _USED.search(said)
    peak = math.inf if used is None else float(used[1]) * _UNITS[used[2]]
    peak += known["beside"]
    room = topology.room if used is None else float(used[3]) * _UNITS[used[4]]
    held = sum(known["holds"].values()) + known["beside"]
    return Forecast(
        **known,
        temporaries=peak - held,
        peak=peak,
        room=room,
        hbm_bytes=0.0,
        links={},
        seconds={"compute": known["flops"] / topology.chip.flops},
        refusal=" ".join(said.split())[:300],
    )


def shard_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes on one device."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * np.dtype(leaf.dtype).itemsize
    return total


def product_flops(jaxpr: Any, trips: int = 1) -> float:
    """Operations of all products in a trace, over all devices.

    Loops count as often as they turn, `trips` times where they decide it themselves;
    of branches the dearest.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            total += _dot_flops(eqn)
            continue
        inner = [product_flops(body, trips) for body in _bodies(params)]
        if name == "scan":
            total += params["length"] * sum(inner)
        elif name == "while":
            total += trips * sum(inner)
        elif name == "cond":
            total += max(inner, default=0.0)
        elif name == "pallas_call":
            total += math.prod(params["grid_mapping"].grid) * sum(inner)
        elif name == "shard_map":
            # Along other axes of the mesh its arrays are whole.
            # Along the mesh's other axes its arrays are whole.
            parts = [params["mesh"].shape[axis] for axis in params["newly_manual_axes"]]
            total += math.prod(parts) * sum(inner)
        else:
            total += sum(inner)
    return total


def _dot_flops(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    out = eqn.outvars[0].aval.shape
    return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _bodies(params: Mapping[str, Any]) -> Iterator[Any]:
    """The traces within an operation; a function with its own gradient has one."""
    for name, value in params.items():
        if name in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd"):
            continue
        for item in value if isinstance(value, tuple | list) else (value,):
            body = getattr(item, "jaxpr", item)
            if hasattr(body, "eqns"):
                yield body
