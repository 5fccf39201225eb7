"""Searches from the cache are the searches that read everything again."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import tiny
import tiny_game
import tiny_solver
import tiny_tokenizers
from tiny_game import DECODER

from aprm_jax.hf.prm_layouts import LayoutBuilder
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.engine import Engine
from aprm_jax.search.mcts import MCTS
from aprm_jax.search.methods import DVTS, Beam, BestOfN, Rebase
from aprm_jax.search.pick import PICKS, candidates, pick
from aprm_jax.solvers.stepwise import UncachedSolver
from aprm_jax.verifiers.models import ModelVerifier, prm_verifier
from aprm_jax.verifiers.stepwise import UncachedVerifier

QUESTIONS = ["1 + 2 * 3", "7 * 8", "4 + 1 * 7 - 8"]
GRADER = tiny_solver.Digits()
MIN = Aggregation("min")
HEAD = "two_class"
METHODS = [BestOfN(6), Beam(8, 2), DVTS(8, 4), Rebase(8), MCTS(iterations=4)]
KEY = jax.random.key(2)


@functools.cache
def _solver(grader=GRADER):
    return tiny_solver.solver(_builder(), grader=grader)


@functools.cache
def _builder():
    return tiny_game.builder(None, (64, 128), line_stride=9)


@functools.cache
def _verifier(scale: float = 1.0) -> ModelVerifier:
    params = tiny_game.prm(head="two_class")
    params["head"] = jax.tree.map(lambda x: x * scale, params["head"])
    return prm_verifier(DECODER, "two_class", params, _builder(), max_steps=8)


def _searched(method, solver, verifier):
    """The trees from the cache, and those of all rows read anew."""
    makers = (
        (solver, verifier),
        (UncachedSolver.of(solver), UncachedVerifier.of(verifier)),
    )
    return [Engine(*pair, method, MIN, 5).search(QUESTIONS, KEY) for pair in makers]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_search_finds_the_same_tree_and_answer(method):
    verifier = _verifier()
    for mine, other in zip(*_searched(method, _solver(), verifier), strict=True):
        assert [(n.parent, n.text, n.slots, n.dropped) for n in mine.nodes] == [
            (n.parent, n.text, n.slots, n.dropped) for n in other.nodes
        ]
        scores = [[n.score for n in tree.nodes] for tree in (mine, other)]
        np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-5)
        found = [
            candidates(tree, GRADER, verifier.scale, MIN) for tree in (mine, other)
        ]
        for how in PICKS:
            one, two = (pick(c, how) for c in found)
            assert (one and one.node) == (two and two.node)
        spent, naive = mine.ledger, other.ledger
        assert spent.decoded == naive.decoded and spent.peak_kv_bytes > 0
        assert spent.prefilled < naive.prefilled
        assert spent.verifier_tokens < naive.verifier_tokens
        assert spent.flops < naive.flops


def test_a_verifier_that_tells_nothing_apart_drops_nothing_by_chance():
    cached, again = _searched(Beam(8, 2), _solver(), _verifier(0.0))
    for mine, other in zip(cached, again, strict=True):
        assert not np.nan_to_num([n.score for n in mine.nodes]).any()
        assert repr([(n.text, n.slots) for n in mine.nodes]) == repr(
            [(n.text, n.slots) for n in other.nodes]
        )


def test_a_verifier_may_read_another_tokenizer_than_the_solver_writes():
    """Text is all that goes from one to the other: no id means the same to both."""
    tokenizer = tiny_tokenizers.byte_level()
    assert tokenizer.get_vocab() != _builder().tokenizer.get_vocab()
    decoder = Decoder(tiny.decoder(len(tokenizer)))
    params = heads.init_prm(
        jax.random.key(1),
        tiny.backbone(decoder.config, 1),
        decoder.config.d_model,
        HEAD,
    )
    builder = LayoutBuilder("qwen2_prm", tokenizer, (256,))
    verifier = prm_verifier(decoder, HEAD, params, builder, max_steps=8)
    for tree in Engine(_solver(), verifier, Beam(8, 2), MIN, 5).search(QUESTIONS, KEY):
        read = [k for k, node in enumerate(tree.nodes) if k and node.closed]
        paths = [(tree.question, tree.steps(k)) for k in read]
        alone = [scores[-1] for scores in verifier.score(paths)]
        found = [tree.nodes[k].score for k in read]
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
        assert len(read) > 8 and len({round(score, 6) for score in found}) > 4


def test_a_long_search_reads_no_token_twice():
    """Each question once; each drawn token once by the solver, once by the verifier."""
    solver, builder = _solver(tiny_solver.Endless()), _builder()
    engine = Engine(solver, _verifier(), BestOfN(4), MIN, 4)
    for tree in engine.search(QUESTIONS, KEY):
        ledger, read = tree.ledger, len(builder.context(tree.question, ()))
        assert ledger.prefilled == read
        drawn = sum(
            len(builder.encode(node.text)) + 1 for node in tree.nodes[1:] if node.closed
        )
        assert ledger.verifier_tokens <= read + drawn
        assert ledger.verifier_tokens > read
