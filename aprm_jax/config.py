"""The schema of every config: each field with its unit or consequence.

A file under `configs/` starts from `default_config()` and changes what it needs. The
result is locked: a misspelt or ill-typed field fails before anything is compiled, and
`validate` checks what types cannot say.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

JOBS = ("prepare", "sft", "prm", "aprm", "evaluate", "export", "report")
DOMAINS = ("arithmetic", "gsm8k", "labelled")
ORACLES = ("calculator", "text")  # of the text domain
READINGS = ("token", "two_class", "three_class")
PRM_OBJECTIVES = ("expected", "ppo", "cross_entropy")
NEGATIVES = ("static", "monte_carlo", "oracle", "labels")
NEUTRAL = ("correct", "incorrect", "ignore", "class")
PREPARED_LABELS = ("hard", "soft", "three_class")
CONTAMINATED = ("drop", "refuse")
ADVANTAGES = ("group", "gae")
EXPORT_FORMATS = (
    "auto",
    "causal_lm",
    "token_classification",
    "qwen2_prm",
    "skywork",
    "peft",
    "merged",
)
AGGREGATIONS = ("min", "product", "mean", "last")


_NOTHING = ml_collections.ConfigDict()


class ConfigError(ValueError):
    """A field of the config is wrong; the message names it and what would be right."""


def default_config() -> ml_collections.ConfigDict:
    """The full schema with its defaults: the embedded problems, small enough for a CPU.

    APRM's constants are not published; every value here is ours.
    """
    c = ml_collections.ConfigDict()
    c.name = "default"  # what the report calls the run
    c.job = "pipeline"  # "pipeline" runs all stages; a job's name runs its stages only
    c.seed = 0  # of training; evaluation problems do not depend on it
    c.stages = ("solver:sft", "prm_static:prm", "aprm:aprm", "evaluate", "report")
    c.overrides = ml_collections.ConfigDict()  # of stages' fields; see `override`
    c.compilation_cache = "auto"  # directory; "auto" = user's cache; "" = off
    c.log_every = 10  # steps between lines on the console

    c.domain = ml_collections.ConfigDict()
    c.domain.name = "arithmetic"  # one of DOMAINS
    c.domain.train = ""  # gsm8k: JSONL path, "datasets:NAME" or "tfds:NAME"
    # labelled: "READER:SOURCE", a reader of data/readers and a path or name
    c.domain.test = ""  # gsm8k: the same for the test split
    c.domain.model_solutions = ""  # gsm8k: JSONL of graded model solutions, "" = none
    c.domain.processbench = ""  # gsm8k: ProcessBench, a path or a name; "" = none
    c.domain.vocab_size = 2048  # gsm8k, labelled: BPE tokens
    c.domain.dev_count = 500  # training questions held out as the dev split
    c.domain.strip_annotations = False  # gsm8k: drop <<a*b=c>>; the oracle knows less
    # gsm8k: "calculator" reads <<a*b=c>> and bare sums, "text" LaTeX and formulas too
    c.domain.oracle = "calculator"
    c.domain.oracle_workers = 2  # "text": processes that compare formulas; 0 = none
    c.domain.max_bad_share = 0.01  # share of malformed rows past which a job stops

    c.builder = ml_collections.ConfigDict()
    c.builder.window = 1  # lines before a step that it may see; 0 = all
    c.builder.line_stride = 32  # lines start at its multiples; 0 = contiguous positions
    # Row lengths in tokens; longer rows are left out.
    c.builder.buckets = (24, 32, 40, 48, 64, 128)
    c.builder.max_steps = 8  # most steps of a solution; a sampled one is cut there
    c.builder.max_new_tokens = 16  # longest sampled step, its <step> included

    c.model = ml_collections.ConfigDict()
    c.model.d_model = 128
    c.model.num_layers = 2
    c.model.num_heads = 8  # many small ones: each copies from another distance
    c.model.num_kv_heads = 8
    c.model.head_dim = 16
    c.model.d_ff = 512
    c.model.rope_theta = 10_000.0
    c.model.tie_embeddings = True
    c.model.dtype = "float32"  # of activations; bfloat16 gains nothing on a CPU
    c.model.param_dtype = "float32"  # of a backbone's frozen base; with lora.rank alone
    c.model.remat = False  # recompute layers in the backward pass: memory for time

    # Models of Hugging Face, a local folder or the name of one on the hub, in place of
    # a decoder from scratch (c.model) with the domain's tokenizer; "" = from scratch.
    c.solver = ml_collections.ConfigDict()
    c.solver.backbone = ""
    c.generator = ml_collections.ConfigDict()
    c.generator.backbone = ""

    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = -1  # devices along the batch; -1 = all that are left
    c.mesh.fsdp = 1  # devices that parameters are sharded over, batch too
    c.mesh.tensor = 1  # devices that heads and feed-forward are sharded over

    c.checkpoint = ml_collections.ConfigDict()
    c.checkpoint.every = 100  # steps
    c.checkpoint.keep_last = 2
    c.checkpoint.step = -1  # resume from this step; -1 = the newest complete one
    c.checkpoint.max_nonfinite = 5  # non-finite updates in a row before the job stops

    c.metrics = ml_collections.ConfigDict()
    c.metrics.tensorboard = True
    c.metrics.wandb = ""  # project name; "" = off

    c.prepare = ml_collections.ConfigDict()
    # "READER:SOURCE" each: one of data/readers, and a path or name ("" = the hub's)
    c.prepare.sources = ()
    c.prepare.against = ()  # the same: evaluation sets whose questions must stay out
    c.prepare.contaminated = "drop"  # what overlaps them is one of CONTAMINATED
    c.prepare.ngram = 10  # words of the n-grams that two questions may share
    c.prepare.max_overlap = 0.5  # share of common n-grams that is an overlap
    c.prepare.label = "soft"  # one of PREPARED_LABELS; "soft" = as the source says
    c.prepare.dev_share = 0.02  # share of the questions in the split "dev"
    c.prepare.max_tokens = 0  # longer solutions are left out; 0 = the longest bucket
    c.prepare.rows_per_file = 16384  # solutions of one ArrayRecord file, at most

    c.sft = ml_collections.ConfigDict()
    c.sft.task = "solve"  # "solve": next step; "perturb": the Generator's format
    c.sft.init_from = ""  # stage or directory of a model; "" = from scratch
    c.sft.data = ""  # solve: a prepare stage or its folder; "" = the domain's corpus
    c.sft.updates = 3500
    # Solutions (solve), perturbations (perturb) or packed rows (data, labelled) an
    # update.
    c.sft.batch_size = 16
    c.sft.learning_rate = 1.5e-3
    c.sft.warmup = 100  # updates
    c.sft.weight_decay = 0.01
    c.sft.clip_norm = 1.0
    c.sft.solver_share = 1.0  # perturb: share of targets that are the solver's own
    # wrong samples (the oracle says so); the rest are static corruptions
    c.sft.pool = 2048  # perturb: how many such samples are drawn, once

    c.prm = ml_collections.ConfigDict()
    c.prm.backbone = ""  # as solver.backbone; existing PRMs too
    c.prm.init_from = "solver"  # a solver's backbone, or a PRM to go on from
    c.prm.reading = "token"  # one of READINGS
    c.prm.negatives = "static"  # one of NEGATIVES
    c.prm.data = ()  # labels: "READER:SOURCE" each; () = the labelled domain's own
    c.prm.soft = False  # labels: a label between 0 and 1 stays as it is; else rounded
    c.prm.neutral = "correct"  # labels: what a neutral rating is, one of NEUTRAL
    c.prm.balance = True  # labels: every class has the same weight in the loss
    c.prm.updates = 400
    c.prm.batch_size = 64  # an update: steps, half of them clean; labels: packed rows
    c.prm.objective = "cross_entropy"  # one of PRM_OBJECTIVES
    c.prm.learning_rate = 1e-3
    c.prm.warmup = 20  # updates
    c.prm.b1 = 0.5  # Adam's momentum; with 0.9 optimism is lost (game/ogda.py)
    c.prm.b2 = 0.99
    c.prm.clip_norm = 1.0
    c.prm.beta = 0.0  # weight of KL(R || R_ref)
    c.prm.eta = 0.0  # weight of R's entropy
    c.prm.pool_problems = 400  # monte_carlo, oracle: problems the solver is sampled on
    c.prm.pool_samples = 4  # monte_carlo, oracle: solutions a problem
    c.prm.mc_completions = 8  # monte_carlo: completions from every prefix
    c.prm.mc_soft = True  # monte_carlo: label = share of right completions, else > 0
    c.prm.solver = "solver"  # stage or directory of the solver that is sampled

    c.lora = ml_collections.ConfigDict()  # of the game's players; see models/lora.py
    c.lora.rank = 0  # 0 = no adapters: all parameters are trained
    c.lora.alpha = 32.0  # the adapter's product is scaled by alpha / rank
    c.lora.targets = ""  # regex over "layers/attention/q/kernel"; "" = all linear maps

    c.prompt = ml_collections.ConfigDict()  # of instruction models; see data/prompts.py
    c.prompt.generator = ""  # {question} {prefix} {step}; "" = the default there

    c.game = ml_collections.ConfigDict()
    c.game.generator_from = "generator"  # stage or directory G starts from
    c.game.prm_from = "prm_warmup"  # stage or directory R starts from
    c.game.updates = 300  # rounds: one joint update each
    c.game.freeze_generator = False  # True: the frozen-Generator baseline
    c.game.groups = 24  # (Q, S, s) a round
    c.game.group_size = 8  # perturbations of each
    c.game.generator_rows = 96  # distinct perturbations G learns from a round, at most
    c.game.prm_clean = 24  # R's rows a round: clean correct steps
    c.game.prm_fresh = 24  # ... fresh perturbations
    c.game.prm_replay = 16  # ... replayed perturbations
    c.game.static_probe = 16  # static corruptions R is measured on, never trained on
    c.game.replay_capacity = 4096  # perturbations kept
    c.game.advantage = "group"  # one of ADVANTAGES
    c.game.normalise_advantage = False  # divide by the batch's standard deviation
    c.game.gae_lambda = 0.95
    c.game.gamma = 1.0
    c.game.value_weight = 0.5  # of the value loss (gae)
    c.game.clip_ratio = 0.2  # PPO's epsilon
    c.game.epochs = 1  # more than one and optimism loses its meaning
    c.game.beta_generator = 0.05  # weight of KL(G || G_ref), per token, in reward units
    c.game.eta_generator = 0.005  # weight of G's entropy
    c.game.beta_prm = 0.05  # weight of KL(R || R_ref)
    c.game.eta_prm = 0.05  # weight of R's entropy
    c.game.prm_objective = "cross_entropy"  # one of PRM_OBJECTIVES
    c.game.generator_learning_rate = 1e-3
    c.game.prm_learning_rate = 1e-3
    c.game.warmup = 10  # rounds
    c.game.b1 = 0.0  # Adam's momentum in the game
    c.game.b2 = 0.99
    c.game.clip_norm = 1.0
    c.game.optimistic = True  # False: plain simultaneous Adam, an ablation
    c.game.sample_log = 25  # rounds between logged perturbations

    c.game.rewards = ml_collections.ConfigDict()  # README's table; ours
    c.game.rewards.generator_fooled = 1.0  # s' incorrect, R says correct
    c.game.rewards.generator_caught = -1.0  # s' incorrect, R says incorrect
    c.game.rewards.generator_still_correct = -1.0  # s' correct
    c.game.rewards.prm_right = 1.0
    c.game.rewards.prm_wrong = 0.0

    c.evaluate = ml_collections.ConfigDict()
    c.evaluate.solver = "solver"  # "" = none: no splits, no row of its likelihood
    c.evaluate.prms = ("prm_static", "aprm")  # stages or directories
    c.evaluate.splits = ("test", "longer", "larger", "worded")
    c.evaluate.problems = 200  # a split
    c.evaluate.samples = (8,)  # N of best-of-N; the largest is sampled
    c.evaluate.aggregations = ("min", "product", "mean", "last")
    c.evaluate.temperature = 1.0
    c.evaluate.attack_prms = ("prm_static", "aprm")  # robustness; () = none
    c.evaluate.attack_learning_rate = 2e-3
    c.evaluate.attack_updates = 40  # budget of the fresh attacker, rounds
    c.evaluate.graded = 0  # gsm8k: solutions of domain.model_solutions; 0 = all
    c.evaluate.bootstrap = 2000  # resamples
    # labelled: what verifiers are measured on, "NAME=READER:SOURCE" each
    c.evaluate.sets = ()
    c.evaluate.neutral = "correct"  # labelled: what a neutral rating is; not "class"
    # labelled: scores of other PRMs, "NAME=PATH" each; see evals/scores_file.py
    c.evaluate.scores = ()

    c.export = ml_collections.ConfigDict()
    c.export.model = ""  # "aprm", "aprm/generator", another stage, or a model's folder
    c.export.format = "auto"  # one of EXPORT_FORMATS; "auto" = by the kind of model
    c.export.directory = ""  # "" = in the stage's folder
    c.export.max_shard_size = 5000  # MB of one file of weights
    c.export.push_to_hub = ""  # user/name on the hub; "" = nowhere
    c.export.private = True  # of a repository that is made

    c.report = ml_collections.ConfigDict()
    c.report.title = ""  # "" = the config's name
    return c.lock()


def read_config_file(
    path: str | os.PathLike[str], arg: str = ""
) -> ml_collections.ConfigDict:
    """What `get_config(arg)` of a config file returns; one file may start from another.

    Raises:
      ConfigError: there is no such file.
    """
    spec = importlib.util.spec_from_file_location("aprm_jax_config_file", path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise ConfigError(f"{os.fspath(path)}: no such config file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def check_arg(arg: str, allowed: tuple[str, ...] = ("", "runlocal")) -> None:
    """Refuses what stands after FILE: unless the file knows it."""
    if arg not in allowed:
        names = [name for name in allowed if name]
        raise ConfigError(
            f"this config file takes {' or '.join(map(repr, names))} after its "
            f"colon, not {arg!r}.{nearest(arg, names)}"
        )


def run_local(config: ml_collections.ConfigDict) -> None:
    """Cuts every stage until all of them run in under a minute on two CPU cores.

    Every branch still runs; what comes out means nothing.
    """
    small = {
        "log_every": 10,
        "checkpoint.every": 10,
        "checkpoint.keep_last": 1,
        "metrics.tensorboard": False,
        # Each length is a program to compile: most of the time goes there.
        "builder.buckets": config.builder.buckets[-2:],
        "model.d_model": 32,
        "model.num_layers": 1,
        "model.num_heads": 2,
        "model.num_kv_heads": 1,
        "model.head_dim": 16,
        "model.d_ff": 64,
        "sft.updates": 60,
        "sft.batch_size": 32,
        "sft.learning_rate": 1e-2,
        "sft.warmup": 5,
        "sft.pool": 16,
        "prm.updates": 10,
        "prm.batch_size": 16,
        "prm.warmup": 2,
        "prm.pool_problems": 32,
        "prm.pool_samples": 4,
        "prm.mc_completions": 2,
        "game.updates": 10,
        "game.groups": 4,
        "game.group_size": 4,
        "game.generator_rows": 16,
        "game.prm_clean": 8,
        "game.prm_fresh": 8,
        "game.prm_replay": 4,
        "game.static_probe": 4,
        "game.replay_capacity": 64,
        "game.warmup": 2,
        "game.sample_log": 5,
        "evaluate.problems": 12,
        "evaluate.samples": tuple(min(n, 4) for n in config.evaluate.samples[:1]),
        "evaluate.attack_updates": 2,
        "evaluate.bootstrap": 100,
    }
    for name, value in small.items():
        set_field(config, name, value)
    for stage, changed in config.overrides.items():
        # What a stage switches off (0) stays off.
        cut = {k: small[k] for k, v in flat(changed).items() if k in small and v}
        override(config, stage, cut)


def flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Dotted field name -> value, in the schema's order."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, ml_collections.ConfigDict) and name != "overrides":
            out.update(flat(value, f"{name}."))
        else:
            out[name] = value.to_dict() if name == "overrides" else value
    return out


def override(
    config: ml_collections.ConfigDict, stage: str, fields: Mapping[str, Any]
) -> None:
    """Sets dotted fields for one stage alone.

    They are kept nested: `override(c, "generator", {"sft.updates": 300})` may be
    changed again by `--config.overrides.generator.sft.updates=200`.
    """
    checked = config.copy_and_resolve_references()
    with config.unlocked():
        for name, value in fields.items():
            set_field(checked, name, value)
            *path, leaf = f"{stage}.{name}".split(".")
            node = config.overrides
            for key in path:
                if key not in node:
                    node[key] = ml_collections.ConfigDict()
                node = node[key]
            node[leaf] = flat(checked)[name]


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the closest of `names`, or nothing."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def set_field(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets a dotted field; an unknown name or another type is a ConfigError."""
    known = flat(config)
    if name not in known:
        raise ConfigError(f"unknown config field {name!r}.{nearest(name, list(known))}")
    old = known[name]
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(old) is not type(value):
        raise _wrong_type(name, old, value)
    *path, leaf = name.split(".")
    node = config
    for key in path:
        node = node[key]
    with node.unlocked():
        node[leaf] = value


