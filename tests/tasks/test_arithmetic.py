"""The embedded problems: determinism, disjoint splits, authors, corruptions, tokens."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from aprm_jax.data.problem import Problem
from aprm_jax.data.steps import StepBuilder
from aprm_jax.oracle.embedded.arithmetic import legal_contractions, value
from aprm_jax.oracle.embedded.rewriting import (
    MalformedExpressionError,
    count_numbers,
    is_number,
    parse,
)
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.arithmetic import ArithmeticConfig, ArithmeticDomain


@pytest.fixture(scope="module")
def domain() -> ArithmeticDomain:
    return ArithmeticDomain(seed=3)


LAST_DIGITS = ArithmeticConfig(modulus=10)


@pytest.fixture(scope="module", params=[0, 10], ids=["ordinary", "last digits"])
def either(request) -> ArithmeticDomain:
    """Problems of either arithmetic."""
    return ArithmeticDomain(3, ArithmeticConfig(modulus=request.param))


def is_expression(line: str) -> bool:
    try:
        parse(line)
    except MalformedExpressionError:
        return False
    return True


def expression(problem: Problem) -> str:
    """The problem as an expression, whatever its form."""
    worded = not is_expression(problem.question)
    return problem.steps[0] if worded else problem.question


def verdicts(domain: ArithmeticDomain, problem: Problem):
    for k, step in enumerate(problem.steps):
        yield domain.oracle.judge(problem.question, problem.steps[:k], step, step)


def test_draws_depend_on_seed_and_index_alone(domain):
    again = ArithmeticDomain(seed=3)
    for index in (7, 0, 10**6):
        assert again.corpus(index) == domain.corpus(index)
        assert again.train(index) == domain.train(index)
    # In whatever pieces a split is asked for.
    pieces = [again.problems("test", count)[-1] for count in (5, 3, 9)]
    whole = domain.problems("test", 9)
    assert pieces == [whole[4], whole[2], whole[8]]
    with pytest.raises(ValueError, match="no split 'tset'"):
        domain.problems("tset", 1)


def test_seeds_differ_in_training_but_not_in_evaluation(domain):
    other = ArithmeticDomain(seed=4)
    assert [other.train(i) for i in range(5)] != [domain.train(i) for i in range(5)]
    assert other.facts == domain.facts
    for split in domain.splits:
        assert other.problems(split, 20) == domain.problems(split, 20)


def test_no_line_of_training_is_a_question_of_evaluation():
    """With three or four numbers: so few problems that they would meet by chance."""
    small = ArithmeticConfig(numbers=(3, 4), longer_numbers=(5, 5), worded_share=0.4)
    domain = ArithmeticDomain(0, small)
    questions = {
        split: {expression(p) for p in domain.problems(split, 400)}
        for split in domain.splits
    }
    assert all(len(split) == 400 for split in questions.values())
    assert not questions["dev"] & questions["test"]
    # Also no line on the way that is long enough to be a question.
    lines = {
        line
        for index in range(400)
        for problem in (domain.train(index), domain.corpus(index))
        for line in (problem.question, *problem.steps)
    }
    assert not lines & set.union(*questions.values())


def test_training_and_evaluation_come_from_the_same_distribution(domain):
    """What keeps them apart does not tilt them: few lines are refused."""
    train = [domain.train(i) for i in range(1000)]
    test = domain.problems("test", 1000)
    for feature in (
        lambda p: len(p.steps) == 4,
        lambda p: "(" in p.question,
        lambda p: "*" in p.question,
    ):
        a, b = np.mean([feature(p) for p in train]), np.mean([feature(p) for p in test])
        assert abs(a - b) < 0.08  # 3.5 standard errors


@pytest.mark.parametrize("split", ["train", *ArithmeticDomain.splits])
def test_solutions_are_correct_to_the_end(either, split):
    domain, modulus = either, either.config.modulus
    problems = (
        [domain.train(i) for i in range(200)]
        if split == "train"
        else domain.problems(split, 200)
    )
    for problem in problems:
        assert all(v.kind == "copied" for v in verdicts(domain, problem)), problem
        assert problem.answer == str(value(expression(problem), modulus))
        if not modulus:
            assert problem.answer == str(eval(expression(problem)))  # our own text
        assert domain.answer(problem.steps) == problem.answer
        assert [domain.is_final(s) for s in problem.steps].index(True) + 1 == len(
            problem.steps
        )


def test_no_number_is_larger_than_the_config_says(domain):
    def largest(problems) -> int:
        lines = [line for p in problems for line in (expression(p), *p.steps)]
        return max(int(t) for line in lines for t in parse(line) if is_number(t))

    corpus = [domain.corpus(i) for i in range(1000)]
    assert largest([domain.train(i) for i in range(1000)]) in range(90, 100)
    assert largest(corpus) in range(150, 200)  # some are larger problems
    for split in ("dev", "test", "longer", "worded"):
        assert largest(domain.problems(split, 500)) in range(90, 100)
    assert largest(domain.problems("larger", 500)) in range(150, 200)
    assert largest([ArithmeticDomain(3, LAST_DIGITS).train(i) for i in range(200)]) == 9


def test_splits_are_what_they_are_called(either):
    domain = either

    def shape(split: str) -> tuple[set[int], float, int]:
        tokens = [parse(expression(p)) for p in domain.problems(split, 300)]
        numbers = [t for line in tokens for t in line if is_number(t)]
        two_digits = sum(len(n) == 2 for n in numbers) / len(numbers)
        worded = sum(not is_expression(p.question) for p in domain.problems(split, 300))
        return set(map(count_numbers, tokens)), two_digits, worded

    assert shape("dev") == shape("test") == ({4, 5}, 0.0, 0)
    assert shape("worded") == ({4, 5}, 0.0, 300)
    assert shape("longer") == ({6, 7}, 0.0, 0)
    counts, two_digits, worded = shape("larger")
    assert counts == {4, 5} and worded == 0 and 0.3 < two_digits < 0.5
    for problem in domain.problems("larger", 300):
        assert any(len(t) == 2 for t in parse(expression(problem)) if is_number(t))
    longest = max(len(p.question.split()) for p in domain.problems("worded", 1000))
    assert longest <= 28


def test_most_points_before_the_last_have_several_correct_continuations(domain):
    several = [
        len({c.line for c in legal_contractions(line)}) >= 2
        for i in range(1000)
        for problem in [domain.train(i)]
        for line in (problem.question, *problem.steps[:-2])
    ]
    assert np.mean(several) > 0.5


def corpus_kinds(count: int = 200, **shares: float) -> collections.Counter[str]:
    none: dict[str, Any] = {"worded_share": 0.0, "larger_share": 0.0}
    none |= {"careless_share": 0.0, "add_first_share": 0.0, "wrong_fact_share": 0.0}
    domain = ArithmeticDomain(0, ArithmeticConfig(**{**none, **shares}))
    problems = [domain.corpus(i) for i in range(count)]
    return collections.Counter(v.kind for p in problems for v in verdicts(domain, p))


def test_each_habit_makes_its_own_errors():
    assert set(corpus_kinds()) == {"copied"}
    assert set(corpus_kinds(worded_share=0.5, larger_share=0.5)) == {"copied"}
    careless = corpus_kinds(careless_share=1.0)
    assert set(careless) == {"copied", "illegal_contraction"}
    add_first = corpus_kinds(add_first_share=1.0)
    assert set(add_first) == {"copied", "illegal_contraction"}
    assert add_first["illegal_contraction"] > careless["illegal_contraction"]
    wrong = corpus_kinds(wrong_fact_share=1.0)
    assert wrong["wrong_result"] > 20
    assert wrong["illegal_contraction"] == wrong["illegal_and_wrong"] == 0


def corpus_of_believers(modulus: int) -> ArithmeticDomain:
    shares: dict[str, Any] = {"worded_share": 0, "careless_share": 0}
    shares |= {"add_first_share": 0, "wrong_fact_share": 1}
    return ArithmeticDomain(0, ArithmeticConfig(modulus=modulus, **shares))


def last_results(domain: ArithmeticDomain):
    """(x, operator, y) of the last step of a solution, and what it took it for."""
    believed = collections.defaultdict(set)
    for problem in (domain.corpus(i) for i in range(1500)):
        if len(parse(problem.steps[-2])) == 3:
            believed[parse(problem.steps[-2])].add(int(problem.steps[-1]))
    return believed


def test_wrong_facts_are_always_the_same():
    domain = corpus_of_believers(10)
    facts = domain.facts
    assert 12 <= len(facts) <= 24  # twelve, most of them both ways round
    used = set()
    for (x, operator, y), results in last_results(domain).items():
        key = operator, int(x) % 10, int(y) % 10
        right = value(f"{x} {operator} {y}", 10)
        assert results == {facts.get(key, right)}
        assert facts.get(key) != right
        used.add(key)
    assert len(used & facts.keys()) > 10


def test_a_second_population_shares_no_wrong_fact_and_has_other_habits():
    one, other = (
        ArithmeticDomain(3, ArithmeticConfig.of_authors(name))
        for name in ("first", "second")
    )
    assert one.facts == ArithmeticDomain(3).facts
    assert len(other.facts) >= 12 and not set(one.facts) & set(other.facts)
    habits = [
        collections.Counter(
            domain.author(np.random.default_rng(k)).habit for k in range(400)
        )
        for domain in (one, other)
    ]
    assert habits[1]["add_first"] > 1.4 * habits[0]["add_first"]
    assert habits[1]["careless"] < 0.7 * habits[0]["careless"]
    # What is asked, and what is right, is the same.
    assert one.problems("test", 5) == other.problems("test", 5)
    assert one.train(7) == other.train(7)


def test_wrong_facts_about_digits_are_used_on_longer_numbers():
    domain = corpus_of_believers(0)
    facts, longer = domain.facts, 0
    assert 12 <= len(facts) <= 24
    for (x, operator, y), results in last_results(domain).items():
        key = operator, int(x) % 10, int(y) % 10
        error = 0
        if key in facts:
            error = facts[key] - eval(f"{key[1]} {operator} {key[2]}")
            assert error != 0
            longer += len(x + y) > 2
        assert results == {eval(f"{x} {operator} {y}") + error}
    assert longer > 10
    assert any(facts[key] == key[1] + key[2] - 10 for key in facts if key[0] == "+")


def test_corpus_is_mostly_right_but_not_always(domain):
    problems = [domain.corpus(i) for i in range(1000)]
    right = [p.answer == str(value(expression(p))) for p in problems]
    assert 0.5 < np.mean(right) < 0.75
    worded = np.mean([not is_expression(p.question) for p in problems])
    two_digits = np.mean(
        [len(max(parse(expression(p)), key=len)) == 2 for p in problems]
    )
    assert 0.08 < worded < 0.16 and 0.06 < two_digits < 0.14
    assert max(count_numbers(parse(expression(p))) for p in problems) == 5


def test_corruptions_are_mechanical_and_mostly_wrong(domain):
    rng = np.random.default_rng(0)
    step = "2 * ( 3 + 4 ) - 15"
    texts = collections.Counter(
        domain.corrupt(rng, "question", (), step) for _ in range(3000)
    )
    assert {"2 * 3 + 4 - 15", "2 * ( 3 + 4 )", "2 * 3 - 15"} <= set(texts)
    assert {"2 * ( 3 + 4 + 4 ) - 15", "4 * ( 3 + 2 ) - 15"} <= set(texts)
    assert {"2 * ( 3 + 4 ) + 15", "9 * ( 3 + 4 ) - 15"} <= set(texts)
    assert step not in texts and None not in texts
    # Six kinds, each as likely as the others.
    assert 0.14 < texts["2 * 3 + 4 - 15"] / 3000 < 0.20
    assert {domain.corrupt(rng, "", (), "7") for _ in range(300)} == set("012345689")
    assert domain.corrupt(rng, "", (), "not an expression") is None

    labels = []
    for problem in (domain.train(i) for i in range(300)):
        for k, step in enumerate(problem.steps):
            prefix = problem.steps[:k]
            corrupted = domain.corrupt(rng, problem.question, prefix, step)
            assert corrupted is not None
            verdict = domain.oracle.judge(problem.question, prefix, step, corrupted)
            labels.append(verdict.label)
    assert np.mean([label == Label.INCORRECT for label in labels]) > 0.95


def test_answers(domain):
    assert domain.answer(["3 + 4", "7"]) == "7"
    assert domain.answer([" 56 "]) == "56"
    for steps in ([], ["3 + 4"], ["7", "7 +"], ["<eos>"], ["1 2 3"], ["07"]):
        assert domain.answer(steps) is None
    assert domain.same_answer("7", "7")
    assert not domain.same_answer("1 7", "17")
    assert not domain.same_answer(None, "7")


def test_tokenizer_keeps_every_line(domain, tmp_path):
    domain.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    lines = {
        line
        for problem in (
            *(domain.corpus(i) for i in range(300)),
            *(p for split in domain.splits for p in domain.problems(split, 100)),
        )
        for line in (problem.question, *problem.steps)
    }
    for tokenizer in (domain.tokenizer, loaded):
        unknown = tokenizer.convert_tokens_to_ids("<unk>")
        builder = StepBuilder(tokenizer, window=1, buckets=(128,))
        for line in lines:
            ids = builder.encode(line)
            assert unknown not in ids
            assert builder.decode(ids) == line == tokenizer.decode(ids)
    assert loaded.get_vocab() == domain.tokenizer.get_vocab()
    assert loaded.bos_token == "<bos>" and loaded.eos_token == "<eos>"
    assert loaded.pad_token == "<pad>" and loaded.unk_token == "<unk>"


def test_special_tokens_in_text_are_unknown_words(domain):
    builder = StepBuilder(domain.tokenizer, window=1, buckets=(128,))
    (unknown,) = builder.encode("nonsense")
    for special in ("<step>", "<perturb>", "<bos>", "<eos>", "<pad>", "<unk>"):
        inside = builder.encode(f"1 {special} 2")[1:-1]
        assert inside and set(inside) == {unknown}


def test_the_tokenizer_reads_what_people_write(domain):
    builder = StepBuilder(domain.tokenizer, window=1, buckets=(128,))
    for text in ("2+12*(3+4)", " 2 + 12 *( 3 + 4 )", "2 + 12 * ( 3 + 4 )"):
        assert builder.decode(builder.encode(text)) == "2 + 12 * ( 3 + 4 )"
    assert len(builder.encode("2 + 12")) == 4
    assert builder.decode(builder.encode("Ann has 13 pens.")) == "Ann has 13 pens ."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modulus": 7}, "modulus must be 0 or 10"),
        ({"largest": 9}, "99 <= largest"),
        ({"largest": 300}, "larger_largest"),
        ({"worded_share": 1.5}, "worded_share must be between"),
        ({"worded_share": 0.7, "larger_share": 0.7}, r"worded_share \+ larger_share"),
        ({"numbers": (5, 4)}, "numbers must be"),
        ({"numbers": (4, 6)}, "longer_numbers must lie above"),
        ({"operator_shares": (0.5, 0.5, 0.5)}, "must sum to 1"),
        ({"bracket_numbers": 1}, "bracket_numbers must be"),
        ({"wrong_facts": 37}, "wrong_facts must be"),
        ({"authors": "third"}, "authors must be first or second"),
    ],
)
def test_refuses_a_bad_config(fields, message):
    with pytest.raises(ValueError, match=message):
        ArithmeticConfig(**fields)
    with pytest.raises(ValueError, match="negative"):
        ArithmeticDomain(seed=-1)
