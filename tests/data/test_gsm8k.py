"""GSM8K's domain on written rows and on the real files; names; tokenizer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aprm_jax.data.bpe import load_tokenizer, save_tokenizer, train_bpe
from aprm_jax.data.gsm8k import parse_row, read_model_solutions
from aprm_jax.data.jsonl import DataError, RowError
from aprm_jax.data.sources import read_source
from aprm_jax.data.steps import StepBuilder
from aprm_jax.oracle.verdict import Label
from aprm_jax.tasks.gsm8k import Gsm8kDomain


def _row(k: int) -> dict[str, str]:
    a, b = k + 3, 2 * k + 7
    return {
        "question": f"Ann has {a} apples  and buys {b} more. How many has she, {k}?",
        "answer": f"She has {a}+{b} = <<{a}+{b}={a + b}>>{a + b} apples.\n"
        f"Half of them are {a + b}/2 = $<<{a + b}/2={(a + b) / 2}>>{(a + b) / 2}.\n"
        f"#### {(a + b) / 2}",
    }


def _write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gsm8k")
    train = _write(folder / "train.jsonl", map(_row, range(60)))
    test = _write(folder / "test.jsonl", map(_row, range(100, 110)))
    return train, test


@pytest.fixture(scope="module")
def domain(files):
    return Gsm8kDomain(train=files[0], test=files[1], dev_count=10, vocab_size=300)


def test_rows_become_problems():
    problem = parse_row(_row(0))
    assert problem.question == _row(0)["question"]  # two spaces and all
    assert problem.steps == (
        "She has 3+7 = <<3+7=10>>10 apples.",
        "Half of them are 10/2 = $<<10/2=5.0>>5.0.",
        "#### 5.0",
    )
    assert problem.answer == "5"
    assert parse_row(_row(0), strip_annotations=True).steps == (
        "She has 3+7 = 10 apples.",
        "Half of them are 10/2 = $5.0.",
        "#### 5.0",
    )


@pytest.mark.parametrize(
    "answer",
    ["1+1 = 2", "a\n#### many", "#### 3", "a\n#### 3\n#### 4", "", "a\n####"],
)
def test_bad_answers_are_refused(answer):
    with pytest.raises(RowError):
        parse_row({"question": "q", "answer": answer})


def test_an_answer_of_annotations_alone_is_refused():
    with pytest.raises(RowError, match="does not end in ####"):
        parse_row({"question": "q", "answer": "<<48/2=24>>"}, strip_annotations=True)


@pytest.mark.parametrize("end", ["", "\n", "\n \n", "<<1=1>>", "\n<<1=1>>"])
def test_a_model_solutions_answer_is_its_last_line_with_text(tmp_path, end):
    entry = {"solution": f"1+1 = 2\nA: 2{end}", "is_correct": True}
    path = _write(tmp_path / "some.jsonl", [{"question": "q", "6b_finetuning": entry}])
    stripped = {"models": ("6b_finetuning",), "strip_annotations": True}
    [solution] = read_model_solutions(path, **stripped)
    assert solution.steps == ("1+1 = 2", "#### 2")


def test_epochs_are_permutations_and_pure(files, domain):
    n = domain.num_train
    assert n == 50
    first = [domain.train(k) for k in range(n)]
    second = [domain.train(k) for k in range(n, 2 * n)]
    assert len({p.question for p in first}) == n
    assert first != second
    assert {p.question for p in first} == {p.question for p in second}
    again = Gsm8kDomain(
        train=files[0], test=files[1], dev_count=10, tokenizer=domain.tokenizer
    )
    assert [again.train(k) for k in reversed(range(2 * n))] == (first + second)[::-1]
    assert again.corpus(7) == again.train(7)
    other = Gsm8kDomain(
        train=files[0], test=files[1], dev_count=10, tokenizer=domain.tokenizer, seed=1
    )
    assert [other.train(k) for k in range(n)] != first
    assert other.problems("dev", 10) == domain.problems("dev", 10)


def test_splits_are_disjoint_and_do_not_depend_on_order(files, domain, tmp_path):
    train = {domain.train(k).question for k in range(domain.num_train)}
    dev = {p.question for p in domain.problems("dev", 99)}
    test = {p.question for p in domain.problems("test", 99)}
    assert (len(train), len(dev), len(test)) == (50, 10, 10)
    assert not train & dev and not (train | dev) & test
    turned = _write(tmp_path / "turned.jsonl", map(_row, reversed(range(60))))
    again = Gsm8kDomain(
        train=turned, test=files[1], dev_count=10, tokenizer=domain.tokenizer
    )
    assert again.problems("dev", 99) == domain.problems("dev", 99)
    with pytest.raises(ValueError, match="no split 'eval'"):
        domain.problems("eval", 1)


def test_a_repeated_question_is_on_one_side(files, tmp_path):
    rows = [_row(k % 30) for k in range(60)]
    train = _write(tmp_path / "twice.jsonl", rows)
    built = Gsm8kDomain(train=train, test=files[1], dev_count=10, vocab_size=300)
    kept = {built.train(k).question for k in range(built.num_train)}
    assert not kept & {p.question for p in built.problems("dev", 99)}
    assert (built.num_train, len(built.problems("dev", 99))) == (40, 20)
    # However it is typed.
    for row in rows[30:]:
        row["question"] = row["question"].upper().replace(" ", "  ")
    train = _write(tmp_path / "typed.jsonl", rows)
    typed = Gsm8kDomain(train=train, test=files[1], dev_count=10, vocab_size=300)
    assert (typed.num_train, len(typed.problems("dev", 99))) == (40, 20)
    with pytest.raises(DataError, match="too few to hold 30 out"):
        Gsm8kDomain(train=train, test=files[1], dev_count=30, vocab_size=300)


def test_answers(domain):
    steps = domain.train(0).steps
    assert domain.is_final(steps[-1]) and not domain.is_final(steps[0])
    assert domain.same_answer(domain.answer(steps), domain.train(0).answer)
    assert domain.answer(steps[:-1]) is None
    assert domain.answer(["#### 1,080", "#### 3"]) == "1080"
    assert domain.same_answer("$1,080.00", "1080")
    assert not domain.same_answer("1081", "1080")
    assert not domain.same_answer(None, "1080")
    assert not domain.same_answer("9" * 99, "1080")


def test_corruptions_differ_and_are_mostly_wrong(domain):
    rng = np.random.default_rng(0)
    labels, kinds = [], set()
    for k in range(200):
        problem = domain.train(k)
        for h, step in enumerate(problem.steps):
            prefix = problem.steps[:h]
            candidate = domain.corrupt(rng, problem.question, prefix, step)
            assert candidate is not None and candidate != step
            assert "\n" not in candidate
            verdict = domain.oracle.judge(problem.question, prefix, step, candidate)
            labels.append(verdict.label)
            kinds.add(verdict.kind)
    assert labels.count(Label.INCORRECT) / len(labels) > 0.95
    assert {"wrong_result", "different_conclusion", "wrong_answer"} <= kinds
    assert domain.corrupt(rng, "q", (), "No number here.") is None


def test_corruption_is_a_function_of_the_generator(domain):
    step = domain.train(0).steps[0]
    a, b = (
        [domain.corrupt(rng, "q 5", (), step) for _ in range(20)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert a == b
    assert len(set(a)) > 5


@pytest.mark.parametrize("step", ["<<=>>", "<<1=²>>", "<<1/0=1>>", "1,,2", "<<a=b>>c"])
def test_corruption_survives_odd_steps(domain, step):
    rng = np.random.default_rng(0)
    for _ in range(30):
        domain.corrupt(rng, "q", ("p",), step)


def test_tokenizer_is_lossless_and_splits_digits(domain, tmp_path):
    tokenizer = domain.tokenizer
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    builders = [StepBuilder(t, None, (64,)) for t in (tokenizer, loaded)]
    texts = [
        "She has 1234 = <<10+24=34>>34.",
        "<step> is text",
        "é ½ 漢字 \0 \U0001f600",
    ]
    for text in texts:
        ids = builders[0].encode(text)
        assert ids == builders[1].encode(text)
        assert builders[0].decode(ids) == text
        assert builders[0].step_id not in ids
    pieces = [builders[0].decode([i]) for i in builders[0].encode("12345")]
    assert pieces == list("12345")
    again = train_bpe(domain.texts(), 300)
    assert (
        again.backend_tokenizer.to_str()
        == train_bpe(domain.texts(), 300).backend_tokenizer.to_str()
    )
    assert len(again) == 300
    with pytest.raises(ValueError, match="vocab_size"):
        train_bpe(["a"], 100)
    with pytest.raises(DataError, match="not a tokenizer folder"):
        load_tokenizer(tmp_path)


def test_bad_rows_are_counted(files, tmp_path):
    rows = [_row(k) for k in range(30)]
    rows[4] = {"question": "q", "answer": "no end"}
    train = _write(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match="line 5: the solution does not end in ####"):
        Gsm8kDomain(train=train, test=files[1], dev_count=5, vocab_size=300)
    built = Gsm8kDomain(
        train=train,
        test=files[1],
        dev_count=5,
        vocab_size=300,
        max_bad_share=0.1,
        quarantine_dir=tmp_path / "bad",
    )
    assert (built.num_bad, built.num_train) == (1, 24)
    assert len(list((tmp_path / "bad").iterdir())) == 1


def test_model_solutions(tmp_path):
    entry = {"is_correct": True, "solution": "1+1 = <<1+1=2>>2\nA: 2"}
    cut = {"is_correct": False, "solution": "1+1 = <<1+1"}
    path = _write(tmp_path / "m.jsonl", [{"question": "q", "a": entry, "b": cut}])
    first, second = read_model_solutions(path, models=("a", "b"))
    assert first.steps == ("1+1 = <<1+1=2>>2", "#### 2")
    assert (first.model, first.is_correct) == ("a", True)
    assert second.steps == ("1+1 = <<1+1",)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_hugging_face_names(files, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    expected = [parse_row(_row(k)) for k in range(60)]
    by_reader = read_source(f"datasets:json?data_files={files[0]}", "train", parse_row)
    assert by_reader == expected
    theirs = [{"Q": r["question"], "answer": r["answer"]} for r in map(_row, range(60))]
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list(theirs)})
    saved.save_to_disk(str(tmp_path / "disk"))
    name = f"datasets:{tmp_path / 'disk'}?rename=Q:question"
    assert read_source(name, "train", parse_row) == expected
    with pytest.raises(DataError, match="unknown option 'splitt'"):
        read_source("datasets:json?splitt=a", "train", parse_row)
    with pytest.raises(DataError, match=r"datasets:openai/gsm8k, split 'train': \w+"):
        read_source("datasets:openai/gsm8k", "train", parse_row)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_tensorflow_datasets_names(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {"question": tfds.features.Text(), "answer": tfds.features.Text()}
    )

    class TinyWordProblems(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": ((k, _row(k)) for k in range(4))}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    data = tmp_path / "tfds"
    TinyWordProblems(data_dir=data, file_format="array_record").download_and_prepare()
    rows = read_source(f"tfds:tiny_word_problems?data_dir={data}", "train", parse_row)
    assert {p.question for p in rows} == {parse_row(_row(k)).question for k in range(4)}
    with pytest.raises(DataError, match="tfds:no_such_name, split 'train'"):
        read_source("tfds:no_such_name", "train", parse_row)


def test_real_files(shared_data):
    folder = shared_data / "gsm8k"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    train, test = str(folder / "train.jsonl"), str(folder / "test.jsonl")
    # Any tokenizer will do: training one on this text is not what is tested.
    tokenizer = train_bpe(["some text"], 300)
    built = Gsm8kDomain(train=train, test=test, tokenizer=tokenizer, max_bad_share=0.0)
    assert (built.num_train, built.num_bad) == (6_973, 0)
    assert len(built.problems("dev", 9_999)) == 500
    assert len(built.problems("test", 9_999)) == 1_319
    solutions = read_model_solutions(folder / "example_model_solutions.jsonl")
    right = {}
    for solution in solutions:
        right[solution.model] = right.get(solution.model, 0) + solution.is_correct
    assert right == {
        "6b_finetuning": 286,
        "6b_verification": 515,
        "175b_finetuning": 458,
        "175b_verification": 742,
    }
    # The rewritten `A: N` agrees with the recorded outcome.
    answers = {p.question: p.answer for p in built.problems("test", 9_999)}
    agree = [
        built.same_answer(built.answer(s.steps), answers[s.question]) == s.is_correct
        for s in solutions
    ]
    assert sum(agree) / len(agree) > 0.99
