"""Where numbers go: metrics.jsonl always, TensorBoard, and W&B if asked for."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from aprm_jax.training.masked import MeanMetric
from aprm_jax.training.workdir import WorkdirError, atomic_write

FILE = "metrics.jsonl"


class Metrics:
    """Writes the scalars of a run, one line of JSON per write.

    In the JSON a NaN is null and an infinity 1e999, so that strict readers can read
    it; `read_metrics` gives all three back as they were written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        tensorboard: bool = True,
        wandb: str | None = None,
        *,
        start: int = 0,
    ) -> None:
        """Opens the files of `workdir`; lines of steps after `start` are dropped.

        Args:
          workdir: an existing folder.
          tensorboard: write TensorBoard files into workdir/tensorboard.
          wandb: the project to log to, or None.
          start: the step that the run resumes from.

        Raises:
          WorkdirError: unwritable folder, full disk, W&B asked for and missing.
        """
        self._path = pathlib.Path(workdir) / FILE
        self.truncate_after(start)
        self._wandb = _open_wandb(wandb, self._path.parent) if wandb else None
        self._board = None
        if tensorboard:
            self._board = _open_tensorboard(self._path.parent, start)
        try:
            self._file = self._path.open("a")
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the scalars of one step; MeanMetrics are computed."""
        scalars = {name: to_scalar(value) for name, value in values.items()}
        line = {"step": step} | scalars
        text = ", ".join(f"{json.dumps(k)}: {_number(v)}" for k, v in line.items())
        try:
            self._file.write(f"{{{text}}}\n")
            self._file.flush()
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        if self._board is not None:
            for name, value in scalars.items():
                if math.isfinite(value):  # a mean over nothing has no point to draw
                    self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)

    def truncate_after(self, step: int) -> None:
        """Drops the lines of later steps, and one that a kill left unfinished."""
        if not self._path.exists():
            return
        lines = self._path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            atomic_write(self._path, b"".join(kept))

    def close(self) -> None:
        """Flushes and closes everything; safe to call twice."""
        try:
            self._file.close()
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
        self._board = self._wandb = None


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of workdir/metrics.jsonl; an unfinished last line is left out."""
    path = pathlib.Path(workdir) / FILE
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]


def to_scalar(value: Any) -> float | int:
    """A Python number from a number, a 0-d array or a MeanMetric."""
    if isinstance(value, MeanMetric):
        return value.compute()
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"A metric is one number, not an array of {array.shape}.")
    # The item of a float32 is the same number in double precision: it round-trips.
    item = array.astype(np.float32).item() if array.dtype.kind == "V" else array.item()
    return int(item) if isinstance(item, bool) else item


def _number(value: float | int) -> str:
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


def _step_of(line: bytes) -> int | float:
    """The line's step; infinite where the line is unfinished or unreadable."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _open_tensorboard(workdir: pathlib.Path, start: int) -> Any:
    from tensorboardX import SummaryWriter  # slow to import, and optional

    # purge_step: TensorBoard forgets what a killed run had written past the restore.
    purge = start + 1 if start else None
    return SummaryWriter(str(workdir / "tensorboard"), purge_step=purge, flush_secs=30)


def _open_wandb(project: str, workdir: pathlib.Path) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WorkdirError(
            "The config asks for Weights & Biases, which is not installed: "
            "pip install 'aprm_jax[wandb]', or leave the field empty."
        ) from error
    return wandb.init(project=project, dir=str(workdir), resume="allow")


def _cannot_write(path: pathlib.Path, error: OSError) -> WorkdirError:
    return WorkdirError(
        f"Cannot write {path}: {error.strerror or error}. Is the folder writable, and "
        "is there space left on the disk? The same command goes on from the newest "
        "checkpoint."
    )
