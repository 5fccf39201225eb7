"""A start in the folder of a run: what may differ, and what that computes again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import command
import huggingface_hub
import pytest

from aprm_jax.config import (
    as_read_by,
    flat,
    for_stage,
    frozen,
    jobs,
    override,
    read_config_file,
    set_field,
    settings,
    stages,
    validate,
)
from aprm_jax.files import DamagedFileError
from aprm_jax.game.config import GameConfig
from aprm_jax.jobs import changes, data_record, of_run, start
from aprm_jax.jobs.changes import FREE
from aprm_jax.jobs.of_run import get_config
from aprm_jax.rl.config import RLConfig
from aprm_jax.training.lock import locked
from aprm_jax.training.workdir import WorkdirError, mark_done, write_config

QUICKSTART = command.REPOSITORY / "configs" / "quickstart.py"


@pytest.fixture
def finished(tmp_path) -> Path:
    """The folder of a quickstart run that has ended, its results empty files."""
    config = read_config_file(QUICKSTART)
    write_config(tmp_path, config.to_dict(), "0.1")
    for name, job in stages(config):
        folder = tmp_path / name
        folder.mkdir()
        for output in jobs()[job].outputs:
            (folder / output).write_text(f"of {name}")
        mark_done(folder, {})
    (tmp_path / "summary.json").write_text("{}")
    return tmp_path


def plan(config, root):
    return changes.plan(frozen(config), root)


def changed(**fields):
    config = read_config_file(QUICKSTART)
    for name, value in fields.items():
        set_field(config, name.replace("__", "."), value)
    return config


def test_the_runs_own_config_is_what_it_was_started_with(tmp_path):
    config = changed(seed=7, evaluate__samples=(2, 4), sft__learning_rate=0.5)
    override(config, "generator", {"sft.updates": 9})
    config.job = "sft"
    write_config(tmp_path, config.to_dict(), "0.1")
    again = get_config(str(tmp_path))
    validate(again)
    assert again.job == "pipeline"
    again.job = "sft"
    assert flat(again) == flat(config)


def test_the_config_of_an_older_version_is_read(tmp_path, caplog):
    written = changed(seed=7).to_dict()
    del written["lora"], written["evaluate"]["bootstrap"]
    written["sft"]["gone"] = 3
    written["prm"]["reading"] = written["prm"].pop("head")
    written["model"]["remat"] = True
    written["overrides"]["prm"] = {"prm": {"reading": "two_class"}}
    (tmp_path / of_run.FILE).write_text(json.dumps(written))
    again = get_config(str(tmp_path))
    expected = changed(seed=7, model__remat="full")
    override(expected, "prm", {"prm.head": "two_class"})
    assert flat(again) == flat(expected)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"seed": "x"}', '{"overrides": 3}', "[" * 100_000]
)
def test_what_is_no_config_of_a_run_is_named(tmp_path, text):
    (tmp_path / of_run.FILE).write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        get_config(str(tmp_path))


def test_nothing_changes_where_nothing_changed(finished):
    found = plan(changed(), finished)
    assert not found.again and not found.longer
    assert not list(found.carry_out("0.1"))
    assert (finished / "aprm" / "done.json").exists()


@pytest.mark.parametrize("field", FREE)
def test_what_computes_nothing_may_differ(finished, field):
    names = [n for n in settings() if n == field or n.startswith(f"{field}.")]
    values = {str: "x", int: 3, bool: False, tuple: ("x",), float: 0.5}
    config = changed()
    for name in names:
        if name not in ("stages", "job"):
            set_field(config, name, values[type(settings()[name].default)])
    found = plan(config, finished)
    assert not found.longer and found.again in ((), ("export",))
    assert not list(found.carry_out("0.1"))
    config.report.runs = ()  # a comparison is of one start
    assert flat(get_config(str(finished))) == flat(config)


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"seed": 5}, "solver"),
        ({"model__d_model": 64}, "solver"),
        ({"game__groups": 3}, "aprm"),
        ({"game__updates": 299}, "aprm"),  # fewer
        ({"prm__head": "two_class"}, "prm_warmup"),
        ({"sft__updates": 5000}, "generator"),  # which starts from the solver
        ({"game__prm_from": "prm_static"}, "aprm"),
        ({"domain__dev_count": 3}, "solver"),
    ],
)
def test_what_would_change_results_of_a_training_is_refused(finished, fields, lost):
    before = sorted(finished.rglob("*"))
    [(name, value)] = fields.items()
    name = name.replace("__", ".")
    with pytest.raises(WorkdirError) as caught:
        plan(changed(**fields), finished)
    old = json.dumps(flat(changed())[name])
    assert f"{name}: there {old}, now {json.dumps(value)}" in str(caught.value)
    assert lost in str(caught.value) and "--workdir" in str(caught.value)
    assert sorted(finished.rglob("*")) == before


def test_other_questions_of_an_evaluation_compute_it_again_whole(finished):
    found = plan(changed(evaluate__problems=7, domain__processbench="x"), finished)
    assert found.again == ("evaluate",) and not found.longer
    said = list(found.carry_out("0.1"))
    assert ["evaluate: starts anew" in line for line in said] == [True]
    for name in ("done.json", "parts", "per_problem", "summary.json"):
        assert not (finished / "evaluate" / name).exists()
        assert (finished / "evaluate" / "old" / name).exists()
    assert not (finished / "summary.json").exists()  # the report's, of all stages
    assert (finished / "aprm" / "done.json").exists()
    assert get_config(str(finished)).evaluate.problems == 7
    # A kill in between: the same start finds nothing more to put aside.
    assert not plan(changed(evaluate__problems=7), finished).again


def test_the_last_training_goes_on_and_is_measured_anew(finished):
    config = changed(game__updates=500)
    (finished / "aprm" / "checkpoints").mkdir()
    found = plan(config, finished)
    assert found.longer == ("aprm",) and found.again == ("evaluate",)
    list(found.carry_out("0.1"))
    for name in ("done.json", "model", "generator"):  # nobody takes them for the new
        assert not (finished / "aprm" / name).exists()
    assert (finished / "aprm" / "checkpoints").exists()
    assert (finished / "prm_static" / "done.json").exists()


def test_updates_of_one_stage_alone(finished):
    config = changed()
    override(config, "prm_static", {"prm.updates": 401})
    found = plan(config, finished)
    assert found.longer == ("prm_static",) and found.again == ("evaluate",)
    override(config, "prm_warmup", {"prm.updates": 401})
    with pytest.raises(WorkdirError, match=r"(?s)aprm.*prm\.updates: there 100, now 4"):
        plan(config, finished)


def test_a_stage_that_has_not_begun_may_change(finished):
    (finished / "aprm" / "done.json").unlink()
    for name in jobs()["aprm"].outputs:
        (finished / "aprm" / name).unlink()
    found = plan(changed(game__groups=3), finished)
    assert found.again == ("evaluate",) and not found.longer
    with pytest.raises(WorkdirError, match="solver"):
        plan(changed(seed=3), finished)


def test_a_run_that_never_began_is_whatever_it_is_started_as(tmp_path):
    write_config(tmp_path, changed().to_dict(), "0.1")
    (tmp_path / "tokenizer").mkdir()
    config = changed(seed=4, game__groups=2)
    found = plan(config, tmp_path)
    found.put_tokenizer_aside()
    list(found.carry_out("0.1"))
    assert not (tmp_path / "tokenizer").exists()  # of another seed's texts
    assert flat(get_config(str(tmp_path))) == flat(config)


def test_stages_may_be_added_but_none_with_results_goes(finished):
    more = changed(stages=(*changed().stages, "again:evaluate"))
    assert not plan(more, finished).again
    for listed in (("solver:sft",), ("solver:prm", *changed().stages[1:])):
        config = changed()
        config.stages = listed
        with pytest.raises(WorkdirError, match="stages: there"):
            plan(config, finished)


def test_a_job_sees_only_the_fields_that_it_says_it_reads():
    config = changed()
    for name, job in stages(config):
        read = flat(as_read_by(for_stage(config, name), jobs()[job]))
        assert ("game.groups" in read) == (job in ("aprm", "evaluate", "report"))
        assert ("domain.processbench" in read) == (job in ("evaluate", "report"))
        assert {"seed", "domain.name", "prm.backbone", f"{jobs()[job].group}."} <= {
            *read,
            *(f"{field.partition('.')[0]}." for field in read),
        }
    with pytest.raises(AttributeError, match="groups"):
        _ = as_read_by(frozen(config), jobs()["sft"]).game.groups


def test_settings_that_a_job_does_not_read_have_no_defaults_in_a_group_with_more():
    whole = frozen(changed(game__groups=5))
    game = GameConfig.of(as_read_by(whole, jobs()["aprm"]).game, updates=7)
    assert (game.groups, game.updates, game.lora) == (5, 7, None)
    with pytest.raises(AttributeError, match="groups"):
        _ = GameConfig.of(as_read_by(whole, jobs()["sft"]).game).groups
    with pytest.raises(AttributeError, match="updates"):
        _ = RLConfig.of(as_read_by(whole, jobs()["sft"]).rl).updates
    with pytest.raises(TypeError, match="GameConfig has no field rounds"):
        GameConfig.of(whole.game, rounds=7)


def test_what_a_start_would_change_is_looked_at_under_the_lock(finished):
    other = changed(seed=9)  # which would be refused, were the run not still going on
    with locked(finished), pytest.raises(WorkdirError, match=str(os.getpid())):
        start.run(other, finished)
    with pytest.raises(WorkdirError, match="seed"):
        start.run(other, finished)


@pytest.mark.parametrize("job", ["score", "export", "search", "attack"])
def test_what_a_command_asks_of_a_finished_run_is_asked_once(finished, job):
    config = get_config(str(finished))
    asked = {
        "score": {"score.input": "a.jsonl", "domain.max_bad_share": 0.9},
        "export": {"export.push_to_hub": "user/name", "export.directory": "x"},
        "search": {"search.questions": "q.jsonl", "search.method": "mcts"},
        "attack": {"attack.oracle_calls": 20},
    }[job]
    for name, value in (asked | {"job": job, "log_every": 7}).items():
        set_field(config, name, value)
    planned = plan(config, finished)
    list(planned.carry_out("0.1"))
    kept, default = flat(get_config(str(finished))), flat(read_config_file(QUICKSTART))
    assert kept["log_every"] == 7
    assert {name: kept[name] for name in asked} == {
        name: default[name] for name in asked
    }


@pytest.fixture
def on_files(tmp_path):
    """A begun run on files of its own: its folder, its config, the files by name."""
    files = {}
    for name in ("train", "test", "scores"):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text(f"of {name}\n")
    files["set"] = tmp_path / "sets" / "test.jsonl"
    files["set"].parent.mkdir()
    files["set"].write_text("of a set\n")
    config = changed(
        domain__name="labelled",
        domain__train=f"step_format:{files['train']}",
        stages=("solver:sft", "more:prm", "evaluate"),
        evaluate__sets=(f"a=step_format:{files['set'].parent}",),
        evaluate__scores=(f"b={files['scores']}",),
        prm__data=(f"step_format:{files['test']}",),
    )
    with config.unlocked():
        config.overrides = {}
    root = tmp_path / "run"
    root.mkdir()
    begin(config, root)
    for name, job in stages(config):
        (root / name).mkdir()
        for output in jobs()[job].outputs:
            (root / name / output).write_text(f"of {name}")
        mark_done(root / name, {})
    return root, config, files


def begin(config, root):
    """What a start does before its stages go on."""
    planned = plan(config, root)
    if planned.is_new:
        write_config(root, config.to_dict(), "0.1")
    planned.keep_new_data()
    planned.put_tokenizer_aside()
    list(planned.carry_out("0.1"))
    return planned


def test_data_that_nobody_has_touched_change_nothing(on_files):
    root, config, files = on_files
    assert not begin(config, root).again
    text = files["train"].read_text()
    files["train"].unlink()
    files["train"].write_text(text)  # other times, the same text
    assert not begin(config, root).again


@pytest.mark.parametrize(
    ("name", "field", "lost"),
    [("train", "domain.train", "solver, more"), ("test", "prm.data", "more")],
)
def test_other_data_are_refused_where_they_were_trained_on(on_files, name, field, lost):
    root, config, files = on_files
    before = sorted(root.rglob("*"))
    files[name].write_text(files[name].read_text().upper())  # of the same size
    with pytest.raises(WorkdirError) as caught:
        plan(config, root)
    said = str(caught.value)
    assert f"results of {lost} with other data" in said
    assert f"{field}, {files[name]}: there " in said and "another config" not in said
    assert "--workdir=DIR" in said and "put these files back" in said
    # A job that reads what the run has made does not ask.
    assert not changes.plan(frozen(config), root, reads_data=False).again
    config.sft.learning_rate = 0.5
    with pytest.raises(WorkdirError, match=r"(?s)another config.*sft.*and with other"):
        plan(config, root)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("name", ["scores", "set", "more"])
def test_an_evaluation_of_other_data_is_computed_again(on_files, name):
    root, config, files = on_files
    files["more"] = files["set"].with_name("more.jsonl")
    files[name].write_text("corrected\n")
    assert begin(config, root).again == ("evaluate",)
    assert not (root / "evaluate" / "done.json").exists()
    assert (root / "solver" / "done.json").exists()
    assert not begin(config, root).again


def test_a_kill_before_an_evaluation_is_put_aside_forgets_nothing(on_files):
    root, config, files = on_files
    files["scores"].write_text("corrected\n")
    planned = plan(config, root)
    planned.keep_new_data()
    planned.put_tokenizer_aside()  # and is killed
    assert plan(config, root).again == ("evaluate",)


def test_a_run_that_knows_nothing_of_its_data_goes_on(on_files):
    root, config, files = on_files
    (root / "data.json").unlink()
    files["train"].write_text("other\n")
    assert not begin(config, root).again
    files["train"].write_text("others\n")
    with pytest.raises(WorkdirError, match="other data"):
        plan(config, root)


def test_a_tokenizer_of_other_texts_is_trained_anew(tmp_path):
    train = tmp_path / "train.jsonl"
    train.write_text("1\n")
    config = changed(domain__name="questions", domain__train=str(train))
    root = tmp_path / "run"
    root.mkdir()
    begin(config, root)
    (root / "tokenizer").mkdir()
    begin(config, root)
    assert (root / "tokenizer").exists()
    train.write_text("2\n")
    begin(config, root)
    assert not (root / "tokenizer").exists()


def test_a_file_that_has_not_been_touched_is_not_read_again(on_files, monkeypatch):
    root, config, files = on_files
    for path in (*files.values(),):
        os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(data_record, "_SETTLED", -(10**12))  # no waiting
    begin(config, root)
    monkeypatch.setattr(data_record, "fingerprint", None)
    assert not begin(config, root).again
    files["scores"].write_text("of scorez\n")
    with pytest.raises(TypeError):
        plan(config, root)


def test_a_record_of_the_data_that_was_written_by_nobody_is_named(on_files):
    root, config, _ = on_files
    (root / "data.json").write_text("{}")
    with pytest.raises(DamagedFileError, match=r"data\.json is not what was written"):
        plan(config, root)


@pytest.mark.parametrize("fields", [{"search__solver": "endpoint"}, {}])
def test_a_server_matters_to_the_stages_that_ask_it(finished, fields):
    asked = {
        "endpoint.model": "x",
        "endpoint.n": 4,
        "endpoint.layout": "rows",
        "solver.endpoint": "http://localhost:8000/v1",
        "prompt.solver": "Solve {question} {prefix}",
    }
    evaluated = changed(**fields)
    for name, value in asked.items():
        set_field(evaluated, name, value)
    if fields:  # a job that is no stage of the run
        evaluated.job = "search"
        found = plan(evaluated, finished)
        assert not found.again and not found.longer
        assert flat(found.kept)["endpoint.model"] == ""  # asked once
        return
    assert not plan(evaluated, finished).again
    evaluated.evaluate.solver = "endpoint"
    assert plan(evaluated, finished).again == ("evaluate",)


def test_another_server_is_refused_where_one_has_labelled_what_was_learned(finished):
    config = get_config(str(finished))
    override(config, "prm_static", {"prm.negatives": "oracle"})
    override(config, "prm_static", {"prm.solver": "endpoint"})
    write_config(finished, config.to_dict(), "0.1")
    config.endpoint.model = "x"
    with pytest.raises(WorkdirError, match=r"of prm_static with.*\n.*endpoint\.model"):
        plan(config, finished)
    config.job, config.search.solver = "search", "endpoint"
    found = plan(config, finished)  # which asks another one, and leaves the run's alone
    assert not found.again and found.kept.endpoint.model == ""


@pytest.mark.parametrize(("drawn_by", "lost"), [("endpoint", True), ("", False)])
def test_who_draws_what_rl_learns_from_is_a_server_that_matters(
    tmp_path, drawn_by, lost
):
    config = changed(stages=("rl",), rl__rollouts__solver=drawn_by)
    with config.unlocked():
        config.overrides = {}
    write_config(tmp_path, config.to_dict(), "0.1")
    (tmp_path / "rl" / "checkpoints" / "1").mkdir(parents=True)
    config.endpoint.model = "x"
    if lost:
        with pytest.raises(WorkdirError, match=r"of rl with.*\n.*endpoint\.model"):
            plan(config, tmp_path)
    else:
        assert not plan(config, tmp_path).again


def test_an_attack_on_a_finished_run_has_its_own_game(finished):
    config = get_config(str(finished))
    config.game.groups, config.lora.rank, config.job = 3, 4, "attack"
    found = plan(config, finished)
    assert not found.again and found.after.game.groups == 3
    assert flat(found.kept) == flat(get_config(str(finished))) | {"job": "attack"}
    config.model.d_model = 64  # what the run's models are is no matter of the attack
    with pytest.raises(WorkdirError, match="d_model"):
        plan(config, finished)


@pytest.fixture
def taught(tmp_path):
    """A teaching whose rounds were not enough: the run, and its config."""
    config = changed(stages=("generator:teach",), teach__rounds=1)
    with config.unlocked():
        config.overrides = {}
    write_config(tmp_path, config.to_dict(), "0.1")
    rounds = tmp_path / "generator" / "rounds"
    rounds.mkdir(parents=True)
    (rounds / "figures.jsonl").write_text("{}\n")
    return tmp_path, config


@pytest.mark.parametrize("field", ["rounds", "one_step", "wrong"])
def test_a_teaching_that_was_not_enough_goes_on(taught, field):
    root, config = taught
    config.teach[field] = {"rounds": 9}.get(field, 0.1)
    found = begin(config, root)
    assert not found.again and not found.longer
    assert (root / "generator" / "rounds" / "figures.jsonl").exists()
    assert get_config(str(root)).teach[field] == config.teach[field]
    config.sft.learning_rate = 0.5
    with pytest.raises(WorkdirError) as caught:
        config.teach[field] = 1 if field == "rounds" else 0.2
        plan(config, root)
    assert "sft.learning_rate" in str(caught.value)
    assert f"teach.{field}" not in str(caught.value)


def test_a_teaching_that_ended_stays_as_it_is(taught):
    root, config = taught
    mark_done(root / "generator", {})
    config.teach.rounds = 9
    with pytest.raises(WorkdirError, match=r"teach\.rounds: there 1, now 9"):
        plan(config, root)


def test_other_weights_of_a_model_outside_of_the_run_are_other_data(tmp_path):
    models = {name: tmp_path / "other" / name for name in ("solver", "prm", "lm")}
    for name, folder in models.items():
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.json").write_text(f"of {name}")
    config = changed(
        stages=("values:pav", "evaluate", "attack", "search"),
        pav__solver=str(models["solver"] / "model"),
        evaluate__solver=str(models["solver"]),
        attack__verifiers=(str(models["prm"]),),
        search__verifiers=(f"likelihood:{models['lm']}",),
    )
    with config.unlocked():
        config.overrides = {}
    root = tmp_path / "run"
    root.mkdir()
    begin(config, root)
    for name, _ in stages(config)[1:]:
        (root / name).mkdir()
        mark_done(root / name, {})
    assert not begin(config, root).again
    for name, again in (("solver", "evaluate"), ("prm", "attack"), ("lm", "search")):
        (models[name] / "model" / "model.json").write_text(f"trained longer: {name}")
        assert begin(config, root).again == (again,)
    (root / "values").mkdir()
    mark_done(root / "values", {})
    assert not begin(config, root).again
    (models["solver"] / "model" / "model.json").write_text("of somebody")
    with pytest.raises(
        WorkdirError, match=r"of values with other data:\n.*pav\.solver"
    ):
        plan(config, root)


def test_other_weights_of_a_model_of_hugging_face_are_other_data(tmp_path):
    models = {name: tmp_path / "hf" / name for name in ("lm", "prm", "judge")}
    for name, folder in models.items():
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model-1-of-1.safetensors").write_text(f"of {name}")
    gguf = tmp_path / "hf" / "judge.gguf"
    gguf.write_text("of a file")
    config = changed(
        stages=("solver:sft", "warm:prm", "evaluate", "attack"),
        solver__backbone=str(models["lm"]),
        prm__backbone=str(models["prm"]),
        attack__verifiers=(str(models["judge"]), f"likelihood:{gguf}"),
    )
    with config.unlocked():
        config.overrides = {}
    root = tmp_path / "run"
    root.mkdir()
    begin(config, root)
    for name in ("warm", "attack"):
        (root / name).mkdir()
        mark_done(root / name, {})
    assert not begin(config, root).again
    for place in (models["judge"] / "model-1-of-1.safetensors", gguf):
        place.write_text("of somebody")
        assert begin(config, root).again == ("attack",)
        mark_done(root / "attack", {})
    # What is not read of a folder changes nothing.
    (models["prm"] / "pytorch_model.bin").write_text("of nobody")
    assert not begin(config, root).again
    (models["prm"] / "model-1-of-1.safetensors").write_text("OF PRM")
    with pytest.raises(WorkdirError) as error:
        plan(config, root)
    said = str(error.value)
    assert re.search(r"results of warm with other data:", said)
    assert "prm.backbone, " in said and 'model-1-of-1.safetensors: there "6 b' in said
    (models["prm"] / "model-1-of-1.safetensors").write_text("of prm")
    assert not begin(config, root).again
    # It was known before anything had learned from it.
    (models["lm"] / "config.json").write_text('{"a": 1}')
    (root / "solver").mkdir()
    mark_done(root / "solver", {})
    with pytest.raises(WorkdirError, match=r"(?s)of solver.*solver\.backbone, "):
        plan(config, root)


def _begun(root, config, *done):
    """A run of this config that has begun, and finished these stages."""
    with config.unlocked():
        config.overrides = {}
    root.mkdir()
    begin(config, root)
    for name in done:
        (root / name).mkdir()
        mark_done(root / name, {})
    assert not begin(config, root).again
    return root


def _adapter(folder, base, **fields):
    folder.mkdir(parents=True)
    fields |= {"base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    (folder / "adapter_model.safetensors").write_text("of an adapter")
    return folder


def test_another_base_of_an_adapter_is_other_data(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_text("of a base")
    adapter = _adapter(tmp_path / "adapter", base)
    (base / "adapter_config.json").write_text("no JSON")  # which nobody reads there
    config = changed(
        stages=("warm:prm", "attack"),
        prm__backbone=str(adapter),
        attack__verifiers=(str(_adapter(tmp_path / "judge", base)),),
    )
    root = _begun(tmp_path / "run", config, "attack")
    (base / "model.safetensors").write_text("of another")
    assert begin(config, root).again == ("attack",)
    (root / "warm").mkdir()
    mark_done(root / "warm", {})
    (base / "model.safetensors").write_text("of a third one")
    with pytest.raises(
        WorkdirError, match=r"of warm with other data:\n.*prm\.backbone"
    ):
        plan(config, root)
    (base / "model.safetensors").write_text("of another")
    assert not begin(config, root).again


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts a commit of a model into the hub's cache; it is called by one digit."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(name, digit, base="", **fields):
        place = folder / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / fields.pop("revision", "main")).write_text(digit * 40)
        snapshot = place / "snapshots" / (digit * 40)
        if base:
            _adapter(snapshot, base, **fields)
        else:
            snapshot.mkdir(parents=True)
            (snapshot / "config.json").write_text("{}")

    return put


def test_another_commit_of_a_model_of_the_hub_is_other_data(tmp_path, cached):
    for name in ("some/lm", "some/judge", "some/values"):
        cached(name, "a")
    config = changed(
        stages=("solver:sft", "values:pav", "attack"),
        solver__backbone="some/lm",
        sft__init_from="backbone",
        pav__solver="some/values",
        attack__verifiers=("some/judge", "likelihood:some/lm"),
    )
    root = _begun(tmp_path / "run", config, "solver", "attack")
    cached("some/judge", "b")
    assert begin(config, root).again == ("attack",)
    cached("some/values", "b")  # nothing was learned from it
    assert not begin(config, root).again
    cached("some/lm", "b")
    with pytest.raises(WorkdirError) as error:
        plan(config, root)
    said = str(error.value)
    assert "results of solver with other data:" in said
    assert (
        f"solver.backbone, some/lm: there 'commit {'a' * 16}', now 'commit {'b' * 16}'"
    ) in said.replace('"', "'")


def test_another_commit_of_what_an_adapter_is_on_is_other_data(tmp_path, cached):
    cached("some/lm", "a", revision="v1")
    cached("some/adapter", "c", base="some/lm", revision="main")
    adapter = _adapter(tmp_path / "adapter", "some/lm", revision="v1")
    config = changed(
        stages=("solver:sft", "warm:prm"),
        solver__backbone=str(adapter),
        prm__backbone="some/adapter",
    )
    cached("some/lm", "d")
    root = _begun(tmp_path / "run", config, "solver", "warm")
    cached("some/lm", "e")  # of its main branch, which one of them is on
    with pytest.raises(WorkdirError) as error:
        plan(config, root)
    assert "prm.backbone, some/adapter/base some/lm: " in str(error.value)
    assert "solver.backbone" not in str(error.value)
    cached("some/lm", "f", revision="v1")
    with pytest.raises(WorkdirError, match=r"solver\.backbone, some/lm@v1: "):
        plan(config, root)


def test_models_that_nobody_has_fetched_are_not_looked_for_twice(tmp_path, cached):
    config = changed(stages=("solver:sft",), solver__backbone="some/lm")
    root = _begun(tmp_path / "run", config, "solver")
    cached("some/lm", "a")
    assert not begin(config, root).again  # known from now on
    cached("some/lm", "b")
    with pytest.raises(WorkdirError, match=r"solver\.backbone, some/lm"):
        plan(config, root)


@pytest.fixture
def on_questions(tmp_path):
    """Searches and an attack on problems of files: the run, its config, the files."""
    files = {name: tmp_path / f"{name}.jsonl" for name in ("train", "test", "own")}
    for name, path in files.items():
        path.write_text(f"of {name}\n")
    config = changed(
        domain__name="questions",
        domain__train=str(files["train"]),
        domain__test=str(files["test"]),
        stages=("search", "asked:search", "attack"),
    )
    with config.unlocked():
        config.overrides = {}
    override(config, "asked", {"search.questions": str(files["own"])})
    root = tmp_path / "run"
    root.mkdir()
    begin(config, root)
    for name, job in stages(config):
        (root / name).mkdir()
        (root / name / jobs()[job].outputs[0]).write_text(f"of {name}")
        mark_done(root / name, {})
    return root, config, files


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("train", ("search", "attack")),
        ("test", ("search", "attack")),
        ("own", ("asked",)),
    ],
)
def test_searches_and_attacks_on_other_problems_are_made_again(
    on_questions, name, again
):
    root, config, files = on_questions
    assert not begin(config, root).again
    files[name].write_text("others\n")
    assert begin(config, root).again == again
    assert not begin(config, root).again
