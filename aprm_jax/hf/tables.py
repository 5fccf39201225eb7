"""The tables of `families`, read in both ways: tensors to parameters and back.

Axes are merged, split and transposed, and fused projections cut. Nothing else ever
happens to a number: no permutation within heads (our rotary pairs are Hugging Face's),
no sums, no other precision. What goes in comes out bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from aprm_jax.config.errors import UserError
from aprm_jax.hf.copying import contiguous
from aprm_jax.hf.families import AXES, LAYERS, TABLES, Row
from aprm_jax.models.architecture import DecoderConfig

# Where a checkpoint may have what the tables have at "model.": a backbone saved alone,
# and the text model inside Gemma 3 with images, as older and newer files have it.
PREFIXES = ("model.", "", "language_model.model.", "model.language_model.")
# What a checkpoint may hold besides: buffers of old files, and eyes.
IGNORED = (
    r"(^|\.)rotary_emb\.inv_freq$",
    r"^(model\.)?(vision_tower|multi_modal_projector)\.",
)


ENDS = ("lm_head", "model.embed_tokens")  # the two that may be tied
_INNER = r"(layers\.\d+\..+|embed_tokens(?:\..+)?|norm(?:\..+)?)"


class CheckpointMismatchError(UserError, ValueError):
    """A checkpoint's tensors are not those of the model that its config describes."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Where one parameter, or one layer of it, lies in one tensor of a checkpoint.

    Attributes:
      path: of our parameter, "layers/attention/q/kernel".
      layer: index on our leading axis L; None where the parameter has none.
      ours: our axes in order, L apart.
      theirs: the checkpoint's axes, each a group of ours.
      sizes: of `ours`.
      offset: first index on the checkpoint's first axis.
    """

    path: str
    layer: int | None
    ours: tuple[str, ...]
    theirs: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    offset: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of this part in the checkpoint: its rows alone where it shares a tensor."""
        size = dict(zip(self.ours, self.sizes, strict=True))
        return tuple(math.prod(size[axis] for axis in group) for group in self.theirs)

    def whole(self) -> tuple[slice, ...]:
        """The slice of our parameter that takes all of this part."""
        full = tuple(slice(0, size) for size in self.sizes)
        if self.layer is None:
            return full
        return (slice(self.layer, self.layer + 1), *full)

    def source_slices(self, ours: tuple[slice, ...]) -> tuple[slice, ...]:
        """The block of the checkpoint's tensor that holds a slice of our parameter.

        Of a group of axes, such as heads and head size, the block follows the slice
        of the first; the others are read whole, and `to_ours` cuts them.

        Args:
          ours: a slice for each axis of our parameter, L included where it has one;
            without steps. The slice of L must take in this part's layer.

        Raises:
          ValueError: a slice has a step, is empty, or misses the layer.
        """
        bounds, block = self._bounds(ours), []
        size = dict(zip(self.ours, self.sizes, strict=True))
        for i, (first, *rest) in enumerate(self.theirs):
            step = math.prod(size[axis] for axis in rest)
            start, stop = (bound * step for bound in bounds[first])
            offset = 0 if i else self.offset
            block.append(slice(offset + start, offset + stop))
        return tuple(block)

    def to_ours(
        self, block: np.ndarray, ours: tuple[slice, ...] | None = None
    ) -> np.ndarray:
        """Our layout of what was read at `source_slices(ours)`; a view where it can be.

        Args:
          block: as read from the checkpoint.
          ours: the same slices; None for the whole part.

        Returns:
          The slice of our parameter **without** the axis L: a caller that takes several
          layers stacks them.
        """
        bounds = self._bounds(self.whole() if ours is None else ours)
        size = dict(zip(self.ours, self.sizes, strict=True))
        shape, cut, order = [], [], []
        for first, *rest in self.theirs:
            start, stop = bounds[first]
            shape += [stop - start, *(size[axis] for axis in rest)]
            cut += [slice(None), *(slice(*bounds[axis]) for axis in rest)]
            order += [first, *rest]
        axes = [order.index(axis) for axis in self.ours]
        return block.reshape(shape)[tuple(cut)].transpose(axes)

    def to_hf(self, value: np.ndarray) -> np.ndarray:
        """The inverse of `to_ours` for a whole part: `value` has no axis L."""
        order = [self.ours.index(axis) for group in self.theirs for axis in group]
        return value.transpose(order).reshape(self.shape)

    def _bounds(self, ours: tuple[slice, ...]) -> dict[str, tuple[int, int]]:
        """Start and stop of each axis but L."""
        sizes, slices = self.sizes, ours
        if self.layer is not None:
            over_layers, slices = ours[0], ours[1:]
            stop = over_layers.stop
            past = stop is not None and self.layer >= stop
            if (over_layers.start or 0) > self.layer or past:
                raise ValueError(
                    f"{self.path}[{over_layers}] has no layer {self.layer}"
                )
        if len(slices) != len(sizes):
            raise ValueError(f"{self.path}: {len(ours)} slices for axes {self.ours}")
        bounds = {}
        for axis, size, cut in zip(self.ours, sizes, slices, strict=True):
            start, stop, step = cut.indices(size)
            if step != 1 or stop <= start:
                raise ValueError(
                    f"{self.path}: cannot take {cut} of axis {axis}, {size}"
                )
            bounds[axis] = (start, stop)
        return bounds


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint.

    Attributes:
      key: its name there.
      shape: its shape there.
      parts: what lies in it, along the first axis.
    """

    key: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    def to_hf(self, value_of: Callable[[Part], np.ndarray]) -> np.ndarray:
        """The whole tensor; `value_of(part)` is our parameter (of its layer, no L)."""
        pieces = [part.to_hf(np.asarray(value_of(part))) for part in self.parts]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def axis_sizes(config: DecoderConfig) -> dict[str, int]:
    """What each letter of `AXES` counts."""
    return {
        "V": config.vocab_size,
        "D": config.d_model,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
        "F": config.d_ff,
    }


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Path and shape, L included, of each parameter that a decoder has."""
    sizes, absent = axis_sizes(config), _absent(config)
    shapes = {}
    for path, axes in AXES.items():
        if not any(re.search(pattern, path) for pattern in absent):
            lead = (config.num_layers,) if path.startswith(LAYERS) else ()
            shapes[path] = lead + tuple(sizes[axis] for axis in axes.split())
    return shapes


