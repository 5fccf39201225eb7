"""The README.md of an exported model: what it is, how to use it, where it comes from.

Its text is `templates/card.md`; what uses the model, `templates/score.py`, is written
beside it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from aprm_jax import __version__
from aprm_jax.hf.record import Record

TEMPLATES = Path(__file__).parent / "templates"
SERVED = ("qwen2_prm", "skywork")  # formats that transformers has no class for
_SHOWN_METRICS = 60
_TITLES = {
    "solver": "Solver: writes the next step of a solution",
    "generator": "Generator: rewrites a correct step into one that may fool a PRM",
    "prm": "Process reward model: how likely each step of a solution is correct",
}
_EXAMPLE = {"question": "2 + 3 * 4", "steps": ["2 + 12", "14"]}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What the card tells of the run.

    Attributes:
      data: what the model was trained on, a line; "" where unknown.
      datasets: names on the hub of that data.
      config: fields of the run's config that differ from the default.
      metrics: from the run's summary.json.
    """

    data: str = ""
    datasets: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


def write_card(
    name: str,
    record: Record,
    provenance: Provenance,
    *,
    base_model: str = "",
    auto_tokenizer: bool = True,
) -> str:
    """The text of README.md.

    Args:
      name: a repository, or the folder's path.
      record: what is exported.
      provenance: where it comes from.
      base_model: name or folder of the model that it was trained from; "" for none.
      auto_tokenizer: whether `AutoTokenizer` reads the tokenizer as it is.
    """
    kind, format_ = record.spec.kind, record.format
    language = format_ == "causal_lm" and kind != "prm"
    task = "text-generation" * language
    # A bare `pipeline` builds what this names: for another form of a PRM a classifier
    # of tokens whose head is random numbers.
    if kind == "prm" and format_ in ("token_classification", "peft"):
        task = "token-classification"
    # First what a reader of a PRM's card looks for: how well it judges steps.
    shown = sorted(
        provenance.metrics.items(), key=lambda item: ("steps" not in item[0], item)
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters |= {"pyrepr": repr, "tojson": json.dumps}
    text = environment.from_string((TEMPLATES / "card.md").read_text(encoding="utf-8"))
    return text.render(
        **_EXAMPLE,
        name=name,
        repository=is_repository(name),
        kind=kind,
        format=format_,
        peft=format_ == "peft",
        served=SERVED,
        title=_TITLES[kind],
        version=__version__,
        task=task,
        threshold=record.spec.threshold,
        layout=record.spec.layout,
        head=record.spec.head,
        window=record.spec.window,
        stride=record.spec.line_stride,
        opening=record.rows["opening"],
        step=record.rows["step"],
        auto_tokenizer=auto_tokenizer,
        base_model=base_model,
        base_repository=is_repository(base_model),
        origin=_origin(base_model),
        data=provenance.data,
        datasets=provenance.datasets,
        metrics=[(k, v) for k, v in shown[:_SHOWN_METRICS] if math.isfinite(v)],
        more=max(0, len(shown) - _SHOWN_METRICS),
        config=json.dumps(provenance.config, indent=1, default=str)
        if provenance.config
        else "",
    )


def is_repository(name: str) -> bool:
    """Whether a name can be one on the hub: user/name."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not name.startswith(".")


def _origin(base: str) -> str:
    if is_repository(base):
        return f"`{base}`"
    if base:  # where it lay is nobody's business
        return f"a local folder, `{Path(base).name}`"
    return "none, trained from scratch"
