"""Stopped at any moment, the same command ends with the bits of a run that was not."""

import random
import signal
import time

import command

from aprm_jax.training.metrics import read_metrics

# What the log says when the signal comes; then a random moment more. Of two stages side
# by side either may be the first to get there: what a signal waits for must still come,
# whichever of them the signals before have let end.
MOMENTS = (
    (("[solver] step 10/",), signal.SIGKILL),
    (("generator (sft)",), signal.SIGTERM),
    (("[generator] step 20/",), signal.SIGKILL),
    (("prm_static (prm)", "aprm (aprm)"), signal.SIGKILL),
    (("aprm (aprm)",), signal.SIGKILL),
    (("[prm_static] step", "[aprm] step"), signal.SIGKILL),
    (("evaluate: attack_",), signal.SIGTERM),
    (("evaluate: longer", "evaluate: attack_"), signal.SIGKILL),
)
MODELS = ("solver", "generator", "prm_warmup", "prm_static", "aprm", "aprm/generator")


def untimed(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def test_killed_and_stopped_runs_end_with_the_same_bits(whole, tmp_path):
    arguments = [command.QUICKSTART, command.CACHE, "--workdir=run"]
    # More checkpoints, so that more kills hit one that is being written.
    arguments.append("--config.checkpoint.every=2")
    moments = random.Random(0)
    for number, (texts, how) in enumerate(MOMENTS):
        running = command.start(tmp_path, arguments, f"log{number}")
        running.wait_for(*texts)
        time.sleep(moments.uniform(0, 0.2))
        running.send(how)
        code, output = running.end()
        if how == signal.SIGTERM:
            assert code == 128 + signal.SIGTERM, output
            # Told by the run, and by a stage that saved: by neither of them twice.
            told = [line for line in output.splitlines() if "from there." in line]
            assert told and len(told) == len(set(told)), output
            assert "Traceback" not in output
        else:
            assert code == -signal.SIGKILL, output
    code, output = command.start(tmp_path, arguments).end()
    assert code == 0, output
    for model in MODELS:
        file = f"{model}/model/params.safetensors"
        same = (tmp_path / "run" / file).read_bytes() == (whole / file).read_bytes()
        assert same, f"{model} differs"
    for stage in MODELS[:-1]:
        logs = (
            untimed(read_metrics(root / stage)) for root in (tmp_path / "run", whole)
        )
        assert repr(next(logs)) == repr(next(logs)), f"the log of {stage} differs"
    for file in ("evaluate/summary.json", "evaluate/results.json"):
        assert (tmp_path / "run" / file).read_text() == (whole / file).read_text()
