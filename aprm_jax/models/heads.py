"""Heads on the decoder's hidden states: values of tokens, verdicts on steps.

A PRM reads its verdict in one of three ways. `"token"`: the language head's raw logit
of a token that stands in the step is the log-odds that the token is right (a learned
scale and bias apart), and a step is as right as its worst token. `"two_class"`: a
linear layer of two classes on the `<step>` that closes the step, as most published
PRMs have it. `"three_class"`: the same with a class of neutral steps between both,
which count as not incorrect. One forward pass reads all the steps of a row, packed or
not.

Axes: B batch, T tokens, S steps, D model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Key, UInt32

from aprm_jax.data.rows import StepBatch
from aprm_jax.models import cpu_kernels
from aprm_jax.models.decoder import ONE_HOT_VOCAB, Decoder
from aprm_jax.models.layers import soft_cap
from aprm_jax.models.positions import causal_mask
from aprm_jax.models.quantised import SCALE
from aprm_jax.models.token_logprobs import read_tokens

Params = Mapping[str, Any]
PRNGKey = Key[Array, ""] | UInt32[Array, "2"]

HEADS = ("token", "two_class", "three_class")


def init_value_head(key: PRNGKey, d_model: int) -> dict[str, Float32[Array, "..."]]:
    """Parameters of a value head: kernel [D, 1], bias [1]."""
    return _init_linear(key, d_model, 1)


def init_class_head(key: PRNGKey, d_model: int) -> dict[str, Float32[Array, "..."]]:
    """Parameters of a two-class head: kernel [D, 2], bias [2]; class 1 is correct."""
    return _init_linear(key, d_model, 2)


def init_neutral_head(key: PRNGKey, d_model: int) -> dict[str, Float32[Array, "..."]]:
    """Parameters of a head of incorrect, neutral, correct: kernel [D, 3]."""
    return _init_linear(key, d_model, 3)


def init_prm(
    key: PRNGKey, backbone_params: Params, d_model: int, head: str
) -> dict[str, Any]:
    """A PRM on a backbone: `{"backbone": ..., "head": ...}`, the backbone shared.

    The token head is a scale and a bias that start as the identity.
    """
    check_head(head)
    if head == "token":
        own = {"scale": jnp.ones((), jnp.float32), "bias": jnp.zeros((), jnp.float32)}
    elif head == "two_class":
        own = init_class_head(key, d_model)
    else:
        own = init_neutral_head(key, d_model)
    return {"backbone": backbone_params, "head": own}


def check_head(head: str) -> None:
    """Raises ValueError unless `head` is one that PRMs have."""
    if head not in HEADS:
        raise ValueError(f"head must be one of {HEADS}, not {head!r}")


def values(head: Params, hidden: Float[Array, "B T D"]) -> Float32[Array, "B T"]:
    """The value of each token's prefix, the token included."""
    return _linear(head, hidden)[..., 0]


def class_logits(
    head: Params, hidden: Float[Array, "B T D"]
) -> Float32[Array, "B T C"]:
    """Logits of the classes at each token.

    A head is linear; one that holds another under `hidden`, as Qwen2.5-Math-PRM's
    does, has that and a ReLU before it.
    """
    if "hidden" in head:
        hidden = jax.nn.relu(_linear(head["hidden"], hidden))
    return _linear(head, hidden)


def step_logits(
    decoder: Decoder, prm_params: Params, batch: StepBatch, head: str
) -> Float32[Array, "B S"]:
    """Log-odds that each step is correct; 0 where `step_mask` is 0.

    The gradient of the token head goes to the token that decides a step alone.

    Args:
      decoder: the backbone's module.
      prm_params: `{"backbone": ..., "head": ...}` as `init_prm` makes them.
      batch: rows from the step builder.
      head: which of the heads `prm_params` holds.

    Raises:
      ValueError: an unknown head.
    """
    check_head(head)
    hidden, tokens = hidden_states(decoder, prm_params["backbone"], batch), batch.tokens
    step_ids, num_steps = jnp.asarray(batch.step_ids), batch.step_mask.shape[-1]
    first = int(head == "token")  # column 0 is read, but nothing predicts it
    scores = token_scores(
        decoder,
        prm_params,
        states_before(hidden, batch) if first else None,
        hidden[:, first:],
        jnp.asarray(tokens)[:, first:],
        head,
    )
    reduce = _step_minimum if head == "token" else _step_last
    logits = reduce(jnp.pad(scores, ((0, 0), (first, 0))), step_ids, num_steps)
    return jnp.where(jnp.asarray(batch.step_mask) > 0, logits, 0.0)


def token_scores(
    decoder: Decoder,
    prm_params: Params,
    before: Float[Array, "B T D"] | None,
    states: Float[Array, "B T D"],
    tokens: Int32[Array, "B T"],
    head: str,
) -> Float32[Array, "B T"]:
    """Log-odds that a step is correct, as read at each of its tokens.

    With the token head a step has the least of its tokens', else its last token's.

    Args:
      decoder: the backbone's module.
      prm_params: as of `step_logits`.
      before: the state that each token is predicted from; the token head needs it.
      states: the state of each token.
      tokens: the tokens.
      head: which of the heads `prm_params` holds.
    """
    backbone, own = prm_params["backbone"], prm_params["head"]
    if head == "token":
        assert before is not None
        chosen = _chosen_logits(decoder, backbone, before, tokens)
        return chosen * own["scale"] + own["bias"]
    classes = class_logits(own, states)
    right = classes[..., 1]
    if head == "three_class":
        right = jnp.logaddexp(right, classes[..., 2])
    return right - classes[..., 0]


