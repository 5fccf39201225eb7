"""Job records: found by themselves, complete, and one file each."""

import importlib

from aprm_jax.config import default_config, jobs, schema, validate
from aprm_jax.config.job import Lazy
from aprm_jax.data.prompts import REASONS
from aprm_jax.jobs import pipeline, records, usage
from aprm_jax.training.workdir import done_info

TOY = '''
"""`toy`: says a word."""

import dataclasses

from aprm_jax.config.job import Job
from aprm_jax.config.setting import setting


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """A toy."""

    word: str = setting("hello", "what it says")


JOB = Job(
    name="toy",
    place=5,
    purpose="say a word",
    group="toy",
    settings=ToyConfig,
    run=lambda context: {"said": context.config.toy.word},
    needs=(),
)
'''


def test_a_job_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(records, "__path__", [*records.__path__, str(tmp_path)])
    cached = (jobs, schema.config_class, schema.settings)
    try:
        for function in cached:
            function.cache_clear()
        config = default_config()
        config.stages = ("one:toy",)
        config.toy.word = "hi"
        pipeline.run(validate(config), tmp_path / "run")
        assert done_info(tmp_path / "run" / "one")["said"] == "hi"
        assert "say a word" in usage.text()
    finally:
        for function in cached:
            function.cache_clear()


def test_what_records_import_later_is_there():
    for job in jobs().values():
        lazy = [f for f in vars(job).values() if isinstance(f, Lazy)]
        assert lazy, job.name
        for function in lazy:
            module, _, name = function.place.partition(":")
            assert callable(
                getattr(importlib.import_module(f"aprm_jax.jobs.{module}"), name)
            )
        assert bool(job.length) == bool(job.charts)


def test_the_game_shows_every_reason_for_which_a_reply_is_no_step():
    drawn = {
        metric for chart in jobs()["aprm"].charts for metric in chart.lines.values()
    }
    assert {m for m in drawn if m.startswith("reply/")} == {
        f"reply/{reason}" for reason in REASONS
    }
