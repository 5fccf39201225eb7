"""SIGTERM and Ctrl-C as requests that a job honours where it is safe to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """The job was asked to stop and has saved: exit code 128 + the signal's number.

    That is 130 after Ctrl-C and 143 after SIGTERM, as of a process that had no handler:
    a run that was stopped is no success that another command may follow.

    Like SystemExit it is no `Exception`, so nothing takes it for a failure, and a
    stage that it leaves is not complete.
    """

    def __init__(self, message: str, received: signal.Signals) -> None:
        super().__init__(128 + received)
        self.message, self.received = message, received
        self.said = False  # whether somebody has printed it

    def __str__(self) -> str:
        return self.message


class StopRequest:
    """Whether somebody asked this process to stop, and how."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a flag; a second one acts as it did before.

    Outside the main thread, where Python allows no handlers, the flag stays down.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        for name, handler in before.items():
            signal.signal(name, handler)

    with _handling(note) as before:
        yield request
    # Too late for the block to see: whoever handled signals before it shall.
    if request.signal is not None:
        os.kill(os.getpid(), request.signal)


@contextlib.contextmanager
def prompt_stop(message: str) -> Iterator[None]:
    """Turns SIGTERM and SIGINT into `Interrupted` at once.

    For stages that hold nothing worth saving: evaluation, data preparation.
    """
    received = signal.SIGTERM
    show = sys.unraisablehook

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number)
        # From here on the process is on its way out; a second signal ends it as usual.
        for name in _SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        raise Interrupted(f"Stopped by {received.name}. {message}", received)

    def ask_again(lost: sys.UnraisableHookArgs) -> None:
        """A handler may run inside a callback, of the garbage collector say, that
        swallows what it raises: the signal is then sent once more.
        """
        if lost.exc_type is not Interrupted:
            show(lost)
            return
        for name in _SIGNALS:
            signal.signal(name, leave)
        again = threading.Timer(0.05, os.kill, (os.getpid(), received))
        again.daemon = True
        again.start()

    sys.unraisablehook = ask_again
    try:
        with _handling(leave):
            yield
    finally:
        sys.unraisablehook = show


@contextlib.contextmanager
def _handling(handler) -> Iterator[dict[signal.Signals, signal.Handlers]]:
    before: dict = {}
    if threading.current_thread() is threading.main_thread():
        # None: a handler that C code installed and Python cannot put back.
        before = {name: signal.getsignal(name) or signal.SIG_DFL for name in _SIGNALS}
        for name in before:
            signal.signal(name, handler)
    try:
        yield before
    finally:
        for name, old in before.items():
            signal.signal(name, old)
