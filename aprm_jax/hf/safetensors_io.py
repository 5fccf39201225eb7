"""Reads parts of safetensors checkpoints, and writes sharded ones, shard by shard.

A file is eight bytes of header length, a JSON header, and the tensors' bytes
(https://huggingface.co/docs/safetensors). Reading goes through `pread` into buffers of
our own rather than through a memory map: pages of a map count as this process's memory
for as long as they are cached.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from aprm_jax.files import parse_json
from aprm_jax.hf.copying import contiguous
from aprm_jax.models.io import ModelFileError

INDEX_ENDING = ".safetensors.index.json"
DTYPES: Mapping[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_ITEM_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}
_MAX_HEADER = 100_000_000  # bytes; the format's own limit
_PAGE = 4096  # runs shorter than this are read with what lies between them
_BLOCK = 1 << 23  # bytes of such a read
_ALIGNMENT = 64  # JAX's CPU backend takes a buffer aligned so without copying it

# What JSON of somebody else's can raise, read as an index or a header.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

Slices = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that `jax.device_put` does not have to copy on a CPU."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class Checkpoint:
    """The tensors of a folder's safetensors files, read on demand.

    Attributes:
      directory: the folder.
      shapes: key -> shape.
    """

    def __init__(self, directory: Path, tensors: Mapping[str, _Tensor]):
        self.directory = directory
        self.shapes = {key: tensor.shape for key, tensor in tensors.items()}
        self._tensors = tensors
        self._files: dict[Path, int] = {}

    @classmethod
    def open(cls, directory: str | os.PathLike[str], stem: str = "model") -> Checkpoint:
        """Reads the headers of `model.safetensors`, or of the files of its index.

        Where there are both, the single file is the model, as for transformers.

        Args:
          directory: the folder.
          stem: what the files' names begin with.

        Raises:
          ModelFileError: there is none, or a file is missing, truncated or damaged;
            names the file and what was expected.
        """
        folder = Path(directory)
        if not folder.is_dir():
            raise ModelFileError(f"{folder}: no such folder, so no checkpoint to load")
        index, single = (f"{stem}{INDEX_ENDING}", f"{stem}.safetensors")
        if (folder / single).is_file():
            return cls(folder, _read_header(folder / single))
        if (folder / index).is_file():
            return cls(folder, _read_index(folder / index))
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        found = f", only {pickles[0]}, whose pickle could run code" if pickles else ""
        raise ModelFileError(
            f"{folder}: neither {single} nor {index}{found}. Only safetensors are read"
        )

    def dtype(self, key: str) -> np.dtype:
        """The dtype of a tensor.

        Raises:
          ModelFileError: it is none of float32, float16 and bfloat16.
        """
        tensor = self._tensors[key]
        if tensor.dtype not in DTYPES:
            raise ModelFileError(
                f"{tensor.path}: {key} is {tensor.dtype}, but only "
                f"{', '.join(DTYPES)} are taken (quantised weights are not)"
            )
        return DTYPES[tensor.dtype]

    def read(
        self, key: str, slices: Slices | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """A tensor, or a part of it, reading little else than that part.

        Args:
          key: a key of `shapes`.
          slices: one with step 1 for each axis; default: the whole tensor.
          out: C-contiguous, of the part's shape and the tensor's dtype: is filled and
            returned.

        Raises:
          ModelFileError: a dtype that is not taken, or the file has shrunk since.
        """
        tensor, dtype = self._tensors[key], self.dtype(key)
        if slices is None:
            slices = (slice(None),) * len(tensor.shape)
        bounds = [s.indices(n)[:2] for s, n in zip(slices, tensor.shape, strict=True)]
        shape = tuple(max(0, stop - start) for start, stop in bounds)
        if out is None:
            out = empty(shape, dtype)
        elif (out.shape, out.dtype) != (shape, dtype) or not out.flags.c_contiguous:
            raise ValueError(
                f"{key}: out is {out.dtype}{out.shape}, not {dtype}{shape}"
            )
        if out.size:
            self._fill(tensor, bounds, out)
        return out

    def close(self) -> None:
        """Closes the files; reading opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(
        self, tensor: _Tensor, bounds: Sequence[tuple[int, int]], out: np.ndarray
    ) -> None:
        """Reads run by run: what lies side by side in the file."""
        item = out.dtype.itemsize
        # Behind the last axis that is cut everything lies side by side.
        cut = [
            axis
            for axis, (size, (start, stop)) in enumerate(
                zip(tensor.shape, bounds, strict=True)
            )
            if (start, stop) != (0, size)
        ]
        last = cut[-1] if cut else 0
        strides = [
            math.prod(tensor.shape[axis + 1 :]) * item for axis in range(out.ndim)
        ]
        run = out[(0,) * last].nbytes
        if last and run < _PAGE:
            self._fill_rows(tensor, bounds, last, strides, out)
            return
        flat = _raw(out)
        outer = itertools.product(*(range(*b) for b in bounds[:last]))
        first = bounds[last][0] * strides[last] if bounds else 0
        for i, index in enumerate(outer):
            lead = sum(k * s for k, s in zip(index, strides, strict=False))
            self._pread(
                tensor, tensor.offset + lead + first, flat[i * run : (i + 1) * run]
            )

    def _fill_rows(
        self,
        tensor: _Tensor,
        bounds: Sequence[tuple[int, int]],
        last: int,
        strides: Sequence[int],
        out: np.ndarray,
    ) -> None:
        """Reads whole rows in blocks and keeps a part of each: short runs.

        A row is all that lies behind axis `last - 1`.
        """
        start, stop = bounds[last]
        inner = tensor.shape[last:]
        row, axis = strides[last - 1], last - 1
        low, high = bounds[axis]
        step = max(1, _BLOCK // row)
        block = np.empty((min(step, high - low), *inner), out.dtype)
        for i, index in enumerate(
            itertools.product(*(range(*b) for b in bounds[:axis]))
        ):
            lead = sum(k * s for k, s in zip(index, strides, strict=False))
            target = out.reshape(-1, high - low, *out.shape[last:])[i]
            for at in range(low, high, step):
                part = block[: min(step, high - at)]
                self._pread(tensor, tensor.offset + lead + at * row, _raw(part))
                target[at - low : at - low + len(part)] = part[:, start:stop]

    def _pread(self, tensor: _Tensor, offset: int, view: memoryview) -> None:
        while len(view):
            count = os.preadv(self._file(tensor.path), [view], offset)
            if not count:
                raise ModelFileError(f"{tensor.path}: became shorter while it was read")
            view, offset = view[count:], offset + count

    def _file(self, path: Path) -> int:
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDONLY)
        return self._files[path]

    def __del__(self):
        with contextlib.suppress(AttributeError):
            self.close()


