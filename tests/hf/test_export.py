"""Exports as transformers reads them: the same scores, the same tokens, or nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import tiny_decoder
import tiny_hf
from tiny_hf import run_card
from tiny_tokenizers import TOKENIZERS, line_merging

import aprm_jax
from aprm_jax.config.groups import MeshConfig
from aprm_jax.data import prompts as words
from aprm_jax.data.bpe import train_bpe
from aprm_jax.data.replies import Reply
from aprm_jax.data.steps import StepBuilder
from aprm_jax.hf import export, load, prm_layouts
from aprm_jax.hf.builders import open_writer
from aprm_jax.hf.export import ExportError, Origin, Provenance, export_model
from aprm_jax.hf.prm_layouts import LayoutBuilder
from aprm_jax.hf.record import read_record
from aprm_jax.hf.safetensors_io import Checkpoint
from aprm_jax.models import heads, lora
from aprm_jax.models.io import ModelSpec, save_model
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.training.mesh import make_mesh

SOLUTIONS = [(q, steps) for q, steps, _ in tiny.solutions()]


def spec_of(kind: str, config: Any, **changes) -> ModelSpec:
    fields: dict[str, Any] = {
        "kind": kind,
        "decoder": config,
        "head": "two_class" if kind == "prm" else None,
        "window": None,
        "buckets": (32, 64),
        "domain": "arithmetic",
        "max_new_tokens": 8,
    }
    return ModelSpec(**{**fields, **changes})


def plain(**changes) -> tuple[Any, Any]:
    """A decoder of ours, from scratch, with noise in every parameter."""
    config = tiny.decoder(**changes)
    return config, tiny_decoder.make_params(config)


def head_params(head: str, d_model: int = 16) -> Any:
    rng = np.random.default_rng(0)
    if head == "token":
        return {"scale": np.asarray(0.7), "bias": np.asarray(-0.3)}
    classes = len(export.CLASSES[head])
    kernel = rng.normal(size=(d_model, classes)).astype(np.float32)
    return {"kernel": kernel, "bias": rng.normal(size=classes).astype(np.float32)}


def our_scores(params, spec, tmp_path) -> list[np.ndarray]:
    save_model(tmp_path / "ours", params, spec, tiny.tokenizer())
    return aprm_jax.PRM.load(tmp_path / "ours").score_batch(SOLUTIONS)


@pytest.mark.parametrize("stride", [0, 9])
@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("head", ["two_class", "three_class", "token"])
def test_a_prm_gives_our_scores(head, window, stride, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    config, backbone = plain(tie_embeddings=window is None)
    spec = spec_of("prm", config, head=head, window=window, line_stride=stride)
    params = {"backbone": backbone, "head": head_params(head)}
    folder = export_model(tmp_path / "out", params, spec, tiny.tokenizer())
    names = run_card(folder, monkeypatch)
    assert ("position_ids" in (folder / "README.md").read_text()) == bool(stride)
    for (question, steps), want in zip(
        SOLUTIONS, our_scores(params, spec, tmp_path), strict=True
    ):
        got = names["score"](question, list(steps))
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert np.ptp(want) > 1e-3 or len(want) == 1
    kind = "ForCausalLM" if head == "token" else "ForTokenClassification"
    assert type(names["model"]()).__name__ == f"Llama{kind}"


@pytest.mark.parametrize("family", tiny_hf.FAMILIES)
def test_a_prm_on_any_family_gives_our_logits(family, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    folder = tiny_hf.save(tiny_hf.hf_model(family), tmp_path / "base")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    base = load.load_backbone(folder, mesh, vocab_size=40)
    params = {"backbone": base.params, "head": head_params("two_class", 32)}
    origin = Origin(base_model="user/base", vocab_rows=base.vocab_rows)
    spec = spec_of("prm", base.config, family=family, extra=origin.extra())
    if family == "gemma3":
        with pytest.raises(ExportError, match="no token classification on gemma3"):
            export_model(tmp_path / "out", params, spec, base.tokenizer)
        return
    out = export_model(
        tmp_path / "out", params, spec, base.tokenizer, max_shard_bytes=10_000
    )
    assert (out / "model.safetensors.index.json").is_file()
    model = transformers.AutoModelForTokenClassification.from_pretrained(out).eval()
    assert model.config.vocab_size == 37  # our padding is gone
    assert model.config.id2label == {0: "incorrect", 1: "correct"}
    builder = StepBuilder(base.tokenizer, None, (32, 64))
    row = builder.solution(*SOLUTIONS[1])
    decoder = aprm_jax.models.decoder.Decoder(base.config)
    batch = builder.collate([row])
    want = heads.step_logits(decoder, params, batch, "two_class")[0]
    with torch.no_grad():
        logits = model(torch.tensor(row.tokens[None].astype(np.int64))).logits[0]
    ends = np.flatnonzero(row.tokens == builder.step_id)[1:]
    got = (logits[:, 1] - logits[:, 0]).numpy()[ends]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_pipeline_reads_the_verdicts(tmp_path):
    pytest.importorskip("torch")
    import transformers

    config, backbone = plain()
    spec = spec_of("prm", config)
    params = {"backbone": backbone, "head": head_params("two_class")}
    folder = export_model(tmp_path / "out", params, spec, tiny.tokenizer())
    pipe = transformers.pipeline("token-classification", str(folder))
    question, steps = SOLUTIONS[1]
    text = "<bos> " + " ".join(f"{line} <step>" for line in (question, *steps))
    pipe_args: dict[str, Any] = {"ignore_labels": []}
    found = [t for t in pipe(text, **pipe_args) if t["word"] == "<step>"][1:]
    got = [t["score"] if t["entity"] == "correct" else 1 - t["score"] for t in found]
    np.testing.assert_allclose(got, our_scores(params, spec, tmp_path)[1], atol=1e-4)


@pytest.mark.parametrize("stride", [0, 9])
@pytest.mark.parametrize("kind", ["generator", "solver"])
def test_a_language_model_writes_our_tokens(kind, stride, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    config = tiny.decoder(tie_embeddings=False)
    params = {"backbone": tiny_decoder.make_params(config, seed=3)}
    spec = spec_of(kind, config, window=2, max_new_tokens=12, line_stride=stride)
    folder = export_model(tmp_path / "out", params, spec, tiny.tokenizer())
    names = run_card(folder, monkeypatch)
    builder = StepBuilder(tiny.tokenizer(), 2, (32, 64), stride)
    sampler = Sampler(
        config,
        stop_ids=builder.replies.stop_ids,
        pad_id=builder.pad_id,
        prompt_buckets=(64,),
        max_new_tokens=12,
        batch_buckets=(4,),
        positions=builder.positions,
    )
    for question, steps in SOLUTIONS:
        arguments = [question, list(steps[:-1])]
        if kind == "generator":
            arguments.append(steps[-1])
            prompt = builder.perturb_context(*arguments)
        else:
            prompt = builder.context(*arguments)
        drawn = sampler.sample(
            params["backbone"], [prompt], jax.random.key(0), temperature=0.0
        )
        length = int(drawn.lengths[0]) - int(drawn.stopped[0])
        want = builder.decode(drawn.tokens[0][:length].tolist())
        assert names["write"](*arguments) == want
    config_file = json.loads((folder / "generation_config.json").read_text())
    assert config_file["eos_token_id"] == list(builder.replies.stop_ids)


_GO = (
    "<bos>{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}go:{% endif %}"
)
_THINK = _GO.replace("<bos>", "<bos>{{ strftime_now('%Y-%m') }}").replace(
    "go:", "<think>\n"
)


@pytest.mark.parametrize("kind", ["generator", "solver"])
@pytest.mark.parametrize("chat", [None, _GO, _THINK], ids=["plain", "chat", "thinks"])
def test_what_is_told_in_words_writes_our_tokens(chat, kind, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    tokenizer = words.prepare_tokenizer(train_bpe([words.GENERATOR_PROMPT], 300), 0)
    tokenizer.chat_template = chat
    config = tiny.decoder(load.tokenizer_rows(tokenizer), tie_embeddings=False)
    params = {"backbone": tiny_decoder.make_params(config, seed=4)}
    solves = kind == "solver"
    told = "Go on with {question} after {prefix} in {{one}} line" + " {step}" * (
        not solves
    )
    spec = spec_of(kind, config, prompt=told, buckets=(192,), max_new_tokens=10)
    folder = export_model(tmp_path / "out", params, spec, tokenizer)
    names = run_card(folder, monkeypatch)
    builder = open_writer(spec, tokenizer)
    sampler = Sampler(
        config,
        stop_ids=builder.replies.stop_ids,
        pad_id=builder.pad_id,
        prompt_buckets=(192,),
        max_new_tokens=10,
        batch_buckets=(4,),
    )
    asked: list[Any] = [(q, list(steps[:-1]), steps[-1]) for q, steps in SOLUTIONS]
    asked.append(("<eos> <step>?", [], "<eos>"))  # it stays text
    asked = [a[:2] for a in asked] if solves else asked
    context = builder.context if solves else builder.perturb_context
    prompts = [context(*a) for a in asked]
    assert [names["asked"](*a, *[None] * solves) for a in asked] == prompts
    drawn = sampler.sample(
        params["backbone"], prompts, jax.random.key(0), temperature=0.0
    )
    for i, arguments in enumerate(asked):
        want = builder.replies.read(drawn.reply(i)).text
        assert names["write"](*arguments) == want
    assert len({tuple(row) for row in drawn.tokens.tolist()}) > 1


def test_a_line_is_read_up_to_its_end_by_its_export(tmp_path, monkeypatch):
    """Whatever else is in the token that ends it."""
    pytest.importorskip("torch")
    tokenizer = words.prepare_tokenizer(line_merging(), 0)
    config = tiny.decoder(load.tokenizer_rows(tokenizer), tie_embeddings=False)
    params = {"backbone": tiny_decoder.make_params(config, seed=4)}
    spec = spec_of("solver", config, prompt="{question} {prefix}", buckets=(192,))
    folder = export_model(tmp_path / "out", params, spec, tokenizer)
    names, builder = run_card(folder, monkeypatch), open_writer(spec, tokenizer)
    vocab, body = tokenizer.get_vocab(), list(builder.encode("So 13"))
    for end, said in (
        *((".ĊĊ", "So 13."), ("ĊĠ", "So 13"), ("Ċ", "So 13")),
        *(("<|end|>", "So 13"), ("!", "So 13!")),  # no room for its end
    ):
        ids = [*body, vocab[end]]
        monkeypatch.setitem(names, "generated", lambda prompt, ids=ids: list(ids))
        assert names["write"]("Q?", []) == said
        reply = Reply(tuple(ids), np.zeros(len(ids), np.float32), end != "!")
        assert builder.replies.read(reply).text == said


@pytest.mark.parametrize("kind", ["generator", "solver"])
def test_what_is_told_by_default_is_told_the_same_from_its_export(kind, tmp_path):
    """A solver's words are not a Generator's."""
    tokenizer = words.prepare_tokenizer(train_bpe([words.GENERATOR_PROMPT], 300), 0)
    config = tiny.decoder(load.tokenizer_rows(tokenizer), tie_embeddings=False)
    params = {"backbone": tiny_decoder.make_params(config, seed=4)}
    spec = spec_of(kind, config, prompt="", max_new_tokens=10)
    folder = export_model(tmp_path / "out", params, spec, tokenizer)
    record = read_record(folder, config)
    assert record is not None
    before, after = (open_writer(each, tokenizer) for each in (spec, record.spec))
    assert after.context("2?", ["2"]) == before.context("2?", ["2"])
    asked = ("2?", ["2"], "2")
    assert after.perturb_context(*asked) == before.perturb_context(*asked)
    assert (record.rows["cue"] == "\n\nNext step:") is (kind == "solver")


def laid_out(layout: str, tmp_path: Path) -> tuple[Any, ModelSpec, Any]:
    """A published PRM of the layout, loaded, its head changed by training."""
    tokenizer = TOKENIZERS[layout]()
    rows = load.tokenizer_rows(tokenizer)
    if layout == "math_shepherd":
        config = tiny.decoder(rows, tie_embeddings=False)
    else:
        config = tiny.decoder(rows, attention_bias="qkv")
    heads_ = head_params("two_class")
    if layout == "qwen2_prm":
        rng = np.random.default_rng(1)
        kernel = rng.normal(size=(16, 16)).astype(np.float32)
        bias = rng.normal(size=16).astype(np.float32)
        heads_ = {"hidden": {"kernel": kernel, "bias": bias}, **heads_}
    params = {"backbone": tiny_decoder.make_params(config, seed=2), "head": heads_}
    family = "mistral" if layout == "math_shepherd" else "qwen2"
    spec = spec_of("prm", config, layout=layout, family=family, buckets=(256,))
    return params, spec, tokenizer


STEPS = ("She eats three eggs.", "So 16 - 3 = 13 eggs\nare left.", "The answer is 13")


def scores_of(params: Any, spec: ModelSpec, tokenizer: Any) -> np.ndarray:
    builder = LayoutBuilder(str(spec.layout), tokenizer, spec.buckets)
    batch = builder.collate([builder.solution("How many eggs?", STEPS)])
    decoder = aprm_jax.models.decoder.Decoder(spec.decoder)
    logits = heads.step_logits(decoder, params, batch, "two_class")
    return np.asarray(jax.nn.sigmoid(logits))[0]


@pytest.mark.parametrize("layout", ["trl", "skywork", "math_shepherd"])
def test_a_published_prm_comes_out_as_token_classification(
    layout, tmp_path, monkeypatch
):
    """With its own prompt and separators, as the card's code has them."""
    pytest.importorskip("torch")
    params, spec, tokenizer = laid_out(layout, tmp_path)
    folder = export_model(
        tmp_path / "out", params, spec, tokenizer, format_="token_classification"
    )
    got = run_card(folder, monkeypatch)["score"]("How many eggs?", list(STEPS))
    want = scores_of(params, spec, tokenizer)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.ptp(want) > 1e-3


