"""The page: complete, self-contained, deterministic, and safe with hostile text."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import math
import re

import jinja2
import pytest
from markupsafe import Markup

from aprm_jax.report import contents, markup, page, text

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = (
    "</code><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\ud800\x00$x"
)


class Checker(html.parser.HTMLParser):
    """Collects tags, and fails on what is not nested."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(markup):
    checker = Checker()
    checker.feed(markup)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    return checker


def test_every_section_is_there_once_and_deterministic(report_data):
    markup = page.render(report_data)
    assert parsed(markup).ids == [
        "results",
        "progression",
        "curves",
        "perturbations",
        "solutions",
        "tables",
        "time",
        "numbers",
    ]
    assert page.render(report_data) == markup
    assert len(markup) < 600_000


def test_labelled_solutions_speak_of_their_steps_alone(report_data):
    assert "the verdict of the oracle" in page.render(report_data)
    solutions = [
        dataclasses.replace(s, answer=None, expected=None)
        for s in report_data.solutions
    ]
    markup = page.render(dataclasses.replace(report_data, solutions=solutions))
    assert "the label of the step" in markup
    assert "✓ no step is wrong</span></p>" in markup
    assert "✗ a step is wrong</span></p>" in markup
    assert "oracle." not in markup and "no answer" not in markup


def test_loads_nothing(report_data):
    markup = page.render(report_data)
    checker = parsed(markup)
    names = {name for name, _ in checker.attributes}
    assert not names & {"src", "srcset", "data", "action", "background"}
    links = [value for name, value in checker.attributes if name == "href"]
    # A place on the page, or numbers of its own to save.
    saved = "data:application/json;base64,"
    assert all(link.startswith(("#", saved)) for link in links)
    places = {link[1:] for link in links if link.startswith("#")}
    assert places == set(checker.ids)
    assert "url(" not in markup
    assert "@import" not in markup
    # The namespace is the only address, and it is no request.
    assert set(re.findall(r"https?://[^\s\"'<]+", markup)) == {
        "http://www.w3.org/2000/svg"
    }


