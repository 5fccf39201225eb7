"""One process at a time writes into a workdir.

The lock is a file in it that says who holds it, held by `fcntl.lockf`: the kernel lets
it go whenever the process ends, SIGKILL included, and children do not inherit it.
Where a file system knows no locks, a file that only one can create takes their place:
its owner counts while its process runs, or, on another machine, while it touches it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aprm_jax.files import cannot_write, parse_json
from aprm_jax.training.workdir import WorkdirError, make_workdir

FILE = ".lock"
_EXCLUSIVE = ".lock.exclusive"
_HEARTBEAT = 5.0  # seconds between two touches
_PATIENCE = 3.5 * _HEARTBEAT  # seconds without one after which an owner is gone
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_held: set[Path] = set()  # by this process, to which its own locks are no hindrance


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes the workdir, and holds its lock; one that stays empty goes again.

    Raises:
      WorkdirError: another process holds it, which is named; or the folder is
        unwritable.
    """
    made = not os.path.exists(workdir)
    folder = make_workdir(workdir).absolute()
    if folder in _held:
        raise _in_use(folder, _this_process())
    try:
        path, descriptor = _take(folder)
        _held.add(folder)
    except OSError as error:
        raise cannot_write(folder / FILE, error) from error
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beating.start()
    try:
        yield folder
    finally:
        stop.set()
        beating.join()
        with contextlib.suppress(OSError):
            path.unlink()  # before it is let go: nobody may have taken it
        os.close(descriptor)
        _held.discard(folder)
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _take(folder: Path) -> tuple[Path, int]:
    """The file that is ours now, and its descriptor."""
    path = folder / FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            kernel = _kernel_lock(folder, path, descriptor)
            if kernel and not _is_at(descriptor, path):
                os.close(descriptor)  # its last holder has just removed it
                continue
            owner = _parse(os.pread(descriptor, 4096, 0)) if kernel else None
            if owner and _lives_elsewhere(descriptor, owner):
                raise _in_use(folder, owner)
        except BaseException:
            os.close(descriptor)
            raise
        if not kernel:
            os.close(descriptor)
            path, descriptor = _take_exclusive(folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_this_process()).encode() + b"\n", 0)
        os.fsync(descriptor)
        return path, descriptor


def _kernel_lock(folder: Path, path: Path, descriptor: int) -> bool:
    """Whether it is held now; False where the file system knows no locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _in_use(folder, _read(path)) from None
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _take_exclusive(folder: Path) -> tuple[Path, int]:
    path = folder / _EXCLUSIVE
    while True:
        with contextlib.suppress(FileExistsError):
            return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        owner = _read(path)
        here = _same_machine(owner)
        if _runs(owner) if here else _is_touched(path):
            raise _in_use(folder, owner)
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            if _read(aside) != owner:  # somebody took it over meanwhile
                os.rename(aside, path)
                raise _in_use(folder, _read(path))
            os.unlink(aside)


def _lives_elsewhere(descriptor: int, owner: dict[str, Any]) -> bool:
    """Whether the owner runs on a machine whose locks this one's kernel cannot see."""
    return not _same_kernel(owner) and _is_touched(descriptor)


def _same_kernel(owner: dict[str, Any]) -> bool:
    return owner.get("boot") == _boot()


def _same_machine(owner: dict[str, Any]) -> bool:
    """Whether the owner's pid means something here, or it was lost in a reboot."""
    mine = _this_process()
    if owner.get("host") != mine["host"]:
        return False
    return not _same_kernel(owner) or owner.get("pids") == mine["pids"]


def _runs(owner: dict[str, Any]) -> bool:
    """Whether its process runs: a process that has got the same pid started later."""
    pid = owner.get("pid")
    if not _same_kernel(owner) or not isinstance(pid, int):
        return False
    started = _started(pid)
    if started is not None or Path("/proc/self/stat").exists():
        return started == owner.get("started") is not None
    try:  # no /proc: macOS
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_touched(file: Path | int) -> bool:
    """Whether somebody touches the file: told without comparing machines' clocks.

    A descriptor is only looked at: to close another one of the file would let our
    lock go.
    """
    before, end = _touched(file), time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(0.1)
        now = _touched(file)
        if now != before:
            return now is not None
    return False


def _touched(file: Path | int) -> int | None:
    try:
        if isinstance(file, int):
            return os.fstat(file).st_mtime_ns
        # Opened: a network file system then asks the server.
        with file.open("rb") as opened:
            return os.fstat(opened.fileno()).st_mtime_ns
    except OSError:
        return None


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _read(path: Path) -> dict[str, Any]:
    """Who a lock file names; empty where it cannot be read."""
    try:
        return _parse(path.read_bytes())
    except OSError:
        return {}


def _parse(content: bytes) -> dict[str, Any]:
    try:
        owner = parse_json(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "boot": _boot(),
        "pids": _link("/proc/self/ns/pid"),
        "started": _started(os.getpid()),
    }


def _boot() -> str:
    """What the machine's kernel was given when it started; empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since the kernel did; None: not running.

    Field 22 of proc_pid_stat(5); the name before it may hold spaces and brackets.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _in_use(folder: Path, owner: dict[str, Any]) -> WorkdirError:
    who = "another process"
    if owner:
        who = f"process {owner.get('pid')} on {owner.get('host')}"
    return WorkdirError(
        f"The workdir {folder} is in use: {who} is writing into it. Wait for its end, "
        "stop it, or choose another folder with --workdir=DIR."
    )
