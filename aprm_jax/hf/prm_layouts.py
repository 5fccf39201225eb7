"""Published PRMs as R: how each lays out a solution, and what its head is.

Every layout comes to the same: a row of ids, one place in it where each step is read,
and a head of two classes there (`head="two_class"`), class 1 being correct. What
differs is data:

    layout         prompt and separator                    head in the checkpoint
    qwen2_prm      chat, steps joined by <extra_0>         score.0, ReLU, score.2
    math_shepherd  "question Step 1: ... ки\\nStep 2: ..."  LM logits of "+" and "-"
    trl            question, each step followed by "\\n"    score, of two labels
    skywork        question and "\\n", likewise             v_head.summary, a sigmoid

A softmax of two logits is a sigmoid of their difference, so a single value v is the two
classes (0, v), and two LM logits are a linear head that has those two rows. Sources:
the models' cards (Qwen/Qwen2.5-Math-PRM-7B, peiyi9979/math-shepherd-mistral-7b-prm),
TRL's `PRMTrainer.tokenize_row`, and SkyworkAI/skywork-o1-prm-inference.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32
from transformers import PreTrainedTokenizerFast

from aprm_jax.config.errors import UserError
from aprm_jax.data.prompts import chat_ids, encode
from aprm_jax.data.rows import StepRow
from aprm_jax.data.steps import RowFormat, defuse
from aprm_jax.hf.config import read_config
from aprm_jax.models import heads
from aprm_jax.models.io import ModelFileError

HEAD = "two_class"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_QWEN_SEPARATOR = "<extra_0>"
_SHEPHERD_TAG, _SHEPHERD_GOOD, _SHEPHERD_BAD = "ки", "+", "-"
_POLICY = r"[-_.](rl|sft|ppo|dpo|policy|generator|solver)\b"
# What `id2label` may call a wrong step and a correct one, in lower case.
_LABELS = (
    ("label_0", "incorrect", "wrong", "false", "negative", "bad", "no", "0", "-"),
    ("label_1", "correct", "right", "true", "positive", "good", "yes", "1", "+"),
)

Rows = tuple[list[int], list[int]]  # ids, and where each step is read


class LayoutError(UserError, ValueError):
    """A tokenizer or a checkpoint is not what a PRM's layout needs."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """One published layout.

    Attributes:
      name: its key in LAYOUTS.
      architectures: what of config.json's `architectures` it is on; its end.
      keys: of the head in the checkpoint, and their shapes; D is the hidden size, C
        the classes, and V the vocabulary. A key that ends with "?" may be missing.
      build: (tokenizer, question, steps) to ids and reads.
    """

    name: str
    architectures: tuple[str, ...]
    keys: Mapping[str, tuple[str, ...]]
    build: Callable[[PreTrainedTokenizerFast, str, Sequence[str]], Rows]

    @property
    def ignored(self) -> tuple[str, ...]:
        """Patterns of the head's keys, for whoever reads the backbone alone."""
        names = (re.escape(key.rstrip("?")) for key in self.keys)
        return tuple(f"^{name}$" for name in names)

    def shapes(
        self, d_model: int, vocab_size: int, found: Collection[str], classes: int = 2
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the head's tensors; of those that may be missing, the found."""
        sizes = {"D": d_model, "V": vocab_size, "C": classes, "1": 1}
        return {
            key.rstrip("?"): tuple(sizes[axis] for axis in axes)
            for key, axes in self.keys.items()
            if not key.endswith("?") or key.rstrip("?") in found
        }


def detect(directory: str | os.PathLike[str], name: str = "") -> str | None:
    """The layout of a model's folder by its config.json; None for a language model.

    Math-Shepherd's config is any Mistral's: it is known by its name, in the folder's,
    in `name` or in `_name_or_path`; a policy trained with it ("-rl", "-sft") is none.

    Args:
      directory: the folder.
      name: OWNER/NAME of the hub, whose folders are called otherwise.

    Raises:
      ModelFileError: no config.json, or a scorer whose classes are not two, wrong and
        correct, in this order.
    """
    try:
        config = read_config(directory)
    except (OSError, ValueError) as error:
        raise ModelFileError(str(error)) from error
    names = config.get("architectures") or [""]
    for layout in (QWEN2_PRM, SKYWORK, TRL):
        if str(names[0]).endswith(layout.architectures):
            _check_classes(layout, config, directory)
            return layout.name
    called = (Path(name).name, Path(directory).name, config.get("_name_or_path", ""))
    if str(names[0]).endswith(MATH_SHEPHERD.architectures) and any(
        re.search("math.?shepherd", each) and not re.search(_POLICY, each)
        for each in (str(each).lower() for each in called)
    ):
        return MATH_SHEPHERD.name
    return None


def build_ids(
    layout: str, tokenizer: PreTrainedTokenizerFast, question: str, steps: Sequence[str]
) -> Rows:
    """A solution as its publishers lay it out.

    Where the tokenizer would merge a separator with the text before it, the ids are
    those of the parts, so that no read is ever lost; elsewhere they are those of the
    publishers' string.

    Args:
      layout: of LAYOUTS.
      tokenizer: the model's, from its folder.
      question: the problem.
      steps: of the solution.

    Returns:
      The ids, and the index in them at which each step is read.

    Raises:
      LayoutError: the tokenizer lacks what the layout needs.
    """
    return LAYOUTS[layout].build(tokenizer, question, steps)


def head_params(
    layout: str,
    tensors: Mapping[str, np.ndarray],
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, Any]:
    """The two-class head that computes what the checkpoint's does.

    Args:
      layout: of LAYOUTS.
      tensors: at least those of `Layout.shapes`, as the checkpoint has them.
      tokenizer: finds Math-Shepherd's two tokens.

    Returns:
      kernel [D, 2] and bias [2], float32; for qwen2_prm besides `hidden`, with kernel
      [D, D] and bias [D], which a ReLU follows.

    Raises:
      LayoutError: a tensor is missing.
    """

    def read(key: str) -> np.ndarray:
        return np.asarray(tensors[key]).astype(np.float32)

    try:
        if layout == QWEN2_PRM.name:
            first, last = (
                _linear(read(f"score.{i}.weight"), read(f"score.{i}.bias"))
                for i in (0, 2)
            )
            return {"hidden": first, **last}
        if layout == TRL.name:
            bias = "score.bias" in tensors
            zero = np.zeros(2, np.float32)
            return _linear(read("score.weight"), read("score.bias") if bias else zero)
        if layout == SKYWORK.name:
            pair = read("v_head.summary.weight"), read("v_head.summary.bias")
            return _linear(*(np.concatenate([np.zeros_like(x), x]) for x in pair))
        good, bad = shepherd_tokens(tokenizer)
        rows = np.asarray(tensors["lm_head.weight"][[bad, good]]).astype(np.float32)
        return _linear(rows, np.zeros(2, np.float32))
    except KeyError as error:
        raise LayoutError(f"the {layout} checkpoint has no {error}") from None


def head_tensors(layout: str, head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A head as the layout's checkpoint has it: the inverse of `head_params`.

    Args:
      layout: of LAYOUTS.
      head: a two-class one.

    Raises:
      LayoutError: the layout cannot hold this head.
    """
    if layout == MATH_SHEPHERD.name:
        raise LayoutError(
            "math_shepherd reads two rows of the LM head, which has no bias, unlike a "
            "head that was trained: export token_classification"
        )
    if ("hidden" in head) != (layout == QWEN2_PRM.name):
        raise LayoutError(
            f"{layout} has {'' if layout == QWEN2_PRM.name else 'no '}two layers, "
            "unlike this head"
        )
    kernel = _rows(head["kernel"])
    bias = np.asarray(head["bias"], np.float32)
    if layout == QWEN2_PRM.name:
        hidden = head["hidden"]
        return {
            "score.0.weight": _rows(hidden["kernel"]),
            "score.0.bias": np.asarray(hidden["bias"], np.float32),
            "score.2.weight": kernel,
            "score.2.bias": bias,
        }
    if layout == TRL.name:
        return {"score.weight": kernel, "score.bias": bias}
    return {
        "v_head.summary.weight": kernel[1:] - kernel[:1],
        "v_head.summary.bias": bias[1:] - bias[:1],
    }


def log_odds(
    head: Mapping[str, Any], hidden: Float[Array, "B S D"]
) -> Float32[Array, "B S"]:
    """Log-odds of correct, from the final hidden states where steps are read.

    The probability of the model's card is their sigmoid.
    """
    classes = heads.class_logits(head, hidden)
    return classes[..., 1] - classes[..., 0]


def scores(
    head: Mapping[str, Any], hidden: Float[Array, "B S D"]
) -> Float32[Array, "B S"]:
    """Probability of correct, as the models' cards print it."""
    return jax.nn.sigmoid(log_odds(head, jnp.asarray(hidden)))


class LayoutBuilder(RowFormat):
    """Lays solutions out as a published PRM wants them.

    A row is always one causal sequence, and a step's last token is the one where it is
    read; of the first step it is the only one. There is nothing to sample from it.

    Args:
      layout: of LAYOUTS.
      tokenizer: the model's own, without the step builder's tokens.
      buckets: lengths that rows are padded to, ascending.
    """

    def __init__(
        self,
        layout: str,
        tokenizer: PreTrainedTokenizerFast,
        buckets: Sequence[int],
    ):
        spare = tokenizer.pad_token or tokenizer.eos_token or tokenizer.unk_token
        # Padding is masked: without any of these the first id will do.
        super().__init__(tokenizer, tokenizer.get_vocab().get(str(spare), 0), buckets)
        self.layout = layout
        ids, reads = build_ids(layout, tokenizer, "1 + 1 = ?", ["1 + 1 = 2"])
        self.step_id = ids[reads[0]]
        self.bos_id = ids[0]

    def _lay_out(
        self,
        question: str,
        steps: Sequence[str],
        read: Sequence[int],
        labels: Sequence[float],
    ) -> StepRow:
        ids, reads = build_ids(self.layout, self.tokenizer, question, steps)
        step_ids = [-1] * len(ids)
        for index, k in enumerate(read):
            first = reads[k - 1] + 1 if k else reads[k]
            step_ids[first : reads[k] + 1] = [index] * (reads[k] + 1 - first)
        return self._row([(ids, step_ids)], labels)


def shepherd_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, int]:
    """Ids of Math-Shepherd's "+" and "-".

    Raises:
      LayoutError: they are no two tokens.
    """
    ids = encode(tokenizer, f"{_SHEPHERD_GOOD} {_SHEPHERD_BAD}")
    if len(ids) != 2:
        raise LayoutError(
            f"math_shepherd needs a tokenizer to which '+ -' is two tokens, not {ids}"
        )
    return ids[0], ids[1]


def qwen_messages(question: str, steps: Sequence[str]) -> list[dict[str, str]]:
    """The chat that Qwen's PRMs read: each step ends with the separator."""
    question, *steps = (
        # By name: in old files the separator is an ordinary added token.
        text.replace(_QWEN_SEPARATOR, "< extra_0>")
        for text in (question, *steps)
    )
    reply = "".join(step + _QWEN_SEPARATOR for step in steps)
    return [
        {"role": "system", "content": QWEN_SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": reply},
    ]


def _qwen2_prm(
    tokenizer: PreTrainedTokenizerFast, question: str, steps: Sequence[str]
) -> Rows:
    separator = tokenizer.get_vocab().get(_QWEN_SEPARATOR)
    if separator is None:
        raise LayoutError(f"qwen2_prm: the tokenizer has no {_QWEN_SEPARATOR!r}")
    if not tokenizer.chat_template:
        raise LayoutError("qwen2_prm: the tokenizer has no chat template")
    question, *steps = (defuse(tokenizer, text) for text in (question, *steps))
    ids = chat_ids(tokenizer, qwen_messages(question, steps), reply=False)
    reads = [i for i, token in enumerate(ids) if token == separator]
    if len(reads) != len(steps):
        raise LayoutError(
            f"qwen2_prm: {len(reads)} {_QWEN_SEPARATOR} in the ids of {len(steps)} "
            "steps: the chat template does not keep the answer as it is"
        )
    return ids, reads


def _math_shepherd(
    tokenizer: PreTrainedTokenizerFast, question: str, steps: Sequence[str]
) -> Rows:
    tag = encode(tokenizer, _SHEPHERD_TAG)
    if len(tag) != 1:
        raise LayoutError(
            f"math_shepherd: {_SHEPHERD_TAG!r} must be one token, not {tag}"
        )
    ids, reads = opening(tokenizer), []
    for k, step in enumerate(steps):
        text = step.strip()
        if not re.match(r"Step \d+:", text):
            text = f"Step {k + 1}: {text}"
        # A text's first token depends on what it follows: after a tag, on the tag.
        if k == 0:
            ids += encode(tokenizer, f"{question.strip()} {text}")
        else:
            ids += encode(tokenizer, f"{_SHEPHERD_TAG}\n{text}")[1:]
        reads.append(len(ids))
        ids += tag
    return ids if steps else ids + encode(tokenizer, question.strip()), reads


def _trl(
    tokenizer: PreTrainedTokenizerFast, question: str, steps: Sequence[str]
) -> Rows:
    separator = encode(tokenizer, "\n")
    ids, reads = opening(tokenizer) + encode(tokenizer, question), []
    for step in steps:
        ids += encode(tokenizer, step) + separator
        reads.append(len(ids) - 1)
    return ids, reads


def _skywork(
    tokenizer: PreTrainedTokenizerFast, question: str, steps: Sequence[str]
) -> Rows:
    if tokenizer.bos_token is None:
        raise LayoutError("skywork: the tokenizer has no bos token")
    separator = encode(tokenizer, "\n")[-1]
    ids, reads = opening(tokenizer) + encode(tokenizer, question + "\n"), []
    for step in steps:
        # A separator inside a step splits it for the model; its end alone is read.
        for line in step.split("\n"):
            if line:
                ids += [*encode(tokenizer, line), separator]
        if not step.strip("\n"):
            ids.append(separator)
        reads.append(len(ids) - 1)
    return ids, reads


def opening(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What opens a row: bos, where the tokenizer has one."""
    if tokenizer.bos_token is None:
        return []
    return [tokenizer.get_vocab()[str(tokenizer.bos_token)]]


def _linear(
    weight: Float32[np.ndarray, "C D"], bias: Float32[np.ndarray, " C"]
) -> dict[str, Any]:
    return {"kernel": jnp.asarray(weight.T), "bias": jnp.asarray(bias)}


def _rows(kernel: Any) -> Float32[np.ndarray, "C D"]:
    return np.ascontiguousarray(np.asarray(kernel, np.float32).T)


def _check_classes(
    layout: Layout, config: Mapping[str, Any], directory: str | os.PathLike[str]
) -> None:
    labels = config.get("num_labels", len(config.get("id2label") or (0, 1)))
    if layout is not SKYWORK and labels != 2:
        raise ModelFileError(
            f"{Path(directory) / 'config.json'}: a PRM has 2 labels, this model "
            f"{labels}"
        )
    named = config.get("id2label")
    if not isinstance(named, Mapping):
        return
    for index, right in enumerate(_LABELS):
        label = str(named.get(str(index), right[0]))
        if label.strip().lower() not in right:
            raise ModelFileError(
                f"{Path(directory) / 'config.json'}: id2label calls class {index} "
                f"{label[:80]!r}. Class 0 of a PRM is wrong and class 1 correct, which "
                f"these names say: {', '.join(_LABELS[0])}; {', '.join(_LABELS[1])}"
            )


QWEN2_PRM = Layout(
    name="qwen2_prm",
    architectures=("ForProcessRewardModel",),
    keys={
        "score.0.weight": ("D", "D"),
        "score.0.bias": ("D",),
        "score.2.weight": ("C", "D"),
        "score.2.bias": ("C",),
    },
    build=_qwen2_prm,
)
MATH_SHEPHERD = Layout(
    name="math_shepherd",
    architectures=("MistralForCausalLM",),
    keys={"lm_head.weight": ("V", "D")},
    build=_math_shepherd,
)
TRL = Layout(
    name="trl",
    architectures=("ForTokenClassification",),
    keys={"score.weight": ("C", "D"), "score.bias?": ("C",)},
    build=_trl,
)
SKYWORK = Layout(
    name="skywork",
    architectures=("ForPrmModel",),
    keys={"v_head.summary.weight": ("1", "D"), "v_head.summary.bias": ("1",)},
    build=_skywork,
)
LAYOUTS = {x.name: x for x in (QWEN2_PRM, MATH_SHEPHERD, TRL, SKYWORK)}
