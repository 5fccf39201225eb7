"""job=attack on tiny models: any PRM, a curve, a score, a page; paid once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_game
import tiny_run
from tiny_game import DOMAIN
from tiny_server import Reply, of_prm, scored, serving

import aprm_jax
from aprm_jax.config import ConfigError, jobs, with_fields
from aprm_jax.evals.records import Results, read_results
from aprm_jax.jobs import attack, pipeline
from aprm_jax.jobs.checks import check_judged
from aprm_jax.jobs.row_files import run_verifier
from aprm_jax.servers.client import EndpointError
from aprm_jax.testing.tiny import write_tiny

SMALL = {
    **tiny_run.SMALL_GAME,
    "builder.max_new_tokens": 8,
    "game.groups": 4,
    "game.group_size": 4,
    "game.generator_rows": 8,
    "game.prm_replay": 0,
    "game.warmup": 1,
    "attack.verifiers": ("prm",),
    "attack.oracle_calls": 24,
    "attack.points": 2,
    "attack.situations": 4,
    "attack.bootstrap": 50,
}


def _config(**fields):
    return tiny_run.small(SMALL | {f"attack.{k}": v for k, v in fields.items()})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A run with a Generator and a PRM, and a published one beside them."""
    folder = tmp_path_factory.mktemp("run")
    kinds = {"generator": tiny_game.generator(), "prm": tiny_game.prm()}
    for kind, tree in kinds.items():
        tiny_game.save(folder / kind / "model", kind, tree)
    write_tiny(folder / "published", "qwen2", ["2 + 3 = 5"], layout="qwen2_prm")
    return folder


@pytest.fixture(scope="module")
def attacked(root) -> Path:
    names = ("prm", str(root / "published"))
    context = tiny_run.at("attack", _config(verifiers=names), root)
    attack.check(context, {})
    attack.run(context)
    return root / "attack"


def test_ours_and_a_published_prm_have_a_curve_and_a_score(root, attacked):
    records, _ = read_results(attacked / "results.json", "")
    results = Results(records)
    parts = [json.loads(p.read_text()) for p in sorted((attacked / "parts").iterdir())]
    assert len(parts) == 2
    for name in ("prm", str(root / "published")):
        score = results.find("robustness", "", name, "robustness_score")
        assert score is not None
        assert score.value != score.value or 0 <= score.value <= 1
        calls = results.value("robustness", "", name, "oracle_calls")
        start = results.find("robustness", "", name, "fool_rate@0")
        end = results.find("robustness", "", name, f"fool_rate@{calls:.0f}")
        assert start is not None and end is not None
        rates = [
            r.value for r in records if r.verifier == name and "fool_rate@" in r.metric
        ]
        highest = results.value("robustness", "", name, "fool_rate")
        np.testing.assert_equal(highest, np.nanmax(rates))
    assert set(results.parts("robustness", "")) <= {*DOMAIN.kinds, "other"}
    page = (attacked / "attack.html").read_text()
    assert "fooled by the strongest" in page and "oracle calls" in page


def test_what_is_attacked_already_is_not_attacked_again(root, attacked, monkeypatch):
    names = ("prm", str(root / "published"))
    before = (attacked / "results.json").read_bytes()
    asked = []
    monkeypatch.setattr(
        attack.robustness, "besiege", lambda *a, **k: asked.append(k) or 1 / 0
    )
    context = tiny_run.at("attack", _config(verifiers=names), root)
    attack.run(context)
    assert (attacked / "results.json").read_bytes() == before
    parts = [json.loads(p.read_text()) for p in (attacked / "parts").iterdir()]
    calls = sum(part["calls"][-1] for part in parts)
    assert context.spent.oracle_calls == calls and not asked
    # With another budget it is another attack.
    with pytest.raises(ZeroDivisionError):
        attack.run(
            tiny_run.at(
                "attack", _config(verifiers=names, oracle_calls=30), root, "attack"
            )
        )
    assert [k["budget"] for k in asked] == [30]


