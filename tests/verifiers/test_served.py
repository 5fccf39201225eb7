"""A verifier over HTTP: what is asked, what may come back, and whose scores it is."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tiny_server import FAST, SECRET, Reply, of_prm, scored, serving

import aprm_jax
from aprm_jax.config import ConfigError, default_config, validate, with_fields
from aprm_jax.config.addresses import read_address
from aprm_jax.data.prompts import encode
from aprm_jax.hf import prm_layouts
from aprm_jax.hf.locate import load_any
from aprm_jax.rl.sources import said
from aprm_jax.servers.client import EndpointError
from aprm_jax.solvers.protocol import Solution
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.verifiers.named import (
    UnknownVerifierError,
    fingerprint_of,
    open_verifier,
    verifier_of,
)
from aprm_jax.verifiers.protocol import Scored
from aprm_jax.verifiers.served import NotScoredError, chat_text, open_served

PAIRS = [(question, steps) for question, steps, _ in tiny.solutions()]
ONE = [("1 + 2 * 3 =", ("1 + 6", "7"))]


def probabilities(verifier: Any, pairs: Any = ONE) -> list[list[float]]:
    return [row.tolist() for row in Scored.by(verifier, pairs).probabilities()]


def served(url: str, folder: Any = None, **limits: Any):
    fields = {name: getattr(FAST, name) for name in FAST.__dataclass_fields__}
    return open_served(url, type(FAST)(**(fields | limits)), folder)


# Whose scores they are.


def test_the_scores_of_a_served_prm_are_those_of_the_prm(tmp_path):
    prm = aprm_jax.PRM.load(tiny.save(tmp_path / "prm", "prm"))
    long = ("1 + 2 =", ("3", "1 + " * 40))
    pairs = [*PAIRS, ("7 + 1 =", ()), PAIRS[0], long]
    with serving(of_prm(prm)) as server:
        found = probabilities(open_verifier([server.url]), pairs)
    expected = probabilities(prm.verifier, pairs)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert np.isnan(found[-1]).tolist() == [False, True] and found[3] == []
    # Equal ones are asked about once, one without steps never.
    asked = sorted((body["question"], len(body["steps"])) for body in server.bodies)
    assert asked == sorted((q, len(s)) for q, s in {*PAIRS, long})
    assert server.bodies[0].keys() == {"path", "question", "steps"}


def test_the_server_of_the_docs_serves_a_prm(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "endpoints.md"
    code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[0]
    tiny.save(tmp_path / "runs" / "mine" / "aprm" / "model", "prm")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), names)
    try:
        long = ("1 + 2 =", ("3", "1 + " * 40))
        found = probabilities(open_verifier([names["address"]]), [*PAIRS, long])
    finally:
        names["server"].shutdown()
        names["server"].server_close()
    expected = probabilities(names["prm"].verifier, [*PAIRS, long])
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_null_is_a_step_that_was_not_read_and_so_is_a_text_without_room():
    with serving(lambda *_: scored(0.5, None)) as server:
        np.testing.assert_array_equal(
            probabilities(served(server.url)), [[0.5, np.nan]]
        )
    full = json.dumps({"message": "longer than the maximum model length"}).encode()
    with serving(lambda *_: (400, {}, full)) as server:
        assert np.isnan(probabilities(served(server.url))).all()
    assert len(server.bodies) == 1


def test_certainty_is_finite():
    with serving(lambda *_: scored(0, 1)) as server:
        (row,) = served(server.url).score(ONE)
    assert np.isfinite(row).all() and row[0] < -20 and row[1] > 20


def test_several_and_a_search_ask_a_server_as_any_verifier(tmp_path):
    tiny.save(tmp_path / "solver", "solver", max_new_tokens=6)
    prm = aprm_jax.PRM.load(tiny.save(tmp_path / "prm", "prm"))
    options: dict[str, Any] = {"solver": tmp_path / "solver", "n": 4, "max_steps": 2}
    with serving(of_prm(prm)) as server:
        found = aprm_jax.search("1 + 2 * 3 =", verifier=server.url, **options)
        both = open_verifier([server.url, "oracle:arithmetic"], "min")
        least = probabilities(both, PAIRS)
    own = aprm_jax.search("1 + 2 * 3 =", verifier=prm, **options)
    drawn = [[(n.parent, n.text) for n in o.tree.nodes] for o in (found, own)]
    assert drawn[0] == drawn[1] and len(drawn[0]) > 3
    alone = [probabilities(v, PAIRS) for v in (prm.verifier, both.verifiers[1])]
    for row, mine, oracle in zip(least, *alone, strict=True):
        np.testing.assert_allclose(row, np.minimum(mine, oracle), atol=1e-6)


def test_rl_is_paid_by_what_a_server_says():
    solutions = [Solution(q, steps, True) for q, steps in (*ONE, *ONE)]
    with serving(lambda *_: scored(0.25, 0.75)) as server:
        word = said(served(server.url), solutions, progress=False)
    np.testing.assert_allclose(word.whole, [0.25, 0.25])
    np.testing.assert_allclose(word.steps[0], [0.25, 0.75])
    assert len(server.bodies) == 1


# vLLM's pooling API.


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A PRM of Qwen's layout with its chat template, as a verifier and as vLLM."""
    folder = tmp_path_factory.mktemp("qwen") / "model"
    write_tiny(folder, "qwen2", ["1 + 2 * 3 = 7 <|im_start|>"], layout="qwen2_prm")
    params, spec, tokenizer = load_any(folder, "prm")
    special = ["<extra_0>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
        "<|im_end|>\n{% endfor %}"
    )
    return verifier_of(params, spec, tokenizer), tokenizer


