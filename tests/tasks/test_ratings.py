"""Rating prediction: runs, what they measure, the partition of ratings, and what does not fit."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import osmose
from osmose import api, grid
from osmose.data.batch import Batch
from osmose.data.ratings import load_ratings
from osmose.engine.clock import Clock
from osmose.errors import UserError
from osmose.methods.feature import Feature
from osmose.methods.guided import Answers
from osmose.models import load_model
from osmose.signals import Frozen
from osmose.targets import partition
from osmose.tasks.ratings import load_rating_network

ADAM = {"name": "adam", "lr": 0.01, "lr_batch": None, "weight_decay": 0.0}
FACTS = {"users": 5, "items": 4, "genres": 2, "features": torch.eye(4, 2), "tables": "t", "mean": 3.0}
STUDENT = "fresh:ratings:two-tower,width=4,hidden=8"


@pytest.fixture
def rate(ratings, tmp_path):
    """A transfer on the small ratings, its settings laid over short ones."""

    def run(name="run", **settings):
        method = {"name": "supervised", "optimiser": ADAM} | settings.pop("method", {})
        settings = {"student": STUDENT, "epochs": 3, "batch_size": 32, "data": ratings, "threads": 1} | settings
        return api.transfer(output=tmp_path / name, method=method, **settings)

    return run


def errors(network, split):
    """Squared errors, one rating at a time."""
    rows = split.inputs.read(torch.arange(len(split)))
    said = [network.eval()(row[None]).logits.item() for row in rows]
    return [(one - star) ** 2 for one, star in zip(said, split.labels.tolist(), strict=True)]


def test_a_run_learns_and_measures_what_a_loop_measures(rate, ratings):
    result = rate(epochs=10)
    numbers, data = result.numbers, load_ratings(ratings)
    test = data.test()
    after = errors(result.student, test)
    assert numbers["rmse_after"] == pytest.approx(math.sqrt(sum(after) / len(after)), rel=1e-5)
    assert numbers["rmse_after"] < numbers["rmse_before"]
    stars = data.train.labels.mean()
    assert numbers["rmse_before"] == pytest.approx((test.labels - stars).square().mean().sqrt().item(), rel=0.02)
    items = test.inputs.read(torch.arange(len(test)))[:, 1]
    war = [one for one, item in zip(after, items.tolist(), strict=True) if data.features[item, 2]]
    assert numbers["by_genre"]["War"]["ratings"] == len(war)
    assert numbers["by_genre"]["War"]["after"] == pytest.approx(math.sqrt(sum(war) / len(war)), rel=1e-5)
    before = errors(load_rating_network(STUDENT, data), test)
    nearer = [new < old for new, old in zip(after, before, strict=True)]
    assert numbers["nearer"] == pytest.approx(100 * sum(nearer) / len(test))
    farther = [new > old for new, old in zip(after, before, strict=True)]
    assert numbers["farther"] == pytest.approx(100 * sum(farther) / len(test))
    assert (result.folder / "report.html").exists()


def test_a_saved_network_is_asked_for_a_users_rating_of_an_item(rate, ratings):
    """By their own numbers, as the guide has it; both are numbered from 1 in the file."""
    result = rate()
    data = osmose.load_ratings(ratings)
    network = osmose.load_model(f"file:{result.folder}").eval()
    pair = torch.tensor([[data.users.index("4"), data.items.index("8")]])
    assert pair.tolist() == [[3, 7]]
    said = network.answer(pair)
    assert said.shape == (1, 1)
    assert 1 < said < 5


def test_the_network_says_what_its_formula_says(ratings):
    data = load_ratings(ratings)
    facts = {"users": 30, "items": 20, "genres": 3, "features": data.features, "tables": data.tables, "mean": 3.0}
    network = load_model(STUDENT, ratings=facts, seed=1)
    body, x = network.body, torch.tensor([[3, 7]])
    towers = body.towers
    item = towers.item.weight[7] + sum(
        flag * towers.genre.weight[:, place] for place, flag in enumerate(data.features[7].tolist())
    )
    state = torch.cat([towers.user.weight[3], item])
    for layer in body.layers:
        state = (layer[0].weight @ state + layer[0].bias).clamp(min=0)
    assert network(x).logits.item() == pytest.approx((body.head.weight @ state + body.head.bias).item(), rel=1e-5)
    assert network(x).features.tolist()[0] == pytest.approx(state.tolist(), rel=1e-5)
    assert body.head.bias.item() == 3.0


def test_a_student_of_one_genre_learns_from_a_teacher_of_all(rate, ratings, tmp_path):
    teacher = rate("teacher", epochs=20)
    alone = {"genre": "War", "name": ratings}
    student = rate("student", data=alone, teacher=f"file:{tmp_path / 'teacher'}", method={"name": "distill"}, epochs=20)
    assert student.numbers["teacher1"]["rmse"] == pytest.approx(teacher.numbers["by_genre"]["War"]["after"], rel=1e-6)
    assert student.numbers["rmse_after"] < student.numbers["rmse_before"]
    assert student.numbers["by_genre"]["War"]["ratings"] == student.numbers["ratings"]
    again = api.evaluate(f"file:{student.folder}", data=alone)
    assert again["rmse"] == pytest.approx(student.numbers["rmse_after"], rel=1e-6)


@pytest.mark.parametrize("name", ["distill", "feature", "interactive"])
def test_a_teacher_with_dropout_answers_without_it(name, rate, ratings, tmp_path, metrics):
    """Of a student that hardly moves, the divergence of all ratings at once is that of both networks in evaluation mode."""
    teacher = rate("teacher", student=f"{STUDENT},dropout=0.5", epochs=4).student
    answers = {"kl_weight": 1.0} if name == "distill" else {"answers": {"kl": 1.0}}
    method = {"name": name, "optimiser": {**ADAM, "lr": 1e-9}, **answers}
    settings = {"teacher": f"file:{tmp_path / 'teacher'}", "batch_size": 10_000, "epochs": 1, "log_every": 1}
    result = rate("student", method=method, **settings)
    train = load_ratings(ratings).train
    x = train.inputs.read(torch.arange(len(train)))
    expected = (result.student(x).logits - teacher.eval()(x).logits).square().mean()
    told = [line["kl"] for line in metrics(result.folder) if "kl" in line]
    assert told == [pytest.approx(expected.item(), rel=1e-4)]


def test_who_is_nearer_teaches():
    initial, first, second = (
        torch.tensor(said)[:, None] for said in ([3.0, 1.0, 4.0], [4.0, 2.0, 4.0], [2.5, 5.0, 3.0])
    )
    labels = torch.tensor([4.0, 4.5, 3.5])
    choice = partition(initial, [first, second], labels)
    assert choice.source.tolist() == [1, 2, 0]  # a tie goes to the earlier one
    assert choice.logits.flatten().tolist() == [4.0, 5.0, 4.0]


def test_a_partition_gives_each_rating_to_whoever_is_nearer(rate, ratings, tmp_path):
    rate("teacher", epochs=4)
    student = {"student": f"file:{rate('before', seed=1, epochs=2).folder}", "teacher": f"file:{tmp_path / 'teacher'}"}
    result = rate("partition", method={"name": "distill", "target": "partition"}, batch_size=10_000, **student)
    train = load_ratings(ratings).train
    theirs, own = (errors(load_model(student[role]), train) for role in ("teacher", "student"))
    nearer = sum(one < other for one, other in zip(theirs, own, strict=True)) / len(train)
    assert 0.1 < nearer < 0.9
    assert result.numbers["share"] == {
        "teacher1": pytest.approx(nearer, abs=1e-6),
        "initial": pytest.approx(1 - nearer, abs=1e-6),
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_stored_signals_change_nothing(workers, rate, tmp_path):
    rate("teacher")
    settings = {"teacher": f"file:{tmp_path / 'teacher'}", "method": {"name": "distill", "target": "partition"}}
    live = rate("live", **settings)
    for name in ("fills", "reads"):
        stored = rate(name, signals={"store": str(tmp_path / "store")}, workers=workers, **settings)
        for key, tensor in load_file(stored.folder / "student.safetensors").items():
            assert torch.equal(tensor, load_file(live.folder / "student.safetensors")[key])


@pytest.mark.parametrize("name", ["feature", "fitnet", "relational", "interactive"])
def test_partitions_of_ratings_teach_beside_states(name, rate, tmp_path):
    rate("teacher", epochs=4)
    method = {"name": name, "answers": {"kl": 1.0, "target": "partition"}}
    result = rate("student", teacher=f"file:{tmp_path / 'teacher'}", method=method)
    assert result.numbers["rmse_after"] < result.numbers["rmse_before"]
    assert result.numbers["taught_by"].endswith("labels (weight 1)")


def test_beside_states_a_rating_is_taught_by_whoever_is_nearer():
    def network(seed):
        return load_model("fresh:ratings:two-tower,width=3,hidden=4", ratings=FACTS, seed=seed)

    frozen = {"teacher1": Frozen(network(1)), "initial": Frozen(network(2))}
    student = network(0)
    answers = Answers(labels=0.0, kl=3.0, target="partition")
    method = Feature(student, frozen, weight=0.0, answers=answers)
    x = torch.tensor([[user, item] for user in range(5) for item in range(4)])
    stars = torch.linspace(1, 5, 20)
    method.fit_to([(2,)], torch.arange(20))
    theirs, own = (frozen[role].network.eval()(x).logits.squeeze(1).detach() for role in ("teacher1", "initial"))
    nearer = (theirs - stars).abs() < (own - stars).abs()
    assert 2 < nearer.sum() < 18
    expected = 3 * (student(x).logits.squeeze(1) - torch.where(nearer, theirs, own)).square().mean()
    loss = method(Batch(torch.arange(20), 0, x, stars), Clock(step=0, steps_per_epoch=1, epochs=1, batch_size=20)).loss
    torch.testing.assert_close(loss, expected)
    found, plain = (torch.autograd.grad(one, list(student.parameters())) for one in (loss, expected))
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_networks_that_have_seen_the_test_part_are_refused(rate, ratings, tmp_path):
    rate("teacher")
    settings = {"teacher": f"file:{tmp_path / 'teacher'}", "method": {"name": "distill"}}
    for change in ({"split_seed": 1}, {"test": 0.3}, {"heldout": 0.2}, {"heldout": 0}):
        with pytest.raises(
            UserError,
            match="and may have seen ratings of its test part: give data.test, data.heldout and data.split_seed as it was",
        ):
            rate("student", data={"name": ratings, **change}, **settings)
    rate("student", data={"name": ratings, "fraction": 0.5, "genre": "War"}, **settings)


@pytest.mark.parametrize(
    ("study", "runs"),
    [
        ("movielens-teachers", 6), ("interactive-settings", 388), ("interactive-weights", 356), ("interactive-choices", 96),
        ("interactive-movielens", 1280), ("ratings-partition", 360),
    ],
)  # fmt: skip
def test_packaged_studies_are_whole(study, runs, ratings, monkeypatch, tmp_path):
    (tmp_path / "movielens").symlink_to(ratings.removeprefix("ratings:"))
    monkeypatch.chdir(tmp_path)
    assert len(grid.expand(grid.load(study))) == runs


class Mean(nn.Module):
    """A user's module: a number for each item."""

    def __init__(self, items=20):
        super().__init__()
        self.items = nn.Embedding(items, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.items(x[:, 1]))


