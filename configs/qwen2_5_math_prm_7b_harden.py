"""An existing PRM, Qwen2.5-Math-PRM-7B, hardened by the game.

R starts from the published PRM, in its own layout and prompt format; G is the
instruction model of the same family, told in words to rewrite a step with one subtle
error, and taught to (stage `generator`). Both train adapters. Before and after are
measured on ProcessBench; thresholds come from corrupted solutions of the training
questions.

    python -m aprm_jax.main --config=configs/qwen2_5_math_prm_7b_harden.py

What comes out goes back into the same layout:

    python -m aprm_jax.main --config=configs/qwen2_5_math_prm_7b_harden.py \\
      --workdir=WORKDIR --config.job=export --config.export.model=aprm \\
      --config.export.format=qwen2_prm

Hardware: one accelerator with 80 GB, or --config.mesh.fsdp=N; not run on one yet.
Time, scores: none yet.
A cut on random models of the same layouts, one to a few minutes:
--config=configs/qwen2_5_math_prm_7b_harden.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, set_stages

PRM = "Qwen/Qwen2.5-Math-PRM-7B"
GENERATOR = "Qwen/Qwen2.5-Math-7B-Instruct"


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("gsm8k.py"), arg)
    c.name = "qwen2_5_math_prm_7b_harden"
    set_stages(c, ("evaluate", "report"))
    set_stages(c, ("generator:teach", "aprm", "evaluate", "report"))
    c.prm.backbone = PRM
    c.generator.backbone = GENERATOR
    c.game.prm_from = c.teach.prm_from = "backbone"
    c.game.generator_from = "generator"  # taught to write one wrong step
    # There is no solver whose mistakes it could learn.
    override(c, "generator", {"sft.learning_rate": 1e-4, "sft.solver_share": 0.0})
    c.prm.head = "two_class"
    c.lora.rank = 16
    c.game.generator_learning_rate = 2e-5
    c.game.prm_learning_rate = 2e-5
    c.evaluate.solver = ""  # the PRM before and after; no solver of our own
    c.evaluate.splits = ()
    c.evaluate.prms = ("backbone", "aprm")
    c.evaluate.attack_prms = ("backbone", "aprm")
    c.evaluate.attack_learning_rate = 2e-5
    c.domain.model_solutions = ""
    if arg == "runlocal":
        from aprm_jax.testing.tiny import cut  # imports JAX

        cut(c, "qwen2", prm_layout="qwen2_prm")
        return c
    c.domain.train = c.domain.test = "datasets:openai/gsm8k"
    c.domain.processbench = "datasets:Qwen/ProcessBench?split=gsm8k"
    c.model.dtype = c.model.param_dtype = "bfloat16"
    c.model.remat = "full"
    c.builder.buckets = (256, 384, 512)
    c.builder.max_new_tokens = 128
    override(c, "evaluate", {"builder.buckets": (256, 512, 1024, 2048)})
    override(c, "generator", {"sft.batch_size": 32, "sft.microbatches": 4})
    c.game.updates = 200
    c.game.groups = 16
    c.game.group_size = 8
    c.game.generator_rows = 64
    c.game.generator_replay = 32
    c.game.prm_clean = c.game.prm_fresh = 16
    c.game.prm_replay = 8
    c.game.static_probe = 8
    return c
