"""A solver over HTTP, against a server of our own that misbehaves in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny_game
from tiny_game import DOMAIN
from tiny_server import FAST, SECRET, Handler, Reply, Server, serving
from tiny_tokenizers import line_merging

from aprm_jax.config import ConfigError
from aprm_jax.config.groups import HttpConfig
from aprm_jax.data.prompted import PromptedSolver
from aprm_jax.data.prompts import prepare_tokenizer
from aprm_jax.sampling.methods import Truncation
from aprm_jax.servers import client as asking
from aprm_jax.servers.client import EndpointError, backoff
from aprm_jax.servers.journal import Journal
from aprm_jax.solvers.completions import Completions
from aprm_jax.solvers.endpoint import EndpointSolver
from aprm_jax.solvers.layouts import BuilderLayout, WordLayout
from aprm_jax.solvers.stepwise import UncachedSolver

KEY = jax.random.key(0)


def completion(*texts: Any, reason: str = "stop", **fields: Any) -> bytes:
    choices = [{"text": t, "finish_reason": reason, **fields} for t in texts]
    return json.dumps({"choices": choices}).encode()


def client(server: Server, folder: Path, key: str = "", **limits: Any) -> Completions:
    fields = {name: getattr(FAST, name) for name in FAST.__dataclass_fields__}
    journal = Journal(folder / "endpoint.jsonl")
    return Completions(server.url, key, HttpConfig(**(fields | limits)), journal)


def solver(server: Server, folder: Path, layout: Any = None, **fields: Any):
    layout = layout or WordLayout()
    fields = {"model": "m", "max_tokens": 9} | fields
    limits = {k: fields.pop(k) for k in list(fields) if hasattr(FAST, k)}
    key = fields.pop("key", "")
    return EndpointSolver(
        client(server, folder, key, **limits), layout, DOMAIN, **fields
    )


def ask(server: Server, folder: Path, prompts: Any = ("p",), **fields: Any):
    bodies = [{"model": "m", "prompt": prompt} for prompt in prompts]
    return client(server, folder, **fields).ask(bodies)


# What is asked, and what becomes of it.


CHAIN = {"1 + 2 + 3": "3 + 3", "3 + 3": "6", "4 + 4": "8"}


def chained(number: int, body: dict[str, Any]) -> bytes:
    """The next step of the last line; rows, as a server that knows <step> has them."""
    line = body["prompt"].removesuffix("<step>").rpartition("<step>")[2]
    line = line.removeprefix("<bos>")
    return completion(*[f" {CHAIN[line]}"] * body.get("n", 1))


def test_solutions_are_asked_for_step_by_step_and_end_where_they_conclude(tmp_path):
    rows = BuilderLayout(tiny_game.builder(None))
    starts = [("1 + 2 + 3", ()), ("4 + 4", ()), ("9 + 9 + 9", ("1 + 2 + 3",))]
    with serving(chained) as server:
        one = solver(server, tmp_path, rows, requests=1)
        found = one.solve(starts, 2, KEY, max_steps=3)
    assert [[s.steps for s in row] for row in found] == [
        [("3 + 3", "6")] * 2,
        [("8",)] * 2,
        [("1 + 2 + 3", "3 + 3", "6")] * 2,
    ]
    assert all(s.finished and s.closed for row in found for s in row)
    assert all(s.tokens == () and s.logprobs == () for row in found for s in row)
    first = server.bodies[0]
    assert first["path"] == "/v1/completions"
    assert first["prompt"] == "<bos>1 + 2 + 3<step>"
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("m", 9, 1.0)
    assert first.keys() == {
        *("path", "model", "prompt", "max_tokens", "temperature", "seed")
    }
    assert len(server.bodies) == 2 * (3 + 2)  # the second problem has one step
    # As a tree search asks: one step of each row.
    with serving(chained) as server:
        steps = UncachedSolver.of(solver(server, tmp_path / "..", rows))
        state, written = steps.extend(
            steps.begin(starts), [0, 0, 1], [7, 8, 9], KEY, temperature=1.0
        )
    assert [w.text for w in written] == ["3 + 3", "3 + 3", "8"]
    assert [w.finished for w in written] == [False, False, True]
    assert state.starts[0] == ("1 + 2 + 3", ("3 + 3",))
    (tmp_path / ".." / "endpoint.jsonl").unlink()


def test_a_server_of_a_model_without_a_template_is_asked_for_a_line():
    """By its end as a text, not by each token that has one."""
    tokenizer = prepare_tokenizer(line_merging(), 300)
    told = BuilderLayout(PromptedSolver(tokenizer, (64,)))
    assert told.stops == ("\n", "<|end|>") and told.special == 1
    assert told.fields == {"stop": ["\n"]}


def test_a_seed_is_of_the_key_the_depth_and_the_draw_alone(tmp_path):
    rows = BuilderLayout(tiny_game.builder(None))
    starts = [("4 + 4", ()), ("1 + 2 + 3", ())]

    def seeds(folder: str, order: slice, count: int, key: Any) -> dict[Any, Any]:
        (tmp_path / folder).mkdir()
        with serving(chained) as server:
            found = solver(server, tmp_path / folder, rows).solve(
                starts[order], count, key, max_steps=3, draws=None
            )
        assert len(found) == len(starts[order])
        out: dict[str, set[int]] = {}
        for body in server.bodies:
            out.setdefault(body["prompt"], set()).add(body["seed"])
        assert all(0 <= seed < 2**31 for row in out.values() for seed in row)
        return out

    whole = seeds("a", slice(0, 2), 3, KEY)
    assert all(len(found) == 3 for found in whole.values())
    assert len(set().union(*whole.values())) == 9
    alone = seeds("b", slice(0, 1), 2, jax.random.key_data(KEY))
    assert alone["<bos>4 + 4<step>"] < whole["<bos>4 + 4<step>"]
    other = seeds("c", slice(0, 2), 3, jax.random.key(1))
    assert not set().union(*other.values()) & set().union(*whole.values())


def test_several_completions_share_a_request_where_a_server_offers_that(tmp_path):
    rows = BuilderLayout(tiny_game.builder(None))
    for offered in (3, 1, 2):  # 1: a server that knows no `n`
        letters = iter("abcdefgh")

        def answer(_: int, body: Any, most: int = offered, of: Any = letters) -> bytes:
            return completion(*(next(of) for _ in range(min(body.get("n", 1), most))))

        folder = tmp_path / str(offered)
        folder.mkdir()
        with serving(answer) as server:
            ((*found,),) = solver(server, folder, rows, choices=3, requests=1).solve(
                [("1 + 2", ())], 4, KEY, max_steps=1
            )
        assert [s.steps for s in found] == [("a",), ("b",), ("c",), ("d",)]
        asked = [body.get("n", 1) for body in server.bodies]
        assert asked == {3: [3, 1], 1: [3, 2, 1, 1], 2: [3, 1, 1]}[offered]
        assert len({body["seed"] for body in server.bodies}) == len(asked)


def test_greedy_completions_of_one_prompt_are_asked_for_once(tmp_path):
    rows = BuilderLayout(tiny_game.builder(None))
    with serving(chained) as server:
        (found,) = solver(server, tmp_path, rows).solve(
            [("1 + 2 + 3", ())], 5, KEY, max_steps=4, temperature=0.0
        )
    assert [s.steps for s in found] == [("3 + 3", "6")] * 5
    assert len(server.bodies) == 2 and "seed" not in server.bodies[0]


def test_only_what_differs_from_the_default_is_asked_of_a_server(tmp_path):
    cut = Truncation(top_p=0.5, top_k=7, min_p=0.1)
    with serving(lambda *_: completion("x")) as server:
        solver(server, tmp_path).solve(
            [("q", ())], 1, KEY, max_steps=1, temperature=0.5, truncation=cut
        )
    (body,) = server.bodies
    assert body["stop"] == ["\n"]
    assert (body["top_p"], body["top_k"], body["min_p"]) == (0.5, 7, 0.1)
    assert body["temperature"] == 0.5 and "n" not in body and "logprobs" not in body


@pytest.mark.parametrize(
    ("text", "reason", "steps", "closed"),
    [
        ("six\nmore", "stop", ("six",), True),  # a server that goes on
        ("six", "length", ("six",), False),
        ("six\n", "length", ("six",), True),
        ("", "stop", ("",), True),
        ("I cannot help with that", "stop", ("I cannot help with that",), False),
        ("a\u0000b", "stop", ("a\u0000b",), False),
        ("six", None, ("six",), False),
    ],
)
def test_a_reply_is_read_as_one_of_a_model_in_this_process(
    text, reason, steps, closed, tmp_path
):
    with serving(lambda *_: completion(text, reason=reason)) as server:
        ((found,),) = solver(server, tmp_path).solve([("q", ())], 1, KEY, max_steps=1)
    assert (found.steps, found.closed, found.finished) == (steps, closed, False)


@pytest.mark.parametrize("end", ["<step>", "<eos>", "<step> 9 <step>"])
def test_a_special_token_that_a_server_spells_ends_a_step(end, tmp_path):
    rows = BuilderLayout(tiny_game.builder(None))
    with serving(lambda *_: completion(f"3 + 3 {end}", reason="length")) as server:
        ((found,),) = solver(server, tmp_path, rows).solve(
            [("1 + 2 + 3", ())], 1, KEY, max_steps=1
        )
    assert found.steps == ("3 + 3",) and found.closed


@pytest.mark.parametrize(
    ("said", "logprobs"),
    [
        ({"token_logprobs": [-1.5, -0.25]}, ((-1.5, -0.25),)),
        (None, ()),
        ({"token_logprobs": None}, ()),
        ({"tokens": ["a"]}, ()),
    ],
)
def test_logprobs_are_kept_where_a_server_tells_them(said, logprobs, tmp_path):
    with serving(lambda *_: completion("x", logprobs=said)) as server:
        ((found,),) = solver(server, tmp_path, logprobs=True).solve(
            [("q", ())], 1, KEY, max_steps=1
        )
    assert server.bodies[0]["logprobs"] == 1
    assert found.logprobs == logprobs and found.tokens == ()


# A server that fails.


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_asked_again(status, tmp_path):
    def answer(number: int, body: Any) -> Reply:
        return (status, {}, b"later") if number < 3 else completion("x")

    with serving(answer) as server:
        assert ask(server, tmp_path)[0][0].text == "x"
    assert len(server.bodies) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_said_at_once(status, tmp_path):
    with (
        serving(lambda *_: (status, {}, b"no\x1b[31m such model")) as server,
        pytest.raises(EndpointError, match=rf"{server.url}.*status {status}") as said,
    ):
        ask(server, tmp_path)
    assert len(server.bodies) == 1
    assert "such model" in str(said.value) and "\x1b" not in str(said.value)


BROKEN: dict[str, Reply] = {
    "no JSON": b"<html>oops</html>",
    "nothing": b"",
    "no object": b"[1]",
    "deep": b"[" * 30_000,
    "no choices": b'{"choices": []}',
    "an error in a 200": b'{"error": {"message": "overloaded"}}',
    "a choice that is none": b'{"choices": ["x"]}',
    "no text": b'{"choices": [{"index": 0}]}',
    "null text": completion(None),
    "text that is a number": completion(3),
    "half a surrogate pair": b'{"choices": [{"text": "\\ud800"}]}',
    "no UTF-8": b'{"choices": [{"text": "\xff\xfe"}]}',
    "logprobs of text": completion("x", logprobs={"token_logprobs": ["a"]}),
    "logprobs that are NaN": completion(
        "x", logprobs={"token_logprobs": [float("nan")]}
    ),
    "logprobs beyond all numbers": b'{"choices": [{"text": "x", "logprobs": '
    b'{"token_logprobs": [-1' + b"0" * 400 + b"]}}]}",
    "logprobs that are no object": completion("x", logprobs=[1]),
    "a number without end": b'{"choices": ' + b"9" * 9999 + b"}",
    "gzip": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08"),
    "more than fits": b'{"choices": [{"text": "' + b"x" * (1 << 17) + b'"}]}',
    "less than promised": (200, {"Content-Length": "999"}, b'{"choices"'),
    "status 500": (500, {}, b"traceback"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_is_broken_is_asked_so_often_and_named(kind, tmp_path):
    with (
        serving(lambda *_: BROKEN[kind]) as server,
        pytest.raises(EndpointError, match=f"{server.url}.*4 times.*are kept"),
    ):
        ask(server, tmp_path)
    assert len(server.bodies) == FAST.retries + 1
    # The same, once: a retry brings the rest of the run.
    with serving(lambda n, _: completion("x") if n else BROKEN[kind]) as server:
        assert ask(server, tmp_path)[0][0].text == "x"


@pytest.mark.parametrize("field", ["read_seconds", "request_seconds"])
def test_a_server_that_hangs_is_given_up(field, tmp_path):
    release = threading.Event()

    def hang(number: int, body: Any) -> Reply:
        release.wait(30)
        return completion("x")

    with (
        serving(hang) as server,
        pytest.raises(EndpointError, match=r"2 times"),
    ):
        try:
            ask(server, tmp_path, retries=1, **{field: 0.2})
        finally:
            release.set()
    assert len(server.bodies) == 2


def test_a_server_that_trickles_is_given_up_too(tmp_path):
    """Each byte comes in time, and the whole never does."""
    release = threading.Event()

    class Trickle(Handler):
        def do_POST(self) -> None:
            self.server.bodies.append({})
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
                while not release.wait(0.02):
                    self.wfile.write(b" ")

    with serving(chained) as server:
        server.RequestHandlerClass = Trickle
        try:
            with pytest.raises(EndpointError, match=r"within 0\.3 s, 1 times"):
                ask(server, tmp_path, retries=0, request_seconds=0.3, read_seconds=5)
        finally:
            release.set()


def test_nobody_listens(tmp_path):
    with serving(chained) as server:
        pass
    with pytest.raises(EndpointError, match="ConnectError"):
        ask(server, tmp_path)


def test_waits_double_up_to_the_longest():
    http = HttpConfig(first_wait=0.5, longest_wait=60.0)
    waits = [backoff(attempt, http) for attempt in range(9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(10**6, http) == 60


def test_retry_after_is_honoured_and_never_without_end(tmp_path, monkeypatch):
    waited = []
    true = asyncio.wait_for

    async def wait_for(work: Any, seconds: float) -> Any:
        waited.append(seconds)
        return await true(work, min(seconds, 0.01))

    monkeypatch.setattr(asking.asyncio, "wait_for", wait_for)
    later = {"Retry-After": "7"}
    with serving(lambda n, _: completion("x") if n else (429, later, b"")) as server:
        ask(server, tmp_path, longest_wait=30.0)
    assert waited == [7.0]
    asked = {"Retry-After": "86400"}
    with (
        serving(lambda *_: (503, asked, b"")) as server,
        pytest.raises(EndpointError, match=r"86400 s.*endpoint\.http\.longest_wait=30"),
    ):
        ask(server, tmp_path, ("other",), longest_wait=30.0)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        *((odd, None) for odd in ("", "soon", "nan", "inf", "1e999", "99:99")),
    ],
)
def test_a_retry_after_is_a_number_or_a_date(header, seconds):
    assert asking.retry_after(header) == seconds


def test_requests_in_flight_are_limited(tmp_path):
    gate = threading.Barrier(3, timeout=30)

    def answer(number: int, body: Any) -> Reply:
        gate.wait()  # three come together, or this fails
        return completion(body["prompt"])

    with serving(answer) as server:
        found = ask(server, tmp_path, [str(k) for k in range(12)])
    assert [choices[0].text for choices in found] == [str(k) for k in range(12)]
    assert server.most_flying == 3


def test_a_prompt_longer_than_the_model_ends_a_solution_unfinished(tmp_path):
    long = b'{"error": {"code": "context_length_exceeded"}}'
    with serving(lambda n, _: (400, {}, long) if n else completion("x")) as server:
        ((found,),) = solver(server, tmp_path).solve([("q", ())], 1, KEY, max_steps=5)
    assert (found.steps, found.finished, found.closed) == (("x",), False, True)
    assert len(server.bodies) == 2
    rows = BuilderLayout(tiny_game.builder(None, (12,)))
    with serving(lambda *_: completion("3 + 3")) as server:
        ((found,),) = solver(server, tmp_path, rows).solve(
            [("1 + 2 + 3", ())], 1, KEY, max_steps=9
        )
    assert found.steps == ("3 + 3", "3 + 3")
    assert found.closed and not found.finished


TOO_MANY = (
    "max_tokens={asked} cannot be greater than max_model_len=2048",
    "This model's maximum context length is 2048 tokens. However, you requested 4101 "
    "tokens (5 in the messages, {asked} in the completion).",
    "'max_tokens' is too large: {asked}. This model's maximum context length is 2048 "
    "tokens and your request has 1900 input tokens",
)


@pytest.mark.parametrize("said", TOO_MANY)
def test_a_step_longer_than_the_model_is_no_prompt_without_room(said, tmp_path):
    def answer(number: int, body: dict[str, Any]) -> Reply:
        return 400, {}, said.format(asked=body["max_tokens"]).encode()

    with serving(answer) as server:
        for asked in (2048, 4096):
            match = rf"max_tokens={asked} leave no room.*builder.max_new_tokens.*2048"
            with pytest.raises(EndpointError, match=match):
                solver(server, tmp_path, max_tokens=asked).solve(
                    [("q", ())], 1, KEY, max_steps=5
                )
        ((found,),) = solver(server, tmp_path, max_tokens=256).solve(
            [("q", ())], 1, KEY, max_steps=5
        )
    assert found.steps == () and not found.finished


def test_it_works_where_a_loop_runs_already(tmp_path):
    async def cell(server: Server) -> str:
        return ask(server, tmp_path)[0][0].text

    with serving(lambda *_: completion("x")) as server:
        assert asyncio.run(cell(server)) == "x"


# What was paid for is kept.


def test_a_failure_ends_a_run_soon_and_loses_no_answer(tmp_path):
    """No further requests are sent, those in flight are waited for."""
    release = threading.Event()

    def answer(number: int, body: Any) -> Reply:
        if body["prompt"] == "bad":
            return 400, {}, b"no"
        release.wait(30)  # until the failure has come
        return completion("slow")

    prompts = ["1", "bad", "2", *map(str, range(3, 20))]
    with serving(answer) as server:
        asked = client(server, tmp_path)
        true = asked._error

        def error(*said: Any) -> EndpointError:
            release.set()
            return true(*said)

        asked._error = error
        with pytest.raises(EndpointError, match="status 400"):
            asked.ask([{"model": "m", "prompt": prompt} for prompt in prompts])
        assert sorted(b["prompt"] for b in server.bodies) == ["1", "2", "bad"]
        ask(server, tmp_path, ("1", "2"))
        assert len(server.bodies) == 3


def test_no_answer_is_paid_twice(tmp_path):
    state = {"up": False}

    def answer(number: int, body: Any) -> Reply:
        if number >= 5 and not state["up"]:
            return 503, {}, b"down"
        return completion(body["prompt"], body["prompt"] + "'")[:None]

    bodies = [{"model": "m", "prompt": str(k % 9), "n": 2} for k in range(10)]
    with serving(answer) as server:
        with pytest.raises(EndpointError):
            client(server, tmp_path, requests=1).ask(bodies)
        assert len(server.bodies) == 5 + FAST.retries + 1
        state["up"], before = True, len(server.bodies)
        found = client(server, tmp_path).ask(bodies)
        assert [[c.text for c in row] for row in found] == [
            [str(k % 9), f"{k % 9}'"] for k in range(10)
        ]
        assert sorted(b["prompt"] for b in server.bodies[before:]) == list("5678")
        before = len(server.bodies)
        assert client(server, tmp_path).ask(bodies) == found
        assert len(server.bodies) == before
        other = [{**body, "temperature": 0.5} for body in bodies[:1]]
        client(server, tmp_path).ask(other)
        assert len(server.bodies) == before + 1


@pytest.mark.parametrize(("cut", "asked"), [(1, 3), (20, 4), (None, 4)])
def test_a_damaged_line_is_asked_for_again(cut, asked, tmp_path, caplog):
    path = tmp_path / "endpoint.jsonl"
    with serving(lambda _, body: completion(body["prompt"])) as server:
        ask(server, tmp_path, ("a", "b", "c"), requests=1)
        content = path.read_bytes()
        if cut:  # a kill
            path.write_bytes(content[:-cut])
        else:  # a disk
            path.write_bytes(
                content.replace(b'"text": "b"', b'"text": "B"') + b"\xff\n"
            )
        found = ask(server, tmp_path, ("a", "b", "c"))
        assert [choices[0].text for choices in found] == ["a", "b", "c"]
        assert len(server.bodies) == asked
        assert ask(server, tmp_path, ("a", "b", "c")) == found
        assert len(server.bodies) == asked
    assert ("asked for again" in caplog.text) == (asked > 3)


# The key.


def everything_said(folder: Path, caplog: Any, *errors: BaseException) -> str:
    files = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    chain = []
    for error in errors:
        while error is not None:
            chain += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
    return "\n".join([caplog.text, *map(str, caplog.records), *files, *chain])


def echo(server_says: Callable[[str], Reply]) -> Callable[[int, Any], Reply]:
    return lambda number, body: server_says(f"your key is {SECRET}, thank you")


@pytest.mark.parametrize(
    "answer",
    [
        echo(lambda said: completion(said)),
        echo(lambda said: completion(said.replace("-", "\\u002d").encode().decode())),
        echo(lambda said: (401, {}, said.encode())),
        echo(lambda said: (500, {}, said.encode())),
        echo(lambda said: said.encode()),
        echo(lambda said: json.dumps({"choices": [{said: 1}]}).encode()),
        echo(lambda said: (302, {"Location": f"http://127.0.0.1:1/{said}"}, b"")),
    ],
)
def test_a_key_goes_to_the_server_and_nowhere_else(answer, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    asked, errors = None, []
    with serving(answer) as server:
        made = solver(server, tmp_path, key=SECRET)
        try:
            ((asked,),) = made.solve([("q", ())], 1, KEY, max_steps=1)
        except EndpointError as error:
            errors.append(error)
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    said = everything_said(tmp_path, caplog, *errors) + repr(made) + repr(asked)
    assert said.strip() and SECRET not in said


@pytest.mark.parametrize("key", ["sk-a/b+c/d==secret", 'sk-a"b\\c-secret'])
def test_a_key_that_json_spells_otherwise_is_in_no_message(key, tmp_path):
    spelt = json.dumps({"error": key}).replace("/", "\\/").encode()
    with (
        serving(lambda *_: (401, {}, spelt)) as server,
        pytest.raises(EndpointError, match=r"status 401.*\*\*\*") as said,
    ):
        ask(server, tmp_path, key=key)
    assert "secret" not in str(said.value) and "sk-a" not in str(said.value)


BASE64 = "abc+def/ghi==12"


@pytest.mark.parametrize(
    "spelt",
    [
        r"abc\u002Bdef/ghi==12",  # System.Text.Json
        r"abc+def/ghi\u003d\u003d12",  # Gson
        r"abc\u002bdef\/ghi\u003D\u003d12",
        "".join(f"\\u{ord(c):04x}" for c in BASE64),
        json.dumps({"said": r"abc\u002bdef\/ghi==12"}),  # JSON in JSON
        "abc%2Bdef%2fghi%3D%3d12",
        "abc&#43;def&#x2F;ghi&#61;&#x3d;12",
    ],
)
def test_a_key_is_hidden_however_a_server_escapes_it(spelt, tmp_path):
    with (
        serving(lambda *_: (401, {}, f'{{"error": "{spelt}"}}'.encode())) as server,
        pytest.raises(EndpointError, match=r"status 401.*\*\*\*") as said,
    ):
        ask(server, tmp_path, key=BASE64)
    assert "def" not in str(said.value) and "ghi" not in str(said.value)
    with serving(lambda *_: completion(f"it is {spelt}!")) as server:
        text = ask(server, tmp_path, key=BASE64)[0][0].text
    assert "ghi" not in text and text.startswith("it is ") and text.endswith("!")


def test_a_text_of_backslashes_is_looked_through_in_time(tmp_path):
    many = "\\" * 60_000
    with serving(lambda *_: (401, {}, many.encode())) as server:
        start = time.monotonic()
        with pytest.raises(EndpointError, match="status 401"):
            ask(server, tmp_path, key="\\" * 12)
    assert time.monotonic() - start < 5


def test_a_key_that_stands_for_none_changes_no_text(tmp_path):
    """People set `x` or `1` for servers that want some key; solutions have those."""
    with serving(lambda *_: completion("x = 1")) as server:
        assert ask(server, tmp_path, key="x")[0][0].text == "x = 1"


def test_a_redirect_is_not_followed(tmp_path):
    with serving(lambda *_: completion("stolen")) as thief:
        there = {"Location": f"{thief.url}/completions"}
        for status in (301, 302, 307, 308):
            with (
                serving(lambda *_, s=status: (s, there, b"")) as server,
                pytest.raises(EndpointError, match=f"redirects to .*{thief.url}"),
            ):
                ask(server, tmp_path, key=SECRET)
            assert len(server.bodies) == 1
        assert thief.bodies == []


def test_a_key_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {SECRET}\n")
    assert asking.read_key("MY_KEY") == SECRET
    assert asking.read_key("") == ""
    monkeypatch.setenv("MY_KEY", "two\nlines-secret")
    with pytest.raises(ConfigError, match="MY_KEY") as said:
        asking.read_key("MY_KEY")
    assert "secret" not in str(said.value)
    with pytest.raises(ConfigError, match=r"'NO_KEY'.*is not set"):
        asking.read_key("NO_KEY")
