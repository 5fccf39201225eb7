"""job=prepare from config to disk, and a solver that learns from what it wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import command
import pytest

from aprm_jax.config import ConfigError, for_stage, read_config_file, validate
from aprm_jax.data import prepared
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.loader import load_batches
from aprm_jax.jobs import prepare, sft
from aprm_jax.jobs.context import Context
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import done_info

CONFIG = """
import json
from pathlib import Path

import ml_collections

from aprm_jax.config import override, read_config_file

def get_config(arg=""):
    c = read_config_file({file!r}, "runlocal")
    with c.unlocked():
        c.overrides = ml_collections.ConfigDict()
    c.stages = ("data:prepare", "solver:sft")
    c.prepare.sources = ("gsm8k:" + c.domain.train,)
    c.prepare.against = ("gsm8k:" + c.domain.test,)
    c.prepare.dev_share = 0.2
    c.sft.data = "data"
    c.sft.updates = 6
    c.sft.batch_size = 8
    c.checkpoint.every = 2
    c.checkpoint.keep_last = 3
    for name, value in json.loads(arg or "{{}}").items():
        with c.unlocked():
            c.update_from_flattened_dict({{name: value}})
    return c
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "prepared.py"
    file = str(command.REPOSITORY / "configs" / "gsm8k.py")
    path.write_text(CONFIG.format(file=file))
    return str(path)


def _context(config_file, root, stage="data", **changes) -> Context:
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    c = read_config_file(config_file, json.dumps(changed))
    for name in ("sources", "against"):  # JSON knows no tuples
        with c.unlocked():
            c.prepare[name] = tuple(c.prepare[name])
    return Context(for_stage(c, stage), root, stage)


@pytest.fixture(scope="module")
def done(config_file, tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    context = _context(config_file, root)
    return context, prepare.run(context)


def test_it_writes_what_it_says(done):
    context, numbers = done
    folder = context.directory / "prepared"
    metadata = prepared.check_builder(folder, context.builder)
    train, dev = metadata["splits"]["train"], metadata["splits"]["dev"]
    assert numbers["train.rows"] == train["rows"] > dev["rows"] > 0
    # 72 problems: each is in a split, repeated, or in the test set as well.
    dropped = metadata["dropped"]
    assert dropped["contaminated"] > 0
    assert train["rows"] + dev["rows"] + sum(dropped.values()) == 72
    assert train["steps"] == train["labelled_steps"] == 3 * train["rows"]
    assert metadata["sources"] == list(context.config.prepare.sources)
    shown = metadata["contaminated"][0]
    assert shown["evaluation"] == context.config.prepare.against[0]
    # Its ids are the step builder's: the same text has the same ids everywhere.
    ids = {tuple(r["tokens"]) for r in prepared.open_split(folder, "train")}
    domain = context.domain
    expected = {
        tuple(context.builder.solution(p.question, p.steps).tokens.tolist())
        for p in (domain.train(k) for k in range(domain.num_train))
    }
    expected |= {
        tuple(context.builder.solution(p.question, p.steps).tokens.tolist())
        for p in domain.problems("dev", 99)
    }
    assert ids <= expected


def test_it_is_the_same_from_shuffled_sources(done, config_file, tmp_path):
    context, numbers = done
    source = context.config.prepare.sources[0].partition(":")[2]
    lines = Path(source).read_text().splitlines()
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(f"{line}\n" for line in reversed(lines)))
    shutil.copytree(context.root / "tokenizer", tmp_path / "tokenizer")
    again = _context(config_file, tmp_path, prepare__sources=[f"gsm8k:{turned}"])
    assert prepare.run(again) == numbers


def test_where_nothing_is_left_the_reason_is_named(done, config_file, tmp_path):
    shutil.copytree(done[0].root / "tokenizer", tmp_path / "tokenizer")
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"question": "What is 1 + 1?", "answer": 2}\n' * 3)
    source = f"questions:{bare}"
    context = _context(config_file, tmp_path, "none", prepare__sources=[source])
    with pytest.raises(DataError, match=rf"prepare\.sources: .*{bare} is left: 3 with"):
        prepare.run(context)