@pytest.mark.parametrize("layout", ["qwen2_prm", "skywork"])
def test_a_published_prm_goes_back_into_its_layout(layout, tmp_path, monkeypatch):
    """Read again as the layout's checkpoint is: the same tensors, the same scores."""
    params, spec, tokenizer = laid_out(layout, tmp_path)
    folder = export_model(tmp_path / "out", params, spec, tokenizer)
    assert prm_layouts.detect(folder) == layout
    ours = prm_layouts.LAYOUTS[layout]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    base = load.load_backbone(folder, mesh, ignore=ours.ignored)
    with Checkpoint.open(folder) as checkpoint:
        tensors = {key: checkpoint.read(key) for key in ours.keys}
    again = prm_layouts.head_params(layout, tensors, tokenizer)
    jax.tree.map(np.testing.assert_array_equal, base.params, params["backbone"])
    if layout == "qwen2_prm":
        jax.tree.map(np.testing.assert_array_equal, again, params["head"])
    np.testing.assert_allclose(
        scores_of({"backbone": base.params, "head": again}, spec, base.tokenizer),
        scores_of(params, spec, tokenizer),
        atol=1e-5,
    )
    card = (folder / "README.md").read_text()
    step = LayoutBuilder(layout, tokenizer, (256,)).step_id
    assert f"token {step}" in card
    for other in ("qwen2_prm", "skywork", "peft"):
        if other != layout:
            with pytest.raises(ExportError):
                export_model(tmp_path / "no", params, spec, tokenizer, format_=other)
    assert not (tmp_path / "no").exists()
    pytest.importorskip("torch")
    got = run_card(folder, monkeypatch)["score"]("How many eggs?", list(STEPS))
    np.testing.assert_allclose(got, scores_of(params, spec, tokenizer), atol=1e-4)


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("format_", ["qwen2_prm", "skywork"])
def test_rows_of_ours_in_a_published_layout_score_the_same(
    format_, window, tmp_path, monkeypatch
):
    pytest.importorskip("torch")
    config = tiny.decoder(attention_bias="qkv")
    spec = spec_of("prm", config, family="qwen2", window=window)
    params = {
        "backbone": tiny_decoder.make_params(config),
        "head": head_params("two_class"),
    }
    folder = export_model(
        tmp_path / "out",
        params,
        spec,
        tiny.tokenizer(),
        format_=format_,
        max_shard_bytes=4000,
    )
    assert len(list(folder.glob("*.safetensors"))) > 1
    score = run_card(folder, monkeypatch)["score"]
    ours = our_scores(params, spec, tmp_path)
    for (question, steps), want in zip(SOLUTIONS, ours, strict=True):
        np.testing.assert_allclose(score(question, steps), want, atol=1e-4)


