"""Addresses of servers in a config: what may stand in one, and what never does.

http://localhost:8000/score                          our protocol
https://prm.example.com/score#PRM_KEY                likewise; the key is in $PRM_KEY
pooling:http://localhost:8000                        vLLM's; it has one model
pooling:Qwen/Qwen2.5-Math-PRM-7B@http://host:8000    of that name there
Qwen/Qwen2.5-Math-1.5B-Instruct@http://host:8000/v1  of a solver, in Python alone

Configs are kept and shown, so that an address holds no secret: what follows # is the
name of the environment variable that does.
"""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from aprm_jax.config.fields import ConfigError, flat
from aprm_jax.config.setting import items_of

POOLING = "pooling"  # the protocol of vLLM, see `verifiers.served`
_HTTP = ("http://", "https://")
_VARIABLE = re.compile(r"([A-Z0-9_]+_)?(KEY|TOKEN)")


@dataclasses.dataclass(frozen=True)
class Address:
    """A server that scores steps, or writes them.

    Attributes:
      url: where it is; no user, no query, no fragment.
      pooling: whether it speaks vLLM's pooling API; else ours.
      model: its name there; "" for the only one.
      key_variable: environment variable with the key; "" for none.
    """

    url: str
    pooling: bool = False
    model: str = ""
    key_variable: str = ""


def is_address(name: str) -> bool:
    """Whether a verifier's name is an address, be it right or wrong."""
    return name.startswith((*_HTTP, f"{POOLING}:"))


def read_address(name: str, field: str) -> Address:
    """What an address says.

    Args:
      name: that `is_address`.
      field: for messages, which never tell what could be a secret.

    Raises:
      ConfigError: it is none; says what one is.
    """
    pooling = name.startswith(f"{POOLING}:")
    rest, model = name.removeprefix(f"{POOLING}:") if pooling else name, ""
    if pooling and not rest.startswith(_HTTP):
        model, _, rest = rest.partition("@")
    url, variable = _url(rest, field)
    return Address(url, pooling, model, variable)


def is_solver_address(name: str) -> bool:
    """Whether a solver's name is an address, be it right or wrong."""
    return name.startswith(_HTTP) or any(f"@{scheme}" in name for scheme in _HTTP)


def read_solver_address(name: str, field: str) -> Address:
    """What the address of a solver says; `read_address` has the arguments.

    Raises:
      ConfigError: it is none, or does not name a model; says what one is.
    """
    model, _, rest = ("", "", name) if name.startswith(_HTTP) else name.partition("@")
    if not model:
        raise ConfigError(
            f"{field}: a server is asked for a model by its name: "
            "MODEL@http://HOST:PORT/v1, with #API_KEY behind it where the "
            "environment variable API_KEY holds a key"
        )
    url, variable = _url(rest, field)
    return Address(url, model=model, key_variable=variable)


def _url(rest: str, field: str) -> tuple[str, str]:
    """The URL of an address, and the variable that holds its key."""
    url, mark, variable = rest.partition("#")
    if mark and not _VARIABLE.fullmatch(variable):
        raise ConfigError(
            f"{field}: after the # of an address stands the name of the environment "
            "variable that holds its key, in capitals, and it ends in KEY or TOKEN; "
            "never the key itself"
        )
    check_url(url, field, "a path")
    return url, variable


def check_url(url: str, field: str, ends: str, key_field: str = "") -> None:
    """Whether this is an address of a server, and holds nothing secret.

    Args:
      url: it.
      field: what holds it, for messages.
      ends: what follows the host, likewise.
      key_field: where the name of a key's variable stands; "" for behind a #.

    Raises:
      ConfigError: it is none.
    """
    right = f"http:// or https://, a host, and {ends}"
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable &= parts.port != 0  # reading it may raise too
    except ValueError:
        raise ConfigError(f"{field} is no address: {right}") from None
    if "@" in url or parts.query or parts.fragment:
        where = f"in {key_field}" if key_field else "behind a #, as #PRM_KEY"
        raise ConfigError(
            f"{field} holds more than an address (a password, or what follows "
            f"? or #): name the variable that holds a key {where}"
        )
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{field} is {right}, not {url!r}")


def addresses_in(group: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """(field, address) of all that stand in a group of settings.

    Args:
      group: a frozen group.
      prefix: its name in the config.
    """
    for field, value in flat(group).items():
        for item in items_of(value):
            if isinstance(item, str) and is_address(item):
                yield f"{prefix}.{field}", item
