"""Answers that were paid for, kept on disk: a request is never sent twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aprm_jax.files import cannot_write, sealed, unsealed

log = logging.getLogger("aprm_jax")

FILE = "endpoint.jsonl"  # in a stage's folder, whoever is asked: requests tell apart


class Journal:
    """A file of JSON lines that only grows: a request's digest, and what came back.

    Each line carries a SHA-256 of its own. One that a kill cut short, or that is not
    what was written, counts as missing. One process writes at a time.

    Args:
      path: the file; made with the first answer.
    """

    def __init__(self, path: Path):
        self.path = path
        self._answers: dict[str, Any] = {}
        content = path.read_bytes() if path.exists() else b""
        self._torn = not content.endswith(b"\n") and bool(content)
        damaged = 0
        for line in content.splitlines():
            entry = unsealed(line)
            if entry is None or not isinstance(entry.get("request"), str):
                damaged += 1
            else:
                self._answers[entry["request"]] = entry.get("answer")
        if damaged:
            log.warning(
                "%s: %d answers are not what was written; they are asked for again",
                path,
                damaged,
            )

    @staticmethod
    def name(request: Mapping[str, Any]) -> str:
        """The digest that a request, of JSON values, is known by."""
        text = json.dumps(request, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, name: str) -> Any:
        """The answer to a request, by its `name`; None if there is none."""
        return self._answers.get(name)

    def add(self, name: str, answer: Any) -> None:
        """Keeps an answer, of JSON values: on the disk before this returns.

        Raises:
          FileError: the file cannot be written.
        """
        line = json.dumps(sealed({"request": name, "answer": answer})) + "\n"
        try:
            with self.path.open("ab") as file:
                file.write(b"\n" * self._torn + line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._torn = False
        self._answers[name] = answer
