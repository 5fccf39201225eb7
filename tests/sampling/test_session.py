"""A session that goes on from its cache against one forward pass over whole rows."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import tiny_game
from tiny_decoder import CONFIGS, SMALL, forward, make_params

from aprm_jax.data.steps import StepBuilder
from aprm_jax.models import heads
from aprm_jax.models.architecture import RopeScaling
from aprm_jax.models.decoder import Decoder
from aprm_jax.sampling import drawing
from aprm_jax.sampling import session as session_module
from aprm_jax.sampling.drawing import TOKENS_A_LOOK
from aprm_jax.sampling.programs import Programs
from aprm_jax.sampling.session import Session
from aprm_jax.sampling.stops import Stops

KEY = jax.random.key(3)
FAMILIES = {
    "grouped": SMALL,
    # More layers than are unrolled, an LM head of its own.
    "deep": dataclasses.replace(CONFIGS["deep"], tie_embeddings=False),
    "windows": dataclasses.replace(SMALL, layer_pattern="l", sliding_window=3),
    "mixed": dataclasses.replace(
        SMALL,
        num_layers=3,
        layer_pattern="lg",
        sliding_window=4,
        local_rope_theta=100.0,
        attention_bias="qkv",
        logit_softcap=5.0,
        qk_norm=True,
        post_norms=True,
        unit_offset_norms=True,
        scale_embeddings=True,
    ),
    "dot_product": dataclasses.replace(SMALL, attention="dot_product_attention"),
}


def prompts(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(7, 37, k).tolist() for k in rng.integers(1, 9, n)]


def lp_scorer(config):
    """log p of each token that is read, from the state before it."""

    def score(backbone, head, before, states, tokens):
        decoder = Decoder(config)
        logits = decoder.apply({"params": backbone}, before, method=Decoder.logits)
        logprobs = jax.nn.log_softmax(logits)
        return jax.numpy.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]

    return score


def whole(config, params, ids, places=None):
    """log p of every token but the first of one row, from one forward pass."""
    n = len(ids)
    row = np.zeros((1, -(-n // 64) * 64), np.int32)  # few lengths, few programs
    row[0, :n] = ids
    positions = np.arange(row.size)[None]
    positions[0, :n] = positions[0, :n] if places is None else places
    logits = forward(config, params, row, positions)
    logprobs = np.asarray(jax.nn.log_softmax(logits))[0, : n - 1]
    return np.take_along_axis(logprobs, np.asarray(ids[1:])[:, None], axis=-1)[:, 0]


def make(config=SMALL, rows=None, **changes):
    programs = Programs(config, pad_id=0, scorer=lp_scorer(config))
    params = make_params(config)
    return Session(programs, params, rows or prompts(), **changes), programs, params


def narrow_always(monkeypatch):
    """Rows that go on by themselves do so wherever there is one fewer power of two."""
    monkeypatch.setattr(drawing, "WORTH_NARROWING", 2)
    monkeypatch.setattr(session_module, "WORTH_NARROWING", 2)
    monkeypatch.setattr(session_module, "_PART", 2)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_going_on_equals_one_forward_pass(name, narrow, monkeypatch):
    """Sampled, read, gathered and cut in turn: what whole rows say of every token."""
    if narrow:
        narrow_always(monkeypatch)
    config = FAMILIES[name]
    session, _, params = make(config)
    known = [{} for _ in range(5)]  # of each row: a token's place -> its log p
    rng, prompted = np.random.default_rng(1), [len(ids) for ids in session.ids]
    for turn in range(2):
        starts = [len(ids) for ids in session.ids]
        key = jax.random.fold_in(KEY, turn)
        found = session.sample(key, stops=Stops((5, 6)), max_new_tokens=4)
        drawn = [
            logprobs[:n]
            for logprobs, n in zip(found.logprobs, found.lengths, strict=True)
        ]
        new = [rng.integers(7, 37, rng.integers(0, 4)).tolist() for _ in starts]
        for row, at, parts in zip(
            known, starts, zip(drawn, session.read(new), strict=True), strict=True
        ):
            row.update(enumerate(np.concatenate(parts).tolist(), start=at))
        if turn == 0:  # read twice in a row, and shortened to what was read long ago
            starts = [len(ids) for ids in session.ids]
            for row, at, read in zip(
                known, starts, session.read([[8, 9]] * 5), strict=True
            ):
                row.update(enumerate(read.tolist(), start=at))
            session.cut([n + 2 - (k % 3) for k, n in enumerate(starts)])
            rows = [4, 0, 0, 2, 1]
            session.gather(rows)
            known = [dict(known[i]) for i in rows]
            prompted = [prompted[i] for i in rows]
    for ids, row, first in zip(session.ids, known, prompted, strict=True):
        expected = whole(config, params, ids)[first - 1 :]
        found = [row[place] for place in range(first, len(ids))]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def _read(session: Session, steps):
    """The scores of new tokens, of a session that has a scorer."""
    scores = session.read(steps)
    assert scores is not None
    return scores


def test_rows_that_go_on_alone_are_computed_alone(monkeypatch):
    """Fewer and fewer rows, and what each gets is what it gets among all."""
    stops = Stops((5, 6, 7, 8, 9, 10))
    steps = [[7] * n for n in (7, 1, 0, 2, 8, 1, 1, 3, 1)]

    def run():
        session, programs, _ = make(rows=prompts(9))
        sizes = {"resume": [], "read": []}
        resume, read = programs.resume, programs.read
        programs.resume = lambda *args: (
            sizes["resume"].append(len(args[3].stopped)) or resume(*args)
        )
        programs.read = lambda *args: sizes["read"].append(len(args[4])) or read(*args)
        drawn = session.sample(KEY, stops=stops, max_new_tokens=24)
        scores = session.read(steps)
        again = session.sample(KEY, stops=stops, max_new_tokens=24)
        return sizes, (drawn, again), scores

    wide, drawn, scores = run()
    assert wide == {"resume": [], "read": [16]}
    narrow_always(monkeypatch)
    narrow, found, read = run()
    # Nine among sixteen; then those of more than 2, 4, 6 and 8: one is unread before.
    assert narrow["read"] == [16, 4, 2, 2, 1]
    assert min(narrow["resume"]) <= 2 < max(narrow["resume"]) < 16
    for mine, other in zip(found, drawn, strict=True):
        np.testing.assert_array_equal(mine.tokens, other.tokens)
        np.testing.assert_array_equal(mine.lengths, other.lengths)
        np.testing.assert_array_equal(mine.stopped, other.stopped)
        np.testing.assert_allclose(mine.logprobs, other.logprobs, atol=1e-5)
    assert len(set(drawn[0].lengths.tolist())) > 3
    assert read is not None and scores is not None
    for mine, other in zip(read, scores, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_gathered_rows_equal_sessions_from_scratch():
    """What a row gets next is what it gets alone, whoever stood beside it."""
    session, programs, params = make()
    first = session.sample(KEY, stops=Stops(tuple(range(9))), max_new_tokens=6)
    assert len(set(first.lengths.tolist())) > 1
    session.gather([3, 1, 1])
    rebuilt = Session(programs, params, session.ids)
    options = {"stops": Stops((5, 6)), "max_new_tokens": 6, "draws": [7, 8, 9]}
    found, expected = (
        s.sample(jax.random.key(8), **options) for s in (session, rebuilt)
    )
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)
    new = [[9, 10], [11], [12, 13, 14]]
    for mine, other in zip(session.read(new), rebuilt.read(new), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


def test_nothing_is_read_twice(monkeypatch):
    """Tokens that go through the decoder: those of prompts, and each new one once."""
    session, programs, _ = make()
    counted = []
    read = programs.read

    def spy(*args):
        *_, given = args
        counted.append(np.asarray(given.counts).sum())
        return read(*args)

    monkeypatch.setattr(programs, "read", spy)
    monkeypatch.setattr(programs, "prefill", None)  # never again
    session.read([[7, 8, 9]] * 5)
    session.gather([0, 0, 0, 1])
    session.read([[7], [8, 9], [10], []])
    assert counted == [15, 4]


def test_few_programs_are_compiled():
    """A second search compiles nothing, and a long one little more than a short one."""

    def search(programs, params, turns):
        session = Session(programs, params, prompts(6))
        for turn in range(turns):
            session.sample(KEY, stops=Stops((5,)), max_new_tokens=4)
            session.gather(list(range(len(session) - (turn % 3 == 2))))

    programs = Programs(SMALL, pad_id=0)
    search(programs, make_params(SMALL), 6)
    compiled = programs.num_compiled
    # Rows in 8 or 4, prompts in 8 slots, heads in 16, 32 or 64; and gathers between.
    assert compiled <= 16
    search(programs, make_params(SMALL), 6)
    assert programs.num_compiled == compiled


def test_strided_lines_stand_where_the_builder_puts_them():
    """A closing `<step>` that was drawn opens the next line, at its stride."""
    builder = tiny_game.builder(None, (64,), line_stride=9)
    config, params = tiny_game.CONFIG, tiny_game.generator()["backbone"]
    programs = Programs(config, pad_id=builder.pad_id, scorer=lp_scorer(config))
    lines = [("1 + 2 * 3", ()), ("4 + 1 * 7 - 8", ("5 - 1",)), ("7 * 8", ("9",))]
    session = Session(
        programs,
        params,
        [builder.context(*line) for line in lines],
        positions=builder.positions,
    )
    closed = [builder.step_id]
    steps = [[*builder.encode(text), *closed] for text in ("3 + 4", "5", "7 * 8 - 1")]
    scores = [_read(session, steps), _read(session, steps[::-1])]
    stops = Stops(builder.replies.stop_ids)
    session.sample(KEY, stops=stops, max_new_tokens=6)
    session.read([closed] * 3)
    scores.append(_read(session, steps))
    for i, ids in enumerate(session.ids):
        read = [x for part in scores[:2] for x in part[i]]
        start = len(builder.context(*lines[i]))
        places = builder.positions(ids)
        expected = whole(config, params, ids, places)
        np.testing.assert_allclose(
            read, expected[start - 1 : start - 1 + len(read)], atol=1e-4
        )
        if not set(ids[start:]) & {builder.bos_id, builder.perturb_id}:
            np.testing.assert_allclose(
                scores[2][i], expected[-len(scores[2][i]) :], atol=1e-4
            )


def test_greedy_steps_are_those_of_prompts_built_anew():
    builder = tiny_game.builder(None, (64,), line_stride=12)
    config, params = tiny_game.CONFIG, tiny_game.generator()["backbone"]
    sampler = tiny_game.sampler(builder, 6)
    starts = [(p.question, p.prefix) for p in tiny_game.POINTS[:4]]
    contexts = [builder.context(*start) for start in starts]
    session = Session(
        Programs(config, pad_id=builder.pad_id),
        params,
        contexts,
        positions=builder.positions,
    )
    plain, openers = list(range(4)), {builder.bos_id, builder.perturb_id}
    for _ in range(3):
        replies = session.sample(
            KEY,
            stops=Stops(builder.replies.stop_ids),
            max_new_tokens=6,
            temperature=0.0,
        )
        anew = sampler.sample(params, contexts, KEY, temperature=0.0)
        np.testing.assert_array_equal(replies.tokens[plain], anew.tokens[plain])
        np.testing.assert_allclose(
            replies.logprobs[plain], anew.logprobs[plain], atol=1e-4
        )
        # A hostile reply opens no line in a session; in a prompt it would.
        plain = [i for i in plain if not openers & set(replies.tokens[i].tolist())]
        contexts = session.ids
    assert len(plain) > 1


@pytest.mark.parametrize("head", heads.HEADS)
def test_a_verifier_reads_new_steps_as_it_reads_whole_rows(head):
    builder: StepBuilder = tiny_game.builder(None, (64,), line_stride=9)
    prm, decoder = tiny_game.prm(head=head), tiny_game.DECODER

    def scorer(backbone, own, *view):
        return heads.token_scores(
            decoder, {"backbone": backbone, "head": own}, *view, head
        )

    programs = Programs(decoder.config, pad_id=builder.pad_id, scorer=scorer)
    questions = ["1 + 2 * 3", "4 + 1 * 7 - 8", "7 * 8"]
    session = Session(
        programs,
        prm["backbone"],
        [builder.context(q, ()) for q in questions],
        positions=builder.positions,
        head=prm["head"],
    )
    steps = [["1 + 6", "7"], ["4 + 7 - 8", "11 - 8"], ["56", "5"]]
    found = []
    for k in range(2):
        new = [[*builder.encode(s[k]), builder.step_id] for s in steps]
        found.append(
            [x.min() if head == "token" else x[-1] for x in _read(session, new)]
        )
    rows = [builder.solution(q, s) for q, s in zip(questions, steps, strict=True)]
    whole = heads.step_logits(decoder, prm, builder.collate(rows), head)
    np.testing.assert_allclose(np.transpose(found), whole, atol=1e-4)


def _spied(programs, monkeypatch) -> list[int]:
    """Tokens of each reading of prompts, as they are read."""
    counted: list[int] = []
    prefill = programs.prefill

    def spy(params, tokens, lengths, places):
        counted.append(int(np.asarray(lengths).sum()))
        return prefill(params, tokens, lengths, places)

    monkeypatch.setattr(programs, "prefill", spy)
    return counted


@pytest.mark.parametrize("seed", range(4))
def test_rows_follow_whatever_tokens_they_are_given(seed):
    """Of a random tree: some tokens dropped, replaced and appended, rows gathered."""
    rng = np.random.default_rng(seed)
    session, _, params = make(FAMILIES[("grouped", "mixed")[seed % 2]])
    config = session._programs.config
    for turn in range(4):
        if turn % 2:
            key = jax.random.fold_in(KEY, turn)
            session.sample(key, stops=Stops((5, 6)), max_new_tokens=4)
        session.gather(rng.integers(0, len(session), 4).tolist())
        before, wanted = session.ids, []
        for ids in before:
            stays = int(rng.integers(1, len(ids) + 1))
            more = rng.integers(7, 37, rng.integers(0, 5)).tolist()
            wanted.append([*ids[:stays], *more])
        counts = session.follow(wanted)
        assert session.ids == wanted
        if sum(counts) < sum(map(len, wanted)) / 2:
            same = [_common(a, b) for a, b in zip(before, wanted, strict=True)]
            assert counts == [len(b) - n for b, n in zip(wanted, same, strict=True)]
    for scores, ids in zip(_read(session, [[8, 9]] * 4), session.ids, strict=True):
        expected = whole(config, params, ids)[-2:]
        np.testing.assert_allclose(scores, expected, atol=1e-4)


def _common(one, other):
    pairs = zip(one, other, strict=False)
    differ = [k for k, (a, b) in enumerate(pairs) if a != b]
    return min([len(one), len(other), *differ[:1]])


def test_rows_of_which_next_to_nothing_stays_begin_anew(monkeypatch):
    session, programs, params = make(rows=[[7, 8, 9, 10], [7, 9]])
    counted = _spied(programs, monkeypatch)
    session.follow([[7, 8, 9, 11], [7, 9, 12]])  # all but a token stays
    assert counted == []
    other = [7, 20, 21, 22, 23, 24, 25, 26, 27]
    assert session.follow([other, other]) == [9, 0]  # equal rows are read once
    assert counted == [9]
    assert session.follow([other, [8, 9]]) == [9, 2]  # no token stays
    for scores, ids in zip(_read(session, [[8, 9]] * 2), session.ids, strict=True):
        np.testing.assert_allclose(scores, whole(SMALL, params, ids)[-2:], atol=1e-4)
    with pytest.raises(ValueError, match="at least one token"):
        session.follow([[7], []])


def test_tokens_that_move_are_read_again():
    """A row's positions may depend on what follows: `builder.positions` decides."""
    config, params = SMALL, make_params(SMALL)

    def centred(ids):  # a token's place counts from the last 7
        start = max((k for k, i in enumerate(ids) if i == 7), default=0)
        return np.arange(len(ids)) - start + 8

    programs = Programs(config, pad_id=0, scorer=lp_scorer(config))
    session = Session(programs, params, [[8, 9, 7, 10]], positions=centred)
    assert session.follow([[8, 9, 7, 10, 11]]) == [1]
    ids = [8, 9, 7, 10, 11, 7, 12]
    assert session.follow([ids]) == [7]
    (scores,) = _read(session, [[13]])
    places = centred([*ids, 13])
    np.testing.assert_allclose(
        scores, whole(config, params, [*ids, 13], places)[-1:], atol=1e-4
    )


