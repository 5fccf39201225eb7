"""What a start in a run's folder may change of the run's config, and what that redoes.

A stage depends on the fields that its job reads (those of a server where it asks one),
on what is in the files that they name, and on the stages that it starts from. Where
none has changed its results stay. An
evaluation whose inputs changed is computed again, a training stage may go on to more
updates while nothing was trained from it, and whatever else would change results that
are there is refused.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.config import (
    Config,
    flat,
    for_stage,
    frozen,
    is_read_by,
    jobs,
    stages,
    with_fields,
)
from aprm_jax.config.job import Job
from aprm_jax.jobs import of_run
from aprm_jax.jobs.data_record import (
    Record,
    data_differences,
    look,
    read_record,
    write_record,
)
from aprm_jax.jobs.given_files import given_to
from aprm_jax.jobs.solvers import asks_endpoint
from aprm_jax.training.workdir import (
    DONE,
    WorkdirError,
    differences,
    is_done,
    listed,
    write_config,
)

# What changes nothing that is computed, or, as the mesh, nothing but its rounding.
FREE = (
    "job",
    "name",
    "stages",
    "overrides",
    "log_every",
    "processes",
    "compilation_cache",
    "checkpoint",
    "metrics",
    "export",
    "report",
    "score",
    "select",
    "mesh",
    "domain.max_bad_share",
    "endpoint.http",
    "endpoint.key_variable",
)
# What is read where a server writes solutions, and nowhere else.
_OF_SERVER = ("solver.endpoint", "endpoint")
_PROMPT = "prompt.solver"  # likewise; and where a language model does
ASIDE = "old"  # holds what was computed before, until it is put aside again
_OF_THE_RUN = (
    "report.html",
    "results.json",
    "summary.json",
)  # results in the run's own folder

Differences = list[tuple[str, Any, Any]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a start does to a run's folder before its stages go on.

    Attributes:
      root: the folder.
      before: the config that is there; None for a new run.
      after: the config from now on.
      again: stages that are computed again.
      longer: training stages that go on to more updates.
      known: what data files said at earlier starts.
      data: what they say now; None where nothing is read from them.
    """

    root: Path
    before: Config | None
    after: Config
    again: tuple[str, ...] = ()
    longer: tuple[str, ...] = ()
    known: Record = dataclasses.field(default_factory=dict)
    data: Record | None = None

    @property
    def is_new(self) -> bool:
        """Whether the folder held no run."""
        return self.before is None

    @property
    def kept(self) -> Config:
        """The config that the run has from now on.

        What a command asks of a job that reads what the run has made, as `score`, is
        asked once: the next command begins with the run's own settings again.
        """
        return self.after if self.before is None else _kept(self.before, self.after)

    def put_tokenizer_aside(self) -> None:
        """Where it is of other texts; `plan` has seen that nothing is trained on it."""
        if self.before is not None:
            changed = differences(flat(self.before), flat(self.after), FREE)
            read = [name for name, _, _ in (*changed, *self._other_texts())]
            if any(_is_of_problems(name.partition(",")[0]) for name in read):
                _put_aside(self.root, ("tokenizer",))

    def _other_texts(self) -> Differences:
        sft = jobs()["sft"]
        given = given_to(self.after, sft)
        return data_differences(self.known, self.data or {}, given, sft)

    def keep_new_data(self) -> None:
        """Records the files that nothing was known of, before anything is trained."""
        if self.data is not None and not self.data.keys() <= self.known.keys():
            write_record(self.root, {**self.data, **self.known})

    def carry_out(self, code_version: str) -> Iterator[str]:
        """Puts aside what no longer holds, then keeps the config; says what it did."""
        job_of = dict(stages(self.after))
        for stage in (*self.again, *self.longer):
            job = jobs()[job_of[stage]]
            _put_aside(self.root / stage, (*job.outputs, DONE))
            verb = "goes on to more updates" if stage in self.longer else "starts anew"
            yield f"{stage}: {verb}; what it had made is in {stage}/{ASIDE}"
            if job.outputs:
                _put_aside(self.root, _OF_THE_RUN)
        if self.before is not None and _differ(self.before, self.kept):
            write_config(self.root, dataclasses.asdict(self.kept), code_version)
        if self.data is not None and self.data:
            write_record(self.root, {**self.known, **self.data})


