"""Prepared data on disk: what was written is read, by TFDS too, and nothing is half."""

from __future__ import annotations

import json
import math
import pickle
import sys

import numpy as np
import pytest
import tiny

from aprm_jax.data import prepared, selection
from aprm_jax.data.bpe import load_tokenizer, save_tokenizer, train_bpe
from aprm_jax.data.contamination import ContaminationIndex
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.labelled import from_labels, from_ratings, question_id
from aprm_jax.data.prepared import PreparedRow
from aprm_jax.data.sources import read_source
from aprm_jax.data.steps import StepBuilder
from aprm_jax.files import FILES, DamagedFileError, seal_folder, write_sealed

BUILDER = StepBuilder(tiny.tokenizer(), 1, (64,), 16)


def _rows(builder: StepBuilder = BUILDER) -> list[PreparedRow]:
    return [
        PreparedRow(builder.solution(question, steps, labels), question, "tiny")
        for question, steps, labels in tiny.solutions()
    ]


def _metadata():
    return {"builder": prepared.builder_settings(BUILDER), "note": "é"}


def test_rows_come_back_as_they_were(tmp_path):
    rows = _rows()
    rows[0].row.labels[0] = math.nan
    rows[1].row.labels[1] = 0.75  # a fraction survives
    folder = tmp_path / "prepared"
    prepared.write_prepared(
        folder, {"train": iter(rows), "dev": iter(())}, _metadata, rows_per_file=2
    )
    source = prepared.open_split(folder, "train")
    assert len(source) == 3
    for k, item in enumerate(rows):
        example = source[k]
        row = prepared.to_row(example)
        for name in ("tokens", "positions", "segment_ids", "step_ids", "labels"):
            expected, found = getattr(item.row, name), getattr(row, name)
            np.testing.assert_array_equal(expected, found)
            assert expected.dtype == found.dtype
        assert example["question_id"].decode() == item.question_id
    # More than one file, ArrayRecord, and no TensorFlow.
    assert len(list((folder / "1.0.0").glob("*array_record*"))) == 2
    assert "tensorflow" not in sys.modules
    counts = prepared.read_metadata(folder)["splits"]
    assert list(counts) == ["train"]
    assert counts["train"] == {
        "rows": 3,
        "tokens": sum(len(item.row) for item in rows),
        "steps": 6,
        "labelled_steps": 5,
        "longest": max(len(item.row) for item in rows),
        "most_steps": 3,
        "questions": 3,
    }
    assert prepared.read_metadata(folder)["note"] == "é"
    with pytest.raises(DataError, match="no split 'dev', only train"):
        prepared.open_split(folder, "dev")
    # The names of `data/sources.py` reach it as they reach any builder of TFDS.
    name = f"tfds:prepared?data_dir={tmp_path}"
    assert read_source(name, "train", lambda r: r["source"]) == ["tiny"] * 3


def test_a_write_that_dies_leaves_what_was_there(tmp_path):
    folder = tmp_path / "prepared"

    def dying():
        yield from _rows()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared.write_prepared(folder, {"train": dying()}, _metadata)
    assert not folder.exists()
    with pytest.raises(DataError, match="not a prepared data set"):
        prepared.read_metadata(folder)
    prepared.write_prepared(folder, {"train": _rows()[:2]}, _metadata)
    with pytest.raises(KeyboardInterrupt):
        prepared.write_prepared(folder, {"train": dying()}, _metadata)
    assert prepared.read_metadata(folder)["splits"]["train"]["rows"] == 2
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    assert len(prepared.open_split(folder, "train")) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["prepared"]
    with pytest.raises(DataError, match="no split has a row"):
        prepared.write_prepared(folder, {"train": ()}, _metadata)
    assert len(prepared.open_split(folder, "train")) == 3


def test_another_tokenizer_or_layout_is_refused(tmp_path):
    folder = tmp_path / "prepared"
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    assert prepared.check_builder(folder, BUILDER)["splits"]["train"]["rows"] == 3
    other = train_bpe(["1 + 2"], 262)
    for builder, what in (
        (StepBuilder(other, 1, (64,), 16), "another tokenizer"),
        (StepBuilder(tiny.tokenizer(), None, (64,), 16), "another window: 1 there"),
        (StepBuilder(tiny.tokenizer(), 1, (64,)), "another line_stride: 16 there"),
    ):
        with pytest.raises(DataError, match=what):
            prepared.check_builder(folder, builder)
    # Buckets are no part of what an id means.
    prepared.check_builder(folder, StepBuilder(tiny.tokenizer(), 1, (32, 64), 16))


