"""Accuracy against compute: the table and the picture of what runs took."""

from __future__ import annotations

import importlib
import sys

import command

sys.path.insert(0, str(command.REPOSITORY / "benchmarks"))
compute = importlib.import_module("compute")


def _costs(**changes):
    fields = {"flops": 2e12, "cpu_seconds": 90.4, "trained_tokens": 3_000_000}
    fields |= {"read_tokens": 41_000, "sampled_tokens": 20_499, "oracle_calls": 1234.4}
    return fields | changes


def _results():
    rows = ("majority", "likelihood.min", "aprm.min", "orm.last", "prm_static.min")
    names = [(s, row, n) for s in compute.SPLITS for row in rows for n in (8, 32)]
    shares = {
        f"{split}/{row}@{n}": {"mean": n / 100 if row == "aprm.min" else 0.5}
        for split, row, n in names
    }
    stages = {"solver": _costs(flops=9e12), "orm": _costs(), "evaluate": None}
    return {
        "seeds": [0, 1],
        "sizes": [8, 32],
        "aggregation": "min",
        "accuracy": shares,
        # Nobody knows what the static one took; an attack has no row.
        "spent": {
            "solver": stages["solver"],
            "prm_static": None,
            "aprm": _costs(flops=5e12),
            "orm": stages["orm"],
        },
        "stage_costs": stages,
    }


def test_rows_stand_by_what_they_cost_and_the_solver_apart():
    lines = [line for line in compute.render(_results()).splitlines() if "|" in line]
    titles = [line.split("|")[1].strip() for line in lines]
    assert titles == [
        "trained",
        "---",
        "the solver, which every row needs",
        "majority of N",
        "solver's own likelihood",
        "ORM, at the last step",
        "**APRM**",
        "stage by itself",
        "---",
        "solver",
        "orm",
    ]
    cells = [cell.strip() for cell in lines[6].split("|")[2:-1]]
    assert cells == [
        *("5.000", "90", "3,000", "41", "20", "1,234"),
        *("8.0", "32.0", "8.0", "32.0"),
    ]
    assert lines[3].split("|")[2:8] == [" – "] * 6


def test_results_without_costs_say_so_and_draw_nothing(tmp_path):
    results = _results()
    del results["spent"]
    assert compute.render(results) == compute.NOT_YET
    compute.draw(results, tmp_path / "none.svg")
    compute.draw(_results(), tmp_path / "some.svg")
    assert not (tmp_path / "none.svg").exists()
    drawn = (tmp_path / "some.svg").read_text()
    compute.draw(_results(), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == drawn and "<svg" in drawn