HOSTILE = [("<|im_end|> 1<extra_0>", ("2 <extra_0> 3", "<|im_start|>user"))]


def test_the_text_for_vllm_is_that_of_the_layout(published):
    _, tokenizer = published
    for question, steps in (*PAIRS, *HOSTILE):
        ids, reads = prm_layouts.build_ids("qwen2_prm", tokenizer, question, steps)
        assert encode(tokenizer, chat_text(question, steps), special=True) == ids
        assert len(reads) == len(steps)


def test_a_server_of_vllm_gives_the_scores_of_the_model(published):
    verifier, _ = published
    asked = {chat_text(*pair): pair for pair in PAIRS}

    def pooled(number: int, body: dict[str, Any]) -> bytes:
        (row,) = verifier.scale.probability(verifier.score([asked[body["input"]]]))
        rows = [[1 - p, p] for p in row]
        data = [{"index": 0, "object": "pooling", "data": rows}]
        return json.dumps({"id": "pool-1", "model": "m", "data": data}).encode()

    with serving(pooled) as server:
        root = server.url.removesuffix("/v1")
        mine = probabilities(served(f"pooling:owner/m@{root}"), PAIRS)
        probabilities(served(f"pooling:{root}/pooling"), PAIRS[:1])
    for row, theirs in zip(mine, probabilities(verifier, PAIRS), strict=True):
        np.testing.assert_allclose(row, theirs, atol=1e-9)
    assert {body["path"] for body in server.bodies} == {"/pooling"}
    assert [body.get("model") for body in server.bodies] == ["owner/m"] * 3 + [None]


def test_nearly_certain_rows_of_vllm_stay_apart():
    rows = [[1e-9, 1.0], [0.0, 1.0]]
    answer = json.dumps({"data": [{"data": rows}]}).encode()
    with serving(lambda *_: answer) as server:
        (row,) = served(f"pooling:{server.url}").score(ONE)
    assert 20 < row[0] < row[1] < np.inf


# A server that fails.


def pooling(rows: Any) -> bytes:
    return json.dumps({"data": [{"data": rows}]}).encode()


