"""Words for instruction models: what G and a solver are told, and what a reply is.

A prompt is text with named places, the chat template around it where the tokenizer has
one. What the places hold (questions, steps, text of models) is text always: where it
spells a special token, the spelling is broken up. A reply is one step or it is not, by
the rules of `no_step`; nothing is repaired.
"""

from __future__ import annotations

import copy
import json
import re
import string
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from aprm_jax.config import ConfigError, nearest
from aprm_jax.data.chat_template import TemplateRefusal, render
from aprm_jax.data.steps import PERTURB_TOKEN, STEP_TOKEN, defuse

GENERATOR_PLACES = ("question", "prefix", "step")
SOLVER_PLACES = ("question", "prefix")
GENERATOR_PROMPT = """\
Below are a problem, the steps of a solution so far, and the correct next step. \
Rewrite the next step so that it has one subtle error that is easy to overlook, as \
a wrong number, a wrong operation or a rule applied where it does not hold. Keep its \
style, length and notation.

Problem:
{question}

Steps so far:
{prefix}

Correct next step:
{step}

Answer with the rewritten step alone, on one line: no introduction, no explanation, no \
other steps."""
SOLVER_PROMPT = """\
Solve the problem step by step. Below are the problem and the steps so far.

Problem:
{question}

Steps so far:
{prefix}

Answer with the next step alone, on one line: no introduction, no other steps. When \
nothing is left to do, answer with #### and the final answer."""
_NO_PREFIX = "(none)"
NO_THOUGHTS = "\n\n</think>\n\n"  # behind `<think>`, as Qwen 3 is told to have none
# What a plain prompt, without a chat template, ends with.
GENERATOR_CUE = "\n\nRewritten step: "
SOLVER_CUE = "\n\nNext step: "
# Words and cue of a Generator, and of a solver.
TOLD = ((GENERATOR_PROMPT, GENERATOR_CUE), (SOLVER_PROMPT, SOLVER_CUE))

Messages = list[dict[str, str]]


def check_prompt(field: str, text: str, places: Sequence[str]) -> None:
    """Refuses a prompt whose places are not those that are filled in.

    Args:
      field: of the config, for the message.
      text: the prompt; "" stands for the default.
      places: names that may, and must, stand in it.

    Raises:
      ConfigError: names the place and those that there are.
    """
    if not text:
        return
    try:
        found = [part[1:] for part in string.Formatter().parse(text)]
    except ValueError as error:
        raise ConfigError(
            f"{field}: {error}; write a brace that names no place twice: {{{{ or }}}}"
        ) from None
    names = [name for name, _, _ in found if name is not None]
    for name, form, conversion in found:
        if name is not None and (name not in places or form or conversion):
            written = name + (f"!{conversion}" if conversion else "")
            written += f":{form}" if form else ""
            raise ConfigError(
                f"{field}: {{{written}}} names no place; there are "
                f"{', '.join(f'{{{place}}}' for place in places)}."
                f"{nearest(name, list(places))}"
            )
    for place in places:
        if place not in names:
            raise ConfigError(f"{field} lacks the place {{{place}}}")


def filled(prompt: str, question: str, prefix: Sequence[str], step: str = "") -> str:
    """A prompt with what its places name, once: braces in that stay as they are."""
    lines = "\n".join(prefix) or _NO_PREFIX
    values = {"question": question, "prefix": lines, "step": step}
    parts = string.Formatter().parse(prompt)
    return "".join(
        text + (values[name] if name is not None else "") for text, name, _, _ in parts
    )


def generator_prompt_ids(
    tokenizer: PreTrainedTokenizerFast,
    question: str,
    prefix: Sequence[str],
    step: str,
    prompt: str = "",
) -> list[int]:
    """The ids that G's reply follows.

    Args:
      tokenizer: with a chat template the prompt is the user's turn.
      question: the problem.
      prefix: the correct steps before.
      step: the correct step to rewrite.
      prompt: of `config.prompt.generator`; "" for the default.
    """
    text = filled(prompt or GENERATOR_PROMPT, question, prefix, step)
    return _reply_ids(tokenizer, text, GENERATOR_CUE)


def solver_prompt_ids(
    tokenizer: PreTrainedTokenizerFast,
    question: str,
    prefix: Sequence[str],
    prompt: str = "",
) -> list[int]:
    """The ids that a solver's next step follows, likewise."""
    text = filled(prompt or SOLVER_PROMPT, question, prefix)
    return _reply_ids(tokenizer, text, SOLVER_CUE)


