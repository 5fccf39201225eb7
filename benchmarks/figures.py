"""The figures of the results: what each is made of, and what of it is published.

`headline.py` makes them. A figure's arms are read off its config, so an arm that a
config has gained since is one that its results lack.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compare_table import ROOT

from aprm_jax.config import flat, read_config_file, set_field, stages

RESULTS = ROOT / "benchmarks/results"
ALL = "all of it"  # lacks what nobody has measured
Config = Any


def _no_arms(config: Config) -> Iterable[str]:
    return ()


@dataclasses.dataclass(frozen=True)
class Figure:
    """Runs of one config, what they leave, and the table that is made from it.

    Attributes:
      shows: what, in a few words.
      config: of a run; "{needs}" is the run of the same seed that it starts from. ""
        for a figure that one script makes.
      fields: of the config, that the command sets.
      seeds: how many are wanted where none are asked for.
      results: what runs leave, below benchmarks/results: with "{seed}" a file a seed,
        else one of all seeds.
      arms: of a config, what its runs compare.
      found: where the results have an arm: keys, one inside the other, by "|", with
        "{arm}" and "{seed}"; a last key that ends in "*" is the beginning of one.
      collect: writes a seed's results, from "{run}".
      pool: writes those of all seeds at once, from "{runs}", the runs of "{seeds}"
        that "{command}" made.
      own: where a `pool` that makes the runs itself has one, below "{folder}"; only
        what they cost is read there.
      tables: makes the table, from the results alone.
      needs: the figure whose models its runs start from.
      data: environment variables of folders that must exist.
    """

    shows: str
    config: str = ""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: int = 5
    results: str = ""
    arms: Callable[[Config], Iterable[str]] = _no_arms
    found: str = ""
    collect: str = ""
    pool: str = ""
    own: str = ""
    tables: str = ""
    needs: str = ""
    data: tuple[str, ...] = ()


def _staged(pattern: str) -> Callable[[Config], list[str]]:
    """The group of every stage's name that is like this, the last of several once."""

    def arms(config: Config) -> list[str]:
        found = (re.fullmatch(pattern, name) for name, _ in stages(config))
        return list(dict.fromkeys(match[1] for match in found if match))

    return arms


def _evaluated(config: Config) -> Iterable[str]:
    return [name for name in config.evaluate.prms if "/" not in name]


def _attacked(config: Config) -> Iterable[str]:
    return [Path(model).parent.name for model in config.attack.verifiers]


_GAMES = r"(?!prm_warmup)(a?prm\w*)"
_TAUGHT = r"rl_(.+?)(?:_\d+)?"


def _a_seed(script: str, **more: Any) -> dict[str, Any]:
    """Of a script that keeps a file a seed."""
    return {"collect": f"{script} collect {{run}}", "tables": f"{script} tables"} | more


def _pooled(script: str, **more: Any) -> dict[str, Any]:
    """Of a script that reads the runs of all seeds, or else of their results."""
    return {"pool": f"{script} --command={{command}} {{runs}}", "tables": script} | more


def _smollm2(part: str, arms: Sequence[str]) -> Figure:
    """A part of the benchmark, which leaves it in the file of all."""
    data = {"prm": ("APRM_PRM800K_DIR",)}.get(part, ("APRM_GSM8K_DIR",))
    return Figure(
        f"a pretrained language model: {_SMOLLM2[part]}",
        config=f"benchmarks/smollm2.py:{part}",
        seeds=1,
        results="smollm2.json",
        arms=lambda config: arms,
        found=f"{part}|{{arm}}" if part == "memory" else f"{part}|stages|{{arm}}",
        pool=f"smollm2.py --workdir={{folder}}/smollm2 --only={part} --publish",
        own=f"smollm2/{part}/run",
        tables="smollm2_table.py",
        data=(*data, "APRM_PRM800K_DIR") if part == "game" else data,
    )


def _provers(config: Config) -> Iterable[str]:
    from didactic import GAMMAS

    return ["outcomes", *(f"gamma {gamma}" for gamma in GAMMAS if gamma)]