def test_the_qwen2_prm_layout_computes_our_scores(tmp_path):
    torch = pytest.importorskip("torch")
    import safetensors.torch
    import transformers

    base_folder = tiny_hf.save(tiny_hf.hf_model("qwen2"), tmp_path / "base")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    base = load.load_backbone(base_folder, mesh)
    params = {"backbone": base.params, "head": head_params("two_class", 32)}
    spec = spec_of("prm", base.config, family="qwen2")
    out = export_model(
        tmp_path / "out", params, spec, base.tokenizer, format_="qwen2_prm"
    )
    described = json.loads((out / "config.json").read_text())
    assert described["architectures"] == ["Qwen2ForProcessRewardModel"]
    tensors = safetensors.torch.load_file(out / "model.safetensors")
    # Qwen2.5-Math-PRM: Linear, ReLU, Linear on the last hidden state.
    model = transformers.Qwen2Model(transformers.AutoConfig.from_pretrained(out)).eval()
    state = {
        k.removeprefix("model."): v for k, v in tensors.items() if "score" not in k
    }
    model.load_state_dict(state)
    row = StepBuilder(base.tokenizer, None, (32, 64)).solution(*SOLUTIONS[1])
    with torch.no_grad():
        ids = torch.tensor(row.tokens[None].astype(np.int64))
        hidden = model(ids).last_hidden_state[0]
        inner = hidden @ tensors["score.0.weight"].T + tensors["score.0.bias"]
        logits = inner.relu() @ tensors["score.2.weight"].T + tensors["score.2.bias"]
    step = tiny.WORDS.index("<step>")
    ends = np.flatnonzero(row.tokens == step)[1:]
    got = logits.softmax(-1)[:, 1].numpy()[ends]
    np.testing.assert_allclose(got, our_scores(params, spec, tmp_path)[1], atol=1e-4)
    assert f'"step_tag_id": {step}' in (out / "README.md").read_text()