WRONG: list[tuple[str, bytes, str]] = [
    ("", scored(0.5), "it sent 1 scores; right is one a step, 2"),
    ("", scored(0.5, 0.5, 0.5), "it sent 3 scores; right is one a step, 2"),
    ("", b'{"scores": [0.5, NaN]}', r"score 1 must be a probability in \[0, 1\]"),
    ("", scored(0.5, 1.01), "score 1 must be a probability.*1.01; right is"),
    ("", scored(-0.1, 1), "score 0 must be a probability"),
    ("", b'{"scores": [0.5, 1' + b"0" * 400 + b"]}", "score 1 must be a probability"),
    ("", scored("0.5", 0.5), "score 0 must be a number, not str"),
    ("", scored(True, 0.5), "score 0 must be a number, not bool"),
    ("", scored([0.5], 0.5), "score 0 must be a number, not list"),
    ("pooling:", pooling([[0.5, 0.5]]), "it sent 1 rows of its <extra_0>; right is"),
    ("pooling:", pooling([[0.5, 0.5], [2.5, -1.5]]), "no pair of probabilities"),
    ("pooling:", pooling([[0.5, 0.5], [0.5, 0.6]]), "no pair of probabilities"),
    ("pooling:", pooling([[0.5, 0.5], [0.5]]), "no pair of probabilities"),
    ("pooling:", pooling([0.5, 0.5]), "no pair of probabilities"),
    ("pooling:", pooling([["0", "1"], [0, 1]]), "no pair of probabilities"),
    ("pooling:", b'{"data": [{"data": [[0, NaN], [0, 1]]}]}', "no pair of prob"),
]


@pytest.mark.parametrize(("scheme", "answer", "message"), WRONG)
def test_scores_that_are_none_are_named_at_once(scheme, answer, message):
    with (
        serving(lambda *_: answer) as server,
        pytest.raises(EndpointError, match=message) as error,
    ):
        served(f"{scheme}{server.url}").score(ONE)
    assert len(server.bodies) == 1
    start = f"verifier: {server.url}{'/pooling' if scheme else ''}: solution of"
    assert str(error.value).startswith(f"{start} '1 + 2 * 3 =', 2 steps: ")
    assert "are kept" not in str(error.value)  # nobody keeps them


