"""Bad input: one clear message, exit code 1, before anything is compiled."""

import json
import subprocess
import sys
import time
from pathlib import Path

import command
import pytest

import aprm_jax
from aprm_jax.config import (
    ConfigError,
    files,
    jobs,
    override,
    read_config_file,
    set_field,
    settings,
    validate,
)
from aprm_jax.jobs import command_line, usage

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
            "--config.prm.head=tokens",
            ["prm.head", "token, two_class", "'tokens'"],
        ),
        (
            "--config.overrides.generator.sft.updats=1",
            ["'overrides.generator.sft.updates'"],
        ),
        ("--config.stages=('solver:stf',)", ["'solver:stf'", "'sft'"]),
        ("--config.game.prm_from=prm_warmpu", ["game.prm_from", "'prm_warmup'"]),
        ("--config.evaluate.splits=('tests',)", ["no split 'tests'", "'test'"]),
        ("--config.evaluate.splits=test,tests", ["no split 'tests'", "'test'"]),
        (
            "--config.report.runs=nowhere,there",
            ["report.runs: nowhere: no such folder"],
        ),
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


# The command in a process of its own that says what it has imported by its end.
ENDS_WITH_MODULES = """
import json, sys
from aprm_jax import main
code = None
try:
    main.entry()
except SystemExit as left:
    code = left.code
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""
HEAVY = ("jax", "flax", "optax", "orbax", "transformers", "datasets", "torch", "scipy")


def light(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that must not have started JAX."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS_WITH_MODULES, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=command.ENVIRONMENT,
    )
    *output, last = done.stdout.splitlines()
    ended = json.loads(last)
    assert not {*HEAVY} & {*ended["modules"]}, ended["modules"]
    return ended["code"], "\n".join(output) + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config=nowhere.py"],
        [QUICKSTART, "--workdri=x"],
        [QUICKSTART, "--config.sft.updats=3"],
        [QUICKSTART, "--config.sft.updates=x"],
        [QUICKSTART, "--config.sft.updates=0"],
        [QUICKSTART, "--config.stages=('solver:stf',)"],
        *(
            [f"--config={path}", "--config.game.updats=3"]
            for path in sorted((command.REPOSITORY / "configs").glob("*.py"))
            if path.stem not in ("ablation", "naive_generator")  # these want a run
        ),
    ],
    ids=lambda arguments: " ".join(a.rpartition("/")[2] for a in arguments),
)
def test_a_slip_on_the_command_line_starts_no_jax(tmp_path, arguments):
    code, output = light(tmp_path, *arguments)
    assert code == 1 and output.startswith("aprm_jax: error: "), output


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_lists_jobs_configs_and_fields(flag):
    code, output = light(command.REPOSITORY, flag)
    assert code == 0
    for name in (*jobs(), *settings()):
        assert f"  {name}" in output
    for setting in settings().values():
        assert " ".join(setting.meaning.split()) in " ".join(output.split())
        assert f"= {setting.default!r}" in output
    for path in (command.REPOSITORY / "configs").glob("*.py"):
        assert f"configs/{path.name}" in output
    assert ("--verbosity" in output) == (flag == "--helpfull")


def test_help_beside_a_config_shows_its_values(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from aprm_jax.config import default_config\n"
        "def get_config(arg=''):\n"
        "    c = default_config()\n"
        "    c.sft.updates = 7_654\n"
        "    return c\n"
    )
    code, output = light(tmp_path, f"--config={file}", "--help")
    assert code == 0 and "sft.updates: int = 7654" in output
    assert light(tmp_path, "--version")[1].split() == ["aprm_jax", aprm_jax.__version__]


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


def test_a_bad_config_file_is_named(tmp_path, monkeypatch):
    assert "no such config file" in refused(tmp_path, "--config=nowhere.py")
    shipped = refused(tmp_path, "--config=configs/gsm8k.py")  # in another folder
    assert f"there is {command.REPOSITORY / 'configs' / 'gsm8k.py'}" in shipped
    assert "--config=FILE is missing" in refused(tmp_path)
    with monkeypatch.context() as patched:  # as a wheel is installed
        patched.chdir(tmp_path)
        patched.setattr(files, "NEXT_TO_PACKAGE", tmp_path / "configs")
        patched.setattr(usage, "NEXT_TO_PACKAGE", tmp_path / "configs")
        with pytest.raises(ConfigError, match=r"no such config file; .* a clone of"):
            read_config_file("configs/gsm8k.py")
        assert "configs: none is here; config files come with a clone" in usage.text()
    for misspelt, named in (
        ("--workdri=run", "'workdri'"),
        ("--workdir=rn", "rn: there"),
    ):
        assert named in refused(tmp_path, misspelt)
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
    from aprm_jax.training.workdir import mark_done, open_workdir

    path = QUICKSTART.removeprefix("--config=").removesuffix(":runlocal")
    config = read_config_file(path, "runlocal").to_dict()
    open_workdir(tmp_path / "run", config, "0.0.1")
    (tmp_path / "run" / "solver").mkdir()
    mark_done(tmp_path / "run" / "solver", {})
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
    fields = {"train": file, "test": file, "model_solutions": "", "processbench": ""}
    named = [f"--config.domain.{name}={value}" for name, value in fields.items()]
    output = refused(tmp_path, GSM8K, *named)
    assert str(file) in output and reason in output


def test_what_a_config_made_up_is_not_reported_beside_real_data(tmp_path):
    path = GSM8K.removeprefix("--config=").removesuffix(":runlocal")
    made_up = Path(read_config_file(path, "runlocal").domain.train)
    own = tmp_path / "train.jsonl"
    own.write_bytes(made_up.read_bytes())
    output = refused(tmp_path, GSM8K, f"--config.domain.train={own}")
    assert "domain.test" in output and "made up for the config's runlocal" in output


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.evaluate.prms=a,b"], "('a', 'b')"),
        (["--config.evaluate.prms", "a,b"], "('a', 'b')"),
        (["-config.evaluate.prms", "a"], "('a',)"),
        (["--config.evaluate.prms", ""], "()"),
        (["--config.evaluate.prms", "('a,b',)"], "('a,b',)"),
        (["--config.overrides.one.evaluate.prms", "a,b"], "('a', 'b')"),
    ],
)
def test_a_bare_list_is_a_tuple_with_and_without_a_sign(arguments, said):
    [flag] = command_line._with_bare_lists(["--config.seed", "3", *arguments, "x"])[
        2:-1
    ]
    assert flag == f"{arguments[0].partition('=')[0]}={said}"
    assert command_line._with_bare_lists(["--config.seed", "3"]) == [
        "--config.seed",
        "3",
    ]
