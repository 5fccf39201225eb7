"""Scales, smoothing and thinning of charts, and the drawn coordinates themselves."""

import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from aprm_jax.report import contents, figures


def drawing(markup):
    found = re.search(r"<svg viewBox.*?</svg>(?=</div>)", markup, re.DOTALL)
    assert found is not None
    return ET.fromstring(found.group())


def attribute(element, name):
    assert element is not None
    value = element.get(name)
    assert value is not None
    return value


def vertices(path):
    return [tuple(map(float, p.split())) for p in re.split("[MLZ]", path) if p]


@pytest.mark.parametrize(
    ("low", "high", "first", "last"),
    [(0, 1, 0, 1), (0.53, 0.97, 0.4, 1.0), (-0.3, 0.8, -0.5, 1), (1, 300, 0, 300)],
)
def test_ticks_enclose(low, high, first, last):
    ticks = figures.ticks(low, high, 4)
    assert (ticks[0], ticks[-1]) == pytest.approx((first, last))
    assert 3 <= len(ticks) <= 7
    assert len(figures.ticks(0.7, 0.7, 4)) > 1


def test_tick_labels_tell_neighbours_apart():
    for ticks in ([0, 0.025, 0.05], [0, 0.25, 0.5], [1e-5, 2e-5], [0, 5e4, 1e5]):
        for style in ("percent", "number"):
            labels = [figures.tick_label(t, ticks, style) for t in ticks]
            assert len(set(labels)) == len(labels)
    assert figures.tick_label(-0.5, [-0.5, 0], "number") == "\u22120.5"


def test_smooth_equals_a_loop_and_skips_gaps():
    y = np.random.default_rng(0).normal(size=90)
    y[10:20] = np.nan
    expected = [
        np.nanmean(w) if np.isfinite(w := y[max(0, k - 3) : k + 4]).any() else np.nan
        for k in range(90)
    ]
    np.testing.assert_allclose(figures.smooth(y), np.array(expected), atol=1e-12)


def test_thin_keeps_means():
    x = np.arange(1600.0)
    y = np.where(x % 10 == 0, np.nan, x)
    few_x, few_y = figures.thin(x, y)
    assert len(few_x) == len(few_y) == 160
    np.testing.assert_allclose(few_x, x.reshape(160, 10).mean(1))
    np.testing.assert_allclose(few_y, np.nanmean(y.reshape(160, 10), axis=1))


def test_lines_lie_where_the_data_says():
    series = contents.Series("a", [0, 1, 2, 3], [0.0, 1.0, math.nan, 0.5])
    svg = drawing(figures.line_chart(contents.Chart("t", [series])))
    path = attribute(svg.find("path[@class='line c0']"), "d")
    (x0, y0), (x1, y1), (x3, y3) = vertices(path)
    assert path.count("M") == 2  # broken at the gap
    assert x1 - x0 == pytest.approx((x3 - x0) / 3, abs=0.1)
    assert y3 == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert y1 < y0  # up is smaller in SVG
    points = json.loads(attribute(svg, "data-points"))
    assert points["s"][0]["v"] == [
        "0.0\u202f%",
        "100.0\u202f%",
        "\u2013",
        "50.0\u202f%",
    ]
    assert points["x"][1] == x1


def test_everything_stays_inside_the_frame():
    y = np.random.default_rng(0).normal(size=200)
    y[7] = 1e9  # a spike
    chart = contents.Chart("t", [contents.Series("a", range(200), y)], style="number")
    svg = drawing(figures.line_chart(chart))
    for path in svg.iter("path"):
        for a, b in vertices(attribute(path, "d")):
            assert 0 <= a <= 380
            assert 0 <= b <= 230
    labels = [t.text or "" for t in svg.iter("text")]
    assert not any("9" in label for label in labels if "e" in label)


def test_a_series_without_values_keeps_its_colour():
    series = [
        contents.Series("gone", [1, 2], [math.nan, math.nan]),
        contents.Series("here", [1, 2], [0.1, 0.2]),
    ]
    markup = figures.line_chart(contents.Chart("t", series))
    assert "here" in markup
    assert "gone" not in markup
    assert 'class="line c1"' in markup
    assert figures.line_chart(contents.Chart("t", series[:1])) == ""
    with pytest.raises(ValueError, match="differ in length"):
        figures.line_chart(contents.Chart("t", [contents.Series("a", [1], [1, 2])]))


def test_progression_stacks_to_the_sum():
    x = [1, 2, 3]
    shares = {"small": [0.2, 0.2, 0.2], "big": [0.7, 0.6, 0.5], "none": [0, 0, 0]}
    accuracy = {"big": [0.6, 0.7, 0.8], "small": [0.9, math.nan, 0.9]}
    markup = figures.progression(contents.Progression(x, shares, accuracy))
    assert "none" not in markup
    assert markup.index("big") < markup.index("small")  # ordered by share
    areas = [p for p in drawing(markup).iter("path") if "area" in attribute(p, "class")]
    base = vertices(attribute(areas[0], "d"))[-1][1]
    unit = (base - vertices(attribute(areas[0], "d"))[0][1]) / 0.7
    tops = [vertices(attribute(areas[1], "d"))[k][1] for k in range(3)]
    np.testing.assert_allclose(
        (base - np.array(tops)) / unit, [0.9, 0.8, 0.7], atol=5e-3
    )


