"""Math-Shepherd (Wang et al., arXiv 2312.08935): steps with Monte-Carlo labels.

`input` is the question and the steps "Step 1: ...", each closed by the tag `ки`;
`label` is the same text with `+` or `-` in place of each tag. `+` says that a sampled
completion from there reached the right answer. An older release keeps the tags in
`label` and puts the sign behind them.
"""

from __future__ import annotations

from aprm_jax.data.jsonl import RowError, require_str
from aprm_jax.data.labelled import LabelledSolution, from_labels
from aprm_jax.data.readers.base import StepSource, optional_text
from aprm_jax.data.readers.numbered import opening, without_number

TAG = "ки"
_AROUND = " ?\n\r\t"
_SIGN = {"+": 1.0, "-": 0.0}


def parse(row: dict) -> list[LabelledSolution]:
    """One solution, without the tags and the "Step n:" before each step."""
    text, labelled = (
        require_str(row, field).replace("\r\n", "\n") for field in ("input", "label")
    )
    *parts, rest = text.split(TAG)
    if not parts:
        raise RowError(f"field 'input' has no tag {TAG!r}")
    if rest.strip(_AROUND):
        raise RowError(f"text behind the last tag: {rest.strip()[:40]!r}")
    labels = _signs(parts, labelled)
    start = opening(parts[0])
    if start is None:
        raise RowError("field 'input' has no 'Step 1:'")
    question = parts[0][:start].strip()
    if not question:
        raise RowError("field 'input' has no question before 'Step 1:'")
    # The older release has "?" behind each tag.
    texts = [parts[0][start:], *(part.removeprefix(" ?") for part in parts[1:])]
    steps = [without_number(text) for text in texts]
    if not all(steps):
        raise RowError(f"step {steps.index('') + 1} is empty")
    return [
        from_labels(
            question,
            steps,
            labels,
            category=optional_text(row, "task"),
        )
    ]


def _signs(parts: list[str], labelled: str) -> list[float]:
    """Labels, read at the places of the tags: a sign in the text is none."""
    labels, at = [], 0
    for k, part in enumerate(parts):
        # The older release has "ки ?" in one field, "ки +" in the other.
        text = part.removeprefix(" ?") if k else part
        if not labelled.startswith(text, at):
            raise RowError(f"fields 'input' and 'label' differ in step {k + 1}")
        at += len(text)
        behind = labelled[at:].removeprefix(TAG).lstrip(" ")
        if behind[:1] not in _SIGN:
            raise RowError(
                f"field 'label': step {k + 1} ends in {behind[:1]!r}, not + or -"
            )
        labels.append(_SIGN[behind[0]])
        at = len(labelled) - len(behind) + 1
    return labels


SOURCES = (
    StepSource("math_shepherd", parse, hub=("datasets:peiyi9979/Math-Shepherd",)),
)
