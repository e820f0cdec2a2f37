"""Tasks of lm-evaluation-harness on local files, against scores counted from the model's own logits."""

import json
import math

import pytest
import torch

pytest.importorskip("lm_eval")

from osmose.errors import UserError
from osmose.evaluate.harness import _plain, find_tasks, score_tasks
from osmose.models.load_language import load_language

FILES = {
    "lambada_openai": [{"text": "the old house sings of rain"}, {"text": "a tree sees the cat"}],
    "hellaswag": [
        {
            "activity_label": "Rain", "ctx_a": "A tree", "ctx_b": "the tree", "label": "1",
            "endings": [" sings.", " sees a house.", " a", " b"],
        }
    ],
    "storycloze_2016": [
        {
            "input_sentence_1": "One.", "input_sentence_2": "Two.", "input_sentence_3": "Three.", "input_sentence_4": "Four.",
            "sentence_quiz1": "Five.", "sentence_quiz2": "A house.", "answer_right_ending": 1,
        }
    ],
    "nq_open": [{"question": "who sings", "answer": ["the tree", "a tree"]}],
    "webqs": [{"question": "who sings?", "answers": ["tree", "cat"], "url": ""}],
    "triviaqa": [{"question": "who sings", "answer": {"aliases": ["tree", "cat"]}}],
}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    for name, rows in FILES.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [f"{name}:{tmp_path / name}.jsonl" for name in FILES]


def log_p(model, context, continuation):
    """Sum of the log-probabilities of a continuation, and whether each token is the best guess."""
    before, whole = (model.tokenizer(text)["input_ids"] for text in (context, context + continuation))
    with torch.no_grad():
        said = model.body(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
    rows = torch.arange(len(before) - 1, len(whole) - 1)
    wanted = torch.tensor(whole[len(before) :])
    return said[rows, wanted].sum().item(), bool((said[rows].argmax(-1) == wanted).all())


def test_every_layout_of_the_papers(llama, files):
    model = load_language(f"hf:{llama()}")
    found = score_tasks(model, find_tasks(files))
    rows = [row["text"].rsplit(" ", 1) for row in FILES["lambada_openai"]]
    scores = [log_p(model, context, f" {word}") for context, word in rows]
    assert found["lambada_openai"]["perplexity"] == pytest.approx(math.exp(-sum(s for s, _ in scores) / 2), rel=1e-3)
    assert found["lambada_openai"]["acc"] == 50 * sum(right for _, right in scores)
    context = "Rain: A tree The tree"
    sums = [log_p(model, context, f" {ending}")[0] for ending in ("sings.", "sees a house.", "a", "b")]
    assert found["hellaswag"]["acc"] == 100 * (max(sums) == sums[1])
    letters = [
        total / length for total, length in zip(sums, map(len, ("sings.", "sees a house.", "a", "b")), strict=True)
    ]
    assert found["hellaswag"]["acc_norm"] == 100 * (max(letters) == letters[1])
    ends = [log_p(model, "One. Two. Three. Four.", f" {ending}")[0] for ending in ("Five.", "A house.")]
    assert found["storycloze_2016"]["acc"] == 100 * (ends[0] > ends[1])
    assert {found[name]["exact_match"] for name in ("nq_open", "webqs", "triviaqa")} == {0.0}


@pytest.fixture
def prompts(monkeypatch):
    """Whatever the harness asks a model."""
    from lm_eval.models.huggingface import HFLM

    asked = []

    def answer(self, requests, **settings):
        asked.extend(request.args[0] for request in requests)
        return [self.answer for _ in requests]

    monkeypatch.setattr(HFLM, "generate_until", answer)
    monkeypatch.setattr(HFLM, "answer", "", raising=False)
    return asked


@pytest.mark.parametrize(("answer", "right"), [("the tree", 100.0), ("The Tree.", 100.0), ("a house", 0.0)])
def test_exact_match_of_answers(llama, files, prompts, monkeypatch, answer, right):
    """One of the answers that count, whatever its case and stops; nothing else."""
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "answer", answer)
    nq = next(one for one in files if one.startswith("nq_open"))
    assert score_tasks(load_language(f"hf:{llama()}"), find_tasks([nq]))["nq_open"]["exact_match"] == right


