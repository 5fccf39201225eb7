"""The completions API of an OpenAI-compatible server, asked until it answers or not.

What it sends back is hostile: it is bounded, checked, and rid of the key before anybody
sees it. Answers are kept in a journal as they come, so that whatever ends a run, a
server or a kill, the next start pays for what is missing alone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import email.utils
import json
import logging
import math
import os
import random
import re
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import httpx2

from aprm_jax.config import ConfigError
from aprm_jax.config.errors import UserError
from aprm_jax.config.groups import HttpConfig
from aprm_jax.data.jsonl import RowError, require_dict, require_str
from aprm_jax.files import parse_json
from aprm_jax.solvers.journal import Journal

T = TypeVar("T")

# Shorter keys guard nothing ("EMPTY", "x"), and solutions may well spell them.
_LEAST_KEY = 8
_PASSING = (408, 425, 429)  # and 5xx: the same request may be answered later
_NO_ROOM = re.compile(
    r"context[ _-]?(length|size|window)|max(imum)?[ _](model[ _])?len|too many tokens",
    re.IGNORECASE,
)


class EndpointError(UserError, RuntimeError):
    """A server does not answer as it should; the message says how, and what to do."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A completion.

    Attributes:
      text: without the stop, on most servers.
      stopped: whether it came to its end, not to the end of its room.
      logprobs: of its tokens; empty where the server does not tell them.
    """

    text: str
    stopped: bool
    logprobs: tuple[float, ...] = ()


class _Passing(Exception):
    """Why a request failed that may be sent again; `wait` seconds are asked for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class _NoRoom(Exception):
    """The prompt is longer than the model."""


