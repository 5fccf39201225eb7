"""The settings of RL, which its job and `aprm_jax.rl` share."""

from __future__ import annotations

import dataclasses

from aprm_jax.config.game import REFERENCES
from aprm_jax.config.setting import setting

SOURCES = (
    "outcome",
    "overlong",
    "solution",
    "step",
    "clip",
    "delta",
    "min_form",
    "first_error",
    "progress",
    "implicit",
)


@dataclasses.dataclass(frozen=True)
class PayConfig:
    """What the sources of reward pay; docs/rl.md."""

    unfinished: bool = setting(
        False,
        "True: steps of a solution that did not end are paid as others, which a policy "
        "finds; False: the last of them scores 0, as a wrong one",
    )
    clip_margin: float = setting(
        0.9, "clip: min(score - this, 0) of each step", above=0, most=1
    )
    delta_bound: float = setting(1.0, "delta: the largest change that counts", above=0)
    min_form_temperature: float = setting(
        0.1, "min_form: softmax(-score / this) weighs the steps", above=0
    )
    error_threshold: float = setting(
        0.5, "first_error: a step with a lower score is wrong", least=0, most=1
    )
    progress_alpha: float = setting(
        3.0, "progress: Q + this times A; the paper takes 3 to 5 in RL", least=0
    )
    progress_prover: int = setting(
        4, "progress: the prover is the best of this many completions", least=1
    )
    implicit_beta: float = setting(0.05, "implicit: scale of its log-ratio", above=0)
    overlong_buffer: int = setting(
        64, "overlong: tokens below the most over which it grows to -1", least=1
    )


@dataclasses.dataclass(frozen=True)
class AlarmConfig:
    """When RL stops with its best checkpoint; a limit of 0 is off."""

    gap: float = setting(0.0, "verifier's reward less the oracle's, more than", least=0)
    kl: float = setting(0.0, "KL to the reference, nats a solution, above", least=0)
    repeated: float = setting(0.0, "share of steps said before, above", least=0, most=1)
    empty: float = setting(0.0, "share of empty steps, above", least=0, most=1)
    copied: float = setting(
        0.0, "share of steps that are a line of the question, above", least=0, most=1
    )
    length: float = setting(
        0.0, "factor by which solutions grow or shrink in tokens, above", least=0
    )
    drop: float = setting(
        0.0, "dev accuracy below the best so far by more than", least=0, most=1
    )
    rounds: int = setting(
        3, "rounds in a row beyond a limit; of drop, looks at dev in a row", least=1
    )


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """The game as a guard: the verifier goes on learning while RL attacks it."""

    prm: str = setting(
        "",
        'a PRM to start from, in place of rl.verifiers: stage or directory; "" = off',
    )
    own_steps: bool = setting(
        False, "its replay gets the policy's own steps too, as the oracle judges them"
    )


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """Who draws the solutions that RL learns from; docs/rl.md."""

    solver: str = setting(
        "",
        '"endpoint": the server of solver.endpoint, which gets the weights as they are '
        'learned; "" = this process',
        choices=("", "endpoint"),
    )
    every: int = setting(1, "rounds that are drawn with the same weights", least=1)
    push: str = setting(
        "adapter",
        '"adapter": the server serves solver.backbone, and loads the adapter that is '
        'learned; "folder": it reads rollouts.folder anew, which is written over',
        choices=("adapter", "folder"),
    )
    folder: str = setting(
        "", 'push="folder": what the server serves, an export of rl.solver_from'
    )


