"""A round of the game on word problems without annotations, with the text oracle."""

from __future__ import annotations

import functools
import json
import os

import jax
import numpy as np
import pytest
import tiny
import tiny_game
import tiny_run

from aprm_jax.config import validate
from aprm_jax.data.steps import StepBuilder
from aprm_jax.game.rounds import Rounds
from aprm_jax.jobs import domains
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.oracle.pool import PoolConfig
from aprm_jax.oracle.steps.text import KINDS, TextOracle
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.training.metrics import to_scalar
from aprm_jax.training.timing import PhaseTimer

REPLIES = (
    "So she has 3+7 = 10 apples.",
    "She has 3+7 = 11 apples.",
    "She has 3*7 = 21 apples.",
    # What exact arithmetic leaves to the pool:
    r"She has 3+7 = 10 apples, $\sqrt{12} = 2\sqrt{3}$.",
    r"She has 3+7 = 10 apples, $\sqrt{12} = 3\sqrt{2}$.",
    "She is glad.",
)


def _row(k: int) -> str:
    row = {
        "question": f"Ann has 3 apples and buys 7 more on day {k}. How many has she?",
        "answer": "She has 3+7 = <<3+7=10>>10 apples.\n#### 10",
    }
    return json.dumps(row) + "\n"


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for name, rows in (("train", range(40)), ("test", range(40, 50))):
        (folder / f"{name}.jsonl").write_text("".join(map(_row, rows)))
    fields = {
        "name": "gsm8k",
        "train": str(folder / "train.jsonl"),
        "test": str(folder / "test.jsonl"),
        "dev_count": 10,
        "vocab_size": 300,
        "strip_annotations": True,
        "oracle": "text",
        "oracle_workers": 1,
    }
    named = {f"domain.{field}": value for field, value in fields.items()}
    config = validate(tiny_run.config(named))
    with pytest.MonkeyPatch.context() as patch:  # a busy machine may take its time
        patient = functools.partial(PoolConfig, deadline_s=60.0)
        patch.setattr(domains, "PoolConfig", patient)
        return domains.open_domain(config, folder)


def test_a_round_with_the_text_oracle(domain, monkeypatch):
    assert isinstance(domain.oracle, TextOracle)
    assert domain.kinds == KINDS
    builder = StepBuilder(domain.tokenizer, 1, (160,))
    decoder = tiny.decoder(len(domain.tokenizer))
    sampler = Sampler(
        decoder,
        stop_ids=builder.replies.stop_ids,
        pad_id=builder.pad_id,
        prompt_buckets=builder.buckets,
        max_new_tokens=64,
        positions=builder.positions,
    )
    replies = [(*builder.encode(text), builder.step_id) for text in REPLIES]

    def sample(params, prompts, key, *, stored):
        del params, key
        n, width = len(prompts), sampler.max_new_tokens
        out = Samples(
            tokens=np.full((n, width), builder.pad_id, np.int32),
            logprobs=np.zeros((n, width), np.float32),
            lengths=np.array(
                [len(replies[i % len(replies)]) for i in range(n)], np.int32
            ),
            stopped=np.ones(n, bool),
        )
        for i in range(n):
            reply = replies[i % len(replies)]
            out.tokens[i, : len(reply)] = reply
        stored(out, range(n))
        return out

    monkeypatch.setattr(sampler, "sample", sample)
    backbone = tiny.backbone(decoder)
    value_head = heads.init_value_head(jax.random.key(1), decoder.d_model)
    asked = []
    submit = domain.oracle.submit

    def record(question, prefix, original, candidate):
        future = submit(question, prefix, original, candidate)
        asked.append((original, candidate, future))
        return future

    monkeypatch.setattr(domain.oracle, "submit", record)
    rounds = Rounds(
        tiny_game.arena(
            builder,
            problems=domain,
            corruptor=domain,
            oracle=domain.oracle,
            kinds=domain.kinds,
            decoder=Decoder(decoder),
            sampler=sampler,
        ),
        tiny_game.game_config(groups=4, group_size=len(REPLIES)),
        generator={"backbone": backbone, "value_head": value_head},
        prm=heads.init_prm(jax.random.key(2), backbone, decoder.d_model, "token"),
        head="token",
        seed=0,
    )
    output = rounds.step_fn(rounds.state, 0, PhaseTimer())
    metrics = {name: to_scalar(value) for name, value in output.metrics.items()}
    assert metrics["nonfinite"] == 0.0
    judged = {}
    for original, candidate, future in asked:
        if original.startswith("She"):
            verdict = future.result(timeout=0)
            judged[candidate] = verdict.label.name.lower(), verdict.kind
    assert judged[REPLIES[0]] == ("correct", "correct")
    assert judged[REPLIES[1]] == ("incorrect", "wrong_result")
    assert judged[REPLIES[2]] == ("incorrect", "different_conclusion")
    assert judged[REPLIES[4]] == ("incorrect", "wrong_result")
    assert judged[REPLIES[5]][0] == "undecidable"


def test_the_processes_of_the_oracle_end_with_its_domain(domain):
    oracle = domain.oracle
    assert oracle.judge("", (), None, r"$\sqrt{12} = 3\sqrt{2}$").label == 0
    pool = oracle._pool
    assert pool.pids
    pids = pool.pids
    pool.close()
    assert not pool.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
