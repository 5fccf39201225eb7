"""A realistic report: the shapes and sizes that a pipeline's workdir gives."""

import math
from typing import Literal

import numpy as np
import pytest

from aprm_jax.report import contents

KINDS = (
    "illegal contraction",
    "wrong product",
    "wrong sum",
    "wrong difference",
    "dropped number",
    "malformed",
)
SPLITS = ("in distribution", "longer", "larger numbers", "worded")


def _main_table() -> contents.Table:
    rows = [
        ("No training", "greedy", "", (0.718, 0.487, 0.402, 0.331)),
        ("No training", "majority vote of 8", "", (0.684, 0.451, 0.391, 0.318)),
        (
            "No training",
            "own likelihood",
            "best of 8, min",
            (0.741, 0.532, 0.447, 0.352),
        ),
        ("PRM, best of 8, min", "static corruptions", "", (0.752, 0.511, 0.449, 0.366)),
        ("PRM, best of 8, min", "Monte-Carlo labels", "", (0.779, 0.537, 0.463, 0.371)),
        ("PRM, best of 8, min", "frozen Generator", "", (0.793, 0.552, 0.486, 0.379)),
        ("PRM, best of 8, min", "APRM", "300 rounds", (0.807, 0.571, 0.481, 0.394)),
        (
            "Upper bound",
            "oracle labels",
            "solver samples",
            (0.84, 0.655, 0.55, 0.43),
        ),
    ]
    return contents.Table(
        title="Share of problems solved, 3 seeds of 600 problems a split, with 95 % "
        "intervals over seeds and problems.",
        corner="Choosing among samples by",
        columns=[contents.Column(name) for name in SPLITS],
        rows=[
            contents.Row(
                name,
                [contents.Cell(v, v - 0.021, v + 0.02) for v in values],
                group=group,
                note=note,
                own=name == "APRM",
                reference=group == "Upper bound",
            )
            for group, name, note, values in rows
        ],
        note="Best-of-8 is the exact expectation over subsets of 32 samples.",
    )


def _difference_table() -> contents.Table:
    names = ("static corruptions", "Monte-Carlo labels", "frozen Generator")
    means = ((0.055, 0.06), (0.028, 0.034), (0.014, 0.019))
    return contents.Table(
        title="APRM minus …, paired, in points",
        columns=[contents.Column(s, "points", "") for s in SPLITS[:2]]
        + [contents.Column("fool rate of a fresh attacker", "percent", "min")],
        rows=[
            contents.Row(
                name,
                [contents.Cell(v, v - 0.02, v + 0.021) for v in pair]
                + [None if "Monte" in name else 0.31],
            )
            for name, pair in zip(names, means, strict=True)
        ],
    )


def _charts(rng: np.random.Generator, count: int) -> list[contents.Chart]:
    x = np.arange(1, count + 1)
    progress = x / count

    def noisy(values, scale=0.04, low=0.0, high=1.0):
        return np.clip(values + rng.normal(0, scale, count), low, high)

    def chart(title, group, style: Literal["percent", "number"] = "percent", **series):
        lines = [contents.Series(k.replace("_", " "), x, y) for k, y in series.items()]
        return contents.Chart(title, lines, style=style, group=group)

    clean = noisy(0.97 - 0.1 * np.exp(-6 * progress), 0.015)
    clean[40:60] = math.nan
    return [
        chart(
            "What became of perturbations",
            "Game",
            fooled=noisy(0.1 + 0.15 * progress * np.exp(-1.5 * progress)),
            caught=noisy(0.55 + 0.1 * progress),
            still_correct=noisy(0.3 * np.exp(-3 * progress) + 0.03),
            undecidable=noisy(0.02 + 0 * x, 0.01),
        ),
        chart(
            "Accuracy of R",
            "Game",
            clean=clean,
            fresh=noisy(0.72 + 0.1 * progress),
            replayed=noisy(0.85 + 0.08 * progress, 0.03),
            static=noisy(0.95 + 0 * x, 0.02),
        ),
        chart(
            "Entropy, nats a token",
            "Game",
            "number",
            G=noisy(0.64 - 0.2 * progress),
            R=noisy(0.2 + 0 * x, 0.02),
        ),
        chart(
            "KL to the reference, nats",
            "Game",
            "number",
            G=noisy(0.9 * progress, 0.03, high=9),
            R=noisy(0.3 * progress, 0.02),
        ),
        chart(
            "Reward of a step",
            "Game",
            "number",
            G=noisy(-0.3 + 0.3 * progress, 0.08, -1),
            R=noisy(0.7 + 0.1 * progress, 0.05),
        ),
        chart(
            "Solver: loss",
            "Before the game",
            "number",
            loss=noisy(2.2 * np.exp(-5 * progress) + 0.35, 0.03, high=9),
        ),
        contents.Chart(
            "Solver: accuracy on dev",
            [
                contents.Series(
                    "greedy",
                    [500, 1000, 1500, 2000, 2500],
                    [0.2, 0.44, 0.61, 0.69, 0.72],
                    [0.17, 0.4, 0.57, 0.65, 0.69],
                    [0.23, 0.48, 0.65, 0.73, 0.75],
                )
            ],
            x_label="update",
            group="Before the game",
        ),
    ]


