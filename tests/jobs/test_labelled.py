"""The cut of configs/prm800k.py: from labels to the report; scores of other PRMs."""

from __future__ import annotations

import json
from pathlib import Path

import command
import numpy as np
import pytest
import tiny_run

from aprm_jax.api import PRM
from aprm_jax.config import ConfigError, jobs, read_config_file, validate, with_fields
from aprm_jax.data.jsonl import DataError
from aprm_jax.evals.records import by_name
from aprm_jax.jobs import evaluate, prm_labels, sft, step_data, verifiers
from aprm_jax.jobs.checks import check_judged
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.jobs.start import check_labelled_files
from aprm_jax.models.io import load_model
from aprm_jax.training.metrics import read_metrics

FILE = command.REPOSITORY / "configs" / "prm800k.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    code, output = command.call(
        folder, f"--config={FILE}:runlocal", command.CACHE, "--workdir=run"
    )
    assert code == 0, output
    return folder / "run"


def test_the_run_trains_on_the_labels_and_measures_every_verifier(finished):
    rows = read_metrics(finished / "prm")
    assert len(rows) == 10 and not any(row["nonfinite"] for row in rows)
    assert {"prm/accuracy_correct", "prm/accuracy_incorrect"} <= rows[-1].keys()
    _, spec, _ = load_model(finished / "prm" / "model")
    assert (spec.head, spec.domain) == ("two_class", "labelled")
    numbers = json.loads((finished / "summary.json").read_text())
    for name in ("chance", "position", "likelihood", "prm"):
        steps = f"steps.phase1_test.{name}"
        assert numbers[f"{steps}.count"] == 4 * 24  # distinct rated steps
        assert numbers[f"{steps}.unscored"] == 0
        assert numbers[f"{steps}.incorrect_share"] == 0.5
        ends = [numbers.get(f"{steps}.auc.{end}") for end in ("low", "high")]
        if name == "position":  # by which the steps of every question rank alike
            assert ends == [None, None]
        else:
            assert ends[0] <= numbers[f"{steps}.auc"] <= ends[1]
        assert 0 <= numbers[f"{steps}.ece_calibrated"] <= 1
        for at in ("", "@0.5", "@platt", "@hindsight"):
            bench = f"first_error.gsm8k.{name}"
            assert 0 <= numbers[f"{bench}.f1{at}"] <= 1
            assert f"{bench}.threshold{at}" in numbers
    # Half of the steps at each index are wrong: the index says nothing.
    assert numbers["steps.phase1_test.position.auc"] == 0.5
    # The threshold is the dev questions', not the test's.
    key = "threshold"
    assert (
        numbers[f"first_error.gsm8k.prm.{key}"] == numbers[f"first_error.dev.prm.{key}"]
    )


def test_the_report_shows_the_sets_and_the_calibration(finished):
    page = (finished / "report.html").read_text()
    for text in ("phase1_test", "position of the step", "calibrated", "ECE", "gsm8k"):
        assert text in page
    assert 'id="solutions"' in page and "What is" in page
    assert "the label of the step" in page and "no answer" not in page


def _with(finished: Path, scores: Path, *more: str) -> Context:
    config = read_config_file(FILE, "runlocal")
    fields = {
        "evaluate.scores": (f"other={scores}",),
        "evaluate.sets": (*config.evaluate.sets, *more),
        "evaluate.prms": (),
    }
    return Context(validate(with_fields(config, fields)), finished, "again")