def _letters(ids):
    return "".join("\n" if i % 3 == 0 else chr(97 + i % 26) for i in ids)


def test_a_text_that_several_tokens_spell_ends_a_reply():
    """Tokens, log-probabilities and text of what is kept; then on from there."""
    session, programs, params = make(rows=prompts(12, 4))
    starts, free = session.ids, Session(programs, params, session.ids)
    width = 3 * TOKENS_A_LOOK - 1
    stops = Stops((5,), ("\n\n",), _letters)
    found = session.sample(KEY, stops=stops, max_new_tokens=width)
    plain = free.sample(KEY, stops=Stops((5,)), max_new_tokens=width)
    ends = set()
    for i, text in enumerate(found.texts):
        ids = plain.tokens[i, : plain.lengths[i]].tolist()
        known = ids[:-1] if ids[-1] == 5 else ids
        place = _letters(known).find("\n\n")
        n = place + 2 if place >= 0 else len(ids)
        assert found.lengths[i] == n and found.tokens[i, :n].tolist() == ids[:n]
        assert text == _letters(known)[:n]
        assert (found.tokens[i, n:] == 0).all() and (found.logprobs[i, n:] == 0).all()
        np.testing.assert_allclose(
            found.logprobs[i, :n], plain.logprobs[i, :n], atol=1e-5
        )
        assert found.stopped[i] == (place >= 0 or ids[-1] == 5)
        assert session.ids[i] == starts[i] + ids[:n]
        ends.add((place >= 0, n > TOKENS_A_LOOK))
    assert {(True, False), (True, True)} <= ends
    again = session.sample(jax.random.key(1), stops=stops, max_new_tokens=4)
    for i, ids in enumerate(session.ids):
        n = int(again.lengths[i])
        np.testing.assert_allclose(
            again.logprobs[i, :n], whole(SMALL, params, ids)[-n:], atol=1e-4
        )


