"""The files that a run is given: data and models that the fields of its config name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from aprm_jax.config import Config, Job, flat, is_read_by, jobs, stages
from aprm_jax.config.roles import name_of
from aprm_jax.config.setting import items_of
from aprm_jax.data.files import data_files
from aprm_jax.data.sources import is_name
from aprm_jax.hf import gguf, hub, peft
from aprm_jax.jobs.backbones import BACKBONE, ROLES
from aprm_jax.models.io import SPEC_FILE, ModelFileError

DOMAIN_FILES = (
    "domain.train",
    "domain.test",
    "domain.model_solutions",
    "domain.processbench",
)
WEIGHTS = ("*.safetensors", f"*{gguf.ENDING}")
_PUSHED = "rl.rollouts.folder"  # weights that a stage writes for a server
_SCORES = "scores:"  # a verifier that is a file
_LIKELIHOOD = "likelihood:"  # one that is a solver


class Given(NamedTuple):
    """A file or folder that a config names.

    Attributes:
      field: that names it.
      text: what the field says, its reader, name and options with it.
      path: where it is; of a model of the hub its name.
      hub: that name, and the revision that is asked for; None for what is local.
    """

    field: str
    text: str
    path: Path
    hub: tuple[str, str | None] | None = None

    @property
    def files(self) -> list[Path]:
        """Itself, or the model or the data files of the folder, sorted."""
        if not self.path.is_dir():
            return [self.path]
        return _model_files(self.path) or sorted(data_files(self.path))


def given_to(config: Config, job: Job) -> list[Given]:
    """What a stage reads of the files that its config names and that are there.

    Of a model of ours outside of the run its description, which has the checksums of
    its files; of one of Hugging Face in a local folder all that is read of it, and of
    the base that an adapter names. Models of the hub need not be there.

    Args:
      config: of the stage.
      job: that it runs.
    """
    reads = "problems" in job.needs or job.uses_problems(config)
    problems = reads and config.domain.name != "arithmetic"
    fields = (*job.given, *(DOMAIN_FILES if problems else ()))
    made = frozenset(job.sources(config))
    return [*_named(config, fields, made), *_models(config, job)]


def given_at_all(config: Config) -> list[Given]:
    """What any job would read of the files that a config names and that are there."""
    found = _named(config, DOMAIN_FILES)
    for job in jobs().values():
        found += _named(config, job.given, frozenset(job.sources(config)))
    return found


def given_problems(config: Config) -> list[Given]:
    """The files that the problems are read from, whichever job asks for them.

    Args:
      config: where it is what one job reads of one, the files that this job reads.
    """
    return _named(config, DOMAIN_FILES)


def local_path(text: str) -> Path | None:
    """The file or folder that a source names; None where it names none that is there.

    Args:
      text: a path, `READER:SOURCE` or `NAME=READER:SOURCE`; options may follow.
    """
    named = text.partition("=")[2]
    for source in (text, text.partition(":")[2], named, named.partition(":")[2]):
        for place in _places(source):
            if place and os.path.exists(place):
                return Path(place)
    return None


def _places(source: str) -> list[str]:
    """Where a source may be, its options left out."""
    if not is_name(source):
        return [source, source.rpartition("?")[0]]
    name, _, query = source.partition(":")[2].partition("?")
    return [*parse_qs(query).get("data_files", []), name]


def _named(
    config: Config,
    fields: Iterable[str],
    made: frozenset[tuple[str, str]] = frozenset(),
) -> list[Given]:
    return [g for field in fields for g in _of_field(config, field, made)]


def _models(config: Config, job: Job) -> Iterator[Given]:
    """The models that a stage names by their folders."""
    own = {name for name, _ in stages(config)}
    group = flat(getattr(config, job.group), f"{job.group}.")
    sources = job.sources(config)
    listed = [(field, item) for field in group for item in items_of(group[field])]
    backbones = [
        (f"{role}.backbone", name_of(config, role))
        for role in ROLES
        if is_read_by(job, f"{role}.backbone")
    ]
    for field, text in dict.fromkeys((*sources, *listed, *backbones)):
        name = text.removeprefix(_LIKELIHOOD) if isinstance(text, str) else ""
        of_run = (field, text) not in backbones and name.partition("/")[0] in own
        if not name or of_run or field == _PUSHED:
            continue
        may_be_on_hub = ("verifiers", BACKBONE, *(name for name, _ in sources))
        yield from _model_of(field, text, name, field.endswith(may_be_on_hub))


def _model_of(field: str, text: str, name: str, hub_too: bool) -> Iterator[Given]:
    """A model; of an adapter its base too."""
    path = _model(name)
    if path is not None:
        yield Given(field, text, path)
        if (base := base_of(path)) is not None:
            yield from _base(field, *base)
    elif hub_too and hub.is_name(name):
        yield Given(field, text, Path(name), (name, None))


def _base(field: str, name: str, revision: str | None) -> Iterator[Given]:
    if (path := _model(name)) is not None:
        yield Given(field, name, path)
    elif hub.is_name(name):
        named = f"{name}@{revision}" if revision else name
        yield Given(field, named, Path(named), (name, revision))


def base_of(folder: Path) -> tuple[str, str | None] | None:
    """Name and revision of what the adapter in a folder is on; None for none."""
    try:
        return peft.base_of(folder)
    except ModelFileError:  # whoever opens it says so
        return None


def _model(name: str) -> Path | None:
    """What tells the weights that a name means from others; None for no local model."""
    for path in (Path(name, SPEC_FILE), Path(name, "model", SPEC_FILE)):
        if path.is_file():
            return path
    if name == gguf.SMOLLM2:
        with contextlib.suppress(ModelFileError):
            return gguf.locate(name)
    place = Path(os.path.expanduser(name.removeprefix(gguf.SCHEME)))
    whole = place.is_file() and place.suffix == gguf.ENDING
    return place if whole or (place.is_dir() and _model_files(place)) else None


def _model_files(folder: Path) -> list[Path]:
    """The files of a model of Hugging Face, sorted; none of another folder."""
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        return []
    kinds = (*WEIGHTS, *hub.FILES)
    return sorted({file for kind in kinds for file in folder.glob(kind)})


def _of_field(
    config: Config, field: str, made: frozenset[tuple[str, str]]
) -> Iterator[Given]:
    """The files of a field's values.

    `made` are the fields and texts that stand for stages of the run (`Job.sources`):
    what begins like a stage's name is a file where the field names no stage.
    """
    value = flat(config).get(field, ())  # which a job that does not read it lacks
    for text in value if isinstance(value, tuple) else (value,):
        if field.endswith(".verifiers") and not text.startswith(_SCORES):
            continue  # a model
        path = None if (field, text) in made else local_path(text)
        if path is not None:
            yield Given(field, text, path)