def test_scores_from_files_are_measured_beside_the_baselines(finished, tmp_path):
    sets = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (finished / "evaluate" / "sets").iterdir()
    }
    assert sets.keys() == {"dev", "phase1_test", "gsm8k"}
    bench = tmp_path / "bench.jsonl"
    rows = [
        {
            "idx": f"{kind}-{k}",
            "classification": kind,
            "modified_question": "What is 2 * 3 + 4?",
            "modified_process": ["2 * 3 = 6.", "So the answer is 10."],
            "error_steps": [1 + k % 2],
        }
        for kind in ("circular", "confidence")
        for k in range(4)
    ]
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = _with(finished, tmp_path, f"bench=prmbench:{bench}")
    # Another PRM that knows the labels, shuffled rows and all.
    for data in step_data.evaluation_sets(context):
        lines = [
            json.dumps(
                {"id": name, "scores": [0.9 if v != 0 else 0.3 for v in row.labels]}
            )
            for name, row in zip(data.ids, data.rows, strict=True)
        ]
        (tmp_path / f"{data.name}.jsonl").write_text("\n".join(lines[::-1]))
    step_data.check(context)
    summary = by_name(evaluate.evaluate(context, lambda _, compute: compute()))
    assert summary["steps.phase1_test.other.auc"] == 1.0
    assert summary["steps.phase1_test.other.threshold"] == 0.5  # no scores of dev
    assert summary["steps.phase1_test.other.accuracy"] == 1.0
    assert summary["steps.phase1_test.other.ece"] == pytest.approx((0.1 + 0.3) / 2)
    assert summary["first_error.gsm8k.other.f1"] == 1.0
    assert summary["category.bench.other.all.score"] == 1.0
    assert summary["category.bench.other.circular.count"] == 8
    assert summary["category.bench.chance.all.score"] < 1.0
    assert "steps.dev.other.auc" not in summary


AWKWARD = (
    "First,  two spaces.\n\nThen a line of its own:\n\\[ 2 * 3 = 6 \\]\n",
    " \tA tab, and a line break at the end.\r\n",
    "So the answer is   10.",
)


def test_training_evaluation_and_scoring_give_steps_the_same_ids(finished, tmp_path):
    question = "What is\n2 * 3  + 4?"
    rows = [
        {
            "problem": question,
            "steps": list(AWKWARD),
            "label": -1,
            "final_answer_correct": True,
        }
    ]
    bench, train = tmp_path / "bench.json", tmp_path / "train.jsonl"
    bench.write_text(json.dumps(rows))
    train.write_text(
        json.dumps({"prompt": question, "completions": AWKWARD, "labels": [1, 1, 0]})
    )
    fields = {
        "prm.data": (f"step_format:{train}",),
        "evaluate.sets": (f"bench=processbench:{bench}",),
    }
    config = with_fields(read_config_file(FILE, "runlocal"), fields)
    context = Context(config, finished, "again")
    prm = PRM.load(finished / "prm" / "model")
    expected = prm.builder.solution(question, AWKWARD).tokens.tolist()
    # The text comes back from the ids whole: nothing was cleaned on the way.
    assert AWKWARD[0] in prm.builder._backend.decode(expected)
    [trained], _ = prm_labels.labelled_rows(context)
    assert trained.tokens.tolist() == expected
    [data] = step_data.evaluation_sets(context)
    [given] = verifiers.set_scores(context, data)["prm"].probabilities()
    np.testing.assert_allclose(given, prm.score(question, AWKWARD), rtol=1e-4)
    cleaned = prm.score(question, [" ".join(step.split()) for step in AWKWARD])
    assert not np.allclose(given, cleaned, rtol=1e-4)


def test_scores_that_do_not_match_a_set_stop_before_anything_is_compiled(
    finished, tmp_path
):
    with pytest.raises(DataError, match=r"none of dev\.jsonl, phase1_test\.jsonl"):
        step_data.check(_with(finished, tmp_path))
    one = tmp_path / "gsm8k.jsonl"
    one.write_text('{"scores": [0.5, 0.5]}\n')
    with pytest.raises(DataError, match="23 of 24 solutions have no scores"):
        step_data.check(_with(finished, tmp_path))
    with pytest.raises(DataError, match="is a file, but there are 2 sets"):
        step_data.check(_with(finished, one))