def stages(config: ml_collections.ConfigDict) -> list[tuple[str, str]]:
    """The pipeline as (stage name, job): `"solver:sft"`, or a job's name alone."""
    out = []
    for stage in config.stages:
        name, _, job = str(stage).partition(":")
        job = job or name
        if job not in JOBS:
            raise ConfigError(
                f"stages: {stage!r} runs no known job; "
                f"jobs are {', '.join(JOBS)}.{nearest(job, list(JOBS))}"
            )
        out.append((name, job))
    names = [name for name, _ in out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"stages: {twice[0]!r} stands there twice")
    return out


def for_stage(
    config: ml_collections.ConfigDict, stage: str
) -> ml_collections.ConfigDict:
    """The config with a stage's overrides applied."""
    out = config.copy_and_resolve_references()
    for name, value in flat(config.overrides.get(stage, _NOTHING)).items():
        set_field(out, name, value)
    return out


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks what types cannot say.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
    names = [name for name, _ in stages(config)]
    if config.job not in (*JOBS, "pipeline"):
        _one_of("job", config.job, (*JOBS, "pipeline"))
    for stage in config.overrides:
        if stage not in names:
            raise ConfigError(
                f"overrides: no stage is called {stage!r}.{nearest(stage, names)}"
            )
    _check_schema(config)
    _validate_one(config)
    for stage in config.overrides:
        try:
            _validate_one(for_stage(config, stage))
        except ConfigError as error:
            raise ConfigError(f"overrides.{stage}: {error}") from error