def test_rows_that_would_pass_longropes_first_length_are_refused():
    short, long = (1.0,) * 4, (3.0,) * 4
    scaling = RopeScaling(
        "longrope", 1.0, original_length=8, short_factor=short, long_factor=long
    )
    session, *_ = make(dataclasses.replace(SMALL, rope_scaling=scaling), [[7] * 6])
    session.read([[8, 9]])
    with pytest.raises(ValueError, match="longrope"):
        session.read([[10]])
    with pytest.raises(ValueError, match="longrope"):
        session.sample(KEY, stops=Stops((5,)), max_new_tokens=3)
    assert session.ids == [[7] * 6 + [8, 9]]
    # A whole row is read as a long one: what was cached of it is not.
    config, longer = session._programs.config, [7] * 6 + [8, 9, 10]
    assert session.follow([longer]) == [9]
    (scores,) = _read(session, [[8, 9]])
    expected = whole(config, make_params(config), [*longer, 8, 9])[-2:]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_what_cannot_be_is_refused():
    session, programs, params = make()
    for bad in ([], [[7], []]):
        with pytest.raises(ValueError, match="at least one token"):
            Session(programs, params, bad)
    with pytest.raises(ValueError, match="at least one row"):
        session.gather([])
    with pytest.raises(ValueError, match="cannot be cut to 0"):
        session.cut([0] * 5)
    with pytest.raises(ValueError, match="temperature"):
        session.sample(KEY, stops=Stops((5,)), max_new_tokens=3, temperature=-1.0)
