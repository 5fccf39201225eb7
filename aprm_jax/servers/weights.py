"""New weights for a vLLM server, from folders that it can read.

It has to be started for that, since who may send it weights may send it any: see
docs/rl.md. What it is asked here is an operator's, not a user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import Any

import httpx2

from aprm_jax.config.groups import HttpConfig
from aprm_jax.servers.client import Body, Client, EndpointError

# What a server says to a request that it has done already, as after a retry.
_LOADED = re.compile(r"already been loaded", re.IGNORECASE)
_GONE = re.compile(r"cannot be found|not found", re.IGNORECASE)


class WeightServer:
    """A vLLM server whose weights change.

    Args:
      url: its address, up to and with its version, as http://localhost:8000/v1.
      key: goes into the header of each request; "" for none.
      http: limits; loading counts as an answer.
    """

    def __init__(self, url: str, key: str, http: HttpConfig):
        self._versioned = url.rstrip("/")
        self._root = self._versioned.removesuffix("/v1")
        self._key, self._http = key, http

    def load_adapter(self, name: str, folder: str | os.PathLike[str]) -> None:
        """Serves an adapter of PEFT beside the base, as a model of its own.

        Args:
          name: what it is asked by; of one folder, for a server keeps what it read.
          folder: it, by a path that is the server's too.

        Raises:
          EndpointError: the server refuses.
        """
        body = {"lora_name": name, "lora_path": str(Path(folder).absolute())}
        self._ask(f"{self._versioned}/load_lora_adapter", body, _LOADED)

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; one that it does not have is forgotten.

        Raises:
          EndpointError: the server refuses.
        """
        body = {"lora_name": name}
        self._ask(f"{self._versioned}/unload_lora_adapter", body, _GONE)

    def reload(self) -> None:
        """Reads its folder anew, and forgets what it computed with the weights before.

        Raises:
          EndpointError: the server refuses.
        """
        self._ask(f"{self._root}/collective_rpc", {"method": "reload_weights"})
        self._ask(f"{self._root}/reset_prefix_cache", {})

    def _ask(self, url: str, body: Body, done: re.Pattern[str] | None = None) -> None:
        _Told(url, self._key, self._http, done).run({"": body})


class _Done(Exception):
    """A refusal of what is done already."""


class _Told(Client[None]):
    """Tells a server what to do; any answer of status 200 says that it is done.

    Args:
      url, key, http: see `Client`.
      done: in a refusal it says so too; None for never.
    """

    field = "solver.endpoint"
    answer = "answer"

    def __init__(
        self, url: str, key: str, http: HttpConfig, done: re.Pattern[str] | None
    ):
        super().__init__(url, key, http, None)
        self._done = done

    async def _found(
        self, client: httpx2.AsyncClient, body: Body, failed: asyncio.Event
    ) -> None:
        with contextlib.suppress(_Done):
            await self._sent(client, body, failed)

    def _decoded(self, content: bytes) -> Any:
        return content  # some say it in words, some say nothing

    def _parsed(self, content: Any, body: Body) -> None:
        del content, body

    def _refusal(
        self, response: httpx2.Response, content: bytes, body: Body
    ) -> Exception:
        error = super()._refusal(response, content, body)
        if self._done is not None and self._done.search(str(error)):
            return _Done()
        if response.status_code in (404, 405) and isinstance(error, EndpointError):
            return self._error(
                f"status {response.status_code}: {self._shown(content)}. If the server "
                "takes no new weights: docs/rl.md says how vLLM is started so that it "
                "does",
                body,
            )
        return error
