"""Times one beam search three ways: cached, re-prefilled, and on transformers.

    python benchmarks/search_speed.py [--seeds=3] [--problems=2] [--steps=12] ...

A random Llama writes and another one with a head of two classes scores, the same
weights everywhere, in float32 on the CPU. In each turn the same search runs

* cached: `LocalSolver` and `ModelVerifier` go on from the KV rows of the parents;
* re-prefilled: the same engine and seeds, each step's whole prefix read again by the
  solver and each whole row by the verifier: the same trees, scores to 1e-5;
* on transformers: what search-and-learn does (Beeching, Tunstall and Rush 2024) with
  `generate` on whole prefixes, left-padded, and a forward pass over whole rows.

A turn of each before the first is not timed: it compiles. Who goes first alternates.
Writes `benchmarks/results/search_speed.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers
from compare_table import ROOT, commit

from aprm_jax.data.steps import StepBuilder
from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.prm_layouts import head_params
from aprm_jax.hf.tables import params_from_tensors
from aprm_jax.models.decoder import Decoder
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.search.aggregate import Aggregation
from aprm_jax.search.engine import Engine
from aprm_jax.search.methods import Beam
from aprm_jax.search.tree import Tree
from aprm_jax.solvers.local import LocalSolver
from aprm_jax.solvers.stepwise import UncachedSolver
from aprm_jax.tasks.arithmetic import ArithmeticDomain
from aprm_jax.verifiers.models import ModelVerifier, prm_verifier
from aprm_jax.verifiers.stepwise import UncachedVerifier

RESULTS = ROOT / "benchmarks/results/search_speed.json"
EXPANSIONS = 4  # of each beam that is kept
NEW = 48  # most tokens of a step; a quarter as many on average


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is searched. Widths are of both models."""

    problems: int
    beams: int
    steps: int
    d_model: int
    layers: int

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return 32 + (NEW + 1) * self.steps


class Endless:
    """To whom no step concludes: every search is as long as the others."""

    def is_final(self, step: str) -> bool:
        del step
        return False

    def answer(self, steps: Sequence[str]) -> str | None:
        del steps

    def same_answer(self, given: str | None, expected: str) -> bool:
        return given == expected