def adapter(kind: str, tmp_path: Path) -> tuple[Any, Any, Any, Path]:
    """A base on disk and a player's adapter beside it, of random numbers."""
    folder = tiny_hf.save(tiny_hf.hf_model("qwen2"), tmp_path / "base")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    base = load.load_backbone(folder, mesh)
    settings = lora.LoraConfig(2, 3.0, "layers/(attention/(q|o)|mlp/down)/kernel")
    tree = lora.init_lora(jax.random.key(0), base.params, settings)
    tree = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), tree
    )
    origin = Origin(base_model=str(folder), lora=dataclasses.asdict(settings))
    spec = spec_of(kind, base.config, family="qwen2", extra=origin.extra())
    params = {"lora": tree}
    if kind == "prm":
        params["head"] = head_params("two_class", 32)
    return params, base, spec, folder


# peft asks transformers 5 for what it deprecates.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", ["generator", "prm"])
def test_adapters_load_with_peft_and_equal_the_merged_model(
    kind, tmp_path, monkeypatch
):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    import transformers

    params, base, spec, folder = adapter(kind, tmp_path)
    out = export_model(tmp_path / "peft", params, spec, base.tokenizer, format_="peft")
    merged = export_model(
        tmp_path / "merged",
        {**params, "backbone": base.params},
        spec,
        base.tokenizer,
        format_="merged",
    )
    auto: Any = transformers.AutoModelForCausalLM
    settings = {}
    if kind == "prm":
        auto, settings = transformers.AutoModelForTokenClassification, {"num_labels": 2}
    bare = auto.from_pretrained(folder, **settings).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        want = auto.from_pretrained(merged).eval()(ids).logits
        without = bare(ids).logits
        got = peft.PeftModel.from_pretrained(bare, out).eval()(ids).logits
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert (without - want).abs().max() > 1e-2
    names, of_merged = (run_card(folder, monkeypatch) for folder in (out, merged))
    for question, steps in SOLUTIONS:
        if kind == "prm":
            scores = names["score"](question, steps)
            assert scores == pytest.approx(of_merged["score"](question, steps))
        else:  # an adapter's folder has no generation_config.json: the card says it all
            asked = question, steps[:-1], steps[-1]
            assert names["write"](*asked) == of_merged["write"](*asked)
            assert json.loads((out / "aprm_jax.json").read_text())["rows"]["room"] == 8