def test_a_module_of_the_users(rate):
    module = Mean()
    result = rate(student=module, epochs=10)
    assert result.numbers["rmse_after"] < result.numbers["rmse_before"]
    again = rate(student=module, epochs=10)
    assert isinstance(again.student.body, Mean)


class Factors(nn.Module):
    """A user's matrix factorisation: no layer tells how many numbers it gives."""

    def __init__(self, keepdim=True, projected=False):
        super().__init__()
        self.users, self.items, self.keepdim = nn.Embedding(30, 4), nn.Embedding(20, 4), keepdim
        self.project = nn.Linear(4, 4) if projected else nn.Identity()

    def forward(self, x):
        return 3 + (self.project(self.users(x[:, 0])) * self.items(x[:, 1])).sum(-1, keepdim=self.keepdim)


@pytest.mark.parametrize("projected", [False, True])
def test_a_matrix_factorisation_teaches_and_learns(projected, rate, ratings):
    teacher = rate("teacher", student=Factors(projected=projected), epochs=10)
    assert teacher.numbers["rmse_after"] < teacher.numbers["rmse_before"]
    student = rate(
        "student", student=Factors(projected=projected), teacher=teacher.student.body, method={"name": "distill"}
    )
    assert student.numbers["teacher1"]["rmse"] == pytest.approx(teacher.numbers["rmse_after"], rel=1e-6)
    assert student.numbers["rmse_after"] < student.numbers["rmse_before"]
    found = api.evaluate(teacher.student.body, data=ratings)
    assert found["rmse"] == pytest.approx(teacher.numbers["rmse_after"], rel=1e-6)
    after = {genre: one["after"] for genre, one in teacher.numbers["by_genre"].items()}
    assert {genre: one["rmse"] for genre, one in found["by_genre"].items()} == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Factors(keepdim=False), "gives outputs of shape [2] for 2 samples: give [2, 1], one row a sample"),
        (
            Factors(keepdim=False, projected=True),
            "gives outputs of shape [1] for one rating, where [1, 1] was expected",
        ),
        (
            nn.Sequential(Mean(), nn.Linear(1, 5)),
            "gives outputs of shape [1, 5] for one rating, where [1, 1] was expected",
        ),
    ],
)
def test_modules_that_do_not_say_a_rating(module, message, rate, ratings):
    for method in ({"name": "supervised"}, {"name": "distill", "target": "initial"}):
        with pytest.raises(UserError) as caught:
            rate(student=module, method=method)
        assert message in str(caught.value)
    with pytest.raises(UserError) as caught:
        api.evaluate(module, data=ratings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": "zoo:cnn-s"}, "'zoo:cnn-s' takes images, and ratings:"),
        ({"student": "fresh:ratings:two-tower,width=x"}, "width is x: give a whole number of at least 1"),
        ({"student": "fresh:ratings:two-tower,dropout=x"}, "dropout is x: give a share between 0 and 1"),
        (
            {"method": {"name": "distill", "smoothing": 0.1}, "teacher": STUDENT},
            "method.smoothing is about classes, and the student gives one number: leave it out",
        ),
        (
            {"method": {"name": "fitnet", "answers": {"kl": 1.0, "temperature": 4.0}}, "teacher": STUDENT},
            "method.answers.temperature is about classes, and the student gives one number: leave it out",
        ),
        ({"student": Mean(items=19)}, "fails on users and items, int64 [B, 2] (index out of range in self): give a module"),
        ({"method": {"name": "hard"}, "teacher": STUDENT}, "method hard needs images and ratings:"),
        ({"method": {"name": "contrastive"}, "teacher": STUDENT}, "method contrastive compares classes"),
        ({"method": {"name": "language"}}, "method language does not work on ratings:"),
        ({"method": {"name": "autoencode"}}, "method autoencode does not work on ratings:"),
        ({"view": {"flip": 0.1}}, "key 'view' is of images, and ratings:"),
        ({"sharded": True}, "key 'sharded' is of language models: leave it out"),
        ({"student": f"{STUDENT},with=4"}, "unknown option of 'fresh:ratings:two-tower,width=4,hidden=8,with=4': 'with': did you "
         "mean 'width'?"),
        ({"student": "fresh:ratings:three-tower"}, "unknown architecture of ratings 'three-tower': did you mean 'two-tower'?"),
        ({"method": {"name": "distill", "target": "flip-t"}, "teacher": STUDENT}, "target 'flip-t' compares classes and the"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(settings, message, rate):
    with pytest.raises(UserError) as caught:
        rate(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_of_other_users_are_refused(rate, ratings, tmp_path):
    rate("teacher")
    rows = tmp_path / "other"
    rows.mkdir()
    for file in Path(ratings.removeprefix("ratings:")).iterdir():
        (rows / file.name).write_text(file.read_text().replace("\n30\t", "\n31\t"))
    with pytest.raises(UserError, match="was made for other users, items or parts than those of ratings:"):
        rate("again", data=f"ratings:{rows}", teacher=f"file:{tmp_path / 'teacher'}", method={"name": "distill"})


def test_networks_of_ratings_do_not_take_images(rate, grey, tmp_path):
    rate("teacher")
    with pytest.raises(
        UserError, match="takes no images, of which idx:.* consists: give another network, or data of its kind"
    ):
        osmose.transfer(student=f"file:{tmp_path / 'teacher'}", data=grey, method="supervised", output=tmp_path / "no")


def test_a_study_tells_the_error_of_each_method(rate, ratings, tmp_path):
    pytest.importorskip("pyarrow")
    rate("teacher")
    study = {
        "base": {"data": ratings, "epochs": 1, "batch_size": 32, "student": STUDENT, "method": {"optimiser": ADAM}},
        "methods": {"alone": {"method": "supervised"}, "taught": {"teacher": f"file:{tmp_path / 'teacher'}"}},
        "settings": {"data.genre": ["War", "Drama"]},
        "seeds": [0, 1],
    }
    found = api.study(study, output=tmp_path / "study")
    assert found["finished"] == 8
    test = [row for row in found["summary"] if row["part"] == "test"]
    assert [(row["method"], row["settings"]) for row in test[:2]] == [
        ("alone", "data.genre=War"),
        ("alone", "data.genre=Drama"),
    ]
    runs = [
        json.loads((tmp_path / "study" / "runs" / one / "result.json").read_text())["rmse_after"]
        for one in sorted(path.name for path in (tmp_path / "study" / "runs").iterdir() if path.is_dir())
        if "alone" in one and "War" in one
    ]
    assert test[0]["rmse_mean"] == pytest.approx(sum(runs) / 2)
    assert test[0]["rmse_se"] == pytest.approx(abs(runs[0] - runs[1]) / 2)
    assert "| rmse | s.e. |" in (tmp_path / "study" / "table.md").read_text()