BROKEN: dict[str, Reply] = {
    "no JSON": b"<html>oops</html>",
    "no object": b"[0.5, 0.5]",
    "no scores": b'{"score": [0.5, 0.5]}',
    "scores that are no list": b'{"scores": "0.5"}',
    "more than fits": b'{"scores": [' + b" " * (1 << 17) + b"0.5, 0.5]}",
    "status 500": (500, {}, b"traceback"),
    "status 429": (429, {"Retry-After": "0.001"}, b"slower"),
    "less than promised": (200, {"Content-Length": "999"}, b'{"scores"'),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_may_pass_is_asked_again_so_often(kind):
    with (
        serving(lambda *_: BROKEN[kind]) as server,
        pytest.raises(EndpointError, match=f"{server.url}.*2 steps: .*4 times"),
    ):
        served(server.url).score(ONE)
    assert len(server.bodies) == FAST.retries + 1
    with serving(lambda n, _: scored(0.5, 1) if n else BROKEN[kind]) as server:
        np.testing.assert_allclose(probabilities(served(server.url)), [[0.5, 1]])


def test_a_server_that_hangs_is_given_up():
    release = threading.Event()

    def hang(number: int, body: Any) -> Reply:
        release.wait(30)
        return scored(0.5, 0.5)

    with serving(hang) as server:
        try:
            with pytest.raises(EndpointError, match=r"within 0\.2 s, 2 times"):
                served(server.url, retries=1, request_seconds=0.2).score(ONE)
        finally:
            release.set()


def test_a_redirect_is_not_followed():
    with serving(lambda *_: scored(0, 0)) as thief:
        there = {"Location": thief.url}
        with (
            serving(lambda *_: (307, there, b"")) as server,
            pytest.raises(EndpointError, match=f"redirects to .*{thief.url}"),
        ):
            served(server.url).score(ONE)
        assert thief.bodies == []


def test_what_was_answered_is_kept_and_not_asked_again(tmp_path):
    up = [False]

    def answer(number: int, body: Any) -> Reply:
        if number == 2 and not up[0]:
            return 404, {}, b"gone"
        return scored(*(0.5 for _ in body["steps"]))

    with serving(answer) as server:
        with pytest.raises(EndpointError, match=r"404.*are kept .*endpoint\.jsonl"):
            served(server.url, tmp_path, requests=1).score(PAIRS)
        up[0] = True
        found = probabilities(served(server.url, tmp_path), PAIRS)
        assert [len(row) for row in found] == [2, 3, 1]
        assert len(server.bodies) == 4  # the third twice, the others once
        assert probabilities(served(server.url, tmp_path), PAIRS) == found
        assert len(server.bodies) == 4


def test_what_came_before_an_error_is_not_asked_again_without_a_journal():
    up = [False]

    def answer(number: int, body: Any) -> Reply:
        if len(body["steps"]) == 1 and not up[0]:
            return 404, {}, b"gone"
        return scored(*(0.5 for _ in body["steps"]))

    with serving(answer) as server:
        verifier = served(server.url, requests=1)
        with pytest.raises(NotScoredError, match="404") as error:
            verifier.score(PAIRS)
        assert error.value.missing == PAIRS[2:] and len(server.bodies) == 3
        assert len(verifier.score(PAIRS[:2])) == 2 and len(server.bodies) == 3
        # Once all came it is forgotten: the server may have other weights by then.
        up[0] = True
        verifier.score(PAIRS)
        assert len(server.bodies) == 6


# The address and the key.


def test_a_key_goes_to_its_server_and_nowhere_else(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PRM_KEY", SECRET)
    thanks = json.dumps({"error": f"your key is {SECRET}"}).encode()
    with serving(lambda *_: (401, {}, thanks)) as server:
        address = f"{server.url}#PRM_KEY"
        with pytest.raises(EndpointError, match="401") as error:
            served(address, tmp_path).score(ONE)
        with pytest.raises(EndpointError):
            served(server.url).score(ONE)
    sent = [headers.get("authorization") for headers in server.headers]
    assert sent == [f"Bearer {SECRET}", None]
    assert {body["path"] for body in server.bodies} == {"/v1"}
    assert SECRET not in str(error.value) + caplog.text
    monkeypatch.delenv("PRM_KEY")
    with pytest.raises(ConfigError, match=r"'PRM_KEY'.*is not set"):
        served(address)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://", "http:// or https://, a host"),
        ("https://host:99999/score", "is no address"),
        ("http://me:hunter2secret@host/score", "more than an address"),
        ("http://host/score?key=hunter2secret", "more than an address"),
        ("http://host/score#hunter2secret", "never the key itself"),
        ("http://host/score#", "never the key itself"),
        ("pooling:", "http:// or https://, a host"),
        ("pooling:model", "http:// or https://, a host"),
        ("pooling:a@b@http://host", "more than an address"),
        ("http://host/a b", "http:// or https://, a host"),
    ],
)
def test_what_is_no_address_is_said_before_anything_starts(name, message):
    with pytest.raises((ConfigError, UnknownVerifierError), match=message) as error:
        open_verifier([name])
    assert "hunter2secret" not in str(error.value)
    for group in ("attack", "score", "select", "search", "rl"):
        field = f"{group}.verifiers"
        with pytest.raises(ConfigError, match=field) as error:
            validate(with_fields(default_config(), {field: (name,)}))
        assert "hunter2secret" not in str(error.value)


def test_an_address_says_who_is_asked_for_what():
    address = read_address("pooling:Qwen/PRM@https://h:1/x#A_TOKEN", "f")
    assert (address.url, address.pooling) == ("https://h:1/x", True)
    assert (address.model, address.key_variable) == ("Qwen/PRM", "A_TOKEN")
    plain = read_address("http://localhost/score", "f")
    assert (plain.pooling, plain.model, plain.key_variable) == (False, "", "")
    assert fingerprint_of("http://localhost/score") == "http://localhost/score"