def test_an_adapter_without_its_base_is_not_merged(tmp_path):
    params, base, spec, _ = adapter("generator", tmp_path)
    with pytest.raises(ExportError, match="without its base"):
        export_model(tmp_path / "out", params, spec, base.tokenizer, format_="merged")


ADAPTED: dict[str, Any] = {
    "extra": Origin("user/base", len(tiny.WORDS) - 3, lora={"rank": 1}).extra()
}


@pytest.mark.parametrize(
    ("kind", "changes", "format_", "message"),
    [
        ("prm", {"line_stride": 32}, "skywork", "builder.line_stride=32"),
        (
            "prm",
            {"head": "token"},
            "token_classification",
            "prm.head='two_class'",
        ),
        ("prm", {}, "causal_lm", "export it as token_classification"),
        ("solver", {}, "token_classification", "export it as causal_lm"),
        ("prm", {}, "qwen2_prm", "a layout of Qwen 2, and this model is a llama"),
        ("prm", {"head": "three_class"}, "qwen2_prm", "two classes"),
        ("solver", {}, "peft", "lora.rank > 0"),
        (
            "solver",
            ADAPTED,
            "peft",
            f"the 3 rows that were added to the {len(tiny.WORDS) - 3}",
        ),
        ("prm", {**ADAPTED, "layout": "skywork"}, "peft", "skywork has none"),
        ("prm", {"layout": "trl", "family": "qwen2"}, "skywork", "rows of trl"),
        (
            "prm",
            {"layout": "qwen2_prm", "family": "qwen2"},
            "token_classification",
            "two layers",
        ),
        ("solver", {}, "gguf", "must be one of auto, causal_lm"),
    ],
)
def test_what_a_format_cannot_say_is_refused(kind, changes, format_, message, tmp_path):
    config, backbone = plain()
    spec = spec_of(kind, config, **changes)
    params = {"backbone": backbone, "head": head_params(spec.head or "two_class")}
    with pytest.raises(ExportError, match=message):
        export_model(tmp_path / "out", params, spec, tiny.tokenizer(), format_=format_)
    assert not list(tmp_path.iterdir())


