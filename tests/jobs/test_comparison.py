"""Several runs on one page: whose rows and lines there are, and what is refused."""

import dataclasses
import hashlib
import html.parser
import json
import math
import re
import shutil
from pathlib import Path

import command
import pytest
import scipy.stats
import tiny_run

from aprm_jax.config import ConfigError, validate, with_fields
from aprm_jax.config.errors import UserError
from aprm_jax.evals import pressure
from aprm_jax.evals.records import RESULTS, Record, write_results
from aprm_jax.files import write_sealed
from aprm_jax.jobs import comparison, of_run
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.data_record import write_record
from aprm_jax.training.metrics import Metrics
from aprm_jax.training.workdir import open_workdir

VALUES = {"a-0": 0.5, "a-1": 0.7, "b": 0.75}  # accuracy of the PRM, best of 8


def _config(seed=0, **fields):
    own = {
        "stages": ("solver:sft", "r:aprm", "evaluate"),
        "evaluate.prms": ("r",),
        "evaluate.splits": ("test", "longer"),
        "seed": seed,
    }
    return tiny_run.config(own, **fields)


def _run(folder: Path, value: float, config) -> Path:
    """A run's folder as far as a comparison reads it."""
    open_workdir(folder, dataclasses.asdict(config), "0")
    records = [
        Record("solver", "test", "r", "min@8", value, value - 0.1, value + 0.1),
        Record("solver", "test", "", "greedy", 0.25),
        Record("solver", "longer", "", "greedy", math.nan),
        Record("steps", "test", "r", "auc", 0.875),
    ]
    write_results(folder / RESULTS, records, {"seconds": {"solver": 10 * value}})
    (folder / "r").mkdir()
    metrics = Metrics(folder / "r", tensorboard=False)
    for step in range(1, 4):
        metrics.write(step, {"game/fool_rate": value / step})
    metrics.close()
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[str]:
    """Two seeds of one run, and another one."""
    monkeypatch.chdir(tmp_path)
    seeds = {"a-0": _config(3), "a-1": _config(4, name="other")}
    configs = {**seeds, "b": _config(3, game__group_size=2)}
    return [str(_run(Path(n), VALUES[n], config)) for n, config in configs.items()]


def _written(runs: list[str]) -> tuple[dict, str]:
    """Both files of a comparison, its numbers and its page."""
    config = validate(tiny_run.config(report__runs=tuple(runs)))
    Path("out").mkdir()
    comparison.write(Context(config, Path("out"), "report"))
    numbers = json.loads(Path("out", comparison.NUMBERS).read_text())
    return numbers, Path("out", comparison.PAGE).read_text()


class _Page(html.parser.HTMLParser):
    """The rows of the tables, as text, and what each drawing shows."""

    def __init__(self, markup: str):
        super().__init__()
        self.rows, self.points, self.titles = [], [], []
        self._inside = ""
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        fields = dict(attrs)
        self._inside = tag if tag in ("th", "td", "figcaption") else self._inside
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(fields.get("data-value") or "")
        if tag == "svg" and "data-points" in fields:
            self.points.append(json.loads(fields["data-points"]))

    def handle_endtag(self, tag):
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside == "th" and data.strip():
            self.rows[-1][-1] += data
        if self._inside == "figcaption":
            self.titles.append(data)


def test_runs_stand_side_by_side_and_seeds_are_one(runs):
    numbers, markup = _written(runs)
    assert list(numbers) == ["a-0, a-1", "b"]
    assert numbers["a-0, a-1"]["seeds"] == [3, 4]
    mean, *_ = numbers["a-0, a-1"]["records"]
    # Student's interval by hand: of two values the standard error is half their gap.
    half = scipy.stats.t.ppf(0.975, 1) * 0.1
    found = [mean["value"], mean["low"], mean["high"]]
    assert found == pytest.approx([0.6, 0.6 - half, 0.6 + half])
    alone, *_ = numbers["b"]["records"]
    assert (alone["value"], alone["low"]) == (0.75, 0.65)
    page = _Page(markup)
    place = page.rows.index(["APRM (best of 8, r)"])
    assert [row[:2] for row in page.rows[place + 1 : place + 3]] == [
        ["a-0, a-1", "0.6"],
        ["b", "0.75"],
    ]
    # In every table, and in the drawings: a line a run, the first with a band.
    assert page.rows.count(["APRM (r)"]) >= 1
    fooled = page.titles.index("Share of wrong steps that fool R")
    drawn = page.points[fooled]["s"]
    assert [line["n"] for line in drawn] == ["a-0, a-1", "b"]
    assert [line["v"][0] for line in drawn] == ["60.0\u202f%", "75.0\u202f%"]
    caption = "<figcaption>Share of wrong steps that fool R</figcaption>"
    svg = markup.split(caption)[1].split('<div class="plot">')[1].split("</svg>")[0]
    assert svg.count('class="band') == 1 and svg.count('class="line') == 2
    # What differs between the runs, and nothing else.
    differing = re.search(r"<pre>(.*?)</pre>", markup, re.DOTALL)
    assert differing is not None
    text = differing[1].replace("&#34;", '"')
    assert json.loads(text) == {"game.group_size": {"a-0, a-1": 8, "b": 2}}


