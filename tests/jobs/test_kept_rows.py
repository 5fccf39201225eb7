"""A file of rows that a job goes on with: what is kept, made by what, and progress."""

from __future__ import annotations

import json
import re

import pytest

from aprm_jax.files import DamagedFileError
from aprm_jax.jobs import kept_rows
from aprm_jax.jobs.context import JobError


@pytest.mark.parametrize(
    ("batch", "total", "kept"), [(1, 9, 5), (2, 9, 4), (2, 5, 5), (8, 9, 0)]
)
def test_whole_batches_are_kept_and_what_follows_goes(tmp_path, batch, total, kept):
    output, seen = tmp_path / "rows.jsonl", []
    assert kept_rows.read_back(output, print, total, batch) == 0
    lines = [b"%d\n" % k for k in range(5)]
    output.write_bytes(b"".join(lines) + b"torn")
    found = kept_rows.read_back(
        output, lambda line, number: seen.append((line, number)), total, batch
    )
    assert found == kept and output.read_bytes() == b"".join(lines[:kept])
    assert seen == [(line, k) for k, line in enumerate(lines, 1)]


def test_what_was_written_before_an_error_is_there(tmp_path):
    output = tmp_path / "rows.jsonl"
    with pytest.raises(KeyError), kept_rows.appending(output) as write:
        write([{"a": 1}, {"a": 2}])
        raise KeyError
    assert [json.loads(x)["a"] for x in output.read_text().splitlines()] == [1, 2]


def test_other_settings_are_refused_whichever_side_has_them(tmp_path):
    output, record = tmp_path / "rows.jsonl", tmp_path / "made" / "by.json"

    def check(**made_by):
        kept_rows.check_made_by(output, record, made_by, "score.output")

    check(n=1, of=("a", "b"))
    check(n=2)  # there are no rows yet
    output.write_text("")
    check(n=2)
    message = r"rows.jsonl was made with other {}: delete it or name another score\."
    for made_by, other in (({"n": 3}, "n"), ({"n": 2, "m": 1}, "m"), ({}, "n")):
        with pytest.raises(JobError, match=message.format(other)):
            check(**made_by)
    record.write_text(record.read_text().replace("2", "3"))
    with pytest.raises(DamagedFileError, match="name another"):
        check(n=2)


def test_progress_is_said_now_and_then_and_at_the_end(caplog, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(kept_rows.time, "monotonic", lambda: clock[0])
    tokens, said = [0], []
    progress = kept_rows.Progress(
        "stage", "rows", 2, 6, lambda: tokens[0], lambda: " ".join(said)
    )
    with caplog.at_level("INFO", "aprm_jax"):
        clock[0] = 5.0
        progress.add()
        assert not caplog.messages
        clock[0], tokens[0] = 12.0, 2400
        progress.tick()
        said.append("accuracy 0.5")
        clock[0] = 20.0
        progress.add(3)
    assert len(caplog.messages) == 2
    first, last = caplog.messages
    expected = r"\[stage\] 3/6 rows \| 0.0833 rows/s, 200 tokens/s \| .*36.* left"
    assert re.fullmatch(expected, first)
    assert "6/6 rows" in last and "| accuracy 0.5 |" in last