def plan(config: Config, root: Path, reads_data: bool = True) -> Plan:
    """What a start of `config` in the folder `root` would do; nothing is written.

    Args:
      config: of the whole run.
      root: the workdir.
      reads_data: whether the start is of all stages: a job that reads what a run has
        made, as `export`, may be asked for long after its data have changed.

    Raises:
      WorkdirError: it would change results that are there, or other data would; names
        the fields, and the files.
      DamagedFileError: nobody knows what the data were.
    """
    known = read_record(root) if reads_data else {}
    data = look(config, known) if reads_data else None
    if not (root / of_run.FILE).exists():
        return Plan(root, None, config, known=known, data=data)
    before = frozen(of_run.get_config(str(root)))
    config, asked = _kept(before, config), config
    _check_stages(before, config, root)
    again: list[str] = []
    longer: list[str] = []
    lost: list[str] = []
    why: dict[str, tuple[str, Any, Any]] = {}
    files: dict[str, tuple[str, Any, Any]] = {}

    def changed_of(name: str, job: Job) -> Differences:
        """The fields that differ among those that a stage's results depend on."""
        ends = () if is_done(root / name) else job.ends
        return [d for d in _changed(before, config, name, job) if d[0] not in ends]

    def other_data(name: str, job: Job) -> Differences:
        """As `changed_of`, but of what is in the files that a stage reads."""
        given = given_to(for_stage(config, name), job)
        return data_differences(known, data or {}, given, job)

    for name, job_name in stages(config):
        job = jobs()[job_name]
        if job.redone == "always" or not _begun(root / name, job):
            continue
        changed = changed_of(name, job) + other_data(name, job)
        moved = _sources(config, name, job) & {*again, *longer}
        if not changed and not moved:
            continue
        if job.redone != "never":
            again.append(name)
        elif not moved and _is_longer(changed, job):
            longer.append(name)
        else:
            lost.append(name)
            for stage in (name, *moved):
                of_stage = jobs()[dict(stages(config))[stage]]
                for difference in changed_of(stage, of_stage):
                    why[difference[0]] = difference
                for difference in other_data(stage, of_stage):
                    files[difference[0]] = difference
    if lost:
        raise _refusal(root, lost, list(why.values()), list(files.values()))
    return Plan(root, before, asked, tuple(again), tuple(longer), known, data)


def _check_stages(before: Config, after: Config, root: Path) -> None:
    """Stages may be added; one that has results keeps its name and its job."""
    now = stages(after)
    lost = [
        name
        for name, job in stages(before)
        if (name, job) not in now and _begun(root / name, jobs()[job])
    ]
    if lost:
        change = ("stages", list(before.stages), list(after.stages))
        raise _refusal(root, lost, [change], [])


def _changed(before: Config, after: Config, stage: str, job: Job) -> Differences:
    """The fields that differ among those that a stage's job reads."""
    configs = [for_stage(config, stage) for config in (before, after)]
    free = [name for name in FREE if name != job.group]
    if not any(asks_endpoint(config, job) for config in configs):
        free += _OF_SERVER
        prompted = any(config.solver.backbone for config in configs)
        free += () if prompted else (_PROMPT,)
    old, new = map(flat, configs)
    return [d for d in differences(old, new, free) if is_read_by(job, d[0])]


def _kept(before: Config, after: Config) -> Config:
    """The config without what is asked once, of a job that is no stage of the run."""
    job = jobs().get(after.job)
    if job is None or job.needs or after.job in dict(stages(after)).values():
        return after
    once = (job.group, "domain.max_bad_share", *job.once)
    fields = {
        name: value
        for name, value in flat(before).items()
        if any(f"{name}.".startswith(f"{field}.") for field in once)
    }
    return with_fields(after, fields)


def _differ(before: Config, after: Config) -> bool:
    return bool(differences(flat(before), flat(after), ("job",)))


def _sources(config: Config, stage: str, job: Job) -> set[str]:
    """The stages that a stage starts from, and what else it names."""
    named = job.sources(for_stage(config, stage))
    return {source.partition("/")[0] for _, source in named}


def _is_longer(changed: Differences, job: Job) -> bool:
    """Whether more updates are all that has changed."""
    return all(name == job.length and new > old for name, old, new in changed)


def _is_of_problems(name: str) -> bool:
    """Whether a field decides which texts a tokenizer was trained on."""
    return name == "seed" or (
        name.startswith("domain.") and is_read_by(jobs()["sft"], name)
    )


def _begun(directory: Path, job: Job) -> bool:
    """Whether a stage has made anything that a later start would go on from."""
    kept = [directory / name for name in (*job.outputs, "checkpoints")]
    return is_done(directory) or any(
        path.is_file() or (path.is_dir() and any(path.iterdir())) for path in kept
    )


def _put_aside(directory: Path, names: Sequence[str]) -> None:
    aside = directory / ASIDE
    for path in (directory / name for name in names):
        if not path.exists():
            continue
        aside.mkdir(exist_ok=True)
        target = aside / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)


def _refusal(
    root: Path, lost: Sequence[str], changed: Differences, files: Differences
) -> WorkdirError:
    said = f"The workdir {root} has results of {', '.join(lost)} with "
    if changed:
        said += (
            f"another config:\n{listed(changed)}"
            "Choose another folder with --workdir=DIR, or take the run's own config: "
            "leave --config, and these fields, out."
        )
    if files:
        said += "\nand with " if changed else ""
        said += (
            f"other data:\n{listed(files)}"
            "Choose another folder with --workdir=DIR to train on them, or put these "
            "files back as they were."
        )
    return WorkdirError(said)