def _absent(config: DecoderConfig) -> list[str]:
    conditions = {
        r"^head/": not config.tie_embeddings,
        r"_post_norm/": config.post_norms,
        r"/[qk]_norm/": config.qk_norm,
        r"/[qkv]/bias$": config.attention_bias != "none",
        r"/o/bias$": config.attention_bias == "all",
    }
    return [pattern for pattern, present in conditions.items() if not present]


@functools.lru_cache(maxsize=8)
def entries(config: DecoderConfig, family: str) -> tuple[Entry, ...]:
    """The tensors of a checkpoint of `family`, layer by layer after the ends.

    Raises:
      ValueError: no such family, or one that cannot hold the parameters of `config`.
    """
    if family not in TABLES:
        raise ValueError(f"family must be one of {', '.join(TABLES)}, not {family!r}")
    sizes, present = axis_sizes(config), parameter_shapes(config)
    rows = [row for row in TABLES[family] if all(path in present for path, _ in row[1])]
    held = {path for _, parts in rows for path, _ in parts}
    if missing := sorted(present.keys() - held):
        raise ValueError(f"a {family} checkpoint has no place for {', '.join(missing)}")
    found = [_entry(row, None, sizes) for row in rows if "{layer}" not in row[0]]
    for layer in range(config.num_layers):
        found += [_entry(row, layer, sizes) for row in rows if "{layer}" in row[0]]
    return tuple(found)


def _entry(row: Row, layer: int | None, sizes: Mapping[str, int]) -> Entry:
    key, placed = row
    parts, offset = [], 0
    for path, spelt in placed:
        ours = tuple(AXES[path].split())
        groups = re.findall(r"\(([^)]*)\)|(\w+)", spelt)
        part = Part(
            path,
            layer,
            ours,
            tuple(tuple((merged or alone).split()) for merged, alone in groups),
            tuple(sizes[axis] for axis in ours),
            offset,
        )
        offset += part.shape[0]
        parts.append(part)
    shape = (offset, *parts[0].shape[1:])
    return Entry(key.format(layer=layer), shape, tuple(parts))


