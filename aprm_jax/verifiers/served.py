"""A verifier behind an address: text goes there, and scores of steps come back.

Two protocols, a request a solution. Ours, for which docs/endpoints.md has a server:

    POST URL          {"question": "2 + 3 * 4", "steps": ["2 + 12", "14"]}
                      {"scores": [0.98, null]}

one probability a step, null for one that was not read. And vLLM's pooling API, for PRMs
of Qwen's layout, which are read at each <extra_0>:

    POST URL/pooling  {"model": "Qwen/Qwen2.5-Math-PRM-7B", "input": "<|im_start|>…"}
                      {"data": [{"data": [[0.02, 0.98], [0.4, 0.6]]}]}

one row [P(wrong), P(correct)] a step. Source: vLLM's example pooling_online.py, its
PoolingResponseData, and Qwen2ForProcessRewardModel, whose pooler is STEP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from jaxtyping import Float

from aprm_jax.config.addresses import Address, read_address
from aprm_jax.config.groups import HttpConfig
from aprm_jax.data.jsonl import RowError
from aprm_jax.hf.prm_layouts import qwen_messages
from aprm_jax.servers.client import (
    Body,
    Client,
    EndpointError,
    NoRoomError,
    read_key,
)
from aprm_jax.servers.journal import FILE, Journal
from aprm_jax.verifiers.protocol import Pairs, Scale, logit
from aprm_jax.verifiers.score_file import parse_scores

_SPECIAL = re.compile(r"<(\|\w+\|>)")  # as Qwen spells its special tokens
_SUM = 0.02  # how far the sum of two probabilities in half precision is from 1 at most
_LEAST = 1e-12  # probability: keeps the log-odds of one that rounds to 0 finite

Said = list[float | None]  # log-odds of the steps, None for one that was not read


class NotScoredError(EndpointError):
    """Some solutions cannot be scored; the scores of the others are kept.

    Attributes:
      missing: the solutions that have none, of those that were asked about.
    """

    def __init__(self, message: str, missing: Pairs):
        super().__init__(message)
        self.missing = missing


class _Request(dict[str, Any]):
    """A request's body, and the solution that it asks about."""

    def __init__(self, body: Body, question: str, steps: Sequence[str]):
        super().__init__(body)
        self.question, self.steps = question, steps


class Scores(Client[Said]):
    """Asks a server of our protocol.

    Args:
      address: the server, and its model.
      http, journal: see `Client`.

    Raises:
      ConfigError: the variable that should hold the key does not.
    """

    field = "verifier"
    answer = "list of scores"

    def __init__(self, address: Address, http: HttpConfig, journal: Journal | None):
        key = read_key(address.key_variable, "the # of a verifier's address")
        super().__init__(self._url(address), key, http, journal)
        self._model = address.model

    def _url(self, address: Address) -> str:
        return address.url

    def body(self, question: str, steps: Sequence[str]) -> Body:
        """The request for the scores of a solution."""
        return {"question": question, "steps": list(steps)}

    def ask(self, solutions: Pairs) -> list[Said]:
        """What the server says of each solution; equal ones are sent once.

        Raises:
          NotScoredError: see `Client.run`.
        """
        bodies = [_Request(self.body(*pair), *pair) for pair in solutions]
        names = [Journal.name(body) for body in bodies]
        try:
            found = self.run(dict(zip(names, bodies, strict=True)))
        except EndpointError as error:
            pairs = zip(solutions, bodies, strict=True)
            missing = [pair for pair, body in pairs if self._kept(body) is None]
            raise NotScoredError(str(error), missing) from None
        return [found[name] for name in names]

    async def _found(
        self, client: httpx2.AsyncClient, body: Body, failed: asyncio.Event
    ) -> Said:
        kept = self._kept(body)
        if kept is not None:
            return kept
        try:
            said: Said = await self._sent(client, body, failed)
        except NoRoomError:
            said = [None for _ in _request(body).steps]
        self._keep(body, said)
        return said

    def _parsed(self, content: Any, body: Body) -> Said:
        """See `Client`: log-odds of the steps."""
        if not isinstance(content.get("scores"), list):
            raise ValueError('no list "scores"')
        self._check_count(content["scores"], body, "scores")
        try:
            scores = parse_scores(content)
        except RowError as error:
            said = self._redacted(str(error))[:200]
            right = "right is a probability in [0, 1] a step, or null"
            raise self._error(f"{said}; {right}", body) from None
        return [None if math.isnan(x) else float(x) for x in logit(scores)]

    def _check_count(self, scores: Sequence[Any], body: Body, called: str) -> None:
        wanted = len(_request(body).steps)
        if len(scores) != wanted:
            raise self._error(
                f"it sent {len(scores)} {called}; right is one a step, {wanted}", body
            )

    def _about(self, body: Body) -> str:
        request = _request(body)
        return f"solution of {request.question[:60]!r}, {len(request.steps)} steps: "


