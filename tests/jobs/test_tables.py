"""The names that a run's tables give to its verifiers."""

from aprm_jax.config import default_config, override, set_field
from aprm_jax.jobs import tables


def named(*prms, stages):
    config = default_config()
    set_field(config, "stages", ("solver:sft", *stages, "evaluate"))
    set_field(config, "evaluate.prms", prms)
    return config


def test_each_kind_of_prm_has_a_name_for_people():
    config = named("a", "b", "c", stages=("a:prm", "b:aprm", "c:aprm"))
    override(config, "b", {"game.freeze_generator": True})
    assert [v.name for v in tables.verifiers(config)] == [
        "likelihood of the solver",
        "PRM, static corruptions",
        "PRM, frozen Generator",
        "APRM",
    ]


def test_rows_of_one_kind_are_told_apart_by_their_stages():
    config = named("a", "b", "c", stages=("a:aprm", "b:prm", "c:aprm"))
    names = [v.name for v in tables.verifiers(config)]
    assert names[1:] == ["PRM, static corruptions", "APRM: a", "APRM: c"]


def test_a_model_of_another_run_has_the_name_of_its_folder():
    folder = "/somewhere/long/runs/first/aprm/model"
    config = named(folder, "b", stages=("b:aprm",))
    (found,) = [v for v in tables.verifiers(config) if v.key == folder]
    assert found.name == "PRM first/aprm"