def test_runs_of_one_seed_are_two(runs):
    shutil.copytree("a-0", "again")
    numbers, _ = _written(["a-0", "again"])
    assert list(numbers) == ["a-0", "again"]


SOURCE = "step_format:held.jsonl"


def _learned_from(run: str, text: str, *, of: str = "") -> None:
    """Keeps what a run's start would keep of its data."""
    print_ = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    write_record(Path(run), {SOURCE: {of: print_ | {"times": [len(run), 0]}}})


def test_runs_of_other_data_are_not_seeds_of_one(runs, caplog):
    _learned_from("a-0", "one")
    _learned_from("a-1", "another")
    numbers, markup = _written(runs)
    assert list(numbers) == ["a-0", "a-1", "b"]
    assert numbers["a-1"]["records"][0]["value"] == VALUES["a-1"]
    # And the page says why, with what there is to compare.
    why = f"other data than a-0: {SOURCE}"
    assert f"seed 4 (a-1); {why}" in markup
    assert f"report.runs: a-1: {why}" in caplog.messages
    assert "3 bytes, SHA-256" in markup and "7 bytes, SHA-256" in markup


@pytest.mark.parametrize("known", [{"a-0": "one"}, {"a-0": "one", "a-1": "one"}])
def test_runs_of_the_same_data_or_of_unknown_ones_are_seeds(runs, known):
    for run, text in known.items():
        _learned_from(run, text)
    numbers, markup = _written(runs)
    assert list(numbers) == ["a-0, a-1", "b"]
    assert "other data" not in markup and "SHA-256" not in markup


def test_a_run_of_unknown_data_joins_no_two_of_other_data(runs):
    _run(Path("a-2"), 0.9, _config(5))
    _learned_from("a-1", "one", of="part.jsonl")
    _learned_from("a-2", "two", of="part.jsonl")
    numbers, markup = _written(["a-0", "a-1", "a-2"])
    assert list(numbers) == ["a-0, a-1", "a-2"]
    assert f"other data than a-1: {SOURCE}, part.jsonl" in markup


def test_a_damaged_record_of_the_data_is_named(runs):
    _learned_from("b", "one")
    Path("b", "data.json").write_text("{}")
    with pytest.raises(UserError, match=r"b/data.json .* Delete b/data.json if"):
        _written(runs)


def test_runs_of_one_name_have_their_paths(runs):
    for folder in ("x", "y"):
        Path(folder).mkdir()
        shutil.copytree("b", Path(folder, "b"))
    numbers, _ = _written(["x/b", "y/b"])
    assert list(numbers) == ["x/b", "y/b"]


def test_what_one_run_has_not_measured_is_a_gap(runs):
    config = _config(evaluate__splits=("test", "worded"), evaluate__samples=(4, 8, 16))
    _run(Path("c"), 0.5, config)
    _, markup = _written(["b", "c"])
    page = _Page(markup)
    head = next(row for row in page.rows if row[0] == "Run")
    assert head == ["Run", "test%", "longer%", "worded%"]
    place = page.rows.index(["greedy"])
    assert page.rows[place + 1][:3] == ["b", "0.25", ""]
    # Best of 4 and best of 8 are two groups, whatever their rows are called.
    assert ["APRM (best of 8, r)"] in page.rows


def _no_config(run):
    (run / of_run.FILE).unlink()


def _no_results(run):
    (run / RESULTS).unlink()


def _older(run):
    (run / RESULTS).rename(run / "summary.json")


def _flipped(run):
    data = (run / RESULTS).read_bytes()
    (run / RESULTS).write_bytes(data.replace(b"0.75", b"0.85"))


