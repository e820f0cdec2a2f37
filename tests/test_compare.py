"""Who knows what, against numpy on the logits; files of logits; what is refused."""

import json
import math

import numpy as np
import pytest
import torch

from osmose.answers import Answers, write
from osmose.candidates import load_candidates
from osmose.cli import main
from osmose.comparison import compare
from osmose.data import load_data
from osmose.errors import UserError
from osmose.models import load_model
from osmose.models.zoo import ZOO as ZOO_OF_ALL

parquet = pytest.importorskip("pyarrow.parquet")
ZOO = ["zoo:cnn-xs", "zoo:mlp-xs", "zoo:vit-xs"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Three zoo networks on the held-out part, and their logits on disk."""
    folder = tmp_path_factory.mktemp("logits")
    return compare(ZOO, student="zoo:mlp-xs", keep=folder), folder


def test_the_numbers_are_those_of_numpy_on_the_logits(kept):
    numbers, folder = kept
    tables = {name: parquet.read_table(folder / f"{name.replace(':', '-')}.parquet").to_pydict() for name in ZOO}
    labels = np.array(tables[ZOO[0]]["label"])
    answers = {name: np.array(table["logits"]).argmax(1) for name, table in tables.items()}
    assert len(numbers["pairs"]) == 6
    for row in numbers["pairs"]:
        teacher, student = (answers[row[who]] for who in ("teacher", "student"))
        positive = (teacher == labels) & (student != labels)
        counts = np.bincount(labels[positive], minlength=10)
        shares = counts[counts > 0] / counts.sum()
        assert row["positive_flips"] == pytest.approx(100 * positive.mean())
        assert row["negative_flips"] == pytest.approx(100 * ((teacher != labels) & (student == labels)).mean())
        assert row["accuracy_difference"] == pytest.approx(
            100 * ((teacher == labels).mean() - (student == labels).mean())
        )
        assert row["agreement"] == pytest.approx(100 * (teacher == student).mean())
        assert row["entropy"] == pytest.approx(-(shares * np.log(shares)).sum())
        assert list(row["by_class"].values()) == pytest.approx(100 * counts / len(labels))
        half = [numbers["classes"].index(name) for name in row["top"][-1]["classes"]]
        assert counts[half].sum() >= positive.sum() / 2 > counts[half[:-1]].sum()
    assert numbers["uniform_entropy"] == pytest.approx(math.log(10))
    assert [row["accuracy"] for row in numbers["models"]] == pytest.approx(
        [100 * (answers[name] == labels).mean() for name in ZOO]
    )


def test_accuracy_difference_is_positive_less_negative_flips(kept):
    for row in kept[0]["pairs"]:
        assert row["accuracy_difference"] == pytest.approx(row["positive_flips"] - row["negative_flips"])
        (back,) = (r for r in kept[0]["pairs"] if (r["teacher"], r["student"]) == (row["student"], row["teacher"]))
        assert back["negative_flips"] == row["positive_flips"]


def test_teachers_are_ranked_by_what_the_student_does_not_know(kept):
    ranking = kept[0]["ranking"]
    assert {row["teacher"] for row in ranking} == {"zoo:cnn-xs", "zoo:vit-xs"}
    assert ranking[0]["positive_flips"] >= ranking[1]["positive_flips"]


def test_ranking_for_some_classes_counts_their_flips_alone(kept):
    ranking = compare(ZOO, student="zoo:mlp-xs", classes=["Shirt", "Coat"])["ranking"]
    for row in ranking:
        (pair,) = (p for p in kept[0]["pairs"] if (p["teacher"], p["student"]) == (row["teacher"], "zoo:mlp-xs"))
        assert row["knows"] == pytest.approx(pair["by_class"]["Shirt"] + pair["by_class"]["Coat"])
    assert ranking[0]["knows"] >= ranking[1]["knows"]


def test_files_of_logits_give_the_networks_numbers(kept):
    numbers, folder = kept
    files = compare([f"logits:{folder / name.replace(':', '-')}.parquet" for name in ZOO], data=None)
    for ours, theirs in zip(numbers["pairs"], files["pairs"], strict=True):
        assert {**ours, "teacher": 0, "student": 0} == {**theirs, "teacher": 0, "student": 0}
    mixed = compare([ZOO[0], f"logits:{folder}/zoo-mlp-xs.parquet"])
    assert mixed["pairs"][0]["positive_flips"] == numbers["pairs"][0]["positive_flips"]


def test_some_pairs_at_random(kept):
    few = [(row["teacher"], row["student"]) for row in compare(ZOO, pairs=2, seed=1)["pairs"]]
    assert len(set(few)) == 2
    assert few == [(row["teacher"], row["student"]) for row in compare(ZOO, pairs=2, seed=1)["pairs"]]


def test_two_modules_of_one_name():
    network = load_model("fresh:zoo:mlp-xs", num_classes=10, channels=1, image_size=(28, 28))
    names = [row["model"] for row in compare([network, network])["models"]]
    assert len(set(names)) == 2


def test_the_whole_zoo():
    assert [*load_candidates(["zoo:*"], load_data("fashion-mnist-mini"))] == [f"zoo:{name}" for name in ZOO_OF_ALL]


def test_files_of_one_name_from_two_folders_are_two_models(kept, tmp_path):
    _, folder = kept
    (tmp_path / "zoo-cnn-xs.parquet").write_bytes((folder / "zoo-mlp-xs.parquet").read_bytes())
    files = [f"logits:{folder}/zoo-cnn-xs.parquet", f"logits:{tmp_path}/zoo-cnn-xs.parquet"]
    numbers = compare(files, data=None, student=files[0])
    assert [row["model"] for row in numbers["models"]] == ["zoo-cnn-xs", f"{tmp_path}/zoo-cnn-xs.parquet"]
    assert numbers["pairs"][0]["positive_flips"] == kept[0]["pairs"][0]["positive_flips"]
    for place, file in enumerate(files):
        numbers = compare(files, data=None, student=file)
        (row,) = numbers["ranking"]
        names = [row["model"] for row in numbers["models"]]
        assert (numbers["student"], row["teacher"]) == (names[place], names[1 - place])


def test_a_module_is_a_student_of_a_ranking(grey):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 4))
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU(), torch.nn.Linear(144, 4))
    numbers = compare([other, module], data=grey, student=str(module))
    assert (numbers["student"], numbers["ranking"][0]["teacher"]) == ("module:Sequential (2)", "module:Sequential")


def test_logits_of_models_whose_names_would_be_one_files_are_kept_apart(tmp_path):
    zeros = torch.zeros(2, 2)
    answers = Answers({"a/b": zeros, "a_b": zeros + 1}, torch.tensor([0, 1]), torch.arange(2), ("x", "y"), {})
    first, second = write(answers, tmp_path / "kept")
    found = [parquet.read_table(path)["logits"].to_pylist() for path in (first, second)]
    assert found == [[[0.0, 0.0]] * 2, [[1.0, 1.0]] * 2]
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_models_that_agree_everywhere_are_reported(grey, tmp_path):
    network = load_model("fresh:zoo:mlp-xs", num_classes=4, channels=1, image_size=(12, 12))
    numbers = compare([network, network], data=grey, output=tmp_path / "same")
    assert {row["entropy"] for row in numbers["pairs"]} == {None}
    assert (tmp_path / "same" / "report.html").exists()


def test_labels_and_classes_of_files_must_fit(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"logits": [[0.0, 1.0], [1.0, 0.0]], "label": [1, 2]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has labels that are none of its 2 classes: number them from 0"):
        compare([f"logits:{tmp_path}/a.parquet"] * 2, data=None)
    table = arrow.table({"logits": [[0.0, 1.0], [1.0, 0.0]], "label": [1, 0]})
    for name, classes in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        parquet.write_table(
            table.replace_schema_metadata({"classes": json.dumps(classes)}), tmp_path / f"{name}.parquet"
        )
    with pytest.raises(UserError, match="has the classes dog, cat, the others cat, dog: put them in order"):
        compare([f"logits:{tmp_path}/a.parquet", f"logits:{tmp_path}/b.parquet"], data=None)


def test_networks_without_a_head_answer_by_their_neighbours(grey, tmp_path):
    """The votes of the 20 nearest training samples, counted one by one; networks with a head when they are told to."""
    data = load_data(grey)
    headless = load_model("fresh:zoo:cnn-s", num_classes=0, channels=1, image_size=(12, 12))
    headless.save(tmp_path / "backbone.safetensors")
    headed = load_model("fresh:zoo:mlp-xs", num_classes=4, channels=1, image_size=(12, 12), seed=1)
    headed.save(tmp_path / "whole.safetensors")
    names = [f"file:{tmp_path / 'backbone.safetensors'}", f"file:{tmp_path / 'whole.safetensors'}"]

    def voted(network):
        def features(split):
            images = split.inputs.read(torch.arange(len(split))).float() / 255
            with torch.no_grad():
                return torch.nn.functional.normalize(network.eval()(images).features, dim=-1)

        bank, answers = features(data.train), []
        for query in features(data.heldout):
            cosines = bank @ query
            votes = [0.0] * 4
            for place in cosines.argsort(descending=True)[:20].tolist():
                votes[int(data.train.labels[place])] += math.exp(float(cosines[place]) / 0.07)
            answers.append(votes.index(max(votes)))
        return torch.tensor(answers)

    right = voted(headless) == data.heldout.labels
    by_head = headed(data.heldout.inputs.read(torch.arange(len(data.heldout))).float() / 255).logits.argmax(-1)
    for features, other in ((False, by_head), (True, voted(headed))):
        numbers = compare(names, data=grey, features=features, keep=tmp_path / f"{features}")
        assert numbers["models"][0]["accuracy"] == pytest.approx(100 * right.double().mean().item())
        assert numbers["pairs"][0]["agreement"] == pytest.approx(
            100 * (voted(headless) == other).double().mean().item()
        )
        again = compare([f"logits:{path}" for path in sorted((tmp_path / f"{features}").iterdir())], data=grey)
        assert {row["accuracy"] for row in again["models"]} == {row["accuracy"] for row in numbers["models"]}
        assert [row["by"] for row in numbers["models"]] == [
            "neighbours",
            "neighbours" if features else "its classifier",
        ]
    with pytest.raises(UserError, match="features of part 'train' are read by themselves"):
        compare(names, data=grey, part="train")


def test_heads_that_nobody_asks_may_know_other_classes(grey, tmp_path, capsys):
    for place, classes in enumerate((7, 4)):
        network = load_model("fresh:zoo:cnn-s", num_classes=classes, channels=1, image_size=(12, 12), seed=place)
        network.save(tmp_path / f"{classes}.safetensors")
    names = [f"file:{tmp_path / f'{classes}.safetensors'}" for classes in (7, 4)]
    assert main(["compare", *names, "--data", grey]) == 2
    assert "knows 7 classes" in capsys.readouterr().err
    assert main(["compare", *names, "--data", grey, "--features", "--json", "--output", str(tmp_path / "page")]) == 0
    assert [row["by"] for row in json.loads(capsys.readouterr().out)["models"]] == ["neighbours"] * 2
    assert "<td>neighbours</td>" in (tmp_path / "page" / "report.html").read_text()


def test_networks_need_data():
    with pytest.raises(UserError, match="networks need images to answer: give --data"):
        compare(ZOO, data=None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["zoo:cnn-xs"], "one model has nobody to be compared with: give two or more"),
        ([*ZOO, "--student", "zoo:cnn-s"], "unknown student 'zoo:cnn-s'"),
        ([*ZOO, "--classes", "Shirts"], "unknown class 'Shirts'"),
        ([*ZOO, "--pairs", "1", "--student", "zoo:cnn-xs"], "a ranking needs all of the student's pairs"),
        ([*ZOO, "--pairs", "0"], "key 'pairs' is 0: set it to at least 1"),
        ([*ZOO, "logits:nothing.parquet"], "there is no file 'nothing.parquet': check the path"),
        ([*ZOO, "--data", "cosine"], "cosine has numbers for labels"),
        ([*ZOO, "--encoder", "nothing"], "cannot load the encoder 'nothing'"),
    ],
)
def test_mistakes_are_one_line(arguments, says, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["compare", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": [0, 1]}, "has no column 'logits'"),
        ({"logits": [[0.0, 1.0], [1.0]], "label": [0, 1]}, "must hold equally long lists of"),
        ({"logits": [[0.0, math.nan], [1.0, 0.0]], "label": [0, 1]}, "must hold equally long lists of finite numbers"),
        ({"logits": [[0.0, 1.0], [1.0, 0.0]]}, "has no column 'label': give --data"),
        ({"logits": [[0.0, 1.0]], "label": [0]}, "has logits of 1 samples and 2 classes, the others have 2 and 2"),
        ({"logits": [[0.0, 1.0], [1.0, 0.0]], "label": [1, 1]}, "has another column 'label' than the rest"),
        (
            {"logits": [[0.0, 1.0], [1.0, 0.0]], "label": ["a", "b"]},
            "the column 'label' must hold a whole number in each row",
        ),
        (
            {"logits": [[0.0, 1.0], [1.0, 0.0]], "label": [1, None]},
            "the column 'label' must hold a whole number in each row",
        ),
        ({"logits": ["a", "b"], "label": [0, 1]}, "must hold equally long lists of finite numbers"),
    ],
)
def test_bad_files_of_logits(columns, says, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    good = {"logits": [[0.0, 1.0], [1.0, 0.0]], "label": [0, 1]}
    parquet.write_table(arrow.table(good), tmp_path / "good.parquet")
    parquet.write_table(arrow.table(columns), tmp_path / "bad.parquet")
    files = [f"logits:{tmp_path}/{name}.parquet" for name in (("bad",) if "give --data" in says else ("good", "bad"))]
    with pytest.raises(UserError, match=says):
        compare(files, data=None)
    (tmp_path / "bad.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match="is not a parquet file"):
        compare(files, data=None)


def test_the_command_prints_tables_and_json(kept, capsys):
    _, folder = kept
    files = [f"logits:{folder}/zoo-{name}.parquet" for name in ("cnn-xs", "mlp-xs")]
    assert main(["compare", *files, "--student", "zoo-mlp-xs"]) == 0
    shown = capsys.readouterr().out
    assert "half of them in" in shown
    assert "teachers, best first" in shown
    assert main(["compare", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 6000


def test_class_names_are_compared_by_the_mean_of_their_tokens(tmp_path):
    transformers = pytest.importorskip("transformers")
    from osmose.evaluate.class_names import similarities_of

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ant", "bee", "big"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    names = ["ant", "big bee", "bee"]
    vectors = []
    for name in names:  # one at a time: without padding
        with torch.no_grad():
            states = model(**tokenizer(name, return_tensors="pt")).last_hidden_state[0].mean(0)
        vectors.append(states / states.norm())
    expected = torch.stack([torch.stack([a @ b for b in vectors]) for a in vectors])
    torch.testing.assert_close(similarities_of(names, str(tmp_path)), expected)