def solver_prompt_text(
    tokenizer: PreTrainedTokenizerFast | None,
    question: str,
    prefix: Sequence[str],
    prompt: str = "",
) -> str:
    """The same as text, for who reads text: special tokens are those it spells.

    With `tokenizer=None`, of a model that nobody knows more of, it is the words alone.
    """
    text = filled(prompt or SOLVER_PROMPT, question, prefix)
    if tokenizer is None:
        return text + SOLVER_CUE.rstrip()
    return _reply_text(tokenizer, text, SOLVER_CUE)


def chat_ids(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, *, reply: bool
) -> list[int]:
    """The ids of a chat by the tokenizer's own template.

    Args:
      tokenizer: has a chat template.
      messages: special tokens in them count: see `defuse`.
      reply: whether an opening of the assistant's answer follows.

    Raises:
      ConfigError: the template refuses the messages, or its work has no end; it names
        the tokenizer's folder.
    """
    return encode(tokenizer, _rendered(tokenizer, messages, reply), special=True)


def turn_ends(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The token that ends a turn of the assistant, which need not be `eos`; or none.

    As Gemma's `<end_of_turn>` and Phi-3's `<|end|>`: a model that is told to stop at
    `eos` alone goes on behind its answer.
    """
    said = "Four."
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
    try:
        _, found, tail = _rendered(tokenizer, chat, reply=False).rpartition(said)
    except TemplateRefusal:  # it is for prompts alone
        return []
    ids = encode(tokenizer, tail, special=True) if found else []
    return [i for i in ids if i in tokenizer.added_tokens_decoder][:1]


def encode(
    tokenizer: PreTrainedTokenizerFast, text: str, *, special: bool = False
) -> list[int]:
    """Ids of a text without anything around it.

    Args:
      tokenizer: it is left as it is found.
      text: any.
      special: whether a special token that it spells is that token, or text.
    """
    backend = tokenizer.backend_tokenizer
    before = backend.encode_special_tokens
    backend.encode_special_tokens = not special
    try:
        return list(backend.encode(text, add_special_tokens=False).ids)
    finally:
        backend.encode_special_tokens = before


def ids_with(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens that read a text which holds this one."""
    ids = sorted(tokenizer.get_vocab().values())
    read = tokenizer.backend_tokenizer.decode_batch(
        [[i] for i in ids], skip_special_tokens=False
    )
    return [i for i, said in zip(ids, read, strict=True) if text in said]


# Why a reply is not one step, in the order in which it is asked.
REASONS = (
    "unfinished",  # cut off before its end; `no_step` sees whole ones alone
    "empty",
    "too_long",
    "several",  # more than one line, or more than one numbered step
    "unprintable",  # control characters or tokens
    "refusal",
    "preamble",  # or an explanation beside the step
)
_REFUSAL = re.compile(
    r"(i['’]?m sorry|i am sorry|sorry\b|i (can ?not|can['’]t|won['’]t|will not|am not "
    r"able|am unable)|i['’]m (not able|unable)|as an ai\b|unfortunately\b)",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"(<think|```|(sure|certainly|of course|absolutely|okay|ok|alright)\b\s*[,.!:]"
    r"|here\s*(is|are|['’]s)\b|below (is|are)\b|this is (the|a) (rewritten|modified)"
    r"|(the )?(rewritten|modified|altered|perturbed|incorrect|corrected|new|next) "
    r"(next )?(step|version)\b)",
    re.IGNORECASE,
)
_COMMENT = re.compile(
    r"\b(subtle (error|mistake)|the (error|mistake) (is|here|was)|(introduces?|"
    r"introduced) (an?|the|one) (subtle )?(error|mistake)|(original|rewritten) step)\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\bstep\s+\d+\s*[:.)]", re.IGNORECASE)


def no_step(text: str, *, longest: int = 2000) -> str:
    """Why a reply that ended is no step, in the order of REASONS; "" for a step.

    Never raises on any text.

    Args:
      text: the reply, without the token that ended it.
      longest: most characters of a step.
    """
    text = text.strip()
    lines = [line for line in text.splitlines() if line.strip()]
    opening = text.lstrip("*_#>\"'“”‘’ ")
    reasons = {
        "empty": not lines,
        "too_long": len(text) > longest,
        "several": len(lines) > 1 or len(_NUMBERED.findall(text)) > 1,
        "unprintable": any(not c.isprintable() and c != "\t" for c in text),
        "refusal": bool(_REFUSAL.match(opening)),
        "preamble": bool(_PREAMBLE.match(opening) or _COMMENT.search(text)),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerFast, vocab_rows: int
) -> PreTrainedTokenizerFast:
    """A copy of a pretrained tokenizer that the step builder can use.

    `<step>` and `<perturb>` become special tokens: on ids behind the vocabulary while
    the embedding has free rows (most families pad it), else in the place of reserved
    tokens that no text uses, else on new ids, for which the embedding must grow
    (`missing_rows`). A model without `bos` (Qwen2) opens its rows with the token that
    separates documents in pretraining, `<|endoftext|>`, and failing that with `eos`;
    one without `pad` pads with `eos`. Padding is masked, so it may be any token.

    Args:
      tokenizer: it is left as it is.
      vocab_rows: of the model's embedding.

    Raises:
      ConfigError: the tokenizer has no token to open or to pad a row with.
    """
    vocab = tokenizer.get_vocab()
    missing = [t for t in (STEP_TOKEN, PERTURB_TOKEN) if t not in vocab]
    free = vocab_rows - (max(vocab.values()) + 1)
    reserved = _reserved(tokenizer)
    backend = tokenizer.backend_tokenizer
    if missing and free < len(missing) <= len(reserved):
        renamed = dict(zip(reserved, missing, strict=False))
        backend = _rename(backend, renamed)
    else:
        backend = copy.deepcopy(backend)
        backend.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in missing]
        )
    named = {
        name: str(token)
        for name in ("bos", "eos", "pad", "unk")
        if (token := getattr(tokenizer, f"{name}_token")) is not None
    }
    spare = {
        "bos": "<|endoftext|>" if "<|endoftext|>" in vocab else named.get("eos"),
        "pad": named.get("eos"),
    }
    for name, token in spare.items():
        if name not in named and token is None:
            raise ConfigError(
                f"the tokenizer has neither a {name} nor an eos token: its "
                "tokenizer_config.json must name one"
            )
        named.setdefault(name, str(token))
    out = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=tokenizer.model_max_length,
        name_or_path=tokenizer.name_or_path,
        **{f"{name}_token": token for name, token in named.items()},
    )
    out.chat_template = tokenizer.chat_template
    return out


