"""A Generator is taught until it writes wrong steps; without that no game begins."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import command
import jax
import numpy as np
import pytest
import tiny_run

from aprm_jax.config import for_stage, read_config_file, with_fields
from aprm_jax.data.replies import Reply
from aprm_jax.game import rollouts
from aprm_jax.jobs import sft, teach
from aprm_jax.jobs.context import Context, JobError
from aprm_jax.models.io import load_model
from aprm_jax.oracle.verdict import Label, Verdict

FIELDS = {
    "teach.prm_from": "",
    "teach.updates": 30,
    "teach.rounds": 1,
    "teach.situations": 6,
    "teach.kept_share": 0.25,
    "sft.learning_rate": 1e-2,
    "sft.solver_share": 0.5,
    "sft.pool": 4,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("teach")


def _context(root: Path, **fields: object) -> Context:
    path = command.REPOSITORY / "configs" / "smollm2_135m.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(root))  # where the models go
        config = for_stage(read_config_file(path, "runlocal"), "generator")
    return tiny_run.at("teach", with_fields(config, FIELDS | fields), root, "generator")


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rounds_go_on_until_enough_is_wrong_and_no_game_begins_before(
    root, monkeypatch
):
    never = {"teach.one_step": 1.0, "teach.wrong": 1.0}
    context = _context(root, **never)
    assert context.config.domain.oracle == "text"
    with pytest.raises(JobError, match=r"after 1 rounds .* needs 100% and 100%"):
        teach.run(context)
    folder = root / "generator"
    assert not (folder / "model").exists()
    rounds = _lines(folder / "rounds" / "figures.jsonl")
    assert [r["round"] for r in rounds] == [0, 1]
    assert all(0 < r["wrong"] <= r["one_step"] <= 1 for r in rounds)
    assert len(_lines(folder / "metrics.jsonl")) == 30
    assert len(_lines(folder / "rounds" / "1" / "metrics.jsonl")) == 4
    domain = context.of("generator").domain
    for number, found in enumerate(rounds):
        kept = json.loads((folder / "rounds" / f"kept_{number}.json").read_text())
        assert len(kept["replies"]) == found["kept"] > 0
        for question, prefix, step, reply in kept["replies"]:
            verdict = domain.oracle.judge(question, tuple(prefix), step, reply)
            assert verdict.label == Label.INCORRECT

    def drawn(*_: object) -> None:
        raise AssertionError("sampled again")

    # The same command with what was reached as the aim: nothing is done twice.
    monkeypatch.setattr(rollouts, "perturb", drawn)
    last = rounds[-1]
    aims = {f"teach.{name}": last[name] for name in ("one_step", "wrong")}
    first_too = all(rounds[0][k] >= last[k] for k in ("one_step", "wrong"))
    again = _context(root, **aims)
    figures = teach.run(again)
    # What was spent before the command ended counts, though nothing is drawn again.
    asked = [line["teach/oracle_calls"] for line in _lines(folder / "metrics.jsonl")]
    assert again.spent.oracle_calls > sum(asked) > 0
    assert again.spent.sampled_tokens >= 6 * 4
    assert figures["wrong"] == rounds[0 if first_too else 1]["wrong"]
    params, spec, _ = load_model(folder / "model")
    assert spec.kind == "generator" and "value_head" in params
    player = context.of("generator")
    before, _ = player.load("backbone", "game.generator_from", "generator")
    changed = {
        "/".join(str(k.key) for k in path): not np.array_equal(a, b)
        for (path, a), b in zip(
            jax.tree.leaves_with_path(before["backbone"]),
            jax.tree.leaves(params["backbone"]),
            strict=True,
        )
    }
    linear = {n for n in changed if n.startswith("layers/") and "kernel" in n}
    assert {name for name, new in changed.items() if new} == linear
    batch, *_ = teach._batch(player, lambda size, rng: [], [], "unseen", 0)
    start, end = (
        float(sft.language_loss(p, batch, player.decoder)[0].mean())
        for p in (before, params)
    )
    assert end < start


def test_a_reply_is_kept_where_r_believes_it(root):
    def kept(least: float) -> int:
        fields = {"teach.prm_from": "backbone", "teach.believed": least}
        context = _context(root, **fields).of("generator")
        points = rollouts.situations(context.domain, range(4), 0)
        wrong = [
            rollouts.Perturbation(
                rollouts.Prompt.of(context.writer, point),
                i,
                Reply((1,), np.zeros(1, np.float32), True, f"2+3={i + 7}."),
                1,
                Verdict(Label.INCORRECT, "sum", ""),
            )
            for i, point in enumerate(points)
        ]
        return len(teach._believed(context, wrong))

    assert kept(0.0) == 4 and kept(1.0) == 0