def test_many_kinds_are_folded():
    shares = {f"kind{k:02d}": [0.05, 0.05] for k in range(15)}
    markup = figures.progression(contents.Progression([1, 2], shares, {}))
    assert "other kinds" in markup
    assert "kind09" not in markup


def test_an_axis_of_doublings_has_a_tick_at_each_point_evenly_apart():
    sizes = [8, 16, 32, 64]
    chart = contents.Chart(
        "t", [contents.Series("a", sizes, [0.1, 0.2, 0.3, 0.4])], doubling=True
    )
    svg = drawing(figures.line_chart(chart))
    dots = [float(attribute(e, "cx")) for e in svg.iter() if e.get("r")]
    assert np.diff(dots) == pytest.approx([dots[1] - dots[0]] * 3, abs=0.11)
    shown = [e.text for e in svg.iter() if e.get("class") == "tx"]
    assert shown == [str(n) for n in sizes]


@pytest.mark.parametrize(
    ("low", "high"), [(100000, 100400), (10000, 11000), (1000000, 1000400)]
)
def test_ticks_of_thousands_differ_and_are_exact(low, high):
    ticks = figures.ticks(low, high, 4)
    labels = [figures.tick_label(t, ticks, "number") for t in ticks]
    shown = [float(text.replace("k", "e3")) for text in labels]
    assert shown == pytest.approx(ticks, abs=1e-6)


@pytest.mark.parametrize("place", [0, 9, 19])
def test_a_point_without_neighbours_is_drawn_wherever_it_stands(place):
    y = np.full(20, 0.5)
    y[max(place - 1, 0) : place + 2] = math.nan
    y[place] = 1.0
    chart = contents.Chart("t", [contents.Series("a", range(20), y)])
    assert figures.line_chart(chart).count("<circle") == 1


def _shown(chart):
    """Heading -> line -> what the pointer shows of it."""
    points = json.loads(attribute(drawing(figures.line_chart(chart)), "data-points"))
    rows = {series["n"]: series["v"] for series in points["s"]}
    return [
        (head, {name: values[k] for name, values in rows.items()})
        for k, head in enumerate(points["l"])
    ]


def test_the_pointer_shows_no_value_where_a_line_has_no_point():
    short = contents.Series("to 64", [8, 64], [0.8, 0.9])
    long = contents.Series("to 512", [8, 128, 512], [0.8, 0.75, 0.6])
    shown = _shown(contents.Chart("t", [short, long], "n", doubling=True))
    assert shown == [
        ("n 8", {"to 64": "80.0\u202f%", "to 512": "80.0\u202f%"}),
        ("n 64", {"to 64": "90.0\u202f%", "to 512": "\u2013"}),
        ("n 128", {"to 64": "\u2013", "to 512": "75.0\u202f%"}),
        ("n 512", {"to 64": "\u2013", "to 512": "60.0\u202f%"}),
    ]


def test_the_pointer_shows_a_straight_line_between_its_ends():
    line = contents.Series("perfect", [10, 90], [0.1, 0.9], straight=True)
    bins = contents.Series("R", [5, 45, 95], [0.2, 0.5, 0.7])
    shown = dict(_shown(contents.Chart("t", [line, bins], "score")))
    assert shown["score 45"] == {"perfect": "45.0\u202f%", "R": "50.0\u202f%"}
    assert shown["score 5"]["perfect"] == shown["score 95"]["perfect"] == "\u2013"
    assert shown["score 90"] == {"perfect": "90.0\u202f%", "R": "\u2013"}


def test_the_pointer_shows_means_of_bins_within_their_bins_alone():
    y = np.arange(401) / 400
    long = contents.Series("long", range(401), y)
    half = contents.Series("half", range(201), y[:201])
    few = contents.Series("few", [100], [0.25])
    shown = _shown(contents.Chart("t", [long, half, few], "x"))
    assert len(shown) > 200
    ends = [float(head.removeprefix("x ")) for head, _ in shown]
    for end, (_, values) in zip(ends, shown, strict=True):
        assert (values["half"] == "\u2013") == (end > 200)
        for name in ("long", "half"):  # as far as a bin and the smoothing are wide
            if values[name] != "\u2013":
                found = float(values[name].removesuffix("\u202f%"))
                assert found == pytest.approx(end / 4, abs=2.0)
    known = [head for head, values in shown if values["few"] != "\u2013"]
    assert known in ([], ["x 100"])