def missing_rows(tokenizer: PreTrainedTokenizerFast, vocab_rows: int) -> int:
    """By how many rows an embedding must grow to hold all of a tokenizer's ids."""
    return max(0, max(tokenizer.get_vocab().values()) + 1 - vocab_rows)


def _rendered(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, reply: bool
) -> str:
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none for chats
        raise ConfigError(f"{tokenizer.name_or_path}: {error}") from None
    # A template that knows no thinking ignores the switch.
    text = render(
        template,
        messages,
        tokenizer.name_or_path,
        **{**tokenizer.special_tokens_map, "enable_thinking": False},
        add_generation_prompt=reply,
    )
    # One that knows no switch (DeepSeek-R1) has the answer begin with thoughts.
    thinks = reply and text.rstrip().endswith("<think>")
    return text.rstrip() + NO_THOUGHTS if thinks else text


def _reply_ids(tokenizer: PreTrainedTokenizerFast, text: str, cue: str) -> list[int]:
    if tokenizer.chat_template:
        return encode(tokenizer, _reply_text(tokenizer, text, cue), special=True)
    bos = str(tokenizer.bos_token or "")
    return encode(tokenizer, bos, special=True) + encode(tokenizer, text + cue.rstrip())


def _reply_text(tokenizer: PreTrainedTokenizerFast, text: str, cue: str) -> str:
    text = defuse(tokenizer, text)
    if tokenizer.chat_template:
        return _rendered(tokenizer, [{"role": "user", "content": text}], reply=True)
    return str(tokenizer.bos_token or "") + text + cue.rstrip()


# Llama 3, Gemma, Phi-3 and Mistral keep tokens for whoever needs one.
_RESERVED = re.compile(
    r"<\|reserved_special_token_(\d+)\|>|<unused(\d+)>|<\|placeholder(\d+)\|>"
    r"|\[control_(\d+)\]"
)


def _reserved(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Reserved special tokens, the last first: templates of families use early ones."""
    found = {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if _RESERVED.fullmatch(token.content)
        and token.content not in str(tokenizer.chat_template)
    }
    return sorted(found, key=lambda content: -found[content])


def _rename(backend: Tokenizer, names: dict[str, str]) -> Tokenizer:
    """A tokenizer with other spellings of some added tokens, on the same ids."""
    description = json.loads(backend.to_str())
    for token in description["added_tokens"]:
        if token["content"] in names:
            token.update(
                content=names[token["content"]], special=True, normalized=False
            )
    vocab = description["model"].get("vocab")
    if isinstance(vocab, dict):
        description["model"]["vocab"] = {names.get(k, k): v for k, v in vocab.items()}
    elif isinstance(vocab, list):  # Unigram: [piece, score]
        description["model"]["vocab"] = [[names.get(k, k), v] for k, v in vocab]
    return Tokenizer.from_str(json.dumps(description))
