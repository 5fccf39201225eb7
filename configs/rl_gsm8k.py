"""RL on GSM8K: an instruction model as solver, GRPO, a published PRM and the answers.

The solver is told in words to write the next step, and learns from what it wrote. The
PRM scores the steps, the answers are known. Steps cannot be paid for being repeated:
each pays its change of the score alone (delta). With adapters: the reference is the
bare base, which is in memory anyway.

    python -m aprm_jax.main --config=configs/rl_gsm8k.py

Another solver: --config.solver.backbone=OWNER/NAME or a folder. Another PRM, published,
exported or of a run: --config.rl.verifiers=NAME. A PAV of job=pav, which pays progress:
--config.rl.verifiers=RUN/pav --config.rl.rewards=outcome,progress
A vLLM server that draws the solutions: --config.solver.endpoint=http://HOST:8000/v1
--config.rl.rollouts.solver=endpoint, see docs/rl.md.
Local data as in configs/gsm8k.py: --config.domain.train=… --config.domain.test=…

Hardware: one accelerator with 80 GB; not run on one yet.
Time, scores: none yet.
A cut on random models of the same family, one to a few minutes:
--config=configs/rl_gsm8k.py:runlocal
"""

from pathlib import Path

from aprm_jax.config import check_arg, read_config_file, set_stages

SOLVER = "Qwen/Qwen2.5-1.5B-Instruct"
PRM = "Qwen/Qwen2.5-Math-PRM-7B"


def get_config(arg: str = ""):
    check_arg(arg)
    c = read_config_file(Path(__file__).with_name("gsm8k.py"), arg)
    c.name = "rl_gsm8k"
    set_stages(c, ("rl", "report"))
    c.solver.backbone, c.prm.backbone = SOLVER, PRM
    c.lora.rank = 16
    c.rl.solver_from = "backbone"
    c.rl.verifiers = (PRM,)
    c.rl.rewards = ("outcome", "delta")
    c.rl.weights = (1.0, 0.5)
    c.rl.learning_rate = 1e-5
    c.rl.pass_splits = ("test",)
    if arg == "runlocal":
        from aprm_jax.testing.tiny import cut  # imports JAX

        cut(c, "qwen2", "qwen2_prm")
        c.rl.verifiers = (c.prm.backbone,)
        c.lora.rank = 2
        return c
    c.domain.train = c.domain.test = "datasets:openai/gsm8k"
    c.model.dtype = c.model.param_dtype = "bfloat16"
    c.model.remat = "full"
    c.builder.buckets = (256, 384, 512, 768)
    c.builder.max_new_tokens = 128
    c.rl.updates = 300
    c.rl.groups, c.rl.group_size = 32, 8
    c.rl.minibatches, c.rl.microbatches = 2, 32
    c.rl.overlap = True
    c.rl.dev_problems, c.rl.dev_samples = 200, 1
    c.rl.pass_problems, c.rl.pass_samples = 200, 16
    c.rl.alarm.gap = 0.5
    c.rl.alarm.repeated = 0.2
    c.rl.alarm.length = 3.0
    c.rl.alarm.drop = 0.05
    return c
