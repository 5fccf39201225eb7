"""Uses the model in this folder: scores the steps of a solution, or writes one.

It needs transformers (4.57 or 5) and torch, and peft for an adapter. `aprm_jax.json`
beside it says how the model's rows are made.

    from score import score, write
    score("2 + 3 * 4", ["2 + 12", "14"])   # of a PRM: probability of correct, each step
    write("2 + 3 * 4", [])                 # of a solver: the next step
    write("2 + 3 * 4", [], "2 + 12")       # of a Generator: the step, rewritten
"""

import datetime
import functools
import json
import sys
import unittest.mock
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

FOLDER = Path(__file__).resolve().parent
RECORD = json.loads((FOLDER / "aprm_jax.json").read_text(encoding="utf-8"))
MODEL, ROWS = RECORD["model"], RECORD["rows"]


@functools.cache
def tokenizer():
    """As it was trained with: `AutoTokenizer` may have rules of the family's own."""
    return transformers.PreTrainedTokenizerFast.from_pretrained(FOLDER)


@functools.cache
def model():
    """The weights, with their head where transformers has a class for it."""
    served = RECORD["format"] in ("qwen2_prm", "skywork")
    kind = (
        "" if served else "ForTokenClassification" if ROWS["classes"] else "ForCausalLM"
    )
    loader = getattr(transformers, f"AutoModel{kind}")
    if RECORD["format"] != "peft":
        return loader.from_pretrained(FOLDER).eval()
    from peft import PeftModel

    labels = {"num_labels": ROWS["classes"]} if ROWS["classes"] else {}
    base = json.loads((FOLDER / "adapter_config.json").read_text(encoding="utf-8"))
    name = base["base_model_name_or_path"]
    return PeftModel.from_pretrained(
        loader.from_pretrained(name, **labels), FOLDER
    ).eval()


def encode(text, special=False):
    """Ids of a line; what spells a special token is that token, or stays text."""
    backend = tokenizer().backend_tokenizer  # calling the tokenizer would reset this
    backend.encode_special_tokens = not special
    return backend.encode(text, add_special_tokens=False).ids


def chat_ids(chat, **options):
    """Ids of a chat by the tokenizer's template, as on the date of the training."""
    module = "transformers.utils.chat_template_utils.datetime"
    with unittest.mock.patch(module) as clock:
        clock.now.return_value = datetime.datetime(*ROWS["today"])
        text = tokenizer().apply_chat_template(chat, tokenize=False, **options)
    if options.get("add_generation_prompt") and text.rstrip().endswith("<think>"):
        text = text.rstrip() + "\n\n</think>\n\n"
    return encode(text, special=True)


def plain(text):
    """A text in a chat spells no special token."""
    for mark in ROWS["marks"]:
        text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def context(question, prefix):
    """`<bos>` and the lines that a step sees, each closed by `<step>`."""
    lines = [question, *prefix][-(MODEL["window"] or 0) :]
    ends = [ROWS["step"]]
    return [*ROWS["opening"], *(i for line in lines for i in [*encode(line), *ends])]


def positions(ids):
    """Where the tokens of a row stand: lines may start at multiples of a stride."""
    stride = MODEL["line_stride"]
    openers = [*ROWS["opening"], ROWS["step"], ROWS["perturb"]]
    found, line = [], -1
    for token in ids:
        at = found[-1] + 1 if found else 0
        if stride and token in openers:
            line += 1
            at = max(at, stride * line)
        found.append(at)
    return found


def run(ids, places=None):
    """The model's output for a row."""
    if not MODEL["line_stride"]:
        return model()(torch.tensor([ids]))
    places = positions(ids) if places is None else places
    return model()(torch.tensor([ids]), position_ids=torch.tensor([places]))


@torch.no_grad()
def score(question, steps):
    """The probability that each step is correct."""
    if MODEL["layout"] is not None:
        ids, reads = LAYOUTS[MODEL["layout"]](question, steps)
        return verdicts(ids, reads)
    scores = []
    for k, step in enumerate(steps):
        own = [*encode(step), ROWS["step"]]
        ids = [*context(question, steps[:k]), *own]
        if MODEL["head"] == "token":
            scores.append(token_verdict(ids, own))
        else:
            scores += verdicts(ids, [len(ids) - 1])
    return scores


def verdicts(ids, reads):
    """The probability of correct at some places of a row."""
    out = run(ids)
    if RECORD["format"] not in ("qwen2_prm", "skywork"):
        classes = out.logits[0, reads].float().softmax(-1)
        return (1 - classes[:, 0]).tolist()  # class 0: incorrect
    hidden = out.last_hidden_state[0, reads].float()
    if RECORD["format"] == "skywork":
        return linear(hidden, "v_head.summary").sigmoid()[:, 0].tolist()
    inner = linear(hidden, "score.0").relu()
    return linear(inner, "score.2").softmax(-1)[:, 1].tolist()


