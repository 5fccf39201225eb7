"""Two processes as two hosts: the figures of one, and an end for all if one ends.

One run is stopped by a signal to one host, loses a host in the game and goes on without
it; its models and its log are those of a run on one host that nothing interrupted.
"""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import command
import jax
import numpy as np
import pytest
from multi_host import talk

from aprm_jax.config import read_config_file
from aprm_jax.jobs import start
from aprm_jax.models.io import load_model
from aprm_jax.training.checkpoints import Checkpointer
from aprm_jax.training.metrics import read_metrics
from aprm_jax.training.workdir import WorkdirError

SMALL = Path(__file__).with_name("small.py")
CONFIG = f"--config={SMALL}"
MODELS = ("solver", "generator", "aprm", "aprm/generator")
# Little is computed and much is compiled.
FAST = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def environments() -> list[dict[str, str]]:
    """Those of two hosts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [FAST | hosts | {"JAX_PROCESS_ID": str(index)} for index in range(2)]


def start_hosts(folder: Path, log: str) -> list[command.Running]:
    arguments = [CONFIG, command.CACHE, "--workdir=run"]
    return [
        command.start(folder, arguments, f"{log}{index}", environment)
        for index, environment in enumerate(environments())
    ]


def on_one_host(folder: Path) -> tuple[int, str]:
    arguments = [CONFIG, command.CACHE, "--workdir=run"]
    return command.start(folder, arguments, "one", FAST).end()


def read(run: Path) -> tuple[dict, dict]:
    """The models, and the metrics without times."""
    models = {name: load_model(run / name / "model")[0] for name in MODELS}
    logs = {
        stage: [
            {k: v for k, v in row.items() if not k.startswith("time/")}
            for row in read_metrics(run / stage)
        ]
        for stage in MODELS[:-1]
    }
    return models, logs


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run on one host, with as many devices as the two have."""
    folder = tmp_path_factory.mktemp("one")
    code, output = on_one_host(folder)
    assert code == 0, output
    return folder / "run"


@pytest.mark.parametrize("place", ["gs://bucket/run", "s3://bucket/run"])
def test_a_workdir_is_a_folder(place):
    config = read_config_file(str(SMALL), "")
    with pytest.raises(WorkdirError, match="is an address"):
        start.run(config, Path(place))


def test_what_hosts_tell_and_hand_each_other(tmp_path):
    processes = [
        command.context.Process(target=talk.run, args=(environment, str(tmp_path)))
        for environment in environments()
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    seen = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2)]
    assert [one.pop("leader") for one in seen] == [True, False]
    assert seen[0].pop("alone") == [1, 1, 2, 1]
    rows = [one.pop("here") for one in seen]
    assert rows == [[[[0, 1]], [[2, 3]]], [[[4, 5]], [[6, 7]]]]
    for index, one in enumerate(seen):
        error = one.pop("error")
        assert "the hosts are out of step" in error, error
        assert f"host {index} is at 'host {index} goes its own way'" in error
        assert one == {
            "count": 2,
            "exchanged": [{"mine": 0}, {"mine": 1}],
            "decided": "of 0",
            "asked": [0, 0, 15, 0],
            "doubled": (2 * talk.ROWS).tolist(),
        }


def test_hosts_stop_together_and_one_goes_on_alone(tmp_path, whole):
    # Pre-emption: a signal to one, and both save the same step.
    hosts = start_hosts(tmp_path, "stopped")
    hosts[0].wait_for("[solver] step 1/")
    hosts[1].send(signal.SIGTERM)
    ends = [host.end(120) for host in hosts]
    assert [code for code, _ in ends] == [143, 143], ends
    latest = Checkpointer(tmp_path / "run" / "solver" / "checkpoints").latest()
    said = f"Stopped by SIGTERM after step {latest}, which is saved."
    assert said in ends[0][1]
    assert not any("Traceback" in output for _, output in ends), ends

    # Only the leader writes and tells: not a file, nor a line, twice.
    hosts = start_hosts(tmp_path, "killed")
    hosts[0].wait_for("[aprm] step 3/")
    hosts[1].send(signal.SIGKILL)
    code, output = hosts[0].end(60)
    # Which of the two sees first that it is gone: the collective, or JAX, who aborts.
    assert code in (1, -signal.SIGABRT), output
    assert "goes on from the newest checkpoint, on fewer hosts too" in output
    assert hosts[1].end()[0] == -signal.SIGKILL
    assert "step 1/" not in hosts[1].output()

    code, output = on_one_host(tmp_path)
    assert code == 0, output
    assert "going on from step" in output and "solver: complete, skipped" in output
    (models, logs), (expected, their_logs) = map(read, (tmp_path / "run", whole))
    jax.tree.map(np.testing.assert_array_equal, models, expected)
    assert repr(logs) == repr(their_logs)
