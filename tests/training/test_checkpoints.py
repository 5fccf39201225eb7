import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aprm_jax.training import checkpoints
from aprm_jax.training.checkpoints import (
    Checkpointer,
    CheckpointError,
    DamagedCheckpointError,
)
from aprm_jax.training.memory import ran_out


class Named(NamedTuple):
    left: object
    right: object


@flax.struct.dataclass
class Struct:
    inner: object


def tree(seed=0):
    key = jax.random.key(seed)
    params = {"a/b": {"kernel": jax.random.normal(key, (3, 4, 5))}, "c": jnp.ones(())}
    return {
        "params": params,
        "optimiser": optax.adam(1e-3).init(params),
        "bfloat16": jnp.arange(7, dtype=jnp.bfloat16) / 3,
        "bool": jnp.array([True, False]),
        "key": jax.random.key_data(key),
        "named": Named(np.arange(6, dtype=np.int64).reshape(2, 3), (None, [])),
        "struct": Struct(np.float64(1 / 3)),
        "empty": np.zeros((0, 3), np.int32),
        "step": 2**40 + seed,
        "rate": 0.1,
        "flag": True,
        "scalar": np.array(5),
    }


def cleared(leaf):
    """A leaf of the same kind that holds nothing of the old one."""
    if isinstance(leaf, jax.Array):
        return jnp.zeros_like(leaf)
    return np.zeros_like(leaf) if hasattr(leaf, "dtype") else type(leaf)(0)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if isinstance(a, (int, float)):
            assert type(a) is type(b) or isinstance(b, (np.ndarray, np.generic))
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).shape == np.asarray(b).shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def saved(tmp_path):
    """Two complete checkpoints, of steps 1 and 2."""
    with_two = Checkpointer(tmp_path / "ck")
    for step in (1, 2):
        with_two.save(step, tree(step))
    with_two.close()
    return tmp_path / "ck"


@pytest.mark.parametrize("async_", [True, False])
def test_everything_comes_back(tmp_path, async_):
    checkpointer = Checkpointer(tmp_path / "deep" / "ck", async_=async_)
    assert checkpointer.latest() is None
    checkpointer.save(3, tree())
    checkpointer.close()
    again = Checkpointer(tmp_path / "deep" / "ck")
    assert again.latest() == 3
    template = jax.tree.map(cleared, tree())
    restored = again.restore(3, template)
    assert_same(restored, tree())
    for like, leaf in zip(
        jax.tree.leaves(template), jax.tree.leaves(restored), strict=True
    ):
        if isinstance(like, jax.Array):
            assert leaf.sharding == like.sharding and leaf.committed == like.committed
        elif isinstance(like, (int, float)):
            assert type(leaf) is type(like)
    restored["named"].left[0] = 9  # a replay buffer goes on being written into


def test_shapes_do_for_a_template(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, {"x": jnp.arange(6.0).reshape(2, 3)})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16, sharding=sharding)
    x = checkpointer.restore(1, {"x": shape})["x"]
    assert x.dtype == jnp.bfloat16 and x.sharding == sharding
    np.testing.assert_array_equal(x.astype(jnp.float32), np.arange(6.0).reshape(2, 3))
    checkpointer.close()


def test_what_is_saved_is_the_state_at_the_call(tmp_path):
    @partial(jax.jit, donate_argnums=0)
    def update(x):
        return jax.tree.map(lambda leaf: leaf + 1, x)

    device = {f"p{i}": jnp.full((300, 300), float(i)) for i in range(20)}
    host = np.zeros(100_000)
    checkpointer = Checkpointer(tmp_path, keep_last=9)
    for step in range(4):
        checkpointer.save(step, (device, host))
        device = update(device)
        host += 1
    checkpointer.wait()
    for step in range(4):
        restored, replay = checkpointer.restore(step, (device, host))
        assert (replay == step).all()
        for i in range(20):
            assert (np.asarray(restored[f"p{i}"]) == i + step).all()
    checkpointer.close()


