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
    ends = [log_p(model, "One. Two. Three. Four.", f" {ending}")[0] for ending in ("Five.", "A house.")]
    assert found["storycloze_2016"]["acc"] == 100 * (ends[0] > ends[1])
    assert {found[name]["exact_match"] for name in ("nq_open", "webqs", "triviaqa")} == {0.0}


def test_a_folder_with_examples(llama, tmp_path):
    (tmp_path / "train.jsonl").write_text("\n".join([json.dumps(FILES["nq_open"][0])] * 3))
    (tmp_path / "validation.jsonl").write_text(json.dumps({"question": "who sees", "answer": ["the house"]}))
    tasks = find_tasks([f"nq_open:{tmp_path}"], shots=1)
    found = score_tasks(load_language(f"hf:{llama()}"), tasks, shots=1, limit=1)
    assert found["nq_open"]["exact_match"] in (0.0, 100.0)


def test_mistakes(llama, files, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text("{")
    nq = next(one for one in files if one.startswith("nq_open"))
    for asked, shots, message in (
        (f"hellaswig:{tmp_path}/hellaswag.jsonl", None, "unknown task 'hellaswig': did you mean 'hellaswag'"),
        (nq, 2, "task 'nq_open': examples come from a training file"),
        (f"nq_open:{tmp_path / 'empty'}", None, "needs files test... or validation..."),
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