def write_sharded(
    directory: str | os.PathLike[str],
    tensors: Iterable[tuple[str, np.ndarray]],
    max_shard_bytes: int,
    stem: str = "model",
) -> list[str]:
    """Writes tensors as they come, as one file or as shards with their index.

    No more than one shard is held in memory; a tensor larger than a shard has one of
    its own. The files are named as transformers names them.

    Args:
      directory: an existing folder.
      tensors: (key, array) pairs of float32, float16 or bfloat16.
      max_shard_bytes: of the tensors of one file.
      stem: what the files' names begin with.

    Returns:
      The names of the files.

    Raises:
      ValueError: a key comes twice, a dtype that we do not write, or no tensors.
    """
    folder = Path(directory)
    shards: list[list[str]] = []
    total = parameters = 0
    for shard in _shards(tensors, max_shard_bytes):
        name = f".{stem}-{len(shards)}.part"
        _write_file(folder / name, shard)
        shards.append(list(shard))
        total += sum(a.nbytes for a in shard.values())
        parameters += sum(a.size for a in shard.values())
        del shard  # before the next one is gathered
    keys = list(itertools.chain.from_iterable(shards))
    if not keys:
        raise ValueError("there are no tensors to write")
    if len(set(keys)) != len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"tensor {twice[0]!r} comes twice")
    count = len(shards)
    names = [f"{stem}.safetensors"]
    if count > 1:
        names = [f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for i, name in enumerate(names):
        os.replace(folder / f".{stem}-{i}.part", folder / name)
    if count == 1:
        return names
    index = {
        "metadata": {"total_parameters": parameters, "total_size": total},
        "weight_map": {
            key: name
            for shard, name in zip(shards, names, strict=True)
            for key in shard
        },
    }
    index_name = f"{stem}{INDEX_ENDING}"
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / index_name).write_text(text, encoding="utf-8")
    return [*names, index_name]


