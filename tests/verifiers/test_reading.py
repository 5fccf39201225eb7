"""Models that read each new step from their cache say what whole rows say."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest
import tiny
import tiny_game
import tiny_tokenizers
from tiny_decoder import make_params
from tiny_game import DECODER, DOMAIN

from aprm_jax.data.prompted import PromptedSolver
from aprm_jax.data.prompts import encode, prepare_tokenizer
from aprm_jax.data.steps import RowFormat
from aprm_jax.hf.prm_layouts import LAYOUTS, LayoutBuilder
from aprm_jax.models import heads
from aprm_jax.models.architecture import RopeScaling
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.flops import attention_flops
from aprm_jax.verifiers.models import (
    BrokenModelError,
    likelihood_verifier,
    prm_verifier,
)
from aprm_jax.verifiers.protocol import StepVerifier
from aprm_jax.verifiers.stepwise import UncachedVerifier

QUESTIONS = ("1 + 2 * 3", "7 * 8")
TEXTS = ("1 + 6", "7", "5 6", "56 - 1", "1 + 6 + 4 + 4")
WORDS = tiny_tokenizers.QUESTION, "How many are left?"
SENTENCES = (*tiny_tokenizers.STEPS, "Step 2: left", "a\n\n")


class Marked(RowFormat):
    """A marker stands behind the step that is read, and behind no other."""

    def __init__(self, buckets=(64,)):
        super().__init__(DOMAIN.tokenizer, 0, buckets)
        self.bos_id, self.step_id = encode(DOMAIN.tokenizer, "? =")[:2]

    def _lay_out(self, question, steps, read, labels):
        (last,) = read or [-1]
        ids = [self.bos_id, *encode(self.tokenizer, question)]
        for step in steps:
            ids += encode(self.tokenizer, step)
        step_ids = [-1] * len(ids) + [0] * (last >= 0)
        return self._row([(ids + [self.step_id] * (last >= 0), step_ids)], labels)


def _prompted():
    tokenizer = prepare_tokenizer(DOMAIN.tokenizer, DECODER.config.vocab_size)
    return PromptedSolver(tokenizer, (64,), "{question} = {prefix} + 1 + 1 =")


def _prm(builder, head="token", decoder=DECODER, **rows):
    config = decoder.config
    params = heads.init_prm(
        jax.random.key(1), tiny.backbone(config, 1), config.d_model, head
    )
    return prm_verifier(decoder, head, params, builder, max_steps=8, **rows)


def _published(layout):
    of_pieces = layout == "math_shepherd"
    tokenizer = getattr(tiny_tokenizers, "sentencepiece" if of_pieces else "byte_level")
    tokenizer = tokenizer()
    decoder = Decoder(tiny.decoder(len(tokenizer)))
    builder = LayoutBuilder(layout, tokenizer, (256,))
    return _prm(builder, "two_class", decoder)


def _family(**changes):
    config = dataclasses.replace(DECODER.config, num_layers=2, **changes)
    builder = tiny_game.builder(None, (64,))
    decoder, backbone = Decoder(config), make_params(config)
    return likelihood_verifier(decoder, {"backbone": backbone}, builder, max_steps=8)


def _strided(window=None):
    return tiny_game.builder(window, (64,), line_stride=9)


LIKELIHOOD = {"backbone": tiny_game.generator()["backbone"]}
MODELS = {
    **{head: lambda head=head: _prm(_strided(), head) for head in heads.HEADS},
    "window": lambda: _prm(_strided(1)),
    "lines": lambda: _prm(_strided(2), "two_class"),
    "marked": lambda: _Alone(_prm(Marked(), "two_class")),
    "likelihood": lambda: likelihood_verifier(
        DECODER, LIKELIHOOD, _strided(), max_steps=8
    ),
    "prompted": lambda: likelihood_verifier(
        DECODER, LIKELIHOOD, _prompted(), max_steps=8
    ),
    **{layout: lambda layout=layout: _published(layout) for layout in LAYOUTS},
    "sliding": lambda: _family(layer_pattern="lg", sliding_window=4),
    "longrope": lambda: _family(
        rope_scaling=RopeScaling(
            "longrope",
            1.0,
            original_length=16,
            short_factor=(1.0,) * 4,
            long_factor=(3.0,) * 4,
        )
    ),
}


class _Alone:
    """A model whose layout has one step a row: each is scored by itself."""

    def __init__(self, model):
        self.cached, self.scale = model, model.scale

    def score(self, solutions):
        scorer, builder = self.cached.scorer, self.cached.scorer.builder
        keys = [(q, s[:k], s[k]) for q, s in solutions for k in range(len(s))]
        rows = {i: builder.step(*key) for i, key in enumerate(keys)}
        found = scorer.rows(self.cached.params, rows)
        scores = iter(found[i][0] for i in range(len(keys)))
        return [np.array([next(scores) for _ in s]) for _, s in solutions]


def _walk(verifier: StepVerifier, questions, texts, seed=0):
    """The scores that a random search gets, and its states."""
    rng, states, out = np.random.default_rng(seed), [], []
    rows, scores = verifier.begin([(q, ()) for q in questions])
    assert np.isnan(scores).all()
    for _ in range(3):
        size = int(rng.integers(3, 5))
        parents = rng.integers(0, len(rows.starts), size).tolist()
        steps = [texts[k] for k in rng.integers(0, len(texts), size)]
        rows, scores = verifier.read(rows, parents, steps)
        out.append(scores)
        states.append(rows)
    return out, states


@pytest.mark.parametrize("name", MODELS)
def test_steps_score_what_they_score_in_whole_rows(name):
    model = MODELS[name]()
    anew = UncachedVerifier.of(model)
    words = name in LAYOUTS
    texts = (WORDS, SENTENCES) if words else (QUESTIONS, TEXTS)
    cached = model.cached if name == "marked" else model
    found, states = _walk(cached, *texts)
    expected, _ = _walk(anew, *texts)
    for mine, other, rows in zip(found, expected, states, strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
        assert rows.num_bytes > 0 or name == "longrope"
    assert len({float(x) for x in found[-1]}) > 1  # or anything would pass
    # A branch that is entered later, and a bare question beside it.
    starts = [states[-1].starts[0], (texts[0][0], ())]
    rows, (deep, bare) = cached.begin(starts)
    assert math.isnan(bare)
    np.testing.assert_allclose(deep, found[-1][0], rtol=1e-5, atol=1e-5)
    (_, (after,)), (_, (other,)) = (
        v.read(v.begin(starts)[0], [0], [texts[1][0]]) for v in (cached, anew)
    )
    np.testing.assert_allclose(after, other, rtol=1e-5, atol=1e-5)


# Each way to read or lay out a question once.
BARE = ("token", "three_class", "lines", "marked", "qwen2_prm", "trl", "longrope")


@pytest.mark.parametrize("name", BARE)
def test_a_bare_question_has_a_value_where_scores_are_values(name):
    model = MODELS[name]()
    model = model.cached if isinstance(model, _Alone) else model
    questions = WORDS if name in LAYOUTS else QUESTIONS
    step = SENTENCES[0] if name in LAYOUTS else TEXTS[0]
    assert np.isnan(model.questions(questions)).all()
    of_values = dataclasses.replace(model, values=True)
    expected = of_values.questions(questions)
    assert np.isfinite(expected).all() and expected[0] != expected[1]
    # The same from the cache, from whole rows, and from the row that it is.
    starts = [(question, ()) for question in questions]
    rows, found = of_values.begin(starts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    _, anew = UncachedVerifier.of(of_values).begin(starts)
    np.testing.assert_allclose(anew, expected, rtol=1e-5, atol=1e-5)
    builder = model.scorer.builder
    row = builder.bare(questions[0], 0.25)
    assert row.labels.tolist() == [0.25] and (row.step_ids >= 0).sum() == 1
    # What follows is read as if nobody had asked.
    _, (after,) = of_values.read(rows, [1], [step])
    _, (other,) = model.read(model.begin(starts)[0], [1], [step])
    np.testing.assert_allclose(after, other, rtol=1e-5, atol=1e-5)


def test_a_bare_question_ends_where_a_step_would_begin():
    """In our own rows; and one that does not fit has no value."""
    builder = _strided()
    row = builder.bare(QUESTIONS[0])
    assert row.tokens.tolist() == builder.context(QUESTIONS[0], ())
    assert row.step_ids.tolist() == [-1] * (len(row) - 1) + [0]
    model = _prm(tiny_game.builder(None, (24,)), values=True)
    long = " + ".join("1" * 20)
    asked = [QUESTIONS[0], long]
    assert np.isnan(model.questions(asked)).tolist() == [False, True]
    _, found = model.begin([(question, ()) for question in asked])
    assert np.isnan(found).tolist() == [False, True]


def test_each_token_is_read_once():
    """But for what a layout shows of no other step: the marker, and prompts' ends."""
    builder, texts = _strided(), ["1 + 6", "7", "5 6"]
    model = MODELS["token"]()
    rows, _ = model.begin([(QUESTIONS[0], ())] * 3)
    size = len(builder.context(QUESTIONS[0], ()))
    assert rows.prefilled == (size, 0, 0)  # equal questions once
    spent = rows.attention[0]
    sizes = tuple(len(builder.encode(text)) + 1 for text in texts)
    rows, _ = model.read(rows, [0, 0, 1], texts)
    assert rows.prefilled == sizes
    whole = attention_flops(DECODER.config, size + sizes[0], size + sizes[0])
    assert spent + rows.attention[0] == whole
    rows, _ = model.read(rows, [2, 2, 0], texts)
    assert rows.prefilled == sizes
    layout = _published("qwen2_prm")
    question, (first, second, *_) = WORDS[0], SENTENCES
    rows, _ = layout.begin([(question, ())])
    rows, _ = layout.read(rows, [0], [first])
    rows, _ = layout.read(rows, [0], [second])
    tokenizer = layout.scorer.builder.tokenizer
    assert rows.prefilled == (len(encode(tokenizer, second)) + 1,)  # <extra_0>


