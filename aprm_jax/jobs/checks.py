"""What a run needs is there: its files, the models it starts from, rows that fit.

All of it is looked at before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aprm_jax.config import Config, ConfigError, Job, is_made_up, nearest
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled_texts import split_source
from aprm_jax.data.rows import TooLongError
from aprm_jax.data.sources import source_path
from aprm_jax.jobs.backbones import BACKBONE, ENDPOINT
from aprm_jax.jobs.context import Context, log
from aprm_jax.jobs.solvers import check_endpoint
from aprm_jax.models.io import SPEC_FILE
from aprm_jax.tasks.questions import reader_of

_PROBED = 256  # training problems whose lengths are looked at


def check_files(config: Config) -> None:
    """The data files that the config names exist.

    Raises:
      DataError: names the field and the file.
    """
    c = config.domain
    if c.name == "questions":
        if not c.train:
            raise DataError(
                "domain.train is empty: give a JSONL or CSV file of questions and "
                "answers, or READER:SOURCE"
            )
        for field in ("train", "test"):
            _check_exists(f"domain.{field}", reader_of(getattr(c, field))[1])
    if c.name != "gsm8k":
        return
    for field in ("train", "test", "model_solutions", "processbench"):
        source = getattr(c, field)
        if not source and field in ("train", "test"):
            raise DataError(
                f"domain.{field} is empty: give a JSONL file, datasets:NAME or "
                "tfds:NAME"
            )
        _check_exists(f"domain.{field}", source)


def check_labelled_files(config: Config) -> None:
    """The labelled solutions and the scores that the config names exist.

    Raises:
      DataError: names the field and the file.
    """
    c = config
    searched = c.prm.negatives == "values"  # such data are stages' own
    named = [("prm.data", entry) for entry in (() if searched else c.prm.data)]
    if c.domain.name == "labelled":
        named.append(("domain.train", c.domain.train))
        for entry in c.evaluate.sets:
            named.append(("evaluate.sets", entry.partition("=")[2]))
    for field, entry in named:
        _, source = split_source(entry, field)
        _check_exists(field, source)
    for entry in c.evaluate.scores:
        path = entry.partition("=")[2]
        if not Path(path).exists():
            raise DataError(f"evaluate.scores: {path}: no such file or folder")


def check_made_up(config: Config) -> None:
    """Nothing that a config file made up for `runlocal` is measured beside real data.

    Raises:
      DataError: names the field.
    """
    c = config
    others = {
        "domain.test": [c.domain.test],
        "domain.model_solutions": [c.domain.model_solutions],
        "domain.processbench": [c.domain.processbench],
        "prm.data": list(c.prm.data),
        "evaluate.sets": list(c.evaluate.sets),
    }
    if c.domain.name == "arithmetic" or is_made_up(c.domain.train):
        return
    for field, entries in others.items():
        made = next((entry for entry in entries if is_made_up(entry)), None)
        if made is not None:
            raise DataError(
                f"{field}: {made} was made up for the config's runlocal, and "
                f"domain.train is not: name your own, or set {field} to nothing"
            )


def _check_exists(field: str, source: str) -> None:
    path = source_path(source) if source else None
    if path is not None and not path.exists():
        raise DataError(f"{field}: {path}: no such file")


def check_judged(contexts: Sequence[tuple[Context, Job]]) -> None:
    """There is an oracle where new steps are judged: labels say nothing of them.

    Raises:
      ConfigError: names the stage and what would be right.
    """
    for context, job in contexts:
        c = context.config
        if job.judges(c) and c.domain.name == "labelled" and c.domain.oracle != "text":
            raise ConfigError(
                f"stage {context.stage!r}: job={job.name} needs an oracle that judges "
                "new steps, and domain.name='labelled' has labels alone: set "
                "domain.oracle='text' for what nobody labelled, or name another domain"
            )


def check_sources(contexts: Sequence[tuple[Context, Job]]) -> None:
    """Each model that a stage starts from is an earlier stage's, a folder, a server.

    Raises:
      ConfigError: names the field and what could have been meant.
    """
    before: list[str] = []
    for context, job in contexts:
        for field, source in job.sources(context.config):
            if source == ENDPOINT:
                check_endpoint(context.config, field, job.name)
                continue
            folders = (context.root / source / "model", Path(source))
            found = any((path / SPEC_FILE).is_file() for path in folders)
            found |= source == BACKBONE  # `Context.load` says what it needs
            found |= not job.needs and source.partition("/")[0] in before
            if source not in before and not found:
                what, known = "an earlier stage", before
                if not job.needs:  # most often of a run that is over
                    what, known = "a model that is finished", _models(context.root)
                raise ConfigError(
                    f"stage {context.stage!r}: {field}={source!r} is neither {what} "
                    f"({', '.join(known) or 'there is none'}) nor a model's folder."
                    f"{nearest(source, known)}"
                )
        before.append(context.stage)


def _models(root: Path) -> list[str]:
    """What stages have saved: "aprm", "aprm/generator"."""
    folders = root.glob(f"**/model/{SPEC_FILE}")
    return sorted(str(path.parents[1].relative_to(root)) for path in folders)


def check_problems(contexts: Sequence[tuple[Context, Job]]) -> None:
    """Reads the data, checks the splits, and looks at how long the solutions are.

    Raises:
      DataError: a file cannot be used.
      ConfigError: see the jobs' own checks.
      TooLongError: most training solutions do not fit the longest bucket.
    """
    measured: list[str] = []
    for context, job in contexts:
        if "problems" not in job.needs:
            continue
        setting = f"{context.config.builder}{context.config.domain}"
        if setting not in measured:  # most stages share one
            measured.append(setting)
            _check_lengths(context)
        job.check_data(context)


def _check_lengths(context: Context) -> None:
    builder = context.builder
    steps = context.config.builder.max_steps
    problems = [context.domain.train(i) for i in range(_PROBED)]
    lengths = [
        max(
            len(builder.step(p.question, p.steps[:k], s)) for k, s in enumerate(p.steps)
        )
        for p in problems
    ]
    most = builder.buckets[-1]
    long = sum(n > most for n in lengths)
    labelled = context.config.domain.name == "labelled"  # whose rows branch
    cut = sum(len(p.steps) > steps for p in problems)
    if 2 * long > len(lengths):
        raise TooLongError(
            f"{long} of {len(lengths)} training problems have a step that, with the "
            f"lines it sees, does not fit the longest bucket: up to {max(lengths)} "
            f"tokens for {most}. Raise builder.buckets, or set a smaller "
            "builder.window."
        )
    if long:
        lost = "lose the steps beyond" if labelled else "are left out"
        log.warning(
            "%s: %d of %d training problems are longer than %d tokens and %s "
            "(builder.buckets)",
            context.domain.name,
            long,
            len(lengths),
            most,
            lost,
        )
    if 2 * cut > len(problems) and not labelled:
        raise TooLongError(
            f"{cut} of {len(problems)} training problems have more than {steps} steps; "
            "raise builder.max_steps"
        )
