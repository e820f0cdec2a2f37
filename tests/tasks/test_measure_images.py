"""What a finished run keeps of its answers, against its numbers and the data."""

import pytest
import torch
from safetensors.torch import load_file

from osmose.data import load_data
from osmose.models import load_model


@pytest.fixture(scope="module")
def finished(execute, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return execute(folder, epochs=3), folder


@pytest.mark.parametrize("part", ["test", "heldout"])
def test_the_answers_are_those_that_the_numbers_count(finished, grey, part):
    result, folder = finished
    answers = load_file(folder / "answers.safetensors")
    numbers = result.numbers if part == "test" else result.numbers["heldout"]
    labels = answers[f"{part}/labels"]
    for role, key in (("before", "accuracy_before"), ("after", "accuracy_after"), ("teacher1", "teacher_accuracy")):
        assert 100 * (answers[f"{part}/{role}"] == labels).double().mean().item() == pytest.approx(numbers[key])
    before, after = (answers[f"{part}/{role}"] == labels for role in ("before", "after"))
    assert 100 * (after & ~before).double().mean().item() == pytest.approx(numbers["knowledge_gain"])
    data = load_data(grey)
    split = data.test() if part == "test" else data.heldout
    assert torch.equal(answers[f"{part}/numbers"], split.index)
    logits = load_model(f"file:{folder}").eval()(split.inputs.read(torch.arange(len(split))).float() / 255).logits
    assert torch.equal(answers[f"{part}/after"], logits.argmax(-1).int())


def test_transfer_rates_count_the_teachers_flips_that_arrived(finished):
    result, folder = finished
    answers = load_file(folder / "answers.safetensors")
    labels = answers["test/labels"]
    before, after, teacher = (answers[f"test/{role}"] == labels for role in ("before", "after", "teacher1"))
    flips = teacher & ~before
    assert flips.any()
    rates = result.numbers["transfer_rate"]
    assert rates["100"] == pytest.approx(100 * (flips & after).sum().item() / flips.sum().item())
    counts = [int((flips & (labels == one)).sum()) for one in range(4)]
    first = labels == max(range(4), key=lambda one: counts[one])  # the class with the most holds 2 % by itself
    assert rates["2"] == pytest.approx(100 * (flips & after & first).sum().item() / (flips & first).sum().item())


def test_flipped_images_are_of_samples_that_flipped(finished, grey):
    _, folder = finished
    answers, flipped = load_file(folder / "answers.safetensors"), load_file(folder / "flipped.safetensors")
    before, after = (answers[f"test/{role}"] == answers["test/labels"] for role in ("before", "after"))
    test = load_data(grey).test()
    for name, which in (("gained", after & ~before), ("lost", before & ~after)):
        rows = flipped[f"{name}/rows"]
        assert which[rows].all()
        assert len(rows) == min(12, int(which.sum()))
        assert rows.unique().numel() == len(rows)
        assert torch.equal(flipped[name], test.inputs.read(rows))
    assert len(flipped["gained/rows"]) > 0


def test_numbers_for_labels_leave_no_answers(execute, tmp_path):
    execute(
        tmp_path / "run", student="fresh:toy:mlp", teacher="toy:cosine", data="cosine", epochs=1, batch_size=100,
        method={"target": "teacher"},
    )  # fmt: skip
    assert not (tmp_path / "run" / "answers.safetensors").exists()