@dataclasses.dataclass
class Turn:
    """One search of all problems.

    Attributes:
      seconds: it took.
      decoded: tokens that were drawn.
      read: tokens that solver and verifier read besides.
      trees: of the problems, where there are any.
    """

    seconds: float
    decoded: int
    read: int
    trees: list[Tree] = dataclasses.field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Without the trees."""
        return {
            "seconds": round(self.seconds, 4),
            "decoded": self.decoded,
            "read": self.read,
            "tokens_per_second": round(self.decoded / self.seconds, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("seeds", 3),
        ("problems", 2),
        ("beams", 16),
        ("steps", 12),
        ("d_model", 128),
        ("layers", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    setting = Setting(args.problems, args.beams, args.steps, args.d_model, args.layers)
    domain = ArithmeticDomain(seed=0)
    searches = make_searches(setting, domain)
    questions = [p.question for p in domain.problems("test", setting.problems)]
    for search in searches.values():  # compiles; every seed has shapes of its own
        for seed in range(args.seeds):
            search(questions, seed)
    turns: list[dict[str, Turn]] = []
    for seed in range(args.seeds):
        names = list(searches)
        order = names[seed % len(names) :] + names[: seed % len(names)]
        turns.append({name: searches[name](questions, seed) for name in order})
        check_equal(turns[-1]["cached"].trees, turns[-1]["re_prefilled"].trees)
    found = result(setting, turns)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: found[k] for k in ("ratios", "scores_differ_by")}))


def result(setting: Setting, turns: list[dict[str, Turn]]) -> dict[str, Any]:
    """What is written down."""
    ratios = {
        f"{other}_over_cached": round(
            statistics.median(
                (turn["cached"].decoded / turn["cached"].seconds)
                / (turn[other].decoded / turn[other].seconds)
                for turn in turns
            ),
            2,
        )
        for other in ("re_prefilled", "transformers")
    }
    differ = [check_equal(t["cached"].trees, t["re_prefilled"].trees) for t in turns]
    return {
        "command": "python " + " ".join(sys.argv),
        "commit": commit(),
        "seeds": list(range(len(turns))),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} torch thread(s)",
        "versions": {"jax": jax.__version__, "torch": torch.__version__}
        | {"transformers": transformers.__version__},
        "setting": dataclasses.asdict(setting) | {"expansions": EXPANSIONS, "new": NEW},
        "ratios": ratios,  # medians over turns of tokens drawn a second
        "scores_differ_by": float(max(differ)),
        "turns": [{name: t.summary() for name, t in turn.items()} for turn in turns],
    }


def check_equal(cached: Sequence[Tree], again: Sequence[Tree]) -> float:
    """The greatest difference of scores of two searches.

    Raises:
      AssertionError: their trees differ.
    """
    differ = 0.0
    for mine, other in zip(cached, again, strict=True):
        assert [(n.parent, n.text, n.slots, n.dropped) for n in mine.nodes] == [
            (n.parent, n.text, n.slots, n.dropped) for n in other.nodes
        ]
        scores = np.array([[n.score for n in tree.nodes[1:]] for tree in (mine, other)])
        np.testing.assert_array_equal(*np.isnan(scores))
        differ = max(differ, float(np.nanmax(np.abs(scores[0] - scores[1]))))
    assert differ < 1e-5, differ  # the JSON says how far below
    return differ


Search = Callable[[Sequence[str], int], Turn]


def make_searches(setting: Setting, domain: ArithmeticDomain) -> dict[str, Search]:
    """The three, by name, on the same weights."""
    tokenizer = domain.tokenizer
    builder = StepBuilder(tokenizer, None, (64, setting.longest))
    language, scorer = torch_models(setting, builder)
    written = json.loads(language.config.to_json_string())
    config = decoder_config({**written, "architectures": ["LlamaForCausalLM"]})
    backbone, judge = (
        params_from_tensors(config, "llama", tensors(model))
        for model in (language, scorer)
    )
    weights = {k: v.detach().numpy() for k, v in scorer.score.named_parameters()}
    head = head_params("trl", {f"score.{k}": v for k, v in weights.items()}, tokenizer)
    decoder = Decoder(config)
    rows = min(64, setting.beams * setting.problems)
    sampler = Sampler(
        config,
        stop_ids=(builder.step_id,),
        pad_id=builder.pad_id,
        prompt_buckets=builder.buckets,
        max_new_tokens=NEW,
        batch_buckets=(16, rows) if rows > 16 else (rows,),
    )
    solver = LocalSolver(sampler, backbone, Endless(), builder)
    prm = {"backbone": judge, "head": head}
    verifier = prm_verifier(
        decoder, "two_class", prm, builder, max_steps=setting.steps, batch_sizes=(rows,)
    )
    return {
        "cached": ours(setting, solver, verifier),
        "re_prefilled": ours(
            setting, UncachedSolver.of(solver), UncachedVerifier.of(verifier)
        ),
        "transformers": theirs(setting, builder, language, scorer),
    }


def ours(
    setting: Setting,
    solver: LocalSolver | UncachedSolver,
    verifier: ModelVerifier | UncachedVerifier,
) -> Search:
    """A beam search of our engine."""
    engine = Engine(
        solver,
        verifier,
        Beam(setting.beams, EXPANSIONS),
        Aggregation("last"),
        setting.steps,
    )

    def search(questions: Sequence[str], seed: int) -> Turn:
        start = time.perf_counter()
        trees = engine.search(questions, jax.random.key(seed))
        seconds = time.perf_counter() - start
        ledgers = [tree.ledger for tree in trees]
        read = sum(x.prefilled + x.verifier_tokens for x in ledgers)
        return Turn(seconds, sum(x.decoded for x in ledgers), read, trees)

    return search


def torch_models(setting: Setting, builder: StepBuilder) -> tuple[Any, Any]:
    """A language model and a scorer of random weights.

    The embeddings of the language model share their first number, from which its head
    reads that a step ends, every twelfth token or so, and that no special token
    comes otherwise.
    """
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(builder.tokenizer),
        hidden_size=setting.d_model,
        intermediate_size=3 * setting.d_model,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.d_model // 32,
        num_key_value_heads=setting.d_model // 64,
        max_position_embeddings=setting.longest,
        tie_word_embeddings=False,
        pad_token_id=builder.pad_id,
        bos_token_id=builder.bos_id,
        eos_token_id=builder.step_id,
    )
    language = transformers.LlamaForCausalLM(config).eval()
    scorer = transformers.LlamaForTokenClassification(config).eval()
    embedding, head = language.model.embed_tokens.weight, language.lm_head.weight
    with torch.no_grad():
        scorer.score.weight.mul_(10.0)  # else all scores are near 0
        embedding[:, 0] = 0.5
        head[:, 0] = 0.0
        head[torch.tensor(builder.tokenizer.all_special_ids), 0] = -2.0
        head[builder.step_id] = 0.0
        head[builder.step_id, 0] = 0.15
    return language, scorer


def tensors(model: Any) -> dict[str, np.ndarray]:
    """Those of its decoder; a scorer has no language head, which nothing reads."""
    found = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    found.setdefault("lm_head.weight", found["model.embed_tokens.weight"])
    return {k: v for k, v in found.items() if not k.startswith("score.")}


@dataclasses.dataclass
class Beamed:
    """A partial solution of search-and-learn: its ids, and its last score."""

    problem: int
    ids: list[int]
    score: float = 0.0


def theirs(
    setting: Setting, builder: StepBuilder, language: Any, scorer: Any
) -> Search:
    """Beam search as search-and-learn describes it: nothing is kept between steps."""

    def search(questions: Sequence[str], seed: int) -> Turn:
        torch.manual_seed(seed)
        start = time.perf_counter()
        beams = [
            Beamed(i, builder.context(question, ()))
            for i, question in enumerate(questions)
            for _ in range(setting.beams)
        ]
        decoded = read = 0
        for depth in range(setting.steps):
            read += sum(len(beam.ids) for beam in beams)
            decoded += generate(language, builder, beams)
            read += sum(len(beam.ids) for beam in beams)
            score(scorer, builder, beams)
            if depth + 1 < setting.steps:
                beams = kept(beams, setting)
        return Turn(time.perf_counter() - start, decoded, read)

    return search


def kept(beams: list[Beamed], setting: Setting) -> list[Beamed]:
    """Of each problem the best beams, each as often as it is expanded."""
    out = []
    for problem in range(setting.problems):
        mine = sorted(
            (beam for beam in beams if beam.problem == problem),
            key=lambda beam: -beam.score,
        )
        for beam in mine[: setting.beams // EXPANSIONS]:
            out += [Beamed(problem, list(beam.ids)) for _ in range(EXPANSIONS)]
    return out


def padded(builder: StepBuilder, beams: list[Beamed], side: str) -> tuple[Any, Any]:
    """Ids of all beams, padded on one side, and where they are."""
    pad = torch.nn.utils.rnn.pad_sequence
    rows = [torch.tensor(beam.ids) for beam in beams]
    ids = pad(rows, True, builder.pad_id, padding_side=side)
    mask = pad([torch.ones_like(row) for row in rows], True, 0, padding_side=side)
    return ids, mask


@torch.inference_mode()
def generate(model: Any, builder: StepBuilder, beams: list[Beamed]) -> int:
    """One more step of each beam, from its whole prefix; the tokens drawn."""
    ids, mask = padded(builder, beams, "left")
    width = ids.shape[1]
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, do_sample=True, top_k=0, top_p=1.0
    )
    drawn = 0
    for beam, row in zip(beams, out[:, width:].tolist(), strict=True):
        end = row.index(builder.step_id) + 1 if builder.step_id in row else len(row)
        beam.ids += row[:end]
        drawn += end
    return drawn


@torch.inference_mode()
def score(model: Any, builder: StepBuilder, beams: list[Beamed]) -> None:
    """The score of each beam's last step, from its whole row."""
    ids, mask = padded(builder, beams, "right")
    logits = model(ids, attention_mask=mask).logits
    for row, beam in enumerate(beams):
        last = logits[row, len(beam.ids) - 1]
        beam.score = float(last[1] - last[0])


if __name__ == "__main__":
    main()
