"""Asynchronous Orbax checkpoints that know whether they are complete and undamaged.

A checkpoint of step N is a folder `<dir>/<N>`. Orbax writes it in the background and
renames it into place; then its manifest (size and SHA-256 of every file) is written
atomically. Only a folder with a manifest is a checkpoint: whatever a kill leaves behind
has none. Restoring checks every byte first, because Orbax restores a flipped bit
without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from aprm_jax.config.errors import UserError
from aprm_jax.files import FileError, atomic_write, fingerprint, parse_json
from aprm_jax.training import hosts
from aprm_jax.training.memory import no_room, ran_out
from aprm_jax.training.orbax_noise import quieten
from aprm_jax.training.sharing import hosts_apart

MANIFEST = "MANIFEST.json"
_ORBAX_TEMPORARY = ".orbax-checkpoint-tmp"
# Orbax gives a save up by the wall clock, whose jump is no sign of a save that hangs.
_PATIENCE = 100 * 365 * 86_400


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be written, or there is none to restore."""


class DamagedCheckpointError(CheckpointError):
    """A complete checkpoint is not what was written; the message names the file."""


class Checkpointer:
    """Saves and restores one pytree per step in a folder.

    Leaves are jax or NumPy arrays and Python numbers; random keys go in as raw uint32
    (`jax.random.key_data`). Call outside `jax.set_mesh`. Of several hosts each calls
    every method: arrays are written by those that hold them, the rest by the leader.
    Where each has a folder of its own, the leader writes the whole of them.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep_last: int = 2,
        async_: bool = True,
    ) -> None:
        """Opens the folder, which is created at the first save.

        Args:
          directory: the folder of the checkpoints.
          keep_last: number of newest complete checkpoints to keep.
          async_: return from `save` while the files are being written.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last} must be positive")
        self._dir = pathlib.Path(directory).absolute()
        self._keep_last = keep_last
        self._async = async_
        self._orbax: ocp.AsyncCheckpointer | None = None
        self._thread: threading.Thread | None = None
        self._in_flight = False  # a save of this host or of another
        self._error: CheckpointError | None = None

    def check_room(self, tree: Any, saves: int) -> None:
        """Whether the disk can hold the checkpoints of a tree, before any work is done.

        Args:
          tree: as large as what will be saved.
          saves: how many are to come. A new one lies beside `keep_last` older ones
            until it is complete; those that are there already have room.

        Raises:
          CheckpointError: it cannot.
        """
        if not (hosts.leader() or hosts_apart()):
            return
        leaves, _ = _flatten(tree)
        each = sum(leaf.nbytes for leaf in leaves.values())
        there = len(self.steps())
        more = min(self._keep_last + 1, there + saves) - there
        try:
            disk = shutil.disk_usage(_existing(self._dir))
            free = disk.free + sum(map(_size, self._incomplete()))
        except OSError:
            return
        if disk.total and more * each > free:
            raise CheckpointError(
                f"{self._dir}: the disk has {free / 1e9:.3g} GB free, and {more} "
                f"checkpoints of {each / 1e9:.3g} GB are to come. Make room, choose "
                "another --workdir, or keep fewer with --config.checkpoint.keep_last=1"
            )

    def save(self, step: int, tree: Any) -> None:
        """Saves `tree` as step `step`; its arrays may be donated or changed after.

        (Orbax copies arrays on the host before it returns: a test holds it to that.)

        Raises:
          CheckpointError: this save, or the one before it, could not be written.
        """
        self.wait()
        leaves, kinds = _flatten(tree)
        if hosts_apart():
            leaves = hosts.fetch(leaves)
        elif hosts.count() < jax.process_count():  # Orbax takes no arrays of one host
            leaves = jax.device_get(leaves)
        try:
            if hosts.leader():
                self._make_room(step)
            hosts.barrier("save")
            self._in_flight = True
            if hosts.leader() or not hosts_apart():
                self._begin(step, leaves, kinds)
        except hosts.HostsError:  # another host has said why
            raise
        except Exception as error:
            raise self._failed(step, error) from error
        if not self._async:
            self.wait()

    def _begin(
        self, step: int, leaves: dict[str, Any], kinds: dict[str, list[Any]]
    ) -> None:
        """Lets Orbax copy the arrays and write them behind the caller's back."""
        if self._orbax is None:
            quieten()
            # Random weights do not compress; trying costs the training its CPU.
            options = _processes()
            handler = ocp.PyTreeCheckpointHandler(
                use_compression=False, multiprocessing_options=options
            )
            self._orbax = ocp.AsyncCheckpointer(
                handler, timeout_secs=_PATIENCE, multiprocessing_options=options
            )
        self._orbax.save(self._dir / str(step), args=ocp.args.PyTreeSave(leaves))
        # Orbax's own callback comes before the folder is renamed into place.
        self._thread = threading.Thread(
            target=self._complete, args=(self._orbax, step, kinds), name="checkpoint"
        )
        self._thread.start()

    def wait(self) -> None:
        """Blocks until the save in flight, if any, is complete.

        Raises:
          CheckpointError: it could not be written.
        """
        self._join()
        in_flight, self._in_flight = self._in_flight, False
        if in_flight:
            hosts.barrier("saved")  # by the leader, who has the last word on it

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error from error.__cause__

    def close(self) -> None:
        """Waits for the save in flight and frees the threads."""
        try:
            self._join()  # without the others, who may have ended
        finally:
            if self._orbax is not None:
                self._orbax.close()
                self._orbax = None

    def begun(self) -> bool:
        """Whether anything was ever saved here, complete or not."""
        return self._dir.is_dir()

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return sorted(
            int(folder.name) for folder in self._folders() if _is_complete(folder)
        )

    def latest(self) -> int | None:
        """The newest step whose checkpoint is complete; what a kill left is ignored."""
        return max(self.steps(), default=None)

    def set_aside_after(self, step: int) -> list[pathlib.Path]:
        """Renames checkpoints of later steps, so that a run can go back to `step`."""
        self.wait()
        moved = []
        if not hosts.leader():
            return moved
        for later in [found for found in self.steps() if found > step]:
            target = self._dir / f"{later}.set-aside"
            if target.exists():
                shutil.rmtree(target)
            moved.append((self._dir / str(later)).rename(target))
        return moved

    def restore(self, step: int, template: Any) -> Any:
        """Restores onto the structure, shardings and dtypes of `template`.

        Args:
          step: one of `steps()`.
          template: a pytree of arrays, numbers, or ShapeDtypeStructs with a sharding.

        Raises:
          CheckpointError: no complete checkpoint of this step, or of another shape.
          DamagedCheckpointError: a file differs from what was written.
        """
        self.wait()
        folder = self._dir / str(step)
        if not _is_complete(folder):
            raise CheckpointError(
                f"There is no complete checkpoint of step {step} in {self._dir}; "
                f"complete: {self.steps() or 'none'}."
            )
        manifest = self._verified_manifest(folder)
        wanted, _ = _flatten(template)
        _check_same_leaves(folder, manifest["leaves"], wanted)
        apart = hosts_apart()
        restore_args = {
            name: _restore_args(leaf, whole=apart) for name, leaf in wanted.items()
        }
        try:
            options = _processes()
            handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
            with ocp.Checkpointer(handler, multiprocessing_options=options) as reader:
                leaves = reader.restore(
                    folder,
                    args=ocp.args.PyTreeRestore(
                        item=dict.fromkeys(wanted, 0), restore_args=restore_args
                    ),
                )
        except Exception as error:
            raise CheckpointError(f"Cannot restore {folder}: {error}") from error
        if apart:  # each host has read all of it
            leaves = {
                name: hosts.place(leaf, sharding) if sharding is not None else leaf
                for name, leaf in leaves.items()
                for sharding in [_sharding(wanted[name])]
            }
        return _unflatten(template, leaves)

    def _complete(
        self, orbax: ocp.AsyncCheckpointer, step: int, kinds: dict[str, list[Any]]
    ) -> None:
        """Waits for Orbax, then makes its folder a checkpoint. Runs in a thread."""
        try:
            orbax.wait_until_finished()
            if hosts.leader():
                _write_manifest(self._dir / str(step), step, kinds)
                older = [found for found in self.steps() if found < step]
                for old in older[: max(0, len(older) - self._keep_last + 1)]:
                    self._remove(old)
        except Exception as error:
            self._error = self._failed(step, error)
            self._error.__cause__ = error

    def _make_room(self, step: int) -> None:
        """Removes what killed saves have left, and an older save of this step."""
        self._dir.mkdir(parents=True, exist_ok=True)
        for left_over in self._incomplete():
            shutil.rmtree(left_over)
        self._remove(step)

    def _remove(self, step: int) -> None:
        """Deletes a checkpoint; without its manifest first, so never half of one."""
        folder = self._dir / str(step)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def _folders(self) -> list[pathlib.Path]:
        if not self._dir.is_dir():
            return []
        return [path for path in self._dir.iterdir() if path.name.isdecimal()]

    def _incomplete(self) -> list[pathlib.Path]:
        """What killed saves have left."""
        return [
            *(folder for folder in self._folders() if not _is_complete(folder)),
            *self._dir.glob(f"*{_ORBAX_TEMPORARY}*"),
        ]

    def _verified_manifest(self, folder: pathlib.Path) -> dict[str, Any]:
        try:
            manifest = parse_json((folder / MANIFEST).read_bytes())
            stated = manifest.pop("sha256")
            intact = stated == _digest(manifest)
        except (OSError, ValueError, KeyError, AttributeError):
            intact = False
        if not intact:
            raise self._damaged(folder, folder / MANIFEST, "is not what was written")
        # Of a common folder by one host: a pod would read it as often as it has hosts.
        mine = hosts.leader() or hosts_apart()
        for name, recorded in manifest["files"].items() if mine else ():
            path = folder / name
            if not path.is_file():
                raise self._damaged(folder, path, "is missing")
            if fingerprint(path) != recorded:
                raise self._damaged(folder, path, "is not what was written (checksum)")
        return manifest

    def _damaged(
        self, folder: pathlib.Path, file: pathlib.Path, what: str
    ) -> DamagedCheckpointError:
        step = int(folder.name)
        before = max((s for s in self.steps() if s < step), default=None)
        if before is None:
            way_on = (
                "There is no earlier checkpoint. To start this job from its beginning, "
                f"delete the folder (rm -r {folder}) and run the same command again."
            )
        else:
            way_on = (
                f"To go on from the one before, of step {before}, add "
                f"--config.checkpoint.step={before} once, or delete the folder "
                f"(rm -r {folder}) and run the same command again."
            )
        return DamagedCheckpointError(
            f"The checkpoint of step {step} is damaged: {file} {what}. {way_on}"
        )

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        # Make room again, if that is what was missing.
        for left_over in self._incomplete() if hosts.leader() else ():
            shutil.rmtree(left_over, ignore_errors=True)
        latest = self.latest()
        have = (
            "none is complete yet" if latest is None else f"the newest is of {latest}"
        )
        reason = error.__cause__ if isinstance(error, FileError) else error
        whole = " ".join(str(reason).split())
        text, refused = whole[:400], no_room(whole)
        if refused not in text:  # it stood behind long paths
            text = f"{text} ... {refused}"
        hint = "Is the folder writable, and is there space left on the disk?"
        if ran_out(error):
            hint = "The memory does not suffice."
        return CheckpointError(
            f"Cannot write the checkpoint of step {step} in {self._dir} ({have}): "
            f"{text}. {hint} The same command goes on from the newest checkpoint."
        )


