"""A comparison's sides as processes: who is asked when, and what is made of it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys

import command
import pytest

BENCHMARKS = command.REPOSITORY / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
peers = importlib.import_module("peers")
peer_sides = importlib.import_module("peer_sides")
sides = importlib.import_module("sides")

SCRIPT = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import sides

def side(name):
    print("what a library says")
    if name == "bad":
        raise ValueError("no such model")
    turns = iter((4.0, 2.0, 1.0))
    def turn():
        print("and says again")
        return {{"seconds": next(turns)}}
    return {{"name": name}}, {{"": turn}}

sides.answer(side, sys.argv[1].removeprefix("--side="))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


def test_a_side_answers_whatever_its_libraries_print(script):
    with sides.Side(sys.executable, script, "a", []) as side:
        assert side.about == {"name": "a"}
        assert [side.turn("")["seconds"] for _ in range(3)] == [4.0, 2.0, 1.0]
    assert sides.run(sys.executable, script, "b", []) == {"name": "b"}


def test_a_side_that_fails_says_why(script):
    with pytest.raises(SystemExit, match=r"(?s)bad failed:.*no such model"):
        sides.run(sys.executable, script, "bad", [])


def test_who_goes_first_alternates():
    asked = []

    class Named:
        def __init__(self, name):
            self.name = name

        def turn(self, case):
            asked.append((self.name, case))
            return {}

    peers._pairs(Named("ours"), Named("peer"), "x", 3)
    first = [name for name, _ in asked[::2]]
    assert first == ["ours", "peer", "ours"]
    assert sorted(name for name, _ in asked) == ["ours"] * 3 + ["peer"] * 3
    assert {case for _, case in asked} == {"x"}


def _pair(ours: float, peer: float) -> dict:
    return {
        side: {"seconds": seconds, "counts": {"steps": 600}}
        for side, seconds in (("ours", ours), ("peer", peer))
    }


def test_a_ratio_is_the_median_of_the_turns():
    found = peers._medians([_pair(1, 2), _pair(2, 3), _pair(3, 12)])
    assert found == {"steps": {"ours": 300.0, "peer": 200.0, "ratio": 2.0}}


def test_scores_of_another_model_are_refused(tmp_path):
    for side, score in (("ours", 0.25), ("peer", 0.75)):
        (tmp_path / f"{side}.jsonl").write_text(json.dumps({"scores": [score]}) + "\n")
    with pytest.raises(SystemExit, match=r"differ by 0\.5"):
        peers._difference(tmp_path)
    (tmp_path / "peer.jsonl").write_text('{"scores": [0.25001]}\n')
    assert peers._difference(tmp_path) == pytest.approx(1e-5)


def test_the_table_has_a_line_for_each_thing_that_was_counted():
    part = {
        "command": "python benchmarks/peers.py",
        "machine": {"cores": 2},
        "setting": {"shows": "sampling"},
        "ours": {"versions": {"jax": "1"}},
        "peer": {"versions": {"torch": "2"}},
        "medians": {
            "8 to a prompt": {"tokens": {"ours": 1234.0, "peer": 12.34, "ratio": 100.0}}
        },
    }
    text = peers.render({"score": part, "sample": part})
    line = "| sampling, 8 to a prompt: tokens | 1,234 | 12.3 | 100.00 |"
    assert text.count(line) == 2
    assert "2 cores, jax 1, torch 2" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--only=train,tran"], "parts are train, train_lora"),
        (["--peer=/nowhere/python"], "/nowhere/python"),
        (["--peer=python", "--data=/nowhere.jsonl"], "no such file"),
        (["--peer=python", "--threads=1000"], "cores are here"),
    ],
)
def test_what_is_not_there_is_said_at_once(options, says, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peers.py", *options])
    with pytest.raises(SystemExit, match=says):
        peers.main()


def test_parts_that_are_known_are_passed_over(tmp_path, monkeypatch, capsys):
    out = tmp_path / "peers.json"
    out.write_text(json.dumps({name: {} for name in peers.PARTS}))
    options = [f"--peer={sys.executable}", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *options])
    monkeypatch.setattr(peers.os, "environ", {})
    peers.main()
    assert capsys.readouterr().out.count("--again measures it again") == 4


def test_a_label_stands_where_its_step_stands_first(tmp_path):
    part = dataclasses.replace(peers.PARTS["score"], **peers.TINY)
    made = peer_sides.prepare(tmp_path, part, "")
    rows = peer_sides.read(tmp_path / "rows.jsonl")
    labelled = [
        (row["prompt"], tuple(row["completions"][: k + 1]))
        for row in rows
        for k, label in enumerate(row["labels"])
        if label is not None
    ]
    assert len(set(labelled)) == len(labelled) == made["labelled_steps"]
    assert len(rows) == made["solutions"] == part.rows
    assert made["repeated_labels"] > 0  # there were others to leave out
    config = json.loads((tmp_path / "prm/config.json").read_text())
    assert config["hidden_size"] == peer_sides.SIZES["d_model"]
    assert config["architectures"] == ["LlamaForTokenClassification"]


def test_our_sides_take_their_turns(tmp_path):
    part = dataclasses.replace(peers.PARTS["train"], **peers.TINY)
    made = peer_sides.prepare(tmp_path, part, "")
    for name, thing in (("train", "labelled steps"), ("score", "steps scored")):
        about, turns = peer_sides.OURS[name](tmp_path, part, "")
        counts = turns[""]()["counts"]
        assert about["devices"] and counts["tokens read"] > 0
        steps = {"train": "labelled_steps", "score": "steps"}[name]
        assert counts[thing] >= made[steps]