@pytest.mark.parametrize("window", [None, 2])
def test_a_step_that_does_not_fit_is_nan_and_so_is_what_follows(window):
    model = _prm(tiny_game.builder(window, (24,)))
    long = "1 + 2 + 3 + 4 + 5 + 6 + 7 + 8"
    steps = [("1 + 6", long, "7"), ("1 + 6", "7", "7")]
    rows, _ = model.begin([(QUESTIONS[0], ())])
    parents, found = [0, 0], []
    for pair in zip(*steps, strict=True):
        rows, scores = model.read(rows, parents, pair)
        found.append(scores)
        parents = [0, 1]
    expected = model.score([(QUESTIONS[0], s) for s in steps])
    np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-5, atol=1e-5)
    assert np.isnan(found[1][0]) and np.isnan(found[2][0])
    assert rows.prefilled[0] == 0
    # From none of its rows, a beginning among them.
    rows, scores = model.begin([(QUESTIONS[0], steps[0]), (long * 3, ())])
    assert np.isnan(scores).all() and rows.session is None
    rows, scores = model.read(rows, [0, 1, 1], ["7"] * 3)
    assert np.isnan(scores).all() and rows.prefilled == (0, 0, 0)


def test_a_broken_model_is_told():
    model = MODELS["two_class"]()
    broken = jax.tree.map(lambda x: x * np.nan, model.params)
    model = dataclasses.replace(model, params=broken)
    rows, _ = model.begin([(QUESTIONS[0], ())])
    with pytest.raises(BrokenModelError):
        model.read(rows, [0], ["7"])