def step_class_logprobs(
    decoder: Decoder, prm_params: Params, batch: StepBatch
) -> Float32[Array, "B S 3"]:
    """Log-probabilities of incorrect, neutral and correct for each step.

    For the three-class head, whose `step_logits` are the log-odds of "neutral or
    correct". Steps where `step_mask` is 0 have meaningless finite values.
    """
    hidden = hidden_states(decoder, prm_params["backbone"], batch)
    classes = class_logits(prm_params["head"], hidden)
    step_ids, num_steps = jnp.asarray(batch.step_ids), batch.step_mask.shape[-1]
    read = [_step_last(classes[..., k], step_ids, num_steps) for k in range(3)]
    return jax.nn.log_softmax(jnp.stack(read, axis=-1), axis=-1)


def token_logprobs(
    decoder: Decoder, backbone_params: Params, batch: StepBatch
) -> Float32[Array, "B T"]:
    """Log-probability of each step token given what is before it in its segment.

    Returns:
      log p(token t | before t) at every t with `step_ids >= 0`, 0 elsewhere.
    """
    hidden = hidden_states(decoder, backbone_params, batch)
    found = read_tokens(
        decoder,
        backbone_params,
        states_before(hidden, batch),
        jnp.asarray(batch.tokens)[:, 1:],
        jnp.asarray(batch.step_ids)[:, 1:] >= 0,
    )
    return jnp.pad(found.logprobs, ((0, 0), (1, 0)))


def hidden_states(
    decoder: Decoder, params: Params, batch: StepBatch
) -> Float[Array, "B T D"]:
    """The backbone's final states at every column of a batch."""
    hidden = decoder.apply(
        {"params": params},
        jnp.asarray(batch.tokens),
        jnp.asarray(batch.positions),
        jnp.asarray(batch.segment_ids),
        None if batch.ends is None else jnp.asarray(batch.ends),
    )
    return cast(Array, hidden)


def states_before(hidden: Float[Array, "B T D"], batch: StepBatch) -> Array:
    """[B, T-1, D]: the state that each column but the first is predicted from."""
    if batch.ends is None:
        return hidden[:, :-1]
    column = columns_before(batch)[:, 1:]
    return jnp.take_along_axis(hidden, column[..., None], axis=1)


def columns_before(batch: StepBatch) -> Int32[Array, "B T"]:
    """The column that each is predicted from; of the first of a segment any."""
    index = jnp.arange(batch.tokens.shape[1])
    if batch.ends is None:
        return jnp.broadcast_to(jnp.maximum(index - 1, 0), batch.tokens.shape)
    # The nearest column that the token sees: a branch goes on from where it forked.
    seen = causal_mask(jnp.asarray(batch.segment_ids), ends=jnp.asarray(batch.ends))
    earlier = seen & (index[None, None, :] < index[None, :, None])
    return jnp.where(earlier, index[None, None, :], 0).max(axis=-1)


def _logits(decoder: Decoder, params: Params, hidden: Array) -> Array:
    logits = decoder.apply({"params": params}, hidden, method=Decoder.logits)
    return cast(Array, logits)


def _init_linear(key: PRNGKey, d_in: int, d_out: int) -> dict[str, Array]:
    kernel = jax.nn.initializers.lecun_normal()(key, (d_in, d_out), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros((d_out,), jnp.float32)}


def _linear(head: Params, hidden: Float[Array, "B T D"]) -> Float32[Array, "B T C"]:
    kernel = head["kernel"].astype(jnp.float32)
    out = jnp.einsum("btd,dc->btc", hidden.astype(jnp.float32), kernel)
    return out + head["bias"].astype(jnp.float32)[None, None]


def _chosen_logits(
    decoder: Decoder,
    params: Params,
    before: Float[Array, "B T D"],
    chosen: Int32[Array, "B T"],
) -> Float32[Array, "B T"]:
    """The raw logit of each token, read where it is predicted.

    Of a large vocabulary only the rows of the chosen tokens are gathered: all its
    logits would outweigh the whole forward pass. Of a small one all logits are
    cheaper, because the gradient of a gather is a scatter on one thread.
    """
    config = decoder.config
    if config.vocab_size <= ONE_HOT_VOCAB:
        return cpu_kernels.picked(_logits(decoder, params, before), chosen)
    if config.tie_embeddings:
        own, name = params["embed"], "embedding"
        rows = own[name][chosen]
    else:
        own, name = params["head"], "kernel"
        rows = jnp.moveaxis(own[name][:, chosen], 0, -1)
    picked = jnp.einsum(
        "btd,btd->bt",
        before,
        rows.astype(before.dtype),
        preferred_element_type=jnp.float32,
    )
    if (scale := own.get(name + SCALE)) is not None:
        picked = picked * scale[chosen]
    return soft_cap(picked, config.logit_softcap)


def _step_minimum(
    scores: Float32[Array, "B T"], step_ids: Int32[Array, "B T"], num_steps: int
) -> Float32[Array, "B S"]:
    mine = step_ids[:, None, :] == jnp.arange(num_steps)[None, :, None]
    return jnp.where(mine, scores[:, None, :], jnp.inf).min(axis=-1)


def _step_last(
    scores: Float32[Array, "B T"], step_ids: Int32[Array, "B T"], num_steps: int
) -> Float32[Array, "B S"]:
    mine = step_ids[:, None, :] == jnp.arange(num_steps)[None, :, None]
    index = jnp.arange(step_ids.shape[1])[None, None, :]
    last = jnp.where(mine, index, 0).max(axis=-1)
    return jnp.take_along_axis(scores, last, axis=1)
