"""Rollouts by a server, which gets the weights as they are learned."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import platform
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.data.problem import Problem
from aprm_jax.files import fingerprint
from aprm_jax.hf.export import export_model
from aprm_jax.jobs.context import Context, log
from aprm_jax.servers.client import EndpointError, read_key
from aprm_jax.servers.weights import WeightServer
from aprm_jax.solvers.completions import Completions
from aprm_jax.solvers.endpoint import EndpointSolver
from aprm_jax.solvers.layouts import IdLayout
from aprm_jax.solvers.protocol import Solution
from aprm_jax.training import hosts

FOLDER = "rollouts"  # of the adapter that is loaded, in the stage's own
FORMATS = ("causal_lm", "peft")  # of a model, of an adapter
WEIGHTS = "*.safetensors"
_NEXT = "next"  # what is being written; no adapter is called so


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
        written = self._write(self._role.directory / FOLDER / _NEXT, params)
        # A server keeps what it has read by a name: other weights have another, and
        # another run's are not taken for ours, nor unloaded under its hands.
        run = f"{platform.node()}:{written.parent.absolute()}"
        run = hashlib.sha256(run.encode()).hexdigest()
        name = f"{self._role.stage}.{run[:8]}-{_digest(written)[:12]}"
        folder = written.with_name(name)
        if folder.exists():  # as written before a restart
            shutil.rmtree(folder)
        written.rename(folder)
        self._weights.load_adapter(name, folder)
        self._solver = dataclasses.replace(self._solver, model=name)
        self._forget(keep=name)

    def _forget(self, keep: str = "") -> None:
        """Has the server forget what it was told of, by this start or one before it.

        A folder lies there from before its adapter is loaded until it is forgotten.
        """
        for old in (self._role.directory / FOLDER).glob("*"):
            if old.name != keep:
                self._weights.unload_adapter(old.name)
                shutil.rmtree(old)

    def close(self) -> None:
        """Leaves the server without an adapter of this stage; tells where it cannot."""
        if not hosts.leader():
            return
        try:
            self._forget()
        except EndpointError as error:
            log.warning("%s: an adapter stays on the server: %s", FOLDER, error)

    def _write(self, folder: Path, params: Any) -> Path:
        # A tokenizer of its own: what is written reads special tokens in a text.
        tokenizer = copy.deepcopy(self._role.tokenizer)
        spec = self._role.spec_of(params)
        return export_model(
            folder, params, spec, tokenizer, format_=FORMATS[self._by_adapter]
        )


def _digest(folder: Path) -> str:
    """Of the weights in a folder, and of how they are applied."""
    files = [*sorted(folder.glob(WEIGHTS)), folder / "adapter_config.json"]
    sums = [fingerprint(file)["sha256"] for file in files]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def _solution(fields: dict[str, Any]) -> Solution:
    """From what JSON has of one."""
    nested = {k: tuple(map(tuple, fields[k])) for k in ("tokens", "logprobs")}
    return Solution(**{**fields, **nested, "steps": tuple(fields["steps"])})
