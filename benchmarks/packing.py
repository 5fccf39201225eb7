"""What packing leaves of padding, and what shared beginnings save, counted in tokens.

    python benchmarks/packing.py --gsm8k=data/gsm8k --prm800k=data/prm800k

Packs all solutions of GSM8K's training set, as job=prepare and sft.data do, and counts
the ids of PRM800K's phase-1 training solutions, once as trees and once a row each. Both
with the tokenizers that `configs/gsm8k.py` and `configs/prm800k.py` train. Writes
`benchmarks/results/packing.json`; docs/data.md and docs/results.md quote it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compare_table import ROOT, commit

from aprm_jax.config import read_config_file, with_fields
from aprm_jax.data.labelled import LabelledSolution
from aprm_jax.data.loader import load_batches
from aprm_jax.data.prefixes import PrefixTree
from aprm_jax.data.problem import Problem
from aprm_jax.data.trees import tree_rows
from aprm_jax.jobs import prepare
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.prm_labels import branches, row_shape
from aprm_jax.tasks.labelled import LabelledDomain

RESULTS = ROOT / "benchmarks/results/packing.json"
LENGTH = 512  # tokens of a packed row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gsm8k", type=Path, required=True, help="its folder")
    parser.add_argument("--prm800k", type=Path, required=True, help="its folder")
    args = parser.parse_args()
    found = {
        "command": "python benchmarks/packing.py --gsm8k=FOLDER --prm800k=FOLDER",
        "commit": commit(),
        "gsm8k": packed(args.gsm8k / "train.jsonl"),
        "prm800k": shared(args.prm800k / "phase1_train_plus.jsonl.gz"),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def packed(train: Path) -> dict[str, Any]:
    """Of one epoch of packed rows: how many, and their tokens and positions."""
    fields = {
        "domain.train": str(train),
        "domain.test": "",
        "builder.buckets": (LENGTH,),
        "prepare.sources": (f"gsm8k:{train}",),
        "prepare.dev_share": 0.0,
    }
    config = with_fields(read_config_file(ROOT / "configs/gsm8k.py"), fields)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(config, Path(folder), "data")
        counts = prepare.run(context)
        batches = load_batches(
            Path(folder, "data/prepared"),
            "train",
            context.of("solver").builder,
            batch_size=1,  # no row of padding at the end
            length=LENGTH,
            seed=0,
            epochs=1,
        )
        used = [int((batch.segment_ids > 0).sum()) for batch in batches]
    return {
        "solutions": int(counts["train.rows"]),
        "left_out": {k: v for k, v in counts.items() if k.startswith("dropped.")},
        "rows": len(used),
        "tokens": sum(used),
        "positions": LENGTH * len(used),
    }


def shared(train: Path) -> dict[str, int]:
    """Tokens of the rows that hold every text and every labelled solution."""
    fields = {"domain.train": f"prm800k:{train}"}
    config = with_fields(read_config_file(ROOT / "configs/prm800k.py"), fields)
    with tempfile.TemporaryDirectory() as folder:  # the tokenizer is kept there
        context = Context(config, Path(folder), "lm")
        domain = context.domain
        assert isinstance(domain, LabelledDomain) and branches(context)
        return {
            name: count
            for part in ("texts", "labelled")
            for name, count in _counts(context, part, getattr(domain, part))
        }


def _counts(
    context: Context, part: str, solutions: Sequence[Problem | LabelledSolution]
) -> Iterator[tuple[str, int]]:
    """How many solutions a part has, and tokens as trees and as a row each."""
    tree = PrefixTree()
    for solution in solutions:
        tree.add(solution.question, solution.steps)
    yield part, len(solutions)
    shape = row_shape(context)
    for branch, how in ((True, "as_trees"), (False, "a_row_each")):
        rows = tree_rows(
            context.builder,
            tree,
            length=shape["length"],
            max_steps=shape["max_steps"],
            branch=branch,
        )
        yield f"{part}_tokens_{how}", sum(len(row.row) for row in rows)


if __name__ == "__main__":
    main()
