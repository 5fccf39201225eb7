"""Rollouts by a server that others' code draws on: transformers' and PEFT's models.

It answers as vLLM's documentation says; vLLM itself needs an accelerator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_game
import tiny_run
from tiny_server import Reply, Server, serving

from aprm_jax.config import ConfigError, jobs
from aprm_jax.hf.export import ExportError, export_model
from aprm_jax.jobs import rl, rl_rollouts
from aprm_jax.models.io import load_model
from aprm_jax.rl.task import Task
from aprm_jax.servers.client import EndpointError
from aprm_jax.solvers.layouts import IdLayout
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.training.metrics import read_metrics

torch = pytest.importorskip("torch", reason="the server's models are torch's")
peft = pytest.importorskip("peft", reason="the server loads adapters with it")
transformers = pytest.importorskip("transformers")

# PEFT's own, of what transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")

TEXTS = ["Ann has 3 boxes of 4 pens.", "3*4=<<3*4=12>>12 pens.", "#### 12"]
PUSHES = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc")


class Vllm:
    """A server's models, and what it was asked in order.

    Args:
      folder: what it serves, by the name "base".
      ids: whether it tells which ids it drew.
    """

    def __init__(self, folder: Path, ids: bool = True):
        self.folder, self.ids, self.asked = folder, ids, []
        self.server: Server | None = None
        self.models: dict[str, Any] = {"base": self._loaded()}

    def _loaded(self) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(self.folder)
        return model.to(torch.float32).eval()

    def __call__(self, number: int, body: dict[str, Any]) -> Reply:
        assert self.server is not None
        path = self.server.bodies[number]["path"]
        if path in PUSHES:
            self.asked.append((path, body.get("lora_name", body.get("method"))))
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.models:
                said = (
                    f"The lora adapter '{body['lora_name']}' has already been loaded."
                )
                return 400, {}, json.dumps({"message": said}).encode()
            base = self._loaded()
            adapted = peft.PeftModel.from_pretrained(base, body["lora_path"])
            self.models[body["lora_name"]] = adapted.eval()
            return b"Success: LoRA adapter added successfully."
        if path == "/v1/unload_lora_adapter":
            del self.models[body["lora_name"]]
            return b"Success"
        if path == "/collective_rpc":
            self.models["base"] = self._loaded()
            return b'{"results": [null]}'
        if path == "/reset_prefix_cache":
            return b""
        return json.dumps({"choices": self._choices(body)}).encode()

    def _choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        model = self.models[body["model"]]
        generator = torch.Generator().manual_seed(body["seed"])
        return [self._drawn(model, body, generator) for _ in range(body.get("n", 1))]

    def _drawn(self, model: Any, body: dict[str, Any], generator: Any) -> Any:
        ids, drawn, told = list(body["prompt"]), [], []
        while len(drawn) < body["max_tokens"]:
            with torch.no_grad():
                logits = model(torch.tensor([ids + drawn])).logits[0, -1]
            logprobs = torch.log_softmax(logits.double(), -1)
            one = int(torch.multinomial(logprobs.exp(), 1, generator=generator))
            drawn.append(one)
            told.append(float(logprobs[one]))
            if one in body["stop_token_ids"]:
                break
        return {
            "text": "",
            "finish_reason": "stop"
            if drawn[-1] in body["stop_token_ids"]
            else "length",
            "logprobs": {"token_logprobs": told},
            **({"token_ids": drawn} if self.ids else {}),
        }


@pytest.fixture(autouse=True)
def _graded_by_ids(monkeypatch):
    """Random models answer nothing: any step ends, right is a matter of its ids."""
    read = IdLayout.read
    monkeypatch.setattr(IdLayout, "read", lambda *of: (read(*of)[0], True))
    monkeypatch.setattr(ArithmeticDomain, "is_final", lambda self, step: True)

    def right(self, problems, solutions):
        del self, problems
        ids = [[sum(map(sum, s.tokens)) for s in row] for row in solutions]
        return np.array(ids) % 2 == 0

    monkeypatch.setattr(Task, "right", right)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "lm", "llama", TEXTS)


@pytest.fixture
def vllm(base) -> Iterator[Vllm]:
    found = Vllm(base)
    with serving(found) as server:
        found.server = server
        yield found


def config(url: str, base: Path | str = "", **fields):
    small = {
        "checkpoint.every": 1,
        "builder.line_stride": 0,
        "builder.buckets": (512,) if base else (48,),
        "builder.max_steps": 2,
        "builder.max_new_tokens": 6,
        "solver.backbone": str(base),
        "solver.endpoint": url,
        "rl.verifiers": (),
        "rl.rewards": ("outcome",),
        "rl.rollouts.solver": "endpoint",
        "rl.updates": 4,
        "rl.groups": 2,
        "rl.group_size": 4,
        "rl.learning_rate": 1e-2,
        "rl.warmup": 0,
        "rl.dev_every": 0,
        "rl.pass_samples": 0,
        "rl.uniform": "keep",
        "rl.sample_log": 1,
        "rl.max_idle": 0,
    }
    if base:
        small |= {"rl.solver_from": "backbone", "lora.rank": 2}
    return tiny_run.small(small | fields)


def drifts(folder: Path) -> list[float]:
    return [row["policy/drift_max"] for row in read_metrics(folder)]


class Killed(Exception):
    pass


def test_a_server_draws_with_the_adapter_of_some_rounds_before(
    vllm, base, tmp_path, monkeypatch
):
    c = config(vllm.server.url, base, **{"rl.rollouts.every": 2})
    rl.check(tiny_run.at("rl", c, tmp_path), {})
    rl.run(tiny_run.at("rl", c, tmp_path, "whole"))
    # Two adapters were told of, each by a name of its own, and both are forgotten.
    (load, first), (again, second), (unload, gone), (leave, left) = vllm.asked
    assert load == again == PUSHES[0] and unload == leave == PUSHES[1]
    assert first == gone != second == left and set(vllm.models) == {"base"}
    asked = [b["model"] for b in vllm.server.bodies if "prompt" in b]
    half = asked.index(second)
    assert set(asked[:half]) == {first} and set(asked[half:]) == {second}
    assert not list((tmp_path / "whole/rollouts").iterdir())
    # transformers' probabilities are ours, where the weights are those of the round.
    found = drifts(tmp_path / "whole")
    assert max(found[0], found[2]) < 2e-4
    assert min(found[1], found[3]) > 1e-3
    rows = read_metrics(tmp_path / "whole")
    assert len(rows) == 4 and not any(row["rl/idle"] for row in rows)
    sent = next(b for b in vllm.server.bodies if "prompt" in b)
    assert sent["ignore_eos"] and sent["top_p"] == 1.0 and sent["temperature"] == 1.0

    # Stopped between the two, it goes on with the first round's weights.
    def killed(self, text):
        if json.loads(text)["step"] == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rl.LineLog, "append", killed)
        with pytest.raises(Killed):
            rl.run(tiny_run.at("rl", c, tmp_path, "cut"))
    vllm.asked.clear()
    rl.run(tiny_run.at("rl", c, tmp_path, "cut"))
    loaded = [name.partition("-")[2] for path, name in vllm.asked if path == PUSHES[0]]
    assert loaded == [name.partition("-")[2] for name in (first, second)]
    ends = [load_model(tmp_path / name / "adapter")[0] for name in ("whole", "cut")]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), *ends)
    assert all(jax.tree.leaves(same))


def test_what_a_former_start_loaded_is_forgotten(vllm, base, tmp_path, monkeypatch):
    c = config(vllm.server.url, base, **{"rl.updates": 2, "checkpoint.every": 9})

    def killed(self, text):
        if json.loads(text)["step"] == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rl.LineLog, "append", killed)
        with pytest.raises(Killed):
            rl.run(tiny_run.at("rl", c, tmp_path))
    (left,) = vllm.models.keys() - {"base"}
    # It starts anew with other weights than those that are loaded.
    vllm.asked.clear()
    rl.run(tiny_run.at("rl", c, tmp_path))
    assert [name for path, name in vllm.asked if path == PUSHES[1]].count(left) == 2
    assert vllm.asked.index((PUSHES[1], left)) < vllm.asked.index((PUSHES[0], left))
    assert set(vllm.models) == {"base"}
    # Another run's are its own, even where the weights are the same.
    vllm.asked.clear()
    other = tmp_path / "other"
    other.mkdir()
    rl.run(tiny_run.at("rl", c, other))
    assert left not in [name for _, name in vllm.asked]


def test_an_adapter_that_cannot_be_forgotten_ends_no_run(
    vllm, base, tmp_path, monkeypatch, caplog
):
    def refused(self, name):
        raise EndpointError("solver.endpoint: not now")

    c = config(vllm.server.url, base, **{"rl.updates": 1})
    monkeypatch.setattr(rl_rollouts.WeightServer, "unload_adapter", refused)
    with caplog.at_level("WARNING"):
        rl.run(tiny_run.at("rl", c, tmp_path))
    assert "an adapter stays on the server: solver.endpoint: not now" in caplog.text


def test_rounds_that_overlap_are_drawn_one_update_behind(vllm, base, tmp_path):
    c = config(vllm.server.url, base, **{"rl.overlap": True, "rl.updates": 3})
    rl.run(tiny_run.at("rl", c, tmp_path))
    found = drifts(tmp_path / "rl")
    # The first two are drawn with what it starts from.
    assert found[0] < 2e-4 < 1e-3 < min(found[1:])
    assert [path for path, _ in vllm.asked].count(PUSHES[0]) == 3


@pytest.fixture
def exported(tmp_path) -> Path:
    """A solver of ours as `job=export` writes it, beside the run's own."""
    backbone = tiny_game.generator()["backbone"]
    embedding = backbone["embed"]["embedding"]
    step = tiny_game.builder().step_id
    # It closes about every second step.
    backbone = {**backbone, "embed": {"embedding": embedding.at[step].multiply(1.5)}}
    rows = {"window": None, "buckets": (48,), "max_new_tokens": 6}
    folder = tmp_path / "solver" / "model"
    tiny_game.save(folder, "solver", {"backbone": backbone}, **rows)
    params, spec, tokenizer = load_model(folder)
    return export_model(tmp_path / "served", params, spec, tokenizer)


