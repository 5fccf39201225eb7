"""Bad input: one clear message, exit code 1, before anything is compiled."""

import time
from pathlib import Path

import command
import pytest

from aprm_jax.config import (
    ConfigError,
    override,
    read_config_file,
    set_field,
    validate,
)
from aprm_jax.jobs import command_line

QUICKSTART, GSM8K, CACHE = command.QUICKSTART, command.GSM8K, command.CACHE


def refused(folder: Path, *arguments: str) -> str:
    """What a refused command prints."""
    code, output = command.call(folder, *arguments)
    assert code == 1, output
    assert output.count("aprm_jax: error: ") == 1, output
    assert "Traceback" not in output
    assert "(sft)" not in output  # no stage was started
    return output


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--config.sft.updats=3", ["sft.updats=3", "'sft.updates'"]),
        ("--config.stf.updates=3", ["stf.updates=3", "'sft.updates'"]),
        ("--config.sft.updates=x", ["'sft.updates' takes int", "'x'"]),
        (
            "--config.sft.learning_rate=high",
            ["'sft.learning_rate' takes float", "'high'"],
        ),
        ("--config.game.optimistic=maybe", ["'game.optimistic' takes bool", "'maybe'"]),
        ("--config.evaluate.samples=(8,'x')", ["'evaluate.samples'", "int", "'x'"]),
        ("--config.sft=3", ["group of fields"]),
        ("--config.sft.updates=0", ["sft.updates must be at least 1", "0"]),
        (
            "--config.prm.reading=tokens",
            ["prm.reading", "token, two_class", "'tokens'"],
        ),
        (
            "--config.overrides.generator.sft.updats=1",
            ["'overrides.generator.sft.updates'"],
        ),
        ("--config.stages=('solver:stf',)", ["'solver:stf'", "'sft'"]),
        ("--config.game.prm_from=prm_warmpu", ["game.prm_from", "'prm_warmup'"]),
        ("--config.evaluate.splits=('tests',)", ["no split 'tests'", "'test'"]),
        ("--config.mesh.data=4096", ["mesh: data=4096", "1 cpu device"]),
        ("--config.builder.buckets=(4,)", ["builder.buckets", "4"]),
        (
            "--config.prompt.generator={question} {prefix} {stp}",
            ["prompt.generator: {stp} names no place", "'step'"],
        ),
        ("--workdri=x", ["workdri", "workdir"]),
        ("quickstart", ["quickstart", "is no flag"]),
    ],
)
def test_a_bad_argument_is_named_with_what_would_be_right(tmp_path, argument, expected):
    output = refused(tmp_path, QUICKSTART, argument)
    for text in expected:
        assert text in output


def test_overrides_of_stages_that_are_left_out_go_with_them():
    file = command.REPOSITORY / "configs" / "quickstart.py"
    config = read_config_file(file)
    assert "generator" in config.overrides
    set_field(config, "stages", ("solver:sft",))
    config = command_line.without_dropped_stages(config, str(file))
    validate(config)
    assert not list(config.overrides)
    override(config, "slover", {"sft.updates": 3})  # a slip is told as before
    with pytest.raises(ConfigError, match="no stage is called 'slover'"):
        validate(command_line.without_dropped_stages(config, str(file)))


def test_a_bad_config_file_is_named(tmp_path):
    assert "no such config file" in refused(tmp_path, "--config=nowhere.py")
    assert "--config=FILE is missing" in refused(tmp_path)
    assert "'runlocal'" in refused(tmp_path, QUICKSTART + "ly")
    (tmp_path / "bad.py").write_text("def get_config(arg=''):\n    return 1 / 0\n")
    output = refused(tmp_path, "--config=bad.py")
    assert "line 2" in output and "ZeroDivisionError" in output
    (tmp_path / "typo.py").write_text(
        "from aprm_jax.config import default_config\n"
        "def get_config(arg=''):\n"
        "    c = default_config()\n"
        "    c.sft.updats = 3\n"
        "    return c\n"
    )
    output = refused(tmp_path, "--config=typo.py")
    assert "line 4" in output and "updats" in output and "updates" in output


def test_the_workdir_is_refused_where_it_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    output = refused(tmp_path, QUICKSTART, "--workdir=file/run")
    assert "file/run" in output and "--workdir" in output
    # The run of another config, then of another version of the code.
    from aprm_jax.config import read_config_file
    from aprm_jax.training.workdir import open_workdir

    path = QUICKSTART.removeprefix("--config=").removesuffix(":runlocal")
    config = read_config_file(path, "runlocal").to_dict()
    open_workdir(tmp_path / "run", config, "0.0.1")
    output = refused(tmp_path, QUICKSTART, "--workdir=run", "--config.seed=5")
    assert "seed: there 0, now 5" in output
    output = refused(tmp_path, QUICKSTART, "--workdir=run")
    assert "0.0.1" in output and "--workdir" in output


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"\x7fELF\x00\x00\x01", "binary"),
        (b'{"question": "How many?"}\n', "line 1: field 'answer' is missing"),
    ],
)
def test_a_bad_data_file_is_named(tmp_path, content, reason):
    file = tmp_path / "problems.jsonl"
    if content is not None:
        file.write_bytes(content)
    output = refused(tmp_path, GSM8K, f"--config.domain.train={file}")
    assert str(file) in output and reason in output


def test_data_that_does_not_fit_the_buckets_is_refused(tmp_path):
    output = refused(tmp_path, GSM8K, "--config.builder.buckets=(32,)")
    assert "longest bucket" in output and "builder.buckets" in output


def test_a_loss_that_is_not_finite_stops_the_job(tmp_path):
    code, output = command.call(
        tmp_path, QUICKSTART, CACHE, "--config.sft.learning_rate=1e30", "--workdir=run"
    )
    assert code == 1
    assert output.count("aprm_jax: error: ") == 1 and "Traceback" not in output
    assert "not finite" in output and "run/solver/nonfinite" in output
    assert list((tmp_path / "run" / "solver" / "nonfinite").glob("*.npz"))
    assert not (tmp_path / "run" / "solver" / "model").exists()


def test_the_default_workdir_is_named_after_config_and_time(tmp_path):
    running = command.start(tmp_path, [QUICKSTART, CACHE])
    running.wait_for("workdir: ")
    running.process.kill()
    running.end()
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("quickstart-runlocal-" + time.strftime("%Y"))
    assert f"workdir: runs/{folder.name}" in running.output()