def _progression(rng: np.random.Generator, count: int) -> contents.Progression:
    progress = np.linspace(0, 1, count)
    weights = np.stack(
        [
            0.05 + 0.5 * progress,
            0.3 * np.exp(-2 * progress) + 0.1,
            0.35 * np.exp(-3 * progress) + 0.1,
            0.12 + 0 * progress,
            0.2 * np.exp(-4 * progress) + 0.02,
            0.06 * np.exp(-5 * progress),
        ]
    )
    drawn = np.stack([rng.multinomial(48, p) for p in (weights / weights.sum(0)).T], 1)
    accuracy = np.clip(
        np.linspace(0.55, 0.95, 6)[:, None]
        + 0.2 * progress
        + rng.normal(0, 0.06, (6, count)),
        0,
        1,
    )
    accuracy[drawn == 0] = math.nan
    return contents.Progression(
        np.arange(1, count + 1),
        dict(zip(KINDS, drawn / 48, strict=True)),
        dict(zip(KINDS, accuracy, strict=True)),
    )


def _perturbations() -> list[contents.Perturbation]:
    question = "( 3 + 4 ) * 2 - 5 + 8"
    return [
        contents.Perturbation(
            iteration=10 * k + 1,
            question=question,
            previous="7 * 2 - 5 + 8",
            original="4 - 5 + 8",
            perturbed=("4 - 3 + 8", "7 * 7 + 8", "4 - 5 + 8 + 8", "7 * 2 - 3")[k % 4],
            kind=(*KINDS[:4], "copied", "unreadable")[k % 6],
            score=(0.02, 0.31, 0.74, 0.97)[(k * 7) % 4],
            incorrect=(True, True, True, True, False, None)[k % 6],
        )
        for k in range(30)
    ]


def _solutions() -> list[contents.Solution]:
    texts = ("7 * 2 - 5 + 8", "4 - 5 + 8", "9 + 8", "7")
    rows = []
    for k in range(8):
        broken = k % 3 == 1
        steps = [
            contents.ScoredStep(
                t,
                (0.99, 0.93, 0.55, 0.86)[j] if not (broken and j == 2) else 0.08,
                correct=not (broken and j >= 2),
                kind="illegal contraction" if broken and j == 2 else "",
            )
            for j, t in enumerate(texts)
        ]
        rows.append(
            contents.Solution(
                "( 3 + 4 ) * 2 - 5 + 8",
                steps,
                "7" if k != 4 else None,
                "1" if broken or k == 4 else "7",
                not broken and k != 4,
                split=SPLITS[k % 4],
                method="APRM",
            )
        )
    return rows


@pytest.fixture(scope="session")
def report_data() -> contents.ReportData:
    return fake_report_data()


def fake_report_data(count: int = 300) -> contents.ReportData:
    """Every section filled."""
    rng = np.random.default_rng(0)
    return contents.ReportData(
        title="APRM on embedded arithmetic",
        subtitle="configs/compare.py",
        facts=[
            ("Seeds", "3"),
            ("Iterations", str(count)),
            ("Device", "2 CPU cores"),
            ("Wall time", "9 min 12 s"),
            ("Parameters", "0.45 M"),
        ],
        main_table=_main_table(),
        tables=[_difference_table()],
        charts=_charts(rng, count),
        progression=_progression(rng, count),
        perturbations=_perturbations(),
        solutions=_solutions(),
        timings=[
            contents.Timing("sft", {"compile": 14.2, "update": 184.0, "data": 3.1}),
            contents.Timing(
                "prm static", {"compile": 6.1, "update": 62.0, "data": 5.2}
            ),
            contents.Timing(
                "aprm",
                {
                    "compile": 21.0,
                    "sample": 74.0,
                    "verify": 9.0,
                    "score": 18.0,
                    "update": 98.0,
                },
            ),
            contents.Timing("evaluate", {"sample": 45.0, "score": 11.0}),
        ],
        summary={
            f"evaluate.{s.replace(' ', '_')}.{m}.best_of_8": rng.uniform()
            for s in SPLITS
            for m in ("aprm", "static", "frozen", "likelihood")
        },
        config="seed: 0\ngame:\n  iterations: 300\n  prm_objective: expected\n",
    )
