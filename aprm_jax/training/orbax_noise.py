"""What Orbax and TensorStore print of a failed save, beside the error that they raise.

On a full disk that is hundreds of lines of tracebacks: of each write that was under way
when the first one failed. The error itself comes to whoever waits for the save.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

_WRITERS = ("async_serialize", "OCDBT")  # Orbax's task, TensorStore's error
_UNRAISABLE = "Event loop is closed"  # which a write that has no waiter any more finds


@functools.cache
def quieten() -> None:
    """Keeps it, and nothing else, off the screen, from now on."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == _UNRAISABLE):
            before(unraisable)

    sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax logs the errors that it raises, asyncio those that nobody waits for."""
    text = record.getMessage()
    lost = "never retrieved" in text and any(name in text for name in _WRITERS)
    theirs = "orbax" in record.pathname or lost
    return record.levelno < logging.ERROR or not theirs
