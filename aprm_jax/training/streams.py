"""Standard output and error that outlive whoever reads them.

The reader of a pipe may leave before the run ends: an ssh connection is cut, a terminal
is closed, `head` has enough. A line that nobody can see any more is no reason to lose
the work since the last checkpoint.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

# A pipe or socket whose other end is closed, and a terminal that hung up.
_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)


def outlive_readers() -> None:
    """From now on what a closed stdout or stderr cannot take is dropped in silence.

    Other errors, a full disk behind a redirection among them, are raised as before.
    Streams that are no file, as tests and notebooks set, are left as they are.
    """
    sys.stdout = _lasting(sys.stdout)
    sys.stderr = _lasting(sys.stderr)


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed before Python began
        return open(os.devnull, "w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
    except OSError:
        return stream
    stream.flush()
    raw = _Lasting(descriptor, "w", closefd=False)
    # With PYTHONUNBUFFERED text goes straight to the descriptor, as Python itself does.
    buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Lasting(io.FileIO):
    """A descriptor; once its reader is gone it leads nowhere, for children too."""

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return super().write(data)
