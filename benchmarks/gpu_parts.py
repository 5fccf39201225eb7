"""Our side of `gpu.py`: what each of its processes computes, on the first device.

Axes: B rows, T tokens, N heads, K KV heads, H head size, D model, V vocabulary.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sides
from gpu_parity import parity
from gpu_setting import SEED, Setting, spread

from aprm_jax.config.groups import MeshConfig
from aprm_jax.data.steps import StepBuilder
from aprm_jax.game import batches, rollouts
from aprm_jax.game.arena import Arena
from aprm_jax.game.config import GameConfig
from aprm_jax.game.rounds import Rounds
from aprm_jax.game.update import GameState
from aprm_jax.hf.config import decoder_config
from aprm_jax.models import heads
from aprm_jax.models.attention import kernel_of
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.models.flops import attention_flops, forward_flops
from aprm_jax.oracle.verdict import incorrect
from aprm_jax.sampling.loop import Draws, LoopConfig
from aprm_jax.sampling.programs import Programs
from aprm_jax.sampling.sampler import Sampler, Samples
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.training.chips import CHIPS, Chip
from aprm_jax.training.forecast import product_flops
from aprm_jax.training.mesh import make_mesh, shard_batch
from aprm_jax.training.timing import PhaseTimer

# What JAX calls the chips whose peaks are known. Others of the same family, on PCIe
# say, have other peaks: nothing is told of them as a share.
KINDS = {
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
}
SAMPLED = (16, 64)  # rows that are compiled for, as jobs sample long ones
HEAD = "two_class"


def measured(part: str, setting: Setting) -> dict[str, Any]:
    """Figures of a part, where they were measured, and the memory that it took."""
    figures = PARTS[part](setting)
    return {**figures, "device": device(), "peak_bytes": peak_bytes()}


def device() -> dict[str, Any]:
    """What there is to measure on."""
    one = jax.devices()[0]
    return {
        "platform": one.platform,
        "kind": one.device_kind,
        "chip": KINDS.get(one.device_kind),
        "memory": (one.memory_stats() or {}).get("bytes_limit"),
        "versions": sides.versions("jax", "jaxlib", "numpy"),
    }


def peak_bytes() -> int | None:
    """Of the device since the process began; None where it does not tell (CPUs)."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def chip() -> Chip | None:
    """Peaks of the device; None where they are not known."""
    name = KINDS.get(jax.devices()[0].device_kind)
    return None if name is None else CHIPS[name]


def mfu(flops: float, seconds: float, setting: Setting) -> float | None:
    """The share of the chip's peak, which is one of bfloat16."""
    found = chip()
    if found is None or setting.dtype != "bfloat16":
        return None
    return flops / (seconds * found.flops)


def architecture(setting: Setting, param_dtype: str = "float32") -> DecoderConfig:
    """Of both players; the backward pass computes layers again, as 1.5B needs."""
    return decoder_config(
        setting.model, dtype=setting.dtype, param_dtype=param_dtype, remat="full"
    )


def random_backbone(config: DecoderConfig) -> Any:
    """Its parameters, drawn on the device."""
    ids = jnp.zeros((1, 8), jnp.int32)

    def init(key: Any) -> Any:
        return Decoder(config).init(key, ids, ids, ids + 1)["params"]

    return jax.jit(init)(jax.random.key(SEED))


def random_ids(setting: Setting, count: int) -> np.ndarray:
    """So many different prompts: int32 [count, T]."""
    rng, most = np.random.default_rng(SEED), setting.model["vocab_size"]
    return rng.integers(8, most, (count, setting.prompt), np.int32)


def read_flops(setting: Setting, backbone: Any, unembedded: int) -> float:
    """Operations that reading a round's rows needs, logits of some tokens of each.

    By the closed form that searches are counted by (`models.flops`).
    """
    body, whole = (forward_flops(backbone, unembeds=u) for u in (False, True))
    paid = attention_flops(architecture(setting), setting.length, setting.length)
    of_row = setting.length * body + unembedded * (whole - body) + paid
    return setting.rows * of_row


def update_flops(setting: Setting, backbone: Any) -> float:
    """Operations that a joint update needs; nothing that is computed again counts.

    Each player reads its rows and has a gradient, twice as dear, and its reference
    reads them once. G's replies have logits, R's verdicts need none.
    """
    unembedded = (setting.new, 0)
    return sum(4 * read_flops(setting, backbone, n) for n in unembedded)


