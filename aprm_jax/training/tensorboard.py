"""Scalars as TensorBoard's event files, written by the thread that has them.

tensorboardX's own `SummaryWriter` hands them to a thread, where a full disk is a
traceback that nobody catches, and waits by the wall clock, which may jump.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from aprm_jax.files import cannot_write

_FLUSH_SECONDS = 30.0


class TensorBoard:
    """Writes the scalars of a run into a folder's event file."""

    def __init__(self, folder: str | os.PathLike[str], start: int = 0) -> None:
        """Opens a new event file.

        Args:
          folder: of the event files; made if it is missing.
          start: the step that the run resumes from: TensorBoard forgets what a killed
            run had written past it.

        Raises:
          FileError: unwritable folder, full disk.
        """
        # Slow to import, and optional.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        # Their classes are made when they are imported: no stub knows them.
        events: Any = event_pb2
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        self._session = events.SessionLog
        self._folder = pathlib.Path(folder)
        self._flushed = time.monotonic()
        self._writer: Any = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(os.fspath(self._folder / "events"))
            if start:
                begun = self._session(status=self._session.START)
                self._add(start + 1, session_log=begun)
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the finite ones of some scalars: others are no point to draw.

        Raises:
          FileError: the disk is full, or the like.
        """
        points = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in scalars.items()
            if math.isfinite(value)
        ]
        try:
            self._add(step, summary=self._summary(value=points))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def close(self) -> None:
        """Writes what is left; safe to call twice.

        Raises:
          FileError: see `write`.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
        except OSError as error:
            with contextlib.suppress(OSError):  # its file is still open
                writer._py_recordio_writer.close()
            raise cannot_write(self._folder, error) from error

    def _add(self, step: int, **content: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)
