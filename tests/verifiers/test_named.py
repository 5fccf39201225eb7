"""The verifier that a name means, and files of scores as one of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

import aprm_jax
from aprm_jax.data.jsonl import DataError
from aprm_jax.data.solutions import solution_key
from aprm_jax.models.io import ModelFileError
from aprm_jax.testing.tiny import write_tiny
from aprm_jax.verifiers.named import (
    UnknownVerifierError,
    fingerprint_of,
    open_verifier,
)
from aprm_jax.verifiers.protocol import Scale, Scored
from aprm_jax.verifiers.score_file import ScoreFileVerifier

PAIRS = [(question, steps) for question, steps, _ in tiny.solutions()]


def _stated(verifier, pairs=PAIRS):
    return Scored.by(verifier, pairs).probabilities()


def test_a_prm_says_what_the_api_says(tmp_path):
    folder = tiny.save(tmp_path / "run" / "aprm" / "model", "prm")
    verifier = open_verifier([str(tmp_path / "run")])
    expected = aprm_jax.PRM.load(folder).score_batch(PAIRS)
    for mine, theirs in zip(_stated(verifier), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert verifier.tokens_read > sum(len(s) for _, s in PAIRS)
    assert verifier.aggregation == "min"


@pytest.mark.parametrize("scheme", ["", "likelihood:"])
def test_what_solutions_of_a_question_share_is_read_once(tmp_path, scheme):
    kind = "solver" if scheme else "prm"
    folder = tiny.save(tmp_path / kind, kind, max_new_tokens=8)
    question, steps = max(PAIRS, key=lambda pair: len(pair[1]))
    pairs = [(question, (*steps[:k], "9 + 9")) for k in range(len(steps) + 1)]
    verifier = open_verifier([f"{scheme}{folder}"])
    together = verifier.score([*pairs, *PAIRS])
    once = verifier.tokens_read
    alone = [verifier.score([pair])[0] for pair in [*pairs, *PAIRS]]
    for mine, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert once < (verifier.tokens_read - once) / 1.5


def test_a_prm_of_outcomes_is_read_at_the_end(tmp_path):
    tiny.save(tmp_path / "orm", "prm", aggregation="last")
    assert open_verifier([str(tmp_path / "orm")]).aggregation == "last"
    both = [str(tmp_path / "orm"), "oracle:arithmetic"]
    assert open_verifier(both).aggregation == "min"


def test_the_likelihood_of_a_solver(tmp_path):
    tiny.save(tmp_path / "solver", "solver", max_new_tokens=8)
    verifier = open_verifier([f"likelihood:{tmp_path / 'solver'}"])
    assert verifier.scale is Scale.LOG_PROBABILITY
    assert all((row < 0).all() for row in verifier.score(PAIRS))
    with pytest.raises(ModelFileError, match="holds a solver, and a prm is wanted"):
        open_verifier([str(tmp_path / "solver")])


def test_oracles_judge_by_their_own_arithmetic():
    pair = ("8 + 4", ("12",)), ("8 + 4", ("2",))
    np.testing.assert_allclose(
        _stated(open_verifier(["oracle:arithmetic"]), pair), [[1], [0]], atol=1e-9
    )
    np.testing.assert_allclose(
        _stated(open_verifier(["oracle:arithmetic10"]), pair), [[0], [1]], atol=1e-9
    )


def test_several_are_combined(tmp_path):
    tiny.save(tmp_path / "prm", "prm")
    names = [str(tmp_path / "prm"), "oracle:arithmetic"]
    alone = [_stated(open_verifier([name])) for name in names]
    for how, expected in (("min", np.minimum), ("product", np.multiply)):
        together = _stated(open_verifier(names, how))
        for k, row in enumerate(together):
            np.testing.assert_allclose(
                row, expected(alone[0][k], alone[1][k]), atol=1e-9
            )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "names no verifier: a PRM"),
        ("likelihood:", "names no verifier"),
        ("scores:", "names no verifier"),
        ("oracle", "no such oracle; there are oracle:arithmetic, "),
        ("oracle:chess", "no such oracle"),
    ],
)
def test_what_means_none_says_what_would(name, said):
    with pytest.raises(UnknownVerifierError, match=said):
        open_verifier([name])


def _file(folder, rows):
    path = folder / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_are_found_by_texts_or_by_key(tmp_path):
    (q, steps), (other, more), last = PAIRS
    path = _file(
        tmp_path,
        [
            {"prompt": other, "completions": list(more), "scores": [1, None, 0]},
            {"line": 7, "key": solution_key(q, steps), "scores": [0.25, 0.5]},
        ],
    )
    found = _stated(open_verifier([f"scores:{path}"]), [*PAIRS, PAIRS[0]])
    np.testing.assert_allclose(found[0], [0.25, 0.5])
    np.testing.assert_allclose(found[1], [1, np.nan, 0], atol=1e-9)
    assert np.isnan(found[2]).all() and len(found[2]) == len(last[1])
    np.testing.assert_array_equal(found[3], found[0])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"key": "k", "scores": [float("nan")]}, "line 2: score 0 must be a prob"),
        ({"key": "k", "scores": [1.5]}, "line 2: score 0 must be a probability"),
        ({"key": "k", "scores": ["1"]}, "line 2: score 0 must be a number, not str"),
        ({"key": "k"}, "line 2: field 'scores' must be a list"),
        ({"id": "a", "scores": [1]}, "line 2: no field question"),
        ({"prompt": "q", "completions": ["a"], "scores": []}, "line 2: 0 scores of 1"),
        ({"key": "first", "scores": [0.5]}, "line 2: the solution is there twice"),
    ],
)
def test_a_file_with_anything_else_is_refused(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        ScoreFileVerifier.read(_file(tmp_path, [{"key": "first", "scores": []}, row]))


def test_another_number_of_scores_than_steps_is_refused(tmp_path):
    row = {"key": solution_key(*PAIRS[0]), "scores": [1]}
    verifier = ScoreFileVerifier.read(_file(tmp_path, [row]))
    with pytest.raises(DataError, match="1 scores of 2 steps"):
        verifier.score(PAIRS)


def test_a_fingerprint_changes_with_what_it_is_of(tmp_path):
    folder = tiny.save(tmp_path / "run" / "aprm" / "model", "prm")
    path = _file(tmp_path, [{"key": "k", "scores": [1]}])
    names = [str(tmp_path / "run"), f"likelihood:{tmp_path / 'run'}", f"scores:{path}"]
    before = [fingerprint_of(name) for name in names]
    assert len({*before}) == 3 and before == [fingerprint_of(name) for name in names]
    tiny.save(folder, "prm", threshold=0.75)
    _file(tmp_path, [{"key": "k", "scores": [0]}])
    assert all(fingerprint_of(n) != b for n, b in zip(names, before, strict=True))


def test_a_fingerprint_tells_weights_of_the_same_size_apart(tmp_path):
    """As of a model of Hugging Face that was trained on in its place."""
    found = {
        fingerprint_of(str(write_tiny(tmp_path / "hub", "llama", ["1"], seed=seed)))
        for seed in (0, 1, 0)
    }
    assert len(found) == 2


def test_a_fingerprint_of_an_adapter_is_of_its_base_too(tmp_path):
    adapter, found = tmp_path / "adapter", set()
    adapter.mkdir()
    fields = {"base_model_name_or_path": str(tmp_path / "base")}
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    for seed in (0, 1, 0):
        write_tiny(tmp_path / "base", "llama", ["1"], seed=seed)
        found.add(fingerprint_of(f"likelihood:{adapter}"))
    assert len(found) == 2


def test_a_solution_that_was_scored_in_two_batches_is_no_contradiction(tmp_path):
    """Sums of other shapes differ in their last digits."""
    rows = [
        {"key": "k", "scores": scores}
        for scores in ([0.5, None], [0.500001, None], [0.5, None])
    ]
    found = ScoreFileVerifier.read(_file(tmp_path, rows)).scores["k"]
    np.testing.assert_array_equal(found, [0.5, np.nan])
    for other in ([0.55, None], [0.5, 0.5], [0.5]):
        with pytest.raises(DataError, match="line 4: the solution is there twice"):
            ScoreFileVerifier.read(
                _file(tmp_path, [*rows, rows[0] | {"scores": other}])
            )
