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
from pathlib import Path
from typing import Any

from aprm_jax import __version__
from aprm_jax.data.prompts import GENERATOR_CUE
from aprm_jax.hf.prm_layouts import QWEN_SYSTEM

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
      line_stride: lines start at positions that are its multiples; 0: no gaps.
      opening: ids that open a row.
      step_id: the token that ends a line, or at which a published PRM is read.
      perturb_id: the token before a Generator's context; None where there is none.
      stop_ids: tokens that end what a language model writes.
      room: most tokens that it is sampled for, the one that ends it included.
      classes: of a PRM's head; 0 for none.
      threshold: probability from which a step counts as correct.
      layout: of a published PRM, see `prm_layouts`; None for rows of the step builder.
      prompt: in words, of a Generator that is told what to do; None for others.
      chat: whether the tokenizer has a chat template.
      reader: transformers' class that reads the tokenizer as it was trained with.
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
    line_stride: int
    opening: tuple[int, ...]
    step_id: int
    perturb_id: int | None
    stop_ids: tuple[int, ...] = ()
    room: int = 0
    classes: int = 0
    threshold: float = 0.5
    layout: str | None = None
    prompt: str | None = None
    chat: bool = False
    reader: str = "AutoTokenizer"
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
    base = "none, trained from scratch"
    if is_repository(card.base_model):
        base = f"`{card.base_model}`"
    elif card.base_model:  # where it lay is nobody's business
        base = f"a local folder, `{Path(card.base_model).name}`"
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
    question, steps = _EXAMPLE
    fields: dict[str, Any] = {
        "load": _load(card),
        "auto": card.auto_class,
        "peft": _PEFT_IMPORT if card.peft else "",
        "reader": card.reader,
        "name": card.name,
        "opening": list(card.opening),
        "step": card.step_id,
        "perturb": card.perturb_id,
        "window": card.window,
        "stride": card.line_stride,
        "openers": [*card.opening, card.step_id, card.perturb_id],
        "at": ", position_ids=positions(ids)" if card.line_stride else "",
        "system": QWEN_SYSTEM,
        "stops": list(card.stop_ids),
        "room": card.room,
    }
    notes = ""
    if card.kind == "prm":
        call = f"score({question!r}, {list(steps)!r})"
        blocks, notes = _prm_code(card), _prm_notes(card)
        if card.format in _SERVED:
            blocks, notes = _served_code(card), _served(card)
    elif card.kind == "generator":
        call = f"write({question!r}, [], {steps[0]!r})"
        blocks = _generator_code(card, fields)
    else:
        call = f"write({question!r}, [])"
        blocks = [_TEXT, *_context(card), _WRITER, *_write(card)]
        fields |= {"more": "", "ask": "prompt = context(question, prefix)"}
    header = _SERVED_HEADER if card.format in _SERVED else _HEADER
    code = "".join([header, *blocks, "\n\nprint({call})\n"])
    for field, value in card.head.items():
        fields[field] = repr(value)
    code = code.format(**fields, call=call)
    if card.peft and card.kind == "prm":
        notes += _PEFT_NOTE
    notes += _STRIDE_NOTE.format(stride=card.line_stride) if card.line_stride else ""
    parts = (f"```python\n{code}```\n", notes, _tokenizer_note(card))
    return "\n".join(filter(None, parts))


def _prm_code(card: Card) -> list[str]:
    if card.layout is not None:
        return [_TEXT, _LAID_OUT[card.layout], _SCORE_LAID_OUT]
    read = _READ_TOKEN if card.reading == "token" else _READ_CLASS
    return [_TEXT, *_context(card), _SCORE, read, "    return scores\n"]


def _context(card: Card) -> list[str]:
    return [_CONTEXT, _POSITIONS] if card.line_stride else [_CONTEXT]


def _write(card: Card) -> list[str]:
    return [_WRITE_STRIDED if card.line_stride else _WRITE, _REPLY]


def _served_code(card: Card) -> list[str]:
    if card.layout is None:
        return [_CORRECT[card.format], _TEXT, _CONTEXT, _SCORE_SERVED]
    text = "" if card.layout == "qwen2_prm" else _TEXT  # a chat has special tokens
    blocks = [text, _LAID_OUT[card.layout], _SCORE_SERVED_LAID_OUT]
    return [_CORRECT[card.format], *blocks]


def _prm_notes(card: Card) -> str:
    threshold = f"A step counts as correct from a probability of {card.threshold:g} on."
    if card.layout is not None:
        return f"{threshold} Rows are laid out as `{card.layout}` lays them out.\n"
    where = "at every token of a step" if card.reading == "token" else "there"
    return f"{threshold} `<step>` ends each line, and the verdict is read {where}.\n"


