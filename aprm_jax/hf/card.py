"""The README.md of an exported model: what it is, how to use it, where it comes from.

Its code is complete: pasted into Python beside transformers and torch it computes what
`aprm_jax` computes, and a test runs it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from aprm_jax import __version__

_SHOWN_METRICS = 60
_TITLES = {
    "solver": "Solver: writes the next step of a solution",
    "generator": "Generator: rewrites a correct step into one that may fool a PRM",
    "prm": "Process reward model: how likely each step of a solution is correct",
}
_EXAMPLE = ("2 + 3 * 4", ("2 + 12", "14"))


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card tells.

    Attributes:
      name: what `from_pretrained` is given: a repository or a folder's name.
      kind: "solver", "generator" or "prm".
      format: how it was exported.
      auto_class: transformers' class that loads it; "" where there is none.
      reading: of a PRM.
      head: the numbers of a PRM's head that the weights cannot hold.
      window: lines before a step that the model sees; None for all.
      bos_id, step_id, perturb_id: the tokens that rows are built of.
      threshold: probability from which a step counts as correct.
      base_model: name of the model that it was trained from; "" for none.
      peft: whether the folder holds an adapter alone.
      data: what it was trained on, a line; "" where unknown.
      datasets: names on the hub of that data.
      config: fields of the run's config that differ from the default.
      metrics: from the run's summary.json.
    """

    name: str
    kind: str
    format: str
    auto_class: str
    reading: str | None
    head: Mapping[str, float]
    window: int | None
    bos_id: int
    step_id: int
    perturb_id: int
    threshold: float = 0.5
    base_model: str = ""
    peft: bool = False
    data: str = ""
    datasets: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


def write_card(card: Card) -> str:
    """The text of README.md."""
    parts = [
        _metadata(card),
        f"# {card.name.rpartition('/')[2]}\n",
        f"{_TITLES[card.kind]}. Trained and exported with aprm_jax {__version__} "
        f"(format `{card.format}`).\n",
        "## How to use it\n",
        _use(card),
        "## Where it comes from\n",
        _origin(card),
    ]
    if card.metrics:
        parts += ["## Measured\n", _metrics(card)]
    if card.config:
        fields = json.dumps(card.config, indent=1, default=str)
        parts += [
            "## Config\n",
            "Fields that differ from the package's default:\n",
            f"```json\n{fields}\n```\n",
        ]
    return "\n".join(parts)


