import ast
import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import command
import pytest

from aprm_jax.config import (
    ConfigError,
    as_read_by,
    default_config,
    flat,
    for_stage,
    group_meaning,
    is_read_by,
    jobs,
    nearest,
    override,
    read_config_file,
    run_local,
    set_field,
    settings,
    stages,
    typed,
    validate,
    with_fields,
)

FILES = sorted((command.REPOSITORY / "configs").glob("*.py"))


def quickstart(arg=""):
    return read_config_file(command.REPOSITORY / "configs" / "quickstart.py", arg)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_stages_of_a_config_compute_the_same(path):
    config = validate(read_config_file(path))
    seen: dict[str, str] = {}
    for stage, job in stages(config):
        record = jobs()[job]
        values = flat(for_stage(config, stage)).items()
        read = {k: v for k, v in values if k != "overrides" and is_read_by(record, k)}
        other = seen.setdefault(f"{job} {sorted(read.items())}", stage)
        assert other == stage, f"{stage} is {other} once more"


@pytest.mark.parametrize("arg", ["", "runlocal"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_files_are_valid_and_survive_json(path, arg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a config is found from anywhere
    config = read_config_file(path, arg)
    validate(config)
    assert config.name == path.stem
    assert config.is_locked
    assert json.loads(json.dumps(config.to_dict()))["stages"] == list(config.stages)


@pytest.mark.parametrize("name", ["quickstart", "compare", "gsm8k"])
def test_an_argument_that_a_config_file_does_not_know_is_refused(name):
    with pytest.raises(ConfigError, match=r"'runlocl'.*'runlocal'"):
        read_config_file(command.REPOSITORY / "configs" / f"{name}.py", "runlocl")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_files_open_with_what_a_reader_needs(path):
    opening = path.read_text().split('"""')[1]
    for text in (f"--config=configs/{path.name}", "Hardware:", "Time", ":runlocal"):
        assert text in opening
    assert "/work" not in opening


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("arg", ["", "runlocal"])
def test_config_files_are_accepted_whole_and_cut(path, arg):
    validate(read_config_file(path, arg))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("drift", ("", "runlocal")),
        ("pav", ("search", "search-tiny", "labels", "labels-tiny")),
        ("smollm2", ("memory", "prm", "game")),
        ("smollm2", ("memory-tiny", "prm-tiny", "game-tiny")),
    ],
)
def test_configs_of_benchmarks_are_accepted_whole_and_cut(name, args):
    path = command.REPOSITORY / "benchmarks" / f"{name}.py"
    for arg in args:
        validate(read_config_file(path, arg))


@pytest.mark.parametrize("name", ["compare", "ablation", "naive_generator"])
def test_published_results_keep_the_settings_that_they_were_measured_with(name):
    config = read_config_file(command.REPOSITORY / "configs" / f"{name}.py")
    assert config.domain.modulus == 10
    assert config.builder.line_stride == 32
    sft = config.sft
    assert (sft.updates, sft.batch_size, sft.learning_rate) == (3500, 16, 1.5e-3)
    generator = for_stage(config, "generator").sft
    assert (generator.updates, generator.batch_size) == (200, 48)
    assert (config.prm.updates, config.game.updates) == (300, 300)


def test_values_are_learned_of_whole_solutions():
    """What a beginning is worth depends on the question, not on its last line alone."""
    configs = [read_config_file(path, "runlocal") for path in FILES]
    windows = {
        (c.name, stage): for_stage(validate(c), stage).builder.window
        for c in configs
        for stage, job in stages(c)
        if job == "pav"
    }
    assert len(windows) >= 3 and not any(windows.values()), windows


def test_runlocal_cuts_overrides_too():
    whole, cut = quickstart(), quickstart("runlocal")
    assert flat(whole).keys() == flat(cut).keys()
    for name, _ in stages(whole):
        updates = (for_stage(c, name).sft.updates for c in (cut, whole))
        assert next(updates) < next(updates)
    assert for_stage(cut, "generator").sft.task == "perturb"


def test_runlocal_keeps_every_stage_and_every_choice():
    compare = command.REPOSITORY / "configs" / "compare.py"
    whole, cut = (read_config_file(compare, arg) for arg in ("", "runlocal"))
    assert whole.stages == cut.stages
    for name, _ in stages(whole):
        left, right = flat(for_stage(whole, name)), flat(for_stage(cut, name))
        for field in ("sft.task", "prm.negatives", "game.freeze_generator"):
            assert left[field] == right[field]


def test_baselines_get_as_many_updates_as_the_game():
    for name in ("quickstart", "compare"):
        config = read_config_file(command.REPOSITORY / "configs" / f"{name}.py")
        updates: Counter[str] = Counter()
        for stage, job in stages(config):
            if job in ("prm", "aprm") and stage != "prm_warmup":
                of_stage = for_stage(config, stage)
                trained = of_stage.game if job == "aprm" else of_stage.prm
                # The rounds of ReST-MCTS* train one value model.
                updates[stage.rstrip("_12")] += trained.updates
        assert len(set(updates.values())) == 1


def test_overrides_hold_for_their_stage_alone():
    config = default_config()
    override(config, "solver", {"sft.updates": 7, "evaluate.samples": [2, 3]})
    assert for_stage(config, "solver").sft.updates == 7
    assert for_stage(config, "solver").evaluate.samples == (2, 3)
    assert for_stage(config, "aprm").sft.updates == config.sft.updates != 7
    override(config, "solver", {"sft.updates": 8})
    assert for_stage(config, "solver").sft.updates == 8
    assert config.is_locked
    validate(config)
    with pytest.raises(ConfigError, match=r"'sft.updats'.*'sft.updates'"):
        override(config, "solver", {"sft.updats": 7})
    with pytest.raises(ConfigError, match="takes int"):
        override(config, "solver", {"sft.updates": "7"})
    override(config, "sovler", {"sft.updates": 7})
    with pytest.raises(ConfigError, match=r"'sovler'.*'solver'"):
        validate(config)


def test_jobs_see_a_frozen_config_with_the_fields_of_the_schema():
    config = quickstart()
    whole = validate(config)
    assert flat(whole) == flat(config)
    assert whole == validate(whole)
    with pytest.raises(dataclasses.FrozenInstanceError):
        whole.sft.updates = 3  # pyright: ignore[reportAttributeAccessIssue]
    other = with_fields(whole, {"sft.updates": 3, "evaluate.samples": [2]})
    assert (other.sft.updates, other.evaluate.samples) == (3, (2,))
    assert whole.sft.updates == config.sft.updates != 3
    with pytest.raises(ConfigError, match=r"'sft.updats'.*'sft.updates'"):
        with_fields(whole, {"sft.updats": 3})
    with pytest.raises(ConfigError, match="takes int"):
        with_fields(whole, {"sft.updates": "3"})


def test_what_a_job_does_not_read_is_not_there_and_has_no_default_either():
    read = as_read_by(validate(default_config()), jobs()["prm"])
    assert read.prm.updates == default_config().prm.updates
    with pytest.raises(AttributeError, match="updates"):
        _ = read.game.updates


def test_the_type_checker_knows_the_settings_of_every_job():
    tree = ast.parse(Path(str(typed.__file__)).read_text())
    [known] = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    groups = [n for n in known.body if isinstance(n, ast.AnnAssign)]
    assert {ast.unparse(g.target): ast.unparse(g.annotation) for g in groups} == {
        job.group: job.settings.__name__ for job in jobs().values()
    }


def test_a_wrong_value_in_an_override_names_the_stage():
    config = default_config()
    override(config, "solver", {"sft.task": "sleep"})
    with pytest.raises(ConfigError, match=r"overrides\.solver: sft\.task"):
        validate(config)


@pytest.mark.parametrize(("field", "value"), [("b1", 0.3), ("optimistic", False)])
def test_factored_moments_are_of_ogda_without_a_first_one(field, value):
    config = default_config()
    config.game.moments = "factored"
    validate(config)
    set_field(config, f"game.{field}", value)
    with pytest.raises(ConfigError, match=r"moments='factored'.*game.b1=0"):
        validate(config)


@pytest.mark.parametrize("group", ["game", "rl"])
def test_int8_references_are_of_full_parameters(group):
    config = default_config()
    set_field(config, f"{group}.references", "int8")
    validate(config)
    config.lora.rank = 4
    with pytest.raises(ConfigError, match=rf"{group}\.references='int8'.*lora.rank=4"):
        validate(config)


def test_what_int8_rounds_away_is_not_paid_by_a_language_model():
    config = default_config()
    config.rl.references, config.rl.rewards = "int8", ("implicit",)
    config.rl.implicit_from = "solver"
    with pytest.raises(ConfigError, match="rounding would be paid"):
        validate(config)


def test_workers_of_the_text_oracle_need_their_extra(monkeypatch):
    config = default_config()
    config.domain.name, config.domain.oracle = "gsm8k", "text"
    config.domain.oracle_workers = 2
    validate(config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"oracle_workers is 2.*aprm_jax\[pool\]"):
        validate(config)
    config.domain.oracle_workers = 0
    validate(config)


TRAINED = ("sft", "prm", "game", "rl")
DISTINCT = (
    "evaluate.splits",
    "evaluate.solver_splits",
    "evaluate.solvers",
    "evaluate.prms",
    "evaluate.attack_prms",
    "search.splits",
    "rl.pass_splits",
)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("job", "evalute", "'evaluate'"),
        ("domain.name", "gsm9k", "'gsm8k'"),
        ("domain.oracle", "txet", "'text'"),
        ("domain.oracle", "text", "domain.name='gsm8k'"),
        ("domain.oracle_workers", -1, "at least 0"),
        ("stages", ("solver:sft", "solver:prm"), "twice"),
        ("stages", ("solver:stf",), "'sft'"),
        ("builder.buckets", (32, 24), "ascend"),
        ("builder.buckets", (32, 48.0), "48.0"),
        ("builder.buckets", (), "ascend"),
        ("model.num_kv_heads", 3, "must divide"),
        ("sft.learning_rate", float("nan"), "must be a finite number, not nan"),
        ("sft.learning_rate", float("inf"), "must be a finite number, not inf"),
        ("game.rewards.prm_right", float("nan"), "finite"),
        ("rl.weights", (1.0, float("-inf")), "finite"),
        ("search.temperature", float("inf"), "finite"),
        ("sft.solver_share", 1.5, "share"),
        ("prm.negatives", "statik", "'static'"),
        ("evaluate.aggregations", ("min", "max"), "'max'"),
        ("evaluate.aggregations", (), "aggregations is empty"),
        ("evaluate.samples", (), "best-of-n"),
        ("evaluate.samples", (8, 0), "at least 1, not 0"),
        ("prepare.max_overlap", 0.0, "share in (0, 1]"),
        ("lora.alpha", -1.0, "must be positive"),
        ("sft.learning_rate", -1.0, "must be positive"),
        ("sft.learning_rate", 0.0, "must be positive, not 0.0"),
        *(
            (f"{group}.clip_norm", value, "must be positive")
            for group in TRAINED
            for value in (0.0, -1.0)
        ),
        *((f"{group}.warmup", -1, "at least 0") for group in TRAINED),
        *(
            (f"{group}.{b}", value, "share in [0, 1)")
            for group in TRAINED[1:]
            for b in ("b1", "b2")
            for value in (-0.1, 1.0, 1.5)
        ),
        ("sft.weight_decay", -0.1, "must not be negative"),
        ("prm.beta", -0.1, "must not be negative"),
        ("prm.eta", -0.1, "must not be negative"),
        ("game.beta_prm", -5.0, "must not be negative"),
        ("game.beta_generator", -5.0, "must not be negative"),
        ("game.eta_prm", -5.0, "must not be negative"),
        ("game.eta_generator", -5.0, "must not be negative"),
        ("game.gamma", 1.5, "share in [0, 1]"),
        ("game.gae_lambda", -0.5, "share in [0, 1]"),
        ("game.value_weight", -1.0, "must not be negative"),
        ("game.clip_ratio", 0.0, "share in (0, 1]"),
        ("game.sample_log", -1, "at least 0"),
        ("rl.max_idle", -1, "at least 0"),
        ("rl.pay.clip_margin", 0.0, "share in (0, 1]"),
        ("rl.pay.clip_margin", 1.5, "share in (0, 1]"),
        ("prm.mc_completions", 0, "at least 1"),
        ("prm.pool_problems", 0, "at least 1"),
        ("prm.pool_samples", -1, "at least 1"),
        ("domain.vocab_size", 256, "at least 261"),
        ("seed", -1, "must be from 0 to 4294967295, not -1"),
        ("seed", 1 << 32, "must be from 0 to 4294967295"),
        ("model.head_dim", 15, "must be even"),
        ("model.head_dim", 0, "at least 2"),
        ("model.rope_theta", 0.0, "must be positive"),
        ("builder.buckets", (-1, 64), "at least 1, not -1"),
        ("builder.line_stride", -1, "at least 0"),
        ("checkpoint.step", -7, "at least -1"),
        ("mesh.fsdp", -2, "at least -1"),
        ("evaluate.graded", -1, "at least 0"),
        ("prepare.dev_share", 1.0, "share in [0, 1)"),
        *((field, ("test", "test"), "'test' stands there twice") for field in DISTINCT),
        *(
            (field, (value,), f"{value!r} is none")
            for value in (None, 1)
            for field in (
                "report.runs",
                "evaluate.solvers",
                "prm.data",
                "prepare.sources",
                "search.verifiers",
                "attack.verifiers",
            )
        ),
        ("rl.weights", ("1",), "'1' is none"),
        ("evaluate.samples", (None,), "None is none"),
        ("score.output", "a\0b", "NUL"),
        ("prepare.sources", ("gsm8k:a\ud800",), "lone surrogate"),
        ("stages", ("../evil:sft",), "'../evil'"),
        ("stages", (".:sft",), "'.' of"),
        ("stages", (":sft",), "'' of"),
        ("stages", ("a.b:sft",), "'a.b' of"),
        ("stages", ("tokenizer:sft",), "none of quarantine, tokenizer"),
        ("game.group_size", 1, "group_size"),
        ("checkpoint.every", 0, "at least 1"),
    ],
)
def test_wrong_values_are_named(field, value, message):
    config = default_config()
    set_field(config, field, value)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert field in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("game.sample_log", 0),
        ("rl.weights", (1, -0.5)),
        ("game.generator_learning_rate", 0.0),
        ("seed", 0xFFFFFFFF),
        ("domain.vocab_size", 261),
        ("prm.b1", 0.0),
        ("mesh.fsdp", -1),
        ("checkpoint.step", -1),
        ("evaluate.graded", 0),
    ],
)
def test_what_a_field_says_of_zero_and_below_is_accepted(field, value):
    config = default_config()
    set_field(config, field, value)
    validate(config)


