"""Accelerators that a plan can be made for: their sizes and speeds, and topologies.

Speeds are the makers' peaks, of links one way. TPUs: Google's pages of v5e, v5p and
v6e (https://docs.cloud.google.com/tpu/docs/v5e), and "How to Scale Your Model", chapter
2 (https://jax-ml.github.io/scaling-book/tpus). GPUs: NVIDIA's data sheets of H100 SXM,
H200 SXM and A100 80GB SXM, dense bfloat16, half of NVLink's two-way sum, and the user
guides of DGX H100, H200 and A100, which have a network card to each GPU.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from aprm_jax.config.errors import UserError


class TopologyError(UserError, ValueError):
    """A topology that is no such thing, or that nothing here can compile for."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator.

    Attributes:
      memory: bytes of HBM that programs may take.
      bandwidth: of HBM, bytes a second.
      flops: bfloat16 operations a second.
      link: bytes a second over one link: a TPU's to a neighbour, all of NVLink.
      clock: cycles a second, by which a TPU's compiler estimates; 0 where not known.
      network: bytes a second of a GPU to other nodes.
    """

    memory: float
    bandwidth: float
    flops: float
    link: float
    clock: float = 0.0
    network: float = 0.0


CHIPS = {
    # Of a TPU's memory what libtpu 0.0.42 leaves to a program.
    "v5e": Chip(15.75 * 2**30, 8.19e11, 1.97e14, 5e10, 1.5e9),
    "v5p": Chip(95.74 * 2**30, 2.765e12, 4.59e14, 1e11, 1.75e9),
    "v6e": Chip(31.25 * 2**30, 1.638e12, 9.18e14, 1e11),
    "a100": Chip(80e9, 2.039e12, 3.12e14, 3e11, network=2.5e10),
    "h100": Chip(80e9, 3.35e12, 9.89e14, 4.5e11, network=5e10),
    "h200": Chip(141e9, 4.8e12, 9.89e14, 4.5e11, network=5e10),
}
NODE = 8  # GPUs that NVLink joins
# The share of a GPU's memory that JAX takes, and a run can use, and who says another:
# https://docs.jax.dev/en/latest/gpu_memory_allocation.html
SHARE, SHARE_VARIABLE = 0.75, "XLA_PYTHON_CLIENT_MEM_FRACTION"
# Sides from which on the ends of an axis are joined: of v5e and v6e a pod's whole side;
# v5p is wired so in cubes of four chips, of which there is one at least.
_WHOLE_SIDE, _CUBE = 16, 4
_TPU = re.compile(r"(v5e|v5p|v6e):(\d+(?:x\d+){1,2})")
_GPU = re.compile(r"gpu:(a100|h100|h200)x([1-9]\d*)")
MOST_FAKE = 512


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, named as "v5e:8x8" or "gpu:h100x8"."""

    name: str
    kind: str
    size: int
    sides: tuple[int, ...] = ()  # of a TPU's slice

    @property
    def chip(self) -> Chip:
        """Of which there are `size`."""
        return CHIPS[self.kind]

    @property
    def is_tpu(self) -> bool:
        """Whether libtpu compiles for it."""
        return self.kind.startswith("v")

    @property
    def links(self) -> int:
        """Of the chip that has fewest: one along an axis, two where its ends meet.

        A chip in the corner of a slice without wrap-around has half of a torus's, and
        a collective waits for it. NVLink counts as one.
        """
        if not self.is_tpu:
            return 1
        return sum(
            0 if side == 1 else 2 if self._joined(side) else 1 for side in self.sides
        )

    def _joined(self, side: int) -> bool:
        """Whether chips at both ends of an axis of so many are neighbours."""
        if self.kind == "v5p":
            return all(other % _CUBE == 0 for other in self.sides)
        return side == _WHOLE_SIDE

    @property
    def share(self) -> float:
        """Of a chip's memory that JAX hands out: all of a TPU's, but not of a GPU's.

        Raises:
          TopologyError: the environment has no share.
        """
        said = os.environ.get(SHARE_VARIABLE)
        if self.is_tpu or said is None:
            return 1.0 if self.is_tpu else SHARE
        try:
            share = float(said)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise TopologyError(
                f"{SHARE_VARIABLE}={said!r} must be a share of the GPU's memory, above "
                "0 and at most 1"
            )
        return share

    @property
    def room(self) -> float:
        """Bytes of a chip that a step may take."""
        return self.share * self.chip.memory

    def speed(self, group: Sequence[int]) -> float:
        """Bytes a second that a device of a collective is sent at most.

        Args:
          group: the devices that tell each other something, by number. A TPU's links
            all serve it; of GPUs on several nodes as many network cards as it has
            devices on a node: rings are laid so that each leaves by another one.
        """
        if self.is_tpu:
            return self.links * self.chip.link
        nodes = [device // NODE for device in group]
        if len(set(nodes)) < 2:
            return self.chip.link
        cards = max(nodes.count(node) for node in set(nodes))
        return min(self.chip.link, cards * self.chip.network)

    @classmethod
    def of(cls, name: str) -> Topology:
        """Reads a name.

        Raises:
          TopologyError: says what names there are.
        """
        if tpu := _TPU.fullmatch(name):
            sides = [int(side) for side in tpu[2].split("x")]
            if (len(sides) == 3) == (tpu[1] == "v5p") and min(sides) > 0:
                return cls(name, tpu[1], math.prod(sides), tuple(sides))
        elif (gpu := _GPU.fullmatch(name)) and int(gpu[2]) <= MOST_FAKE:
            return cls(name, gpu[1], int(gpu[2]))
        raise TopologyError(
            f"plan.topology={name!r}: name chips and how they are wired, as v5e:4x4, "
            "v6e:8x8 (two sides), v5p:2x2x4 (three sides) or gpu:h100x8 (a100, h100, "
            f"h200; {MOST_FAKE} at most)"
        )

    def prepare(self) -> None:
        """Before JAX has any device: the CPU's alone, as many as GPUs they stand for.

        Raises:
          TopologyError: a TPU's compiler is not installed.
        """
        jax.config.update("jax_platforms", "cpu")
        if not self.is_tpu:
            jax.config.update("jax_num_cpu_devices", self.size)
        elif importlib.util.find_spec("libtpu") is None:
            raise TopologyError(
                f"plan.topology={self.name!r} is compiled by libtpu, which is not "
                "installed: pip install 'aprm_jax[tpu]' (no TPU is needed), or plan "
                "for GPUs, as gpu:h100x8"
            )

    def devices(self) -> list[Any]:
        """What to make a mesh of: nothing can run on them, but be compiled for them.

        Raises:
          TopologyError: libtpu does not know it, or JAX has fewer CPU devices.
        """
        if not self.is_tpu:
            found = jax.devices("cpu")[: self.size]
            if len(found) < self.size:
                raise TopologyError(
                    f"plan.topology={self.name!r} needs {self.size} devices of the CPU "
                    f"to stand for GPUs, and JAX began with {len(found)}: run the job "
                    "in a process of its own, without jax_num_cpu_devices"
                )
            return found
        from jax.experimental import topologies

        # There is no TPU to ask about, nor anybody else's to keep away from.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        try:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=self.name
            )
        except Exception as error:  # of XLA's client, whatever it is called
            raise TopologyError(
                f"plan.topology={self.name!r}: libtpu has no such topology: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        return list(described.devices)
