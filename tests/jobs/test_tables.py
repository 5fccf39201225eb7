"""The tables of a run: whose rows they have, and what stands in them."""

from pathlib import Path

from aprm_jax.config import default_config, override, set_field
from aprm_jax.evals.records import Record, Results
from aprm_jax.jobs import tables
from aprm_jax.jobs.evaluate import part_path
from aprm_jax.report.contents import Cell


def named(*prms, stages):
    config = default_config()
    set_field(config, "stages", ("solver:sft", *stages, "evaluate"))
    set_field(config, "evaluate.prms", prms)
    return config


def test_each_kind_of_prm_has_a_name_for_people():
    config = named("a", "b", "c", stages=("a:prm", "b:aprm", "c:aprm"))
    override(config, "b", {"game.freeze_generator": True})
    assert [v.name for v in tables.verifiers(config)] == [
        "likelihood of the solver",
        "PRM, static corruptions",
        "PRM, frozen Generator",
        "APRM",
    ]


def test_rows_of_one_kind_are_told_apart_by_their_stages():
    config = named("a", "b", "c", stages=("a:aprm", "b:prm", "c:aprm"))
    names = [v.name for v in tables.verifiers(config)]
    assert names[1:] == ["PRM, static corruptions", "APRM: a", "APRM: c"]


def test_a_model_of_another_run_has_the_name_of_its_folder():
    folder = "/somewhere/long/runs/first/aprm/model"
    config = named(folder, "b", stages=("b:aprm",))
    (found,) = [v for v in tables.verifiers(config) if v.key == folder]
    assert found.name == "PRM first/aprm"


def test_a_verifier_with_dots_in_its_name_keeps_its_figures():
    folder = "../runs/v1.2/aprm"
    config = named(folder, "b", stages=("b:aprm",))
    set_field(config, "evaluate.splits", ("test",))
    results = Results(
        [
            Record("solver", "test", folder, "min@8", 0.75, 0.5, 1.0),
            Record("steps", "test", folder, "auc", 0.625),
            Record("kinds", "test", folder, "auc", 0.5, part="sign"),
            Record("robustness", "", folder, "fool_rate", 0.25),
            Record("solver", "test", "b", "min@8", 0.25),
        ]
    )
    main = tables.main_table(config, results)
    [row] = [row for row in main.rows if row.name == "PRM v1.2/aprm"]
    assert isinstance(cell := row.cells[0], Cell)
    assert (cell.value, cell.low) == (0.75, 0.5)
    more = tables.more_tables(config, results, {})
    values = {
        (table.title.partition(",")[0], column.name): cell.value
        for table in more
        for row in table.rows
        if row.name == "PRM v1.2/aprm"
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell is not None
    }
    assert values["Right and wrong steps told apart", "test: AUC"] == 0.625
    assert values["AUC by kind of error", "sign"] == 0.5
    assert values["A fresh attacker", "fooled after"] == 0.25


def test_first_errors_are_shown_with_every_threshold_and_their_mean():
    config = named("../v1.2/prm", stages=())
    set_field(config, "domain.name", "labelled")
    set_field(config, "evaluate.sets", ("gsm8k=processbench:x", "math=processbench:y"))
    results = Results(
        Record("first_error", split, "../v1.2/prm", metric, value)
        for split, metric, value in (
            ("gsm8k", "f1", 0.5),
            ("gsm8k", "threshold", 0.3),
            ("gsm8k", "f1@platt", 0.4),
            ("gsm8k", "threshold@platt", 0.7),
            ("math", "f1", 0.25),
            ("math", "f1@gsm8k", 0.125),
            ("math", "threshold@gsm8k", 0.2),
            ("gsm8k+math", "f1", 0.375),
        )
    )
    main = tables.main_table(config, results)
    names = [column.name for column in main.columns]
    assert names == [
        *("gsm8k: F1", "threshold", "math: F1", "threshold"),
        "mean of gsm8k, math",
    ]
    [row] = [row for row in main.rows if row.note == "../v1.2/prm"]
    values = [cell and cell.value for cell in row.cells]
    assert values == [0.5, 0.3, 0.25, None, 0.375]
    shown = {table.title: table for table in tables.more_tables(config, results, {})}
    math = shown["First errors, math"]
    assert "F1, tuned on gsm8k" in [column.name for column in math.columns]
    assert "First errors, mean over the splits" in shown


def test_a_part_of_any_name_has_a_file_of_its_own():
    names = ("test", "attack_../runs/v1.2/aprm", "attack_.._runs_v1.2_aprm", "a/b")
    paths = [part_path(Path("evaluate"), name) for name in names]
    assert {path.parent for path in paths} == {Path("evaluate/parts")}
    assert len(set(paths)) == len(names)
    assert paths[0].name == "test.json"