def test_other_ids_of_questions_are_refused(tmp_path, monkeypatch):
    """By them held-out questions are left out: of stale ones none would be."""
    folder = tmp_path / "prepared"
    settings = prepared.builder_settings(BUILDER)
    for known in (settings | {"question_id": "0" * 16}, dict(settings)):
        if known == settings:  # of a version that kept none
            del known["question_id"]
        metadata = {"builder": known}
        prepared.write_prepared(folder, {"train": _rows()}, lambda m=metadata: m)
        with pytest.raises(
            DataError, match=r"another question_id: .* Prepare it again"
        ):
            prepared.check_builder(folder, BUILDER)
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    prepared.check_builder(folder, BUILDER)
    monkeypatch.setattr(prepared, "question_id", lambda text: text)
    with pytest.raises(DataError, match="another question_id"):
        prepared.check_builder(folder, BUILDER)


def test_a_tokenizer_keeps_its_hash_on_disk(tmp_path):
    tokenizer = train_bpe(["to be or not to be, that is the question"] * 3, 280)
    before = prepared.tokenizer_hash(tokenizer)
    StepBuilder(tokenizer, None, (8,))  # sets a flag of the backend
    assert prepared.tokenizer_hash(tokenizer) == before
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    assert prepared.tokenizer_hash(load_tokenizer(tmp_path / "tokenizer")) == before
    assert prepared.tokenizer_hash(train_bpe(["to be"] * 3, 262)) != before


# What is kept.


def test_the_same_text_with_the_same_labels_is_kept_once():
    dropped = selection.Dropped()
    first = from_ratings("Q  1?", ["a"], [1], source="x")
    same = from_ratings("q 1 ?", ["a"], [1], source="y")
    other = from_ratings("Q 1?", ["a"], [-1])
    longer = from_ratings("Q 1?", ["a", "b"], [1, None])
    twice = from_ratings("Q 1?", ["a", "b"], [1, None])
    kept = selection.without_repeats([first, same, other, longer, twice], dropped)
    assert kept == [first, other, longer] and dropped.repeated == 2


def test_contaminated_questions_are_dropped_or_refused():
    index = ContaminationIndex(3)
    index.add("bench", ["How many pens has Ann got in her bag?"])
    rows = [
        from_labels("How many pens has Ann got in her bag", ["5"], [1.0], source="s"),
        from_labels("How many pens has Ann got in her box, then?", ["5"], [1.0]),
        from_labels("What is 2 + 2?", ["4"], [1.0]),
    ]
    dropped = selection.Dropped()
    kept, found = selection.without_contamination(rows, index, dropped, refuse=False)
    assert kept == rows[2:] and dropped.contaminated == 2
    assert [o.equal for o in found.values()] == [True, False]
    with pytest.raises(DataError, match=r"s: the question .* is a question of bench"):
        selection.without_contamination(rows, index, dropped, refuse=True)
    with pytest.raises(DataError, match=r"shares 86% of a question of bench"):
        selection.without_contamination(rows[1:], index, dropped, refuse=True)


def test_splits_go_by_the_question_alone():
    questions = [f"How many is {k}?" for k in range(2000)]
    split = {q: selection.split_of(q, 0.1) for q in questions}
    assert 150 < sum(s == "dev" for s in split.values()) < 250
    for q in questions[:50]:
        assert selection.split_of(f"  {q.upper()}", 0.1) == split[q]
    # A larger share only adds: no question moves from dev to train.
    assert all(
        selection.split_of(q, 0.2) == "dev" for q, s in split.items() if s == "dev"
    )
    assert {selection.split_of(q, 0.0) for q in questions} == {"train"}
    assert {selection.split_of(q, 1.0) for q in questions} == {"dev"}


def test_problems_and_step_data_are_read_alike(tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        json.dumps({"question": "Q  1", "answer": "1+1 =  2\n#### 2"}) + "\n"
    )
    dropped = selection.Dropped()
    [found] = selection.read_solutions(
        f"gsm8k:{problems}", label="soft", dropped=dropped
    )
    assert (found.question, found.steps) == ("Q  1", ("1+1 =  2", "#### 2"))
    assert found.labels == (1.0, 1.0)  # people's own solution
    assert selection.read_questions(f"gsm8k:{problems}") == ["Q  1"]
    steps = tmp_path / "steps.jsonl"
    rows = [
        {"prompt": "Q", "completions": ["a\nb", "c"], "labels": [0.6, None]},
        {"prompt": "Q", "completions": ["a"], "labels": [None]},
        {"prompt": "Q", "completions": ["a", " "], "labels": [1, 0]},
    ]
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [found] = selection.read_solutions(
        f"step_format:{steps}", label="hard", dropped=dropped
    )
    assert found.steps == ("a\nb", "c") and found.labels[0] == 1.0
    assert (dropped.unlabelled, dropped.empty) == (1, 1)
    assert question_id("Q") == found.problem_id