def _generator_code(card: Card, fields: dict[str, Any]) -> list[str]:
    if card.prompt is None:
        fields |= {
            "more": ", step",
            "ask": "prompt = [*bos, *encode(step), perturb, "
            "*context(question, prefix)[len(bos) :]]",
        }
        return [_TEXT, *_context(card), _PERTURB, _WRITER, *_write(card)]
    fields |= {"prompt": card.prompt, "cue": GENERATOR_CUE.rstrip()}
    ask = _ASK_CHAT if card.chat else _ASK_PLAIN
    return ["\n" if card.chat else _TEXT, _TOLD, ask, _WRITE, _REPLY]


def _load(card: Card) -> str:
    if not card.peft:
        return f"model = {card.auto_class}.from_pretrained(name).eval()"
    labels = f", num_labels={card.classes}" if card.classes else ""
    base = f"{card.auto_class}.from_pretrained({card.base_model!r}{labels})"
    return f"base = {base}\nmodel = PeftModel.from_pretrained(base, name).eval()"


def _served(card: Card) -> str:
    if card.layout is None:
        window = (
            "all lines" if card.window is None else f"the last {card.window} line(s)"
        )
        rows = (
            f"A row is token {card.opening[0]} (`<bos>`), then the question and each "
            f"step, each followed by token {card.step_id} (`<step>`). A step sees "
            f"{window} before it.\n"
        )
    else:
        rows = "Rows, prompt and separator are that model's too.\n"
    return _SERVED[card.format].format(
        name=card.name,
        step=card.step_id,
        pooler=json.dumps({"pooling_type": "STEP", "step_tag_id": card.step_id}),
        rows=rows,
    )


def _tokenizer_note(card: Card) -> str:
    if card.reader == "AutoTokenizer":
        return ""
    return (
        "`AutoTokenizer` would read this tokenizer by the rules of the family's own "
        f"and give other ids: take `{card.reader}`.\n"
    )


