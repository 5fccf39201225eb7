"""Where numbers go: metrics.jsonl always, TensorBoard, and W&B if asked for."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from aprm_jax.training import hosts
from aprm_jax.training.lines import LineLog, read_lines
from aprm_jax.training.masked import MeanMetric
from aprm_jax.training.tensorboard import TensorBoard
from aprm_jax.training.workdir import WorkdirError

FILE = "metrics.jsonl"


class Metrics:
    """Writes the scalars of a run, one line of JSON per write; the leader's alone.

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
          FileError: unwritable folder, full disk, or lines that are damaged.
          WorkdirError: W&B is asked for and missing.
        """
        workdir = pathlib.Path(workdir)
        ours = hosts.leader()
        self._wandb = _open_wandb(wandb, workdir) if wandb and ours else None
        self._lines = LineLog(workdir / FILE)
        self._lines.open(start)
        self._board = (
            TensorBoard(workdir / "tensorboard", start)
            if tensorboard and ours
            else None
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the scalars of one step; MeanMetrics are computed."""
        scalars = {name: to_scalar(value) for name, value in values.items()}
        line = {"step": step} | scalars
        text = ", ".join(f"{json.dumps(k)}: {_number(v)}" for k, v in line.items())
        self._lines.append(f"{{{text}}}")
        if self._board is not None:
            self._board.write(step, scalars)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)

    def seal(self) -> None:
        """Guards what was written so far: see `training.lines`."""
        self._lines.seal()

    def close(self) -> None:
        """Seals, flushes and closes everything; safe to call twice."""
        lines, self._lines = self._lines, LineLog(self._lines.path)
        board, self._board = self._board, None
        wandb, self._wandb = self._wandb, None
        with contextlib.ExitStack() as stack:  # each, whatever the others raise
            if wandb is not None:
                stack.callback(wandb.finish)
            if board is not None:
                stack.callback(board.close)
            stack.callback(lines.close)
            if lines.is_open:
                lines.seal()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of workdir/metrics.jsonl; an unfinished last line is left out.

    Raises:
      DamagedFileError: they are not what was written.
    """
    rows = read_lines(pathlib.Path(workdir) / FILE)
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


def _open_wandb(project: str, workdir: pathlib.Path) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise WorkdirError(
            "The config asks for Weights & Biases, which is not installed: "
            "pip install 'aprm_jax[wandb]', or leave the field empty."
        ) from error
    return wandb.init(project=project, dir=str(workdir), resume="allow")