def _check_schema(config: ml_collections.ConfigDict) -> None:
    """Every field of the schema is there, of its type, and no other."""
    schema, values = flat(default_config()), flat(config)
    for name in values:
        if name not in schema:
            raise ConfigError(
                f"unknown config field {name!r}.{nearest(name, list(schema))}"
            )
    for name, default in schema.items():
        if name not in values:
            raise ConfigError(f"config field {name!r} is missing")
        value = values[name]
        if type(value) is not type(default):
            raise _wrong_type(name, default, value)
        if isinstance(default, tuple) and default:
            item = next((v for v in value if type(v) is not type(default[0])), None)
            if item is not None:
                raise ConfigError(
                    f"config field {name!r} takes a tuple of "
                    f"{type(default[0]).__name__} (default {default!r}), and {item!r} "
                    "is none"
                )


def _wrong_type(name: str, default: Any, value: Any) -> ConfigError:
    return ConfigError(
        f"config field {name!r} takes {type(default).__name__} "
        f"(default {default!r}), not {type(value).__name__} {value!r}"
    )


def _validate_one(c: ml_collections.ConfigDict) -> None:
    _one_of("domain.name", c.domain.name, DOMAINS)
    _one_of("domain.oracle", c.domain.oracle, ORACLES)
    if c.domain.oracle == "text" and c.domain.name != "gsm8k":
        raise ConfigError(
            f"domain.oracle='text' needs domain.name='gsm8k', not {c.domain.name!r}"
        )
    _at_least("domain.oracle_workers", c.domain.oracle_workers, 0)
    _one_of("sft.task", c.sft.task, ("solve", "perturb"))
    if c.sft.data and c.sft.task != "solve":
        raise ConfigError(f"sft.data={c.sft.data!r} needs sft.task='solve'")
    _one_of("prepare.label", c.prepare.label, PREPARED_LABELS)
    _one_of("prepare.contaminated", c.prepare.contaminated, CONTAMINATED)
    if not 0 < c.prepare.max_overlap <= 1:
        raise ConfigError(
            f"prepare.max_overlap is a share in (0, 1], not {c.prepare.max_overlap!r}"
        )
    _at_least("prepare.max_tokens", c.prepare.max_tokens, 0)
    _one_of("prm.reading", c.prm.reading, READINGS)
    _one_of("prm.negatives", c.prm.negatives, NEGATIVES)
    _one_of("prm.objective", c.prm.objective, PRM_OBJECTIVES)
    _one_of("prm.neutral", c.prm.neutral, NEUTRAL)
    _one_of("evaluate.neutral", c.evaluate.neutral, NEUTRAL[:-1])
    _validate_labels(c)
    _one_of("game.prm_objective", c.game.prm_objective, PRM_OBJECTIVES)
    _one_of("game.advantage", c.game.advantage, ADVANTAGES)
    _one_of("export.format", c.export.format, EXPORT_FORMATS)
    for name in ("dtype", "param_dtype"):
        _one_of(f"model.{name}", c.model[name], ("float32", "bfloat16"))
    _validate_backbones(c)
    for name in c.evaluate.aggregations:
        _one_of("evaluate.aggregations", name, AGGREGATIONS)
    _at_least("builder.window", c.builder.window, 0)
    _at_least("lora.rank", c.lora.rank, 0)
    if not c.lora.alpha > 0:
        raise ConfigError(f"lora.alpha must be positive, not {c.lora.alpha!r}")
    try:
        re.compile(c.lora.targets)
    except re.error as error:
        raise ConfigError(
            f"lora.targets is no regular expression: {c.lora.targets!r}: {error}"
        ) from None
    buckets = c.builder.buckets
    if not buckets or list(buckets) != sorted(set(buckets)):
        raise ConfigError(f"builder.buckets must ascend, not {buckets!r}")
    if c.model.num_heads % c.model.num_kv_heads:
        raise ConfigError(
            f"model.num_kv_heads ({c.model.num_kv_heads}) must divide "
            f"model.num_heads ({c.model.num_heads})"
        )
    positive = (
        "model.d_model model.num_layers model.num_heads model.num_kv_heads "
        "model.head_dim model.d_ff builder.max_steps builder.max_new_tokens "
        "sft.updates sft.batch_size sft.pool prm.updates prm.batch_size "
        "game.updates game.groups game.group_size game.generator_rows "
        "game.prm_clean game.prm_fresh game.replay_capacity game.epochs "
        "checkpoint.every checkpoint.keep_last checkpoint.max_nonfinite "
        "export.max_shard_size "
        "evaluate.problems evaluate.bootstrap evaluate.attack_updates log_every "
        "domain.dev_count prepare.ngram prepare.rows_per_file"
    )
    values = flat(c)
    for name in positive.split():
        _at_least(name, values[name], 1)
    for name in ("sft.solver_share", "domain.max_bad_share", "prepare.dev_share"):
        if not 0 <= values[name] <= 1:
            raise ConfigError(f"{name} is a share in [0, 1], not {values[name]!r}")
    for name, value in values.items():
        if name.endswith(("learning_rate", "temperature")) and not value >= 0:
            raise ConfigError(f"{name} must not be negative, is {value!r}")
    if not c.evaluate.samples or min(c.evaluate.samples) < 1:
        raise ConfigError(
            f"evaluate.samples lists the n of best-of-n, not {c.evaluate.samples!r}"
        )
    if c.game.advantage == "group" and c.game.group_size < 2:
        raise ConfigError(
            "game.group_size must be at least 2 for game.advantage='group', "
            f"not {c.game.group_size}"
        )