def test_an_export_that_breaks_leaves_nothing_or_the_one_before(tmp_path, monkeypatch):
    config, backbone = plain()
    spec, params = spec_of("solver", config), {"backbone": backbone}
    target = tmp_path / "out"

    def broken(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "write_card", broken)  # the last file of all
        with pytest.raises(KeyboardInterrupt):
            export_model(target, params, spec, tiny.tokenizer())
    assert not list(tmp_path.iterdir())
    export_model(target, params, spec, tiny.tokenizer())
    before = {p.name: p.read_bytes() for p in target.iterdir()}
    # A kill leaves its scratch folder; the next export clears it.
    left = tmp_path / ".out.writing-killed"
    left.mkdir()
    other = {"backbone": jax.tree.map(lambda x: x + 1, backbone)}
    with monkeypatch.context() as patched:
        patched.setattr(export, "write_card", broken)
        with pytest.raises(KeyboardInterrupt):
            export_model(target, other, spec, tiny.tokenizer())
    assert {p.name: p.read_bytes() for p in target.iterdir()} == before
    assert not left.exists()
    export_model(target, other, spec, tiny.tokenizer())
    after = (target / "model.safetensors").read_bytes()
    assert after != before["model.safetensors"]


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    config, backbone = plain()
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "README.md").write_text("# mine")
    with pytest.raises(ExportError, match="is no earlier export"):
        export_model(
            tmp_path,
            {"backbone": backbone},
            spec_of("solver", config),
            tiny.tokenizer(),
        )
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_folder_is_complete_and_the_card_tells(tmp_path):
    config, backbone = plain(vocab_size=len(tiny.WORDS) + 9)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    origin = Origin(base_model="user/base", vocab_rows=len(tiny.WORDS) - 2)
    spec = spec_of("prm", config, threshold=0.4, extra=origin.extra())
    told = Provenance(
        data="gsm8k openai/gsm8k",
        datasets=("openai/gsm8k",),
        config={"prm.updates": 7},
        metrics={"steps.test.aprm.auc": 0.91},
    )
    params = {"backbone": backbone, "head": head_params("two_class")}
    out = export_model(
        tmp_path / "out", params, spec, tokenizer, provenance=told, name="me/prm"
    )
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
        "score.py",
        "aprm_jax.json",
    }
    card = (out / "README.md").read_text()
    metadata = card.split("---\n")[1]
    import yaml

    assert yaml.safe_load(metadata) == {
        "library_name": "transformers",
        "tags": ["aprm_jax", "process-reward-model", "reward-model"],
        "pipeline_tag": "token-classification",
        "base_model": "user/base",
        "datasets": ["openai/gsm8k"],
    }
    spec, head = spec_of("prm", config, head="token"), head_params("token")
    plain_prm = export_model(
        tmp_path / "lm", {"backbone": backbone, "head": head}, spec, tokenizer
    )
    assert '"format": "causal_lm"' in (plain_prm / "aprm_jax.json").read_text()
    assert "pipeline_tag" not in (plain_prm / "README.md").read_text()
    for text in (
        "snapshot_download(name)",
        "'me/prm'",
        "0.4",
        "0.91",
        '"prm.updates": 7',
    ):
        assert text in card
    described = json.loads((out / "config.json").read_text())
    # Rows behind the checkpoint's stay as far as the tokenizer has tokens.
    assert described["vocab_size"] == len(tiny.WORDS)
    assert described["pad_token_id"] == 0
    # What stands in a text as "<step>" is a special token for whoever loads it.
    again = load.load_tokenizer(out)
    assert again("<step>").input_ids == [tiny.WORDS.index("<step>")]


def test_an_embedding_smaller_than_the_tokenizer_is_refused(tmp_path):
    config, backbone = plain(vocab_size=len(tiny.WORDS) - 1)
    with pytest.raises(ExportError, match=f"ids up to {len(tiny.WORDS) - 1}"):
        export_model(
            tmp_path / "out",
            {"backbone": backbone},
            spec_of("solver", config),
            tiny.tokenizer(),
        )
