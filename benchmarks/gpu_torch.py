"""Torch's side of `gpu.py`: transformers on the same shapes, with random weights.

Each function gives its figures; the Python that runs it may have nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sides
import torch
import transformers
from gpu_setting import SEED, Setting, timed

AT_ONCE = 16  # rows that are scored at once, as verifiers.scoring has it of long ones


def measured(part: str, setting: Setting) -> dict[str, Any]:
    """Figures of a part, where they were measured, and the memory that it took."""
    torch.manual_seed(SEED)
    figures = PARTS[part](setting)
    return {**figures, "device": device(), "peak_bytes": peak_bytes()}


def device() -> dict[str, Any]:
    """What there is to measure on."""
    cuda = torch.cuda.is_available()
    return {
        "platform": place(),
        "kind": torch.cuda.get_device_name() if cuda else "cpu",
        "versions": sides.versions("torch", "transformers"),
    }


def peak_bytes() -> int | None:
    """Of the device since the process began; None on a CPU."""
    cuda = torch.cuda.is_available()
    return torch.cuda.max_memory_allocated() if cuda else None


def place() -> str:
    """Where models are."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def model(setting: Setting, dtype: Any) -> Any:
    """A language model, whose attention is torch's own kernel."""
    config = transformers.Qwen2Config(**setting.model)
    config._attn_implementation = "sdpa"
    with torch.device(place()):
        made = transformers.Qwen2ForCausalLM(config)
    return made.to(dtype)


def product_dtype(setting: Setting) -> Any:
    return getattr(torch, setting.dtype)


def random_ids(setting: Setting, rows: int, length: int) -> Any:
    most = setting.model["vocab_size"]
    return torch.randint(8, most, (rows, length), device=place())


def sample(setting: Setting, cache: str | None = None) -> dict[str, Any]:
    """`generate`, with all replies to a prompt in one request; no log-probabilities."""
    made = model(setting, product_dtype(setting)).eval()
    ids = random_ids(setting, setting.groups, setting.prompt)
    options = {"cache_implementation": cache} if cache else {}

    @torch.inference_mode()
    def turn() -> None:
        out = made.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=setting.new,
            min_new_tokens=setting.new,
            num_return_sequences=setting.group_size,
            pad_token_id=0,
            **options,
        )
        wait()
        assert out.shape == (setting.rows, setting.length)

    seconds = timed(turn, setting.repeats)
    wrote = setting.rows * setting.new
    return {"seconds": seconds, "sampled_tokens_a_second": wrote / seconds["median"]}


def sample_static(setting: Setting) -> dict[str, Any]:
    """The same with a cache of fixed size, for which `generate` compiles."""
    return sample(setting, "static")


def score(setting: Setting) -> dict[str, Any]:
    """A verdict at the end of each row, as many rows at once as ours scores."""
    made = model(setting, product_dtype(setting)).model.eval()
    head = torch.nn.Linear(made.config.hidden_size, 2).to(place(), made.dtype)
    rows = random_ids(setting, setting.rows, setting.length).split(AT_ONCE)

    @torch.inference_mode()
    def turn() -> None:
        for part in rows:
            states = made(input_ids=part, use_cache=False).last_hidden_state
            head(states[:, -1])
        wait()

    return {"seconds": timed(turn, setting.repeats)}


def update(setting: Setting) -> dict[str, Any]:
    """A step of either player: its reference, its loss and gradient, Adam.

    Float32 parameters, products by autocast, layers computed again, microbatches: as
    ours, but Adam keeps all moments, and G has no critic.
    """
    ref = model(setting, product_dtype(setting)).eval().requires_grad_(False)
    players = [Player(setting, ref, loss) for loss in (_written, _verdict)]

    def turn() -> None:
        for player in players:
            player.step()
        wait()

    seconds = timed(turn, setting.repeats)
    tokens = 2 * setting.rows * setting.length
    return {
        "seconds": seconds,
        "update_tokens_a_second": tokens / seconds["median"],
    }


class Player:
    """A model that learns, beside a reference that does not."""

    def __init__(self, setting: Setting, ref: Any, loss: Callable[..., Any]):
        self.setting, self.ref, self.loss = setting, ref, loss
        self.model = model(setting, torch.float32).train()
        old = self.model.gradient_checkpointing_enable  # its name before transformers 5
        enable = getattr(self.model, "activation_checkpointing_enable", old)
        enable({"use_reentrant": False})
        self.head = torch.nn.Linear(self.model.config.hidden_size, 2).to(place())
        self.trained = [*self.model.parameters(), *self.head.parameters()]
        self.adam = torch.optim.Adam(self.trained, 1e-6, fused=True)
        ids = random_ids(setting, setting.rows, setting.length)
        self.parts = ids.chunk(setting.microbatches)

    def step(self) -> None:
        """One update on all rows."""
        dtype = product_dtype(self.setting)
        on = dtype != torch.float32
        for part in self.parts:
            with torch.autocast(place(), dtype, enabled=on):
                with torch.no_grad():
                    fixed = self.loss(self, self.ref, part)
                here = self.loss(self, self.model, part)
            # A surrogate at the ratio 1, and the distance to the reference.
            (here - 0.05 * (here - fixed).square()).mean().neg().backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def _written(player: Player, of: Any, ids: Any) -> Any:
    """Log-probabilities of replies [B, T], logits computed for these alone."""
    new = player.setting.new
    out = of(input_ids=ids, use_cache=False, logits_to_keep=new + 1).logits
    flat = out[:, :-1].float().flatten(0, 1)
    wanted = ids[:, -new:].flatten()
    return -torch.nn.functional.cross_entropy(flat, wanted, reduction="none")


def _verdict(player: Player, of: Any, ids: Any) -> Any:
    """Log-odds at the end of each row."""
    states = of.model(input_ids=ids, use_cache=False).last_hidden_state
    logits = player.head(states[:, -1]).float()
    return torch.nn.functional.logsigmoid(logits[:, 1] - logits[:, 0])


PARTS = {
    "torch_sample": sample,
    "torch_static": sample_static,
    "torch_score": score,
    "torch_update": update,
}