def test_the_policy_admits_exactly_the_script(report_data):
    markup = page.render(report_data)
    (script,) = re.findall(r"<script>(.*?)</script>", markup, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in markup


def _poison(value):
    """The same data with hostile text for every string that is not a fixed choice."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {"style", "best"}
        return dataclasses.replace(
            value,
            **{
                f.name: _poison(getattr(value, f.name))
                for f in dataclasses.fields(value)
                if f.name not in kept
            },
        )
    if isinstance(value, str):
        return value and f"{HOSTILE}{value}"
    if isinstance(value, dict):
        return {f"{HOSTILE}{k}": _poison(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_poison(v) for v in value)
    return value


def test_hostile_text_stays_text(report_data, tmp_path):
    page.write_report(tmp_path / "report.html", _poison(report_data))
    markup = (tmp_path / "report.html").read_text(encoding="utf-8")
    poisoned, clean = parsed(markup), parsed(page.render(report_data))
    assert poisoned.tags.count("script") == 1
    assert "img" not in poisoned.tags
    assert set(poisoned.tags) == set(clean.tags)
    assert not [n for n, _ in poisoned.attributes if n.startswith("on")]
    assert not set("\u202e\x00") & set(markup)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_templates_escape_all_but_markup_of_our_own():
    lead = markup.macro("parts.html", "lead")
    assert (
        lead("<b>\u202e & 'x'")
        == '<p class="lead">&lt;b&gt;\ufffd &amp; &#39;x&#39;</p>\n'
    )
    assert lead(Markup("<b>x</b>")) == '<p class="lead"><b>x</b></p>\n'
    assert len(lead("<" * 10_000)) < 5 * text.MAX_TEXT
    with pytest.raises(jinja2.UndefinedError, match="was not provided"):
        markup.macro("parts.html", "table")()


def test_nothing_to_show_leaves_sections_out():
    bare = page.render(contents.ReportData(title="sft only"))
    assert parsed(bare).ids == []
    losses = contents.Chart("loss", [contents.Series("loss", [1, 2], [2.0, 1.0])])
    empty = contents.Chart("empty", [contents.Series("a", [], [])])
    some = contents.ReportData(
        title="t", charts=[losses, empty], timings=[contents.Timing("sft", {})]
    )
    assert parsed(page.render(some)).ids == ["curves"]


def table(**changes):
    rows = [
        contents.Row("a", [contents.Cell(0.5, 0.4, 0.6), 0.3]),
        contents.Row("b", [contents.Cell(0.70001, 0.6, 0.8), None]),
        contents.Row("ours", [contents.Cell(0.7, 0.65, 0.75), 0.2], own=True),
        contents.Row("bound", [0.9, 0.1], reference=True),
    ]
    columns = [contents.Column("dev"), contents.Column("fooled", best="min")]
    return contents.Table("t", columns, changes.get("rows", rows))


def test_the_best_is_bold_ties_and_directions_included():
    data = contents.ReportData(title="t", main_table=table())
    markup = page.render(data)
    best = re.findall(r'<td class="best"[^>]*><span class="value">([\d.]+)', markup)
    assert best == ["70.0", "70.0", "20.0"]
    assert "40.0\u201360.0" in markup
    headline = page.derived_headline(table())
    assert headline.startswith("ours: 70.0\u202f% (65.0 to 75.0) in the column")
    assert "1 of 2 columns" in headline
    assert page.derived_headline(None) == ""


def test_a_ragged_table_is_refused():
    ragged = table(rows=[contents.Row("a", [0.5])])
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        page.render(contents.ReportData(title="t", tables=[ragged]))


def test_text_formats():
    assert text.number(0.7321, "percent") == "73.2"
    assert text.number(-0.031, "points") == "\u22123.1"
    assert text.number(12345, "count") == "12\u202f345"
    assert text.number(math.nan) == "\u2013"
    assert text.number(1.5e-7) == "1.50e-07"
    assert text.duration(3.21) == "3.2 s"
    assert text.duration(59.99) == "1 min 00 s"
    assert text.duration(3600 * 3 + 299) == "3 h 05 min"
    assert len(text.clean("x" * 10_000)) == text.MAX_TEXT


def test_diff_marks_what_changed():
    before, after = text.diff("4 - 5 < 8", "4 - 13 < 8")
    assert before == "4 - <del>5</del> &lt; 8"
    assert after == "4 - <ins>13</ins> &lt; 8"
    assert text.diff("a", "a") == ("a", "a")


def test_the_numbers_can_be_saved_as_strict_json():
    summary = {"b": 0.25, "a": math.nan, "<script>": math.inf}
    markup = page.render(contents.ReportData(title="t", summary=summary))
    [encoded] = re.findall(r'href="data:application/json;base64,([^"]*)"', markup)
    saved = base64.b64decode(encoded).decode()
    assert json.loads(saved, parse_constant=None) == {
        "<script>": None,
        "a": None,
        "b": 0.25,
    }
    assert "NaN" not in saved and "Infinity" not in saved


def test_cells_carry_the_numbers_that_sorting_and_csv_read():
    """The printed value is rounded; rows sort by what was measured."""
    columns = (contents.Column("up"), contents.Column("down", best="min"))
    cells = (contents.Cell(0.12345, 0.1, 0.2), None)
    data = contents.Table("T", columns, [contents.Row("r", cells)])
    markup = page.render(contents.ReportData(title="t", main_table=data))
    assert 'data-value="0.12345" data-low="0.1" data-high="0.2"' in markup
    assert '<td data-value="">' in markup
    assert re.findall(r'data-sort="(\w+)"', markup) == ["down", "up"]


def test_every_series_of_a_legend_names_what_it_switches(report_data):
    markup = page.render(report_data)
    for figure in re.findall(r"<figure>.*?</figure>", markup, re.DOTALL):
        for colour in re.findall(r'data-series="(\d)"', figure):
            assert re.search(rf'<path class="line c{colour}"', figure)


def test_the_headline_counts_what_can_be_led_and_opens_with_what_may():
    columns = [contents.Column("a: F1"), contents.Column("threshold", "number", "")]
    cells = [contents.Cell(0.75), contents.Cell(0.5)]
    ours = contents.Row("ours", cells, own=True)
    vote = contents.Row("vote", [contents.Cell(0.25)] * 2, own=True, opens=False)
    other = contents.Row("other", [contents.Cell(0.5)] * 2)
    found = page.derived_headline(contents.Table("t", columns, [ours, vote, other]))
    assert found.startswith("ours: 75.0")
    assert found.endswith("ours is ahead of all of those in 1 of 1 columns.")


def test_a_mean_count_keeps_its_half():
    assert text.number(2.5, "count") == "2.5"


def test_the_headline_is_about_the_first_of_ours_under_the_most_pressure():
    columns = [contents.Column("a")]
    rows = [
        contents.Row(f"{name}, best of {n}", [contents.Cell(v)], own=True, of=name)
        for name, values in (("main", (0.5, 0.75)), ("without a part", (0.5, 0.25)))
        for n, v in zip((8, 512), values, strict=True)
    ]
    rows.append(contents.Row("other", [contents.Cell(0.625)]))
    found = page.derived_headline(contents.Table("t", columns, rows))
    assert found.startswith("main, best of 512: 75.0")
    assert "in 1 of 1 columns" in found


def test_what_is_next_to_nothing_has_no_sign():
    assert text.number(-0.0001, "percent") == "0.0"
    assert text.number(-0.0001, "points") == text.number(0.0001, "points") == "+0.0"
    assert text.number(-0.0006, "percent") == "\u22120.1"


def test_a_score_that_is_not_finite_has_a_tint():
    scores = (math.inf, 1.0, 0.5, 0.0, -math.inf, math.nan)
    tints = [markup._tint(score) for score in scores]
    assert tints == ["s6", "s6", "s3", "s0", "s0", "s3"]


def _of_seeds(**column) -> contents.Table:
    """A table with an interval as Student's are: symmetric, and wider than possible."""
    rows = [contents.Row("a", [contents.Cell(0.8, 0.4, 1.2)], own=True)]
    rows += [contents.Row("b", [contents.Cell(0.1, -0.2, 0.4)])]
    return contents.Table(
        "t", [contents.Column("c", **column)], rows, note="Two seeds."
    )


@pytest.mark.parametrize(
    ("column", "ends"),
    [
        ({}, ["40.0\u2013100.0", "0.0\u201340.0"]),
        ({"style": "number", "share": True}, ["0.4 to 1", "0 to 0.4"]),
        # A difference may be below zero, and a number be anything.
        ({"style": "points"}, ["+40.0 to +120.0", "\u221220.0 to +40.0"]),
        ({"style": "number"}, ["0.4 to 1.2", "\u22120.2 to 0.4"]),
    ],
)
def test_intervals_of_shares_are_cut_where_they_are_printed(column, ends):
    table = _of_seeds(**column)
    view = page.table_view(table)
    cells = [cell for _, rows in view.groups for _, row in rows for cell in row]
    assert [cell.limits for cell in cells if cell] == ends
    is_cut = column == {} or "share" in column
    assert view.note == "Two seeds." + is_cut * (
        " Intervals of shares are cut at what is possible, 0 and 100 %."
    )
    assert table == _of_seeds(**column)  # what is kept stays whole
    known = contents.printed(table)
    assert contents.printed(known) is known  # once is enough, and says so once


def test_a_headline_has_no_share_beyond_what_is_possible():
    assert "80.0\u202f% (40.0 to 100.0)" in page.derived_headline(_of_seeds())