def test_old_saves_go(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep_last=2)
    for step in (5, 10, 15, 20):
        checkpointer.save(step, {"x": step})
    checkpointer.close()
    assert checkpointer.steps() == [15, 20]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["15", "20"]


def test_what_a_kill_leaves_is_ignored_and_removed(saved):
    (saved / "2" / "MANIFEST.json").unlink()
    shutil.copytree(saved / "2", saved / "3.orbax-checkpoint-tmp-17")
    checkpointer = Checkpointer(saved)
    assert checkpointer.latest() == 1
    with pytest.raises(CheckpointError, match=r"step 2 .*complete: \[1\]"):
        checkpointer.restore(2, tree())
    checkpointer.save(2, tree(5))
    checkpointer.close()
    assert sorted(path.name for path in saved.iterdir()) == ["1", "2"]
    assert_same(checkpointer.restore(2, tree()), tree(5))


def test_a_step_is_saved_anew(saved):
    checkpointer = Checkpointer(saved)
    checkpointer.save(2, tree(7))
    assert_same(checkpointer.restore(2, tree()), tree(7))
    checkpointer.close()


def _data_files(folder):
    files = [path for path in folder.rglob("[!M]*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("which", ["-1", "0", "MANIFEST.json"])
def test_one_flipped_bit_is_refused(saved, which):
    if which == "MANIFEST.json":
        file = saved / "2" / which
    else:
        file = [f for f in _data_files(saved / "2") if f.stat().st_size][int(which)]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
    checkpointer = Checkpointer(saved)
    assert checkpointer.latest() == 2  # never the one before without being asked
    with pytest.raises(DamagedCheckpointError) as caught:
        checkpointer.restore(2, tree())
    message = str(caught.value)
    assert str(file) in message
    assert "--config.checkpoint.step=1" in message and f"rm -r {saved / '2'}" in message
    assert_same(checkpointer.restore(1, tree()), tree(1))


def test_a_missing_or_cut_file_is_refused(saved):
    file = _data_files(saved / "1")[-1]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedCheckpointError, match="no earlier checkpoint"):
        Checkpointer(saved).restore(1, tree())
    file.unlink()
    with pytest.raises(DamagedCheckpointError, match=f"{file.name} is missing"):
        Checkpointer(saved).restore(1, tree())


@pytest.mark.parametrize("apart", [True, False])
def test_a_follower_checks_the_copy_that_is_its_own(saved, monkeypatch, apart):
    read = []
    monkeypatch.setattr(checkpoints, "fingerprint", read.append)  # equal to nothing
    monkeypatch.setattr(checkpoints, "hosts_apart", lambda: apart)
    monkeypatch.setattr(checkpoints.hosts, "leader", lambda: False)
    if apart:
        with pytest.raises(DamagedCheckpointError, match="checksum"):
            Checkpointer(saved).restore(2, tree())
    else:  # the leader has read the same files
        assert_same(Checkpointer(saved).restore(2, tree()), tree(2))
    assert bool(read) == apart


@pytest.mark.parametrize("leads", [True, False])
def test_hosts_apart_wait_for_a_save_together(tmp_path, monkeypatch, leads):
    met = []
    monkeypatch.setattr(checkpoints, "hosts_apart", lambda: True)
    monkeypatch.setattr(checkpoints.hosts, "leader", lambda: leads)
    monkeypatch.setattr(checkpoints.hosts, "barrier", met.append)
    checkpointer = Checkpointer(tmp_path, async_=False)
    checkpointer.save(1, {"x": 1})
    assert met == ["save", "saved"]
    checkpointer.close()
    assert checkpointer.steps() == ([1] if leads else [])


def test_going_back_sets_later_ones_aside(saved):
    checkpointer = Checkpointer(saved)
    checkpointer.set_aside_after(1)
    assert checkpointer.steps() == [1]
    assert (saved / "2.set-aside" / "MANIFEST.json").exists()


def test_another_state_is_refused_by_name(saved):
    other = tree()
    other["params"]["a/b"]["kernel"] = jnp.zeros((3, 4, 6))
    with pytest.raises(CheckpointError, match=r"kernel has .*4, 5\].*4, 6\]"):
        Checkpointer(saved).restore(1, other)
    other = tree()
    del other["params"]["c"]
    with pytest.raises(CheckpointError, match=r"params\.c .*not there.* in this run"):
        Checkpointer(saved).restore(1, other)


def test_what_cannot_be_saved_is_named(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(TypeError, match=r"rng: .*key_data"):
        checkpointer.save(1, {"rng": jax.random.key(0)})
    with pytest.raises(TypeError, match="text"):
        checkpointer.save(1, {"text": "abc"})
    assert checkpointer.steps() == []


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    checkpointer = Checkpointer(tmp_path / "file" / "ck")
    with pytest.raises(CheckpointError, match=r"step 1 in .*file/ck.*writable"):
        checkpointer.save(1, tree())


# A file may not pass 64 KiB: the write fails as it does on a full disk.
_FULL = """
import pathlib, resource, signal, sys
import jax, numpy as np
from aprm_jax.training.checkpoints import CheckpointError, Checkpointer
checkpointer = Checkpointer(sys.argv[1])
checkpointer.save(1, {"x": np.arange(10)})
checkpointer.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
draw = np.random.default_rng(0)
big = {f"x{k}": jax.numpy.asarray(draw.normal(size=2**15)) for k in range(50)}
try:
    checkpointer.save(2, big)
    checkpointer.close()
except CheckpointError as error:
    print(error)
assert checkpointer.latest() == 1
assert [path.name for path in pathlib.Path(sys.argv[1]).iterdir()] == ["1"]
"""


def test_a_write_that_fails_in_the_background_is_told(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / ("long" * 50))],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "Cannot write the checkpoint of step 2" in result.stdout
    assert "the newest is of 1" in result.stdout
    # However long the paths; and TensorStore's name for it is that of lacking memory.
    assert "File too large" in result.stdout and "space left" in result.stdout
    assert not ran_out(RuntimeError(result.stdout))
    assert result.stderr == ""  # of the writes that were under way beside it


def _with_room(monkeypatch, free):
    """A disk with so many bytes left."""
    disk = shutil._ntuple_diskusage(10**12, 10**12 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)


@pytest.mark.parametrize(
    ("there", "saves", "more"),
    [(0, 1, 1), (0, 2, 2), (0, 9, 3), (1, 9, 2), (2, 1, 1), (2, 9, 1)],
)
def test_a_disk_without_room_is_told_before_the_work(
    tmp_path, monkeypatch, there, saves, more
):
    state = {"w": np.zeros(1000, np.float32), "m": jnp.zeros((10, 50), jnp.bfloat16)}
    checkpointer = Checkpointer(tmp_path / "a" / "b", keep_last=2, async_=False)
    for step in range(there):
        checkpointer.save(step, state)
    size = 4 * 1000 + 2 * 500
    _with_room(monkeypatch, more * size)
    checkpointer.check_room(state, saves)
    _with_room(monkeypatch, more * size - 1)
    with pytest.raises(CheckpointError, match=rf"{more} checkpoints of 5e-06 GB"):
        checkpointer.check_room(state, saves)
    checkpointer.close()


def test_what_a_kill_left_is_room_for_the_next_checkpoint(tmp_path, monkeypatch):
    left = tmp_path / "7"  # without a manifest
    left.mkdir()
    (left / "some").write_bytes(bytes(3000))
    _with_room(monkeypatch, 1000)
    Checkpointer(tmp_path).check_room({"w": np.zeros(1000, np.float32)}, 1)
    (left / "some").write_bytes(bytes(2999))
    with pytest.raises(CheckpointError, match="1 checkpoints"):
        Checkpointer(tmp_path).check_room({"w": np.zeros(1000, np.float32)}, 1)


def test_a_file_system_that_knows_no_size_is_believed(tmp_path, monkeypatch):
    nothing = shutil._ntuple_diskusage(0, 0, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nothing)
    Checkpointer(tmp_path).check_room(tree(), 9)
