"""What a resumed run keeps of a log is what was written."""

import contextlib
import json

import pytest

from aprm_jax.files import DamagedFileError
from aprm_jax.training import lines
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


def _killed_at_write(monkeypatch, number):
    """The writes of `lines`, of which that one, counted from 0, is the last."""
    count = iter(range(number + 1))

    def until(write):
        def last(*args):
            write(*args)
            if next(count) == number:
                raise KeyboardInterrupt

        return last

    for name in ("atomic_write", "write_sealed"):
        monkeypatch.setattr(lines, name, until(getattr(lines, name)))


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_a_kill_while_a_log_is_opened_leaves_it_whole(
    tmp_path, monkeypatch, start, torn, number
):
    path = tmp_path / "log.jsonl"
    _write(path, [1, 5, 2, 4, 3] if torn else range(1, 6))  # sealed at step 3
    with monkeypatch.context() as patch:
        _killed_at_write(patch, number)
        with (
            contextlib.suppress(KeyboardInterrupt),
            contextlib.closing(LineLog(path)) as log,
        ):
            log.open(start)
    _write(path, [9], start=start)
    assert sorted(_steps(path)) == [*range(1, start + 1), 9]


def test_lines_are_on_the_disk_before_their_seal(tmp_path, monkeypatch):
    log = LineLog(tmp_path / "log.jsonl")
    log.open(0)
    log.append('{"step": 1}')
    synced = []
    monkeypatch.setattr(lines.os, "fsync", synced.append)
    monkeypatch.setattr(lines, "write_sealed", lambda *_: synced.append("seal"))
    log.seal()
    log.close()
    assert len(synced) == 2 and synced[1] == "seal"


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
