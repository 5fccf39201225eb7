"""A file that is not what was written is refused by name, or made anew."""

import json
import shutil
import subprocess
import sys

import command
import pytest

from aprm_jax.config import read_config_file, with_fields
from aprm_jax.config.errors import UserError
from aprm_jax.jobs import of_run, start
from aprm_jax.jobs.domains import open_domain


def _flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


DAMAGES = {
    "flip": _flip,
    "truncate": lambda data: data[: len(data) // 2],
    "list": lambda data: b"[]",
    "empty": lambda data: b"",
}
# What a start reads again: of a run that has ended, of one whose evaluation was killed
# at its end, of one that is exported.
FILES = {
    "finished": (
        "config.json",
        "fingerprint.json",
        "aprm/metrics.jsonl",
        "aprm/.metrics.jsonl.seal",
        "evaluate/done.json",
        "evaluate/per_problem/test.npz",
        "evaluate/results.json",
        "summary.json",
    ),
    "begun": (
        "evaluate/parts/test.json",
        "evaluate/per_problem/test.npz",
        "evaluate/results.json",
    ),
    "export": (
        "aprm/model/model.json",
        "aprm/model/params.safetensors",
        "report/done.json",
        "results.json",
    ),
}


def _results(run):
    """What a run says, but for its times."""
    records = json.loads((run / "results.json").read_text())["records"]
    numbers = json.loads((run / "summary.json").read_text())
    evaluated = (run / "evaluate" / "results.json").read_bytes()
    timeless = {k: v for k, v in numbers.items() if not k.startswith("time.")}
    return records, timeless, evaluated


def _start(run, job):
    config = of_run.get_config(str(run))
    config.job, config.compilation_cache = job, ""
    if job == "export":
        config.export.model = "aprm"
    start.run(config, run)


@pytest.mark.parametrize(
    ("state", "name"), [(state, name) for state in FILES for name in FILES[state]]
)
def test_no_damage_is_used_in_silence(whole, tmp_path, state, name):
    job = "export" if state == "export" else "pipeline"
    for kind, damage in DAMAGES.items():
        run = tmp_path / kind
        shutil.copytree(whole, run)
        (run / name).write_bytes(damage((run / name).read_bytes()))
        if state == "begun":
            (run / "evaluate" / "done.json").unlink()
        try:
            _start(run, job)
        except UserError as error:
            assert str(run / name) in str(error), f"{kind}: {error}"
        else:  # made anew
            assert _results(run) == _results(whole), kind


def test_the_runs_tokenizer_is_guarded(tmp_path):
    train = tmp_path / "train.jsonl"
    rows = [{"question": f"What is {k} + 1?", "answer": str(k + 1)} for k in range(40)]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = read_config_file(command.REPOSITORY / "configs" / "own_data.py")
    config = with_fields(config, {"domain.train": str(train)})
    vocabulary = open_domain(config, tmp_path).tokenizer.get_vocab()
    again = shutil.copytree(tmp_path, tmp_path / "again")  # read anew: it is no cache's
    assert open_domain(config, again).tokenizer.get_vocab() == vocabulary
    file = tmp_path / "tokenizer" / "tokenizer.json"
    for kind, damage in DAMAGES.items():
        run = tmp_path / kind
        target = run / "tokenizer" / "tokenizer.json"
        shutil.copytree(file.parent, target.parent)
        target.write_bytes(damage(file.read_bytes()))
        with pytest.raises(UserError, match="is not what was written") as caught:
            open_domain(config, run)
        assert str(target) in str(caught.value)


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "prm_static" / "done.json").unlink()
    [step] = (run / "prm_static" / "checkpoints").iterdir()
    [file, *_] = sorted(
        p for p in step.rglob("*") if p.is_file() and p.parent.name == "d"
    )
    file.write_bytes(_flip(file.read_bytes()))
    with pytest.raises(UserError, match="checkpoint") as caught:
        _start(run, "pipeline")
    assert str(file) in str(caught.value)


def test_a_damaged_model_is_refused(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "prm_static" / "done.json").unlink()
    shutil.rmtree(run / "prm_static" / "checkpoints")
    file = run / "prm_warmup" / "model" / "params.safetensors"
    file.write_bytes(_flip(file.read_bytes()))
    with pytest.raises(UserError) as caught:
        _start(run, "pipeline")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "job", "file"),
    [
        (1 << 15, ("export", "--config.export.model=aprm"), "export/aprm-causal_lm"),
        (1 << 10, ("report",), "results.json"),
    ],
)
def test_a_full_disk_is_one_message(whole, tmp_path, limit, job, file):
    run = shutil.copytree(whole, tmp_path / "run")
    done = subprocess.run(
        [
            *(sys.executable, "-c", command.LIMITED, str(limit), "--workdir=run"),
            *(f"--config.job={job[0]}", *job[1:]),
        ],
        cwd=tmp_path,
        env=command.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    [message] = done.stderr.splitlines()
    assert f"{run.name}/{file}: " in message
    assert "space left on the disk" in message
    if job[0] == "report":  # what was there stays
        assert (run / file).read_bytes() == (whole / file).read_bytes()
