"""What an adapter does to its base's tensors, computed as the base is read.

It adds scale B A, replaces a tensor or rows of it, gives rows another length (DoRA), of
tensors named as the base's checkpoint names them. `Adapted` computes that block by
block in float32, so it works for every tensor, fused or not, and no device holds more
than its shard.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from aprm_jax.config.errors import UserError
from aprm_jax.hf.safetensors_io import Checkpoint, Slices
from aprm_jax.hf.tables import ENDS, canonical


class AdapterMismatchError(UserError, ValueError):
    """An adapter does not fit its base, or is of a kind that is not supported."""


@dataclasses.dataclass(frozen=True)
class Delta:
    """What LoRA does to a matrix W [out, in]: W + scale B A.

    Attributes:
      a: [r, in], float32.
      b: [out, r], float32.
      scale: of B A.
      lengths: [out] of the rows of the sum, for DoRA (arXiv:2402.09353); None for none.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float
    lengths: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return len(self.b), self.a.shape[1]


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter by the tensors that it changes, named as in `families.TABLES`.

    Attributes:
      base: the name that it records for its base; "" for none.
      deltas: of matrices.
      added: to vectors, a bias.
      replaced: whole tensors, before a delta.
      rows: indices and rows that are replaced.
      head: tensors of no backbone, such as "score.weight", by their own names.
    """

    base: str
    deltas: dict[str, Delta]
    added: dict[str, np.ndarray]
    replaced: dict[str, np.ndarray]
    rows: dict[str, tuple[np.ndarray, np.ndarray]]
    head: dict[str, np.ndarray]

    @property
    def changed(self) -> set[str]:
        """The tensors that it changes."""
        return {*self.deltas, *self.added, *self.replaced, *self.rows}

    @property
    def unties(self) -> bool:
        """Whether it tells a tied LM head from the embedding: PEFT trains one alone.

        Rows of single tokens it replaces in both.
        """
        ends = {f"{name}.weight" for name in ENDS}
        return bool(ends & {*self.deltas, *self.replaced})


class Adapted:
    """A checkpoint with an adapter merged in, as far as `Checkpoint` is read.

    Where an adapter changes one of a tied embedding and LM head, both are there.

    Raises:
      AdapterMismatchError: the base has no such tensor, or one of another shape.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter):
        self.directory = checkpoint.directory
        self.shapes = dict(checkpoint.shapes)
        self._checkpoint, self._adapter = checkpoint, adapter
        self._names: dict[str, str] = {}  # of the checkpoint -> of the adapter
        self._same: dict[str, str] = {}
        for key in checkpoint.shapes:
            self._names[key] = canonical(key) or key
        by_name = {name: key for key, name in self._names.items()}
        embedding = by_name.get("model.embed_tokens.weight")
        parted = adapter.unties and "lm_head.weight" not in by_name
        if parted and embedding is not None:
            head = f"{_outer(embedding)}lm_head.weight"
            self._same[head] = embedding
            self.shapes[head] = self.shapes[embedding]
            self._names[head], by_name["lm_head.weight"] = "lm_head.weight", head
        self._check(by_name)

    def _check(self, by_name: Mapping[str, str]) -> None:
        a = self._adapter
        wanted: list[tuple[str, tuple[int, ...]]] = [
            *((name, delta.shape) for name, delta in a.deltas.items()),
            *((name, value.shape) for name, value in a.added.items()),
            *((name, value.shape) for name, value in a.replaced.items()),
        ]
        for name, shape in wanted:
            if name not in by_name:
                raise AdapterMismatchError(
                    f"the adapter changes {name}, which the base has not: it was made "
                    "for another base"
                )
            if (found := tuple(self.shapes[by_name[name]])) != tuple(shape):
                raise AdapterMismatchError(
                    f"the adapter's {name} is {tuple(shape)}, the base's {found}: it "
                    "was made for another base"
                )
        for name, (indices, values) in a.rows.items():
            found = tuple(self.shapes.get(by_name.get(name, ""), ()))
            outside = [i for i in indices.tolist() if not 0 <= i < (*found, 0)[0]]
            if outside or found[1:] != values.shape[1:]:
                raise AdapterMismatchError(
                    f"the adapter's rows of {name} are {values.shape}, up to token "
                    f"{int(max(indices, default=0))}, and the base's {found}: it was "
                    "made for another base"
                )

    def dtype(self, key: str) -> np.dtype:
        """The dtype of a tensor: float32 of one that the adapter changes."""
        changed = self._names.get(key) in self._adapter.changed
        found = self._checkpoint.dtype(self._same.get(key, key))
        return np.dtype(np.float32) if changed else found

    def read(
        self, key: str, slices: Slices | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """As `Checkpoint.read`."""
        name = self._names.get(key, key)
        if name not in self._adapter.changed:
            return self._checkpoint.read(self._same.get(key, key), slices, out)
        shape = self.shapes[key]
        cuts = slices or (slice(None),) * len(shape)
        block = self._block(key, name, cuts)
        if out is None:
            return np.ascontiguousarray(block)
        out[...] = block
        return out

    def _block(self, key: str, name: str, cuts: Slices) -> np.ndarray:
        a = self._adapter
        delta = a.deltas.get(name)
        whole_rows = delta is not None and delta.lengths is not None
        read = (cuts[0], *(slice(None) for _ in cuts[1:])) if whole_rows else cuts
        if name in a.replaced:
            block = a.replaced[name][read].astype(np.float32)
        else:
            source = self._same.get(key, key)
            block = self._checkpoint.read(source, read).astype(np.float32)
        if name in a.rows:
            self._put_rows(block, name, read)
        if name in a.added:
            block = block + a.added[name][read]
        if delta is None:
            return block
        left, right = delta.b[read[0]], delta.a[:, read[1]]
        block = block + delta.scale * (left @ right)
        if delta.lengths is None:
            return block
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        return (block * (delta.lengths[cuts[0], None] / norms))[:, cuts[1]]

    def _put_rows(self, block: np.ndarray, name: str, cuts: Slices) -> None:
        indices, values = self._adapter.rows[name]
        start, stop, _ = cuts[0].indices(1 << 62)
        for index, row in zip(indices.tolist(), values, strict=True):
            if start <= index < stop:
                block[index - start] = row[cuts[1]]


def adapted(
    checkpoint: Checkpoint, adapter: Adapter, folder: str | os.PathLike[str]
) -> Adapted:
    """`Adapted`, with the adapter's folder in its errors."""
    try:
        return Adapted(checkpoint, adapter)
    except AdapterMismatchError as error:
        raise AdapterMismatchError(f"{os.fspath(folder)}: {error}") from error


def _outer(key: str) -> str:
    return "language_model." if key.startswith("language_model.model.") else ""
