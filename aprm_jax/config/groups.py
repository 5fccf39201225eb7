"""The groups of settings that stages of several jobs read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aprm_jax.config.setting import setting

DOMAINS = ("arithmetic", "gsm8k", "questions", "labelled")
AUTHORS = ("first", "second")  # of the embedded problems' corpus
ORACLES = ("calculator", "text")  # of the text domain
DTYPES = ("float32", "bfloat16")
ASKS = ("prm", "pav", "evaluate", "search")  # jobs that may ask an endpoint for text
DRAWS = (*ASKS, "rl")  # the same, and what asks one for ids


@dataclasses.dataclass(frozen=True)
class DomainConfig:
    """The problems."""

    name: str = setting("arithmetic", "the kind of problems", choices=DOMAINS)
    modulus: int = setting(
        0,
        "arithmetic: 10 = every result is its last digit, 0 = ordinary arithmetic",
        choices=(0, 10),
    )
    authors: str = setting(
        "first",
        "arithmetic: who writes what a solver learns from; the second population has "
        "other wrong facts and habits",
        choices=AUTHORS,
        only=("sft",),
    )
    train: str = setting(
        "",
        'gsm8k: JSONL path, "datasets:NAME" or "tfds:NAME"; labelled: "READER:SOURCE", '
        "a reader of data/readers and a path or name; questions: either",
    )
    test: str = setting(
        "",
        "gsm8k, questions: the same for the test split; questions: "
        '"" holds some of train out',
    )
    model_solutions: str = setting(
        "", 'gsm8k: JSONL of graded model solutions, "" = none', only=("evaluate",)
    )
    processbench: str = setting(
        "", 'gsm8k: ProcessBench, a path or a name; "" = none', only=("evaluate",)
    )
    vocab_size: int = setting(
        2048,
        "gsm8k, questions, labelled: BPE tokens; 256 of them are bytes, 5 our own",
        least=261,
    )
    dev_count: int = setting(
        500,
        "training questions held out as the dev split; 0 = a tenth, up to 500, and of "
        "few a quarter, and where no test is named as many again to test on",
        least=0,
    )
    strip_annotations: bool = setting(
        False, "gsm8k: drop <<a*b=c>>; the oracle knows less"
    )
    oracle: str = setting(
        "calculator",
        'gsm8k, questions: "calculator" reads <<a*b=c>> and bare sums, "text" LaTeX '
        'and formulas too; labelled: "text" judges what nobody labelled',
        choices=ORACLES,
    )
    oracle_workers: int = setting(
        0,
        '"text": processes that compare roots, functions and the like, with the extra '
        '"pool"; 0 = none',
        least=0,
    )
    label_cut: float = setting(
        0.5,
        "a label that must be right or wrong is right from here on: with "
        'prm.soft=False, prepare.label="hard", and in sets that are measured on',
        above=0,
        most=1,
    )
    max_bad_share: float = setting(
        0.01, "share of malformed rows past which a job stops", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class BuilderConfig:
    """Solutions as rows of tokens."""

    window: int = setting(1, "lines before a step that it may see; 0 = all", least=0)
    line_stride: int = setting(
        32, "lines start at its multiples; 0 = contiguous positions", least=0
    )
    buckets: tuple[int, ...] = setting(
        (24, 32, 40, 48, 64, 128),
        "row lengths in tokens; longer rows are left out",
        least=1,
    )
    max_steps: int = setting(
        8, "most steps of a solution; a sampled one is cut there", least=1
    )
    max_new_tokens: int = setting(
        16, "longest sampled step, its <step> included", least=1
    )
    sample_rows: int = setting(
        0,
        "most rows that are sampled at once, for memory; 0 = 256, or 64 where a "
        "bucket is longer than 256",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder from scratch, and what every model computes in."""

    d_model: int = setting(128, "width of the residual stream", least=1)
    num_layers: int = setting(2, "layers", least=1)
    num_heads: int = setting(
        8, "query heads; many small ones: each copies from another distance", least=1
    )
    num_kv_heads: int = setting(8, "key and value heads; divides num_heads", least=1)
    head_dim: int = setting(16, "size of a head, even", least=2)
    d_ff: int = setting(512, "width of the feed-forward layers", least=1)
    rope_theta: float = setting(10_000.0, "base of the rotary wavelengths", above=0)
    tie_embeddings: bool = setting(
        True, "the output layer is the embedding, transposed"
    )
    dtype: str = setting(
        "float32", "of activations; bfloat16 gains nothing on a CPU", choices=DTYPES
    )
    param_dtype: str = setting(
        "float32",
        "of a backbone's frozen base; with lora.rank alone",
        choices=DTYPES,
    )
    remat: str = setting(
        "none",
        "what of a layer the backward pass computes again, memory for time: nothing; "
        "all but products with weights; all but queries, keys, values and what heads "
        "read; all",
        choices=("none", "dots", "names", "full"),
    )
    attention: str = setting(
        "auto",
        "kernel over whole rows: auto = splash on TPUs, cudnn on GPUs (bfloat16) where "
        "they can do the model, else einsum",
        choices=("auto", "einsum", "dot_product_attention", "splash", "cudnn"),
    )

    @property
    def in_proportion(self) -> tuple[int, int, int]:
        """What grows with the width: query heads, key and value heads, d_ff."""
        return self.num_heads, self.num_kv_heads, self.d_ff


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """Who writes solutions."""

    backbone: str = setting(
        "",
        "a model of Hugging Face: a local folder, gguf:PATH or a name on the hub, in "
        "place of a decoder from scratch (model.*) with the domain's tokenizer; "
        '"" = from scratch',
    )
    d_model: int = setting(
        0,
        "width from scratch, with heads and d_ff in proportion; 0 = model.d_model",
        least=0,
    )
    endpoint: str = setting(
        "",
        "an OpenAI-compatible server, as http://localhost:8000/v1, that completes text "
        'wherever a solver is named "endpoint"; "" = none',
        only=DRAWS,
    )


