"""`python -m aprm_jax.score`: pipes, in order, as soon as it is known; exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time

import command
import numpy as np
import pytest
import tiny
from tiny_server import scored, serving

import aprm_jax
from aprm_jax import score
from aprm_jax.data.jsonl import RawRow
from aprm_jax.data.solutions import solution_key
from aprm_jax.data.stream import line_rows

COMMAND = [sys.executable, "-m", "aprm_jax.score"]
GOOD = {"prompt": "2 + 3 * 4", "completions": ["2 + 12", "13"], "id": "x"}


def _start(*arguments: str, **pipes) -> subprocess.Popen[bytes]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | pipes
    return subprocess.Popen([*COMMAND, *arguments], env=command.ENVIRONMENT, **pipes)


def _line(row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def test_help_and_wrong_usage_start_no_jax():
    code = (
        "import sys\nfrom aprm_jax import score\n"
        "try: score.main([{!r}])\n"
        "except SystemExit as end: print(end.code, 'jax' in sys.modules)"
    )
    for argument, last in (("--help", "0 False"), ("--combine=best", "2 False")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(argument)],
            capture_output=True,
            text=True,
            env=command.ENVIRONMENT,
        )
        assert done.stdout.endswith(f"{last}\n"), done.stderr
        assert ("MODEL" in done.stdout) == (argument == "--help")


def test_whoever_writes_a_line_and_waits_gets_its_scores(tmp_path):
    folder = tiny.save(tmp_path / "prm", "prm")
    with _start(str(folder)) as process:
        assert process.stdin and process.stdout and process.stderr
        expected = aprm_jax.PRM.load(folder).score(GOOD["prompt"], GOOD["completions"])
        for line in (1, 2):  # the first is scored before the second is written
            process.stdin.write(_line(GOOD))
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            assert (found["line"], found["id"]) == (line, "x")
            np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
        rows = [b"no json\n", _line({"prompt": "q"}), _line(GOOD | {"id": "y"})]
        out, errors = process.communicate(b"".join(rows))
    [last] = out.splitlines()
    assert json.loads(last)["line"] == 5 and process.returncode == 1
    said = errors.decode().splitlines()
    assert [line.partition(":")[2][1:7] for line in said] == ["line 3", "line 4"]


def test_a_reader_that_leaves_is_no_error():
    with _start("oracle:arithmetic") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(_line(GOOD))
        process.stdin.flush()
        found = json.loads(process.stdout.readline())
        assert found["scores"][0] > 0.99 and found["scores"][1] < 0.01
        process.stdout.close()
        process.stdin.write(_line(GOOD))
        process.stdin.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, b"")


def test_ctrl_c_and_an_error_end_while_more_may_be_piped_in(tmp_path):
    """The thread that waits for more must not keep the process, or crash its end."""
    with _start("oracle:arithmetic") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(_line(GOOD))
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(240), process.stderr.read()) == (130, b"")
    known = {"key": solution_key(GOOD["prompt"], tuple(GOOD["completions"]))}
    (tmp_path / "scores").write_bytes(_line(known | {"scores": [1]}))
    with _start(f"scores:{tmp_path / 'scores'}") as process:
        assert process.stdin and process.stderr
        process.stdin.write(_line(GOOD))
        process.stdin.flush()
        assert process.wait(240) == 1
        assert process.stderr.read().endswith(b": 1 scores of 2 steps\n")


@pytest.mark.parametrize(
    ("closed", "code", "said"),
    [("<&-", 2, b"nothing is piped in"), ("</dev/null >&-", 1, b"stdout is closed")],
)
def test_pipes_that_are_closed_are_told(closed, code, said):
    line = f'"$0" -m aprm_jax.score oracle:arithmetic {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable],
        stderr=subprocess.PIPE,
        env=command.ENVIRONMENT,
    )
    assert done.returncode == code and said in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "rows", "code", "said"),
    [
        (["oracle:arithmetic"], b"", 0, ""),
        (["oracle:chess"], b"", 1, "error: 'oracle:chess': no such oracle"),
        (["./gone"], b"", 1, "error: './gone': no such folder"),
        (
            ["oracle:arithmetic", "oracle:arithmetic10", "--combine=min"],
            _line({"question": "8 + 4", "reply": "12"}),
            1,
            "line 1: no field completions or steps",
        ),
    ],
)
def test_exit_codes(arguments, rows, code, said, capfdbinary, monkeypatch, tmp_path):
    (tmp_path / "in").write_bytes(rows)
    with (tmp_path / "in").open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert score.main(arguments) == code
    out, errors = capfdbinary.readouterr()
    assert out == b"" and said in errors.decode()
    assert errors.count(b"\n") == bool(said)


def test_several_verifiers_and_texts(capfdbinary, monkeypatch, tmp_path):
    rows = [{"question": "8 + 4", "reply": "12\n\n12"}] * 100
    (tmp_path / "in").write_bytes(b"".join(map(_line, rows)))
    arguments = ["oracle:arithmetic", "oracle:arithmetic10", "--text=reply"]
    with (tmp_path / "in").open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert score.main([*arguments, "--combine=product", "--split=paragraphs"]) == 0
    out, errors = capfdbinary.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in found] == list(range(1, 101)) and not errors
    assert all(len(row["scores"]) == 2 and max(row["scores"]) < 0.01 for row in found)


def _at_once(monkeypatch, path, rows, arguments) -> int:
    """The exit code where all lines arrive together; four are scored at once."""
    path.write_bytes(b"".join(map(_line, rows)))
    monkeypatch.setattr(score, "_ROWS", 4)
    monkeypatch.setattr(score, "_arriving", lambda lines: [[*line_rows(lines)]])
    with path.open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        return score.main(arguments)


@pytest.mark.parametrize("more", [[], ["oracle:arithmetic"]])
def test_an_error_loses_no_score_that_was_paid_for(
    more, capfdbinary, monkeypatch, tmp_path
):
    rows = [{"question": f"{k} + 1", "steps": [f"{k + 1}"]} for k in range(10)]

    def answer(number, body):
        if body["question"] != "5 + 1":
            return scored(0.5)
        while len(server.bodies) < 8:  # the others of its part are on their way
            time.sleep(0.01)
        return 400, {}, b"no such thing"

    with serving(answer) as server:
        assert _at_once(monkeypatch, tmp_path / "in", rows, [server.url, *more]) == 1
    out, errors = capfdbinary.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in found] == [1, 2, 3, 4, 5, 7, 8]
    assert all(row["scores"][0] >= 0.5 for row in found)
    said = errors.decode().splitlines()
    prefix = "aprm_jax.score: line"
    assert said[:-1] == [f"{prefix} {k}: not scored" for k in (6, 9, 10)]
    assert "solution of '5 + 1', 1 steps: status 400: 'no such thing'" in said[-1]
    assert len(server.bodies) == 8  # nothing is asked for twice


def test_an_error_of_one_line_comes_behind_those_before_it(
    capfdbinary, monkeypatch, tmp_path
):
    rows = [{"question": f"q{k}", "steps": ["a"]} for k in range(6)]
    known = [
        {"key": solution_key(f"q{k}", ("a",)), "scores": [0.5] * (1 + (k == 2))}
        for k in range(6)
    ]
    (tmp_path / "scores").write_bytes(b"".join(map(_line, known)))
    arguments = [f"scores:{tmp_path / 'scores'}"]
    assert _at_once(monkeypatch, tmp_path / "in", rows, arguments) == 1
    out, errors = capfdbinary.readouterr()
    assert [json.loads(line)["line"] for line in out.splitlines()] == [1, 2]
    said = errors.decode().splitlines()
    assert [line.split()[2] for line in said[:-1]] == ["3:", "4:", "5:", "6:"]
    assert said[-1].endswith("2 scores of 1 steps")


def test_what_waits_is_bounded_by_rows_and_by_text():
    text = "x" * (score._MOST_CHARS // 4)

    def ahead(texts: list[str]) -> int:
        """Rows that are taken in before somebody takes them out."""
        waiting, put = score._Waiting(), []

        def read():
            for line, row in enumerate(texts):
                waiting.put(RawRow(line, row, {}))
                put.append(line)
            waiting.end(None)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(0.2)
        held, taken = len(put), []
        while batch := waiting.take():
            assert len(batch) <= score._ROWS
            chars = sum(len(row.text) for row in batch)
            assert chars <= score._MOST_CHARS or len(batch) == 1
            taken += [row.line for row in batch]
        assert taken == list(range(len(texts)))
        return held

    assert ahead(["x"] * 3) == 3
    assert ahead(["x"] * 200) == score._ROWS
    assert ahead([text] * 9) == 4
    assert ahead([text * 5, "x", "x"]) == 1  # a long line is taken, alone


def test_an_error_of_the_reading_comes_behind_what_was_read():
    class Torn(io.BytesIO):
        def __init__(self):
            super().__init__()
            vars(self).update(mode="rb", name="pipe")  # as an open file has them
            self.lines = [_line(GOOD)] * 3

        def readline(self, size=-1):
            if not self.lines:
                raise OSError("gone")
            return self.lines.pop()

    found = []
    with pytest.raises(OSError, match="gone"):
        for batch in score._arriving(Torn()):
            found += batch
    assert [row.line for row in found] == [1, 2, 3]
