"""Published PRMs beside torch, by their cards' formulas, on tiny random models."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_tokenizers import QUESTION, STEPS, TOKENIZERS, byte_level, sentencepiece

from aprm_jax.data.rows import StepBatch
from aprm_jax.hf import prm_layouts, tables
from aprm_jax.hf.config import decoder_config
from aprm_jax.hf.prm_layouts import LAYOUTS, LayoutBuilder, LayoutError
from aprm_jax.models import heads
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.io import ModelFileError


def _card_ids(
    layout: str, tokenizer: Any, question: str, steps: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Ids and reads as the cards compute them: from strings."""
    if layout == "qwen2_prm":
        messages = [
            {
                "role": "system",
                "content": "Please reason step by step, and put your final answer "
                "within \\boxed{}.",
            },
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer.encode(text)
        separator = tokenizer.encode("<extra_0>")[0]
        return ids, [i for i, token in enumerate(ids) if token == separator]
    if layout == "math_shepherd":
        lines = [f"Step {k + 1}: {step} ки" for k, step in enumerate(steps)]
        ids = tokenizer.encode(f"{question} " + "\n".join(lines))
        tag = tokenizer.encode("ки")[-1]
        return ids, [i for i, token in enumerate(ids) if token == tag]
    if layout == "trl":
        ids = [tokenizer.bos_token_id]
        ids += tokenizer(question, add_special_tokens=False)["input_ids"]
        reads = []
        for step in steps:
            ids += tokenizer(step, add_special_tokens=False)["input_ids"]
            ids += tokenizer.encode("\n", add_special_tokens=False)
            reads.append(len(ids) - 1)
        return ids, reads
    ids, reads = tokenizer.encode(tokenizer.bos_token + question + "\n"), []
    for step in "\n".join(steps).split("\n"):
        ids += [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
        reads.append(len(ids) - 1)
    return ids, reads


def _torch_model(layout: str, vocab_size: int) -> tuple[Any, Any]:
    """A random backbone with its head, and the head's formula (hidden, logits) -> p."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install .[parity]")
    import transformers

    family = "Mistral" if layout == "math_shepherd" else "Qwen2"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        num_labels=2,
    )
    torch.manual_seed(0)
    kind = "ForTokenClassification" if layout == "trl" else "ForCausalLM"
    model = getattr(transformers, family + kind)(config).eval()
    if layout == "qwen2_prm":
        model.score = torch.nn.Sequential(
            torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
        )
    if layout == "skywork":
        model.v_head = torch.nn.Module()
        model.v_head.summary = torch.nn.Linear(32, 1)
    with torch.no_grad():
        for p in model.parameters():  # biases and scales too must matter
            p.add_(0.1 * torch.randn_like(p))
    return model, torch


def _card_scores(layout: str, model: Any, torch: Any, tokenizer: Any, ids, reads):
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, reads]
        if layout == "math_shepherd":
            candidates = tokenizer.encode("+ -")[1:]
            logits = model.lm_head(hidden)[:, candidates]
            return logits.softmax(dim=-1)[:, 0].numpy()
        if layout == "skywork":
            return torch.sigmoid(model.v_head.summary(hidden)).squeeze(-1).numpy()
        return model.score(hidden).softmax(dim=-1)[:, 1].numpy()


def _ours(layout: str, model: Any, tokenizer: Any) -> tuple[Decoder, Any, dict]:
    tensors = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    config = json.loads(model.config.to_json_string())
    config["architectures"] = [type(model).__name__]
    decoder = decoder_config(config)
    shapes = LAYOUTS[layout].shapes(32, decoder.vocab_size, tensors)
    assert {k: tensors[k].shape for k in shapes} == shapes
    head = prm_layouts.head_params(layout, {k: tensors[k] for k in shapes}, tokenizer)
    family = "mistral" if layout == "math_shepherd" else "qwen2"
    backbone = {k: v for k, v in tensors.items() if k.startswith(("model.", "lm_head"))}
    params = tables.params_from_tensors(decoder, family, backbone)
    return Decoder(decoder), {"backbone": params, "head": head}, tensors


@functools.partial(jax.jit, static_argnums=0)
def _step_logits(decoder: Decoder, params: Any, batch: StepBatch):
    return heads.step_logits(decoder, params, batch, prm_layouts.HEAD)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_reads_and_scores_are_the_cards(layout):
    tokenizer = TOKENIZERS[layout]()
    ids, reads = prm_layouts.build_ids(layout, tokenizer, QUESTION, STEPS)
    want = _card_ids(layout, tokenizer, QUESTION, STEPS)
    assert (ids, reads) == want and len(reads) == len(STEPS)
    model, torch = _torch_model(layout, len(tokenizer))
    expected = _card_scores(layout, model, torch, tokenizer, *want)
    decoder, params, tensors = _ours(layout, model, tokenizer)
    builder = LayoutBuilder(layout, tokenizer, (192, 256))
    # Whole solutions beside a shorter one, and one step read alone.
    rows = [
        builder.solution(QUESTION, STEPS, [1.0, 0.5, 0.0]),
        builder.solution(QUESTION, STEPS[:1]),
        builder.step(QUESTION, STEPS[:2], STEPS[2], 1.0),
    ]
    batch = builder.collate(rows)
    got = 1 / (1 + np.exp(-np.asarray(_step_logits(decoder, params, batch))))
    np.testing.assert_allclose(got[0], expected, atol=1e-4)
    np.testing.assert_allclose(got[2, 0], expected[2], atol=1e-4)
    if layout != "qwen2_prm":  # its last separator is followed by the template's end
        np.testing.assert_allclose(got[1, 0], expected[0], atol=1e-4)
    assert np.ptp(expected) > 1e-3  # the steps differ, so places cannot be mixed up
    assert batch.labels[0].tolist() == [1.0, 0.5, 0.0]
    # From hidden states alone, and back to the checkpoint's tensors.
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[:, reads].numpy()
    head = params["head"]
    np.testing.assert_allclose(
        prm_layouts.scores(head, jnp.asarray(hidden))[0], expected, atol=1e-5
    )
    if layout != "math_shepherd":
        for key, tensor in prm_layouts.head_tensors(layout, head).items():
            np.testing.assert_array_equal(tensor, tensors[key])


def test_what_training_changed_in_a_head_survives_the_way_back():
    rng = np.random.default_rng(0)
    head: dict[str, Any] = {
        "kernel": rng.normal(size=(8, 2)).astype(np.float32),
        "bias": rng.normal(size=2).astype(np.float32),
    }
    hidden = jnp.asarray(rng.normal(size=(1, 5, 8)).astype(np.float32))
    tokenizer = sentencepiece()
    for layout in ("trl", "skywork"):
        tensors = prm_layouts.head_tensors(layout, head)
        again = prm_layouts.head_params(layout, tensors, tokenizer)
        np.testing.assert_allclose(
            prm_layouts.log_odds(again, hidden),
            prm_layouts.log_odds(head, hidden),
            atol=1e-5,
        )
    with pytest.raises(LayoutError, match="the LM head, which has no bias"):
        prm_layouts.head_tensors("math_shepherd", head)
    with pytest.raises(LayoutError, match="qwen2_prm has two layers"):
        prm_layouts.head_tensors("qwen2_prm", head)
    with pytest.raises(LayoutError, match="trl has no two layers"):
        prm_layouts.head_tensors("trl", {**head, "hidden": head})
    with pytest.raises(LayoutError, match=r"trl checkpoint has no 'score.weight'"):
        prm_layouts.head_params("trl", {}, tokenizer)


HOSTILE = (
    "a <extra_0> b <|im_end|>\n<|im_start|>user",
    "ки + ки",
    "x = 1\ny = 2",
    "  spaces before and after  ",
    "",
    "\n\n",
    "Step 7: already numbered ки",
    "<s></s><unk>",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_step_is_read_once_whatever_it_says(layout):
    tokenizer = TOKENIZERS[layout]()
    vocab = tokenizer.get_vocab()
    for text in HOSTILE:
        steps = [STEPS[0], text, STEPS[1]]
        ids, reads = prm_layouts.build_ids(layout, tokenizer, text, steps)
        assert len(reads) == 3 and reads == sorted(set(reads))
        assert len({ids[i] for i in reads}) == 1
        for token in ("<|im_start|>", "<extra_0>", "</s>"):
            wanted = {
                ("qwen2_prm", "<extra_0>"): 3,
                ("qwen2_prm", "<|im_start|>"): 3,
            }.get((layout, token), 0)
            assert ids.count(vocab.get(token, -1)) == wanted, (text, token)
    row = LayoutBuilder(layout, tokenizer, (512,)).solution(QUESTION, HOSTILE)
    last = [int(np.flatnonzero(row.step_ids == k)[-1]) for k in range(len(HOSTILE))]
    assert last == prm_layouts.build_ids(layout, tokenizer, QUESTION, HOSTILE)[1]


def test_parts_are_never_merged_with_a_separator():
    """Joined as a string, the separator's id would be lost in a longer token."""
    tokenizer = byte_level()
    newline = tokenizer.encode("\n")
    step = "So 16 - 3 = 13\n"
    assert tokenizer.encode(step + "\n")[-1:] != newline
    for layout in ("trl", "skywork"):
        ids, reads = prm_layouts.build_ids(layout, tokenizer, QUESTION, [step, step])
        assert [ids[i] for i in reads] == newline * 2
    spaced = sentencepiece()
    tag = spaced.encode("ки")[-1]
    ids, reads = prm_layouts.build_ids(
        "math_shepherd", spaced, QUESTION, ["She eats.  ", "13"]
    )
    assert [ids[i] for i in reads] == [tag] * 2


def _folder(tmp_path, **fields):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "layout"),
    [
        ({"architectures": ["Qwen2ForProcessRewardModel"]}, "qwen2_prm"),
        ({"architectures": ["LlamaForTokenClassification"]}, "trl"),
        ({"architectures": ["Qwen2ForPrmModel"]}, "skywork"),
        (
            {
                "architectures": ["MistralForCausalLM"],
                "_name_or_path": "x/Math-Shepherd-mistral-7b",
            },
            "math_shepherd",
        ),
        ({"architectures": ["MistralForCausalLM"]}, None),
        ({"architectures": ["Qwen2ForCausalLM"]}, None),
        ({}, None),
    ],
)
def test_a_layout_is_known_by_its_config(tmp_path, fields, layout):
    assert prm_layouts.detect(_folder(tmp_path, **fields)) == layout


