import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import toy_job

from aprm_jax.training import loop
from aprm_jax.training.checkpoints import Checkpointer, CheckpointError
from aprm_jax.training.lock import locked
from aprm_jax.training.loop import LoopConfig, run_loop
from aprm_jax.training.metrics import MeanMetric, read_metrics
from aprm_jax.training.signals import Interrupted, deferred_stop, prompt_stop
from aprm_jax.training.step_log import NonFiniteError, StepOutput
from aprm_jax.training.workdir import WorkdirError


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert type(a) is type(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def untimed(workdir):
    return [
        {k: v for k, v in row.items() if not k.startswith("time/")}
        for row in read_metrics(workdir)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state and the log of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    return toy_job.train(workdir), untimed(workdir)


def start(workdir) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, toy_job.__file__, str(workdir)],
        env={**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read_until(process: subprocess.Popen, text: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the job ended before it said {text!r}")


def test_every_step_is_logged_once(whole):
    _, rows = whole
    assert [row["step"] for row in rows] == list(range(1, toy_job.STEPS + 1))


def test_killed_runs_end_with_the_same_bits(tmp_path, whole):
    moments = random.Random(0)
    for kill in range(3):
        process = start(tmp_path)
        # By its third step the first one's checkpoint is complete: each run gets on.
        for _ in range(moments.randint(3, 6)):
            read_until(process, "at ")
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late"
    assert Checkpointer(tmp_path / "checkpoints").latest() is not None
    state = toy_job.train(tmp_path, checkpoint_every=1)
    assert_same(state, whole[0])
    assert untimed(tmp_path) == whole[1]


def test_sigterm_saves_and_exits_143(tmp_path, whole):
    process = start(tmp_path)
    reached = int(read_until(process, "at ").split()[1])
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "The same command goes on from there" in rest
    latest = Checkpointer(tmp_path / "checkpoints").latest()
    assert latest is not None and latest > reached
    assert len(read_metrics(tmp_path)) == latest
    assert_same(toy_job.train(tmp_path), whole[0])
    assert untimed(tmp_path) == whole[1]


def test_a_signal_saves_where_no_checkpoint_was_due(tmp_path, whole, capsys):
    def stop_at_7(text):
        if text == "at 7":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        toy_job.train(tmp_path, say=stop_at_7)
    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert Checkpointer(tmp_path / "checkpoints").latest() == 8
    assert "SIGINT after step 8" in capsys.readouterr().out
    assert_same(toy_job.train(tmp_path), whole[0])


def test_a_signal_while_the_last_state_is_saved_stops_what_follows(
    tmp_path, whole, monkeypatch
):
    save = loop._save_last

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*args)

    monkeypatch.setattr(loop, "_save_last", interrupted)
    with pytest.raises(Interrupted) as caught:
        toy_job.train(tmp_path)
    assert caught.value.code == 143
    assert f"SIGTERM after step {toy_job.STEPS}, which is saved" in str(caught.value)
    assert_same(toy_job.train(tmp_path), whole[0])


def test_a_jump_of_the_clock_changes_nothing(tmp_path, whole, monkeypatch, capsys):
    """Forth by a year in the midst of the run, then back by two."""
    year = 365 * 86_400
    clock, clock_ns, offset = time.time, time.time_ns, {7: year, 20: -year}
    shift = [0]
    monkeypatch.setattr(time, "time", lambda: clock() + shift[0])
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns() + shift[0] * 10**9)

    def jump(text):
        shift[0] = offset.get(int(text.split()[1]), shift[0])

    with locked(tmp_path):
        state = toy_job.train(
            tmp_path, say=jump, tensorboard=True, log_every=4, keep_last=3
        )
        with pytest.raises(WorkdirError, match="in use"), locked(tmp_path):
            pass
    assert_same(state, whole[0])
    assert untimed(tmp_path) == whole[1]
    assert Checkpointer(tmp_path / "checkpoints").steps() == [30, 35, 40]
    seconds = [
        v for row in read_metrics(tmp_path) for k, v in row.items() if "time/" in k
    ]
    assert len(seconds) >= 3 * toy_job.STEPS and all(0 <= s < 3_600 for s in seconds)
    lines = [x for x in capsys.readouterr().out.splitlines() if " left" in x]
    assert len(lines) == 10
    for line in lines:  # "... 0.01 s/step: sample 40% update 60% | 2s left"
        assert re.search(r"\| (\d+m)?\d+s left$", line), line
        assert sum(map(int, re.findall(r" (\d+)%", line))) == 100, line


def test_the_loop_runs_outside_the_main_thread(tmp_path, whole):
    results = []
    thread = threading.Thread(target=lambda: results.append(toy_job.train(tmp_path)))
    thread.start()
    thread.join()
    assert_same(results[0], whole[0])


def test_a_finished_job_is_not_run_again(tmp_path, whole):
    toy_job.train(tmp_path)
    steps = []
    assert_same(toy_job.train(tmp_path, say=steps.append), whole[0])
    assert not steps


def test_going_back_to_an_earlier_checkpoint(tmp_path, whole):
    toy_job.train(tmp_path, steps=20)
    steps = []
    state = toy_job.train(tmp_path, say=steps.append, restore_step=15)
    assert steps[0] == "at 15"
    assert_same(state, whole[0])
    assert untimed(tmp_path) == whole[1]
    with pytest.raises(CheckpointError, match="no complete checkpoint of step 3"):
        toy_job.train(tmp_path, restore_step=3)
    fresh = tmp_path / "next_stage"
    fresh.mkdir()
    assert_same(toy_job.train(fresh, restore_step=15), whole[0])
    with pytest.raises(CheckpointError, match="past the end"):
        toy_job.train(tmp_path, steps=10)


@jax.jit
def _guarded(state, x):
    """An update that is not applied where it is not finite."""
    new = state + jnp.sqrt(x)
    bad = ~jnp.isfinite(new)
    return jnp.where(bad, state, new), {"nonfinite": bad, "x": MeanMetric.of(x)}


def _train_on(data, workdir, console=False, hook=None, **config):
    def step(state, index, timer):
        x = np.float32(data[index])
        state, metrics = _guarded(state, x)
        return StepOutput(state, metrics, {"x": x, "inner": [np.arange(3)]})

    defaults = {"tensorboard": False, "log_every": 1} | config
    config = LoopConfig(len(data), **defaults)
    return run_loop(
        jnp.zeros(()),
        step,
        workdir=workdir,
        config=config,
        name="roots",
        console=console,
        metrics_hook=hook,
    )


def test_a_nonfinite_step_is_dumped_and_passed_over(tmp_path):
    state = _train_on([1, 4, -1, 9, -4, -4, 1], tmp_path, max_nonfinite=3)
    assert float(state) == 1 + 2 + 3 + 1
    dumps = {path.name: np.load(path) for path in (tmp_path / "nonfinite").iterdir()}
    assert sorted(dumps) == ["step_3.npz", "step_5.npz", "step_6.npz"]
    assert dumps["step_3.npz"]["x"] == -1
    np.testing.assert_array_equal(dumps["step_3.npz"]["inner.0"], [0, 1, 2])
    flags = [row["nonfinite"] for row in read_metrics(tmp_path)]
    assert flags == [0, 0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_too_many_nonfinite_steps_stop_the_job(tmp_path, limit):
    data = [1, 4, -1, 9, *[-1] * 10]
    with pytest.raises(NonFiniteError, match=r"nonfinite.*last good state"):
        _train_on(data, tmp_path, max_nonfinite=limit)
    saved = Checkpointer(tmp_path / "checkpoints")
    last = saved.latest()
    assert last is not None and last < len(data)
    restored = saved.restore(last, jnp.zeros(()))
    # The step that was in flight when the first was found out counts as well.
    assert float(restored) == (6 if last >= 4 else 3)
    assert sum(row["nonfinite"] for row in read_metrics(tmp_path)) >= limit


@pytest.mark.parametrize("bad", [[3], [3, 4], [6], [1, 3]])
def test_one_nonfinite_step_is_too_many_where_one_is_the_limit(tmp_path, bad):
    """Also where the next one, in flight as it is found out, is finite."""
    data = [-1 if step in bad else 1 for step in range(7)]
    with pytest.raises(NonFiniteError, match="in a row"):
        _train_on(data, tmp_path, max_nonfinite=1)
    assert Checkpointer(tmp_path / "checkpoints").latest() == min(bad[0] + 2, 7)


def test_dumps_do_not_fill_the_disk(tmp_path):
    _train_on([-1] * 40, tmp_path, max_nonfinite=100)
    assert len(list((tmp_path / "nonfinite").iterdir())) == 20


def test_hook_and_lines(tmp_path, capsys):
    _train_on(
        [1, 4, 9], tmp_path, True, lambda step, values: {"twice": 2 * values["x"]}
    )
    rows = read_metrics(tmp_path)
    assert [row["twice"] for row in rows] == [2, 8, 18]
    assert all(row["time/step"] > 0 for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[roots] compiling the first step"
    assert lines[1].startswith("[roots] step 1/3 | x 1  twice 2 | ")
    assert "update" in lines[2] and lines[2].endswith("left")
    _train_on([1, 4, 9], tmp_path, True)  # nothing is left to compile
    assert not capsys.readouterr().out


def test_metrics_are_fetched_after_the_next_step_is_dispatched(tmp_path):
    seen, dispatched = [], []

    def step(state, index, timer):
        dispatched.append(index + 1)
        return StepOutput(state, {"loss": jnp.float32(0)})

    run_loop(
        jnp.zeros(()),
        step,
        workdir=tmp_path,
        config=LoopConfig(3, tensorboard=False),
        name="lag",
        console=False,
        metrics_hook=lambda done, values: seen.append((done, dispatched[-1])),
    )
    assert seen == [(1, 2), (2, 3), (3, 3)]


def test_an_error_in_a_step_keeps_what_was_saved(tmp_path):
    def break_at_12(text):
        if text == "at 12":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        toy_job.train(tmp_path, say=break_at_12)
    assert Checkpointer(tmp_path / "checkpoints").latest() == 10


def test_prompt_stop_leaves_at_once():
    stopped = pytest.raises(Interrupted, match=r"SIGTERM\. Nothing is lost")
    with stopped, prompt_stop("Nothing is lost."):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("not stopped")


def test_a_request_that_came_too_late_is_passed_on():
    with pytest.raises(Interrupted), prompt_stop("Nothing is lost."):
        with deferred_stop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop
        raise AssertionError("swallowed")


def test_a_line_is_json_that_strict_readers_take(tmp_path):
    _train_on([1, math.inf, 4], tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "metrics.jsonl").read_text()
    rows = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert rows[1]["x"] == math.inf


def test_a_disk_without_room_for_the_checkpoints_is_told_before_a_step(
    tmp_path, monkeypatch
):
    def never(state, step, timer):
        raise AssertionError("a step was taken")

    asked = []
    monkeypatch.setattr(
        Checkpointer, "check_room", lambda self, tree, saves: asked.append(saves)
    )
    for steps in (1, 5, 6, 10, 11):
        with pytest.raises(AssertionError):
            run_loop(
                {"w": np.zeros(2)},
                never,
                workdir=tmp_path,
                config=LoopConfig(steps, checkpoint_every=5, tensorboard=False),
                name="toy",
            )
    assert asked == [1, 1, 2, 2, 3]