def make_rounds(setting: Setting) -> Rounds:
    """A game as job=aprm makes it, of two players with one random backbone."""
    config, domain = architecture(setting), ArithmeticDomain(seed=SEED)
    builder = StepBuilder(domain.tokenizer, None, (setting.length,))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    sampler = Sampler(
        config,
        stop_ids=(),
        pad_id=builder.pad_id,
        prompt_buckets=(setting.prompt,),
        max_new_tokens=setting.new,
        batch_buckets=SAMPLED,
        mesh=mesh,
    )
    arena = Arena(
        problems=domain,
        corruptor=domain,
        oracle=domain.oracle,
        kinds=domain.kinds,
        builder=builder,
        decoder=Decoder(config),
        sampler=sampler,
        mesh=mesh,
    )
    played = GameConfig(
        groups=setting.groups,
        group_size=setting.group_size,
        generator_rows=setting.rows,
        generator_replay=0,
        microbatches=setting.microbatches,
        moments="factored",
    )
    backbone, keys = random_backbone(config), jax.random.split(jax.random.key(SEED))
    value_head = heads.init_value_head(keys[0], config.d_model)
    return Rounds(
        arena,
        played,
        generator={"backbone": backbone, "value_head": value_head},
        prm=heads.init_prm(keys[1], backbone, config.d_model, HEAD),
        head=HEAD,
        seed=SEED,
    )


@dataclasses.dataclass
class Round:
    """A round on random text: what of it is the oracle's or a tokenizer's is left out.

    Attributes:
      rounds: the game.
      setting: its shapes.
      game: the players now.
      timer: seconds by phase.
      update: the joint update, once it is compiled.
      compiled: what is told of that.
    """

    rounds: Rounds
    setting: Setting
    game: GameState
    timer: PhaseTimer = dataclasses.field(default_factory=PhaseTimer)
    update: Any = None
    compiled: dict[str, Any] = dataclasses.field(default_factory=dict)

    def play(self, step: int) -> dict[str, float]:
        """Samples, scores and updates; seconds of each phase."""
        timer, sampler = self.timer, self.rounds.arena.sampler
        state = dataclasses.replace(self.rounds.state, game=self.game)
        generator, prm = self.rounds.players(state)
        prompts = random_ids(self.setting, self.setting.groups)
        each = np.repeat(prompts, self.setting.group_size, axis=0).tolist()
        with timer("sample"):
            drawn = sampler.sample(generator["backbone"], each, jax.random.key(step))
        with timer("data"):
            replies = self.replies(drawn, prompts)
            rows = [self._row(reply) for reply in replies]
        with timer("score"):
            scores = self.rounds.scorer.rows(prm, dict(enumerate(rows)))
        with timer("data"):
            p = jax.nn.sigmoid(np.array([scores[i][0] for i in range(len(rows))]))
            batches = self.batches(replies, rows, np.asarray(p, np.float32))
        args = (self.game, self.rounds.refs, *batches, jax.random.key(step))
        del state, generator, prm  # the update frees the players that it replaces
        update = self.update or self._compile(args)
        with timer("update") as phase:
            self.game, metrics = update(*args)
            phase.wait((self.game, metrics))
        if float(metrics["nonfinite"]):
            raise FloatingPointError("the update was not finite: nothing was learned")
        return {k.removeprefix("time/"): v for k, v in timer.pop().items()}

    def replies(
        self, drawn: Samples, prompts: np.ndarray
    ) -> list[rollouts.Perturbation]:
        """Each as if the oracle had called it wrong."""
        point, wrong = rollouts.Situation("", (), ""), incorrect("wrong", "")
        size = self.setting.group_size
        asked = [rollouts.Prompt(point, tuple(ids.tolist())) for ids in prompts]
        return [
            rollouts.Perturbation(asked[i // size], i // size, drawn.reply(i), 1, wrong)
            for i in range(self.setting.rows)
        ]

    def _row(self, reply: rollouts.Perturbation) -> Any:
        builder = self.rounds.arena.builder
        row = builder.continuation(reply.prompt.ids, reply.reply.ids)
        return dataclasses.replace(row, labels=np.zeros(1, np.float32))

    def batches(self, replies: Any, rows: Any, p_correct: np.ndarray) -> tuple:
        """What either player learns from, on the device."""
        rounds, mesh = self.rounds, self.rounds.arena.mesh
        builder, rng = rounds.arena.builder, np.random.default_rng(SEED)
        size = batches.BatchSize(0, rounds.multiple)
        generator = batches.generator_batch(
            replies,
            p_correct,
            rounds.config.rewards,
            builder,
            rng,
            self.setting.rows,
            width=self.setting.new,
            size=size,
        )
        prm = batches.prm_batch((), rows, (), builder, size)
        return shard_batch(mesh, generator), shard_batch(mesh, prm)

    def _compile(self, args: tuple) -> Any:
        start = time.perf_counter()
        traced = self.rounds.update.trace(*args)  # pyright: ignore[reportFunctionMemberAccess]
        self.update = traced.lower().compile()
        memory = self.update.memory_analysis()
        taken = memory.argument_size_in_bytes + memory.output_size_in_bytes
        self.compiled = {
            "seconds": time.perf_counter() - start,
            # With layers computed again; cuDNN's attention is not among them.
            "product_flops": product_flops(traced.jaxpr.jaxpr),
            "bytes": taken - memory.alias_size_in_bytes + memory.temp_size_in_bytes,
        }
        return self.update


def game(setting: Setting) -> dict[str, Any]:
    """Phases of a round, the update's MFU, and what it was compiled to."""
    rounds = make_rounds(setting)
    one = Round(rounds, setting, rounds.state.game)
    first = one.play(0)
    turns: dict[str, list[float]] = collections.defaultdict(list)
    for step in range(setting.repeats):
        for phase, seconds in one.play(1 + step).items():
            turns[phase].append(seconds)
    backbone = rounds.refs.generator["backbone"]
    phases = {name: spread(seconds) for name, seconds in turns.items()}
    flops = update_flops(setting, backbone)
    score_flops = read_flops(setting, backbone, 0)
    tokens, wrote = setting.rows * setting.length, setting.rows * setting.new
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(backbone)),
        "attention": kernel_of(architecture(setting)),
        "first_round": first,  # with what it compiles, but for the update
        "phases": phases,
        "sampled_tokens_a_second": wrote / phases["sample"]["median"],
        "update_tokens_a_second": 2 * tokens / phases["update"]["median"],
        "update_flops": flops,
        "update_mfu": mfu(flops, phases["update"]["median"], setting),
        "score_mfu": mfu(score_flops, phases["score"]["median"], setting),
        "compiled_update": one.compiled,
    }


