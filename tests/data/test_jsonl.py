"""Data files as they come: plain, gzipped, arrays; damaged, binary, half wrong."""

from __future__ import annotations

import gzip
import json

import pytest

from aprm_jax.data import jsonl
from aprm_jax.data.jsonl import (
    DataError,
    RowError,
    read_rows,
    require_bool,
    require_int,
    require_str,
    require_strings,
)

ROWS = [{"text": f"row {k} é\u2028"} for k in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def parse(row: dict) -> str:
    return require_str(row, "text")


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        LINES.replace("\n", "\r\n").encode(),
        LINES.rstrip("\n").encode(),
        b"\xef\xbb\xbf" + LINES.encode(),
        ("\n" + LINES + "\n\n").encode(),
        gzip.compress(LINES.encode(), mtime=0),
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=2).encode(),
        gzip.compress(json.dumps(ROWS, indent=2).encode(), mtime=0),
    ],
    ids=[
        "lines",
        "crlf",
        "no-eol",
        "bom",
        "blank",
        "gz",
        "array",
        "indent",
        "gz-array",
    ],
)
def test_forms(tmp_path, content):
    path = tmp_path / "rows.data"
    path.write_bytes(content)
    rows = read_rows(path, parse, max_bad_share=0.0)
    assert list(rows) == [row["text"] for row in ROWS]
    assert rows.num_bad == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b" \n\n", "the file is empty"),
        ("a.jsonl", b'{"text": "a"}\n\x00\x01', "line 2: binary data"),
        ("a.jsonl", "{}".encode("utf-16"), "line 1: binary data.*UTF-16 must be saved"),
        ("a.xlsx", b"PK\x03\x04\x14\0", "a ZIP file or a spreadsheet"),
        ("a.jsonl", b'{"text": "a"\n', "line 1: not JSON: Expecting ',' delimiter"),
        ("a.jsonl", b"\xff\xfe\xfd\n", "line 1: not UTF-8 text"),
        ("a.json", b'[{"text": "a"},\n {"text": }]', "line 2: not a JSON array"),
        ("a.json", b"[]", "no rows"),
        ("a.jsonl", b"[" * 100_000, "not a JSON array"),
        ("a.jsonl", b'{"a":' * 100_000, "not JSON that can be read"),
        ("a.jsonl", b"9" * 10_000, "not JSON that can be read"),
        ("a.jsonl", b"7\n", "must be a JSON object, not int"),
        ("a.gz", gzip.compress(LINES.encode(), mtime=0)[:-20], "gzip data is damaged"),
        ("a.gz", LINES.encode(), "holds no gzip data"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a lone surrogate"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_rows(path, parse)
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        read_rows(tmp_path / "absent.jsonl", parse)
    with pytest.raises(DataError, match="is a folder"):
        read_rows(tmp_path, parse)


def test_bad_rows_go_to_quarantine(tmp_path, caplog):
    path, folder = tmp_path / "rows.jsonl", tmp_path / "quarantine"
    lines = LINES.splitlines(keepends=True)[:0] + LINES.split("\n")[:5]
    lines[1] = '{"other": 1}'
    lines[3] = "{" + "x" * 5_000
    path.write_text("\n".join(lines), encoding="utf-8")
    for _ in range(2):  # a second reading replaces the record
        rows = read_rows(path, parse, quarantine_dir=folder, max_bad_share=0.4)
        assert list(rows) == [ROWS[k]["text"] for k in (0, 2, 4)]
        assert rows.num_bad == 2
        (record,) = folder.iterdir()
        bad = [json.loads(line) for line in record.read_text().splitlines()]
        assert [row["line"] for row in bad] == [2, 4]
        assert bad[0]["reason"] == "field 'text' is missing (present: other)"
        assert bad[0]["raw"] == '{"other": 1}'
        assert all(row["file"] == str(path) for row in bad)
        assert len(bad[1]["raw"]) < 1_000
    assert "2 of 5 rows are bad" in caplog.text
    path.write_text(LINES, encoding="utf-8")
    read_rows(path, parse, quarantine_dir=folder)
    assert not list(folder.iterdir())


def test_too_many_bad_rows_stop_the_read(tmp_path):
    path, folder = tmp_path / "rows.jsonl", tmp_path / "quarantine"
    path.write_text('{"text": "a"}\n{"text": 3}\n{"text": ""}\n{"text": "b"}\n')
    with pytest.raises(DataError) as error:
        read_rows(path, parse, quarantine_dir=folder, max_bad_share=0.3)
    message = str(error.value)
    assert "line 2: field 'text' must be text, not int" in message
    assert "30.00%" in message
    assert "50.00%" in message
    assert len(list(folder.iterdir())) == 1
    assert "raise domain.max_bad_share" in message
    assert len(read_rows(path, parse, max_bad_share=0.5)) == 2


def test_fields():
    row = {"n": 3, "t": True, "s": ["a", "b"], "mixed": ["a", 1], "f": 1.5}
    assert require_int(row, "n") == 3
    assert require_bool(row, "t") is True
    assert require_strings(row, "s") == ["a", "b"]
    for call in (
        lambda: require_int(row, "t"),
        lambda: require_int(row, "f"),
        lambda: require_bool(row, "n"),
        lambda: require_strings(row, "mixed"),
        lambda: require_strings({"s": []}, "s"),
        lambda: require_str(row, "absent"),
    ):
        with pytest.raises(RowError):
            call()


def test_a_gzip_file_that_fills_the_memory_is_refused(tmp_path, monkeypatch):
    """A thousandfold of nothing; a file that packs as text does is read."""
    monkeypatch.setattr(jsonl, "LEAST_UNZIPPED", 1 << 16)
    bomb, text = tmp_path / "bomb.jsonl.gz", tmp_path / "text.jsonl.gz"
    bomb.write_bytes(gzip.compress(b" " * (1 << 22)))
    rows = "".join(f'{{"question": "{n} + {n}"}}\n' for n in range(4000))
    text.write_bytes(gzip.compress(rows.encode()))
    with pytest.raises(jsonl.DataError, match=r"bomb\.jsonl\.gz.*unpack to more than"):
        jsonl.read_text(bomb)
    assert jsonl.read_text(text) == rows


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"solution": "so it is \ud83d"}, "'solution'"),
        ({"answer": "\udc00"}, "'answer'"),
        ({"steps": ["x", {"y": "\ud800"}]}, "'steps.1.y'"),
        ({"\ud800": 1}, "'\\ud800'"),
    ],
)
def test_half_a_pair_is_put_aside_wherever_it_stands(tmp_path, suffix, more, field):
    """Also in a field that nobody reads as text, or that is read only much later."""
    path = tmp_path / f"rows.{suffix}"
    rows = [*ROWS, ROWS[0] | more, ROWS[0] | {"solution": "whole \U0001f600"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if suffix == "json" else lines)
    kept = read_rows(path, parse, max_bad_share=0.5, quarantine_dir=tmp_path / "q")
    assert (len(kept), kept.num_bad) == (6, 1)
    [record] = [json.loads(file.read_text()) for file in (tmp_path / "q").iterdir()]
    assert record["line"] == 6
    assert record["reason"] == f"field {field} has a lone surrogate"