def _validate_labels(c: ml_collections.ConfigDict) -> None:
    """What stages on labelled solutions need of each other's fields."""
    if (c.prm.neutral == "class") != (c.prm.reading == "three_class"):
        raise ConfigError(
            f"prm.neutral={c.prm.neutral!r} and prm.reading={c.prm.reading!r}: a class "
            "of neutral steps needs prm.neutral='class' and prm.reading='three_class'"
        )
    plain = c.prm.objective == "cross_entropy" and c.prm.beta == c.prm.eta == 0
    if c.prm.reading == "three_class" and not plain:
        raise ConfigError(
            "prm.reading='three_class' learns by cross-entropy alone: "
            "prm.objective='cross_entropy', prm.beta=0 and prm.eta=0"
        )
    for field in ("evaluate.sets", "evaluate.scores"):
        entries = flat(c)[field]
        if entries and c.domain.name != "labelled":
            raise ConfigError(f"{field} needs domain.name='labelled'")
        for entry in entries:
            name, _, source = str(entry).partition("=")
            if not name or not source or not name.replace("_", "").isalnum():
                raise ConfigError(
                    f"{field}: {entry!r} must be NAME=SOURCE, the name of letters, "
                    "digits and underscores"
                )
        names = [str(entry).partition("=")[0] for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"{field}: {twice[0]!r} stands there twice")


def _validate_backbones(c: ml_collections.ConfigDict) -> None:
    """What models of Hugging Face need of other fields."""
    named = [r for r in ("solver", "generator", "prm") if c[r].backbone]
    if named and c.builder.line_stride:
        raise ConfigError(
            f"{named[0]}.backbone was trained on contiguous positions: set "
            f"builder.line_stride=0, not {c.builder.line_stride}"
        )
    if c.model.param_dtype != "float32" and not (named and c.lora.rank):
        raise ConfigError(
            f"model.param_dtype={c.model.param_dtype!r}: small updates would be lost "
            "in it. It is for the frozen base of lora.rank > 0 on a backbone"
        )
    if c.evaluate.splits and not c.evaluate.solver and c.domain.name != "labelled":
        raise ConfigError("evaluate.splits needs evaluate.solver, or set both empty")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{name} must be one of {', '.join(allowed)}; it is {value!r}."
            f"{nearest(str(value), list(allowed))}"
        )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, not {value!r}")
