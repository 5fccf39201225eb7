"""Charts as inline SVG, drawn by hand: themed by CSS, deterministic, and small.

Colours are CSS classes (`c0` to `c7`), so that one drawing serves light and dark.
Legends are HTML above the drawing and can never cover data. A drawing carries its
points as JSON in `data-points`; page.js reads them to show values under the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup, escape

from aprm_jax.report import markup, text
from aprm_jax.report.contents import Chart, Progression, Series

COLOURS = 8
_MAX_POINTS = 160  # of a drawn line; more are averaged in bins
_SMOOTH_FROM = 48  # points; shorter lines are drawn as they are

Line = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
# x, the points as they are, the line as drawn: smoothed where points are many.
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


class Frame:
    """A plot area with its scales: data coordinates to those of the drawing."""

    def __init__(
        self,
        x_range: tuple[float, float],
        y_ticks: Sequence[float],
        *,
        width: int = 380,
        height: int = 230,
        left: int = 46,
        doubling: Sequence[float] = (),
    ):
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = left, 14, 10, 40
        self.x_range = x_range
        self.doubling = doubling  # ticks of an x that is drawn by its logarithm
        self.y_ticks = y_ticks
        self.y_range = (y_ticks[0], y_ticks[-1])

    def x(self, value: float) -> float:
        low, high = self.x_range
        if self.doubling:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        # A spike beyond the axis is drawn at its border.
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return (
            self.height - self.bottom - share * (self.height - self.top - self.bottom)
        )

    def axes(self, x_label: str, style: str) -> str:
        parts = []
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{self.width - self.right}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/><text class="ty" x="{self.left - 7}" '
                f'y="{y:.1f}">{tick_label(tick, self.y_ticks, style)}</text>'
            )
        base = self.height - self.bottom
        low, high = self.x_range
        even = [t for t in ticks(low, high, 4) if low <= t <= high] or [low]
        x_ticks = self.doubling or even
        for tick in x_ticks:
            x = self.x(tick)
            parts.append(
                f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" '
                f'y2="{base + 4}"/><text class="tx" x="{x:.1f}" '
                f'y="{base + 17}">{self._x_label(tick, x_ticks)}</text>'
            )
        middle = (self.left + self.width - self.right) / 2
        parts.append(
            f'<line class="axis" x1="{self.left}" x2="{self.width - self.right}" '
            f'y1="{base}" y2="{base}"/><text class="label" x="{middle:.1f}" '
            f'y="{self.height - 5}">{escape(text.clean(x_label))}</text>'
        )
        return "".join(parts)

    def _x_label(self, tick: float, x_ticks: Sequence[float]) -> str:
        return f"{tick:g}" if self.doubling else tick_label(tick, x_ticks, "number")

    def path(self, x: np.ndarray, y: np.ndarray) -> str:
        """An SVG path through the finite points, broken at the others."""
        commands, pen = [], "M"
        for a, b in zip(x, y, strict=True):
            if not math.isfinite(b):
                pen = "M"
                continue
            commands.append(f"{pen}{self.x(a):.1f} {self.y(b):.1f}")
            pen = "L"
        return "".join(commands)

    def svg(self, body: str, title: str, points: Mapping[str, object]) -> Markup:
        return Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-points="{}">'
            "{}</svg>"
        ).format(
            self.width,
            self.height,
            text.clean(title),
            json.dumps(points, separators=(",", ":")),
            Markup(body),
        )


def ticks(low: float | int, high: float | int, about: int) -> list[float]:
    """Round numbers that enclose [low, high], about `about` intervals apart."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / about
    scale = 10.0 ** math.floor(math.log10(raw))
    step = scale * next(m for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick_label(value: float | int, others: Sequence[float | int], style: str) -> str:
    """A tick with as many decimals as tell it from its neighbours."""
    factor, unit = (100, f"{text.NARROW_SPACE}%") if style == "percent" else (1, "")
    step = factor * (others[1] - others[0]) if len(others) > 1 else factor
    largest = factor * max(abs(others[0]), abs(others[-1]))
    if largest and (largest >= 1e6 or largest < 1e-3):
        label = f"{factor * value:.{max(2, _digits(largest, step))}g}"
        return label.replace("e-", f"e{text.MINUS}") + unit
    if largest >= 1e4 and step >= 100:
        label = f"{value / 1e3:.{_decimals(step / 1e3)}f}k"
    else:
        label = f"{factor * value:.{_decimals(step)}f}"
    return label.replace("-", text.MINUS) + unit


def _digits(largest: float, step: float) -> int:
    """Significant ones, as many as tell the largest from its neighbour."""
    place = math.floor(math.log10(step) + 1e-9)
    return math.floor(math.log10(largest)) - place + 1 + _decimals(step / 10**place)


def _decimals(step: float) -> int:
    """As many as tell neighbours apart that are a step from each other."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    halved = round(step, decimals) != round(step, decimals + 2)  # 2.5, 0.25
    return decimals + halved


def thin(x: np.ndarray, y: np.ndarray) -> Line:
    """At most `_MAX_POINTS` points: means of bins, gaps ignored within a bin."""
    if len(x) <= _MAX_POINTS:
        return x, y
    bins = _bins(len(x))
    filled = np.isfinite(y)
    count = np.bincount(bins, filled, _MAX_POINTS)
    total = np.bincount(bins, np.where(filled, y, 0.0), _MAX_POINTS)
    mean = total / np.where(count > 0, count, np.nan)
    return np.bincount(bins, x, _MAX_POINTS) / np.bincount(bins), mean


def _bins(count: int) -> np.ndarray:
    """Which of `_MAX_POINTS` bins each of many points falls into."""
    return np.arange(count) * _MAX_POINTS // count


def smooth(y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A centred moving mean that leaves gaps out and shrinks at the ends."""
    half = max(1, len(y) // 30)
    filled = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(filled, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(filled)])
    index = np.arange(len(y))
    high, low = np.minimum(index + half + 1, len(y)), np.maximum(index - half, 0)
    count = counts[high] - counts[low]
    return (sums[high] - sums[low]) / np.where(count > 0, count, np.nan)


def legend(names: Mapping[int, str], mark: str) -> Markup:
    """A row of named swatches, colour → name; `mark` is "line" or "area"."""
    entries = [
        (k % COLOURS, _swatch(k, mark), text.clean(name, 60))
        for k, name in names.items()
    ]
    return markup.macro("parts.html", "legend")(entries)


def line_chart(chart: Chart, *, wide: bool = False, keyed: bool = True) -> Markup:
    """A chart as a <figure>; "" where there is nothing to draw.

    Args:
      chart: what to draw. A series without a finite value keeps its colour's place.
      wide: a drawing for half a page instead of a third.
      keyed: whether it has its own legend.
    """
    if any(len(s.x) != len(s.y) for s in chart.series):
        raise ValueError(f"chart {chart.title!r}: x and y differ in length")
    drawn = {
        k: _prepare(s)
        for k, s in enumerate(chart.series)
        if np.isfinite(_array(s.y)).any()
    }
    if not drawn:
        return Markup()
    size = {"width": 560, "height": 300, "left": 56} if wide else {}
    y_ticks = _y_ticks(list(drawn.values()), chart)
    marked = sorted({float(v) for x, *_ in drawn.values() for v in x})
    frame = Frame(
        _x_range(drawn.values()),
        y_ticks,
        doubling=marked if chart.doubling else (),
        **size,
    )
    smoothed = [k for k in drawn if len(chart.series[k].x) >= _SMOOTH_FROM]
    body = [frame.axes(chart.x_label, chart.style)]
    body += [_band(frame, chart.series[k], k) for k in drawn]
    for k in smoothed:
        x, raw, _ = drawn[k]
        body.append(f'<path class="raw {_colour(k)}" d="{frame.path(x, raw)}"/>')
    for k, (x, _, y) in drawn.items():
        body.append(f'<path class="line {_colour(k)}" d="{frame.path(x, y)}"/>')
        body.append(_dots(frame, x, y, k))
    key = {k: chart.series[k].name for k in drawn}
    points = _points(frame, drawn, chart)
    return figure(
        chart.title,
        legend(key, "line") if keyed and (len(key) > 1 or any(key.values())) else "",
        frame.svg("".join(body), chart.title, points),
        chart.note,
    )


def figure(title: str, key: str, svg: Markup, note: str = "") -> Markup:
    """A <figure> of heading, legend, drawing and caption."""
    return markup.macro("parts.html", "figure")(title, key, svg, note)


def progression(data: Progression) -> Markup:
    """Shares of the kinds (stacked) beside R's accuracy on each (lines)."""
    x = _array(data.x)
    kinds = _ordered_kinds(data)
    if not kinds or len(x) < 2:
        return Markup()
    kept = kinds if len(kinds) <= COLOURS else kinds[: COLOURS - 1]
    rows = {k: np.nan_to_num(_array(data.shares[k])) for k in kinds}
    shares = [rows[kind] for kind in kept]
    names = list(kept)
    if len(kept) < len(kinds):
        shares.append(np.sum([rows[k] for k in kinds[len(kept) :]], axis=0))
        names.append("other kinds")
    accuracy = Chart(
        title="Accuracy of R on each kind",
        series=[Series(k, data.x, data.accuracy.get(k, _nan(x))) for k in kept],
    )
    lines = line_chart(accuracy, wide=True, keyed=False)
    key = legend(dict(enumerate(names)), "area")
    pair = _stacked(x, shares, names) + lines
    return Markup('{}<div class="pair">{}</div>').format(key, pair)


def _stacked(
    x: np.ndarray, shares: Sequence[np.ndarray], names: Sequence[str]
) -> Markup:
    if len(x) >= _SMOOTH_FROM:
        shares = [smooth(y) for y in shares]
    thinned = [thin(x, y)[1] for y in shares]
    x = thin(x, x)[0]
    total = np.sum(thinned, axis=0)
    # Kinds that the caller left out stay blank; rounding must not pass 100 %.
    tops = np.cumsum(thinned, axis=0) / np.maximum(total, 1.0)
    frame = Frame(
        (float(x[0]), float(x[-1])),
        [0.0, 0.25, 0.5, 0.75, 1.0],
        width=560,
        height=300,
        left=56,
    )
    body, below = [frame.axes("iteration", "percent")], np.zeros(len(x))
    for k, top in enumerate(tops):
        back = frame.path(x[::-1], below[::-1]).replace("M", "L", 1)
        outline = frame.path(x, top) + back + "Z"
        body.append(f'<path class="area {_colour(k)}" d="{outline}"/>')
        below = top
    pixels = [round(frame.x(v), 1) for v in x]
    series = [
        {
            "n": text.clean(name, 60),
            "c": k % COLOURS,
            "v": [text.number(v, "percent", unit=True) for v in y],
        }
        for k, (name, y) in enumerate(zip(names, thinned, strict=True))
    ]
    points = {
        "x": pixels,
        "l": [f"iteration {v:g}" for v in np.round(x)],
        "s": series[::-1],
        "t": frame.top,
        "b": frame.height - frame.bottom,
    }
    title = "Share of each kind among the wrong steps of G"
    return figure(title, "", frame.svg("".join(body), title, points))


def _ordered_kinds(data: Progression) -> list[str]:
    mean = {k: float(np.nan_to_num(_array(v)).mean()) for k, v in data.shares.items()}
    return sorted((k for k in mean if mean[k] > 0), key=lambda k: (-mean[k], k))


def _prepare(series: Series) -> Drawn:
    x, y = _array(series.x), _array(series.y)
    y = np.where(np.isfinite(y), y, np.nan)
    shown = smooth(y) if len(x) >= _SMOOTH_FROM else y
    return (*thin(x, y), thin(x, shown)[1])


def _x_range(drawn: Iterable[Drawn]) -> tuple[float, float]:
    every = np.concatenate([x for x, *_ in drawn])
    return float(every.min()), float(every.max())


def _y_ticks(drawn: Sequence[Drawn], chart: Chart) -> list[float]:
    values = [y for _, _, y in drawn]
    values += [
        _array(b) for s in chart.series for b in (s.low, s.high) if b is not None
    ]
    # Of the raw points only the bulk: one spike must not flatten the whole chart.
    values += [np.nanpercentile(raw, [2, 98]) for _, raw, _ in drawn]
    every = np.concatenate(values)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    if 0 < low < 0.4 * high:
        low = 0.0
    rate = chart.style == "percent" and low >= 0 and high <= 1
    if rate and high - low < 0.04:
        low, high = max(0.0, low - 0.02), min(1.0, high + 0.02)
    result = ticks(low, high, 4)
    return [t for t in result if -1e-9 <= t <= 1 + 1e-9] if rate else result


def _band(frame: Frame, series: Series, index: int) -> str:
    if series.low is None or series.high is None:
        return ""
    x, low = thin(_array(series.x), _array(series.low))
    high = thin(_array(series.x), _array(series.high))[1]
    known = np.isfinite(low) & np.isfinite(high)
    if known.sum() < 2:
        return ""
    x, low, high = x[known], low[known], high[known]
    back = frame.path(x[::-1], low[::-1]).replace("M", "L", 1)
    return f'<path class="band {_colour(index)}" d="{frame.path(x, high)}{back}Z"/>'


def _dots(frame: Frame, x: np.ndarray, y: np.ndarray, index: int) -> str:
    """Markers where points are few, and for points without neighbours."""
    known = np.isfinite(y)
    beside = np.pad(known, 1)  # none before the first, nor after the last
    alone = known & ~beside[:-2] & ~beside[2:]
    shown = known if known.sum() <= 12 else alone
    return "".join(
        f'<circle class="dot {_colour(index)}" cx="{frame.x(a):.1f}" '
        f'cy="{frame.y(b):.1f}" r="2.6"/>'
        for a, b in zip(x[shown], y[shown], strict=True)
    )


def _points(
    frame: Frame, drawn: Mapping[int, Drawn], chart: Chart
) -> dict[str, object]:
    """What page.js shows under the pointer: pixels, headings, values as text."""
    grid = np.unique(np.concatenate([x for x, *_ in drawn.values()]))
    if len(grid) > 2 * _MAX_POINTS:
        grid = grid[:: len(grid) // _MAX_POINTS]
    rows = []
    for k, (x, _, y) in drawn.items():
        at = _at(grid, chart.series[k], x, y)
        values = [text.number(v, chart.style, unit=True) for v in at]
        name = text.clean(chart.series[k].name, 60)
        rows.append({"n": name, "c": k % COLOURS, "v": values})
    return {
        "x": [round(frame.x(v), 1) for v in grid],
        "l": [f"{chart.x_label} {text.number(round(v), 'count')}" for v in grid],
        "s": rows,
        "t": frame.top,
        "b": frame.height - frame.bottom,
    }


def _at(grid: np.ndarray, series: Series, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A drawn line's value at each x of all lines; NaN where it has none.

    Between two points nothing was measured. The mean of a bin stands for all of it.
    """
    if series.straight:
        return np.interp(grid, x, y, left=math.nan, right=math.nan)
    raw = _array(series.x)
    if len(raw) <= _MAX_POINTS:
        known = dict(zip(x.tolist(), y, strict=True))
        return np.array([known.get(value, math.nan) for value in grid.tolist()])
    starts = raw[np.flatnonzero(np.diff(_bins(len(raw)), prepend=-1))]
    inside = (grid >= raw[0]) & (grid <= raw[-1])
    bins = np.searchsorted(starts, np.where(inside, grid, raw[0]), side="right") - 1
    return np.where(inside, y[bins], math.nan)


def _colour(index: int) -> str:
    """Colour class; a second round of the palette is dashed."""
    return f"c{index % COLOURS}" + (" dashed" if index >= COLOURS else "")


def _swatch(index: int, mark: str) -> Markup:
    if mark == "area":
        shape = '<rect width="14" height="10" x="4" rx="2" '
        return Markup(shape + f'class="area {_colour(index)}"/>')
    return Markup(f'<path class="line {_colour(index)}" d="M1 5L21 5"/>')


def _array(
    values: Sequence[float | int] | np.ndarray | range,
) -> Float[np.ndarray, " n"]:
    return np.asarray(values, np.float64)


def _nan(like: np.ndarray) -> list[float]:
    return [math.nan] * len(like)
