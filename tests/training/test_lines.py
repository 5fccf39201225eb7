"""What a resumed run keeps of a log is what was written."""

import json

import pytest

from aprm_jax.files import DamagedFileError
from aprm_jax.training.lines import LineLog, read_lines


def _write(path, steps, start=0):
    log = LineLog(path)
    log.open(start)
    for step in steps:
        log.append(json.dumps({"step": step}))
        if step == 3:
            log.seal()
    log.close()


def _steps(path):
    return [row["step"] for row in read_lines(path)]


def test_lines_behind_the_start_are_kept(tmp_path):
    path = tmp_path / "log.jsonl"
    _write(path, range(1, 6))
    path.write_bytes(path.read_bytes() + b'{"step": 6')  # a kill
    assert _steps(path) == [1, 2, 3, 4, 5]
    _write(path, [4, 5], start=3)
    assert _steps(path) == [1, 2, 3, 4, 5]
    _write(path, [9], start=2)
    assert _steps(path) == [1, 2, 9]
    _write(path, [1])
    assert _steps(path) == [1]


@pytest.mark.parametrize("place", ["before", "missing", "seal"])
def test_sealed_lines_are_guarded(tmp_path, place):
    path = tmp_path / "log.jsonl"
    _write(path, range(1, 6))
    data = path.read_bytes()
    if place == "before":
        path.write_bytes(data.replace(b"2", b"7"))
    elif place == "missing":
        path.unlink()
    else:
        (tmp_path / ".log.jsonl.seal").write_text("{}")
    for act in (lambda: read_lines(path), lambda: _write(path, [], start=3)):
        with pytest.raises(DamagedFileError, match=r"log\.jsonl.*rm "):
            act()


@pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff", b"3", b"{"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(DamagedFileError, match="no JSON object in line 2"):
        read_lines(path)
    _write(path, [2], start=1)
    assert _steps(path) == [1, 2]