def _other_form(run):
    write_sealed(run / RESULTS, {"records": [{"accuracy": 1.0}]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "report.runs: b: no such folder"),
        (_no_config, "report.runs: b: no run, it has no config.json: name the folder"),
        (
            _no_results,
            "b: no results yet. Make them with aprm-jax --workdir=b --config",
        ),
        (_older, "b: the results of an older version, without results.json. Make the"),
        (
            _flipped,
            "b/results.json is not what was written. Make it anew with aprm-jax",
        ),
        (_other_form, "b/results.json has records of another form. Make it anew with"),
    ],
)
def test_a_folder_that_cannot_be_compared_is_named(runs, damage, message):
    damage(Path("b"))
    with pytest.raises(UserError, match=re.escape(message)):
        _written(runs)
    assert not list(Path("out").iterdir())


@pytest.mark.parametrize("given", [("b",), ("b", "a-0", "./b")])
def test_a_run_is_compared_with_others(given):
    config = tiny_run.config(report__runs=given)
    with pytest.raises(ConfigError, match="name two folders or more, each once"):
        validate(config)


def test_the_command_compares_in_a_workdir_of_its_own(runs, tmp_path):
    asked = ("--config.job=report", f"--config.report.runs={','.join(runs)}")
    code, output = command.call(tmp_path, command.QUICKSTART, "--workdir=out", *asked)
    assert code == 0, output
    assert "APRM (best of 8, r): a-0, a-1" in output
    files = {path.name for path in Path("out").iterdir() if path.is_file()}
    assert {comparison.PAGE, comparison.NUMBERS} <= files
    assert "report.html" not in files
    assert of_run.get_config("out").report.runs == ()  # of this start alone
    shutil.rmtree("b")
    code, output = command.call(tmp_path, "--workdir=out", *asked)
    assert code == 1 and "report.runs: b: no such folder" in output


def _of_seed(seed: int, kinds: list[str], value: float, **fields) -> comparison.Run:
    """A run of a folder that nobody reads."""
    config = _config(seed, evaluate__samples=(8,), **fields)
    records = [
        Record("solver", "test", "r", "min@8", value, value - 0.1, value + 0.1),
        Record("difference", "test", "", "greedy", value - 0.5, value - 0.6, value),
        *pressure.winner_records("test", "r", kinds, 200),
    ]
    name = f"r/{seed}{len(fields)}"
    return comparison.Run(name, (name,), config, (seed,), tuple(records), {}, {})


def test_a_kind_that_one_seed_has_none_of_is_pooled_as_none():
    runs = [_of_seed(0, ["sign"] * 5 + ["carry"], 0.7), _of_seed(1, ["carry"] * 7, 0.9)]
    [run] = comparison._pooled(runs)
    found = {r.part: r.value for r in run.records if r.metric == "count"}
    assert found == {"carry": 4.0, "sign": 2.5}


def test_captions_name_the_interval_that_is_shown():
    seeds = [_of_seed(0, [], 0.7), _of_seed(1, [], 0.9)]
    alone = _of_seed(0, [], 0.6, evaluate__bootstrap=7)
    others = [dataclasses.replace(run, name=f"o{run.name}") for run in seeds]
    config = _config(0, evaluate__bootstrap=9, evaluate__samples=(8,))
    others = [
        dataclasses.replace(run, config=with_fields(config, {"seed": k}))
        for k, run in enumerate(others)
    ]
    pooled = comparison._pooled([*seeds, *others])
    main, note = comparison._main_of(pooled), comparison._more_tables(pooled)[0].note
    assert "95 % intervals over seeds" in main.title and "problems." not in main.title
    assert note == "95 % intervals over seeds, by Student's t."
    mixed = comparison._pooled([*seeds, alone])
    main, note = comparison._main_of(mixed), comparison._more_tables(mixed)[0].note
    assert main.title == "The main tables of the runs."
    assert "00, 10: " in main.note and "intervals over seeds" in main.note
    assert "01: " in main.note and "intervals over problems" in main.note
    assert "intervals over seeds" in note and "by bootstrap over problems" in note


def test_a_band_of_seeds_is_called_what_it_is(runs):
    _, markup = _written(runs)
    assert "in charts between the least and the greatest" in markup


def test_runs_that_were_not_evaluated_have_no_table_on_the_console(tmp_path, caplog):
    for name, seed in (("a", 1), ("b", 2)):
        config = _config(seed, stages=("r:aprm",), game__group_size=seed + 1)
        run = _run(tmp_path / name, 0.5, config)
        write_results(run / RESULTS, [], {"seconds": {}})
    caplog.set_level("INFO", logger="aprm_jax")
    (tmp_path / "out").mkdir()
    runs = tuple(str(tmp_path / name) for name in ("a", "b"))
    config = validate(tiny_run.config(report__runs=runs))
    comparison.write(Context(config, tmp_path / "out", "report"))
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["comparison"]