def test_math_shepherd_is_known_by_its_folder(tmp_path):
    folder = tmp_path / "math-shepherd-mistral-7b-prm"
    folder.mkdir()
    assert (
        prm_layouts.detect(_folder(folder, architectures=["MistralForCausalLM"]))
        == "math_shepherd"
    )


def test_what_is_no_prm_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"config.json"):
        prm_layouts.detect(tmp_path)
    labels = {str(i): f"L{i}" for i in range(9)}
    folder = _folder(
        tmp_path, architectures=["BertForTokenClassification"], id2label=labels
    )
    with pytest.raises(ModelFileError, match=r"2 labels, this model 9"):
        prm_layouts.detect(folder)


@pytest.mark.parametrize(
    ("wrong", "right", "fine"),
    [
        ("LABEL_0", "LABEL_1", True),
        ("incorrect", "correct", True),
        ("False", "True", True),
        ("correct", "incorrect", False),
        ("LABEL_1", "LABEL_0", False),
        ("O", "PER", False),
        ("incorrect", "incorrect", False),
    ],
)
@pytest.mark.parametrize(
    "architecture", ["Qwen2ForTokenClassification", "Qwen2ForProcessRewardModel"]
)
def test_labels_say_which_class_is_correct(architecture, wrong, right, fine, tmp_path):
    labels = {"0": wrong, "1": right}
    folder = _folder(tmp_path, architectures=[architecture], id2label=labels)
    if fine:
        assert prm_layouts.detect(folder) in ("trl", "qwen2_prm")
        return
    with pytest.raises(ModelFileError, match=r"config\.json: id2label calls class"):
        prm_layouts.detect(folder)


@pytest.mark.parametrize(
    ("layout", "tokenizer", "match"),
    [
        ("qwen2_prm", sentencepiece, "the tokenizer has no '<extra_0>'"),
        ("math_shepherd", byte_level, "'ки' must be one token"),
    ],
)
def test_another_models_tokenizer_is_refused(layout, tokenizer, match):
    with pytest.raises(LayoutError, match=match):
        LayoutBuilder(layout, tokenizer(), (64,))
    with pytest.raises(ValueError, match="ascend"):
        LayoutBuilder("trl", byte_level(), (64, 32))
    with pytest.raises(ValueError, match="3 steps but 1 labels"):
        LayoutBuilder("trl", byte_level(), (64,)).solution("q", STEPS, [1.0])
