"""Two processes as two hosts: the figures of one, and an end for all if one ends.

One run is stopped by a signal to one host, loses a host in the game and goes on without
it; its models and its log are those of a run on one host that nothing interrupted.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
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


def start_hosts(
    folder: Path, log: str, *more: str, config: str = CONFIG
) -> list[command.Running]:
    arguments = [config, command.CACHE, "--workdir=run", *more]
    return [
        command.start(folder, arguments, f"{log}{index}", environment)
        for index, environment in enumerate(environments())
    ]


def on_one_host(folder: Path, *more: str, config: str = CONFIG) -> tuple[int, str]:
    arguments = [config, command.CACHE, "--workdir=run", *more]
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


def test_a_host_whose_leader_never_comes_says_so():
    address = environments()[0]["JAX_COORDINATOR_ADDRESS"]
    place = {"coordinator_address": address, "num_processes": 2, "process_id": 1}
    waits = place | {"initialization_timeout": 2}  # seconds; JAX's own are 300
    code = "from aprm_jax.training.host_links import Link\nLink.to_others({})"
    ended = subprocess.run(
        [sys.executable, "-c", code.format(waits)],
        env=command.ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode != 0
    last = ended.stderr.rstrip().splitlines()[-1]
    assert f"did not meet at the coordinator {address}: not all of them came" in last
    assert last.startswith("aprm_jax: error: ")


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


def test_pieces_of_an_evaluation_are_dealt_to_hosts(tmp_path, whole):
    evaluated = "--config.stages=solver:sft,generator:sft,aprm:aprm,evaluate"
    for name in ("one", "two"):
        shutil.copytree(whole, tmp_path / name / "run")
    code, output = on_one_host(tmp_path / "one", evaluated)
    assert code == 0, output
    hosts = start_hosts(tmp_path / "two", "dealt", evaluated)
    ends = [host.end() for host in hosts]
    assert [code for code, _ in ends] == [0, 0], ends
    # The leader tells of what it computes: half of what there is.
    parts = {path.stem for path in (tmp_path / "two/run/evaluate/parts").iterdir()}
    told = {part for part in parts if f"evaluate: {part}\n" in ends[0][1]}
    assert len(parts) == 6 and len(told) == 3, (parts, told)
    for file in ("results.json", "summary.json"):
        one, two = ((tmp_path / n / "run/evaluate" / file) for n in ("one", "two"))
        assert one.read_text() == two.read_text()
    done = json.loads((tmp_path / "two/run/evaluate/done.json").read_text())
    spent = sum(
        json.loads(path.read_text())["seconds"]
        for path in (tmp_path / "two/run/evaluate/parts").iterdir()
    )
    assert done["seconds"] >= spent


def test_hosts_without_a_folder_in_common_work_in_a_bucket(tmp_path, whole):
    """Stopped, and gone on with by machines that have nothing yet."""
    store = tmp_path / "store/run"
    evaluated = "--config.stages=solver:sft,generator:sft,aprm:aprm,evaluate"

    def start(log: str) -> list[command.Running]:
        return [
            command.start(
                tmp_path,
                [CONFIG, command.CACHE, evaluated, f"--workdir=file://{store}"],
                f"{log}{index}",
                environment | {"XDG_CACHE_HOME": str(tmp_path / f"{log}_{index}")},
            )
            for index, environment in enumerate(environments())
        ]

    hosts = start("stopped")
    hosts[0].wait_for("[aprm] step 3/")
    hosts[1].send(signal.SIGTERM)
    ends = [host.end(120) for host in hosts]
    assert [code for code, _ in ends] == [143, 143], ends

    hosts = start("again")
    ends = [host.end() for host in hosts]
    assert [code for code, _ in ends] == [0, 0], ends
    assert "going on from step" in ends[0][1]
    assert "solver: complete, skipped" in ends[0][1]
    (models, logs), (expected, their_logs) = map(read, (store, whole))
    jax.tree.map(np.testing.assert_array_equal, models, expected)
    assert repr(logs) == repr(their_logs)

    # Both computed parts of the evaluation; what one host makes of them is the same.
    [theirs] = tmp_path.glob("again_1/aprm_jax/workdirs/*")
    parts = store / "evaluate/parts"
    names = {path.name for path in parts.iterdir()}
    assert names == {path.name for path in (theirs / "evaluate/parts").iterdir()}
    told = {name for name in names if f"evaluate: {name[:-5]}\n" in ends[0][1]}
    assert len(names) == 6 and len(told) == 3, (names, told)
    shutil.copytree(whole, tmp_path / "alone/run")
    code, output = on_one_host(tmp_path / "alone", evaluated)
    assert code == 0, output
    results = "run/evaluate/results.json"
    one = (tmp_path / "alone" / results).read_text()
    assert (store / "evaluate/results.json").read_text() == one


def test_values_searches_and_rl_are_those_of_one_host(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    config = f"{CONFIG}:solver"
    code, output = on_one_host(one, config=config)
    assert code == 0, output

    # Two go on from a batch of labels, and from one of searched questions.
    shutil.copytree(one / "run" / "solver", two / "run" / "solver")
    for file, lines in (("pav/labels.jsonl", 1 + 8), ("search/solutions.jsonl", 4)):
        rows = (one / "run" / file).read_bytes().splitlines(keepends=True)
        (two / "run" / file).parent.mkdir()
        (two / "run" / file).write_bytes(b"".join(rows[:lines]))
    made_by = "run/search/made_by.json"
    shutil.copy(one / made_by, two / made_by)
    hosts = start_hosts(two, "goes_on", config=config)
    ends = [host.end() for host in hosts]
    assert [code for code, _ in ends] == [0, 0], ends
    assert "8 of 16 questions are there" in ends[0][1]
    assert "4 of 8 rows are there" in ends[0][1]

    for file in ("pav/labels.jsonl", "pav/summary.json", "rl/results.json"):
        assert (one / "run" / file).read_text() == (two / "run" / file).read_text()
    solutions = "run/search/solutions.jsonl"
    searched = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("ledger", "sha256")}
            for line in (folder / solutions).read_text().splitlines()
        ]
        for folder in (one, two)
    ]
    assert searched[0] == searched[1] and len(searched[0]) == 8
    for stage in ("pav", "rl"):
        models = [
            load_model(folder / "run" / stage / "model")[0] for folder in (one, two)
        ]
        jax.tree.map(np.testing.assert_array_equal, *models)
