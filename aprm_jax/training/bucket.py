"""A run whose workdir is an address, as gs://BUCKET/run: worked on here, kept there.

Logs that grow, renames and locks need a file system, which object stores are not. So
the run works in a folder of this machine, and whatever changed is copied to the address
every minute, at the end of each stage and of the run. What the address then holds is
listed in a file of its own, written before anything that an earlier list names is
changed or deleted: new contents lie beside the old until the list names them, and take
their places then. Whoever reads the list finds all that it names. On another machine
the same command begins by copying from there; on the same one it goes on with its own
folder, as long as nobody else has written to the address meanwhile.

Of several hosts each works in a folder of its own. The leader alone copies to the
address, and where it has, the others make theirs what is there; what another host has
computed goes to the leader through a place at the address of that host.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.config.errors import UserError
from aprm_jax.files import atomic_write, cache_folder, parse_json, to_json
from aprm_jax.training.lock import locked
from aprm_jax.training.workdir import WorkdirError

log = logging.getLogger("aprm_jax")

EVERY = 60.0  # seconds between two copies
LIST = "aprm_jax_files.json"  # at the address: what it holds
_RECORD = ".bucket.json"  # in the folder: what it has in common with the address
_HOSTS = ".hosts"  # at the address: what each host but the leader has computed
_NEW = ".new"  # at the address: contents that are to take the places of others
# What tells of other files that they are whole: copied before them, which only grow.
_FIRST = re.compile(r"(^|/)(\..*\.seal|done\.json|MANIFEST\.json)$")
_SKIPPED = re.compile(r"(^|/)\.(lock|bucket|hosts|new)|\.part$|orbax-checkpoint-tmp")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs"}
_BEGUN = "begun"  # the writer in the record while what is there is copied here
# What stores say of a file by which another content shows.
_TELLING = ("size", "etag", "ETag", "md5Hash", "mtime", "LastModified", "created")
_open: list[Bucket] = []  # those that runs of this process are kept in

Files = dict[str, list[int]]  # path in the folder -> size, nanoseconds of its writing


def is_address(path: str) -> bool:
    """Whether a workdir is named by scheme://."""
    return _SCHEME.match(path) is not None


