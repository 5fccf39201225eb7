"""`prepare`: data sets as cleaned, split and tokenised rows."""

from __future__ import annotations

import dataclasses

from aprm_jax.config.job import Job, Lazy
from aprm_jax.config.setting import setting


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Data sets that are read once, cleaned, split and tokenised."""

    sources: tuple[str, ...] = setting(
        (),
        '"READER:SOURCE" each: one of data/readers, and a path or name ("" = the '
        "hub's)",
    )
    against: tuple[str, ...] = setting(
        (), "the same: evaluation sets whose questions must stay out"
    )
    contaminated: str = setting(
        "drop", "what becomes of what overlaps them", choices=("drop", "refuse")
    )
    ngram: int = setting(
        10, "words of the n-grams that two questions may share", least=1
    )
    max_overlap: float = setting(
        0.5, "share of common n-grams that is an overlap", above=0, most=1
    )
    label: str = setting(
        "soft",
        '"soft" = as the source says',
        choices=("hard", "soft", "three_class"),
    )
    dev_share: float = setting(
        0.02, 'share of the questions in the split "dev"', least=0, below=1
    )
    max_tokens: int = setting(
        0, "longer solutions are left out; 0 = the longest bucket", least=0
    )
    rows_per_file: int = setting(
        16384, "solutions of one ArrayRecord file, at most", least=1
    )


JOB = Job(
    name="prepare",
    place=0,
    purpose="read data sets once: clean, split and tokenise them",
    group="prepare",
    settings=PrepareConfig,
    run=Lazy("prepare:run"),
    check=Lazy("prepare:check"),
    needs=("problems",),
    given=("prepare.sources", "prepare.against"),
    outputs=("prepared",),
)
