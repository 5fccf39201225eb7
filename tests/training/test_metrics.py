import errno
import json
import math
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aprm_jax.files import FileError
from aprm_jax.training.metrics import MeanMetric, Metrics, read_metrics
from aprm_jax.training.workdir import WorkdirError


def write(tmp_path, rows, **options: Any):
    options.setdefault("tensorboard", False)
    metrics = Metrics(tmp_path, **options)
    try:
        for step, values in rows:
            metrics.write(step, values)
    finally:
        metrics.close()


def test_numbers_round_trip(tmp_path):
    values = {
        "third": 1 / 3,
        "float32": np.float32(0.1),
        "device": jnp.float32(1e-30),
        "bfloat16": jnp.bfloat16(0.75),
        "count": jnp.int32(7),
        "flag": np.bool_(True),
        "inf": math.inf,
        "minus": -math.inf,
        "nan": jnp.nan,
        'a "name"': 1,
    }
    write(tmp_path, [(3, values)])
    (row,) = read_metrics(tmp_path)
    assert row.pop("step") == 3
    assert list(row) == list(values)
    assert math.isnan(row.pop("nan"))
    assert row == {name: float(v) for name, v in values.items() if name != "nan"}
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_every_line_is_there_before_close(tmp_path):
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.write(1, {"loss": 2.0})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    metrics.close()
    metrics.close()


def test_resuming_drops_later_and_unfinished_lines(tmp_path):
    write(tmp_path, [(step, {"x": step}) for step in range(1, 8)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "x": ')
    write(tmp_path, [(6, {"x": -6})], start=5)
    assert [row["x"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, -6]
    write(tmp_path, [], start=0)
    assert read_metrics(tmp_path) == []


def test_only_numbers(tmp_path):
    with pytest.raises(ValueError, match="one number"):
        write(tmp_path, [(1, {"x": np.zeros(3)})])


def test_tensorboard_has_the_same_numbers(tmp_path):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")

    write(
        tmp_path,
        [(5, {"loss": 0.5, "mean": MeanMetric.of([1.0, 2.0])})],
        tensorboard=True,
    )
    (file,) = (tmp_path / "tensorboard").iterdir()
    found, data = {}, file.read_bytes()
    while data:  # length, its checksum, the record, its checksum
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        for value in event.summary.value:
            found[value.tag] = (event.step, value.simple_value)
    assert found == {"loss": (5, 0.5), "mean": (5, 1.5)}


def test_wandb_is_asked_for_and_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(WorkdirError, match=r"aprm_jax\[wandb\]"):
        Metrics(tmp_path, tensorboard=False, wandb="project")


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        Metrics(tmp_path / "file", tensorboard=False)


def test_means_add_exactly():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=30), rng.integers(0, 3, 30)
    parts = [
        MeanMetric.of(values[i:j], weights[i:j]) for i, j in [(0, 2), (2, 25), (25, 30)]
    ]
    whole = jax.jit(lambda a, b, c: a + b + c)(*parts)
    assert whole.compute() == pytest.approx(np.average(values, weights=weights), 1e-5)


def test_a_mean_ignores_what_has_no_weight():
    assert MeanMetric.of([jnp.nan, 3.0], [0, 2]).compute() == 3.0
    assert math.isnan(MeanMetric.of([1.0], [0]).compute())
    assert json.dumps(MeanMetric.of(2.0).compute()) == "2.0"


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics = Metrics(tmp_path, tensorboard=True)
    metrics.write(1, {"loss": 0.5})
    monkeypatch.setattr(os, "fsync", full)  # TensorBoard's flush, and every seal
    with pytest.raises(FileError, match="No space left on device"):
        metrics.close()
    metrics.close()


@pytest.mark.parametrize("when", ["first", "later", "end"])
def test_a_file_that_may_not_grow_is_one_message(tmp_path, when):
    """RLIMIT_FSIZE, in a process of its own: the limit cannot be raised again."""
    code = f"""
import resource, sys
from aprm_jax.files import FileError
from aprm_jax.training.metrics import Metrics
def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
if {when!r} == "first":
    limit()
try:
    metrics = Metrics({str(tmp_path)!r}, tensorboard=True)
    metrics.write(1, {{"loss": 0.5}})
    if {when!r} == "later":
        limit()
    metrics.write(2, {{"loss": 0.5}})
    limit()
    metrics.close()
except FileError as error:
    print(error)
    sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7 and done.stderr == ""
    assert done.stdout.count("File too large") == 1 and "Cannot write" in done.stdout