class Pooling(Scores):
    """Asks vLLM, which serves a PRM of Qwen's layout."""

    answer = "answer of vLLM's pooling API"

    def _url(self, address: Address) -> str:
        return address.url.rstrip("/").removesuffix("/pooling") + "/pooling"

    def body(self, question: str, steps: Sequence[str]) -> Body:
        """See `Scores.body`: the chat as Qwen's template lays it out."""
        named = {"model": self._model} if self._model else {}
        return {**named, "input": chat_text(question, steps)}

    def _parsed(self, content: Any, body: Body) -> Said:
        """See `Client`: the difference of a row's logarithms are a step's log-odds."""
        match content:
            case {"data": [{"data": list(pairs)}]}:
                pass
            case _:
                raise ValueError('no list "data" in the one object of "data"')
        self._check_count(pairs, body, "rows of its <extra_0>")
        if not all(map(_is_pair, pairs)):
            raise self._error(
                "it sent a row that is no pair of probabilities; right is [P(wrong), "
                "P(correct)] a step, as of Qwen2.5-Math-PRM after its softmax",
                body,
            )
        both = np.asarray(pairs, np.float64).reshape(-1, 2)
        # Finer than the log-odds of P(correct) alone, which rounds to 1.
        logs = np.log(np.maximum(both, _LEAST))
        return (logs[:, 1] - logs[:, 0]).tolist()


@dataclasses.dataclass(frozen=True)
class ServedVerifier:
    """Implements `Verifier` by a server; NaN for steps that it has not read.

    Attributes:
      scores: asks it.
    """

    scores: Scores
    scale: Scale = Scale.LOG_ODDS

    def score(self, solutions: Pairs) -> list[Float[np.ndarray, " _"]]:
        """See `Verifier.score`.

        Raises:
          NotScoredError: the server does not answer as it should.
        """
        stepped = [pair for pair in solutions if pair[1]]
        found = iter(self.scores.ask(stepped))
        said = [next(found) if steps else [] for _, steps in solutions]
        return [np.array(row, np.float64) for row in said]  # None is NaN there


def open_served(
    name: str, http: HttpConfig | None = None, folder: Path | None = None
) -> ServedVerifier:
    """The verifier at an address.

    Args:
      name: the address, see `config.addresses`.
      http: limits; None for the defaults.
      folder: where answers are kept, in `servers.journal.FILE`; None keeps none.

    Raises:
      ConfigError: it is no address, or the variable that it names holds no key.
    """
    address = read_address(name, "verifier")
    journal = None if folder is None else Journal(folder / FILE)
    kind = Pooling if address.pooling else Scores
    return ServedVerifier(kind(address, http or HttpConfig(), journal))


def chat_text(question: str, steps: Sequence[str]) -> str:
    """A solution as the chat template of Qwen's PRMs has it; see `hf.prm_layouts`.

    Special tokens that a text spells are broken up, or a step could add a step.
    """
    question, *steps = (_SPECIAL.sub(r"< \1", text) for text in (question, *steps))
    return "".join(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        for message in qwen_messages(question, steps)
    )


def _request(body: Body) -> _Request:
    assert isinstance(body, _Request)
    return body


def _is_pair(row: Any) -> bool:
    """Whether it is two probabilities that add up to 1."""
    if not isinstance(row, list) or len(row) != 2:
        return False
    if any(isinstance(p, bool) or not isinstance(p, int | float) for p in row):
        return False
    return all(0 <= p <= 1 for p in row) and abs(sum(row) - 1) <= _SUM