# Hostile and damaged folders.

_PAYLOAD = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
"""


def _naming(folder, module):
    """A prepared set whose metadata name a class of `module`."""
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    path = folder / prepared.VERSION / "features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["source"]["pythonClassName"] = f"{module}.X"
    path.write_text(json.dumps(features))


@pytest.mark.parametrize("module", ["payload_a", "data.prepared.payload_b"])
def test_metadata_cannot_name_code(tmp_path, monkeypatch, module):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    _naming(tmp_path / "data" / "prepared", module)
    payload = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    payload.write_text(_PAYLOAD)
    # Ours reads no class's name; that of TFDS's name is looked at first.
    source = prepared.open_split(tmp_path / "data" / "prepared", "train")
    assert prepared.to_row(source[0]).tokens.size
    with pytest.raises(DataError, match=rf"features\.json: names the class '{module}"):
        read_source(f"tfds:prepared?data_dir={tmp_path / 'data'}", "train", dict)
    assert not payload.with_name("ran").exists()


@pytest.mark.parametrize(
    "features",
    [
        {"type": "payload.X", "content": {}},
        {"type": "payload.X", "proto_cls": "Feature", "content": "{}"},
        {"python_class_name": "payload.X"},
        {"pythonClassName": ["payload.X"]},
        {"pythonClassName": "tensorflow_datasets.core.features/../x.X"},
    ],
)
def test_every_spelling_of_a_class_is_looked_at(tmp_path, features):
    folder = tmp_path / "prepared"
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    (folder / prepared.VERSION / "features.json").write_text(json.dumps(features))
    with pytest.raises(DataError, match=r"features\.json"):
        read_source(f"tfds:prepared?data_dir={tmp_path}", "train", dict)


def test_metadata_cannot_name_files_elsewhere(tmp_path):
    folder = tmp_path / "prepared"
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    path = folder / prepared.VERSION / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"][0]["filepathTemplate"] = "../../{DATASET}-{SPLIT}.{FILEFORMAT}"
    path.write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"names files outside its folder"):
        read_source(f"tfds:prepared?data_dir={tmp_path}", "train", dict)
    listing = folder / prepared.VERSION / FILES
    write_sealed(listing, {"files": {"../../prepared-train.array_record-0": {}}})
    with pytest.raises(DamagedFileError, match="list of files in its own folder"):
        prepared.open_split(folder, "train")


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _flip, lambda path: path.unlink()])
@pytest.mark.parametrize("kind", ["metadata", "files", "prepared-train"])
def test_a_damaged_set_is_refused_by_name(tmp_path, damage, kind):
    folder = tmp_path / "prepared"
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    [path] = (folder / prepared.VERSION).glob(f"{kind}*")
    damage(path)
    with pytest.raises((DataError, DamagedFileError), match=path.name):
        prepared.open_split(folder, "train")


@pytest.mark.parametrize(
    "wrong",
    [
        b"[" * 100_000,
        b"[]",
        b'{"builder": 1, "splits": {}}',
        b'{"builder": {}, "splits": {"train": {"rows": "3"}}}',
    ],
)
def test_metadata_of_another_shape_are_refused(tmp_path, wrong):
    folder = tmp_path / "prepared"
    prepared.write_prepared(folder, {"train": _rows()}, _metadata)
    version = folder / prepared.VERSION
    (version / "metadata.json").write_bytes(wrong)
    seal_folder(version)
    with pytest.raises(DataError, match=r"metadata\.json: cannot be read"):
        prepared.check_builder(folder, BUILDER)


def test_readers_of_pickles_and_scripts_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="pickles"):
        read_source("datasets:pandas?data_files=x.pkl", "train", dict)
    script = tmp_path / "scripted" / "scripted.py"
    script.parent.mkdir()
    script.write_text(_PAYLOAD)
    with pytest.raises(DataError, match="scripted"):
        read_source("datasets:scripted", "train", dict)
    with pytest.raises(DataError, match="unknown option 'trust_remote_code'"):
        read_source("datasets:scripted?trust_remote_code=1", "train", dict)
    assert not script.with_name("ran").exists()
