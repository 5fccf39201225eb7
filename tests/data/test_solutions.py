"""Solutions as people hand them over, and rows of any number in constant memory."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from aprm_jax.data.jsonl import DataError, RowError
from aprm_jax.data.solutions import parse_candidates, parse_solution
from aprm_jax.data.stream import Parsed, line_rows, stream_rows


@pytest.mark.parametrize(
    ("row", "more", "steps"),
    [
        ({"prompt": "q", "completions": ["a", "b"], "labels": [1, 0]}, (), ("a", "b")),
        ({"question": "q", "steps": ["a"], "id": "x"}, (), ("a",)),
        ({"problem": "q", "steps": '["a", "b"]'}, (), ("a", "b")),
        ({"prompt": [{"role": "user", "content": "q"}], "steps": ["a"]}, (), ("a",)),
        ({"question": "q", "steps": []}, (), ()),
        ({"question": "q", "steps": None}, (), ()),
        ({"question": "q", "steps": ""}, (), ()),
        # A table has every column in every row.
        (
            {"prompt": None, "question": "q", "completions": None, "steps": ["a"]},
            (),
            ("a",),
        ),
        (
            {"question": "q", "reply": "a\r\n\n b\u2028c \n"},
            ("reply",),
            ("a", "b\u2028c"),
        ),
        (
            {"question": "q", "reply": "a\nb\n \t\nc"},
            ("reply", "paragraphs"),
            ("a\nb", "c"),
        ),
        ({"question": "q", "reply": " \n"}, ("reply",), ()),
    ],
)
def test_forms(row, more, steps):
    found = parse_solution(row, 7, *more)
    assert (found.question, found.steps, found.line) == ("q", steps, 7)
    assert found.name == row.get("id")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q"}, "no field completions or steps .present: question"),
        ({"steps": ["a"]}, "no field question or prompt or problem"),
        ({"question": 7, "steps": ["a"]}, "'question' must be text, not int"),
        ({"question": "q", "steps": {"a": 1}}, "'steps' must be a list"),
        ({"question": "q", "steps": ["a", None]}, "item 1 is no text: None"),
        ({"question": "q", "steps": ["a", float("nan")]}, "item 1 is no text: nan"),
        ({"question": "q", "steps": ["a", " "]}, "item 1 is no text: ' '"),
        ({"question": "q", "steps": ["\ud800"]}, "lone surrogate"),
        ({"question": "q", "steps": ["a"], "id": True}, "'id' must be text"),
        ({"question": "q", "steps": 0}, "'steps' must be a list, not 0"),
        ({"question": "q", "steps": False}, "'steps' must be a list, not False"),
        ({"\x1b[31m" + "q" * 99: "q"}, r"present: '\\x1b\[31mq{35}'\)$"),
        ({"question": "q", "w" * 99: 1}, r"present: question, w{40}\)$"),
    ],
)
def test_what_is_no_solution_says_why(row, reason):
    with pytest.raises(RowError, match=reason):
        parse_solution(row, 1)


def test_candidates_and_references_that_are_null_stand_for_none():
    row = {
        "question": "q",
        "candidates": None,
        "samples": [{"steps": None, "text": "a\nb"}, {"steps": ["c"], "text": None}],
        "reference": None,
        "answer": 7.0,
    }
    found = parse_candidates(row, 1)
    assert (found.candidates, found.reference) == ((("a", "b"), ("c",)), "7")
    for nothing in (None, "", " "):
        assert parse_candidates(row | {"answer": nothing}, 1).reference is None
        assert parse_candidates(row | {"reference": nothing}, 1).reference == "7"


def test_texts_tell_solutions_apart():
    keys = {
        parse_solution({"question": q, "steps": s}, 1).key
        for q, s in (("q", ["a", "b"]), ("q", ["ab"]), ("qa", ["b"]), ("q", []))
    }
    assert len(keys) == 4
    again = parse_solution({"prompt": "q", "completions": ["ab"]}, 9).key
    assert again in keys


def test_lines_are_read_as_they_come():
    content = b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\r\nno json\n\xff\n{"a": 3}'
    rows = list(line_rows(io.BytesIO(content)))
    assert [row.line for row in rows] == [1, 3, 4, 5, 6]
    assert [r.value for r in rows if isinstance(r.value, dict)] == [
        {"a": 1},
        {"a": 2},
        {"a": 3},
    ]


def test_an_endless_line_is_a_bad_row_and_is_not_held():
    class Lines(io.RawIOBase):
        """A line of a hundred million bytes, then a short one; counts what it gives."""

        left, most = 10**8, 0

        def readline(self, size=-1):
            assert size > 0
            self.most = max(self.most, size)
            if self.left > 0:
                part = min(size, self.left)
                self.left -= part
                return b"x" * part
            if self.left == 0:
                self.left = -1
                return b"\n"
            self.left -= 1
            return b'{"a": 1}\n' if self.left == -2 else b""

    lines = Lines()
    long, short = line_rows(lines, most=1000)
    assert lines.most == 1001
    assert "more than 1000 bytes" in str(long.value) and long.text == ""
    assert (short.line, short.value) == (2, {"a": 1})


def test_files_of_every_kind(tmp_path):
    rows = [{"question": "q", "steps": [str(k)]} for k in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    contents = {
        "a.jsonl": text.encode(),
        "a.txt": text.encode(),
        "a.jsonl.gz": gzip.compress(text.encode()),
        "a.json": json.dumps(rows).encode(),
        "a.csv": b'question,steps\nq,"[""0""]"\nq,"[""1""]"\nq,"[""2""]"\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        found = Parsed(name, stream_rows(tmp_path / name), parse_solution)
        assert [row.steps for row in found] == [("0",), ("1",), ("2",)], name
    (tmp_path / "a.jsonl.gz").write_bytes(contents["a.jsonl.gz"][:-9])
    with pytest.raises(DataError, match="gzip data is damaged"):
        list(stream_rows(tmp_path / "a.jsonl.gz"))
    with pytest.raises(DataError, match="no such file"):
        list(stream_rows(tmp_path / "gone.jsonl"))


def test_bad_rows_are_put_aside_with_file_line_and_reason(tmp_path):
    source, aside = tmp_path / "in.jsonl", tmp_path / "out" / "bad.jsonl"
    source.write_text('{"question": "q", "steps": ["a"]}\n7\n{"question": "q"}\n')
    rows = Parsed(str(source), stream_rows(source), parse_solution, aside)
    assert [row.line for row in rows] == [1]
    told = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [(row["line"], row["raw"]) for row in told] == [
        (2, "7"),
        (3, '{"question": "q"}'),
    ]
    assert all(row["file"] == str(source) and row["reason"] for row in told)
    rows.check_share(0.67)
    with pytest.raises(
        DataError, match=r"line 2: a row must be .* 2 of 3 rows are bad"
    ):
        rows.check_share(0.66)
    list(Parsed("x", [], parse_solution, aside))
    assert not aside.exists()
