"""The sampler against teacher forcing: log-probabilities, order, stops, compilation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tiny_decoder import CONFIGS, SMALL, forward, make_params

from aprm_jax.sampling import methods, programs
from aprm_jax.sampling.merged import sample_merged
from aprm_jax.sampling.methods import Truncation, draw, row_uniforms
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.sampling.session import Session

STOPS, PAD, NEW = (5, 6), 0, 7
KEY = jax.random.key(3)


def make_sampler(config=SMALL, **changes):
    options = {
        "stop_ids": STOPS,
        "pad_id": PAD,
        "prompt_buckets": (6, 12),
        "max_new_tokens": NEW,
        "batch_buckets": (4, 16),
    }
    return Sampler(config, **{**options, **changes})


def make_prompts(n=10, seed=0):
    """Prompts of 1 to 12 tokens, a third of them repeated."""
    rng = np.random.default_rng(seed)
    lengths = [*rng.integers(1, 13, n - 2), 1, 12]
    distinct = [rng.integers(7, 37, k).tolist() for k in lengths]
    return [*distinct, *distinct[: n // 2]]


@pytest.fixture(scope="module")
def params():
    return make_params(SMALL)


@pytest.fixture(scope="module")
def sampler():
    return make_sampler()


def teacher_forced(config, params, prompts, samples, temperature=1.0, start=0):
    """Log-probabilities of the drawn tokens and the best token, from one batch."""
    rows = np.zeros((len(prompts), 12 + NEW), np.int32)
    segments, positions = np.zeros_like(rows), np.zeros_like(rows)
    for i, prompt in enumerate(prompts):
        ids = [*prompt, *samples.tokens[i, : samples.lengths[i]]]
        rows[i, : len(ids)], segments[i, : len(ids)] = ids, 1
        positions[i] = np.arange(12 + NEW) + start * (np.arange(12 + NEW) > 0)
    logits = forward(config, params, rows, positions, segments)
    logprobs = np.asarray(jax.nn.log_softmax(logits / temperature))
    out = np.zeros(samples.tokens.shape, np.float32)
    best = np.full(samples.tokens.shape, -1)
    for i, prompt in enumerate(prompts):
        for t in range(samples.lengths[i]):
            at = logprobs[i, len(prompt) - 1 + t]
            out[i, t], best[i, t] = at[samples.tokens[i, t]], at.argmax()
    return out, best


@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_equal_the_training_graphs(name):
    config, prompts = CONFIGS[name], make_prompts()
    weights = make_params(config)
    samples = make_sampler(config).sample(weights, prompts, KEY)
    expected, _ = teacher_forced(config, weights, prompts, samples)
    np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)
    assert samples.lengths.max() > 1


def test_new_tokens_count_on_from_the_prompts_own_positions(params):
    """Positions that jump, as those of lines do: all but the first token are late."""

    def jump(prompt):
        return np.arange(len(prompt), dtype=np.int32) + 50 * (
            np.arange(len(prompt)) > 0
        )

    prompts = [prompt for prompt in make_prompts() if len(prompt) > 1]
    samples = make_sampler(positions=jump).sample(params, prompts, KEY)
    expected, _ = teacher_forced(SMALL, params, prompts, samples, start=50)
    np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)


def test_temperature_divides_the_logits(sampler, params):
    prompts = make_prompts()
    samples = sampler.sample(params, prompts, KEY, temperature=0.5)
    expected, _ = teacher_forced(SMALL, params, prompts, samples, 0.5)
    np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)


def test_greedy_takes_the_teacher_forced_best(sampler, params):
    prompts = make_prompts()
    samples = sampler.sample(params, prompts, KEY, temperature=0.0)
    expected, best = teacher_forced(SMALL, params, prompts, samples)
    inside = np.arange(NEW)[None] < samples.lengths[:, None]
    np.testing.assert_array_equal(samples.tokens[inside], best[inside])
    np.testing.assert_allclose(samples.logprobs, expected, atol=1e-4)
    other = sampler.sample(params, prompts, jax.random.key(9), temperature=0.0)
    np.testing.assert_array_equal(samples.tokens, other.tokens)


def test_rows_end_at_their_first_stop(sampler, params):
    samples = sampler.sample(params, make_prompts(40), KEY)
    assert 0 < samples.stopped.sum() < len(samples.stopped)
    for i, n in enumerate(samples.lengths):
        row = samples.tokens[i]
        stops = np.isin(row[:n], STOPS)
        assert not stops[: n - 1].any()
        assert stops[n - 1] == samples.stopped[i]
        assert samples.stopped[i] or n == NEW
        assert (row[n:] == PAD).all() and (samples.logprobs[i, n:] == 0).all()


def test_a_row_depends_on_its_index_not_on_its_batch(sampler, params):
    prompts = make_prompts(40)
    one = {"prompt_buckets": (12,)}
    whole = make_sampler(batch_buckets=(64,), **one).sample(params, prompts, KEY)
    split = make_sampler(batch_buckets=(9,), **one).sample(params, prompts, KEY)
    part = sampler.sample(params, prompts[:11], KEY)
    np.testing.assert_array_equal(whole.tokens, split.tokens)
    np.testing.assert_array_equal(whole.tokens[:11], part.tokens)
    np.testing.assert_allclose(whole.logprobs, split.logprobs, atol=1e-4)


def test_equal_prompts_get_different_samples_and_other_keys_too(sampler, params):
    prompts = [[8, 9, 10]] * 12
    samples = sampler.sample(params, prompts, KEY)
    assert len({tuple(row) for row in samples.tokens}) > 6
    other = sampler.sample(params, prompts, jax.random.key(4))
    assert (samples.tokens != other.tokens).any()


def test_draws_follow_the_distribution():
    shares = np.array([0.5, 0.0, 0.3, 0.2], np.float32)
    n = 20_000
    uniforms = row_uniforms(KEY, jnp.arange(n, dtype=jnp.uint32), 1)[:, 0]
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(shares)), (n, 4))
    tokens, logprobs = draw(logits, uniforms, jnp.float32(1.0))
    share = np.bincount(tokens, minlength=4) / n
    # Four standard errors of a share of one half.
    np.testing.assert_allclose(share, shares, atol=4 * 0.5 / n**0.5)
    assert share[1] == 0
    np.testing.assert_allclose(np.exp(logprobs), shares[tokens], rtol=1e-5)


def test_the_extreme_uniforms_draw_possible_tokens():
    logits = jnp.array([[-jnp.inf, 1.0, 0.0, -jnp.inf]])
    for uniform, token in ((0.0, 1), (1.0 - 2.0**-23, 2)):
        drawn, _ = draw(logits, jnp.array([uniform]), jnp.float32(1.0))
        assert int(drawn[0]) == token


def _kept(probs, top_k=0, top_p=1.0, min_p=0.0):
    """The tokens that may be drawn, straight from the definitions."""
    kept = np.ones(len(probs), bool)
    if top_k:
        kept &= probs >= np.sort(probs)[::-1][:top_k][-1]
    left = np.where(kept, probs, 0.0) / probs[kept].sum()
    order, total, nucleus = np.argsort(-left, kind="stable"), 0.0, []
    for token in order:
        if total >= top_p - 1e-9:
            break
        nucleus.append(token)
        total += left[token]
    kept &= probs >= left[nucleus].min() * probs[kept].sum() - 1e-9
    return kept & (probs >= min_p * probs.max())


@pytest.mark.parametrize("fields", [{"top_k": 20}, {"top_p": 0.5}, {"min_p": 0.05}])
def test_the_ends_of_rounded_sums_draw_allowed_tokens(fields):
    """Sums in a tree rise by a rounding at tokens that may not be drawn."""
    row = 2.5 * jax.random.normal(jax.random.key(0), (1, 1000))
    rules = Truncation(**fields).rules
    assert rules is not None
    logprobs = jax.nn.log_softmax(row)
    allowed = np.asarray(methods._allowed(logprobs, rules))[0]
    sums = np.cumsum(np.where(allowed, np.exp(np.asarray(logprobs)[0]), 0.0))
    ends = np.unique(np.float32(sums[allowed] / sums[-1]))
    near = ends[:, None] + np.arange(-6, 7, dtype=np.float32) * np.float32(2.0**-24)
    uniforms = jnp.asarray(np.clip(near.ravel(), 0, 1 - 2.0**-24), jnp.float32)
    logits = jnp.broadcast_to(row, (len(uniforms), 1000))
    tokens, _ = draw(logits, uniforms, jnp.float32(1.0), rules)
    assert allowed[np.asarray(tokens)].all()


SHARES = np.array([0.05, 0.3, 0.1, 0.1, 0.25, 0.0, 0.2], np.float64)


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 4},  # two tokens are as likely as the fourth
        {"top_k": 99},
        {"top_p": 0.01},
        {"top_p": 0.55},
        {"top_p": 0.56},
        {"top_p": 0.8},
        {"top_k": 3, "top_p": 0.7},  # of what the three have, not of all
        {"min_p": 0.3},
        {"min_p": 1.0},
        {"top_k": 4, "top_p": 0.9, "min_p": 0.7},
    ],
)
@pytest.mark.parametrize("renormalised", [False, True])
def test_truncated_draws_follow_the_closed_form(fields, renormalised):
    """Which tokens, how often (chi-square) and with which log-probabilities."""
    kept = _kept(SHARES, **fields)
    n, expected = 20_000, np.where(kept, SHARES, 0) / SHARES[kept].sum()
    uniforms = row_uniforms(KEY, jnp.arange(n, dtype=jnp.uint32), 1)[:, 0]
    with np.errstate(divide="ignore"):
        logits = jnp.broadcast_to(jnp.asarray(np.log(SHARES), jnp.float32), (n, 7))
    rules = Truncation(**fields, renormalised=renormalised).rules
    tokens, logprobs = draw(logits, uniforms, jnp.float32(1.0), rules)
    found = np.bincount(tokens, minlength=7)
    possible = expected > 0
    assert not found[~possible].any()
    if possible.sum() > 1:
        test = scipy.stats.chisquare(found[possible], n * expected[possible])
        assert test.pvalue > 1e-3
    shares = expected if renormalised else SHARES
    np.testing.assert_allclose(np.exp(logprobs), shares[tokens], rtol=1e-4)


def test_nothing_truncated_is_drawn_as_ever(sampler, params):
    prompts = make_prompts()
    plain = sampler.sample(params, prompts, KEY)
    same = sampler.sample(params, prompts, KEY, truncation=Truncation())
    np.testing.assert_array_equal(plain.tokens, same.tokens)
    wide = sampler.sample(params, prompts, KEY, truncation=Truncation(top_k=37))
    np.testing.assert_array_equal(plain.tokens, wide.tokens)
    one = sampler.sample(params, prompts, KEY, truncation=Truncation(top_k=1))
    greedy = sampler.sample(params, prompts, KEY, temperature=0.0)
    np.testing.assert_array_equal(one.tokens, greedy.tokens)
    # Log-probabilities are the policy's, unless asked for.
    np.testing.assert_allclose(one.logprobs, greedy.logprobs, atol=1e-5)
    sure = Truncation(top_k=1, renormalised=True)
    assert (sampler.sample(params, prompts, KEY, truncation=sure).logprobs == 0).all()


@pytest.mark.parametrize(
    "fields", [{"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}]
)
def test_a_truncation_that_leaves_nothing_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Truncation(**fields)


def test_second_call_compiles_nothing(params):
    programs._jitted.cache_clear()  # what samplers of other tests have compiled
    sampler, prompts = make_sampler(), make_prompts()
    assert sampler.num_compiled == 0
    sampler.sample(params, prompts, KEY)
    compiled = sampler.num_compiled
    assert compiled >= 2
    # Other tokens, but as many distinct prompts: their number picks a batch bucket.
    others = [[(t + 1) % SMALL.vocab_size for t in prompt] for prompt in prompts]
    sampler.sample(params, others, jax.random.key(8), temperature=0.3)
    sampler.sample(jax.tree.map(jnp.ones_like, params), prompts, KEY, temperature=0.0)
    assert sampler.num_compiled == compiled
    # Another sampler of the same architecture has all that it needs.
    other = make_sampler()
    other.sample(params, prompts, KEY)
    assert other.num_compiled == 0


def test_equal_prompts_are_read_once(params):
    sampler, seen = make_sampler(), []
    prefill = sampler._programs.prefill

    def spy(params, tokens, lengths, positions):
        seen.append(int((np.asarray(lengths) > 0).sum()))
        return prefill(params, tokens, lengths, positions)

    sampler._programs.prefill = spy
    sampler.sample(params, [[8, 9], [10], [8, 9], [8, 9], [10]], KEY)
    assert seen == [2]


def test_no_prompts_give_no_samples(sampler, params):
    samples = sampler.sample(params, [], KEY)
    assert samples.tokens.shape == (0, NEW) and samples.lengths.shape == (0,)


def test_prompts_that_do_not_fit_are_named(sampler, params):
    with pytest.raises(ValueError, match="prompt 1 has 13 tokens"):
        sampler.sample(params, [[8], [8] * 13], KEY)
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        sampler.sample(params, [[]], KEY)
    with pytest.raises(ValueError, match="temperature"):
        sampler.sample(params, [[8]], KEY, temperature=-1.0)


def test_a_mesh_changes_nothing(sampler, params):
    mesh = jax.make_mesh(
        (1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
        devices=jax.devices()[:1],
    )
    prompts = make_prompts()
    meshed = make_sampler(mesh=mesh).sample(params, prompts, KEY)
    alone = sampler.sample(params, prompts, KEY)
    np.testing.assert_array_equal(meshed.tokens, alone.tokens)


@pytest.mark.parametrize(
    ("temperature", "truncation"),
    [(1.0, None), (0.7, Truncation(top_k=5)), (0.0, None)],
)
def test_prompts_drawn_often_give_what_each_row_would(
    params, monkeypatch, temperature, truncation
):
    # Some often, one seldom, one with a position after each stop; room for two chunks.
    prompts = [*[[7, 8, 9]] * 140, [11], *[[12, 13]] * 130, *[[7, 8, 9]] * 30]
    draws = np.random.default_rng(0).permutation(len(prompts)).tolist()
    options = {"temperature": temperature, "truncation": truncation, "draws": draws}
    merging = make_sampler(batch_buckets=(4,))
    merged = merging.sample(params, prompts, KEY, **options)
    monkeypatch.setattr("aprm_jax.sampling.sampler._MERGED_FROM", 1 << 20)
    single = make_sampler(batch_buckets=(4,)).sample(params, prompts, KEY, **options)
    np.testing.assert_array_equal(merged.tokens, single.tokens)
    np.testing.assert_array_equal(merged.lengths, single.lengths)
    np.testing.assert_array_equal(merged.stopped, single.stopped)
    np.testing.assert_allclose(merged.logprobs, single.logprobs, atol=1e-5)
    assert not merged.stopped.all()
    assert merged.stopped.any() or temperature == 0


def test_equal_beginnings_are_decoded_once(params, monkeypatch):
    read = []
    real = Session.read

    def counted(self, tokens, **options):
        read.append(len(tokens))
        return real(self, tokens, **options)

    monkeypatch.setattr(Session, "read", counted)
    prompts = [[7, 8]] * 200
    samples = make_sampler().sample(params, prompts, KEY, temperature=0.3)
    begun = [
        {
            tuple(t[: k + 1])
            for t, n in zip(samples.tokens, samples.lengths, strict=True)
            if n > k + 1
        }
        for k in range(NEW - 1)
    ]
    assert read == [len(texts) for texts in begun if texts]
    assert sum(read) < samples.lengths.sum() / 2


def test_draws_merge_whatever_shape_numpys_inverse_has(monkeypatch):
    """In NumPy 2.0 it has the axes of what was merged, in 2.1 one axis."""

    class Scripted(Session):
        def __init__(self):
            self.held: list[list[int]] = [[]]

        def draw(self, rows, draws, decided, step, steps):
            tokens = (draws % 2 + step + 1).astype(np.int32)
            return tokens, np.zeros(len(rows), np.float32)

        def gather(self, rows):
            self.held = [list(self.held[row]) for row in rows]

        def read(self, tokens, *, count_on=False):
            for row, new in zip(self.held, tokens, strict=True):
                row.extend(new)

    unique, session = np.unique, Scripted()

    def of_2_0(*args, **options):
        found, inverse = unique(*args, **options)
        return found, inverse.reshape(1, -1)

    monkeypatch.setattr("numpy.unique", of_2_0)
    found = sample_merged(
        session,
        np.zeros(5, int),
        jax.random.key(0),
        stop_ids=(),
        pad_id=0,
        max_new_tokens=3,
        temperature=1.0,
        truncation=None,
        draws=np.arange(5, dtype=np.uint32),
    )
    expected = [[k % 2 + step + 1 for step in range(3)] for k in range(5)]
    assert found.tokens.tolist() == expected
    assert session.held == [[1, 2], [2, 3]]


def test_stop_position_of_a_merged_draw_is_that_of_a_row(params, monkeypatch):
    # A tokenizer's opener drawn inside a reply moves no position.
    strided = {"positions": lambda ids: 3 * np.arange(len(ids))}
    prompts = [[7, 8, 9]] * 130
    merged = make_sampler(**strided).sample(params, prompts, KEY)
    monkeypatch.setattr("aprm_jax.sampling.sampler._MERGED_FROM", 1 << 20)
    single = make_sampler(**strided).sample(params, prompts, KEY)
    np.testing.assert_array_equal(merged.tokens, single.tokens)
    np.testing.assert_allclose(merged.logprobs, single.logprobs, atol=1e-5)
