"""What may run at the same time: read from configs alone."""

import pytest
from command import REPOSITORY

from aprm_jax.config import default_config, read_config_file, stages, validate
from aprm_jax.jobs.schedule import Schedule, Task


def schedule(config):
    checked = validate(config)
    return Schedule(checked, stages(checked))


def names(tasks):
    return [task.piece or task.stage for task in tasks]


def done_in_turn(found):
    """Names of the tasks that are ready at a time, whenever all of them end at once."""
    open_, waves = set(found.tasks), []
    while open_:
        ready = found.ready(open_, set())
        waves.append(names(ready))
        open_ -= set(ready)
    return waves


def test_stages_wait_for_what_they_start_from_and_for_nothing_else():
    found = schedule(read_config_file(REPOSITORY / "configs/quickstart.py"))
    splits = ["test", "longer", "larger", "worded", "test@foreign"]
    assert done_in_turn(found) == [
        ["solver"],
        # First what the game, and so the longest work, waits for.
        [
            *("generator", "prm_warmup", "foreign"),
            *(f"samples_{split}" for split in splits[:-1]),
        ],
        ["aprm", "prm_static", "samples_test@foreign"],
        ["thresholds", "attack_prm_static", "attack_aprm"],
        splits,
        ["evaluate"],
        ["report"],
    ]
    assert found.width() == 7
    alone = [task for task in found.tasks if found.alone(task)]
    assert names(alone) == ["solver", "evaluate", "report"]


def test_what_runs_beside_nothing_waits_for_all_and_all_for_it():
    config = default_config()
    config.stages = ("solver:sft", "other:sft", "report", "late:sft")
    found = schedule(config)
    assert done_in_turn(found) == [["solver", "other"], ["report"], ["late"]]
    assert found.width() == 2


def test_what_is_running_does_not_start_again():
    config = default_config()
    config.stages = ("a:sft", "b:sft")
    found = schedule(config)
    a, b = Task("a", "sft"), Task("b", "sft")
    assert found.ready({a, b}, {a}) == [b]
    assert found.ready({a}, {a}) == []


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs").glob("*.py")))
def test_every_config_is_scheduled_whole_and_in_an_order_that_runs_it(file):
    config = validate(read_config_file(file, "runlocal"))
    found = Schedule(config, stages(config))
    place = {task: k for k, wave in enumerate(done_tasks(found)) for task in wave}
    assert set(place) == set(found.tasks)
    from aprm_jax.config import for_stage, jobs

    for stage, job in stages(config):
        for _, source in jobs()[job].sources(for_stage(config, stage)):
            name = source.partition("/")[0]
            for earlier, of in stages(config):
                if earlier == name:
                    before = place[Task(earlier, of)]
                    assert before < place[Task(stage, job)], (stage, source)


def done_tasks(found):
    open_ = set(found.tasks)
    while open_:
        ready = found.ready(open_, set())
        yield ready
        open_ -= set(ready)