def decode(setting: Setting) -> dict[str, Any]:
    """Reading prompts and writing after them, with parameters of either precision."""
    kinds = ("float32", "bfloat16")
    return {kind: _decoded(setting, architecture(setting, kind)) for kind in kinds}


def _decoded(setting: Setting, config: DecoderConfig) -> dict[str, Any]:
    """Of compiled steps alone: no list becomes an array, none is fetched."""
    params, programs = random_backbone(config), Programs(config, pad_id=0)
    rows, new = setting.rows, setting.new
    tokens = random_ids(setting, rows)
    lengths = np.full(rows, setting.prompt, np.int32)
    places = np.broadcast_to(np.arange(setting.prompt, dtype=np.int32), tokens.shape)
    prompts = jax.device_put((tokens, lengths, places))
    grow = jax.jit(lambda rows: rows.grow(new - 1))
    loop = LoopConfig(stop_ids=(), pad_id=0, max_new_tokens=new)
    numbers, live = np.arange(rows, dtype=np.uint32), np.ones(rows, bool)
    draws = Draws(jax.random.key(SEED), numbers, np.float32(1.0), None)
    last, until = prompts[1] - 1, np.int32(new)
    seconds: dict[str, list[float]] = {"prefill": [], "decode": []}
    for _ in range(1 + setting.repeats):
        start = time.perf_counter()
        read = jax.block_until_ready(programs.prefill(params, *prompts))
        seconds["prefill"].append(time.perf_counter() - start)
        room = jax.block_until_ready(grow(read))
        del read
        start = time.perf_counter()
        state = programs.sample(
            loop,
            params,
            room,
            setting.prompt,
            *prompts[1:2],
            last,
            None,
            live,
            draws,
            until,
            np.int32(0),
        )
        jax.block_until_ready(state)
        seconds["decode"].append(time.perf_counter() - start)
        if int(state.step) != new:
            raise RuntimeError(f"{int(state.step)} tokens were written, not {new}")
        del room, state
    return _decode_figures(setting, config, params, seconds)


def _decode_figures(
    setting: Setting,
    config: DecoderConfig,
    params: Any,
    seconds: dict[str, list[float]],
) -> dict[str, Any]:
    times = {k: {"first": v[0], **spread(v[1:])} for k, v in seconds.items()}
    median, found = times["decode"]["median"], chip()
    wanted = decode_bytes(setting, config, params)
    return {
        **times,
        "tokens_a_second": setting.rows * setting.new / median,
        "bytes": wanted,
        "bytes_a_second": wanted / median,
        "bandwidth_share": found and wanted / median / found.bandwidth,
    }


def decode_bytes(setting: Setting, config: DecoderConfig, params: Any) -> float:
    """Bytes that writing a round's replies must read, in the precision of products.

    The first token of a reply needs the head alone, each further one all parameters
    that multiply, and the keys and values of what stands before it and its own.
    """
    width = jnp.dtype(config.dtype).itemsize
    body, whole = (forward_flops(params, unembeds=u) / 2 for u in (False, True))
    turns = setting.new - 1
    seen = turns * setting.prompt + turns * (turns + 1) / 2
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    parameters = turns * whole + (whole - body)
    return width * (parameters + setting.rows * cached * seen)


PARTS = {"parity": parity, "decode": decode, "game": game}
