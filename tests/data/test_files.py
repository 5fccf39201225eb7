"""Tables as people save them: separators, quotes, line ends, bytes, broken rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from aprm_jax.data.files import path_rows
from aprm_jax.data.jsonl import DataError, RowError

TABLE = 'question,answer\n"2, 3 and é: how many?",3\nWhat?,4\n'
VALUES = [
    {"question": "2, 3 and é: how many?", "answer": "3"},
    {"question": "What?", "answer": "4"},
]


def _rows(path: Path, content: bytes):
    path.write_bytes(content)
    return path_rows(path, "", {}, str(path))


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\n\n"),
        TABLE.replace("question,", " question ,").rstrip("\n"),
        TABLE + ",\n",
    ],
    ids=["plain", "bom", "crlf", "blank lines", "no end", "an empty row"],
)
@pytest.mark.parametrize("compress", [bytes, lambda b: gzip.compress(b, mtime=0)])
def test_a_table_is_rows_of_text(tmp_path, text, compress):
    rows = _rows(tmp_path / "rows.csv", compress(text.encode()))
    assert [row.value for row in rows] == VALUES


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_seen_in_the_column_names(tmp_path, separator):
    text = f"question{separator}answer\n2, 3?{separator}3,5\n"
    [row] = _rows(tmp_path / "rows.tsv", text.encode())
    assert row.value == {"question": "2, 3?", "answer": "3,5"} and row.line == 2


def test_a_cell_may_hold_lines_and_a_row_keeps_its_line(tmp_path):
    text = 'question,answer\n"a\n""b""\nc",1\nd\ne,2,3\n\nf,4\n'
    rows = _rows(tmp_path / "rows.csv", text.encode())
    assert [row.line for row in rows] == [2, 5, 6, 8]
    assert rows[0].value == {"question": 'a\n"b"\nc', "answer": "1"}
    # What a row lacks is no field of it: whoever reads the field says so.
    assert rows[1].value == {"question": "d"}
    assert isinstance(rows[2].value, RowError)
    assert "3 values for 2 columns" in str(rows[2].value)


def test_bytes_of_another_encoding_spoil_their_row_alone(tmp_path):
    text = TABLE.encode() + "caf\xe9?,5\n".encode("latin-1")
    *good, bad = _rows(tmp_path / "rows.csv", text)
    assert [row.value for row in good] == VALUES
    assert "save the file as UTF-8" in str(bad.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'a,b\n1,2\n"3,4\n5,6\n', "line 3: not CSV: a quote is never closed"),
        (b"a,a\n1,2\n", "line 1: column 'a' stands there twice"),
        (b"a,b\n\0,2\n", "line 2: binary data"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as error:
        _rows(tmp_path / "rows.csv", content)
    assert "rows.csv" in str(error.value)


def test_a_long_cell_is_read(tmp_path):
    [row] = _rows(tmp_path / "rows.csv", b"a,b\n" + b"x" * 200_000 + b",1\n")
    assert len(row.value["a"]) == 200_000


def test_a_tsv_is_split_at_tabs_however_many_commas_its_names_have(tmp_path):
    [row] = _rows(tmp_path / "rows.tsv", b"question (a, b, c)\tanswer\nx, y\t5\n")
    assert row.value == {"question (a, b, c)": "x, y", "answer": "5"}


def _folder(root: Path, *names: str) -> Path:
    """Files whose single row says their own name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"question": name}) + "\n")
    return root


def _read(folder: Path, split: str) -> list[str]:
    rows = path_rows(folder, split, {}, str(folder))
    return [row.value["question"] for row in rows]


@pytest.mark.parametrize(
    ("folder", "first", "second"),
    [
        ("train_test_split", "train", "test"),
        ("train_eval", "train", "eval"),
        ("dev-and-test", "dev", "testing"),
    ],
)
def test_a_split_has_no_file_of_another(tmp_path, folder, first, second):
    names = [f"{folder}/{split}.jsonl" for split in (first, second)]
    _folder(tmp_path, *names)
    assert _read(tmp_path, first) == names[:1]
    assert _read(tmp_path, second) == names[1:]
    if second == "eval":
        assert _read(tmp_path, "test") == names[1:]


def test_a_split_of_its_own_name_mixes_no_others(tmp_path):
    _folder(tmp_path, "algebra/train.jsonl", "algebra/test.jsonl", "geometry/x.jsonl")
    assert _read(tmp_path, "geometry") == ["geometry/x.jsonl"]
    with pytest.raises(DataError, match=r"several splits \(test, train: algebra/test"):
        _read(tmp_path, "algebra")


def test_suffixes_are_read_in_any_case(tmp_path):
    _folder(tmp_path, "a.jsonl", "b.JSONL", "no.TXT")
    tables = {"c.CSV": b"question\nc.CSV\n", "d.Tsv": b"question\td\nd.Tsv\t1\n"}
    for name, content in tables.items():
        (tmp_path / name).write_bytes(content)
    packed = gzip.compress(b'{\n"question":\n"e.Json.GZ"}')
    (tmp_path / "e.Json.GZ").write_bytes(packed)
    (tmp_path / "f.csv.GZ").write_bytes(gzip.compress(b"question\nf.csv.GZ\n"))
    assert _read(tmp_path, "") == [
        "a.jsonl",
        "b.JSONL",
        "c.CSV",
        "d.Tsv",
        "e.Json.GZ",
        "f.csv.GZ",
    ]
    (tmp_path / "g.jsonl.GZ").write_text("{}")
    with pytest.raises(DataError, match=r"named \.gz but holds no gzip data"):
        _read(tmp_path, "")