def test_examples_come_from_their_own_file(llama, prompts, tmp_path):
    (tmp_path / "train.jsonl").write_text("\n".join([json.dumps(FILES["nq_open"][0])] * 3))
    (tmp_path / "validation.jsonl").write_text(json.dumps({"question": "who sees", "answer": ["the house"]}))
    tasks = find_tasks([f"nq_open:{tmp_path}"], shots=2)
    score_tasks(load_language(f"hf:{llama()}"), tasks, shots=2)
    (prompt,) = prompts
    assert prompt.count("who sings") == 2
    assert prompt.count("who sees") == 1
    assert "the house" not in prompt


def test_a_task_with_examples_of_its_own_accord_needs_their_file(llama, prompts, tmp_path):
    """gsm8k asks for five; of one file they would be the questions themselves, with their answers."""
    rows = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}. #### {n + 1}"} for n in range(6)]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = f"gsm8k:{tmp_path / 'all.jsonl'}"
    with pytest.raises(
        UserError, match=r"task 'gsm8k': the 5 examples .* come from files train..., and .* or --shots 0"
    ):
        find_tasks([asked])
    score_tasks(load_language(f"hf:{llama()}"), find_tasks([asked], shots=0), shots=0)
    assert len(prompts) == 6
    assert not any("####" in prompt for prompt in prompts)


def test_a_task_of_questions_alone_has_no_examples(files):
    lambada = next(one for one in files if one.startswith("lambada"))
    with pytest.raises(
        UserError, match="the 1 examples before a question would be questions that are scored: give --shots 0"
    ):
        find_tasks([lambada], shots=1)


def test_mistakes(llama, files, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text("{")
    nq = next(one for one in files if one.startswith("nq_open"))
    for asked, shots, message in (
        (f"hellaswig:{tmp_path}/hellaswag.jsonl", None, "unknown task 'hellaswig': did you mean 'hellaswag'"),
        (nq, 2, "task 'nq_open': the 2 examples before a question come from files train..., and .* has none"),
        (f"nq_open:{tmp_path / 'empty'}", None, "needs files validation..., test..."),
        ("lambada", None, "task 'lambada': write NAME:FILE or NAME:FOLDER"),
        (f"lambada_openai:{tmp_path / 'nowhere'}", None, "there is no .*nowhere"),
    ):
        with pytest.raises(UserError, match=message):
            find_tasks([asked], shots)
    model = load_language(f"hf:{llama()}")
    for wrong in ("nq_open.jsonl", "broken.jsonl"):
        with pytest.raises(UserError, match="tasks hellaswag: their files do not have the layout of the hub"):
            score_tasks(model, find_tasks([f"hellaswag:{tmp_path / wrong}"]))


def test_only_shares_become_percent_and_filters_stay_apart():
    given = {
        "acc,none": 0.5, "acc_stderr,none": 0.1, "word_perplexity,none": 30.0, "bits_per_byte,none": 3.7, "alias": "x",
        "exact_match,strict-match": 0.25, "exact_match,flexible-extract": 0.75,
    }  # fmt: skip
    assert _plain(given) == {
        "acc": 50.0, "word_perplexity": 30.0, "bits_per_byte": 3.7,
        "exact_match,strict-match": 25.0, "exact_match,flexible-extract": 75.0,
    }  # fmt: skip


def test_the_command_shows_what_is_left_of_the_teacher(llama, files, capsys):
    from osmose import cli

    lambada = next(one for one in files if one.startswith("lambada"))
    assert cli.main(["evaluate", f"hf:{llama(1)}", "--teacher", f"hf:{llama(0)}", "--tasks", lambada, "--json"]) == 0
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["perplexity"]["teacher"] > 1
    assert rows["perplexity"]["retention"] is None  # less is better
    accuracy = rows["acc"]
    assert accuracy["retention"] == (100 * accuracy["score"] / accuracy["teacher"] if accuracy["teacher"] else None)
    assert cli.main(["evaluate", f"hf:{llama(1)}", "--teacher", f"hf:{llama(0)}"]) == 2
    assert "--teacher goes with --tasks" in capsys.readouterr().err