@dataclasses.dataclass(frozen=True)
class RLConfig:
    """RL of a solver against any verifier; docs/rl.md."""

    solver_from: str = setting("solver", "stage or directory of the solver that learns")
    verifiers: tuple[str, ...] = setting(
        ("aprm",),
        "who scores: stages, folders, OWNER/NAME, oracle, addresses "
        "(docs/endpoints.md); () = nobody",
    )
    prover_values: str = setting(
        "",
        "progress: another prover, by a verifier of its values (job=pav), in place of "
        'the best of pay.progress_prover; "" = none',
    )
    combine: str = setting(
        "mean",
        "of several verifiers: their mean, least, product",
        choices=("mean", "min", "product"),
    )
    rewards: tuple[str, ...] = setting(
        ("outcome", "min_form"), "what is paid, summed; docs/rl.md", choices=SOURCES
    )
    weights: tuple[float, ...] = setting(
        (), "of the rewards, below 0 they cost; () = 1 each"
    )
    implicit_from: str = setting(
        "",
        "implicit: stage or directory of the language model that pays; the solver's "
        "own where that learns",
    )
    implicit_learning_rate: float = setting(
        0.0,
        "implicit: above 0 that model learns a round's outcomes before it pays (PRIME)",
        least=0,
    )
    verifiable_share: float = setting(
        1.0,
        "share of a round's problems whose outcome is known, of 0 or of one at least: "
        "paid by outcome and first_error, learned by implicit",
        least=0,
        most=1,
    )
    updates: int = setting(200, "rounds", least=1)
    rounds_before: int = setting(
        0,
        "rounds of earlier stages that this one goes on from, as where a verifier is "
        "refreshed: its problems, draws and learning rates follow theirs",
        least=0,
    )
    rounds_after: int = setting(
        0,
        "rounds of later stages that go on from this one: the learning rate falls over "
        "all of them",
        least=0,
    )
    groups: int = setting(16, "problems a round", least=1)
    group_size: int = setting(8, "solutions of each", least=1)
    epochs: int = setting(1, "over a round's solutions", least=1)
    minibatches: int = setting(1, "updates an epoch", least=1)
    microbatches: int = setting(
        1, "parts of a minibatch, one after the other: less memory", least=1
    )
    estimator: str = setting(
        "grpo",
        "how advantages are estimated: the group's or the batch's other samples, or a "
        "critic (ppo, GAE)",
        choices=("grpo", "rloo", "reinforce++", "ppo"),
    )
    gamma: float = setting(
        1.0,
        "discount a step, of what steps are paid; with ppo a token, of all that is",
        least=0,
        most=1,
    )
    gae_lambda: float = setting(0.95, "ppo: its lambda", least=0, most=1)
    value_weight: float = setting(0.5, "ppo: of the value loss", least=0)
    clip_low: float = setting(0.2, "the ratio counts from 1 less this", least=0, most=1)
    clip_high: float = setting(0.28, "up to 1 and this", least=0)
    dual_clip: float = setting(
        3.0, "a bad token counts so many times at most; 0 = off", least=0
    )
    aggregation: str = setting(
        "token",
        "of the loss: mean over tokens, over sequences' means, or sums over a constant",
        choices=("token", "sequence", "constant"),
    )
    uniform: str = setting(
        "drop",
        "problems whose solutions are all paid alike: out of the batch, or in it",
        choices=("drop", "keep"),
    )
    kl_weight: float = setting(0.02, "of KL(policy || start)", least=0)
    kl_as: str = setting(
        "loss", "whether KL is a loss or in the reward", choices=("loss", "reward")
    )
    references: str = setting(
        "full",
        "what is kept of the solver as it began, for KL; int8: of weights a byte and a "
        "scale to each output channel, full parameters only",
        choices=REFERENCES,
    )
    kl_estimator: str = setting(
        "k2", "k2 of a loss, k1 in the reward; others are refused, with the reason"
    )
    importance_cap: float = setting(
        2.0,
        "largest weight of a token whose sampler's and trainer's probabilities differ; "
        "0 = all weigh 1",
        least=0,
    )
    learning_rate: float = setting(2e-4, "of Adam, its peak", above=0)
    warmup: int = setting(5, "rounds until the peak", least=0)
    b1: float = setting(0.9, "Adam's momentum", least=0, below=1)
    b2: float = setting(0.99, "Adam's second moment", least=0, below=1)
    clip_norm: float = setting(1.0, "largest norm of a gradient", above=0)
    overlap: bool = setting(
        False,
        "sample a round while the one before is judged: its samples are one update old",
    )
    max_idle: int = setting(
        10,
        "rounds in a row with nothing to learn from before it stops; 0 = any",
        least=0,
    )
    dev_every: int = setting(20, "rounds between accuracies on dev; 0 = never", least=0)
    dev_problems: int = setting(100, "of the dev split", least=1)
    dev_samples: int = setting(2, "of each", least=1)
    keep: str = setting(
        "last", "which checkpoint is the result", choices=("last", "best")
    )
    pass_samples: int = setting(
        16, "Pass@N before and after, up to this N; 0 = none", least=0
    )
    pass_problems: int = setting(100, "of each split of pass_splits", least=1)
    pass_splits: tuple[str, ...] = setting(
        ("dev",), "where Pass@N is measured", distinct=True
    )
    sample_log: int = setting(20, "rounds between logged solutions; 0 = none", least=0)
    rollouts: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    pay: PayConfig = dataclasses.field(default_factory=PayConfig)
    alarm: AlarmConfig = dataclasses.field(default_factory=AlarmConfig)
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