def read_key(variable: str) -> str:
    """The key that an environment variable holds; "" for the variable "".

    Raises:
      ConfigError: it is not set, or cannot stand in a header. Never tells the key.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    where = f"endpoint.key_variable={variable!r}: this environment variable"
    if variable and not key:
        raise ConfigError(f"{where} is not set; it must hold the server's key")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{where} holds what no key does: it is one line of ASCII")
    return key


def backoff(attempt: int, http: HttpConfig) -> float:
    """The most seconds before a retry, of which a random share is waited.

    `attempt` counts from 0.

    Source: "full jitter", M. Brooker, Exponential Backoff and Jitter (2015).
    """
    return min(http.longest_wait, http.first_wait * 2.0 ** min(attempt, 60))


class Completions:
    """Requests to one server.

    Args:
      url: its address, up to and with its version, as http://localhost:8000/v1.
      key: goes into the header of each request, and nowhere else; "" for none.
      http: limits.
      journal: answers that are here already, and those that come.
    """

    def __init__(self, url: str, key: str, http: HttpConfig, journal: Journal):
        self.url = url.rstrip("/") + "/completions"
        self._key = key
        self._http = http
        self._journal = journal
        for name in ("httpx2", "httpcore2"):  # log headers, which a server may fill
            logging.getLogger(name).setLevel(logging.WARNING)

    def ask(self, requests: Sequence[Mapping[str, Any]]) -> list[list[Choice]]:
        """What the server answers to each request, several at a time.

        Args:
          requests: bodies as the API has them; with `n` for more than one choice. Equal
            ones are sent once.

        Returns:
          The choices of each, `n` of them; none where the prompt is longer than the
          model.

        Raises:
          EndpointError: one of them cannot be had. Those in flight are waited for, and
            what they bring is kept.
        """
        unique = {Journal.name(body): body for body in requests}
        found = _run(self._all(unique))
        return [found[Journal.name(body)] for body in requests]

    async def _all(
        self, requests: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, list[Choice]]:
        found: dict[str, list[Choice]] = {}
        failures: list[EndpointError] = []
        pending, failed = iter(requests.items()), asyncio.Event()
        http = self._http
        limits = httpx2.Timeout(
            http.request_seconds, connect=http.connect_seconds, read=http.read_seconds
        )
        headers = {"Accept-Encoding": "identity"}  # an answer's size is what is sent
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"

        async def work(client: httpx2.AsyncClient) -> None:
            for name, body in pending:
                if failed.is_set():
                    return
                try:
                    found[name] = await self._choices(client, body, failed)
                except EndpointError as error:
                    failures.append(error)
                    failed.set()

        # A redirect would take the key to where it leads.
        async with httpx2.AsyncClient(
            headers=headers, timeout=limits, follow_redirects=False
        ) as client:
            workers = min(http.requests, len(requests))
            await asyncio.gather(*(work(client) for _ in range(workers)))
        if failures:
            raise failures[0]
        return found

    async def _choices(
        self, client: httpx2.AsyncClient, body: Mapping[str, Any], failed: asyncio.Event
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
            name = Journal.name({"url": self.url, **rest})
            answer = self._journal.get(name)
            if answer is None:
                try:
                    answer = await self._answer(client, rest, failed)
                except _NoRoom:
                    return []
                self._journal.add(name, [dataclasses.asdict(c) for c in answer])
            else:
                kept = ((c["text"], c["stopped"], c["logprobs"]) for c in answer)
                answer = [Choice(text, ended, tuple(p)) for text, ended, p in kept]
            found += answer
        return found[:wanted]

    async def _answer(
        self, client: httpx2.AsyncClient, body: Mapping[str, Any], failed: asyncio.Event
    ) -> list[Choice]:
        """One request, and its retries."""
        http, attempt = self._http, 0
        while True:
            try:
                return await self._once(client, body)
            except _Passing as error:
                wait, reason = error.wait, str(error)
            if attempt == http.retries:
                raise self._error(f"{reason}, {attempt + 1} times")
            if wait is not None and wait > http.longest_wait:
                raise self._error(
                    f"{reason}, and asks to wait {wait:.0f} s, longer than "
                    f"endpoint.http.longest_wait={http.longest_wait:g}"
                )
            pause = max(random.uniform(0, backoff(attempt, http)), wait or 0.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(failed.wait(), pause)
                raise self._error(reason)  # another request has failed for good
            attempt += 1

    async def _once(
        self, client: httpx2.AsyncClient, body: Mapping[str, Any]
    ) -> list[Choice]:
        seconds = self._http.request_seconds
        try:
            # Those of httpx2 begin anew with each byte.
            async with (
                asyncio.timeout(seconds),
                client.stream("POST", self.url, json=dict(body)) as response,
            ):
                content = await self._content(response)
        except TimeoutError:
            raise _Passing(f"no whole answer within {seconds:g} s") from None
        except httpx2.TransportError as error:
            said = self._shown(str(error) or type(error).__name__)
            raise _Passing(f"{type(error).__name__}: {said}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._error(self._shown(str(error))) from None
        if response.status_code != 200:
            raise self._refusal(response, content)
        try:
            return self._parsed(content)
        except (ValueError, RowError) as error:
            said = f"{error}: {content.decode('utf-8', 'replace')}"
            raise _Passing(
                f"an answer that is no completion: {self._shown(said)}"
            ) from None

    async def _content(self, response: httpx2.Response) -> bytes:
        """The body as it was sent, if it is no longer than it may be."""
        content, most = bytearray(), self._http.max_bytes
        async for part in response.aiter_raw():
            content += part
            if len(content) > most:
                raise _Passing(
                    f"an answer of more than endpoint.http.max_bytes={most} bytes"
                )
        return bytes(content)

    def _refusal(self, response: httpx2.Response, content: bytes) -> Exception:
        """What to raise for another status than 200."""
        status, said = response.status_code, self._shown(content)
        if status in _PASSING or status >= 500:
            asked = response.headers.get("retry-after", "")
            return _Passing(f"status {status}: {said}", retry_after(asked))
        if 300 <= status < 400:
            to = self._shown(response.headers.get("location", ""))
            return self._error(
                f"status {status}: it redirects to {to}, where neither prompts nor a "
                "key are sent; name the right address"
            )
        if status in (400, 413, 422) and _NO_ROOM.search(said):
            return _NoRoom()
        return self._error(f"status {status}: {said}")

    def _parsed(self, content: bytes) -> list[Choice]:
        """The choices of an answer.

        Raises:
          ValueError, RowError: it is not as the API has it.
        """
        answer = parse_json(content)
        if not isinstance(answer, dict):
            raise ValueError("not a JSON object")
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ValueError("no list of choices")
        return [self._choice(choice) for choice in choices]

    def _choice(self, choice: Any) -> Choice:
        if not isinstance(choice, dict):
            raise ValueError("a choice that is no JSON object")
        text = require_str(choice, "text", allow_empty=True)
        if len(self._key) >= _LEAST_KEY:
            text = self._redacted(text)
        logprobs: Any = []
        if choice.get("logprobs") is not None:
            logprobs = require_dict(choice, "logprobs").get("token_logprobs") or []
            if not isinstance(logprobs, list) or not all(map(_is_logprob, logprobs)):
                raise ValueError("token_logprobs that are no numbers")
        stopped = choice.get("finish_reason") == "stop"
        return Choice(text, stopped, tuple(map(float, logprobs)))

    def _error(self, reason: str) -> EndpointError:
        return EndpointError(
            f"solver.endpoint: {self.url}: {reason}. The answers that came are kept "
            f"({self._journal.path}): the same command asks for the others alone"
        )

    def _redacted(self, text: str) -> str:
        """Without the key, as it is and as JSON may spell it."""
        spelt = json.dumps(self._key)[1:-1]
        for key in (self._key, spelt, spelt.replace("/", "\\/")) if self._key else ():
            text = text.replace(key, "***")
        return text

    def _shown(self, said: str | bytes) -> str:
        """The beginning of what a server said, fit for a terminal."""
        text = said if isinstance(said, str) else said.decode("utf-8", "replace")
        return repr(self._redacted(text)[:300])


def retry_after(header: str) -> float | None:
    """The seconds that a Retry-After asks for, as a number or a date; else None."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (
                email.utils.parsedate_to_datetime(header).timestamp() - time.time()
            )
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _is_logprob(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # No `isfinite`: whole numbers may be too large for it.
    return abs(value) <= sys.float_info.max


def _run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
