import os
import stat

import numpy as np
import pytest

from aprm_jax.files import DamagedFileError, FileError, atomic_write
from aprm_jax.training.workdir import (
    WorkdirError,
    check_done,
    done_info,
    is_done,
    mark_done,
    open_workdir,
    write_config,
)

CONFIG = {"model": {"d_model": 64, "dtype": "float32"}, "seed": 0, "sizes": (1, 2)}


def test_the_same_config_reopens(tmp_path):
    path = open_workdir(tmp_path / "a" / "b", CONFIG, "0.1")
    (path / "result").write_text("kept")
    text = (path / "config.json").read_text()
    assert open_workdir(path, text, "0.1") == path
    open_workdir(path, CONFIG | {"seed": np.int64(0)}, "0.1")
    assert (path / "result").read_text() == "kept"


def test_another_config_is_refused_by_name(tmp_path):
    open_workdir(tmp_path, CONFIG, "0.1")
    other = {"model": {"d_model": 128, "dtype": "float32"}, "sizes": [1, 2], "new": "x"}
    with pytest.raises(WorkdirError) as caught:
        open_workdir(tmp_path, other, "0.1")
    message = str(caught.value)
    assert "model.d_model: there 64, now 128" in message
    assert "seed: there 0, now (not set)" in message
    assert 'new: there (not set), now "x"' in message
    assert "dtype" not in message and "sizes" not in message
    assert "--workdir" in message


def test_another_config_may_be_put_in_its_place(tmp_path):
    open_workdir(tmp_path, CONFIG, "0.1")
    write_config(tmp_path, CONFIG | {"seed": 3}, "0.1")
    open_workdir(tmp_path, CONFIG | {"seed": 3}, "0.1")
    with pytest.raises(WorkdirError, match="seed: there 3, now 0"):
        open_workdir(tmp_path, CONFIG, "0.1")


def test_another_version_is_refused_unless_allowed(tmp_path):
    open_workdir(tmp_path, CONFIG, "0.1")
    with pytest.raises(WorkdirError, match=r"0\.1.*0\.2"):
        open_workdir(tmp_path, CONFIG, "0.2")
    open_workdir(tmp_path, CONFIG, "0.2", allow_other_version=True)
    open_workdir(tmp_path, CONFIG, "0.2")


def test_a_kill_between_the_two_files_does_no_harm(tmp_path):
    open_workdir(tmp_path, CONFIG, "0.1")
    (tmp_path / "fingerprint.json").unlink()
    open_workdir(tmp_path, CONFIG, "0.1")
    assert (tmp_path / "fingerprint.json").exists()


def test_unusable_folders_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=r"file/run.*--workdir"):
        open_workdir(tmp_path / "file" / "run", CONFIG, "0.1")
    (tmp_path / "config.json").write_bytes(b"\x00\xff")
    with pytest.raises(WorkdirError, match=r"config\.json"):
        open_workdir(tmp_path, CONFIG, "0.1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(WorkdirError, match="not writable"):
        open_workdir(tmp_path, CONFIG, "0.1")


def test_atomic_write_leaves_the_old_file_on_failure(tmp_path, monkeypatch):
    atomic_write(tmp_path / "f", "old")

    def no_space(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(FileError, match="No space left on device"):
        atomic_write(tmp_path / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_done(tmp_path):
    assert not is_done(tmp_path)
    mark_done(tmp_path, {"loss": np.float32(0.5), "path": tmp_path})
    assert is_done(tmp_path)
    assert done_info(tmp_path) == {"loss": 0.5, "path": str(tmp_path)}


def test_a_stage_knows_its_files(tmp_path):
    stage, outside = tmp_path / "stage", tmp_path / "summary.json"
    (stage / "parts").mkdir(parents=True)
    (stage / "parts" / "a.json").write_text("{}")
    (stage / "checkpoints").mkdir()
    (stage / "checkpoints" / "x").write_text("guards itself")
    outside.write_text("{}")
    mark_done(stage, {"job": "sft"}, [outside])
    check_done(stage)
    assert done_info(stage) == {"job": "sft"}
    (stage / "checkpoints" / "x").unlink()
    check_done(stage)
    for path in (stage / "parts" / "a.json", outside, stage / "done.json"):
        before = path.read_bytes()
        for wrong in (b"", before[:-2], b'{"job": "sft"}', b"[" * 100_000, b"\xff"):
            path.write_bytes(wrong)
            with pytest.raises(DamagedFileError, match=path.name):
                check_done(stage)
        path.unlink()
        with pytest.raises(DamagedFileError, match=f"{path.name} is missing"):
            check_done(stage)
        path.mkdir()
        with pytest.raises(DamagedFileError, match=path.name):
            check_done(stage)
        path.rmdir()
        path.write_bytes(before)
    check_done(stage)


@pytest.mark.parametrize("name", ["config.json", "fingerprint.json"])
def test_a_damaged_config_is_not_taken_for_another(tmp_path, name):
    open_workdir(tmp_path, CONFIG, "0.1")
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("0", "1", 1))
    with pytest.raises(DamagedFileError, match=name):
        open_workdir(tmp_path, CONFIG, "0.1")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        open_workdir(tmp_path, CONFIG, "0.1")
        mark_done(tmp_path, {})
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
