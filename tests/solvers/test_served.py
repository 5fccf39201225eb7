"""The same greedy text from a server that others wrote as from this process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import tiny
import tiny_game
import tiny_run

from aprm_jax.hf.export import export_model
from aprm_jax.jobs.context import Context
from aprm_jax.jobs.solvers import open_solver
from aprm_jax.models.io import ModelSpec, save_model
from aprm_jax.solvers.protocol import Solution
from aprm_jax.testing.tiny import write_tiny

for name in ("torch", "openai", "fastapi", "uvicorn"):
    pytest.importorskip(name, reason=f"`transformers serve` needs {name}")
COMMAND = shutil.which("transformers")
if COMMAND is None:
    pytest.skip("no `transformers` command", allow_module_level=True)

TEXTS = ["Ann has 3 boxes of 4 pens.", "3*4=<<3*4=12>>12 pens.", "#### 12"]
QUESTIONS = ["Ann has 3 boxes of 4 pens. How many?", "What is 2 + 5? <|end|><step>"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """`transformers serve` on a port of its own; it loads what it is asked for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [COMMAND, "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*command, "--device", "cpu", "--dtype", "float32"])
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health", timeout=1.0)
                break
            except httpx2.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def context(folder: Path, url: str, model: Path, **fields: object) -> Context:
    fields = {
        "builder.line_stride": 0,
        "builder.max_new_tokens": 12,
        "solver.endpoint": url,
        "endpoint.model": str(model),
        **fields,
    }
    return Context(tiny_run.config(fields), folder, "stage")


def solve(context: Context, source: str, questions: list[str]) -> list[Solution]:
    solver = open_solver(context, source, "evaluate.solver")
    rows = solver.solve(
        [(question, ()) for question in questions],
        1,
        context.key(1),
        max_steps=3,
        temperature=0.0,
    )
    return [row[0] for row in rows]


def same(served: list[Solution], here: list[Solution]) -> None:
    assert [s.steps for s in served] == [s.steps for s in here]
    assert [s.finished for s in served] == [s.finished for s in here]
    assert any(any(s.steps) for s in here)  # there is something to compare
    assert all(s.tokens == () for s in served)


def test_an_exported_solver_of_our_rows(server, tmp_path):
    params = {"backbone": tiny.backbone(tiny_game.CONFIG, seed=0)}
    spec = ModelSpec(
        kind="solver",
        decoder=tiny_game.CONFIG,
        head=None,
        window=None,
        buckets=(40, 64),
        domain="arithmetic",
        max_new_tokens=12,
    )
    tokenizer = tiny_game.DOMAIN.tokenizer
    save_model(tmp_path / "run" / "solver" / "model", params, spec, tokenizer)
    out = export_model(tmp_path / "out", params, spec, tokenizer)
    of_run = context(
        tmp_path / "run",
        server,
        out,
        **{
            "endpoint.layout": "rows",
            "builder.window": 0,
            "builder.buckets": (40, 64),
            "model.d_model": tiny_game.CONFIG.d_model,
            "model.num_layers": tiny_game.CONFIG.num_layers,
            "model.num_heads": tiny_game.CONFIG.num_heads,
            "model.num_kv_heads": tiny_game.CONFIG.num_kv_heads,
            "model.head_dim": tiny_game.CONFIG.head_dim,
            "model.d_ff": tiny_game.CONFIG.d_ff,
        },
    )
    questions = [point.question for point in tiny_game.POINTS]
    here = solve(of_run, "solver", questions)
    same(solve(of_run, "endpoint", questions), here)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_backbone_with_its_chat_template(family, server, tmp_path):
    folder = write_tiny(tmp_path / "lm", family, TEXTS)
    of_run = context(
        tmp_path / "run",
        server,
        folder,
        **{
            "solver.backbone": str(folder),
            "builder.buckets": (512,),
            "domain.name": "arithmetic",
        },
    )
    here = solve(of_run, "backbone", QUESTIONS)
    same(solve(of_run, "endpoint", QUESTIONS), here)
