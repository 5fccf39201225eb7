"""Accelerators that a plan can be made for: their sizes and speeds, and topologies.

Speeds are the makers' peaks. `links` is what a chip sends over all its links at once,
one way: what a ring over all of them reaches. TPUs: "How to Scale Your Model", chapter
2 (https://jax-ml.github.io/scaling-book/tpus), and
https://cloud.google.com/tpu/docs/system-architecture-tpu-vm. GPUs: NVIDIA's data
sheets of H100 SXM, H200 SXM and A100 80GB SXM, dense bfloat16, half of NVLink's
two-way sum.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from aprm_jax.config.errors import UserError


class TopologyError(UserError, ValueError):
    """A topology that is no such thing, or that nothing here can compile for."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator.

    Attributes:
      memory: bytes of HBM.
      bandwidth: of HBM, bytes a second.
      flops: bfloat16 operations a second.
      links: bytes a second to other chips.
      clock: cycles a second, by which a TPU's compiler estimates; 0 where not known.
    """

    memory: float
    bandwidth: float
    flops: float
    links: float
    clock: float = 0.0


CHIPS = {
    "v5e": Chip(16 * 2**30, 8.1e11, 1.97e14, 4 * 4.5e10, 1.5e9),
    "v5p": Chip(95 * 2**30, 2.765e12, 4.59e14, 6 * 9e10, 1.75e9),
    "v6e": Chip(32 * 2**30, 1.64e12, 9.18e14, 4 * 9e10),
    "a100": Chip(80e9, 2.039e12, 3.12e14, 3e11),
    "h100": Chip(80e9, 3.35e12, 9.89e14, 4.5e11),
    "h200": Chip(141e9, 4.8e12, 9.89e14, 4.5e11),
}
_TPU = re.compile(r"(v5e|v5p|v6e):(\d+(?:x\d+){1,2})")
_GPU = re.compile(r"gpu:(a100|h100|h200)x([1-9]\d*)")
MOST_FAKE = 512


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, named as "v5e:8x8" or "gpu:h100x8"."""

    name: str
    kind: str
    size: int

    @property
    def chip(self) -> Chip:
        """Of which there are `size`."""
        return CHIPS[self.kind]

    @property
    def is_tpu(self) -> bool:
        """Whether libtpu compiles for it."""
        return self.kind.startswith("v")

    @classmethod
    def of(cls, name: str) -> Topology:
        """Reads a name.

        Raises:
          TopologyError: says what names there are.
        """
        if tpu := _TPU.fullmatch(name):
            sides = [int(side) for side in tpu[2].split("x")]
            if (len(sides) == 3) == (tpu[1] == "v5p") and min(sides) > 0:
                return cls(name, tpu[1], math.prod(sides))
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
