"""The accelerator's benchmark on a CPU: what it counts, compares, keeps, resumes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys

import command
import jax
import pytest

sys.path.insert(0, str(command.REPOSITORY / "benchmarks"))
gpu = importlib.import_module("gpu")
gpu_parity = importlib.import_module("gpu_parity")
gpu_parts = importlib.import_module("gpu_parts")
gpu_setting = importlib.import_module("gpu_setting")
SETTING = gpu.make_setting(True)
SETTING = dataclasses.replace(
    SETTING, model={**SETTING.model, "num_hidden_layers": 1}, repeats=1
)
DEVICE = {"kind": "cpu", "platform": "cpu", "chip": None, "versions": {"jax": "1"}}


@pytest.fixture(scope="module")
def backbone():
    return gpu_parts.random_backbone(gpu_parts.architecture(SETTING))


def test_an_update_is_four_readings_by_either_player(backbone):
    c = gpu_parts.architecture(SETTING)
    heads = 2 * c.num_heads + 2 * c.num_kv_heads
    body = c.num_layers * c.d_model * (heads * c.head_dim + 3 * c.d_ff)
    pairs = SETTING.length * (SETTING.length + 1) / 2
    mixed = 4 * c.num_layers * c.num_heads * c.head_dim * pairs
    row = 2 * SETTING.length * body + mixed
    logits = 2 * SETTING.new * c.d_model * c.vocab_size
    wanted = 4 * SETTING.rows * (2 * row + logits)
    # Beside matrices `models.flops` counts biases and the scales of norms.
    found = gpu_parts.update_flops(SETTING, backbone)
    assert wanted < found < 1.02 * wanted


def test_writing_reads_all_parameters_and_what_stands_before_each_token(backbone):
    c = gpu_parts.architecture(SETTING)
    table = c.vocab_size * c.d_model
    multiply = sum(x.size for x in jax.tree.leaves(backbone))
    count = table  # the first token of a reply: the prompt's states are there
    for written in range(1, SETTING.new):
        seen = SETTING.prompt + written
        cache = 2 * c.num_layers * c.num_kv_heads * c.head_dim * seen
        count += multiply + SETTING.rows * cache
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        config = dataclasses.replace(c, dtype=dtype)
        assert gpu_parts.decode_bytes(SETTING, config, backbone) == width * count


def test_shares_are_of_known_chips_alone(monkeypatch):
    half = dataclasses.replace(SETTING, dtype="bfloat16")
    assert gpu_parts.mfu(1e15, 1.0, half) is None  # a CPU
    monkeypatch.setattr(gpu_parts, "chip", lambda: gpu_parts.CHIPS["h100"])
    assert gpu_parts.mfu(9.89e14, 2.0, half) == pytest.approx(0.5)
    assert gpu_parts.mfu(1e15, 1.0, SETTING) is None  # of float32


def test_a_game_is_timed_by_phase():
    # One part compiles sooner than two.
    found = gpu_parts.measured("game", dataclasses.replace(SETTING, microbatches=1))
    assert set(found["phases"]) == {"sample", "data", "score", "update"}
    assert all(len(of["turns"]) == 1 for of in found["phases"].values())
    assert found["first_round"]["sample"] > found["phases"]["sample"]["median"]
    assert found["compiled_update"]["bytes"] > 4 * found["parameters"]
    # Computed again for memory: more than what the update needs.
    assert found["compiled_update"]["product_flops"] > found["update_flops"]
    assert found["update_mfu"] is found["peak_bytes"] is None
    wrote = SETTING.rows * SETTING.new
    rate = found["sampled_tokens_a_second"]
    assert rate == pytest.approx(wrote / found["phases"]["sample"]["median"])


def test_writing_is_timed_apart_from_reading():
    found = gpu_parts._decoded(SETTING, gpu_parts.architecture(SETTING))
    rate = found["bytes"] / found["decode"]["median"]
    assert found["bytes_a_second"] == pytest.approx(rate)
    assert found["prefill"]["median"] > 0 and found["bandwidth_share"] is None


def test_a_kernel_that_computes_something_else_is_seen(monkeypatch):
    monkeypatch.setattr(gpu_parity, "LENGTH", 48)
    modes = {"float32": ("float32", "highest"), "bfloat16": ("bfloat16", "default")}
    monkeypatch.setattr(gpu_parity, "MODES", modes)
    kinds = ("packed", "window", "branching")
    right = gpu_parity._attention(SETTING)
    assert tuple(right) == kinds and not gpu_parity.too_far(right)
    assert set(right["packed"]) == {"einsum", "dot_product_attention"}
    assert right["packed"]["einsum"]["bfloat16"]["key"] > 0

    attention = importlib.import_module("aprm_jax.models.attention")
    by_jax = attention._by_jax
    monkeypatch.setattr(attention, "_by_jax", lambda q, *rest: by_jax(1.01 * q, *rest))
    wrong = gpu_parity.too_far(gpu_parity._attention(SETTING))
    assert {f"{k}/dot_product_attention/float32/output" for k in kinds} <= set(wrong)
    assert not any("einsum" in name for name in wrong)


def test_what_a_decoder_says_is_compared_with_what_it_read(monkeypatch):
    monkeypatch.setattr(gpu_parity, "LENGTH", 48)
    monkeypatch.setattr(gpu_parity, "LAYERS", 1)
    monkeypatch.setattr(gpu_parity, "MODES", {"float32": ("float32", "highest")})
    monkeypatch.setattr(gpu_parity, "_kernels", lambda *_: ["dot_product_attention"])
    for compare in (gpu_parity._logprobs, gpu_parity._sampled):
        found = gpu_parity._by_mode(SETTING, compare)
        assert not gpu_parity.too_far(found)
    config = gpu_parity._config(SETTING)
    params = gpu_parity._random_params(config)
    other = dataclasses.replace(config, rope_theta=10.0)
    assert gpu_parity._sampled(config, other, params)["logprobs"] > 1e-4


def test_not_a_number_is_too_far():
    found = {"a": {"einsum": {"float32": {"output": math.nan, "key": 0.0}}}}
    assert gpu_parity.too_far(found) == ["a/einsum/float32/output"]


def _arguments(*options):
    return gpu._parser().parse_args(["--minutes=1", *options])


def _measure(args, out, minutes=1.0):
    end = gpu.time.monotonic() + 60 * minutes
    wanted = gpu._checked(args.only)
    return gpu.measure(args, wanted, DEVICE, SETTING, out, end)


TORCH = {"device": DEVICE, "peak_bytes": 2e9, "seconds": gpu_setting.spread([1.0, 3.0])}


def test_parts_are_kept_one_by_one_and_known_ones_passed_over(
    tmp_path, monkeypatch, capsys
):
    out, asked = tmp_path / "gpu.json", []

    def child(args, name, setting, end):
        asked.append(
            (name, sorted(json.loads(out.read_text())) if out.exists() else [])
        )
        return {"failed": "no memory"} if name == "torch_score" else dict(TORCH)

    monkeypatch.setattr(gpu, "_child", child)
    args = _arguments("--only=torch_update,torch_score,torch_sample")
    assert _measure(args, out) == ["torch_score"]
    kept = ["torch_update"]
    assert asked == [
        ("torch_update", []),
        ("torch_score", kept),
        ("torch_sample", kept),
    ]
    said = capsys.readouterr().out
    assert "torch_score: no memory" in said
    assert "torch_update: seconds | 2 s | 1 to 3 s" in said
    assert "torch_update: peak memory | 2 GB" in said
    asked.clear()
    assert _measure(args, out) == ["torch_score"]
    assert [name for name, _ in asked] == ["torch_score"]
    asked.clear()
    known = json.loads(out.read_text())["torch_update"]
    known["setting"]["new"] += 1  # measured on other shapes: it does not count
    assert not gpu.is_known(known, dataclasses.asdict(SETTING), DEVICE)
    _measure(_arguments("--only=torch_update", "--again"), out)
    assert [name for name, _ in asked] == ["torch_update"]
    record = json.loads(out.read_text())["torch_update"]
    assert record["commit"] and record["seeds"] == [0]
    assert record["command"] == "python benchmarks/gpu.py --only=torch_update"


def test_no_part_is_begun_without_time(tmp_path):
    out = tmp_path / "gpu.json"
    args = _arguments("--only=game")
    assert _measure(args, out, minutes=0.1) == ["game"] and not out.exists()


def test_a_python_without_torch_is_told(capsys):
    args = _arguments("--only=torch_score", "--torch=/nowhere/python")
    assert _measure(args, None) == ["torch_score"]
    assert "/nowhere/python" in capsys.readouterr().out


def test_what_torch_is_missing_for_is_passed_over(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gpu_torch", None)  # as if it lacked an import
    told = gpu._side("torch_score", "")
    monkeypatch.setattr(gpu, "_child", lambda *_: told)
    assert _measure(_arguments("--only=torch_score"), None) == []
    assert "name a Python by --torch" in capsys.readouterr().out


def test_no_other_part_is_taken():
    with pytest.raises(SystemExit, match="parts are parity, decode, game"):
        gpu._checked("game,gaem")


def test_the_table_has_the_figures():
    times = gpu_setting.spread([0.5])
    kind = {"prefill": times, "decode": times, "tokens_a_second": 1234.5}
    part = {
        "float32": kind | {"bandwidth_share": 0.625},
        "bfloat16": kind | {"bandwidth_share": None},
        "device": DEVICE,
        "peak_bytes": None,
        "setting": dataclasses.asdict(SETTING),
    }
    text = gpu.render({"decode": part})
    assert "| decode: share of bandwidth, float32 parameters | 62% |" in text
    assert "bfloat16 parameters | no peak is known |" in text
    assert "| decode: peak memory | not told |" in text


@pytest.mark.parametrize("name", gpu.TORCH)
def test_torch_does_the_same(name):
    pytest.importorskip("torch")
    found = importlib.import_module("gpu_torch").measured(name, SETTING)
    assert found["seconds"]["median"] > 0 and found["device"]["kind"] == "cpu"