_SERVED = {
    "qwen2_prm": (
        "This is the layout of Qwen2.5-Math-PRM: a head of two layers, read with a "
        "softmax at each token {step}, class 1 being correct. transformers has no such "
        "class of its own; vLLM has:\n\n"
        "    vllm serve {name} --runner pooling --pooler-config '{pooler}'\n\n{rows}"
    ),
    "skywork": (
        "This is the layout of Skywork-o1-Open-PRM: `v_head.summary`, one value, whose "
        "sigmoid is the probability of correct, read at the separator (token {step}) "
        "that ends a step. transformers has no such class; the models' publishers "
        "have, in SkyworkAI/skywork-o1-prm-inference.\n\n{rows}"
    ),
}
_PEFT_IMPORT = "from peft import PeftModel\n"
_PEFT_NOTE = "Of the base transformers says that `score` is new: the adapter has it.\n"
_HEADER = """\
import torch
{peft}from transformers import {auto}, {reader}

name = {name!r}  # or the folder's path
{load}
tokenizer = {reader}.from_pretrained(name)
"""
_TEXT = """\
tokenizer.backend_tokenizer.encode_special_tokens = True  # what is text stays text
bos = {opening}


def encode(text):
    return tokenizer(text, add_special_tokens=False).input_ids


"""
_CONTEXT = """\
step_end = {step}
window = {window}  # lines before a step that the model sees; None: all


def context(question, prefix):
    lines = [question, *prefix][-(window or 0) :]
    return [*bos, *(i for line in lines for i in (*encode(line), step_end))]


"""
_POSITIONS = """\
def positions(ids):
    \"\"\"Lines start at multiples of {stride}: the positions leave gaps.\"\"\"
    found, line = [], -1
    for token in ids:
        at = found[-1] + 1 if found else 0
        if token in {openers}:
            line += 1
            at = max(at, {stride} * line)
        found.append(at)
    return torch.tensor([found])


"""
_SCORE = """\
@torch.no_grad()
def score(question, steps):
    \"\"\"The probability that each step is correct.\"\"\"
    scores = []
    for k, step in enumerate(steps):
        own = [*encode(step), step_end]
        ids = [*context(question, steps[:k]), *own]
        logits = model(torch.tensor([ids]){at}).logits[0].float()
"""
_READ_CLASS = """\
        scores.append(1 - logits[-1].softmax(-1)[0].item())  # class 0: incorrect
"""
_READ_TOKEN = """\
        # The raw logit of each token of the step, where it is predicted.
        chosen = logits[-len(own) - 1 : -1].gather(1, torch.tensor(own)[:, None])
        log_odds = (chosen * {scale} + {bias}).min()
        scores.append(log_odds.sigmoid().item())
"""
_SERVED_HEADER = """\
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import AutoModel, {reader}

name = {name!r}  # or the folder's path
model = AutoModel.from_pretrained(name).eval()  # leaves out the head
tokenizer = {reader}.from_pretrained(name)
tensors = {{}}
folder = name if Path(name).is_dir() else snapshot_download(name)
for file in Path(folder).glob("*.safetensors"):
    tensors |= load_file(file)


"""
# The probability of correct from a format's own head, which transformers does not have.
_CORRECT = {
    "qwen2_prm": """\
def linear(x, key):
    return x @ tensors[key + ".weight"].float().T + tensors[key + ".bias"].float()


def correct(hidden):
    logits = linear(linear(hidden, "score.0").relu(), "score.2")
    return logits.softmax(-1)[:, 1].tolist()


""",
    "skywork": """\
def correct(hidden):
    weight, bias = tensors["v_head.summary.weight"], tensors["v_head.summary.bias"]
    return (hidden @ weight.float().T + bias.float()).sigmoid()[:, 0].tolist()


""",
}
_SCORE_SERVED = """\
@torch.no_grad()
def score(question, steps):
    \"\"\"The probability that each step is correct.\"\"\"
    scores = []
    for k, step in enumerate(steps):
        ids = [*context(question, steps[:k]), *encode(step), step_end]
        hidden = model(torch.tensor([ids])).last_hidden_state[0, -1:].float()
        scores += correct(hidden)
    return scores
"""
_SCORE_SERVED_LAID_OUT = """\
@torch.no_grad()
def score(question, steps):
    \"\"\"The probability that each step is correct.\"\"\"
    ids, reads = lay_out(question, steps)
    return correct(model(torch.tensor([ids])).last_hidden_state[0, reads].float())
"""
_SCORE_LAID_OUT = """\
@torch.no_grad()
def score(question, steps):
    \"\"\"The probability that each step is correct.\"\"\"
    ids, reads = lay_out(question, steps)
    logits = model(torch.tensor([ids])).logits[0, reads].float()
    return logits.softmax(-1)[:, 1].tolist()
"""
# As `prm_layouts.build_ids`: ids, and where in them each step is read.
_LAID_OUT = {
    "qwen2_prm": """\
def lay_out(question, steps):
    reply = "".join(step + "<extra_0>" for step in steps)
    chat = [
        {{"role": "system", "content": {system!r}}},
        {{"role": "user", "content": question}},
        {{"role": "assistant", "content": reply}},
    ]
    ids = tokenizer.apply_chat_template(chat, return_dict=False)
    return ids, [i for i, token in enumerate(ids) if token == {step}]


""",
    "trl": """\
def lay_out(question, steps):
    ids, reads = bos + encode(question), []
    for step in steps:
        ids += encode(step) + encode("\\n")
        reads.append(len(ids) - 1)
    return ids, reads


""",
    "skywork": """\
def lay_out(question, steps):
    separator = encode("\\n")[-1]
    ids, reads = bos + encode(question + "\\n"), []
    for step in steps:
        for line in step.strip("\\n").split("\\n"):
            if line or not step.strip("\\n"):
                ids += encode(line) + [separator]
        reads.append(len(ids) - 1)
    return ids, reads


""",
    "math_shepherd": """\
def lay_out(question, steps):
    tag = encode("ки")
    ids, reads = list(bos), []
    for k, step in enumerate(steps):
        text = f"Step {{k + 1}}: {{step.strip()}}"
        # What a text begins with depends on what it follows.
        ids += encode(f"ки\\n{{text}}")[1:] if k else encode(f"{{question}} {{text}}")
        reads.append(len(ids))
        ids += tag
    return ids, reads


""",
}
_STRIDE_NOTE = """
Lines start at positions that are multiples of {stride}. Pass `position_ids` as above:
what serves a model without them gives other results.
"""
_PERTURB = "perturb = {perturb}\n"
_WRITER = """\
stops = {stops}


@torch.no_grad()
def write(question, prefix{more}):
    \"\"\"One step, greedily.\"\"\"
    {ask}
"""
_TOLD = """\
stops = {stops}
PROMPT = {prompt!r}


@torch.no_grad()
def write(question, prefix, step):
    \"\"\"The step rewritten, greedily.\"\"\"
    lines = "\\n".join(prefix) or "(none)"
    text = PROMPT.format(question=question, prefix=lines, step=step)
"""
_ASK_CHAT = """\
    chat = [{{"role": "user", "content": text}}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
"""
_ASK_PLAIN = """\
    prompt = [*bos, *encode(text + {cue!r})]
"""
_WRITE = """\
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens={room},
        eos_token_id=stops,
    )
    reply = out[0, len(prompt) :].tolist()
"""
_WRITE_STRIDED = """\
    reply, places = [], positions(prompt)[0].tolist()
    while len(reply) < {room} and not (reply and reply[-1] in stops):
        ids, at = torch.tensor([prompt + reply]), torch.tensor([places])
        reply.append(int(model(ids, position_ids=at).logits[0, -1].argmax()))
        places.append(places[-1] + 1)
"""
_REPLY = """\
    if reply and reply[-1] in stops:
        reply.pop()
    return tokenizer.decode(reply, skip_special_tokens=False).strip()
"""