def test_limits_are_counted_and_nothing_is_cut(done, config_file, tmp_path, caplog):
    context, numbers = done
    shutil.copytree(context.root / "tokenizer", tmp_path / "tokenizer")
    # Each solution has three steps.
    few = _context(config_file, tmp_path, "few", builder__max_steps=2)
    with pytest.raises(DataError, match="no split has a row"):
        prepare.run(few)
    assert "do not fit and are left out" in caplog.text
    longest = int(numbers["train.longest"])
    short = _context(config_file, tmp_path, "short", prepare__max_tokens=longest - 1)
    found = prepare.run(short)
    assert found["dropped.too_long"] > 0
    assert found["train.longest"] < longest
    total = ("train.rows", "dev.rows")
    assert sum(found[name] for name in total) + found["dropped.too_long"] == sum(
        numbers[name] for name in total
    )


def test_refusing_stops_before_anything_is_written(done, config_file, tmp_path):
    context, _ = done
    shutil.copytree(context.root / "tokenizer", tmp_path / "tokenizer")
    again = _context(config_file, tmp_path, prepare__contaminated="refuse")
    with pytest.raises(DataError, match=r"prepare\.contaminated='drop'"):
        prepare.run(again)
    assert not (tmp_path / "data" / "prepared").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prepare__sources": []}, "prepare.sources is empty"),
        ({"prepare__sources": ["gsm9k:x"]}, "no reader is called 'gsm9k'"),
        ({"prepare__sources": ["gsm8k:no/file"]}, "no/file: no such file"),
        ({"prepare__against": ["gsm8k"]}, "must be READER:SOURCE"),
        ({"domain__name": "arithmetic"}, "set domain.name to 'gsm8k' or 'labelled'"),
    ],
)
def test_what_is_wrong_is_said_first(config_file, tmp_path, changes, message):
    context = _context(config_file, tmp_path, **changes)
    with pytest.raises((ConfigError, DataError), match=message):
        prepare.check(context, {})


def test_sft_needs_prepared_data_to_exist(done, config_file, tmp_path):
    solver = _context(config_file, tmp_path, "solver")
    with pytest.raises(DataError, match="not a prepared data set"):
        sft.check(solver, {})
    with pytest.raises(DataError, match="not a prepared data set"):
        sft.check(solver, {solver.config.sft.data: "sft"})
    sft.check(solver, {solver.config.sft.data: "prepare"})  # an earlier stage makes it
    folder = str(done[0].directory / "prepared")
    sft.check(_context(config_file, tmp_path, sft__data=folder), {})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prepare.label", "firm", "prepare.label must be one of hard, soft"),
        ("prepare.contaminated", "keep", "must be one of drop, refuse"),
        ("prepare.max_overlap", 0.0, r"a share in \(0, 1\]"),
        ("prepare.dev_share", 1.5, r"a share in \[0, 1\)"),
        ("prepare.ngram", 0, "at least 1"),
        ("sft.task", "perturb", "needs sft.task='solve'"),
    ],
)
def test_the_config_is_checked(config_file, field, value, message):
    with pytest.raises(ConfigError, match=message):
        validate(read_config_file(config_file, json.dumps({field: value})))


def _rows(root: Path) -> int:
    metadata = prepared.read_metadata(root / "data" / "prepared")
    return metadata["splits"]["train"]["rows"]


def test_a_solver_learns_from_it_and_resumes_to_the_bit(config_file, tmp_path):
    arguments = [f"--config={config_file}", command.CACHE, "--workdir=run"]
    code, output = command.call(tmp_path, *arguments)
    assert code == 0, output
    root = tmp_path / "run"
    rows = read_metrics(root / "solver")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[-1]["loss"] < rows[0]["loss"]
    # The first batch is the loader's first: every step token of it was learned from.
    context = _context(config_file, root, "solver")
    learned = sft._learned(context, root / "data" / "prepared")
    # The domain's dev split is a part of the same file.
    held = learned.num_held_out
    assert held > 0 and len(learned) + held == _rows(root)
    assert done_info(root / "solver")["left_out"] == {"held_out_solutions": held}
    batch = next(
        iter(
            load_batches(
                root / "data" / "prepared",
                "train",
                context.builder,
                batch_size=8,
                length=context.builder.buckets[-1],
                seed=0,
                rows=learned,
            )
        )
    )
    assert rows[0]["tokens"] == (batch.step_ids >= 0).sum()
    # Back to a checkpoint in the middle: the same batches, the same bits.
    model = root / "solver" / "model" / "params.safetensors"
    before = model.read_bytes()
    (root / "solver" / "done.json").unlink()
    model.unlink()
    code, output = command.call(tmp_path, *arguments, "--config.checkpoint.step=2")
    assert code == 0, output
    assert "going on from step 2" in output
    assert model.read_bytes() == before
