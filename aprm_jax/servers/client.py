"""Requests to a server that may fail, each sent until it is answered or never will be.

What it sends back is hostile: it is bounded, checked, and rid of the key before anybody
sees it. Answers are kept in a journal as they come, so that whatever ends a run, a
server or a kill, the next start pays for what is missing alone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import email.utils
import logging
import math
import os
import random
import re
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Generic, TypeVar

import httpx2

from aprm_jax.config import ConfigError
from aprm_jax.config.errors import UserError
from aprm_jax.config.groups import HttpConfig
from aprm_jax.files import parse_json
from aprm_jax.servers.journal import Journal

T = TypeVar("T")
Body = Mapping[str, Any]  # of a request, JSON values

# Shorter keys guard nothing ("EMPTY", "x"), and solutions may well spell them.
LEAST_KEY = 8
_PASSING = (408, 425, 429)  # and 5xx: the same request may be answered later
_NO_ROOM = re.compile(
    r"context[ _-]?(length|size|window)|max(imum)?[ _](model[ _])?len|too many tokens",
    re.IGNORECASE,
)


# What a server calls the longest text of its model, in tokens.
_LONGEST = re.compile(
    r"(?:context[ _]length|max[ _]model[ _]len)(?: is| of|=|:| ?\()* ?(\d+)",
    re.IGNORECASE,
)


class EndpointError(UserError, RuntimeError):
    """A server does not answer as it should; the message says how, and what to do."""


class NoRoomError(Exception):
    """A text is longer than the server's model; whoever asked knows what follows."""


class _Passing(Exception):
    """Why a request failed that may be sent again; `wait` seconds are asked for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def read_key(variable: str, field: str = "endpoint.key_variable") -> str:
    """The key that an environment variable holds; "" for the variable "".

    Args:
      variable: its name.
      field: what named it, for messages.

    Raises:
      ConfigError: it is not set, or cannot stand in a header. Never tells the key.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    where = f"{field}={variable!r}: this environment variable"
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