def test_every_number_has_limits_or_may_be_any():
    """Of any other, zero or less would crash a run, or spoil it without a word."""
    free = {name for name in settings() if name.startswith("game.rewards.")}
    for setting in settings().values():
        number = setting.type.strip("tuple[], .") in ("int", "float")
        limits = setting.limits
        if number and setting.name not in {*free, "rl.weights"}:
            assert limits.bounded or limits.choices, setting.name


def test_items_of_a_tuple_are_looked_at_in_overrides_too():
    config = default_config()
    override(config, "solver", {"prm.data": (1,)})
    with pytest.raises(ConfigError, match=r"overrides\.solver: .*'prm\.data'.* 1 is"):
        validate(config)


def test_a_field_that_is_missing_or_unknown_is_named():
    config = default_config()
    with config.unlocked():
        config.sft.updats = 3
    with pytest.raises(ConfigError, match=r"'sft.updats'.*'sft.updates'"):
        validate(config)
    config = default_config()
    with config.unlocked():
        del config.sft["updates"]
    with pytest.raises(ConfigError, match=r"'sft.updates' is missing"):
        validate(config)


def test_every_field_says_what_it_means():
    known = settings()
    assert {*known, "overrides"} == set(flat(default_config()))
    for setting in known.values():
        assert 3 <= len(setting.meaning) < 250, setting.name
        assert group_meaning(setting.group), setting.name
    assert known["game.rewards.prm_right"].group == "game.rewards"
    assert known["evaluate.samples"].type == "tuple[int, ...]"
    assert "text" in known["domain.oracle"].limits.choices


