"""The schema of every config: each field with its unit or consequence."""

from __future__ import annotations

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


def default_config() -> ml_collections.ConfigDict:
    """The full schema with its defaults: the embedded problems, small enough for a CPU.

    APRM's constants are not published; every value here is ours.
    """
    c = ml_collections.ConfigDict()
    _run(c)
    _models(c)
    _learning(c)
    _game(c)
    _measuring(c)
    return c.lock()


def _run(c: ml_collections.ConfigDict) -> None:
    """What runs, on which problems, as which rows."""
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


def _models(c: ml_collections.ConfigDict) -> None:
    """The models, and the machine that they run on."""
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


def _learning(c: ml_collections.ConfigDict) -> None:
    """Data, fine-tuning and PRMs that no game trains."""
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
    c.prompt.solver = ""  # {question} {prefix}; of a solver that is its bare backbone


def _game(c: ml_collections.ConfigDict) -> None:
    """The game and its rewards."""
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


def _measuring(c: ml_collections.ConfigDict) -> None:
    """Evaluation, export, report."""
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
