"""The problems that a config names, opened once a process."""

from __future__ import annotations

import functools
import weakref
from pathlib import Path
from typing import Any

from aprm_jax.config import Config, flat, is_read_by, jobs
from aprm_jax.data.bpe import save_tokenizer
from aprm_jax.files import check_fingerprints, seal_folder, sealed_files
from aprm_jax.models.io import written_whole
from aprm_jax.oracle.pool import EquivalencePool, PoolConfig
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.tasks.arithmetic import ArithmeticConfig, ArithmeticDomain
from aprm_jax.tasks.gsm8k import Gsm8kDomain
from aprm_jax.tasks.labelled import LabelledDomain
from aprm_jax.tasks.protocols import Domain
from aprm_jax.tasks.questions import QuestionsDomain


def open_domain(config: Config, root: Path) -> Domain:
    """The domain that a config names, read once a process.

    What it makes is kept in the workdir: a trained tokenizer, the list of bad rows.
    """
    read = jobs()["sft"]  # by a stage that evaluates no less: its problems are the same
    fields = {
        k: v for k, v in flat(config.domain).items() if is_read_by(read, f"domain.{k}")
    }
    return _open_domain(tuple(sorted(fields.items())), config.seed, root)


@functools.lru_cache(maxsize=2)
def _open_domain(fields: tuple[tuple[str, Any], ...], seed: int, root: Path) -> Domain:
    c = dict(fields)
    if c["name"] == "arithmetic":
        authors = c.get("authors", "first")  # only who reads the corpus knows them
        problems = ArithmeticConfig.of_authors(authors, c["modulus"])
        return ArithmeticDomain(seed, problems)
    saved = root / "tokenizer"
    common: dict[str, Any] = dict(
        train=c["train"],
        seed=seed,
        tokenizer=_intact(saved) if saved.is_dir() else None,
        vocab_size=c["vocab_size"],
        dev_count=c["dev_count"],
        quarantine_dir=root / "quarantine",
        max_bad_share=c["max_bad_share"],
    )
    if c["oracle"] == "text":
        common["oracle"] = _text_oracle(c["oracle_workers"])
    if c["name"] == "labelled":
        domain = LabelledDomain(label_cut=c["label_cut"], **common)
    else:
        common["test"] = c["test"]
        if c["name"] == "questions":
            domain = QuestionsDomain(**common)
        else:
            domain = Gsm8kDomain(strip_annotations=c["strip_annotations"], **common)
    if not saved.is_dir():
        with written_whole(saved) as scratch:
            save_tokenizer(domain.tokenizer, scratch)
            seal_folder(scratch)
    return domain


def _intact(tokenizer: Path) -> Path:
    """The folder of the run's tokenizer, which is what was written.

    Raises:
      DamagedFileError: it is not.
    """
    remedy = (
        f"Delete the folder (rm -r {tokenizer}) and run the same command again: it is "
        "trained anew, to the same, on the same texts."
    )
    check_fingerprints(tokenizer, sealed_files(tokenizer, remedy), remedy)
    return tokenizer


def _text_oracle(workers: int) -> TextOracle:
    if workers == 0:
        return TextOracle()
    pool = EquivalencePool(PoolConfig(workers=workers))
    oracle = TextOracle(pool)
    weakref.finalize(oracle, pool.close)  # at the end of this process at the latest
    return oracle