def test_nearest_says_nothing_where_nothing_is_near():
    assert nearest("updats", ["updates", "data"]) == " Did you mean 'updates'?"
    assert nearest("xyz", ["updates", "data"]) == ""


def test_runlocal_is_small_whatever_it_cuts():
    config = default_config()
    run_local(config)
    validate(config)
    assert max(config.sft.updates, config.prm.updates, config.game.updates) <= 100


def test_a_config_is_read_without_jax():
    code = (
        "import sys, aprm_jax.config as c; c.validate(c.default_config());"
        "sys.exit('jax' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(command.REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("name", ["ablation", "naive_generator"])
def test_a_config_takes_the_models_of_a_finished_run(name, tmp_path):
    path = command.REPOSITORY / "configs" / f"{name}.py"
    stages_needed = ("solver", "generator", "prm_warmup", "aprm")
    for stage in stages_needed[1:]:
        (tmp_path / stage / "model").mkdir(parents=True)
        (tmp_path / stage / "model" / "model.json").touch()
    with pytest.raises(ConfigError, match=r"finished run.*has no solver/model"):
        read_config_file(path, str(tmp_path))
    (tmp_path / "solver" / "model").mkdir(parents=True)
    (tmp_path / "solver" / "model" / "model.json").touch()
    config = read_config_file(path, str(tmp_path))
    validate(config)
    assert config.evaluate.solver == str(tmp_path / "solver" / "model")
    assert config.game.prm_from == str(tmp_path / "prm_warmup" / "model")
    own = [stage for stage, _ in stages(config)]
    assert "solver" not in own and set(config.overrides) <= set(own)


@pytest.mark.parametrize(
    "name",
    [
        "attack",
        "explore",
        "naive_pressure",
        "rl_pav",
        "rl_verifiers",
        "search_pressure",
    ],
)
def test_a_config_goes_on_from_a_pressure_run(name, tmp_path):
    path = command.REPOSITORY / "configs" / f"{name}.py"
    made = read_config_file(path.with_name("pressure.py"))
    with pytest.raises(ConfigError, match=r"takes the folder of a finished run"):
        read_config_file(path, str(tmp_path))
    for stage, _ in stages(made):
        (tmp_path / stage / "model").mkdir(parents=True)
        (tmp_path / stage / "model" / "model.json").touch()
    config = read_config_file(path, str(tmp_path))
    validate(config)
    assert config.domain.modulus == made.domain.modulus
    assert not {"solver", "prm_static"} & {stage for stage, _ in stages(config)}
