"""The grid of `configs/sizes.py`: sizes of R against sizes of G, over seeds.

    python benchmarks/sizes.py collect RUN...   # a file a seed
    python benchmarks/sizes.py tables           # docs/results.md and the figure

`collect` keeps what a run found in `benchmarks/results/sizes/seed_K.json`, accuracies
of every problem in thousandths; `tables` pools whichever seeds are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_table import (
    ROOT,
    last_rounds,
    one_line_each,
    pooled_row,
    replace_between,
    save_figure,
    table,
)
from naive_pressure import accuracies, values
from safetensors.numpy import load_file
from seed_files import of_run, read, tables_wanted, write

RESULTS = ROOT / "benchmarks/results/sizes"
STATIC = "prm_static"


def main() -> None:
    figure = ROOT / "docs/sizes.svg"
    if args := tables_wanted(__doc__, collect, RESULTS, figure=figure):
        seeds = read(args.results)
        replace_between(args.page, "sizes", render(seeds))
        draw(seeds, args.figure)


def collect(run: Path, results: Path = RESULTS) -> Path:
    """Writes what a finished run found."""
    config, found = of_run(run, "configs/sizes.py")
    arms, ns = config["evaluate"]["prms"], config["evaluate"]["samples"]
    widths = [arm.rpartition("_")[2] for arm in arms if arm.startswith(STATIC)]
    starts = {w: run / f"base_{w}" for w in widths}
    starts = {w: at if at.is_dir() else run / "solver" for w, at in starts.items()}
    found |= {
        "sizes": ns,
        "splits": config["evaluate"]["splits"],
        "parameters": {w: _parameters(run / f"{STATIC}_{w}/model") for w in widths},
        "start_loss": {w: last_rounds(at, "loss") for w, at in starts.items()},
        "fool_rate": {
            arm: last_rounds(run / arm, "game/fool_rate")
            for arm in arms
            if not arm.startswith(STATIC)
        },
    }
    for split in found["splits"]:
        found[split] = accuracies(run, split, arms, ns)
    return write(found, results, one_line_each(found))


def _parameters(model: Path) -> int:
    """How many numbers a saved model has, its embeddings and its head among them."""
    files = model.glob("*.safetensors")
    return sum(array.size for file in files for array in load_file(file).values())


Seeds = Sequence[dict[str, Any]]
Place = tuple[str, int]  # a split, and N


def render(seeds: Seeds) -> str:
    """The tables as Markdown."""
    first = seeds[0]
    for name in ("sizes", "splits", "parameters"):
        if any(seed[name] != first[name] for seed in seeds):
            raise ValueError(f"the seeds were not measured alike: {name}")
    ns = (first["sizes"][0], first["sizes"][-1])
    places = [(split, n) for split in first["splits"] for n in ns]
    losses = ", ".join(
        f"{title} {np.mean([seed['start_loss'][w] for seed in seeds]):.3f}"
        for w, title in _titles(seeds).items()
    )
    problems = len(first[first["splits"][0]][f"{STATIC}_{_widths(seeds)[0]}@{ns[0]}"])
    names = ", ".join(str(seed["seed"]) for seed in seeds)
    over = "seeds and problems" if len(seeds) > 1 else "problems"
    return "\n\n".join(
        [
            "![Accuracy of best-of-N by the sizes of R and of G](sizes.svg)",
            _grid(seeds, places),
            _gains(seeds, places),
            _by_size(seeds, places),
            _fool_rates(seeds),
            f"Seeds {names}; {problems} problems a split; accuracy of best of N by the "
            "least step score, in %; differences of the same seed, in points, in "
            f"brackets 95 % intervals over {over}. Sizes are parameters, embeddings "
            "and head among them. Loss of the models that players begin with, at the "
            f"end of their training, nats a token: {losses}. Made by "
            "`benchmarks/sizes.py` from `benchmarks/results/sizes/`.",
        ]
    )


def _widths(seeds: Seeds) -> list[str]:
    return list(seeds[0]["parameters"])


def _titles(seeds: Seeds) -> dict[str, str]:
    """Of each width, its parameters."""
    counts = seeds[0]["parameters"].items()
    return {width: f"{count / 1e6:.2g} M" for width, count in counts}


def _grid(seeds: Seeds, places: Sequence[Place]) -> str:
    """A line a size of R: static corruptions, and a column a size of G."""
    titles = _titles(seeds)
    rows = []
    for place in places:
        for r, title in titles.items():
            arms = [f"{STATIC}_{r}", *(f"aprm_{r}_{g}" for g in titles)]
            cells = [_percent(seeds, place, arm) for arm in arms]
            rows.append((f"{_at(place)}: R {title}", cells))
    header = ["best of N", "static", *(f"G {title}" for title in titles.values())]
    return table(header, rows)


def _percent(seeds: Seeds, place: Place, arm: str) -> str:
    by_seed = 100 * values(seeds, place, arm).mean(axis=1)
    each = ", ".join(f"{v:.1f}" for v in by_seed)
    return f"{by_seed.mean():.1f} ({each})"


def _at(place: Place) -> str:
    return f"{place[0]}, {place[1]}"


def _gap(found: np.ndarray) -> str:
    """Of differences [seeds, problems], in points."""
    row = pooled_row(found)
    mean, low, high = (100 * row[k] for k in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _gains(seeds: Seeds, places: Sequence[Place]) -> str:
    """What the game adds to static corruptions, in each cell."""
    titles = _titles(seeds)
    rows = []
    for place in places:
        for r, title in titles.items():
            static = values(seeds, place, f"{STATIC}_{r}")
            games = (values(seeds, place, f"aprm_{r}_{g}") for g in titles)
            cells = [_gap(game - static) for game in games]
            rows.append((f"{_at(place)}: R {title}", cells))
    header = ["game − static", *(f"G {title}" for title in titles.values())]
    return table(header, rows)


def _by_size(seeds: Seeds, places: Sequence[Place]) -> str:
    """What a larger player adds, in a mean over the sizes of the other."""
    widths, titles = _widths(seeds), _titles(seeds)
    lines = {
        "G, in the game": lambda w: [f"aprm_{r}_{w}" for r in widths],
        "R, in the game": lambda w: [f"aprm_{w}_{g}" for g in widths],
        "R, on static corruptions": lambda w: [f"{STATIC}_{w}"],
    }
    pairs = [*zip(widths[1:], widths, strict=False), (widths[-1], widths[0])]
    rows = []
    for place in places:
        for title, arms in lines.items():
            mean = {
                w: np.mean([values(seeds, place, arm) for arm in arms(w)], axis=0)
                for w in widths
            }
            cells = [_gap(mean[more] - mean[less]) for more, less in pairs]
            rows.append((f"{_at(place)}: {title}", cells))
    header = ["larger − smaller", *(f"{titles[a]} − {titles[b]}" for a, b in pairs)]
    return table(header, rows)


def _fool_rates(seeds: Seeds) -> str:
    """How often the Generator still fools its R when the game ends."""
    titles = _titles(seeds)
    rows = []
    for r, title in titles.items():
        cells = []
        for g in titles:
            rates = [100 * seed["fool_rate"][f"aprm_{r}_{g}"] for seed in seeds]
            each = ", ".join(f"{rate:.0f}" for rate in rates)
            cells.append(f"{np.mean(rates):.1f} ({each})")
        rows.append((f"R {title}", cells))
    header = ["fooled at the end, %", *(f"G {title}" for title in titles.values())]
    return table(header, rows)


def draw(seeds: Seeds, path: Path) -> None:
    """One panel a split, one line a size of R, at the largest N."""
    import matplotlib.pyplot as plt

    splits, n, titles = seeds[0]["splits"], seeds[0]["sizes"][-1], _titles(seeds)
    figure, panels = plt.subplots(1, len(splits), figsize=(9, 3.6), squeeze=False)
    for panel, split in zip(panels[0], splits, strict=True):
        for r, title in titles.items():
            arms = [f"{STATIC}_{r}", *(f"aprm_{r}_{g}" for g in titles)]
            found = [values(seeds, (split, n), arm).mean(axis=1) for arm in arms]
            curves = 100 * np.array(found)  # [arms, seeds]
            low, high = curves.min(axis=1), curves.max(axis=1)
            ticks = np.arange(len(arms))
            [line] = panel.plot(ticks, curves.mean(axis=1), "o-", label=f"R {title}")
            panel.fill_between(ticks, low, high, color=line.get_color(), alpha=0.1)
        panel.set_xticks(ticks, ["static", *(f"G {t}" for t in titles.values())])
        panel.set_title(split)
    panels[0][0].set_ylabel(f"% solved by best of {n}")
    panels[0][0].legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