def labelled(**fields):
    own = {"domain.name": "labelled", "domain.train": "prm800k:"}
    return tiny_run.config(own, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prm__neutral": "maybe"}, "prm.neutral must be one of correct"),
        ({"evaluate__neutral": "class"}, "evaluate.neutral must be one of"),
        ({"prm__neutral": "class"}, "prm.head='three_class'"),
        ({"prm__head": "three_class"}, "prm.neutral='class'"),
        (
            {
                "prm__head": "three_class",
                "prm__neutral": "class",
                "prm__eta": 0.1,
            },
            "cross-entropy alone",
        ),
        ({"evaluate__sets": ("prm800k:x",)}, "NAME=SOURCE"),
        ({"evaluate__sets": ("a/b=prm800k:x",)}, "NAME=SOURCE"),
        ({"evaluate__sets": ("a=prm800k:x", "a=prm800k:y")}, "'a' stands there twice"),
        ({"domain__name": "gsm8k", "evaluate__sets": ("a=b:c",)}, "domain.name"),
    ],
)
def test_fields_that_do_not_go_together_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        validate(labelled(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domain__train": "gone.jsonl"}, "domain.train: .*READER:SOURCE"),
        ({"domain__train": "prm800k:gone.jsonl"}, "domain.train: gone.jsonl: no such"),
        ({"prm__data": ("prm800k:gone.jsonl",)}, "prm.data: gone.jsonl: no such"),
        (
            {"evaluate__sets": ("a=prm800k:gone.jsonl",)},
            "evaluate.sets: gone.jsonl: no such",
        ),
        ({"evaluate__scores": ("a=gone",)}, "evaluate.scores: gone: no such"),
    ],
)
def test_files_that_are_not_there_are_named(fields, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        check_labelled_files(labelled(**fields))
    check_labelled_files(labelled(domain__train="prm800k:datasets:tasksource/PRM800K"))


def test_a_real_phase_1_gives_the_known_counts(shared_data):
    """Of the test half: 4,594 rated candidates, of 98 of its 101 questions."""
    from aprm_jax.data.readers import read_steps
    from aprm_jax.evals.step_sets import judged, step_set

    rows = read_steps(str(shared_data / "prm800k" / "phase1_test.jsonl.gz"), "prm800k")
    data = step_set("test", "prm800k", rows)
    assert len({row.problem_id for row in data.rows}) == 98
    found = judged(data.rows, [np.zeros(size) for size in data.sizes])
    ratings: dict[tuple, list[float]] = {}
    for row in rows:
        value = {-1: 0.0, 0: 1.0, 1: 1.0}[row.ratings[-1]]
        ratings.setdefault((row.question, row.steps), []).append(value)
    settled = [round(np.mean(v)) for v in ratings.values() if np.mean(v) != 0.5]
    assert len(found.labels) == len(settled) == 4594
    assert (found.labels == 0).sum() == settled.count(0) == 1694
    assert not np.isnan(found.scores).any()


@pytest.mark.parametrize(
    ("job", "fields"),
    [
        ("aprm", {}),
        ("teach", {}),
        ("attack", {}),
        ("sft", {"sft.task": "perturb"}),
        ("prm", {"prm.negatives": "static"}),
    ],
)
def test_labels_alone_are_no_oracle_of_new_steps(job, fields, tmp_path):
    """A game would go on with right steps alone, and R learn that all is right."""

    def asked(**more):
        config = tiny_run.small(fields | {"domain.name": "labelled"} | more)
        check_judged([(tiny_run.at(job, config, tmp_path), jobs()[job])])

    with pytest.raises(ConfigError, match=rf"job={job} needs .*domain\.oracle='text'"):
        asked()
    asked(**{"domain.oracle": "text"})
    asked(**{"domain.name": "gsm8k"})


def test_labels_are_enough_where_nobody_asks(tmp_path):
    for job, fields in (("sft", {}), ("prm", {"prm.negatives": "labels"})):
        config = tiny_run.small(fields | {"domain.name": "labelled"})
        check_judged([(tiny_run.at(job, config, tmp_path), jobs()[job])])


def test_a_generator_learns_what_people_call_wrong(tmp_path):
    """In the place of what they call right there; nothing is sampled."""
    rows = [
        {"instruction": f"Add {q} and 2.", "responses": [], "next_response": step}
        | {"rating": rating}
        for q in range(12)
        for step, rating in ((f"{q} + 2 = {q + 2}", 1), ("No.", -1), ("no " * 20, -1))
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"domain.name": "labelled", "domain.train": f"prm800k:{path}"}
    fields |= {"domain.oracle": "text", "domain.dev_count": 2, "sft.task": "perturb"}
    fields |= {"domain.vocab_size": 270, "builder.max_new_tokens": 16}

    def pool(**more):
        context = tiny_run.at("sft", tiny_run.small(fields | more), tmp_path / "run")
        return sft.wrong_samples(context.of("generator"), None)

    found = pool()
    assert len(found) == 10  # of ten questions; the long one has no room in a reply
    for point, text in found:
        assert text == "No." and point.prefix == () and " + 2 = " in point.step
    assert pool(**{"sft.solver_share": 0.0}) == []
    with pytest.raises(JobError, match=r"builder\.max_new_tokens"):
        pool(**{"builder.max_new_tokens": 2})