def test_a_server_reads_its_folder_anew_with_every_round(exported, tmp_path):
    found = Vllm(exported)
    with serving(found) as server:
        found.server = server
        own = {"rl.rollouts.push": "folder", "rl.rollouts.folder": str(exported)}
        own |= {"endpoint.model": "base", "endpoint.n": 4, "builder.window": 0}
        c = config(server.url, **own)
        rl.check(tiny_run.at("rl", c, tmp_path), {})
        rl.run(tiny_run.at("rl", c, tmp_path))
    assert [path for path, _ in found.asked] == [PUSHES[2]] * 4
    assert max(drifts(tmp_path / "rl")) < 2e-4
    served, _, _ = load_model(tmp_path / "solver" / "model")
    learned, _, _ = load_model(tmp_path / "rl" / "model")
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), served, learned)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_a_server_that_cannot_is_told_of_with_what_would(base, tmp_path):
    found = Vllm(base, ids=False)
    with serving(found) as server:
        found.server = server
        context = tiny_run.at("rl", config(server.url, base), tmp_path)
        with pytest.raises(EndpointError, match="does not tell the ids that it drew"):
            rl.run(context)
    refusing = (404, {}, b'{"detail": "Not Found"}')
    with serving(lambda number, body: refusing) as server:
        context = tiny_run.at("rl", config(server.url, base), tmp_path, "closed")
        with pytest.raises(EndpointError, match=r"takes no new weights.*docs/rl\.md"):
            rl.run(context)


