"""Child processes that run a module of ours, and nothing of the caller's `__main__`.

A script that starts them needs no guard, and a notebook works.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from {module} import main; main(*map(int, sys.argv[2:]))"
)


def command(module: str, *args: int) -> list[str]:
    """The command of a child that calls `main(*args)` of a module, with our path."""
    boot = _BOOT.format(module=module)
    return [sys.executable, "-c", boot, json.dumps(sys.path), *map(str, args)]


def die_with(parent: int) -> None:
    """In a child: ends it with its parent, also while a C function holds the lock.

    Linux alone does so, and it means the parent's thread that started the child; what
    reads from a pipe of the parent's ends everywhere. Ctrl-C is the parent's affair.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
