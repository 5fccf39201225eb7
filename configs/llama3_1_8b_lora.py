"""The game on GSM8K with one Llama-3.1-8B-Instruct in all three roles, by adapters.

Solver and PRM share one frozen base in memory: R reads the step's end with a head of
two classes, and the solver is the model as it comes, told in words to write the next
step. G is told in words to rewrite a step with one subtle error; the stage `generator`
teaches it to, by an adapter that is merged. In the game G and R each train an adapter
of their own on the base that they started from, which is also their reference.

    python -m aprm_jax.main --config=configs/llama3_1_8b_lora.py

Another model in all roles: --config.solver.backbone, --config.generator.backbone and
--config.prm.backbone.

Hardware: one accelerator with 80 GB, or --config.mesh.fsdp=N; not run on one yet.
Time, scores: none yet.
A cut on a random model of the same family, one to a few minutes:
--config=configs/llama3_1_8b_lora.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, override, read_config_file, set_stages

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("gsm8k.py"), arg)
    c.name = "llama3_1_8b_lora"
    set_stages(c, ("evaluate", "report"))
    set_stages(c, ("generator:teach", "aprm", "evaluate", "report"))
    c.solver.backbone = c.generator.backbone = c.prm.backbone = MODEL
    c.game.prm_from = c.prm.solver = "backbone"
    c.game.generator_from = "generator"  # taught to write one wrong step
    override(c, "generator", {"sft.learning_rate": 1e-4, "sft.solver_share": 0.25})
    c.prm.head = "two_class"
    c.lora.rank = 16
    c.lora.alpha = 32.0
    c.game.generator_learning_rate = 2e-5
    c.game.prm_learning_rate = 1e-4
    c.evaluate.solver = "backbone"
    c.evaluate.prms = ("aprm",)
    c.evaluate.attack_prms = ("aprm",)
    c.evaluate.attack_learning_rate = 2e-5
    if arg == "runlocal":
        from aprm_jax.testing.tiny import cut  # imports JAX

        cut(c, "llama")
        return c
    c.domain.train = c.domain.test = "datasets:openai/gsm8k"
    c.model.dtype = c.model.param_dtype = "bfloat16"
    c.model.remat = "full"
    c.builder.buckets = (256, 384, 512)
    c.builder.max_new_tokens = 128
    override(c, "evaluate", {"builder.buckets": (256, 512, 1024, 2048)})
    override(c, "generator", {"sft.batch_size": 32, "sft.microbatches": 4})
    c.game.updates = 300
    c.game.groups = 16
    c.game.group_size = 8
    c.game.generator_rows = 64
    c.game.generator_replay = 32
    c.game.prm_clean = c.game.prm_fresh = 24
    c.game.prm_replay = 16
    c.game.static_probe = 8
    c.evaluate.problems = 200
    c.evaluate.samples = (8,)
    return c
