"""The link between the hosts of a run: messages, and an end that all hear of.

Messages go through the key-value store of JAX's coordination service, which runs in
the first host's process. JAX ends every host where one is not heard of for a while; a
host that ends of itself leaves a note with its reason, which the others end with.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from aprm_jax.config.errors import UserError
from aprm_jax.training.signals import Interrupted

_SILENCE = 30  # seconds without a sign of a host after which it is lost
_LOOK = 0.5  # seconds between two looks for a note
_GRACE = 5.0  # that a host has to end by itself once another has left a note
_FAREWELL = 10.0  # that a host waits at its end for the others to have read its note
_NOTES = "aprm_jax/end"
_GO_ON = "The same command goes on from the newest checkpoint, on fewer hosts too."
_MEET = (
    "Start the command on every host at about the same time; the first host's port "
    "must be free, and open to the others"
)
# What XLA, gloo, NCCL and the coordination service say where a host is gone.
_LOST = re.compile(
    r"gloo|nccl|(closed|reset) by peer|connection (refused|closed|reset)|broken pipe"
    r"|coordination|heartbeat|unavailable|barrier",
    re.I,
)


class HostsError(UserError, RuntimeError):
    """The hosts of a run do not find each other, disagree, or one of them is gone."""


class Link:
    """What this host knows of the others.

    Attributes:
      index: this host's number; the leader's is 0.
      count: how many they are.
    """

    def __init__(self, client: Any, index: int, count: int):
        self.index, self.count = index, count
        self._client = client
        self._turn, self._read = 0, 0  # messages so far; of those, all are read
        self._over = threading.Event()
        self._error: BaseException | None = None

    @classmethod
    def to_others(cls, place: dict[str, Any]) -> Link:
        """Finds them; `place` is for `jax.distributed.initialize`.

        Raises:
          HostsError: they are not found, or not all in time.
        """
        where = place.get("coordinator_address", "that the environment names")
        apart = f"the hosts of the run did not meet at the coordinator {where}"
        try:
            with _last_word(f"{apart}: not all of them came. {_MEET}"):
                jax.distributed.initialize(
                    **place,
                    heartbeat_timeout_seconds=_SILENCE,
                    shutdown_timeout_seconds=int(_FAREWELL),
                )
        except (ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise HostsError(f"{apart}: {said}. {_MEET}") from error
        # As Orbax does: JAX has no other way to its key-value store.
        from jax._src import distributed

        state = distributed.global_state
        return cls(state.client, state.process_id, state.num_processes)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Runs a block that ends on all hosts if it ends on one.

        Raises:
          HostsError, Interrupted: another host ended so, or is lost.
        """
        atexit.register(self._leave)
        watcher = threading.Thread(target=self._watch, name="hosts", daemon=True)
        watcher.start()
        with _last_word(
            f"host {self.index} was ended from outside, most likely because another "
            f"host of the run is gone. {_GO_ON}"
        ):
            try:
                yield
            except BaseException as error:
                told = self._reason(error)
                self._farewell(told)
                if told is error:
                    raise
                raise told from error
            self._over.set()
            watcher.join()
            jax.distributed.shutdown()

    def exchange(self, what: str, value: Any, patience: float | None) -> list[Any]:
        """What each host gives, by host; see `hosts.exchange`."""
        turn = self._next()
        self._set(turn, what, value)
        found = [self._get(turn, i, what, patience) for i in range(self.count)]
        # Whoever is here has read all that came before.
        if self.index == 0:
            for old in range(self._read, turn):
                self._client.key_value_delete(_key(old))
        self._read = turn
        return found

    def from_leader(self, what: str, decide: Callable[[], Any]) -> Any:
        """What the leader decides; see `hosts.from_leader`."""
        turn = self._next()
        if self.index == 0:
            self._set(turn, what, decide())
        return self._get(turn, 0, what, None)

    def _next(self) -> int:
        self._turn += 1
        return self._turn

    def _set(self, turn: int, what: str, value: Any) -> None:
        message = json.dumps([what, value])
        self._client.key_value_set(f"{_key(turn)}/{self.index}", message)

    def _get(self, turn: int, host: int, what: str, patience: float | None) -> Any:
        end = None if patience is None else time.monotonic() + patience
        while True:
            # In short waits: signals are heard between them.
            with contextlib.suppress(_NotYet), _not_yet():
                key = f"{_key(turn)}/{host}"
                message = self._client.blocking_key_value_get(key, int(1000 * _LOOK))
                theirs, value = json.loads(message)
                break
            if (note := self._note()) is not None:
                raise _told(note)
            if end is not None and time.monotonic() > end:
                raise HostsError(
                    f"host {host} has not come to {what!r} within {patience:g} s, in "
                    f"which host {self.index} waited for it. {_GO_ON}"
                )
        if theirs != what:
            raise HostsError(
                f"the hosts are out of step: host {self.index} is at {what!r}, host "
                f"{host} at {theirs!r}. Start all of them with the same command, the "
                "same version and the same data"
            )
        return value

    def _note(self) -> dict[str, Any] | None:
        """The first note of another host that has ended."""
        notes = [json.loads(text) for _, text in self._client.key_value_dir_get(_NOTES)]
        others = [note for note in notes if note["host"] != self.index]
        return min(others, key=lambda note: note["time"], default=None)

    def _watch(self) -> None:
        """Ends this process where another host ended and this one does not itself."""
        while not self._over.wait(_LOOK):
            try:
                note = self._note()
            except Exception:  # the leader is gone: JAX ends this process
                continue
            if note is None or self._over.wait(_GRACE):
                continue
            error = _told(note)
            if note["signal"]:  # it may be heard here too, between two steps
                os.kill(os.getpid(), note["signal"])
                if self._over.wait(_GRACE):
                    continue
            print(f"aprm_jax: error: {error}", file=sys.stderr)
            self._error = error
            self._say_end(error)
            self._leave()

    def _reason(self, error: BaseException) -> BaseException:
        """What to tell of an error: where it comes of another host's end, of that."""
        if not _is_of_a_loss(error):
            return error
        end = time.monotonic() + _GRACE
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                if (note := self._note()) is not None:
                    return _told(note)
            time.sleep(_LOOK)
        return HostsError(
            f"another host of the run is gone ({_in_a_line(error)}), so host "
            f"{self.index} ended too. {_GO_ON}"
        )

    def _farewell(self, error: BaseException) -> None:
        """Leaves a note, and stays until the others have ended too, or for a while."""
        self._over.set()
        self._error = error
        with contextlib.suppress(Exception):
            self._say_end(error)
            end = time.monotonic() + _FAREWELL
            while len(self._client.key_value_dir_get(_NOTES)) < self.count:
                if time.monotonic() > end:
                    return
                time.sleep(_LOOK / 5)
            jax.distributed.shutdown()  # all are here

    def _say_end(self, error: BaseException) -> None:
        received = int(error.received) if isinstance(error, Interrupted) else 0
        note = {
            "host": self.index,
            "time": time.time(),
            "signal": received,
            "message": _in_a_line(error),
        }
        self._client.key_value_set(f"{_NOTES}/{self.index}", json.dumps(note), True)

    def _leave(self) -> None:
        """At exit, after an error: JAX would wait for hosts that are gone."""
        if self._error is None:
            return
        code = getattr(self._error, "code", 1)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class _NotYet(Exception):
    """A key has no value yet."""


@contextlib.contextmanager
def _not_yet() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise _NotYet from error


def _key(turn: int) -> str:
    return f"aprm_jax/turn/{turn}"


def _told(note: dict[str, Any]) -> BaseException:
    """The end of this host that follows from another's."""
    message = f"host {note['host']} ended: {note['message']}"
    if note["signal"]:
        return Interrupted(message, signal.Signals(note["signal"]))
    return HostsError(message)


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:600]


def _is_of_a_loss(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is that a host is gone."""
    while error is not None:
        ours = isinstance(error, UserError) or not isinstance(error, Exception)
        if not ours and _LOST.search(str(error)):
            return True
        error = error.__cause__
    return False


@contextlib.contextmanager
def _last_word(why: str) -> Iterator[None]:
    """Has somebody to say why, where JAX ends this process without asking Python."""
    script = 'read -r _ || printf "aprm_jax: error: %s\\n" "$0" >&2'
    speaker = subprocess.Popen(
        ["sh", "-c", script, why], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            speaker.communicate(b"\n")