def token_verdict(ids, own):
    """From the raw logit of each token of the step, where it is predicted."""
    logits = run(ids).logits[0].float()
    chosen = logits[-len(own) - 1 : -1].gather(1, torch.tensor(own)[:, None])
    head = RECORD["head"]
    return (chosen * head["scale"] + head["bias"]).min().sigmoid().item()


@functools.cache
def head_tensors():
    """Of a head that transformers has no class for."""
    tensors = {}
    for file in FOLDER.glob("model*.safetensors"):
        found = load_file(file)
        tensors |= {k: v for k, v in found.items() if k.startswith(("score", "v_head"))}
    return tensors


def linear(x, name):
    """A linear map of the head."""
    weight, bias = (head_tensors()[f"{name}.{kind}"] for kind in ("weight", "bias"))
    return x @ weight.float().T + bias.float()


def qwen2_prm(question, steps):
    """The chat of Qwen2.5-Math-PRM, each step closed by `<extra_0>`."""
    reply = "".join(plain(step) + "<extra_0>" for step in steps)
    chat = [
        {"role": "system", "content": ROWS["system"]},
        {"role": "user", "content": plain(question)},
        {"role": "assistant", "content": reply},
    ]
    ids = chat_ids(chat)
    return ids, [i for i, token in enumerate(ids) if token == ROWS["step"]]


def trl(question, steps):
    """TRL's: the question, each step followed by a line break."""
    ids, reads = ROWS["opening"] + encode(question), []
    for step in steps:
        ids += encode(step) + encode("\n")
        reads.append(len(ids) - 1)
    return ids, reads


def skywork(question, steps):
    """Skywork-o1-Open-PRM's: line by line, read at the last of a step."""
    separator = encode("\n")[-1]
    ids, reads = ROWS["opening"] + encode(question + "\n"), []
    for step in steps:
        for line in step.split("\n"):
            if line:
                ids += [*encode(line), separator]
        if not step.strip("\n"):
            ids.append(separator)
        reads.append(len(ids) - 1)
    return ids, reads


def math_shepherd(question, steps):
    """Math-Shepherd's: "Step 1: ... ки", read before the tag."""
    tag = encode("ки")
    ids, reads = list(ROWS["opening"]), []
    for k, step in enumerate(steps):
        text = f"Step {k + 1}: {step.strip()}"
        # What a text begins with depends on what it follows.
        ids += encode(f"ки\n{text}")[1:] if k else encode(f"{question} {text}")
        reads.append(len(ids))
        ids += tag
    return ids, reads


LAYOUTS = {f.__name__: f for f in (qwen2_prm, trl, skywork, math_shepherd)}


@torch.no_grad()
def write(question, prefix, step=None):
    """One step, greedily: the next one, or `step` rewritten by a Generator."""
    prompt, stops = asked(question, prefix, step), ROWS["stops"]
    reply = strided(prompt) if MODEL["line_stride"] else generated(prompt)
    read = functools.partial(tokenizer().decode, skip_special_tokens=False)
    end = ROWS["line_end"]
    # What stands before the end of a line, in one token with it, is of the line.
    if reply and reply[-1] in stops and not (end and end in read(reply[-1:])):
        reply.pop()
    text = read(reply)
    return (text.partition(end)[0] if end else text).strip()


def generated(prompt):
    """A reply by transformers' own loop."""
    ids = torch.tensor([prompt])
    out = model().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=ROWS["room"],
        eos_token_id=ROWS["stops"],
    )
    return out[0, len(prompt) :].tolist()


def strided(prompt):
    """A reply whose positions go on from the prompt's, which leave gaps."""
    reply, places = [], positions(prompt)
    while len(reply) < ROWS["room"] and not (reply and reply[-1] in ROWS["stops"]):
        reply.append(int(run(prompt + reply, places).logits[0, -1].argmax()))
        places.append(places[-1] + 1)
    return reply


def asked(question, prefix, step):
    """The ids of a prompt."""
    if MODEL["prompt"] is None and step is None:
        return context(question, prefix)
    opening = ROWS["opening"]
    if MODEL["prompt"] is None:
        behind = context(question, prefix)[len(opening) :]
        return [*opening, *encode(step), ROWS["perturb"], *behind]
    lines = "\n".join(prefix) or "(none)"
    text = MODEL["prompt"].format(question=question, prefix=lines, step=step)
    if not tokenizer().chat_template:
        return [*opening, *encode(text + ROWS["cue"])]
    chat = [{"role": "user", "content": plain(text)}]
    return chat_ids(chat, add_generation_prompt=True, enable_thinking=False)


if __name__ == "__main__":
    example = sys.argv[1:] or ["2 + 3 * 4", "2 + 12", "14"]
    if MODEL["kind"] == "prm":
        print(score(example[0], example[1:]))
    elif MODEL["kind"] == "solver":
        print(write(example[0], example[1:]))
    else:
        print(write(example[0], example[1:-1], example[-1]))
