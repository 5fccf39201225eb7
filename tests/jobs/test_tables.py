"""The tables of a run: whose rows they have, and what stands in them."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_game
import tiny_run

from aprm_jax.config import with_fields
from aprm_jax.config.schema import settings
from aprm_jax.evals import pressure
from aprm_jax.evals.calibration import Platt
from aprm_jax.evals.records import RESULTS, Record, Results, write_results
from aprm_jax.evals.validation import Chosen
from aprm_jax.files import write_sealed
from aprm_jax.jobs import charts, evaluate, report, tables
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.parts import arrays_path, part_path
from aprm_jax.models.io import SPEC_FILE
from aprm_jax.report.contents import Cell, Column, Row, Table
from aprm_jax.report.page import derived_headline
from aprm_jax.training.metrics import Metrics, read_metrics
from aprm_jax.training.workdir import mark_done
from aprm_jax.verifiers.protocol import Scale, Scored


def named(*prms, stages, **fields):
    stages = ("solver:sft", *stages, "evaluate")
    return tiny_run.config({"stages": stages, "evaluate.prms": prms}, **fields)


def test_each_kind_of_prm_has_a_name_for_people():
    frozen = {"b": {"game.freeze_generator": True}}
    stages = ("a:prm", "b:aprm", "c:aprm")
    config = named("a", "b", "c", stages=stages, overrides=frozen)
    assert [v.name for v in tables.verifiers(config)] == [
        "likelihood of the solver",
        "PRM, static corruptions",
        "PRM, frozen Generator",
        "APRM",
    ]


@pytest.mark.parametrize("negatives", settings()["prm.negatives"].limits.choices)
def test_every_way_to_train_a_prm_has_a_name(negatives):
    own = {"a": {"prm.negatives": negatives}}
    config = named("a", stages=("a:prm",), overrides=own)
    (row,) = [v for v in tables.verifiers(config) if v.key == "a"]
    assert row.name and row.name != "a"
    # An ORM says something of the last step alone, and a value is of all before it.
    whole = negatives in ("outcome", "values")
    assert row.aggregation == ("last" if whole else "min")
    config = with_fields(config, {"evaluate.aggregations": ("min",)})
    (row,) = [v for v in tables.verifiers(config) if v.key == "a"]
    assert row.aggregation == "min"  # nothing else is measured


def test_a_hardened_pav_is_read_as_the_one_that_it_started_from():
    fields = {"game.prm_from": "pav", "game.right_targets": "reference"}
    stages = ("pav:pav", "hard:aprm", "plain:aprm")
    own = {"hard": fields, "plain": {"game.prm_from": "pav"}}
    config = named("pav", "hard", "plain", stages=stages, overrides=own)
    how = {v.key: v.aggregation for v in tables.verifiers(config)}
    assert (how["pav"], how["hard"], how["plain"]) == ("last", "last", "min")


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
    config = named(folder, "b", stages=("b:aprm",), evaluate__splits=("test",))
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
    sets = ("gsm8k=processbench:x", "math=processbench:y")
    labelled = {"domain__name": "labelled", "evaluate__sets": sets}
    config = named("../v1.2/prm", stages=(), **labelled)
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


def test_the_arrays_of_a_solver_in_a_folder_stay_in_the_evaluation():
    names = ("test@foreign", "test@../runs/other/solver", "test@.._runs_other_solver")
    paths = [arrays_path(Path("evaluate"), name) for name in names]
    assert {path.parent for path in paths} == {Path("evaluate/per_problem")}
    assert len(set(paths)) == len(names)
    assert paths[0].name == "test@foreign.npz"


def searched():
    """A run whose PRM `a` is searched at three sizes, with another solver too."""
    config = named(
        *("a", "b"),
        stages=("a:prm", "b:aprm"),
        evaluate__splits=("test",),
        evaluate__samples=(8, 64, 512),
        evaluate__solvers=("foreign",),
    )
    values = {8: 0.5, 64: 0.75, 512: 0.625}
    found = [
        Record("solver", "test", "a", f"min@{n}", value, part=part)
        for part, shift in (("", 0.0), ("foreign", 0.125))
        for n, value in ((n, value - shift) for n, value in values.items())
    ]
    found += [
        Record("pressure", "test", "a", "min.peak", 64),
        Record("pressure", "test", "a", "min.fall", 0.125, 0.0, 0.25),
        Record("winners", "test", "a", "count", 3, part="wrong_result"),
    ]
    return config, Results(found)


def test_little_and_much_pressure_stand_side_by_side_and_other_solvers_too():
    config, results = searched()
    main = tables.main_table(config, results)
    assert [column.name for column in main.columns] == ["test", "test, foreign"]
    rows = {
        row.name: [cell and cell.value for cell in row.cells]
        for row in main.rows
        if row.name.startswith("PRM")
    }
    assert rows == {
        "PRM, static corruptions": [0.5, 0.375],
        "PRM, static corruptions, best of 512": [0.625, 0.5],
    }


def test_the_fall_and_what_wins_wrongly_have_tables():
    config, results = searched()
    written = {"wrong_result": 0.25, "copied": 0.75}
    shown = tables.more_tables(config, results, written)
    [fall] = [table for table in shown if table.title.startswith("Under pressure")]
    [row] = [row for row in fall.rows if row.name == "PRM, static corruptions"]
    assert [cell and cell.value for cell in row.cells] == [64, 0.125]
    [winners] = [table for table in shown if table.title.startswith("The first error")]
    [row] = winners.rows
    names = [column.name for column in winners.columns]
    values = [c.value if isinstance(c, Cell) else c for c in row.cells]
    found = dict(zip(names, values, strict=True))
    assert row.name == "wrong result"
    assert found["PRM, static corruptions"] == 3 and found["of G's errors"] == 0.25


@pytest.mark.parametrize("folder", [False, True])
def test_an_orm_is_read_by_its_last_step_in_every_table(folder, tmp_path):
    orm = "orm"
    if folder:  # of another run: its model says how it is read
        orm = str(tmp_path)
        (tmp_path / "model.json").write_text('{"aggregation": "last"}')
    config = named(
        *(orm, "b"),
        stages=("b:prm", *(() if folder else ("orm:prm",))),
        overrides={} if folder else {"orm": {"prm.negatives": "outcome"}},
        evaluate__solver="",
        evaluate__splits=("test",),
        evaluate__samples=(2, 4, 8),
        evaluate__aggregations=("min", "last"),
    )
    figures = {"min": 0.25, "last": 0.75}
    records = [
        Record(set_, "test", key, metric.format(how=how), value)
        for key in (orm, "b")
        for how, value in figures.items()
        for set_, metric in (("solver", "{how}@4"), ("pressure", "{how}.fall"))
    ]
    shown = {
        table.title.partition(":")[0]: [
            next(c.value for c in row.cells if isinstance(c, Cell))
            for row in table.rows
        ]
        for table in tables.more_tables(config, Results(records), {})
    }
    assert shown["Best of more samples"] == shown["Under pressure"] == [0.75, 0.25]


def test_weighted_majorities_are_rows_of_every_verifier_that_they_were_measured_for():
    config = named("a", "b", stages=("a:prm", "b:aprm"), evaluate__splits=("test",))
    records = [
        Record("solver", "test", name, "vote_min@8", 0.5)
        for name in ("a", "b", "likelihood")
    ]
    names, more = (
        [row.name for row in tables.main_table(config, Results(found)).rows]
        for found in ([], records)
    )
    verifiers = {name for name in names if f"majority of 8, weighted by {name}" in more}
    assert len(verifiers) == 3 and len(more) == len(names) + 3


def test_curves_have_a_line_a_verifier_that_was_measured_at_every_size():
    config, results = searched()
    drawn = charts.pressure(config, results)
    assert [chart.title for chart in drawn] == ["test", "test, foreign"]
    [line] = drawn[1].series
    assert (line.name, line.x) == ("PRM, static corruptions", [8, 64, 512])
    assert line.y == [0.375, 0.625, 0.5]
    assert all(chart.doubling for chart in drawn)


def difference_of(config, folder, rows) -> dict[tuple[str, str, str], float]:
    """`tables.differences` of ten problems that all have the figure of their method."""
    path = arrays_path(folder, "test")
    path.parent.mkdir(parents=True)
    np.savez(path, **{name: np.full(10, value) for name, value in rows.items()})
    found = tables.differences(config, folder, ["test"])
    return {(r.part, r.verifier, r.metric): round(r.value, 6) for r in found}


def test_a_lead_is_of_the_figure_that_the_main_table_shows(tmp_path):
    own = {"game.prm_from": "pav", "game.right_targets": "reference"}
    config = named(
        *("pav", "hard"),
        stages=("pav:pav", "hard:aprm"),
        overrides={"hard": own},
        evaluate__splits=("test",),
    )
    rows = {
        "hard.last@8": 0.9,
        "hard.min@8": 0.2,
        "pav.last@8": 0.5,
        "likelihood.min@8": 0.3,
        "majority@8": 0.4,
        "greedy": 0.4,
    }
    assert difference_of(config, tmp_path, rows) == {
        ("", "", "greedy"): 0.5,
        ("", "", "majority@8"): 0.5,
        ("", "likelihood", "min@8"): 0.6,
        ("", "pav", "last@8"): 0.4,
    }


def test_every_aprm_of_a_run_has_its_own_lead(tmp_path):
    config = named("p", "q", stages=("p:aprm", "q:aprm"), evaluate__splits=("test",))
    rows = {"p.min@8": 0.2, "q.min@8": 0.9, "majority@8": 0.5, "greedy": 0.25}
    found = difference_of(config, tmp_path, rows)  # no likelihood was measured
    assert found == {
        ("", "", "majority@8"): -0.3,
        ("", "", "greedy"): -0.05,
        ("q", "", "majority@8"): 0.4,
        ("q", "", "greedy"): 0.65,
    }
    records = tables.differences(config, tmp_path, ["test"])
    shown = {
        table.title: [row.cells[0].value for row in table.rows if row.cells[0]]
        for table in tables.more_tables(config, Results(records), {})
    }
    assert {title: [round(v, 6) for v in cells] for title, cells in shown.items()} == {
        "APRM: p minus the others at the same n, problem by problem": [-0.05, -0.3],
        "APRM: q minus the others at the same n, problem by problem": [0.65, 0.4],
    }


@pytest.mark.parametrize(
    ("measured", "shown"),
    [(("last",), "last"), (("mean", "min"), "min"), (("mean", "last"), "mean")],
)
def test_without_its_aggregation_a_verifier_is_read_by_one_that_was_measured(
    measured, shown, tmp_path
):
    config = named(
        "a",
        stages=("a:aprm",),
        evaluate__splits=("test",),
        evaluate__aggregations=measured,
    )
    assert {v.aggregation for v in tables.verifiers(config)} == {shown}
    rows = {f"a.{how}@8": 0.75 if how == shown else 0.0 for how in measured}
    rows |= {"majority@8": 0.5, "greedy": 0.5}
    assert set(difference_of(config, tmp_path, rows).values()) == {0.25}
    results = Results([Record("solver", "test", "a", f"{shown}@8", 0.75)])
    main = tables.main_table(config, results)
    [row] = [row for row in main.rows if row.own]
    assert isinstance(row.cells[0], Cell) and row.cells[0].value == 0.75
    assert ("least step score" in main.title) == (shown == "min")


def test_an_evaluation_is_shown_as_its_stage_measured(tmp_path):
    own = {"evaluate": {"evaluate.samples": (4,), "evaluate.splits": ("longer",)}}
    config = named("a", stages=("a:aprm",), overrides=own)
    config = tables.as_measured(config, "evaluate")
    main = tables.main_table(
        config, Results([Record("solver", "longer", "a", "min@4", 0.75)])
    )
    assert [column.name for column in main.columns] == ["longer"]
    [row] = [row for row in main.rows if row.own]
    assert isinstance(row.cells[0], Cell) and row.cells[0].value == 0.75


@pytest.mark.parametrize("solver", ["", "endpoint", "solver"])
def test_labelled_steps_are_shown_by_a_verifier_that_scored_them(solver):
    config = tiny_run.config(
        {
            "domain.name": "labelled",
            "evaluate.sets": ("gsm=processbench:x",),
            "evaluate.solver": solver,
            "evaluate.prms": (),
            "evaluate.scores": ("other=/x",),
        }
    )
    likelihood = {"likelihood": [0.75]} if solver == "solver" else {}
    scores = {"chance": [0.25], "position": [0.5], "other": [0.125], **likelihood}
    assert {v.key for v in tables.verifiers(config)} == set(scores)
    row = {"question": "q", "answer": None, "given": None, "steps": ["a"]}
    row |= {"labels": [1.0], "kinds": [], "correct": True, "scores": scores}
    [shown] = report._solutions(config, [{"name": "gsm", "solutions": [row]}])
    assert shown.steps[0].score == (0.75 if likelihood else 0.5)
    # A part that was kept while one verifier fewer was there.
    row = row | {"scores": {"position": [0.5]}}
    [shown] = report._solutions(config, [{"name": "gsm", "solutions": [row]}])
    assert shown.steps[0].score == 0.5


def test_a_second_evaluation_has_a_table_of_its_own(tmp_path):
    own = {"more": {"evaluate.samples": (4,)}}
    config = named("a", stages=("a:aprm",), overrides=own)
    (tmp_path / "more").mkdir()
    records = [Record("solver", "test", "a", "min@4", 0.75)]
    write_results(tmp_path / "more" / RESULTS, records)
    [table] = report._further(Context(config, tmp_path, "r"), ["more", "not_yet"])
    assert table.title.startswith("more: Share of")
    [row] = [row for row in table.rows if row.own]
    assert isinstance(row.cells[0], Cell) and row.cells[0].value == 0.75


def test_the_console_has_whole_counts_and_tells_scores_apart():
    columns = [Column("calls", "count", ""), Column("AUC", "number")]
    rows = [Row("a", [Cell(12345.0), Cell(0.9996)]), Row("b", [Cell(2.5), Cell(1.0)])]
    lines = tables.as_text(Table("t", columns, rows)).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["a", "12,345", "0.9996"],
        ["b", "2.5", "1"],
    ]


def test_the_console_has_no_share_beyond_what_is_possible():
    columns = [Column("test"), Column("lead", "points")]
    cells = [Cell(0.8, 0.4, 1.2), Cell(0.1, -0.2, 0.4)]
    lines = tables.as_text(Table("t", columns, [Row("a", cells)])).splitlines()
    assert lines[-1] == "a  80.0 [40.0, 100.0]  10.0 [-20.0, 40.0]"


def test_a_kind_that_a_verifier_is_never_fooled_by_is_none_and_a_vote_opens_no_page():
    config = named("a", "b", stages=("a:prm", "b:aprm"), evaluate__splits=("test",))
    records = pressure.winner_records("test", "a", ["sign"], 8)
    records += pressure.winner_records("test", "b", [], 8)
    records += [Record("solver", "test", "b", "vote_min@8", 0.5)]
    results = Results(records)
    shown = {t.title: t for t in tables.more_tables(config, results, {})}
    [row] = shown["The first error of what wins and is wrong, best of 8, test"].rows
    values = [c.value if isinstance(c, Cell) else c for c in row.cells]
    assert values == [None, 1.0, 0.0]  # the likelihood was not measured
    opens = {row.name: row.opens for row in tables.main_table(config, results).rows}
    assert not opens["majority of 8, weighted by APRM"] and opens["APRM"]


def test_the_page_opens_with_the_first_aprm():
    config = named("a", "b", "c", stages=("a:aprm", "b:prm", "c:aprm"))
    config = with_fields(config, {"evaluate.samples": (4, 8)})
    values = {"a": 0.9, "b": 0.5, "c": 0.8}
    records = [
        Record("solver", "test", key, f"min@{n}", value - 0.1 / n)
        for key, value in values.items()
        for n in (4, 8)
    ]
    table = tables.main_table(config, Results(records))
    headline = derived_headline(table)
    assert headline.startswith("APRM: a, best of 8: 88.8")
    labelled = named("a", "c", stages=("a:prm", "c:prm"), domain__name="labelled")
    rows = tables.main_table(labelled, Results([])).rows
    assert {row.of for row in rows if row.own} == {"a", "c"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_are_counted_whatever_they_are_stored_in(tmp_path, dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), tiny_game.prm())
    tiny_game.save(tmp_path, "prm", params)
    count = sum(x.size for x in jax.tree.leaves(params))
    assert report._parameters(tmp_path / SPEC_FILE) == count
    assert report._parameters(tmp_path / "none" / SPEC_FILE) == 0


def test_seconds_are_said_to_be_of_what_took_them(tmp_path):
    listed = ("taught:teach", "search", "attack", "first:evaluate", "second:evaluate")
    config = tiny_run.config({"stages": listed})
    seconds = {"taught": 9.0, "search": 4.0, "attack": 8.0, "first": 6.0, "second": 5.0}
    kept = {
        "attack": {"name": "prm-0123", "of": "prm", "seconds": 7.0},
        "first": {"name": "test", "seconds": 6.0},
        "second": {"name": "dev", "seconds": 3.0},
    }
    for name, part in kept.items():
        path = part_path(tmp_path / name, part["name"])
        path.parent.mkdir(parents=True)
        write_sealed(path, part | {"records": [], "files": {}})
    for folder in ("taught", "taught/rounds/1"):
        (tmp_path / folder).mkdir(parents=True)
        metrics = Metrics(tmp_path / folder, tensorboard=False)
        metrics.write(1, {"time/update": 2.0, "time/step": 3.0})
        metrics.close()
    for name, total in seconds.items():
        (tmp_path / name).mkdir(exist_ok=True)
        mark_done(tmp_path / name, {"seconds": total})
    trained = {"taught": read_metrics(tmp_path / "taught")}
    assert report._phases(Context(config, tmp_path, "report"), trained) == {
        "taught": {"update": 4.0, "everything else": 5.0},
        "search": {"search": 4.0},
        "attack": {"prm": 7.0, "everything else": 1.0},
        "first": {"test": 6.0},
        "second": {"dev": 3.0, "everything else": 2.0},
    }


def _judged(monkeypatch, split: str) -> list[Record]:
    """The records of a verifier on four steps, a threshold and a calibration chosen."""
    steps = np.array([2.0, 1.0, -1.0, 0.5]), np.array([1.0, 1.0, 0.0, 0.0]), ["s"] * 4
    monkeypatch.setattr(evaluate.samples, "judged_steps", lambda *args: steps)
    context = Context(named("a", stages=("a:prm",)), Path(), "evaluate")
    said = Scored(Scale.LOG_ODDS, [])
    chosen = Chosen(threshold=0.7, platt=Platt(1.0, 0.0), first_error=0.5)
    return evaluate._judged(context, split, "a", [], said, chosen)


def test_the_split_that_chose_a_threshold_has_no_figure_at_it(monkeypatch):
    test, dev = (_judged(monkeypatch, split) for split in ("test", "dev"))
    of_test, of_dev = (
        {(r.set, r.part, r.metric): r.value for r in records} for records in (test, dev)
    )
    assert of_test["steps", "", "threshold"] == 0.7
    assert of_test["steps", "", "f1"] == 1.0 and of_test["kinds", "s", "recall"] == 1.0
    kept = {"auc", "ece", "brier", "count", "unscored", "incorrect_share"}
    kinds = {("kinds", "s", "auc"), ("kinds", "s", "count")}
    assert of_dev.keys() == {("steps", "", metric) for metric in kept} | kinds
    assert all(of_dev[key] == of_test[key] for key in of_dev)
    # What chose it has the record of the threshold, and nobody else has another.
    chosen = evaluate._chosen_records("a", Chosen(threshold=0.7, first_error=0.5))
    keys = [record.key for record in (*chosen, *dev)]
    assert len(keys) == len(set(keys))


def test_the_steps_of_dev_have_no_column_of_f1():
    config = named("a", stages=("a:prm",), evaluate__splits=("dev", "test"))
    records = [Record("steps", split, "a", "f1", 0.5) for split in ("dev", "test")]
    table = tables._steps(config, Results(records))
    heads = [column.name for column in table.columns]
    assert heads == ["dev: AUC", "ECE", "test: AUC", "F1", "ECE"]