def is_repository(name: str) -> bool:
    """Whether a name can be one on the hub: user/name."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not name.startswith(".")


def _metadata(card: Card) -> str:
    tasks = {"causal_lm": "text-generation", "token_classification": ""}
    task = tasks.get(card.format, "") if card.kind != "prm" else "token-classification"
    lines = [
        "---",
        f"library_name: {'peft' if card.peft else 'transformers'}",
        "tags:",
        "- aprm_jax",
    ]
    if card.kind == "prm":
        lines += ["- process-reward-model", "- reward-model"]
    if task:
        lines.append(f"pipeline_tag: {task}")
    if is_repository(card.base_model):
        lines.append(f"base_model: {json.dumps(card.base_model)}")
    if card.datasets:
        lines += ["datasets:", *(f"- {json.dumps(name)}" for name in card.datasets)]
    return "\n".join([*lines, "---", ""])


def _origin(card: Card) -> str:
    base = card.base_model
    base = f"`{base}`" if base else "none, trained from scratch"
    lines = [f"* base model: {base}"]
    if card.data:
        lines.append(f"* data: {card.data}")
    return "\n".join([*lines, ""])


def _metrics(card: Card) -> str:
    rows = sorted(card.metrics.items())
    lines = ["| metric | value |", "|---|---|"]
    lines += [
        f"| `{name}` | {value:.4g} |"
        for name, value in rows[:_SHOWN_METRICS]
        if math.isfinite(value)
    ]
    if len(rows) > _SHOWN_METRICS:
        lines.append(f"| and {len(rows) - _SHOWN_METRICS} more | |")
    return "\n".join([*lines, ""])


def _use(card: Card) -> str:
    if card.format == "qwen2_prm":
        return _served(card)
    body = _PRM if card.kind == "prm" else _WRITER
    read = _READ_TOKEN if card.reading == "token" else _READ_CLASS
    prompt = _PERTURB if card.kind == "generator" else _SOLVE
    question, steps = _EXAMPLE
    call = {
        "prm": f"score({question!r}, {list(steps)!r})",
        "generator": f"write({question!r}, [], {steps[0]!r})",
        "solver": f"write({question!r}, [])",
    }
    notes = ""
    if card.kind == "prm":
        notes = (
            f"A step counts as correct from a probability of {card.threshold:g} on. "
            "`<step>` ends each line, and the verdict is read "
            + ("at every token of a step.\n" if card.reading == "token" else "there.\n")
        )
    code = (_HEADER + body).format(
        load=_load(card),
        auto=card.auto_class,
        **({"peft": _PEFT_IMPORT} if card.peft else {"peft": ""}),
        name=card.name,
        bos=card.bos_id,
        step=card.step_id,
        perturb=card.perturb_id,
        window=card.window,
        read=read.format(**card.head) if card.kind == "prm" else "",
        prompt=prompt,
        more=", step" if card.kind == "generator" else "",
        call=call[card.kind],
    )
    return f"```python\n{code}```\n\n{notes}"


def _load(card: Card) -> str:
    if not card.peft:
        return f"{card.auto_class}.from_pretrained(name)"
    labels = ", num_labels=2" if card.kind == "prm" else ""
    base = f"{card.auto_class}.from_pretrained({card.base_model!r}{labels})"
    return f"PeftModel.from_pretrained({base}, name)"


def _served(card: Card) -> str:
    pooler = json.dumps({"pooling_type": "STEP", "step_tag_id": card.step_id})
    window = "all lines" if card.window is None else f"the last {card.window} line(s)"
    return (
        "The layout of Qwen2.5-Math-PRM: a head of two layers, read with a softmax at "
        f"each token {card.step_id} (`<step>`), class 1 being correct. "
        "transformers has no such class of its own; vLLM has:\n\n"
        f"    vllm serve {card.name} --runner pooling --pooler-config '{pooler}'\n\n"
        f"A row is token {card.bos_id} (`<bos>`), then the question and each step, "
        f"each followed by token {card.step_id}. A step sees {window} before it.\n"
    )


_PEFT_IMPORT = "from peft import PeftModel\n"
_HEADER = """\
import torch
{peft}from transformers import {auto}, AutoTokenizer

name = {name!r}
model = {load}.eval()
tokenizer = AutoTokenizer.from_pretrained(name)
tokenizer.backend_tokenizer.encode_special_tokens = True  # what is text stays text
bos, step_end, perturb = {bos}, {step}, {perturb}
window = {window}  # lines before a step that the model sees; None: all


def encode(text):
    return tokenizer(text, add_special_tokens=False).input_ids


def context(question, prefix):
    lines = [question, *prefix][-(window or 0) :]
    return [bos, *(i for line in lines for i in (*encode(line), step_end))]


"""
_PRM = """\
@torch.no_grad()
def score(question, steps):
    \"\"\"The probability that each step is correct.\"\"\"
    scores = []
    for k, step in enumerate(steps):
        own = [*encode(step), step_end]
        ids = [*context(question, steps[:k]), *own]
        logits = model(torch.tensor([ids])).logits[0].float()
{read}    return scores


print({call})
"""
_READ_CLASS = """\
        scores.append(1 - logits[-1].softmax(-1)[0].item())  # class 0: incorrect
"""
_READ_TOKEN = """\
        # The raw logit of each token of the step, where it is predicted.
        chosen = logits[-len(own) - 1 : -1].gather(1, torch.tensor(own)[:, None])
        log_odds = (chosen * {scale!r} + {bias!r}).min()
        scores.append(log_odds.sigmoid().item())
"""
_WRITER = """\
@torch.no_grad()
def write(question, prefix{more}):
    \"\"\"One step, greedily.\"\"\"
    {prompt}
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)
    reply = out[0, len(prompt) :].tolist()
    reply = reply[: reply.index(step_end)] if step_end in reply else reply
    return tokenizer.decode(reply, skip_special_tokens=False).strip()


print({call})
"""
_SOLVE = "prompt = context(question, prefix)"
_PERTURB = "prompt = [bos, *encode(step), perturb, *context(question, prefix)[1:]]"
