"""`export`: a model for Hugging Face's libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.schema import EXPORT_FORMATS
from aprm_jax.config.setting import setting
from aprm_jax.config.typed import Config


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What is exported, how, and where to."""

    model: str = setting(
        "", '"aprm", "aprm/generator", another stage, or a model\'s folder'
    )
    format: str = setting(
        "auto", '"auto" = by the kind of model', choices=EXPORT_FORMATS
    )
    directory: str = setting("", '"" = in the stage\'s folder')
    max_shard_size: int = setting(5000, "MB of one file of weights", least=1)
    push_to_hub: str = setting("", 'user/name on the hub; "" = nowhere')
    private: bool = setting(True, "of a repository that is made")


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    yield "export.model", config.export.model


JOB = Job(
    name="export",
    place=50,
    purpose="write a model for Hugging Face's libraries, and upload it",
    group="export",
    settings=ExportConfig,
    run=Lazy("export:run"),
    check=Lazy("export:check"),
    needs=(),
    sources=_sources,
    reads=("",),
    outputs=(),
    redone="asked",
    less_memory="a smaller export.max_shard_size",
)
