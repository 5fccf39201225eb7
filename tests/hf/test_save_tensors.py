"""Sharded files: what safetensors reads of them, and what we read of its files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from aprm_jax.hf.safetensors_io import (
    Checkpoint,
    empty,
    write_sharded,
)
from aprm_jax.models.io import ModelFileError

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def _tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"a": (7, 5), "b": (3,), "c": (4, 3, 2), "d": (), "e": (0, 4), "f": (9, 1)}
    return {
        key: np.asarray(rng.normal(size=shape)).astype(DTYPES[i % 3])
        for i, (key, shape) in enumerate(shapes.items())
    }


def _same(got: np.ndarray, want: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes()


@pytest.mark.parametrize("max_bytes", [1, 60, 1 << 20])
def test_shards_are_what_safetensors_and_we_read(tmp_path, max_bytes):
    want = _tensors()
    names = write_sharded(tmp_path, iter(want.items()), max_bytes)
    assert sorted(names) == sorted(p.name for p in tmp_path.iterdir())
    read: dict[str, np.ndarray] = {}
    for name in names:
        if name.endswith(".safetensors"):
            part = safetensors.numpy.load_file(tmp_path / name)
            assert len(part) == 1 or sum(a.nbytes for a in part.values()) <= max_bytes
            assert not part.keys() & read.keys()
            read |= part
            with safetensors.safe_open(tmp_path / name, "np") as file:
                assert file.metadata() == {"format": "pt"}
    assert read.keys() == want.keys()
    for key, array in want.items():
        _same(read[key], array)
    with Checkpoint.open(tmp_path) as checkpoint:
        assert checkpoint.shapes == {key: a.shape for key, a in want.items()}
        for key, array in want.items():
            _same(checkpoint.read(key), array)
    if max_bytes == 1 << 20:
        assert names == [SINGLE_FILE]
    else:
        index = json.loads((tmp_path / INDEX_FILE).read_text())
        assert index["weight_map"].keys() == want.keys()
        assert index["metadata"] == {
            "total_parameters": sum(a.size for a in want.values()),
            "total_size": sum(a.nbytes for a in want.values()),
        }
        count = len(names) - 1
        assert f"model-00001-of-{count:05d}.safetensors" in names


def test_no_more_than_a_shard_is_held(tmp_path):
    alive, most = [0], [0]

    class Counted(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def tensors():
        for i in range(12):
            array = np.full((4, 4), i, np.float32).view(Counted)
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield f"t{i}", array
            del array

    write_sharded(tmp_path, tensors(), 3 * 64)
    assert most[0] <= 4  # a shard, and the tensor that did not fit it


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_part_is_numpys_part(data, tmp_path_factory):
    folder = _file(tmp_path_factory)
    whole = _grid()
    key = data.draw(st.sampled_from(sorted(whole)))
    slices = []
    for size in whole[key].shape:
        start = data.draw(st.integers(0, size))
        slices.append(slice(start, data.draw(st.integers(start, size))))
    with Checkpoint.open(folder) as checkpoint:
        _same(checkpoint.read(key, tuple(slices)), whole[key][tuple(slices)])


def _grid() -> dict[str, np.ndarray]:
    # "wide" has runs longer than a page, "tall" rows that are read in blocks.
    return {
        "wide": np.arange(3 * 4 * 3000, dtype=np.float32).reshape(3, 4, 3000),
        "tall": np.arange(2 * 70 * 9, dtype=np.float32).reshape(2, 70, 9),
        "half": np.arange(40, dtype=np.float16).reshape(8, 5),
    }


_folder: list[Path] = []


def _file(factory) -> Path:
    if not _folder:
        _folder.append(factory.mktemp("grid"))
        safetensors.numpy.save_file(_grid(), _folder[0] / SINGLE_FILE)
    return _folder[0]


def test_short_runs_are_read_in_bounded_blocks(tmp_path, monkeypatch):
    from aprm_jax.hf import safetensors_io

    monkeypatch.setattr(safetensors_io, "_BLOCK", 100)
    whole = _grid()
    write_sharded(tmp_path, whole.items(), 1 << 20)
    with Checkpoint.open(tmp_path) as checkpoint:
        part = (slice(0, 2), slice(3, 68), slice(2, 5))
        _same(checkpoint.read("tall", part), whole["tall"][part])


def test_a_leading_slice_reads_its_own_bytes_alone(tmp_path, monkeypatch):
    import os

    whole = np.arange(1 << 16, dtype=np.float32).reshape(64, 1024)
    write_sharded(tmp_path, [("w", whole)], 1 << 30)
    read = []
    pread = os.preadv

    def counting(fd, buffers, offset):
        read.append(pread(fd, buffers, offset))
        return read[-1]

    monkeypatch.setattr(os, "preadv", counting)
    with Checkpoint.open(tmp_path) as checkpoint:
        _same(checkpoint.read("w", (slice(8, 11), slice(None))), whole[8:11])
        assert read == [3 * 4096]
        out = empty((3, 1024), np.dtype(np.float32))
        assert checkpoint.read("w", (slice(0, 3), slice(0, 1024)), out) is out
        _same(out, whole[:3])
        with pytest.raises(ValueError, match="out is float32"):
            checkpoint.read("w", (slice(0, 4), slice(None)), out)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'a' is int64"):
        write_sharded(tmp_path, [("a", np.arange(3))], 100)
    with pytest.raises(ValueError, match="'a' comes twice"):
        write_sharded(tmp_path, [("a", np.ones(3, np.float32))] * 2, 1)
    with pytest.raises(ValueError, match="no tensors"):
        write_sharded(tmp_path, [], 100)


def _saved(folder: Path) -> Path:
    write_sharded(folder, _tensors().items(), 60)
    return folder


def _truncate(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes() + b"x")


def _cut_header(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:20])


def _cut_length(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[0].write_bytes(b"\x01")


def _forget(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[-1].unlink()


def _bad_index(folder: Path) -> None:
    (folder / INDEX_FILE).write_text("[1]")


def _escape(folder: Path) -> None:
    (folder / INDEX_FILE).write_text('{"weight_map": {"a": "../x.safetensors"}}')


def _stranger(folder: Path) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    index["weight_map"]["z"] = index["weight_map"]["a"]
    (folder / INDEX_FILE).write_text(json.dumps(index))


def _no_index(folder: Path) -> None:
    (folder / INDEX_FILE).unlink()


def _pickle_only(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"model-00001-of-\d+.safetensors: truncated or damaged: \d+ bytes"),
        (_lengthen, r"model-00001-of-\d+.safetensors: truncated or damaged: \d+ bytes"),
        (_cut_header, "safetensors: truncated or no safetensors file: 20 bytes"),
        (_cut_length, "safetensors: truncated or no safetensors file: 1 bytes"),
        (_forget, r"safetensors: missing, though model.safetensors.index.json has"),
        (_bad_index, "index.json: not an index"),
        (_escape, "a file's name has a folder in it"),
        (_stranger, "has no tensor 'z'"),
        (_no_index, "neither model.safetensors nor model.safetensors.index.json"),
        (_pickle_only, "only pytorch_model.bin, whose pickle could run code"),
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path, damage, message):
    damage(_saved(tmp_path))
    with pytest.raises(ModelFileError, match=message) as error:
        Checkpoint.open(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": "four"},
        [],
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, entry):
    text = json.dumps({"w": entry}).encode()
    data = struct.pack("<Q", len(text)) + text + b"\0" * 16
    (tmp_path / SINGLE_FILE).write_bytes(data)
    with pytest.raises(ModelFileError, match=f"{SINGLE_FILE}: damaged header"):
        Checkpoint.open(tmp_path)


def test_a_dtype_that_is_not_taken_is_named(tmp_path):
    safetensors.numpy.save_file({"w": np.arange(4)}, tmp_path / SINGLE_FILE)
    checkpoint = Checkpoint.open(tmp_path)  # a buffer that nobody reads does no harm
    with pytest.raises(ModelFileError, match=r"w is I64, but only F32, F16, BF16"):
        checkpoint.read("w")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="nowhere: no such folder"):
        Checkpoint.open(tmp_path / "nowhere")