def _shards(
    tensors: Iterable[tuple[str, np.ndarray]], max_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    size = 0
    for key, array in tensors:
        if key in shard:
            raise ValueError(f"tensor {key!r} comes twice")
        if shard and size + array.nbytes > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[key] = array
        size += array.nbytes
        del array  # or it would outlive its shard by one tensor
    if shard:
        yield shard


def _write_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    for key, array in tensors.items():
        if array.dtype not in DTYPES.values():
            raise ValueError(f"tensor {key!r} is {array.dtype}, which is not written")
    dense = {key: contiguous(array) for key, array in tensors.items()}
    save_file(dense, path, metadata={"format": "pt"})


def _raw(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8).data


def _read_index(path: Path) -> dict[str, _Tensor]:
    folder = path.parent
    try:
        weights = parse_json(path.read_bytes())["weight_map"]
        names = sorted(set(weights.values()))
        if any(not isinstance(n, str) or Path(n).name != n for n in names):
            raise ValueError("a file's name has a folder in it")
    except _UNREADABLE as error:
        raise ModelFileError(
            f"{path}: not an index, which maps each key to a file: {error!r}"
        ) from error
    files: dict[str, dict[str, _Tensor]] = {}
    for name in names:
        if not (folder / name).is_file():
            count = sum(file == name for file in weights.values())
            raise ModelFileError(
                f"{folder / name}: missing, though {path.name} has {count} tensors "
                "in it"
            )
        files[name] = _read_header(folder / name)
    for key, name in weights.items():
        if key not in files[name]:
            raise ModelFileError(
                f"{folder / name}: has no tensor {key!r}, though {path.name} says so"
            )
    return {key: files[name][key] for key, name in weights.items()}


def _read_header(path: Path) -> dict[str, _Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            raise ModelFileError(
                f"{path}: truncated or no safetensors file: {size} bytes, but its "
                f"header alone is said to have {length if size >= 8 else 8}"
            )
        raw = file.read(length)
    data = 8 + length
    try:
        header = parse_json(raw)
        header.pop("__metadata__", None)
        tensors, ends = {}, [0]
        for key, entry in header.items():
            shape = tuple(int(n) for n in entry["shape"])
            begin, end = entry["data_offsets"]
            bits = _ITEM_BITS.get(entry["dtype"])  # unknown ones are refused if read
            wrong = bits is not None and (end - begin) * 8 != math.prod(shape) * bits
            if wrong or min((*shape, begin, end - begin)) < 0:
                raise ValueError(f"{key}: {shape} does not fit bytes {begin} to {end}")
            tensors[key] = _Tensor(path, entry["dtype"], shape, data + begin)
            ends.append(end)
    except _UNREADABLE as error:
        raise ModelFileError(f"{path}: damaged header: {error!r}") from error
    if data + max(ends) != size:
        raise ModelFileError(
            f"{path}: truncated or damaged: {size} bytes, but its header describes "
            f"{data + max(ends)}"
        )
    return tensors
