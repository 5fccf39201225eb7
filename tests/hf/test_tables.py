"""The key tables: slices agree with wholes, and every wrong key is listed at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_decoder import SMALL, make_params

from aprm_jax.hf.tables import (
    CheckpointMismatchError,
    check_keys,
    entries,
    parameter_shapes,
    params_from_tensors,
    sources,
)

GEMMA = dataclasses.replace(SMALL, post_norms=True, qk_norm=True)
BIASED = dataclasses.replace(SMALL, attention_bias="all", tie_embeddings=False)
EACH = [("llama", SMALL), ("llama", BIASED), ("gemma3", GEMMA), ("phi3", SMALL)]


def leaf(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


def numbered(config, family):
    """A checkpoint in which no two numbers are the same."""
    table, count = entries(config, family), 0
    tensors = {}
    for entry in table:
        size = int(np.prod(entry.shape))
        tensors[entry.key] = np.arange(count, count + size).reshape(entry.shape)
        count += size
    return tensors


@pytest.mark.parametrize(("family", "config"), EACH)
def test_parameters_are_those_that_the_decoder_makes(family, config):
    made = make_params(config)
    shapes = parameter_shapes(config)
    assert set(shapes) == set(sources(entries(config, family)))
    for path, shape in shapes.items():
        assert leaf(made, path).shape == shape
    sizes = [leaf(made, path).size for path in shapes]
    total = sum(np.prod(entry.shape) for entry in entries(config, family))
    assert sum(sizes) == total


@pytest.mark.parametrize(("family", "config"), EACH)
def test_any_slice_is_cut_from_its_block_of_the_checkpoint(family, config):
    tensors = numbered(config, family)
    params = params_from_tensors(config, family, tensors)
    rng = np.random.default_rng(0)
    for path, placed in sources(entries(config, family)).items():
        whole = leaf(params, path)
        for _ in range(4):
            starts = [int(rng.integers(size)) for size in whole.shape]
            cut = tuple(
                slice(start, int(rng.integers(start, size)) + 1)
                for start, size in zip(starts, whole.shape, strict=True)
            )
            stacked = placed[0][1].layer is not None
            wanted = placed[cut[0]] if stacked else placed
            pieces = []
            for entry, part in wanted:
                block = tensors[entry.key][part.source_slices(cut)]
                pieces.append(part.to_ours(block, cut))
            got = np.stack(pieces) if stacked else pieces[0]
            np.testing.assert_array_equal(got, whole[cut])


def test_a_row_of_heads_reads_no_more_than_its_heads():
    placed = sources(entries(SMALL, "phi3"))["layers/attention/k/kernel"]
    entry, part = placed[1]
    assert entry.key == "model.layers.1.self_attn.qkv_proj.weight"
    assert entry.shape == (64, 32)  # 32 rows of q, 16 of k, 16 of v
    everything = (slice(None), slice(None), slice(1, 2), slice(None))
    assert part.source_slices(everything) == (slice(40, 48), slice(0, 32))
    with pytest.raises(ValueError, match="has no layer 1"):
        part.source_slices((slice(0, 1), *everything[1:]))
    with pytest.raises(ValueError, match="cannot take"):
        part.source_slices((*everything[:3], slice(None, None, 2)))


def test_all_that_is_wrong_is_in_one_message():
    shapes = {entry.key: entry.shape for entry in entries(SMALL, "llama")}
    assert check_keys(entries(SMALL, "llama"), shapes)["model.norm.weight"]
    del shapes["model.layers.1.mlp.up_proj.weight"]
    shapes["model.norm.weight"] = (31,)
    shapes["model.layers.2.mlp.up_proj.weight"] = (48, 32)
    with pytest.raises(CheckpointMismatchError) as error:
        check_keys(entries(SMALL, "llama"), shapes, where="here")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("here: 3 tensors")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["missing:", "model.layers.1.mlp.up_proj.weight"],
        ["shape:", "model.norm.weight"],
        ["unexpected:", "model.layers.2.mlp.up_proj.weight"],
    ]


def test_a_tied_model_may_carry_its_head_and_old_files_their_buffers():
    shapes = {entry.key: entry.shape for entry in entries(SMALL, "llama")}
    shapes["lm_head.weight"] = (37, 32)
    shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = (4,)
    check_keys(entries(SMALL, "llama"), shapes)
    untied = dataclasses.replace(SMALL, tie_embeddings=False)
    del shapes["lm_head.weight"]
    with pytest.raises(CheckpointMismatchError, match=r"missing: lm_head\.weight"):
        check_keys(entries(untied, "llama"), shapes)
    shapes["score.weight"] = (2, 32)
    with pytest.raises(CheckpointMismatchError, match=r"unexpected: score\.weight"):
        check_keys(entries(SMALL, "llama"), shapes)
    check_keys(entries(SMALL, "llama"), shapes, ignore=(r"^score\.",))


@pytest.mark.parametrize(
    "prefix", ["", "language_model.model.", "model.language_model."]
)
def test_backbones_are_found_under_other_prefixes(prefix):
    table = entries(SMALL, "llama")
    renamed = {prefix + e.key.removeprefix("model."): e.shape for e in table}
    if prefix:
        renamed["vision_tower.patch.weight"] = (3,)
    names = check_keys(table, renamed)
    assert names["model.norm.weight"] == prefix + "norm.weight"
    assert set(names.values()) <= renamed.keys()


def test_a_family_without_a_place_for_a_parameter_is_refused():
    with pytest.raises(ValueError, match="phi3 checkpoint has no place for layers/att"):
        entries(BIASED, "phi3")
    with pytest.raises(ValueError, match="not 'gpt2'"):
        entries(SMALL, "gpt2")