class Client(Generic[T]):
    """Requests to one server, each answered with a T; a subclass knows how.

    Args:
      url: where all are sent.
      key: goes into the header of each request, and nowhere else; "" for none.
      http: limits.
      journal: answers that are here already, and those that come; None keeps none.

    Attributes:
      field: what names the address, for messages.
      answer: what the server is to send, likewise.
    """

    field: str
    answer: str

    def __init__(self, url: str, key: str, http: HttpConfig, journal: Journal | None):
        self.url = url
        self._key = key
        self._spelt = re.compile("".join(map(_spellings, key)))
        self._http = http
        self._journal = journal
        self._spared: dict[str, Any] = {}  # answers of a run that failed, else unkept
        for name in ("httpx2", "httpcore2"):  # log headers, which a server may fill
            logging.getLogger(name).setLevel(logging.WARNING)

    async def _found(
        self, client: httpx2.AsyncClient, body: Body, failed: asyncio.Event
    ) -> T:
        """What a request comes to; `_kept` and `_sent` are there for it."""
        raise NotImplementedError

    def _decoded(self, content: bytes) -> Any:
        """The JSON object that an answer is.

        Raises:
          ValueError: it is none.
        """
        return _object(content)

    def _parsed(self, content: Any, body: Body) -> Any:
        """What an answer says, from its JSON.

        Raises:
          ValueError: it is not as the API has it; the request is sent again.
          EndpointError: it never will be.
        """
        raise NotImplementedError

    def _about(self, body: Body) -> str:
        """What a message says of a request before all else; "" for nothing."""
        del body
        return ""

    def run(self, requests: Mapping[str, Body]) -> dict[str, T]:
        """What the server answers to each request, several at a time.

        Args:
          requests: bodies as the API has them, each by a name.

        Raises:
          EndpointError: one of them cannot be had. Those in flight are waited for, and
            what they bring is kept; without a journal until a run succeeds.
        """
        return _run(self._all(requests))

    async def _all(self, requests: Mapping[str, Body]) -> dict[str, T]:
        found: dict[str, T] = {}
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
                    found[name] = await self._found(client, body, failed)
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
        self._spared.clear()
        return found

    def _name(self, body: Body) -> str:
        """What the journal knows a request by."""
        return Journal.name({"url": self.url, **body})

    def _kept(self, body: Body) -> Any:
        """The answer that is here already; None for none."""
        kept = self._spared if self._journal is None else self._journal
        return kept.get(self._name(body))

    def _keep(self, body: Body, answer: Any) -> None:
        """Keeps an answer, of JSON values."""
        if self._journal is None:
            self._spared[self._name(body)] = answer
        else:
            self._journal.add(self._name(body), answer)

    async def _sent(
        self, client: httpx2.AsyncClient, body: Body, failed: asyncio.Event
    ) -> Any:
        """What `_parsed` makes of the answer to one request, and its retries.

        Raises:
          NoRoomError: the server says that the text is too long.
        """
        http, attempt = self._http, 0
        while True:
            try:
                return await self._once(client, body)
            except _Passing as error:
                wait, reason = error.wait, str(error)
            if attempt == http.retries:
                raise self._error(f"{reason}, {attempt + 1} times", body)
            if wait is not None and wait > http.longest_wait:
                raise self._error(
                    f"{reason}, and asks to wait {wait:.0f} s, longer than "
                    f"endpoint.http.longest_wait={http.longest_wait:g}",
                    body,
                )
            pause = max(random.uniform(0, backoff(attempt, http)), wait or 0.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(failed.wait(), pause)
                raise self._error(reason, body)  # another has failed for good
            attempt += 1

    async def _once(self, client: httpx2.AsyncClient, body: Body) -> Any:
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
            raise self._error(self._shown(str(error)), body) from None
        if response.status_code != 200:
            raise self._refusal(response, content, body)
        try:
            return self._parsed(self._decoded(content), body)
        except ValueError as error:
            said = f"{error}: {content.decode('utf-8', 'replace')}"
            raise _Passing(
                f"an answer that is no {self.answer}: {self._shown(said)}"
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

    def _refusal(
        self, response: httpx2.Response, content: bytes, body: Body
    ) -> Exception:
        """What to raise for another status than 200."""
        status, said = response.status_code, self._shown(content)
        if status in _PASSING or status >= 500:
            asked = response.headers.get("retry-after", "")
            return _Passing(f"status {status}: {said}", retry_after(asked))
        if 300 <= status < 400:
            to = self._shown(response.headers.get("location", ""))
            return self._error(
                f"status {status}: it redirects to {to}, where neither texts nor a "
                "key are sent; name the right address",
                body,
            )
        if status in (400, 413, 422) and _NO_ROOM.search(said):
            longest, asked = _LONGEST.search(said), body.get("max_tokens", 0)
            if longest is None or asked < int(longest[1]):
                return NoRoomError()
            said = f"max_tokens={asked} leave no room for any prompt: lower "
            said += f"builder.max_new_tokens below {longest[1]}, the model's length"
        return self._error(f"status {status}: {said}", body)

    def _error(self, reason: str, body: Body) -> EndpointError:
        said = f"{self.field}: {self.url}: {self._about(body)}{reason}"
        if self._journal is not None:
            said += (
                f". The answers that came are kept ({self._journal.path}): the same "
                "command asks for the others alone"
            )
        return EndpointError(said)

    def _redacted(self, text: str) -> str:
        """Without the key, however it is escaped; see `_spellings`."""
        return self._spelt.sub("***", text) if self._key else text

    def _shown(self, said: str | bytes) -> str:
        """The beginning of what a server said, fit for a terminal."""
        text = said if isinstance(said, str) else said.decode("utf-8", "replace")
        return repr(self._redacted(text)[:300])


def _spellings(char: str) -> str:
    """A pattern of a character of a key, ASCII, as an echo of it may have it.

    As it is, escaped as in JSON (also in JSON within JSON), in an address or in HTML.
    Bounded, so that no text takes long to look through.
    """
    code = f"{ord(char):02x}"
    escaped = rf"\\{{1,4}}u00{code}|%{code}|&\#x0{{0,4}}{code};|&\#0{{0,4}}{ord(char)};"
    return rf"(?:\\{{0,4}}{re.escape(char)}|(?i:{escaped}))"


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


def _object(content: bytes) -> dict[str, Any]:
    answer = parse_json(content)
    if not isinstance(answer, dict):
        raise ValueError("not a JSON object")
    return answer


def _run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
