"""Stages side by side, in processes of their own: what ends whom, and what is kept."""

import os
import signal
import time
from pathlib import Path

import command
import pytest

from aprm_jax.config.errors import UserError
from aprm_jax.jobs import worker
from aprm_jax.training.workdir import is_done

pytestmark = pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2,
    reason="one core: stages run one after the other",
)
ARGUMENTS = [command.QUICKSTART, command.CACHE, "--workdir=run"]


def workers(parent: int) -> list[int]:
    """The processes that a process has started, and that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def at_work(running: command.Running) -> list[int]:
    pid = running.process.pid
    assert pid is not None
    return workers(pid)


def test_a_worker_or_all_of_them_are_killed_and_nothing_is_lost(whole, tmp_path):
    running = command.start(tmp_path, ARGUMENTS, "log0")
    # The first step that is told of two stages: the other is not at its end either.
    running.wait_for("[foreign] step 10/", "[generator] step 10/")
    assert len(at_work(running)) == 2
    os.kill(at_work(running)[0], signal.SIGKILL)
    code, output = running.end()
    assert code == 1, output
    assert "its process ended by signal 9" in output and "processes=1" in output
    assert "Traceback" not in output

    running = command.start(tmp_path, ARGUMENTS, "log1")
    running.wait_for("[aprm] step 10/")
    before = at_work(running)
    running.send(signal.SIGKILL)
    running.end()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in before):
        assert time.monotonic() < end, "a worker outlives its run"
        time.sleep(0.05)

    code, output = command.call(tmp_path, *ARGUMENTS)
    assert code == 0, output
    for model in ("foreign", "generator", "prm_static", "aprm", "aprm/generator"):
        file = f"{model}/model/params.safetensors"
        same = (tmp_path / "run" / file).read_bytes() == (whole / file).read_bytes()
        assert same, f"{model} differs"


def test_ctrl_c_reaches_every_worker_once_and_each_saves(tmp_path):
    # The game is long: both stages are at work when it comes.
    arguments = [*ARGUMENTS, "--config.overrides.generator.sft.updates=100000"]
    running = command.start(tmp_path, arguments)
    running.wait_for("[generator] step 20/")
    running.send(signal.SIGINT)
    code, output = running.end()
    assert code == 128 + signal.SIGINT, output
    assert "Traceback" not in output
    assert list((tmp_path / "run" / "generator" / "checkpoints").iterdir())
    assert is_done(tmp_path / "run" / "solver")


def test_an_error_of_one_stage_stops_the_others_and_is_told_once(tmp_path):
    arguments = [*ARGUMENTS, "--config.overrides.generator.sft.learning_rate=1e30"]
    arguments.append("--config.overrides.foreign.sft.updates=100000")
    code, output = command.call(tmp_path, *arguments)
    assert code == 1, output
    assert output.count("aprm_jax: error: ") == 1 and "Traceback" not in output
    assert "not finite" in output and "generator/nonfinite" in output
    assert not is_done(tmp_path / "run" / "generator")


def test_one_process_computes_what_several_do_but_for_rounding(whole, tmp_path):
    code, output = command.call(
        tmp_path, *ARGUMENTS, "--config.processes=1", "--config.stages=solver:sft"
    )
    assert code == 0, output
    for file in ("config.json", "solver/done.json"):
        assert (tmp_path / "run" / file).is_file()
    model = "solver/model/params.safetensors"
    assert (tmp_path / "run" / model).read_bytes() == (whole / model).read_bytes()


class Odd(UserError):
    """An error that no pickle brings back."""

    def __init__(self, field, value):
        super().__init__(f"{field}={value} is wrong")


def test_an_error_that_cannot_be_sent_stays_one_that_a_user_can_put_right():
    told = worker._sendable(Odd("sft.updates", 0))
    assert isinstance(told, UserError) and str(told) == "sft.updates=0 is wrong"
