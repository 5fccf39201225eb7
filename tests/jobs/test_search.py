"""job=search on a tiny run: rows, resumption to the bit, and every wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_game
import tiny_run
from tiny_game import DOMAIN

from aprm_jax.config import ConfigError, jobs, with_fields
from aprm_jax.data.jsonl import DataError
from aprm_jax.evals.records import Results, read_results
from aprm_jax.files import DamagedFileError
from aprm_jax.jobs import inputs, search
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.models import heads
from aprm_jax.tasks.questions import read_asked

TIMES = ("seconds", "peak_kv_bytes")


def config(**fields):
    own = {
        "verifiers": ("prm",),
        "splits": ("dev",),
        "problems": 5,
        "n": 4,
        "m": 2,
        "batch": 2,
        "trees": 1,
        "bootstrap": 50,
    } | fields
    named = {f"search.{name}": value for name, value in own.items()}
    return tiny_run.small({"builder.max_steps": 3, **named})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    backbone = tiny_game.generator()["backbone"]
    params = {
        "solver": {"backbone": backbone},
        "prm": heads.init_prm(tiny_game.jax.random.key(1), backbone, 16, "token"),
    }
    for kind, tree in params.items():
        tiny_game.save(folder / kind / "model", kind, tree)
    return folder


def _run(root: Path, stage: str, **fields) -> list[dict]:
    context = tiny_run.at("search", config(**fields), root, stage)
    search.check(context, {})
    search.run(context)
    return _rows(root / stage / "solutions.jsonl")


def _rows(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row.pop("sha256")
        for field in TIMES:
            row["ledger"].pop(field)
    return rows


@pytest.fixture(scope="module")
def whole(root) -> list[dict]:
    return _run(root, "whole")


def test_every_question_has_a_row_with_all_that_came_of_it(root, whole):
    problems = DOMAIN.problems("dev", 5)
    assert [row["index"] for row in whole] == list(range(5))
    for row in whole:
        assert row["split"] == "dev" and row["correct"] in (True, False)
        assert row["ledger"]["decoded"] > 0 and row["ledger"]["flops"] > 0
        assert row["ledger"]["verifier_tokens"] > 0
        assert row["answer"] is not None or row["why"]
        assert row["curve"][-1]["answer"] == row["answer"]
        assert row["curve"][-1]["correct"] == row["correct"]
        for candidate in row["candidates"]:
            assert len(candidate["scores"]) == len(candidate["steps"])
            assert candidate["count"] >= 1
    assert {row["reference"] for row in whole} <= {
        p.answer for p in tiny_game.ArithmeticDomain(0).problems("dev", 5)
    } | {p.answer for p in problems}
    assert "tree" in whole[0] and "tree" not in whole[1]
    ends = [node for node in whole[0]["tree"] if node["finished"]]
    right = [c["answer"] == whole[0]["reference"] for c in whole[0]["candidates"]]
    assert sorted(node["correct"] for node in ends) == sorted(right)
    records, _ = read_results(root / "whole" / "results.json", "")
    results = Results(records)
    accuracy = results.find("search", "dev", "prm", "accuracy")
    assert accuracy is not None
    assert accuracy.value == sum(row["correct"] for row in whole) / 5
    assert accuracy.low <= accuracy.value <= accuracy.high
    mean = sum(row["ledger"]["decoded"] for row in whole) / 5
    assert results.value("search", "dev", "prm", "decoded", part="cost") == mean


def test_training_problems_are_searched_each_once(root):
    asked = search._questions(
        tiny_run.at("search", config(splits=("train",)), root, "training")
    )
    assert {a.split for a in asked} == {"train"} and len(asked) == 5
    assert len({a.question for a in asked}) == 5 and all(a.reference for a in asked)
    held_out = {p.question for p in DOMAIN.problems("dev", 200)}
    assert not held_out & {a.question for a in asked}


def test_a_search_that_was_killed_goes_on_to_the_same_rows(root, whole, monkeypatch):
    path = root / "killed" / "solutions.jsonl"
    searched: list[int] = []
    inner = search.Engine.search

    def dies(self, questions, key, told):
        if len(searched) == 1:
            raise KeyboardInterrupt
        searched.append(len(questions))
        return inner(self, questions, key, told)

    monkeypatch.setattr(search.Engine, "search", dies)
    with pytest.raises(KeyboardInterrupt):
        _run(root, "killed")
    assert len(_rows(path)) == 2
    monkeypatch.setattr(search.Engine, "search", inner)
    # Torn in the middle of a line, and of a batch: the batch is redone, no more.
    lines = (root / "whole" / "solutions.jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])

    def counts(self, questions, key, told):
        searched.append(len(questions))
        return inner(self, questions, key, told)

    monkeypatch.setattr(search.Engine, "search", counts)
    assert _run(root, "killed") == whole
    assert searched == [2, 2, 1]
    assert _run(root, "killed") == whole and len(searched) == 3  # nothing is left


def test_rows_that_are_there_are_checked(root, whole):
    path = root / "damaged" / "solutions.jsonl"
    _run(root, "damaged")
    text = path.read_text()
    lines = text.splitlines()
    path.write_text(
        "\n".join([lines[0], lines[1].replace("answer", "answe_", 1)]) + "\n"
    )
    with pytest.raises(DamagedFileError, match=r"solutions.jsonl, line 2 is not what"):
        _run(root, "damaged")
    path.write_text(f"{lines[1]}\n{lines[0]}\n")
    with pytest.raises(JobError, match="line 1 is of another question or answer"):
        _run(root, "damaged")
    path.write_text(text)
    with pytest.raises(JobError, match=r"was made with other search\.n: delete it"):
        _run(root, "damaged", n=8)
    # More questions are no other settings.
    assert _run(root, "damaged", problems=6)[:5] == whole


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 1)])
def test_rows_with_or_without_their_tree_are_not_gone_on_with(root, first, then):
    """Nobody would learn from the trees that are missing, nor be told of it."""
    stage = f"trees{first}"
    rows = _run(root, stage, problems=2, trees=first)
    assert ["tree" in row for row in rows] == [k < first for k in range(2)]
    line, has = (1, "no tree") if first < then else (2, "a tree")
    said = rf"line {line} has {has}, .*search\.trees={then}: .*another search\.output"
    with pytest.raises(JobError, match=said):
        _run(root, stage, problems=2, trees=then)
    # More trees of more questions change no row that is there.
    if first == 2:
        more = _run(root, stage, problems=3, trees=3)
        assert more[:2] == rows and "tree" in more[2]


def test_rows_of_other_completions_a_request_are_refused(tmp_path):
    """What a server draws depends on how many it is asked for at once."""
    server = {"solver.endpoint": "http://h/v1", "endpoint.model": "m"}
    c = with_fields(config(solver="endpoint", verifiers=("oracle",)), server)
    output = tmp_path / "search" / "solutions.jsonl"
    search._check_made_by(tiny_run.at("search", c, tmp_path), output)
    output.write_text("{}\n")
    search._check_made_by(tiny_run.at("search", c, tmp_path), output)
    c = with_fields(c, {"endpoint.n": 4})
    with pytest.raises(JobError, match="was made with other writer: delete it"):
        search._check_made_by(tiny_run.at("search", c, tmp_path), output)


@pytest.mark.parametrize(
    "fields",
    [
        {"solver.backbone": "other"},
        {"prompt.solver": "Solve {question} after {prefix}"},
    ],
)
def test_rows_of_another_model_or_prompt_are_refused(fields, tmp_path):
    for name in ("first", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    backbone = {"solver.backbone": str(tmp_path / "first")}
    output = tmp_path / "search" / "solutions.jsonl"

    def start(**changed):
        changed = {
            k: str(tmp_path / v) if k == "solver.backbone" else v
            for k, v in changed.items()
        }
        c = with_fields(config(solver="backbone", verifiers=("oracle",)), backbone)
        c = with_fields(c, changed)
        search._check_made_by(tiny_run.at("search", c, tmp_path), output)

    start()
    output.write_text("{}\n")
    start()
    with pytest.raises(JobError, match="was made with other writer: delete it"):
        start(**fields)
    # Other weights in the same folder are another model.
    (tmp_path / "first" / "config.json").write_text("{}")
    with pytest.raises(JobError, match="was made with other writer: delete it"):
        start()


def test_questions_without_answers_are_answered(root, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "1 + 2"}\n{"question": "3 + 4 * 2", "answer": 11}\n')
    output = tmp_path / "out" / "answers.jsonl"
    context = tiny_run.at(
        "search", config(questions=str(file), output=str(output)), root, "asked"
    )
    search.check(context, {})
    info = search.run(context)
    assert info["questions"] == 2 and info["elsewhere"] == [output]
    one, two = _rows(output)
    assert one["correct"] is None and one["reference"] is None
    assert two["correct"] in (True, False) and two["reference"] == "11"
    assert {row["split"] for row in (one, two)} == {"mine"}
    read = read_asked(str(file))
    assert [(r.question, r.answer) for r in read] == [
        ("1 + 2", ""),
        ("3 + 4 * 2", "11"),
    ]
    # What is there was graded by this answer, and in this domain.
    c = with_fields(context.config, {"domain.modulus": 10})
    with pytest.raises(JobError, match="was made with other domain"):
        search.run(tiny_run.at("search", c, root, "asked"))
    file.write_text(file.read_text().replace("11", "12"))
    with pytest.raises(JobError, match=r"line 2 is of another question or answer"):
        search.run(context)


def test_a_file_is_not_cut_silently_nor_written_over(root, tmp_path, caplog):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "1 + 2"}\n{"question": "3 + 4"}\n')
    context = tiny_run.at(
        "search", config(questions=str(file), problems=1), root, "cut"
    )
    with caplog.at_level("WARNING", "aprm_jax"):
        assert len(search._questions(context)) == 1
    assert "the first 1 of 2 questions" in caplog.text
    assert "search.problems=0" in caplog.text
    for name in (str(file), f"questions:{file}"):
        fields = {"questions": name, "output": str(tmp_path / "." / "mine.jsonl")}
        asked = (Context(config(**fields), root, "cut"), jobs()["search"])
        with pytest.raises(ConfigError, match=r"questions: .*mine.jsonl would be"):
            inputs.check_apart([asked])


def test_a_question_that_is_longer_than_the_model_is_named(root, tmp_path, caplog):
    file = tmp_path / "long.jsonl"
    long = " + ".join("1" * 60)
    file.write_text(json.dumps({"question": long}) + '\n{"question": "1 + 2"}\n')
    (tmp_path / "out").mkdir()
    with caplog.at_level("WARNING", "aprm_jax"):
        rows = _run(root, "long", questions=str(file))
    assert rows[0]["answer"] is None and rows[0]["candidates"] == []
    assert rows[0]["why"] == "the question does not fit the solver"
    assert "first in line 1: the question does not fit the solver" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ('{"answer": 3}\n', "question"),
        ("not json\n", "not JSON"),
        ('{"question": ""}\n', "empty"),
    ],
)
def test_a_file_without_questions_is_refused_before_a_model_is_loaded(
    root, tmp_path, text, said
):
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    context = tiny_run.at("search", config(questions=str(file)), root, "bad")
    with pytest.raises(DataError, match=said):
        search.check(context, {})
    with pytest.raises(DataError, match="no such file"):
        search.check(
            tiny_run.at("search", config(questions="nowhere.jsonl"), root, "bad"), {}
        )


def test_the_oracle_as_verifier_reaches_the_ceiling(root):
    """Best of N by the oracle is right wherever any of the N is."""
    rows = _run(root, "oracle", verifiers=("oracle",), method="best_of_n", n=16)
    for row in rows:
        right = [
            DOMAIN.same_answer(c["answer"], row["reference"]) for c in row["candidates"]
        ]
        assert row["correct"] == any(right)
        assert row["ledger"]["oracle_calls"] > 0
        assert row["ledger"]["verifier_tokens"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "dvts"},
        {"method": "rebase", "pick": "vote"},
        {"method": "mcts", "iterations": 3},
        {"method": "best_of_n", "verifiers": (), "pick": "majority"},
        {"method": "beam", "verifiers": ("likelihood",), "aggregation": "mean"},
    ],
    ids=lambda f: "-".join(map(str, f.values())),
)
def test_every_method_runs(root, fields):
    rows = _run(root, "-".join(map(str, fields.values())) or "x", problems=2, **fields)
    assert len(rows) == 2 and all(row["ledger"]["decoded"] for row in rows)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n": 10, "m": 4}, r"search.n \(10\) must be a multiple of search.m \(4\)"),
        ({"verifiers": ()}, "without scores there is"),
        ({"method": "beams"}, "must be one of best_of_n, beam, dvts"),
        ({"method": "mcts", "aggregation": "effective"}, "needs a value"),
        ({"splits": ()}, "are both empty"),
        ({"solver": "endpoint", "verifiers": ("likelihood",)}, "an endpoint has none"),
        ({"problems": 0}, "a split has no end"),
        ({"verifiers": ("aprm", "scores:a.jsonl")}, "whole solutions.*job=select"),
    ],
)
def test_settings_that_do_not_go_together_are_named(fields, said):
    with pytest.raises(ConfigError, match=said):
        config(**fields)
    with pytest.raises(ConfigError, match=r"has no split 'tests', only.*Did you mean"):
        context = tiny_run.at("search", config(splits=("tests",)), Path(), "x")
        search._questions(context)
