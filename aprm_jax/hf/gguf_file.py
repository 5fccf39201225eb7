"""Reads GGUF files: metadata and a table of tensors, then any slice of a tensor.

A file is "GGUF", a version, two counts, metadata, a table of tensors, and their bytes
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Nothing of it is trusted:
each count is compared with the bytes that are there before it is followed, each
tensor with the file's end before a byte of it is read. Quantised blocks are opened by
the package `gguf`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aprm_jax.hf.stamps import Stamp, files_stamp
from aprm_jax.models.io import ModelFileError

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_MAX_HEADER = 1 << 28  # bytes; the largest vocabularies take a twentieth
_MAX_DIMENSION = 1 << 26  # of a tensor
# Metadata types: a struct's letter each, then strings and arrays.
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
# ggml type → name, values a block, bytes a block.
_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
}


@dataclasses.dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
      shape: outermost axis first, as NumPy has it.
      kind: its ggml type.
      offset: of its first byte in the file.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a run along the last axis."""
        _, values, size = _TYPES[self.kind]
        return self.shape[-1] // values * size

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclasses.dataclass(frozen=True)
class GgufFile:
    """What a file says before its tensors are read.

    Attributes:
      path: the file.
      metadata: key → number, text, or list of either.
      tensors: name in the file → where it lies.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """The metadata and the table of a file; kept while the file stays as it is.

    Raises:
      ModelFileError: no GGUF file, or a truncated, damaged or unsupported one.
    """
    path = Path(path)
    try:
        path.stat()  # says why it cannot be read
        return _read(path, files_stamp(path))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error


def dequantise(tensor: GgufTensor, raw: np.ndarray) -> np.ndarray:
    """float32 values of whole rows, of their bytes [rows, row_bytes]."""
    name = _TYPES[tensor.kind][0]
    if name == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if name == "F16":
        return raw.view("<f2").astype(np.float32)
    if name == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    import gguf

    with np.errstate(over="ignore", invalid="ignore"):  # scales of a hostile file
        return gguf.dequantize(raw, gguf.GGMLQuantizationType(tensor.kind))


@functools.lru_cache(maxsize=4)
def _read(path: Path, stamped: Stamp) -> GgufFile:
    ((_, size, *_),) = stamped
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
        if magic != _MAGIC:
            raise ModelFileError(
                f"{path}: no GGUF file: it begins with {magic!r}, not {_MAGIC!r}"
            )
        # Mapped, so that only what is looked at is read.
        length = min(size, _MAX_HEADER)
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as raw:
            found = _parse(_Reader(path, raw, len(_MAGIC)))
    _check_ends(path, size, found.tensors)
    return found


def _parse(reader: _Reader) -> GgufFile:
    (version,) = reader.take("I")
    if version not in _VERSIONS:
        other = " (a big-endian file)" if version & 0xFFFF == 0 else ""
        raise reader.error(
            f"version {version}{other}, but versions {_VERSIONS} are read"
        )
    tensors, pairs = reader.take("QQ")
    metadata = reader.metadata(pairs)
    infos = reader.table(tensors)
    align = metadata.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1 or align & (align - 1):
        raise reader.error(f"general.alignment is {align!r}, no power of two")
    start = -(-reader.at // align) * align
    placed = {
        name: dataclasses.replace(info, offset=start + info.offset)
        for name, info in infos.items()
    }
    return GgufFile(reader.path, metadata, placed)


def _check_ends(path: Path, size: int, tensors: Mapping[str, GgufTensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.offset + tensor.nbytes > size:
            raise ModelFileError(
                f"{path}: truncated or damaged: {size} bytes, but {name} "
                f"{list(tensor.shape)} ends at byte {tensor.offset + tensor.nbytes}"
            )
    quantised = {_TYPES[t.kind][0] for t in tensors.values() if _TYPES[t.kind][1] > 1}
    if quantised and importlib.util.find_spec("gguf") is None:
        raise ModelFileError(
            f"{path}: {', '.join(sorted(quantised))} needs the package gguf: "
            "pip install 'aprm_jax[gguf]'"
        )


@dataclasses.dataclass
class _Reader:
    """Takes values off the front of a file; never more than is there."""

    path: Path
    raw: mmap.mmap
    at: int

    def error(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: {what}")

    def _skip(self, size: int) -> int:
        """Where `size` bytes begin; the next value is behind them."""
        at = self.at
        if size > len(self.raw) - at:
            long = len(self.raw) >= _MAX_HEADER
            raise self.error(
                f"metadata and table of more than {_MAX_HEADER} bytes"
                if long
                else f"truncated or damaged: {size} bytes are said to follow byte "
                f"{at} of {len(self.raw)}"
            )
        self.at = at + size
        return at

    def take(self, letters: str) -> tuple[Any, ...]:
        form = struct.Struct(f"<{letters}")
        return form.unpack_from(self.raw, self._skip(form.size))

    def text(self) -> str:
        (size,) = self.take("Q")
        at = self._skip(size)
        try:
            return self.raw[at : at + size].decode()
        except UnicodeDecodeError as error:
            raise self.error(f"damaged: no text at byte {at}: {error}") from None

    def metadata(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._check_count(count, 13, "metadata")
        for _ in range(count):
            key = self.text()
            if key in found:
                raise self.error(f"damaged: {key[:80]!r} is there twice")
            found[key] = self._value(key)
        return found

    def _value(self, key: str) -> Any:
        (kind,) = self.take("I")
        if kind != _ARRAY:
            return self._item(kind, key)
        kind, count = self.take("IQ")
        if kind in _SCALARS:
            size = struct.calcsize(f"<{_SCALARS[kind]}")
            self._check_count(count, size, key)
            return list(self.take(f"{count}{_SCALARS[kind]}"))
        self._check_count(count, 8, key)
        return [self._item(kind, key) for _ in range(count)]

    def _item(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise self.error(f"{key[:80]!r} has a value of the unknown type {kind}")
        return self.take(_SCALARS[kind])[0]

    def table(self, count: int) -> dict[str, GgufTensor]:
        found: dict[str, GgufTensor] = {}
        self._check_count(count, 32, "tensors")
        for _ in range(count):
            name = self.text()
            if name in found:
                raise self.error(f"damaged: the tensor {name[:80]!r} is there twice")
            found[name] = self._tensor(name[:80])
        return found

    def _tensor(self, name: str) -> GgufTensor:
        (axes,) = self.take("I")
        if not 1 <= axes <= 4:
            raise self.error(f"{name}: {axes} axes, not 1 to 4")
        shape = self.take(f"{axes}Q")[::-1]
        kind, offset = self.take("IQ")
        if kind not in _TYPES:
            known = ", ".join(name for name, _, _ in _TYPES.values())
            raise self.error(f"{name}: ggml type {kind}, but only {known} are read")
        label, values, _ = _TYPES[kind]
        if not all(1 <= n <= _MAX_DIMENSION for n in shape) or shape[-1] % values:
            raise self.error(
                f"{name}: {list(shape)} is no shape of {label}: 1 to {_MAX_DIMENSION} "
                f"an axis, and the last a multiple of {values}"
            )
        return GgufTensor(shape, kind, offset)

    def _check_count(self, count: int, least: int, what: str) -> None:
        """Refuses to go through more items than the bytes that are left can hold."""
        if count * least > len(self.raw) - self.at:
            raise self.error(
                f"truncated or damaged: {count} items of {what[:80]} in "
                f"{len(self.raw) - self.at} bytes"
            )
