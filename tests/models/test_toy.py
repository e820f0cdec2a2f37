"""The toy teacher and student, and their data."""

import math

import pytest
import torch

from osmose.data import load_data
from osmose.data.views import Views
from osmose.errors import UserError
from osmose.evaluate import predict
from osmose.models import load_model


def test_the_teacher_is_the_cosine():
    data = load_data("cosine")
    outputs = predict(load_model("toy:cosine"), data.test())
    assert len(data.test()) == 100
    numbers = data.test().inputs.read(torch.arange(100)).flatten().tolist()
    assert max(map(abs, numbers)) > 9
    for output, label, number in zip(outputs.flatten().tolist(), data.test().labels.tolist(), numbers, strict=True):
        assert output == pytest.approx(math.cos(number), abs=1e-6)
        assert label == pytest.approx(math.cos(number), abs=1e-6)


def test_training_numbers_do_not_show_the_period():
    data = load_data("cosine", heldout=0)
    numbers = data.train.inputs.read(data.train.index)
    assert numbers.shape == (10_000, 1, 1, 1)
    assert numbers.max() - numbers.min() < 2 * math.pi
    assert (data.task, data.num_classes) == ("regression", None)


def test_numbers_have_no_views():
    numbers = torch.linspace(-3, 3, 7).view(-1, 1, 1, 1)
    views = Views(crop="shift", flip=1.0)
    assert torch.equal(views(numbers, torch.arange(7), 3), numbers)
    assert torch.equal(Views.plain(numbers), numbers)


def test_a_saved_student_comes_back(tmp_path):
    network = load_model("fresh:toy:mlp")
    network.save(tmp_path / "a.safetensors")
    assert load_model(f"file:{tmp_path / 'a.safetensors'}").digest() == network.digest()


@pytest.mark.parametrize(
    ("name", "message"), [("toy:sine", "unknown toy model 'sine'"), ("fresh:toy:mpl", "unknown toy arch")]
)
def test_unknown_names(name, message):
    with pytest.raises(UserError, match=message):
        load_model(name)
