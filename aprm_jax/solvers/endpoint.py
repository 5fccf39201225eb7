"""A solver behind an OpenAI-compatible endpoint; a step is asked for at a time.

What goes there and what comes back is a layout's: see `solvers.layouts`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aprm_jax.config.addresses import read_solver_address
from aprm_jax.config.groups import HttpConfig
from aprm_jax.sampling.methods import Truncation
from aprm_jax.servers.client import read_key
from aprm_jax.solvers.completions import Choice, Completions
from aprm_jax.solvers.layouts import Layout, Prompt, WordLayout
from aprm_jax.solvers.partial import Partial, begun, ended
from aprm_jax.solvers.protocol import NO_ROOM, Solution, Solver, Start, Written
from aprm_jax.tasks.graders import AnswerGrader
from aprm_jax.tasks.protocols import Grader

_STEP_TOKENS = 256  # longest step of a server that no config describes


@dataclasses.dataclass(frozen=True)
class EndpointSolver(Solver):
    """Asks a server for each step.

    Attributes:
      completions: asks it.
      layout: of prompts and replies.
      grader: tells which step concludes.
      model: its name on the server.
      max_tokens: longest step.
      choices: most completions a request. With more than 1 the solutions that share a
        prompt share a seed, and what one gets depends on how many there are.
      logprobs: whether to ask for log-probabilities.
    """

    completions: Completions
    layout: Layout
    grader: Grader
    model: str
    max_tokens: int
    choices: int = 1
    logprobs: bool = False

    def solve(
        self,
        starts: Sequence[Start],
        count: int,
        key: Any,
        *,
        max_steps: int,
        temperature: float = 1.0,
        truncation: Truncation | None = None,
        draws: Sequence[int] | None = None,
    ) -> list[list[Solution]]:
        """See `Solver.solve`; how a seed decides is the server's.

        Raises:
          EndpointError: the server does not answer as it should.
        """
        solutions = begun(starts, count, draws)
        common = self._body(temperature, truncation)
        for depth in range(max_steps):
            live = self._live(solutions, max_steps)
            if not live:
                break
            self._extend(live, common, lambda draw, d=depth: _seed(key, d, draw))
        return ended(solutions, count)

    def _body(
        self, temperature: float, truncation: Truncation | None
    ) -> dict[str, Any]:
        """What all requests have in common: what a server may not know, only if set."""
        rules = truncation or Truncation()
        told = {"top_p": rules.top_p, "top_k": rules.top_k, "min_p": rules.min_p}
        plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": float(temperature),
            **self.layout.fields,
            **{name: value for name, value in told.items() if value != plain[name]},
            **({"logprobs": 1} if self.logprobs else {}),
        }

    def _live(
        self, solutions: Sequence[Partial], max_steps: int
    ) -> dict[Prompt, list[Partial]]:
        """The solutions that go on, by their prompts."""
        live: dict[Prompt, list[Partial]] = {}
        for s in solutions:
            if not s.goes_on or len(s.steps) >= max_steps:
                continue
            prompt = self.layout.prompt(s.question, s.steps)
            if prompt is None:
                s.room = False
            else:
                live.setdefault(prompt, []).append(s)
        return live

    def _extend(
        self, live: Mapping[Prompt, list[Partial]], common: Mapping[str, Any], seed: Any
    ) -> None:
        """A step more of each; those of one prompt share requests."""
        # Greedy completions of one prompt are one completion.
        greedy = common["temperature"] == 0
        bodies, groups = [], []
        for prompt, sharing in live.items():
            size = len(sharing) if greedy else self.choices
            for i in range(0, len(sharing), size):
                group = sharing[i : i + size]
                body = {**common, "prompt": prompt}
                if not greedy:
                    body["seed"] = seed(group[0].draw)
                    body |= {"n": len(group)} if len(group) > 1 else {}
                bodies.append(body)
                groups.append(group)
        for group, found in zip(groups, self.completions.ask(bodies), strict=True):
            for k, solution in enumerate(group):
                choice = found[0 if greedy else k] if found else None
                solution.add(self._written(choice))

    def _written(self, choice: Choice | None) -> Written:
        """A step; None where the server had no room for one."""
        if choice is None:
            return NO_ROOM
        text, closed = self.layout.read(choice)
        finished = closed and self.grader.is_final(text)
        return Written(text, choice.tokens, choice.logprobs, closed, finished)


def open_endpoint(name: str) -> EndpointSolver:
    """The solver at an address, asked in words; a config says more, see docs.

    Args:
      name: MODEL@http://HOST:PORT/v1, see `config.addresses`.

    Raises:
      ConfigError: it is no address, or the variable that it names holds no key.
    """
    address = read_solver_address(name, "solver")
    key = read_key(address.key_variable, "the # of a solver's address")
    asks = Completions(address.url, key, HttpConfig(), None)
    layout, grader = WordLayout(), AnswerGrader()
    return EndpointSolver(asks, layout, grader, address.model, _STEP_TOKENS)


def _seed(key: Any, depth: int, draw: int) -> int:
    """31 bits, which every server takes."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    parts = np.asarray(key).tobytes() + f"/{depth}/{draw}".encode()
    return int.from_bytes(hashlib.sha256(parts).digest()[:4]) >> 1
