"""The completions API of an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from aprm_jax.config.groups import HttpConfig
from aprm_jax.data.jsonl import require_dict, require_str
from aprm_jax.servers.client import LEAST_KEY, Body, Client, NoRoomError
from aprm_jax.servers.journal import Journal


@dataclasses.dataclass(frozen=True)
class Choice:
    """A completion.

    Attributes:
      text: without the stop, on most servers.
      stopped: whether it came to its end, not to the end of its room.
      logprobs: of its tokens; empty where the server does not tell them.
      tokens: the ids that were drawn, what ended them included; likewise.
    """

    text: str
    stopped: bool
    logprobs: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()


class Completions(Client[list[Choice]]):
    """Requests to one server.

    Args:
      url: its address, up to and with its version, as http://localhost:8000/v1.
      key, http, journal: see `Client`.
    """

    field = "solver.endpoint"
    answer = "completion"

    def __init__(self, url: str, key: str, http: HttpConfig, journal: Journal | None):
        super().__init__(url.rstrip("/") + "/completions", key, http, journal)

    def ask(self, requests: Sequence[Mapping[str, Any]]) -> list[list[Choice]]:
        """What the server answers to each request, several at a time.

        Args:
          requests: bodies as the API has them; with `n` for more than one choice. Equal
            ones are sent once.

        Returns:
          The choices of each, `n` of them; none where the prompt is longer than the
          model.

        Raises:
          EndpointError: see `Client.run`.
        """
        found = self.run({Journal.name(body): body for body in requests})
        return [found[Journal.name(body)] for body in requests]

    async def _found(
        self, client: httpx2.AsyncClient, body: Body, failed: asyncio.Event
    ) -> list[Choice]:
        """All choices: where a server has fewer a request, it is asked for the rest."""
        wanted: int = body.get("n", 1)
        found: list[Choice] = []
        while len(found) < wanted:
            rest: dict[str, Any] = {**body, "n": wanted - len(found)}
            if rest["n"] == 1:
                del rest["n"]
            if found and "seed" in rest:
                rest["seed"] = (rest["seed"] + len(found)) % (1 << 31)
            answer = self._kept(rest)
            if answer is None:
                try:
                    answer = await self._sent(client, rest, failed)
                except NoRoomError:
                    return []
                self._keep(rest, [dataclasses.asdict(c) for c in answer])
            else:
                answer = [_kept_choice(choice) for choice in answer]
            found += answer
        return found[:wanted]

    def _parsed(self, content: Any, body: Body) -> list[Choice]:
        """See `Client`: the choices of an answer."""
        choices = content.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ValueError("no list of choices")
        found = [self._choice(choice) for choice in choices]
        if body.get("return_token_ids") and not all(choice.tokens for choice in found):
            raise self._error(
                "the server does not tell the ids that it drew (return_token_ids), "
                "which an update learns from; vLLM does from 0.10.2 on",
                body,
            )
        return found

    def _choice(self, choice: Any) -> Choice:
        if not isinstance(choice, dict):
            raise ValueError("a choice that is no JSON object")
        text = require_str(choice, "text", allow_empty=True)
        if len(self._key) >= LEAST_KEY:
            text = self._redacted(text)
        logprobs: Any = []
        if choice.get("logprobs") is not None:
            logprobs = require_dict(choice, "logprobs").get("token_logprobs") or []
            if not isinstance(logprobs, list) or not all(map(_is_logprob, logprobs)):
                raise ValueError("token_logprobs that are no numbers")
        tokens = choice.get("token_ids") or []
        if not isinstance(tokens, list) or not all(map(_is_id, tokens)):
            raise ValueError("token_ids that are no ids")
        if tokens and len(tokens) != len(logprobs):
            raise ValueError(f"{len(tokens)} token_ids and {len(logprobs)} logprobs")
        stopped = choice.get("finish_reason") == "stop"
        return Choice(text, stopped, tuple(map(float, logprobs)), tuple(tokens))


def _kept_choice(fields: Mapping[str, Any]) -> Choice:
    """Of a journal; those of before ids were asked for have none."""
    listed = (tuple(fields.get(name, ())) for name in ("logprobs", "tokens"))
    return Choice(fields["text"], fields["stopped"], *listed)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_logprob(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # No `isfinite`: whole numbers may be too large for it.
    return abs(value) <= sys.float_info.max
