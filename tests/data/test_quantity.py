"""Units of answers: what the question says, and which answers are right."""

from __future__ import annotations

import decimal
import json

import pytest

from aprm_jax.data.jsonl import RowError
from aprm_jax.data.readers import read_problems, sources
from aprm_jax.data.readers.quantity import in_unit, with_unit
from aprm_jax.oracle.answers import grade
from aprm_jax.tasks.questions import QuestionsDomain

SAID = " The unit of the answer is "


@pytest.mark.parametrize(
    ("unit", "said", "answer"),
    [
        ("", "", "3"),
        (" ", "", "3"),
        (
            "$10^{-19} \\mathrm{~J}$",
            "$\\mathrm{~J}$",
            "3 \\times 10^{-19} \\mathrm{~J}",
        ),
        (
            "$\\mathrm{10^7} \\mathrm{~km}$",
            "$\\mathrm{~km}$",
            "3 \\times 10^{7} \\mathrm{~km}",
        ),
        ("$\\times 10 ^ {-6}m/s^2$", "$m/s^2$", "3 \\times 10^{-6} \\mathrm{m/s^2}"),
        (" 10^{-5} \\mathrm{~m}", "$\\mathrm{~m}$", "3 \\times 10^{-5} \\mathrm{~m}"),
        ("$10^{16}$ photons", "photons", "3 \\times 10^{16} \\mathrm{photons}"),
        ("$10^{42}$", "", "3 \\times 10^{42}"),
        ("$10^-3$", "", "3 \\times 10^{-3}"),
        ("$m/s^2$", "$m/s^2$", "3 \\mathrm{m/s^2}"),
        ("${ }^{\\circ}$", "$^\\circ$", "3 ^\\circ"),
        (" %", "%", "3 \\text{ in percent}"),
        (" $\\%$", "$\\%$", "3 \\text{ in percent}"),
        ("$", "$", "3 \\$"),
        ("$e$", "$e$", "3 \\text{ elementary charges}"),
    ],
)
def test_the_power_of_ten_is_the_number_s_and_the_unit_is_said(unit, said, answer):
    assert with_unit("Q?", unit) == (f"Q?{SAID}{said}." if said else "Q?")
    assert in_unit("3", unit) == answer


def _scibench(folder):
    """(raw row, problem) of every row of the real set that has a unit."""
    found = read_problems(str(folder / "scibench"), "scibench")
    raw = [
        row
        for path in sorted((folder / "scibench").glob("*.json"))
        for row in json.loads(path.read_text())
    ]
    assert len(raw) == len(found) and not found.num_bad
    pairs = list(zip(raw, found, strict=True))
    return [(row, problem) for row, problem in pairs if row["unit"].strip()]


def test_all_powers_of_ten_of_the_real_set_count(shared_data):
    scaled = [p for p in _scibench(shared_data) if "10" in p[0]["unit"]]
    assert len(scaled) == 109
    for row, problem in scaled:
        number = row["answer_number"].strip()
        power = problem.answer.partition("10^{")[2].partition("}")[0]
        unit = problem.question.partition(SAID)[2].removesuffix(".")
        whole = decimal.Decimal(number) * decimal.Decimal(10) ** int(power)
        assert f"10^{{{power}}}" in row["unit"].replace(" ", "").replace(
            f"10^{power}", f"10^{{{power}}}"
        )
        for right in (
            problem.answer,
            f"{number}e{power}",
            f"${number} \\times 10^{{{power}}}$ {unit}",
            f"{number} × 10^{power}",
            f"So it is $\\boxed{{{number}\\times10^{{{power}}}}}$.",
            f"{whole:f}",
            f"{whole:f} {unit}",
            f"{number} {' '.join(row['unit'].split())}",
        ):
            assert grade(right, problem.answer), (right, problem.answer)
        for wrong in (number, f"{number} {unit}", f"{number}e{int(power) + 1}"):
            assert not grade(wrong, problem.answer), (wrong, problem.answer)


def test_every_other_unit_of_the_real_set_may_be_left_out_or_said(shared_data):
    rows = {p.unit: (r, p) for r, p in _scibench(shared_data) if "10" not in p.unit}
    assert len(rows) == 173
    for row, problem in rows.values():
        number = row["answer_number"].strip()
        assert SAID in problem.question
        unit = problem.question.partition(SAID)[2].removesuffix(".")
        thousand = decimal.Decimal(number.replace(",", "")) * 1000
        for right in (number, problem.answer, f"{number} {unit}", f"${number}$"):
            assert grade(right, problem.answer), (right, problem.answer)
        assert not thousand or not grade(f"{thousand:f}", problem.answer)


def _olympiad(**changes) -> dict:
    row = {"id": 7, "question": "Q?", "final_answer": ["$4.2$"], "answer_type": "N"}
    return row | changes


def test_a_tolerance_and_a_unit_of_the_data_reach_the_grader(tmp_path):
    rows = [_olympiad(question=f"Q{k}?", error="1e-1", unit="km") for k in range(9)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    domain = QuestionsDomain(train=f"olympiadbench:{path}")
    problem = domain.train(0)
    assert problem.question.endswith(f"?{SAID}km.")
    assert problem.steps == ("#### 4.2 \\mathrm{km}",)
    for right in ("4.29", "4.11 km", "4200 m", domain.answer(problem.steps)):
        assert domain.same_answer(right, problem.answer)
    for wrong in ("4.4", "4.29 m", "4200"):
        assert not domain.same_answer(wrong, problem.answer)


def test_olympiadbench_errors_are_numbers():
    def parsed(**changes):
        return sources()["olympiadbench"].parse(_olympiad(**changes))[0]

    assert parsed(error="1e-1, 1e-2").tolerance == "0.01"
    assert parsed(error=0.5).tolerance == "0.5"
    assert parsed(error=None).tolerance == parsed(error="").tolerance == ""
    for bad in ("some", "-1", "nan"):
        with pytest.raises(RowError, match="'error' must be numbers of at least 0"):
            parsed(error=bad)
    # Only a plain quantity takes the unit.
    several = parsed(final_answer=["$x=90$,$y=90$"], unit="km")
    assert several.answer == "$x=90$,$y=90$" and several.question.endswith("is km.")
