"""The game on GSM8K with Qwen2.5-0.5B: solver, Generator and PRM are real LLMs.

The solver is the base model, fine-tuned on the human solutions; R starts from it, with
a head of two classes; G is the instruction model, told in words to rewrite a step with
one subtle error, and taught to (stage `generator`). All parameters are trained.

    python -m aprm_jax.main --config=configs/qwen2_5_0_5b_gsm8k.py

Other backbones: --config.generator.backbone=OWNER/NAME or a local folder, likewise
--config.solver.backbone and --config.prm.backbone. Local data as in configs/gsm8k.py:
--config.domain.train=… --config.domain.test=…

Hardware: one accelerator with 80 GB; not run on one yet.
Time, scores: none yet.
A cut on random models of the same family, one to a few minutes:
--config=configs/qwen2_5_0_5b_gsm8k.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, set_stages

SOLVER = "Qwen/Qwen2.5-0.5B"
GENERATOR = "Qwen/Qwen2.5-0.5B-Instruct"


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("gsm8k.py"), arg)
    c.name = "qwen2_5_0_5b_gsm8k"
    stages = [s for s in c.stages if s != "generator:sft"]
    set_stages(c, tuple(stages))
    # Until it writes one wrong step most of the time there is no game.
    stages.insert(stages.index("aprm:aprm"), "generator:teach")
    set_stages(c, tuple(stages))
    c.teach.prm_from = "prm_warmup"
    override(c, "generator", {"sft.solver_share": 0.25, "sft.learning_rate": 5e-6})
    c.solver.backbone = c.prm.backbone = SOLVER
    c.generator.backbone = GENERATOR
    c.game.generator_from = "generator"
    c.prm.head = "two_class"
    c.game.generator_learning_rate = 1e-6
    c.game.prm_learning_rate = 5e-6
    c.prm.learning_rate = 5e-6
    c.sft.learning_rate = 1e-5
    if arg == "runlocal":
        from aprm_jax.testing.tiny import cut  # imports JAX

        cut(c, "qwen2")
        # So small a solver writes nothing that could be judged.
        override(c, "generator", {"sft.solver_share": 0.0})
        return c
    c.domain.train = c.domain.test = "datasets:openai/gsm8k"
    c.model.dtype = "bfloat16"
    c.model.remat = "full"
    c.builder.buckets = (256, 384, 512)
    c.builder.max_new_tokens = 128
    override(c, "evaluate", {"builder.buckets": (256, 384, 512, 1024, 2048)})
    c.sft.updates = 400
    c.sft.batch_size = 32
    override(c, "prm_warmup", {"prm.updates": 100})
    override(c, "generator", {"sft.warmup": 20, "sft.pool": 512})
    c.teach.situations = 64
    c.prm.updates = 300
    c.prm.batch_size = 64
    c.game.updates = 300
    c.game.groups = 24
    c.game.group_size = 8
    c.game.generator_rows = 96
    c.game.prm_clean = c.game.prm_fresh = 24
    c.game.prm_replay = 16
    c.game.static_probe = 16
    c.evaluate.problems = 500
    c.evaluate.samples = (8,)
    return c
