"""The one decoder: every model here is this module with another config.

A pre-norm transformer in the Llama family, with the options of `DecoderConfig`.
Training and prefill scan over layers whose parameters are stacked on a leading axis; a
decode step unrolls the same parameters.

Axes: B batch, T target/query, S cache slots, K KV heads, H head size, D model, V
vocabulary, L layers. Parameters are a plain tree:

    embed/embedding [V, D]                head/kernel [D, V], untied only
    layers/attention_norm/scale [L, D]    layers/attention/q/kernel [L, D, N, H]
    layers/mlp_norm/scale [L, D]          layers/attention/{k,v}/kernel [L, D, K, H]
    final_norm/scale [D]                  layers/attention/o/kernel [L, N, H, D]
                                          layers/mlp/{gate,up}/kernel [L, D, F]
                                          layers/mlp/down/kernel [L, F, D]

and where a family has them

    layers/attention/{q_norm,k_norm}/scale [L, H]
    layers/attention/q/bias [L, N, H], {k,v}/bias [L, K, H], o/bias [L, D]
    layers/{attention_post_norm,mlp_post_norm}/scale [L, D]
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from aprm_jax.models import cpu_kernels
from aprm_jax.models.layers import (
    KEPT,
    DecoderConfig,
    Layer,
    RMSNorm,
    scan_unroll,
    soft_cap,
)
from aprm_jax.models.placement import by_rows
from aprm_jax.models.positions import attention_context, layer_kinds
from aprm_jax.models.quantised import scaled

__all__ = ["ONE_HOT_VOCAB", "Decoder", "DecoderConfig"]

# Up to this many tokens the gradient of the embedding is a product; see `lookup`.
ONE_HOT_VOCAB = 1024


def _head(hidden, kernel):
    rows = hidden.reshape(-1, hidden.shape[-1])  # see layers.Projection
    logits = jnp.matmul(rows, kernel, preferred_element_type=jnp.float32)
    logits = logits.reshape(*hidden.shape[:-1], kernel.shape[-1])
    return by_rows(logits, split=-1)


def _recomputed(layer: type[nn.Module], remat: str) -> type[nn.Module]:
    """A layer that keeps for the backward pass what `DecoderConfig.remat` says."""
    policies = {
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "names": jax.checkpoint_policies.save_only_these_names(*KEPT),
        "full": None,
    }
    if remat == "none":
        return layer
    return nn.remat(layer, static_argnums=(3,), policy=policies[remat])


class Embed(nn.Module):
    """Token embedding and, where tied, the LM head."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        # Residuals start small, as Llama's do; tied logits then have a standard
        # deviation of 0.02 sqrt(D), so the first loss is log V.
        self.embedding = self.param(
            "embedding",
            nn.initializers.normal(0.02),
            (c.vocab_size, c.d_model),
            c.param_dtype,
        )

    def __call__(self, tokens: Int32[Array, "B T"]) -> Float[Array, "B T D"]:
        scale = self.get_variable("params", "embedding_scale")
        if scale is not None:  # of int8
            rows = self.embedding[tokens] * scale[tokens][..., None]
        elif self.config.vocab_size <= ONE_HOT_VOCAB:
            rows = cpu_kernels.lookup(self.embedding, tokens)
        else:
            rows = self.embedding[tokens]
        rows = rows.astype(self.config.dtype)
        if self.config.scale_embeddings:
            # Rounded to the activations' precision, as Gemma was trained.
            rows = rows * jnp.asarray(self.config.d_model**0.5, self.config.dtype)
        return by_rows(rows)

    def attend(self, hidden: Float[Array, "... D"]) -> Float32[Array, "... V"]:
        logits = _head(hidden, self.embedding.astype(self.config.dtype).T)
        return scaled(logits, self.get_variable("params", "embedding_scale"))


class Head(nn.Module):
    """An LM head of its own."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "... D"]) -> Float32[Array, "... V"]:
        c = self.config
        kernel = self.param(
            "kernel",
            nn.initializers.normal(0.02),
            (c.d_model, c.vocab_size),
            c.param_dtype,
        )
        logits = _head(hidden, kernel.astype(c.dtype))
        return scaled(logits, self.get_variable("params", "kernel_scale"))


class Decoder(nn.Module):
    """A causal language model over packed segments; `__call__` inits all of it."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        self.embed = Embed(c)
        layer = _recomputed(Layer, c.remat)
        self.layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
            length=c.num_layers,
            unroll=scan_unroll(c.num_layers),
        )(c)
        self.final_norm = RMSNorm(c)
        if not c.tie_embeddings:
            self.head = Head(c)

    def __call__(
        self,
        tokens: Int32[Array, "B T"],
        positions: Int32[Array, "B T"],
        segment_ids: Int32[Array, "B T"],
        ends: Int32[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Final hidden states; causal within a segment, segment 0 is padding.

        Where a segment branches, `ends` is the last column that sees each token.
        """
        seen, kinds = (
            attention_context(self.config, positions, segment_ids, ends),
            layer_kinds(self.config),
        )
        hidden, _ = self.layers(self.embed(tokens), seen, False, kinds)
        hidden = self.final_norm(hidden)
        if self.is_initializing() and not self.config.tie_embeddings:
            self.head(hidden)
        return hidden

    def logits(self, hidden: Float[Array, "... D"]) -> Float32[Array, "... V"]:
        """The LM head."""
        head = self.embed.attend if self.config.tie_embeddings else self.head
        return soft_cap(head(hidden), self.config.logit_softcap)

    def embedded(self, tokens: Int32[Array, "B T"]) -> Float[Array, "B T D"]:
        """What the first layer reads."""
        return self.embed(tokens)

    def normed(self, residual: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Final states, of what the last layer wrote."""
        return self.final_norm(residual)

    def norm_logits(self, residual: Float[Array, "... D"]) -> Float32[Array, "... V"]:
        """Logits of what the last layer wrote."""
        return self.logits(self.final_norm(residual))
