"""What a search cost."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass
class Ledger:
    """The cost of one question's search.

    Attributes:
      decoded: tokens that the solver drew.
      prefilled: tokens that the solver read besides.
      verifier_tokens: tokens that the verifier read.
      oracle_calls: verdicts that the oracle gave.
      flops: of both models, an estimate; see `models.flops`.
      peak_kv_bytes: the most that the question's rows held in both models' caches: a
        batch's bytes are shared by its rows.
      seconds: likewise the question's share of the time.
    """

    decoded: int = 0
    prefilled: int = 0
    verifier_tokens: int = 0
    oracle_calls: int = 0
    flops: float = 0.0
    peak_kv_bytes: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return dataclasses.asdict(self)
