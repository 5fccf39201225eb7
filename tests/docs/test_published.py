"""Published tables are what their scripts make of the results beside them."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any

import command
import pytest

BENCHMARKS = command.REPOSITORY / "benchmarks"
PAGE = command.REPOSITORY / "docs/results.md"
sys.path.insert(0, str(BENCHMARKS))
seed_files = importlib.import_module("seed_files")
FIGURES = ("pressure", "rl", "search_pressure", "sizes")  # draw one beside their tables
SCRIPTS = (
    "attack",
    "explore",
    "explore_targets",
    "naive_pressure",
    "pav",
    "pressure",
    "rl",
    "search_pressure",
    "sizes",
)


def results(name: str) -> dict[str, Any]:
    return json.loads((BENCHMARKS / f"results/{name}.json").read_text())


NOT_YET = "Not measured yet."  # of what wants a device that nobody had


def _gpu(script: Any) -> str:
    there = script.RESULTS.exists()
    return script.render(results("gpu")) if there else NOT_YET


# Between which markers -> the script, and the text that it writes there.
RENDERED: dict[str, tuple[str, Callable[[Any], str]]] = {
    "ablation": ("ablation_table", lambda s: s.render(results("ablation"))),
    "answers": ("answers", lambda s: s.render(results("answers"))),
    "compute": ("compute", lambda s: s.render(results("compare"))),
    "decoder": ("decoder", lambda s: s.render(results("decoder"))),
    "didactic": ("didactic", lambda s: s.render(results("didactic"))),
    "gpu": ("gpu", _gpu),
    "gsm8k": ("gsm8k_table", lambda s: s.render(results("gsm8k"))),
    "hosts": ("hosts", lambda s: s.render(results("hosts"))),
    "load": ("load", lambda s: s.render(results("load"))),
    "naive_generator": (
        "compare_table",
        lambda s: s.render(results("naive_generator"), "naive_generator.json", True),
    ),
    "oracle": ("oracle", lambda s: s.render(results("oracle"), s._causes())),
    "peers": ("peers", lambda s: s.render(results("peers"))),
    "plan": ("plan", lambda s: s.render(results("plan"))),
    "prm800k": ("prm800k_table", lambda s: s.render(results("prm800k"))),
    "prm800k_game": ("prm800k_table", lambda s: s.render(results("prm800k_game"))),
    "quickstart": ("quickstart", lambda s: s.render(results("quickstart"))),
    "rates": ("rates", lambda s: s.render(results("rates"))),
    "results": (
        "compare_table",
        lambda s: s.render(results("compare"), "compare.json", False),
    ),
    "smollm2": (
        "smollm2_table",
        lambda s: s.render(results("smollm2"), results("prm800k")),
    ),
}
# Given no runs, they make their tables of the results.
WITHOUT_RUNS = (
    "ablation_table",
    "compare_table --figure={figure}",
    "compare_table --name=naive_generator --by-seed",
    "gsm8k_table",
    "prm800k_table",
)
MARKED = re.compile(r"<!-- (\w+):begin -->\n(.*?)\n<!-- \1:end -->", re.DOTALL)


def _published() -> dict[str, str]:
    """What stands between the markers of every page."""
    root = command.REPOSITORY
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    pairs = [MARKED.findall(p.read_text()) for p in pages if "_build" not in p.parts]
    return dict(pair for found in pairs for pair in found)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_has_what_the_results_say(name, tmp_path, monkeypatch):
    if not list((BENCHMARKS / "results" / name).glob("*.json")):
        pytest.skip(f"benchmarks/results/{name}: no seed has been measured")
    script = importlib.import_module(name)
    page = shutil.copy(PAGE, tmp_path / "results.md")
    arguments = [name, "tables", f"--page={page}"]
    if name in FIGURES:
        arguments.append(f"--figure={tmp_path / 'figure.svg'}")
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    assert (tmp_path / "results.md").read_text() == PAGE.read_text()
    assert (tmp_path / "figure.svg").exists() == (name in FIGURES)


@pytest.mark.parametrize("name", RENDERED)
def test_a_page_has_what_its_script_makes_of_the_results(name):
    module, render = RENDERED[name]
    if name == "decoder":  # which imports it for its other side
        pytest.importorskip("torch", reason="benchmarks/decoder.py needs torch")
    text = render(importlib.import_module(module))
    assert "| --- |" in text or "|---|" in text or text == NOT_YET
    assert _published()[name] == text


def test_every_table_is_compared_with_its_results():
    of_rl = {"rl_pav", "rl_unfinished"}  # written by `rl` as well
    assert set(_published()) == {*SCRIPTS, *of_rl, *RENDERED}


def test_prose_has_what_packing_came_to():
    found = results("packing")
    rows, texts = found["gsm8k"], found["prm800k"]
    lost = int(sum(rows["left_out"].values()))
    share = 100 * rows["tokens"] / rows["positions"]
    millions = {
        name: f"{count / 1e6:.1f}" for name, count in texts.items() if "tokens" in name
    }
    data, page = (
        " ".join((command.REPOSITORY / "docs" / name).read_text().split())
        for name in ("data.md", "results.md")
    )
    assert f"hold {share:.1f} % tokens" in data
    assert f"{lost} of its {rows['solutions'] + lost:,} solutions" in data
    assert (
        f"{millions['texts_tokens_as_trees']} million tokens that way instead of "
        f"{millions['texts_tokens_a_row_each']} million, all labelled solutions "
        f"{millions['labelled_tokens_as_trees']} instead of "
        f"{millions['labelled_tokens_a_row_each']} (`benchmarks/packing.py`)"
    ) in page


@pytest.mark.parametrize("said", WITHOUT_RUNS)
def test_a_script_without_runs_leaves_the_page_as_it_is(said, tmp_path, monkeypatch):
    name, *arguments = said.format(figure=tmp_path / "figure.svg").split()
    page = shutil.copy(PAGE, tmp_path / "results.md")
    monkeypatch.setattr(sys, "argv", [name, *arguments, f"--page={page}"])
    importlib.import_module(name).main()
    assert (tmp_path / "results.md").read_text() == PAGE.read_text()


def test_a_run_is_collected_under_its_seed(tmp_path, monkeypatch):
    attack = importlib.import_module("attack")
    run, results = tmp_path / "run", tmp_path / "results"
    (run / "attack").mkdir(parents=True)
    settings = {"seed": 7, "attack": {"oracle_calls": 20}}
    settings["game"] = {"generator_replay": 48}
    (run / "config.json").write_text(json.dumps(settings))
    monkeypatch.setattr(attack, "read_results", lambda path, remedy: (RECORDS, {}))
    path = attack.collect(run, results)
    assert path == results / "seed_7.json"
    [found] = seed_files.read(results)
    assert (found["seed"], found["oracle_calls"]) == (7, 20)
    assert "--config=configs/attack.py:RUN --config.seed=7" in found["command"]
    assert found["aprm"] == {"robustness_score": 0.8765}  # no kinds, no other sets
    settings["game"]["generator_replay"] = 0
    (run / "config.json").write_text(json.dumps(settings))
    path = attack.collect(run, results)
    assert path == results / "without_imitation_seed_7.json"
    assert json.loads(path.read_text())["command"].endswith(".generator_replay=0")


def record(**fields):
    from aprm_jax.evals.records import Record

    row = {"set": "robustness", "split": "", "verifier": "/runs/p/aprm/model"}
    row |= {"metric": "robustness_score", "value": 0.87654}
    return Record.from_json(row | fields)


RECORDS = [record(), record(part="kind", metric="wrong"), record(set="steps")]