class Bucket:
    """What an address and a folder of this machine have in common.

    Args:
      address: of the run, in any scheme that fsspec knows.
      folder: where it is worked on; by default one of the user's cache.

    Raises:
      WorkdirError: no such scheme, or its package is not installed.
    """

    def __init__(self, address: str, folder: Path | None = None):
        self.address = address.rstrip("/")
        self.folder = folder or _cached(self.address)
        self._files, self._root = _opened(self.address)
        self._lock = threading.Lock()  # one copy at a time
        self.writes = False  # whether this process copies to the address

    def pull(self) -> None:
        """Makes the folder what the address holds, unless it goes on from there.

        Raises:
          WorkdirError: the address cannot be read, or lacks what it lists.
        """
        with self._lock, self._named("read"):
            self.folder.mkdir(parents=True, exist_ok=True)
            there, known = self._listed(), self._record()
            here = _files(self.folder)
            if there is None:
                self._warn_of_nothing(known)
                return
            lost = bool(known["files"]) and not here  # by who makes room in caches
            if there["writer"] == known["writer"] and not lost:
                return
            if known["writer"] == _BEGUN:  # an earlier pull was cut short: go on
                known = known | {"files": here}
            elif (
                here != known["files"] and not lost
            ):  # computed here, and never copied there
                self._set_aside(here)
                here = {}
            self._become(there, known, here)

    def follow(self) -> None:
        """Makes the folder of a host that only reads what the address holds.

        Raises:
          WorkdirError: see `pull`.
        """
        with self._lock, self._named("read"):
            there, known = self._listed(), self._record()
            if there is not None:
                self._become(there, known, _files(self.folder))

    def _become(
        self, there: dict[str, Any], known: dict[str, Any], here: Files
    ) -> None:
        """Deletes and copies here what the address has otherwise."""
        wanted = there["files"]
        self.folder.mkdir(parents=True, exist_ok=True)  # a lock takes an empty one away
        self._remember(_BEGUN, {})
        for name in here.keys() - wanted.keys():
            (self.folder / name).unlink()
        for name, stat in wanted.items():
            if here.get(name) != stat or known["files"].get(name) != stat:
                self._get(self._place(there, name), name, stat)
        self._remember(there["writer"], _files(self.folder))

    def hand_over(self, host: int) -> Files:
        """Copies what this host has computed to its place at the address.

        Args:
          host: its number.

        Returns:
          What the leader is to `take_over`.

        Raises:
          WorkdirError: the address cannot be written.
        """
        with self._lock, self._named("write"):
            known, here = self._record()["files"], _files(self.folder)
            new = {n: stat for n, stat in here.items() if known.get(n) != stat}
            return {n: s for n, s in new.items() if self._put(n, self._of(host, n))}

    def take_over(self, host: int, files: Files) -> None:
        """Copies here what another host has handed over.

        Args:
          host: its number.
          files: what it has said.

        Raises:
          WorkdirError: the address cannot be read.
        """
        with self._lock, self._named("read"):
            for name, stat in files.items():
                place = self._of(host, name)
                self._get(place, name, stat)
                self._files.rm_file(place)

    def push(self) -> None:
        """Copies what has changed since, and deletes what is gone.

        Raises:
          WorkdirError: the address cannot be written, or somebody else has done so.
        """
        with self._lock, self._named("write"):
            known, here = self._record(), _files(self.folder)
            there = self._listed()
            if there is None:
                known = {"writer": None, "files": {}}
            elif here == known["files"]:
                return
            elif there["writer"] != known["writer"]:
                raise WorkdirError(
                    f"{self.address}: another process has written there since this one "
                    f"began. What this one has computed is in {self.folder}; choose "
                    "another address with --workdir"
                )
            if there is not None:  # a push was cut short before its end
                self._settle(there["writer"], there["new"])
            changed = [n for n, stat in here.items() if known["files"].get(n) != stat]
            changed.sort(key=lambda name: (not _FIRST.search(name), name))
            writer = uuid.uuid4().hex
            copied = {n: here[n] for n in changed if self._put(n, self._new(writer, n))}
            kept = {n: s for n, s in here.items() if n not in changed}
            # A checkpoint may have been dropped meanwhile, of which a part was copied.
            still = _files(self.folder).keys()
            files = {n: s for n, s in sorted((kept | copied).items()) if n in still}
            new = sorted(copied.keys() & still)
            # A kill after this leaves a list that is not known here: its files are
            # then copied back, and are the same.
            self._list({"writer": writer, "files": files, "new": new})
            self._settle(writer, new)
            self._list({"writer": writer, "files": files})
            self._remember(writer, files)
            gone = (there or {"files": {}})["files"].keys() - files.keys()
            left = self._files.find(self._at(_NEW))
            for place in [*map(self._at, gone), *left]:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(place)

    def _list(self, content: dict[str, Any]) -> None:
        self._files.pipe_file(self._at(LIST), to_json(content).encode())

    def _settle(self, writer: str, names: Iterable[str]) -> None:
        """Copies new contents, at the address, to their places."""
        for name in names:
            self._files.cp_file(self._new(writer, name), self._at(name))

    @contextlib.contextmanager
    def kept(self, every: float = EVERY) -> Iterator[Path]:
        """The folder, copied to the address while it is worked on and at the end.

        Nothing is copied there before `writes` is set: a run that is refused leaves
        what is there as it was.

        Raises:
          WorkdirError: see `pull` and `push`.
        """
        with locked(self.folder):  # not under the hands of another process
            self.pull()
        stop = threading.Event()
        copying = threading.Thread(target=self._copy, args=(stop, every), daemon=True)
        copying.start()
        _open.append(self)
        try:
            yield self.folder
        except BaseException:
            self._push_or_say()  # what stopped the run is what is to be told
            raise
        else:
            if self.writes:
                self.push()
        finally:
            _open.remove(self)
            stop.set()
            copying.join()

    def _copy(self, stop: threading.Event, every: float) -> None:
        while not stop.wait(every):
            self._push_or_say()

    def _push_or_say(self) -> None:
        try:
            if self.writes:
                self.push()
        except WorkdirError as error:
            log.warning("%s", error)

    def _set_aside(self, files: Iterable[str]) -> None:
        """Moves files out of the folder, to one beside it."""
        aside = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex[:8]}")
        for name in files:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.folder / name, aside / name)
        log.warning(
            "%s was written by another process since it was last copied there from "
            "here: what was computed here after that is in %s",
            self.address,
            aside,
        )

    def _listed(self) -> dict[str, Any] | None:
        """What the address says it holds; None where there is nothing."""
        try:
            text = self._files.cat_file(self._at(LIST))
        except FileNotFoundError:
            return self._found()
        try:
            found = parse_json(text)
            files = {
                str(n): [int(x) for x in stat] for n, stat in found["files"].items()
            }
            writer = str(found["writer"])
            new = [str(name) for name in found.get("new", ())]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WorkdirError(
                f"{self.address}/{LIST} is not what was written there ({error!r}): "
                "delete it to take the run as the other files have it"
            ) from error
        for name in files:
            if name.startswith("/") or ".." in Path(name).parts:
                raise WorkdirError(f"{self.address}/{LIST} names {name!r}, elsewhere")
        return {"writer": writer, "files": files, "new": new}

    def _found(self) -> dict[str, Any] | None:
        """A run that was copied there by other means."""
        found = self._files.find(self._root, detail=True)
        prefix = self._root.rstrip("/") + "/"
        sizes = {
            path.removeprefix(prefix): [int(info["size"]), 0]
            for path, info in found.items()
        }
        sizes = {name: s for name, s in sizes.items() if not _SKIPPED.search(name)}
        # Of what somebody puts right there later the writer is another one.
        told = [
            (path, *(str(info.get(k)) for k in _TELLING))
            for path, info in sorted(found.items())
        ]
        digest = hashlib.sha256(repr(told).encode()).hexdigest()
        if not sizes:
            return None
        return {"writer": f"copied {digest}", "files": sizes, "new": []}

    def _warn_of_nothing(self, known: dict[str, Any]) -> None:
        if known["files"]:
            log.warning(
                "%s holds no run any more: the one in %s, which was kept there, goes "
                "on and is copied there again; to begin anew choose another address",
                self.address,
                self.folder,
            )

    def _record(self) -> dict[str, Any]:
        nothing = {"writer": None, "files": {}}
        try:
            found = parse_json((self.folder / _RECORD).read_bytes())
        except (OSError, ValueError):
            return nothing
        return (
            found
            if isinstance(found, dict) and found.keys() >= nothing.keys()
            else nothing
        )

    def _remember(self, writer: str, files: Files) -> None:
        content = to_json({"writer": writer, "files": files})
        atomic_write(self.folder / _RECORD, content)

    def _get(self, place: str, name: str, stat: Sequence[int]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.part")
        self._files.get_file(place, str(partial))
        if stat[1]:
            os.utime(partial, ns=(stat[1], stat[1]))
        os.replace(partial, path)

    def _put(self, name: str, place: str) -> bool:
        """Whether the file was still there to be copied."""
        try:
            self._files.put_file(str(self.folder / name), place)
        except FileNotFoundError:
            if (self.folder / name).exists():
                raise
            return False
        return True

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _new(self, writer: str, name: str) -> str:
        return self._at(f"{_NEW}/{writer}/{name}")

    def _place(self, there: dict[str, Any], name: str) -> str:
        """Where what a list names is: not in its place yet where a push was cut."""
        new = name in there["new"]
        return self._new(there["writer"], name) if new else self._at(name)

    def _of(self, host: int, name: str) -> str:
        return self._at(f"{_HOSTS}/{host}/{name}")

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Whatever goes wrong with the address names it, and where the run is."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of each store's own library
            reason = " ".join(str(error).split()) or type(error).__name__
            raise WorkdirError(
                f"Cannot {what} {self.address}: {reason}. What was computed here is in "
                f"{self.folder}; the same command goes on from there"
            ) from error


def of_this_run() -> tuple[Bucket, ...]:
    """What the runs of this process are kept in."""
    return tuple(_open)


def _files(folder: Path) -> Files:
    """What of a folder is kept at its address."""
    out: Files = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        with contextlib.suppress(FileNotFoundError):  # it has just been removed
            if not _SKIPPED.search(name) and path.is_file():
                stat = path.stat()
                out[name] = [stat.st_size, stat.st_mtime_ns]
    return out


def _cached(address: str) -> Path:
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    # Hosts may be processes of one machine.
    host = _told_index()
    of_host = f".host{host}" if host else ""
    name = f"{address.rpartition('/')[2]}-{digest}{of_host}"
    return cache_folder("workdirs") / name


def _told_index() -> int:
    """The number that the environment gives this host, which has met no other yet."""
    named = os.environ.get("JAX_PROCESS_ID") or os.environ.get("SLURM_PROCID") or ""
    return int(named) if named.isdecimal() else 0


def _opened(address: str) -> tuple[Any, str]:
    """The file system behind an address, and the path in it."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    scheme = address.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        hint = f": pip install {package}" if package else ""
        raise WorkdirError(f"--workdir={address}: {error}{hint}") from error
    except ValueError as error:
        raise WorkdirError(
            f"--workdir={address}: {error}; gs://, s3:// and az:// are known, or a "
            "folder"
        ) from error
    if isinstance(files, LocalFileSystem):
        files.auto_mkdir = True
    return files, root