def test_ids_of_another_model_are_refused(vllm, base, tmp_path):
    drawn = vllm._drawn

    def foreign(*arguments):
        choice = drawn(*arguments)
        return choice | {"token_ids": [1 << 20] * len(choice["token_ids"])}

    vllm._drawn = foreign
    context = tiny_run.at("rl", config(vllm.server.url, base), tmp_path)
    with pytest.raises(EndpointError, match=r"drew the id 1048576.*another model"):
        rl.run(context)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"solver.endpoint": ""}, "needs solver.endpoint, which is empty"),
        ({"builder.line_stride": 16, "solver.backbone": ""}, "builder.line_stride=0"),
        ({"lora.rank": 0}, 'set lora.rank above 0 and rl.solver_from="backbone"'),
        ({"rl.solver_from": "solver"}, 'or push="folder"'),
        ({"rl.rollouts.push": "folder"}, "needs rl.rollouts.folder"),
        (
            {"rl.rollouts.push": "folder", "rl.rollouts.folder": "there"},
            "needs endpoint.model",
        ),
    ],
)
def test_what_a_server_needs_is_asked_for_before_anything_runs(base, fields, said):
    with pytest.raises(ConfigError, match=said):
        jobs()["rl"].validate(config("http://localhost:8000/v1", base, **fields))


def test_a_folder_that_is_served_is_an_export(base, tmp_path):
    fields = {"rl.rollouts.push": "folder", "endpoint.model": "base"}
    for folder, said in ((base, "is no earlier export"), ("none", "holds no model")):
        named = fields | {"rl.rollouts.folder": str(folder)}
        c = config("http://localhost:8000/v1", base, **named)
        with pytest.raises((ConfigError, ExportError), match=rf"folder: .*{said}"):
            rl.check(tiny_run.at("rl", c, tmp_path), {})