_SMOLLM2 = {
    "memory": "what it takes",
    "prm": "R on human labels",
    "game": "G against that R",
}
_RL = _a_seed("rl.py", arms=_staged(_TAUGHT), found="arms|{arm}", needs="pressure")
FIGURES = {
    "quickstart": Figure(
        "README: APRM beside static corruptions, foreign solver",
        config="configs/quickstart.py",
        seeds=3,
        results="quickstart.json",
        pool="quickstart.py --runs={folder}/quickstart --seeds {seeds}",
        own="quickstart/seed_{seed}/run",
    ),
    "pressure": Figure(
        "accuracy against N, all PRMs alike mined; attackers",
        config="configs/pressure.py",
        results="pressure/seed_{seed}.json",
        arms=_staged(_GAMES),
        found="curves|test|{arm}.min",
        **_a_seed("pressure.py"),
    ),
    "drift": Figure(
        "what keeps a learning Generator from leaving the solver's errors behind",
        config="benchmarks/drift.py",
        seeds=3,
        results="drift.json",
        arms=lambda config: config.evaluate.prms,
        found="percent|{arm}|{seed}",
        collect="drift.py {run}",
    ),
    "hard_rows": Figure(
        "hard rows, tilted sampling, imitation, on dev",
        seeds=2,
        results="hard_rows.json",
    ),
    "arithmetic_facts": Figure(
        "how much of each split's arithmetic a game's problems hold",
        seeds=1,
        results="arithmetic_facts.json",
        pool="arithmetic_facts.py",
    ),
    "attack": Figure(
        "robustness of the same PRMs: a red team with oracle calls to spend",
        config="configs/attack.py:{needs}",
        results="attack/seed_{seed}.json",
        arms=_attacked,
        found="{arm}|robustness_score",
        needs="pressure",
        **_a_seed("attack.py"),
    ),
    "attack_drawn": Figure(
        "the same where the attacker does not imitate what fooled the PRM",
        config="configs/attack.py:{needs}",
        fields={"game.generator_replay": 0},
        seeds=1,
        results="attack/without_imitation_seed_{seed}.json",
        found="aprm|robustness_score",
        arms=lambda config: ("aprm",),
        collect="attack.py collect {run}",
        needs="pressure",
    ),
    "search_pressure": Figure(
        "the same PRMs under tree search; accuracy against FLOPs",
        config="configs/search_pressure.py:{needs}",
        seeds=3,
        results="search_pressure/seed_{seed}.json",
        arms=_staged("(.+)"),
        found="searches|{arm}/test",
        needs="pressure",
        **_a_seed("search_pressure.py"),
    ),
    "rl": Figure(
        "RL by verifier: which is deceived, and when",
        config="configs/rl_verifiers.py:{needs}",
        results="rl/seed_{seed}.json",
        **_RL,
    ),
    "rl_unfinished": Figure(
        "the same where a solution that never ends is paid",
        config="configs/rl_verifiers.py:{needs}",
        fields={"rl.pay.unfinished": True},
        results="rl_unfinished/seed_{seed}.json",
        **_RL,
    ),
    "rl_pav": Figure(
        "RL by progress: PAV refreshed, hardened, another prover, an ORM",
        config="configs/rl_pav.py:{needs}",
        results="rl_pav/seed_{seed}.json",
        **_RL,
    ),
    "pav": Figure(
        "search by progress beside Q and an ORM; alpha",
        config="benchmarks/pav.py:search:{needs}",
        seeds=3,
        results="pav/search_seed_{seed}.json",
        arms=_staged("(.+)"),
        found="searches|{arm}/test",
        needs="rl_pav",
        **_a_seed("pav.py"),
    ),
    "pav_labels": Figure(
        "rollouts against completions at equal budgets",
        config="benchmarks/pav.py:labels",
        results="pav/labels_seed_{seed}.json",
        arms=_staged("((?:value|bok)_.+)"),
        found="searches|{arm}/test",
        **_a_seed("pav.py"),
    ),
    "didactic": Figure(
        "the planted subsequence, provers of gamma 2 to 100",
        seeds=5,
        results="didactic.json",
        arms=_provers,
        found="curves|{arm}/{seed}",
        pool="didactic.py run",
        tables="didactic.py tables",
    ),
    "compare": Figure(
        "every baseline with its published settings; accuracy against compute",
        config="configs/compare.py",
        seeds=3,
        results="compare.json",
        arms=_evaluated,
        found="accuracy|test/{arm}.*",
        **_pooled("compare_table.py"),
    ),
    "naive_generator": Figure(
        "learning against frozen G from a naive start",
        config="configs/naive_generator.py:{needs}",
        results="naive_generator.json",
        arms=_evaluated,
        found="accuracy|test/{arm}.*",
        needs="compare",
        **_pooled("compare_table.py --name=naive_generator --by-seed"),
    ),
    "naive_pressure": Figure(
        "the same under pressure, with hard rows and imitation",
        config="configs/naive_pressure.py:{needs}",
        results="naive_pressure/seed_{seed}.json",
        arms=_staged(_GAMES),
        found="test|{arm}@*",
        needs="pressure",
        **_a_seed("naive_pressure.py"),
    ),
    "explore": Figure(
        "the same with a solver that helps G to errors",
        config="configs/explore.py:{needs}",
        results="explore/seed_{seed}.json",
        arms=_staged(r"(frozen_forced|forced|both)"),
        found="test|{arm}@*",
        needs="pressure",
        **_a_seed("explore.py"),
    ),
    "explore_targets": Figure(
        "PRMs of such games under attack, and as what RL learns from",
        config="configs/explore_targets.py",
        results="explore_targets/seed_{seed}.json",
        arms=_staged(r"attack_(.*)"),
        found="{arm}",
        **_a_seed("explore_targets.py"),
    ),
    "sizes": Figure(
        "three sizes of R against three of G",
        config="configs/sizes.py",
        seeds=3,
        results="sizes/seed_{seed}.json",
        arms=_evaluated,
        found="test|{arm}@*",
        **_a_seed("sizes.py"),
    ),
    "ablation": Figure(
        "APRM with one thing changed at a time",
        config="configs/ablation.py:{needs}",
        seeds=3,
        results="ablation.json",
        arms=_evaluated,
        found="rows|{arm}",
        needs="compare",
        **_pooled("ablation_table.py"),
    ),
    "rates": Figure(
        "the theory's rates: GDA, OGDA and Adam on matrix games",
        seeds=1,
        results="rates.json",
        pool="rates.py run",
        tables="rates.py tables",
    ),
    "prm800k": Figure(
        "human step labels: accuracy, precision, recall, F1; ProcessBench",
        config="configs/prm800k.py",
        seeds=3,
        results="prm800k.json",
        data=("APRM_PRM800K_DIR",),
        **_pooled("prm800k_table.py"),
    ),
    "prm800k_game": Figure(
        "that PRM in the game: human labels, and what a Generator writes",
        config="configs/prm800k_game.py",
        seeds=3,
        results="prm800k_game.json",
        data=("APRM_PRM800K_DIR",),
        **_pooled("prm800k_table.py --name=prm800k_game"),
    ),
    "smollm2_memory": _smollm2("memory", ("costs",)),
    "smollm2_prm": _smollm2("prm", ("prm", "evaluate")),
    "smollm2_game": _smollm2("game", ("generator", "aprm", "evaluate")),
    "gsm8k": Figure(
        "the game on GSM8K's steps",
        config="configs/gsm8k.py:drawn",
        seeds=1,
        results="gsm8k.json",
        arms=_evaluated,
        found="summary|solver.test.{arm}.*",
        data=("APRM_GSM8K_DIR",),
        **_pooled("gsm8k_table.py"),
    ),
    "mutations": Figure(
        "what becomes of a run in which a file is damaged",
        config="configs/quickstart.py:runlocal",
        seeds=1,
        results="mutations.json",
        pool="mutations.py {runs} --config=configs/quickstart.py:runlocal "
        "--out=benchmarks/results/mutations.json",
    ),
}