def test_a_finished_run_needs_no_stage_for_it():
    config = with_fields(_config(), {"job": "attack"})
    assert pipeline.chosen_stages(config) == [("attack", "attack")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"verifiers": ()}, "is empty"),
        ({"verifiers": ("oracle",)}, "'oracle' is no PRM"),
        ({"verifiers": ("prm", "prm")}, "stands there twice"),
        ({"points": 30}, "more than"),
        ({"oracle_calls": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_attack_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        _config(**fields)


def test_a_verifier_or_a_domain_that_cannot_be_is_named_first(root):
    context = tiny_run.at("attack", _config(verifiers=("prn",)), root)
    with pytest.raises(ConfigError, match=r"attack\.verifiers: 'prn' .*'prm'"):
        attack.check(context, {})
    labelled = with_fields(_config(), {"domain.name": "labelled"})
    context = tiny_run.at("attack", labelled, root)
    with pytest.raises(ConfigError, match="needs an oracle"):
        check_judged([(context, jobs()["attack"])])


GONE: Reply = (404, {}, b"gone")


def _metrics(folder: Path) -> dict[tuple[str, str], float]:
    records, _ = read_results(folder / "results.json", "")
    return {(r.metric, r.part): r.value for r in records}


def test_a_served_prm_is_attacked_as_the_prm_in_this_process(root):
    """The same attacker and verdicts, the same scores; a failure costs nothing."""
    prm = aprm_jax.PRM.load(root / "prm")
    own = tiny_run.at("attack", _config(), root, "own")
    attack.run(own)
    with serving(of_prm(prm)) as server:
        url = server.url
        config = _config(verifiers=(url,))
        context = tiny_run.at("attack", config, root, "served")
        attack.check(context, {})
        answer = server.answer
        server.answer = lambda n, body: answer(n, body) if n < 20 else GONE
        with pytest.raises(EndpointError, match=f"{url}.*404.*the others alone"):
            attack.run(context)
        kept, before = server.bodies[:20], len(server.bodies)
        server.answer = answer
        attack.run(tiny_run.at("attack", config, root, "served"))
        assert not [body for body in server.bodies[before:] if body in kept]
        before = len(server.bodies)
        attack.run(tiny_run.at("attack", config, root, "served"))  # all of it is there
        assert len(server.bodies) == before
    mine, theirs = _metrics(root / "served"), _metrics(root / "own")
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(mine[name], value, atol=1e-6, err_msg=str(name))
    assert ("fool_rate", "") in mine
    assert url in (root / "served" / "attack.html").read_text()


def test_a_step_that_a_server_has_not_read_fools_nobody(root):
    def answer(number: int, body: dict[str, Any]) -> Reply:
        del number
        return scored(*(None for _ in body["steps"]))

    with serving(answer) as server:
        attack.run(
            tiny_run.at("attack", _config(verifiers=(server.url,)), root, "unread")
        )
    found = _metrics(root / "unread")
    assert found["fool_rate", ""] == found["accepted_rate", ""] == 0
    assert found["diverged", ""] == found["robustness_score", ""] == 0


def test_an_attack_on_other_problems_or_by_another_prompt_is_another(tmp_path):
    for name in ("prm", "first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}\n")
    fields = {
        "domain.name": "gsm8k",
        "domain.train": str(tmp_path / "a.jsonl"),
        "attack.generator": "backbone",
        "generator.backbone": str(tmp_path / "first"),
    }
    config = with_fields(_config(), fields)

    def made_by(**changed):
        context = tiny_run.at("attack", with_fields(config, changed), tmp_path)
        return attack._made_by(context, str(tmp_path / "prm"))

    before = made_by()
    assert made_by(log_every=3) == made_by(**{"domain.processbench": "c"}) == before
    others = {
        "domain.train": str(tmp_path / "b.jsonl"),
        "domain.strip_annotations": True,
        "domain.dev_count": 7,
        "prompt.generator": "{question} {prefix} {step} !",
        "generator.backbone": str(tmp_path / "second"),
    }
    made = [made_by(**{name: value}) for name, value in others.items()]
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    made.append(made_by())  # of one name, but with other problems in it
    assert len({before, *made}) == 1 + len(others) + 1


def test_a_published_prm_is_computed_in_what_the_run_computes_in(root, tmp_path):
    language_model = write_tiny(tmp_path / "lm", "qwen2", ["2 + 3 = 5"])
    own = {"generator.backbone": str(language_model), "lora.rank": 2}
    own |= {"model.dtype": "bfloat16", "model.param_dtype": "bfloat16"}
    context = tiny_run.at("attack", tiny_run.small(SMALL | own), root)
    arena, params, _ = attack._attacked(context, str(root / "published"))
    assert arena.prm is not None and arena.prm.decoder.config.dtype == "bfloat16"
    assert {str(x.dtype) for x in jax.tree.leaves(params["backbone"])} == {"bfloat16"}
    verifier = run_verifier(context, [str(root / "published")], "mean")
    kinds = {str(x.dtype) for x in jax.tree.leaves(verifier.params["backbone"])}
    assert kinds == {"bfloat16"}
    # In another precision it is another attack, and in float32 the one that it was.
    parts = [attack._made_by(c, str(root / "published")) for c in _precisions(root)]
    assert len(set(parts)) == 2


def _precisions(root: Path):
    for dtype in ("float32", "bfloat16"):
        c = tiny_run.small(SMALL | {"model.dtype": dtype})
        yield tiny_run.at("attack", c, root)