def sources(entries: Sequence[Entry]) -> dict[str, list[tuple[Entry, Part]]]:
    """By parameter path, where each of its layers lies, in the order of layers."""
    found: dict[str, list[tuple[Entry, Part]]] = {}
    for entry in entries:
        for part in entry.parts:
            found.setdefault(part.path, []).append((entry, part))
    return found


def check_keys(
    entries: Sequence[Entry],
    found: Mapping[str, tuple[int, ...]],
    *,
    ignore: Collection[str] = (),
    where: str = "checkpoint",
) -> dict[str, str]:
    """Finds every entry in a checkpoint, or says all that is wrong with it.

    Args:
      entries: what the model needs.
      found: key and shape of each tensor in the checkpoint.
      ignore: patterns of keys that may be there and are not read, beside `IGNORED`
        and, for a model without an LM head of its own, "lm_head.weight".
      where: names the checkpoint in the error.

    Returns:
      For each entry's key the checkpoint's: they differ by a prefix (`PREFIXES`).

    Raises:
      CheckpointMismatchError: lists missing, mis-shaped and unexpected tensors.
    """
    prefix = next((p for p in PREFIXES if f"{p}embed_tokens.weight" in found), "model.")
    outer = prefix.removesuffix("model.") if prefix.startswith("lang") else ""
    names = {entry.key: _renamed(entry.key, prefix, outer) for entry in entries}
    skipped = [*IGNORED, *ignore]
    if "lm_head.weight" not in names:
        skipped.append(rf"^{re.escape(outer)}lm_head\.weight$")
    known = set(names.values())
    problems = [
        f"missing: {names[entry.key]} {list(entry.shape)}"
        for entry in entries
        if names[entry.key] not in found
    ]
    for entry in entries:
        shape = found.get(names[entry.key], entry.shape)
        if tuple(shape) != entry.shape:
            problems.append(
                f"shape: {names[entry.key]} is {list(shape)}, not {list(entry.shape)}"
            )
    for key in sorted(found.keys() - known):
        if not any(re.search(pattern, key) for pattern in skipped):
            problems.append(f"unexpected: {key} {list(found[key])}")
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointMismatchError(
            f"{where}: {len(problems)} tensors are not what the config describes\n"
            f"  {listed}"
        )
    return names


def canonical(key: str) -> str | None:
    """A tensor's or module's name as the tables have it; None for none of a decoder's.

    A backbone saved alone and the text model beside images have other prefixes.
    """
    if re.fullmatch(r"(language_model\.)?lm_head(\..+)?", key):
        return key.removeprefix("language_model.")
    for prefix in PREFIXES:
        inner = key.removeprefix(prefix)
        if key.startswith(prefix) and re.fullmatch(_INNER, inner):
            return f"model.{inner}"
    return None


def _renamed(key: str, prefix: str, outer: str) -> str:
    if key.startswith("model."):
        return prefix + key.removeprefix("model.")
    return outer + key


def params_from_tensors(
    config: DecoderConfig, family: str, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A whole checkpoint in memory to our parameters, dtypes as they come.

    Raises:
      CheckpointMismatchError: tensors are missing, mis-shaped or unexpected.
    """
    table = entries(config, family)
    names = check_keys(table, {key: value.shape for key, value in tensors.items()})
    params: dict[str, Any] = {}
    for path, placed in sources(table).items():
        pieces = [
            part.to_ours(tensors[names[entry.key]][part.source_slices(part.whole())])
            for entry, part in placed
        ]
        value = np.stack(pieces) if placed[0][1].layer is not None else pieces[0]
        params[path] = np.ascontiguousarray(value)
    return unflatten_dict(params, sep="/")


def tensors_from_params(
    config: DecoderConfig, family: str, params: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters as a checkpoint's tensors, one at a time.

    A tied LM head is not written: the config says that it is tied.
    """

    def value_of(part: Part) -> np.ndarray:
        node: Any = params
        for name in part.path.split("/"):
            node = node[name]
        return np.asarray(node if part.layer is None else node[part.layer])

    for entry in entries(config, family):
        yield entry.key, contiguous(entry.to_hf(value_of))
