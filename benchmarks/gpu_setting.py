"""What `gpu.py` measures, and how both sides sum up seconds.

Torch's Python may have nothing of ours, so this needs the standard library alone.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEED = 0


@dataclasses.dataclass(frozen=True)
class Setting:
    """The shapes of a round of the game.

    Attributes:
      model: of both players, as `config.json` of Hugging Face has it.
      groups: prompts of a round.
      group_size: replies to each.
      prompt: tokens of a prompt.
      new: tokens of a reply.
      microbatches: parts that a batch is computed in.
      dtype: of products.
      repeats: that are timed, after one that compiles.
    """

    model: Mapping[str, Any]
    groups: int = 8
    group_size: int = 8
    prompt: int = 512
    new: int = 512
    microbatches: int = 8
    dtype: str = "bfloat16"
    repeats: int = 5

    @property
    def rows(self) -> int:
        """Replies of a round, each in a row of its own."""
        return self.groups * self.group_size

    @property
    def length(self) -> int:
        """Tokens of such a row."""
        return self.prompt + self.new


TINY_MODEL = {
    "vocab_size": 2048,  # beyond models.decoder.ONE_HOT_VOCAB: as a large one is read
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TINY = {"groups": 2, "group_size": 2, "prompt": 32, "new": 16, "microbatches": 2}


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """The median of some turns, the least and the most, and each of them."""
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "turns": list(seconds),
    }


def timed(turn: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of turns that wait for the device; the first, which compiles, apart."""
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        turn()
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], **spread(seconds[1:])}
