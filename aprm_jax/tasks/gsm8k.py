"""Grade-school word problems (GSM8K and data of its form) as a domain.

A step is a line of the human solution; the last one is `#### N`. The calculator
annotations `<<48/2=24>>` stay in the text: the solver writes them, the oracle reads
them. Data whose steps have none (ProcessBench) may be scored by a model that was
trained with `strip_annotations`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from aprm_jax.data.gsm8k import canonical, parse_row
from aprm_jax.data.jsonl import Rows
from aprm_jax.data.problem import Problem
from aprm_jax.data.sources import read_source, source_path
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.tasks.text import TextDomain, hold_out


class Gsm8kDomain(TextDomain):
    """Implements `Domain` on question/answer rows of GSM8K's form.

    Args:
      train: path or name (see `data/sources.py`) of the training rows; the dev split
        is taken out of them.
      test: path or name of the test rows.
      seed: of the order in which training problems are drawn.
      tokenizer: a trained one, or a folder that holds one; None trains a BPE on the
        training text, the dev split left out.
      vocab_size: of the tokenizer to train.
      dev_count: questions held out of the training rows, chosen by a hash of what they
        say, so that neither order nor seed changes the choice; see `held_out`.
      strip_annotations: removes `<<...>>` from the steps. The oracle then reads bare
        equalities, and knows less.
      oracle: judges the steps; None reads calculator annotations and bare sums.
      quarantine_dir: where bad rows are recorded.
      max_bad_share: share of bad rows past which reading stops.
    """

    name = "gsm8k"

    def __init__(
        self,
        *,
        train: str,
        test: str,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerFast | str | Path | None = None,
        vocab_size: int = 2048,
        dev_count: int = 500,
        strip_annotations: bool = False,
        oracle: TextOracle | None = None,
        quarantine_dir: str | Path | None = None,
        max_bad_share: float = 0.01,
    ):
        parse = functools.partial(parse_row, strip_annotations=strip_annotations)

        def read(source: str, split: str) -> Rows[Problem]:
            path = source_path(source)
            return read_source(
                source,
                split if path is None or path.is_dir() else "",
                parse,
                quarantine_dir=quarantine_dir,
                max_bad_share=max_bad_share,
            )

        rows, test_rows = read(train, "train"), read(test, "test")
        self.num_bad = rows.num_bad + test_rows.num_bad
        kept, dev = hold_out(rows, dev_count, train)
        super().__init__(
            kept,
            {"dev": dev, "test": tuple(test_rows)},
            seed=seed,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            oracle=oracle,
        )

    def answer(self, steps: Sequence[str]) -> str | None:
        """The number that the first concluding step states, as `1080`."""
        found = super().answer(steps)
        return None if found is None else canonical(found)