def _processes() -> ocp.options.MultiprocessingOptions:
    """Which of the hosts take part in a save or a restore."""
    if hosts.count() == jax.process_count() and not hosts_apart():
        return ocp.options.MultiprocessingOptions()
    mine = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=mine,
        active_processes={mine},
        barrier_sync_key_prefix=f"alone{mine}",
    )


def _existing(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or the one that it will be made in."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for _, path in _files(folder))


def _flatten(tree: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """A pytree to {path: array} and {path: [dtype, shape]}.

    Our own flat names rather than Orbax's tree: named tuples, empty states and Python
    numbers come back as they were. Empty arrays, which Orbax refuses, stay out.
    """
    leaves, kinds = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "value"
        if name in kinds:
            raise ValueError(f"two leaves of the state are called {name!r}")
        if isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            raise TypeError(f"{name}: save jax.random.key_data(key), not the key")
        if not hasattr(leaf, "dtype"):
            leaf = np.asarray(leaf)
        if isinstance(leaf, (np.ndarray, np.generic)):
            if leaf.dtype.kind in "OUSM":
                raise TypeError(f"{name}: a {leaf.dtype} array cannot be saved")
            leaf = np.asarray(leaf)
        kinds[name] = [str(leaf.dtype), list(leaf.shape)]
        if leaf.size:
            leaves[name] = leaf
    return leaves, kinds


def _unflatten(template: Any, leaves: dict[str, Any]) -> Any:
    def pick(path: Any, like: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "value"
        if name not in leaves:
            return like  # an empty array
        value = leaves[name]
        if isinstance(like, (bool, int, float)):
            return type(like)(np.asarray(value).item())
        if isinstance(like, jax.Array) and not like.committed:
            # Committed, it could not meet arrays on other devices in one jit.
            return jnp.asarray(value, like.dtype)
        if isinstance(like, (np.ndarray, np.generic)):
            return np.array(value, like.dtype)  # writable, as the caller's was
        return value

    return jax.tree_util.tree_map_with_path(pick, template)


def _sharding(leaf: Any) -> Any:
    """That an array is to have; None for those of the host, or that are anywhere."""
    uncommitted = isinstance(leaf, jax.Array) and not leaf.committed
    return None if uncommitted else getattr(leaf, "sharding", None)


def _restore_args(leaf: Any, whole: bool = False) -> ocp.RestoreArgs:
    sharding = _sharding(leaf)
    if whole or sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    return ocp.ArrayRestoreArgs(
        sharding=sharding, dtype=leaf.dtype, global_shape=leaf.shape, strict=True
    )


def _check_same_leaves(
    folder: pathlib.Path, saved: dict[str, Any], wanted: dict[str, Any]
) -> None:
    saved = {name: shape for name, (_, shape) in saved.items() if 0 not in shape}
    have = {name: list(leaf.shape) for name, leaf in wanted.items()}
    for name in sorted(saved.keys() | have.keys()):
        if saved.get(name) != have.get(name):
            raise CheckpointError(
                f"{folder} is a checkpoint of another state: {name} has shape "
                f"{saved.get(name, '(none: it is not there)')} in it, and "
                f"{have.get(name, '(none: it is not there)')} in this run."
            )


def _is_complete(folder: pathlib.Path) -> bool:
    return (folder / MANIFEST).exists()


def _write_manifest(
    folder: pathlib.Path, step: int, leaves: dict[str, list[Any]]
) -> None:
    manifest: dict[str, Any] = {
        "step": step,
        "files": {name: fingerprint(path) for name, path in _files(folder)},
        "leaves": leaves,
    }
    # Over the rest of the manifest: it can be damaged like any other file.
    manifest["sha256"] = _digest(manifest)
    atomic_write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            yield path.relative_to(folder).as_posix(), path


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