@dataclasses.dataclass(frozen=True)
class HttpConfig:
    """Requests to the server; nothing here changes an answer."""

    requests: int = setting(8, "most requests in flight", least=1)
    retries: int = setting(
        6, "of a request, after 408, 429, 5xx, no answer or a broken one", least=0
    )
    first_wait: float = setting(
        0.5, "seconds before the first retry at most; doubles each time", least=0
    )
    longest_wait: float = setting(
        60.0, "most seconds before a retry, and of a Retry-After", least=0
    )
    connect_seconds: float = setting(10.0, "to connect", above=0)
    read_seconds: float = setting(120.0, "without a byte of the answer", above=0)
    request_seconds: float = setting(300.0, "until the whole answer is here", above=0)
    max_bytes: int = setting(1 << 22, "longest answer", least=1)


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """What the server of solver.endpoint is asked; docs/endpoints.md."""

    model: str = setting("", "its name there", only=DRAWS)
    layout: str = setting(
        "words",
        '"words" asks with prompt.solver, in the chat template of solver.backbone if '
        'one is named; "rows" sends our own rows, for what job=export wrote',
        choices=("words", "rows"),
        only=ASKS,
    )
    key_variable: str = setting("", 'environment variable with the key; "" = no key')
    n: int = setting(
        1,
        "completions a request, where prompts are alike; 1 gives each a seed of its "
        "own, more are cheaper where the server shares the prompt",
        least=1,
        only=DRAWS,
    )
    logprobs: bool = setting(
        False, "ask for the log-probabilities of the tokens too", only=ASKS
    )
    http: HttpConfig = dataclasses.field(default_factory=HttpConfig)


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """Who rewrites correct steps as wrong ones: the players' G."""

    backbone: str = setting("", "as solver.backbone")
    d_model: int = setting(0, "as solver.d_model", least=0)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The machine."""

    data: int = setting(-1, "devices along the batch; -1 = all that are left", least=-1)
    fsdp: int = setting(
        1,
        "devices that parameters are sharded over, batch too; -1 as of data",
        least=-1,
    )
    tensor: int = setting(
        1,
        "devices that heads and feed-forward are sharded over; -1 as of data",
        least=-1,
    )
    sample_tensor: int = setting(
        0,
        "the same while samples are drawn, rows over the others: weights move once "
        "a request, not gathered for every token; 0 = as in training",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What a training stage keeps of itself while it runs."""

    every: int = setting(100, "steps between checkpoints", least=1)
    keep_last: int = setting(2, "checkpoints that are kept", least=1)
    step: int = setting(
        -1,
        "resume from this step; -1 = the newest complete one; what has not begun "
        "begins",
        least=-1,
    )
    max_nonfinite: int = setting(
        5, "non-finite updates in a row before the job stops", least=1
    )


@dataclasses.dataclass(frozen=True)
class MetricsConfig:
    """Where metrics go beside metrics.jsonl."""

    tensorboard: bool = setting(True, "write TensorBoard files")
    wandb: str = setting("", 'project name; "" = off')


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Adapters of the game's players, of R alone and of a taught G; models/lora.py."""

    rank: int = setting(0, "0 = no adapters: all parameters are trained", least=0)
    alpha: float = setting(
        32.0, "the adapter's product is scaled by alpha / rank", above=0
    )
    targets: str = setting(
        "", 'regex over "layers/attention/q/kernel"; "" = all linear maps'
    )


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Prompts of instruction models; see data/prompts.py."""

    generator: str = setting(
        "", 'places {question} {prefix} {step}; "" = the default there'
    )
    solver: str = setting(
        "", "places {question} {prefix}; of a solver that is its bare backbone"
    )


@dataclasses.dataclass(frozen=True)
class CommonConfig:
    """The run: what it is called, its stages, what it tells."""

    name: str = setting("default", "what the report calls the run")
    job: str = setting(
        "pipeline", '"pipeline" runs all stages; a job\'s name runs its stages only'
    )
    seed: int = setting(
        0,
        "of training; evaluation problems do not depend on it",
        least=0,
        most=0xFFFFFFFF,  # of more JAX drops the rest
    )
    stages: tuple[str, ...] = setting(
        ("solver:sft", "prm_static:prm", "aprm:aprm", "evaluate", "report"),
        "what runs, in order: NAME:JOB, or a job's name alone",
    )
    compilation_cache: str = setting(
        "auto", 'folder of compiled programs; "auto" = user\'s cache; "" = off'
    )
    processes: int = setting(
        0,
        "stages, and parts of an evaluation, that run side by side, each with its "
        "share of a CPU's cores: small models on one host alone; 0 = as many as suit, "
        "1 = one after the other",
        least=0,
    )
    log_every: int = setting(10, "steps between lines on the console", least=1)
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    domain: DomainConfig = dataclasses.field(default_factory=DomainConfig)
    builder: BuilderConfig = dataclasses.field(default_factory=BuilderConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    generator: GeneratorConfig = dataclasses.field(default_factory=GeneratorConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    metrics: MetricsConfig = dataclasses.field(default_factory=MetricsConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