def test_a_search_compiles_few_programs():
    model = MODELS["two_class"]()

    def search(width):
        rows, _ = model.begin([(QUESTIONS[0], ())])
        for _ in range(6):
            parents = [k % len(rows.starts) for k in range(width)]
            rows, _ = model.read(rows, parents, [TEXTS[k % 5] for k in range(width)])

    search(8)
    known = model.steps.num_compiled
    # A prefill; rows of 32 or 64 slots, gathered and read.
    assert known <= 8
    search(8)
    search(7)  # padded to the same
    assert model.steps.num_compiled == known


def test_a_branch_is_entered_from_the_rows_that_are_there():
    model, question = MODELS["token"](), QUESTIONS[0]
    builder = model.scorer.builder
    rows, _ = model.begin([(q, ()) for q in QUESTIONS])
    rows, _ = model.read(rows, [0, 0], ["1 + 6", "7"])
    starts = [(question, ("1 + 6", "5 6")), (question, ("1 + 6",)), (QUESTIONS[1], ())]
    rows, scores = model.begin(starts, rows)
    expected = [float(model.score([start])[0][-1]) for start in starts[:2]]
    np.testing.assert_allclose(scores[:2], expected, rtol=1e-5, atol=1e-5)
    assert math.isnan(scores[2])
    # The last step of each is read, for its score; of another question all but <bos>.
    lines = [len(builder.encode(text)) + 1 for text in ("5 6", "1 + 6")]
    assert rows.prefilled == (*lines, len(builder.context(QUESTIONS[1], ())) - 1)
