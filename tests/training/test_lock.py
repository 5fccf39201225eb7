"""One process at a time; what a dead one left is recognised."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from aprm_jax.training import lock
from aprm_jax.training.workdir import WorkdirError

# Another process holds the lock until it is killed; if told so, it knows no locks.
_HOLDER = """
import errno, fcntl, pathlib, sys, time
from aprm_jax.training import lock

def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")

folder, without = sys.argv[1:]
if without == "True":
    fcntl.lockf = none
with lock.locked(pathlib.Path(folder)):
    print("held", flush=True)
    time.sleep(600)
"""


def _none(*_):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.fixture(params=[False, True], ids=["lockf", "no_lockf"])
def without(request, monkeypatch):
    """Whether the file system knows no locks."""
    if request.param:
        monkeypatch.setattr(fcntl, "lockf", _none)
    return request.param


@pytest.fixture
def holder(tmp_path, without):
    command = [sys.executable, "-c", _HOLDER, str(tmp_path), str(without)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_second_is_told_who_is_the_first(holder, tmp_path):
    with pytest.raises(WorkdirError) as caught, lock.locked(tmp_path):
        pass
    message = str(caught.value)
    assert f"process {holder.pid} on {os.uname().nodename}" in message
    assert "--workdir=DIR" in message
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    mine = pytest.raises(WorkdirError, match=f"process {os.getpid()} on")
    with lock.locked(tmp_path), mine, lock.locked(tmp_path):
        pass
    with lock.locked(tmp_path):
        pass


def test_it_is_let_go_on_every_exit(tmp_path, without):
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), lock.locked(tmp_path):
            raise error
    with lock.locked(tmp_path):
        pass
    assert not (tmp_path / lock.FILE).exists() or without


def _left(folder, without, **changes):
    """A lock file that nobody holds, of another owner than this process."""
    name = lock._EXCLUSIVE if without else lock.FILE
    path = folder / name
    path.write_text(json.dumps(lock._this_process() | changes))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"started": 1},  # another process that had this pid
        {"pid": 2**22 + 1, "started": 5},  # no process has it
        {"boot": "before the last start", "pid": os.getpid()},
        {"pid": "x"},
    ],
    ids=["pid_reuse", "dead", "reboot", "garbage"],
)
def test_a_stale_lock_is_taken_over(tmp_path, without, changes, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0.3)
    _left(tmp_path, without, **changes)
    with lock.locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[1]"])
def test_a_lock_file_without_a_name_is_taken_over(
    tmp_path, without, content, monkeypatch
):
    monkeypatch.setattr(lock, "_PATIENCE", 0.3)
    _left(tmp_path, without).write_bytes(content)
    with lock.locked(tmp_path):
        pass


def test_a_machine_that_touches_the_file_holds_it(tmp_path, without, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 30.0)
    path = _left(tmp_path, without, host="elsewhere", boot="another", pid=7)
    stop = threading.Event()

    def touch():
        moment = 0
        while not stop.wait(0.05):
            moment += 1  # a clock that is decades behind
            os.utime(path, ns=(moment, moment))

    beating = threading.Thread(target=touch)
    beating.start()
    try:
        theirs = pytest.raises(WorkdirError, match="process 7 on elsewhere")
        with theirs, lock.locked(tmp_path):
            pass
    finally:
        stop.set()
        beating.join()
    monkeypatch.setattr(lock, "_PATIENCE", 0.3)
    with lock.locked(tmp_path):  # it has stopped
        pass


def test_a_start_that_fails_leaves_no_empty_folder(tmp_path):
    with pytest.raises(KeyError), lock.locked(tmp_path / "new"):
        raise KeyError
    with lock.locked(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    (tmp_path / "old").mkdir()
    with lock.locked(tmp_path / "old"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "used"]