@functools.cache
def config_of(name: str) -> Config:
    """The config of a figure's runs; None where it has none.

    What a run starts from need not be there: an empty folder stands for it.
    """
    figure = FIGURES[name]
    if not figure.config:
        return None
    path, _, arg = figure.config.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        if figure.needs:
            _pretend(figure.needs, Path(folder))
        config = read_config_file(ROOT / path, arg.format(needs=folder))
    for field, value in figure.fields.items():
        set_field(config, field, value)
    return config


def _pretend(name: str, folder: Path) -> None:
    """What configs look for in the folder of a finished run."""
    config = config_of(name)
    for stage, _ in stages(config):
        model = folder / stage / "model/model.json"
        model.parent.mkdir(parents=True)
        model.touch()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))


def stages_of(name: str) -> list[str]:
    """The stages of a figure's runs."""
    config = config_of(name)
    return [stage for stage, _ in stages(config)] if config else []


def figure_of(run: Path) -> tuple[str, int]:
    """The figure that a run is of, and its seed; "" for none.

    Of several with one config's name, that whose fields are most like the run's.
    """
    settings = json.loads((run / "config.json").read_text())
    said = flat(settings)

    def alike(name: str) -> int:
        return sum(said.get(k) == v for k, v in flat(config_of(name)).items())

    names = [
        name
        for name, figure in FIGURES.items()
        if figure.config and settings["name"] == config_of(name).name
    ]
    return max(names, key=alike, default=""), settings["seed"]


def published(name: str, results: Path = RESULTS) -> list[int]:
    """The seeds whose results are there, whole or not."""
    figure = FIGURES[name]
    if "{seed}" not in figure.results:
        found = read(name, 0, results) or {}
        return sorted(found.get("seeds", ()))
    before, after = figure.results.split("{seed}")
    pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    files = (path.relative_to(results) for path in results.rglob("*.json"))
    found = (pattern.fullmatch(path.as_posix()) for path in files)
    return sorted(int(match[1]) for match in found if match)


def read(name: str, seed: int, results: Path = RESULTS) -> dict[str, Any] | None:
    """The results that hold a seed; None where there are none."""
    path = results / FIGURES[name].results.format(seed=seed)
    return json.loads(path.read_text()) if path.is_file() else None


def lacking(name: str, seed: int, results: Path = RESULTS) -> list[str]:
    """The arms of a seed that nobody has measured; `ALL` for a seed that is not there.

    Args:
      name: of the figure.
      seed: of the runs.
      results: the folder of what is published.
    """
    figure, found = FIGURES[name], read(name, seed, results)
    if found is None or seed not in found.get("seeds", (seed,)):
        return [ALL]
    arms = figure.arms(config_of(name))
    return [a for a in arms if not _has(found, figure.found, arm=a, seed=seed)]


def _has(found: Any, where: str, **names: Any) -> bool:
    """Whether nested results have what stands there."""
    for part in where.split("|"):
        key = part.format(**names)
        if key.endswith("*"):
            return any(other.startswith(key[:-1]) for other in found)
        if key not in found:
            return False
        found = found[key]
    return True
