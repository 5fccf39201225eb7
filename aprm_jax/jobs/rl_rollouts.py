"""Rollouts by a server, which gets the weights as they are learned."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.data.problem import Problem
from aprm_jax.files import fingerprint
from aprm_jax.hf.export import export_model
from aprm_jax.jobs.context import Context
from aprm_jax.servers.client import read_key
from aprm_jax.servers.weights import WeightServer
from aprm_jax.solvers.completions import Completions
from aprm_jax.solvers.endpoint import EndpointSolver
from aprm_jax.solvers.layouts import IdLayout
from aprm_jax.solvers.protocol import Solution
from aprm_jax.training import hosts

FOLDER = "rollouts"  # of the adapter that is loaded, in the stage's own
FORMATS = ("causal_lm", "peft")  # of a model, of an adapter
WEIGHTS = "*.safetensors"


class ServedRollouts:
    """Has a vLLM server draw, with the weights of a round or of some rounds before.

    With several hosts the leader asks, and the others are told.

    Args:
      role: the solver's.
      merged: trained parameters as a model in plain kernels.
    """

    def __init__(self, role: Context, merged: Callable[[Any], Any]):
        c = role.config
        self._role, self._merged, self._served = role, merged, -1
        self._by_adapter = c.rl.rollouts.push == "adapter"
        self.every = c.rl.rollouts.every
        key, http = read_key(c.endpoint.key_variable), c.endpoint.http
        self._weights = WeightServer(c.solver.endpoint, key, http)
        self._solver = EndpointSolver(
            Completions(c.solver.endpoint, key, http, None),
            IdLayout(role.writer, role.decoder_config.vocab_size),
            role.domain,
            c.endpoint.model,
            c.builder.max_new_tokens,
            c.endpoint.n,
        )

    def solve(
        self,
        trained: Any,
        version: int,
        problems: Sequence[Problem],
        count: int,
        key: Any,
    ) -> list[list[Solution]]:
        """See `rl.task.Rollouts`.

        Raises:
          EndpointError: the server does not take the weights, or does not draw.
        """
        whole = None
        if version != self._served:
            whole = hosts.fetch(self._exported(trained))

        def drawn() -> list[list[dict[str, Any]]]:
            if whole is not None:
                self._tell(whole, version)
            starts = [(problem.question, ()) for problem in problems]
            steps = self._role.config.builder.max_steps
            rows = self._solver.solve(starts, count, key, max_steps=steps)
            return [[dataclasses.asdict(s) for s in row] for row in rows]

        found = hosts.from_leader(f"rollouts by weights {version}", drawn)
        self._served = version
        return [[_solution(fields) for fields in row] for row in found]

    def _exported(self, trained: Any) -> dict[str, Any]:
        """What the server needs of them."""
        if self._by_adapter:
            return {"lora": trained["lora"]}
        return {"backbone": self._merged(trained)["backbone"]}

    def _tell(self, params: Any, version: int) -> None:
        """Writes the weights, and has the server read them."""
        if not self._by_adapter:
            self._write(Path(self._role.config.rl.rollouts.folder), params)
            self._weights.reload()
            return
        folder = self._write(self._role.directory / FOLDER / str(version), params)
        # A server keeps what it has read by a name: other weights have another.
        name = f"{self._role.stage}-{_digest(folder)[:12]}"
        self._weights.load_adapter(name, folder)
        before = self._solver.model
        self._solver = dataclasses.replace(self._solver, model=name)
        if before not in ("", name):
            self._weights.unload_adapter(before)
        for old in folder.parent.iterdir():
            if old != folder:
                shutil.rmtree(old)

    def _write(self, folder: Path, params: Any) -> Path:
        # A tokenizer of its own: what is written reads special tokens in a text.
        tokenizer = copy.deepcopy(self._role.tokenizer)
        spec = self._role.spec_of(params)
        return export_model(
            folder, params, spec, tokenizer, format_=FORMATS[self._by_adapter]
        )


def _digest(folder: Path) -> str:
    """Of the weights in a folder."""
    sums = [fingerprint(file)["sha256"] for file in sorted(folder.glob(WEIGHTS))]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _solution(fields: dict[str, Any]) -> Solution:
    """From what JSON has of one."""
    nested = {k: tuple(map(tuple, fields[k])) for k in ("tokens", "logprobs")}
    return Solution(**{**fields, **nested, "steps": tuple(fields["steps"])})
