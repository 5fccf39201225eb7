"""What of a run may be computed at the same time: stages, and parts of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from aprm_jax.config import Config, flat, for_stage, jobs
from aprm_jax.config.job import Needs


@dataclasses.dataclass(frozen=True)
class Task:
    """What one process computes at a time.

    Attributes:
      stage: of the run.
      job: that the stage runs.
      piece: a part of it, kept for the stage; "" is the stage itself, which reads its
        pieces and computes the rest.
    """

    stage: str
    job: str
    piece: str = ""


class Schedule:
    """Tasks, and what each waits for: it depends on the config alone.

    A stage waits for those that it starts from; where its job does not run beside
    others (`Job.beside`), for all before it, and all behind it wait for it.

    Args:
      config: of the whole run.
      chosen: (stage, job) of the stages that run, in order.
    """

    def __init__(self, config: Config, chosen: Sequence[tuple[str, str]]):
        self._before = _waits(config, chosen)
        self._order = {task: k for k, task in enumerate(self._before)}
        self._chain = _chains(config, self._before)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All of them, each behind what it waits for."""
        return tuple(self._before)

    def ready(self, open_: set[Task], running: set[Task]) -> list[Task]:
        """Of the tasks that are not done yet those that may start, the next one first.

        First is what the longest work waits for, itself included.

        Args:
          open_: all that are not done.
          running: those of them that have started.
        """
        free = [t for t in open_ - running if not open_ & set(self._before[t])]
        return sorted(free, key=lambda t: (-self._chain[t], self._order[t]))

    def alone(self, task: Task) -> bool:
        """Whether all others wait for it, or it for them."""
        related = self._all_before(task) | {
            t for t in self._before if task in self._all_before(t)
        }
        return len(related) == len(self._before) - 1

    def width(self) -> int:
        """So many tasks can be under way at once, if all take as long."""
        level: dict[Task, int] = {}
        for task, before in self._before.items():
            level[task] = 1 + max((level[t] for t in before), default=0)
        counts = list(level.values())
        return max((counts.count(k) for k in set(counts)), default=0)

    def _all_before(self, task: Task) -> set[Task]:
        found: set[Task] = set()
        new = set(self._before[task])
        while new:
            found |= new
            new = {t for other in new for t in self._before[other]} - found
        return found


def waves(pieces: Mapping[str, Needs]) -> list[list[str]]:
    """A stage's pieces in lists: what each waits for is in those before its own."""
    level: dict[str, int] = {}
    for name, needs in pieces.items():
        level[name] = 1 + max((level[other] for other in needs.pieces), default=-1)
    deepest = max(level.values(), default=-1)
    return [[n for n, at in level.items() if at == k] for k in range(deepest + 1)]


def _waits(
    config: Config, chosen: Sequence[tuple[str, str]]
) -> dict[Task, tuple[Task, ...]]:
    out: dict[Task, tuple[Task, ...]] = {}
    whole: dict[str, Task] = {}
    fence: tuple[Task, ...] = ()  # all that follows waits for these

    def of(stages: Iterable[str]) -> tuple[Task, ...]:
        named = {source.partition("/")[0] for source in stages}
        return (*fence, *(task for stage, task in whole.items() if stage in named))

    for stage, name in chosen:
        job, read = jobs()[name], for_stage(config, stage)
        pieces: dict[str, Task] = {}
        for piece, needs in job.pieces(read).items():
            pieces[piece] = Task(stage, name, piece)
            earlier = (pieces[other] for other in needs.pieces)
            out[pieces[piece]] = (*of(needs.stages), *earlier)
        before = tuple(whole.values())
        if job.beside:
            before = of(source for _, source in job.sources(read))
        whole[stage] = Task(stage, name)
        out[whole[stage]] = (*before, *pieces.values())
        if not job.beside:
            fence = (whole[stage],)
    return out


def _chains(config: Config, before: Mapping[Task, Sequence[Task]]) -> dict[Task, float]:
    """How long it takes from a task's start until all is done, by rough efforts."""
    out = dict.fromkeys(before, 0.0)
    for task in reversed(list(before)):
        job, read = jobs()[task.job], for_stage(config, task.stage)
        updates = flat(read)[job.length] if job.length else 100
        out[task] += job.effort * updates
        for other in before[task]:
            out[other] = max(out[other], out[task])
    return out
