"""Domains: the layouts of ImageNet's variants on small files, which classes compete, and corrupted samples."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from osmose.data.corruptions import Corruption
from osmose.data.domains import corrupted, open_domains
from osmose.data.images import Decoding
from osmose.data.inputs import MemoryInputs
from osmose.data.split import Split
from osmose.errors import UserError

CLASSES = ("n01", "n02", "n03", "n04")
SHAPE = (3, 6, 6)


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), value, np.uint8)).save(path)


def opened(folder, image_size=None):
    return open_domains(folder, CLASSES, Decoding(image_size, 1.0), SHAPE)


def test_a_folder_of_some_classes(tmp_path):
    for number, name in ((3, "n04"), (1, "n02")):
        picture(tmp_path / "a" / name / "1.png", number)
    (domain,) = opened(tmp_path / "a")
    assert (domain.group, domain.part) == ("a", "")
    assert domain.columns.tolist() == [1, 3]
    assert domain.split.labels.tolist() == [0, 1]
    assert [int(domain[row][0, 0, 0]) for row in range(2)] == [1, 3]


@pytest.mark.parametrize("names", [CLASSES, ("0", "1", "2", "3")])
def test_all_classes_by_name_or_number(tmp_path, names):
    for number, name in enumerate(names):
        picture(tmp_path / "v2" / "val" / name / "1.png", number)
    (domain,) = opened(tmp_path / "v2")
    assert domain.columns is None
    assert domain.split.labels.tolist() == [0, 1, 2, 3]


def test_numbers_are_not_in_the_order_of_their_text(tmp_path):
    classes = tuple(f"n{number:02}" for number in range(12))
    for number in range(12):
        picture(tmp_path / str(number) / "1.png", number)
    (domain,) = open_domains(tmp_path, classes, Decoding(None, 1.0), SHAPE)
    assert domain.columns is None
    assert [int(domain[row][0, 0, 0]) for row in range(12)] == domain.split.labels.tolist()
    (tmp_path / "1" / "1.png").unlink()
    (tmp_path / "1").rmdir()
    (domain,) = open_domains(tmp_path, classes, Decoding(None, 1.0), SHAPE)
    assert [int(domain[row][0, 0, 0]) for row in range(11)] == domain.columns[domain.split.labels].tolist()


def test_corruptions_by_severity(tmp_path):
    for corruption in ("fog", "snow"):
        for severity in "12345":
            picture(tmp_path / "c" / corruption / severity / "n01" / "1.png", int(severity))
    domains = opened(tmp_path / "c")
    assert {domain.group for domain in domains} == {"c"}
    assert [domain.part for domain in domains] == [
        f"{name} {severity}" for name in ("fog", "snow") for severity in "12345"
    ]


def test_real_labels_are_several_and_images_of_none_are_left_out(tmp_path):
    labels = [[0, 2], [], [3]]
    for number, name in enumerate(("n03", "n01", "n04"), start=1):
        picture(tmp_path / "real" / name / f"ILSVRC2012_val_{number:08}.png", number)
    (tmp_path / "real" / "real.json").write_text(json.dumps(labels))
    (domain,) = opened(tmp_path / "real")
    assert domain.split.labels.tolist() == [[True, False, True, False], [False, False, False, True]]
    assert [int(domain[row][0, 0, 0]) for row in range(2)] == [1, 3]


def test_images_are_brought_to_the_size_of_the_data(tmp_path):
    path = tmp_path / "a" / "n01" / "1.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((9, 13, 3), np.uint8)).save(path)
    (domain,) = opened(tmp_path / "a", image_size=6)
    assert domain[0].shape == SHAPE


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"^there is no folder .*/missing: "):
        opened(tmp_path / "missing")
    with pytest.raises(UserError, match="has no class folders"):
        opened(tmp_path)
    picture(tmp_path / "a" / "cats" / "1.png", 0)
    with pytest.raises(UserError, match=r"has the class 'cats', which the networks do not know: name its folders"):
        opened(tmp_path / "a")
    for text in ("nothing", "[[9]]", "{}", '[["a"]]'):
        (tmp_path / "a" / "real.json").write_text(text)
        with pytest.raises(UserError, match=r"real\.json"):
            opened(tmp_path / "a")
    (tmp_path / "a" / "real.json").write_text("[[0], [1]]")
    with pytest.raises(UserError, match=r"has 0 images called \*_val_NUMBER and real\.json labels for 2"):
        opened(tmp_path / "a")


def test_a_corrupted_sample_depends_on_its_number_alone():
    images = torch.zeros(6, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 255
    split = Split(MemoryInputs(images), torch.zeros(6, dtype=torch.int64), torch.arange(100, 106))
    whole = torch.stack([corrupted(split, Corruption("translate", 2))[row] for row in range(6)])
    part = corrupted(split.subset(torch.tensor([4, 1])), Corruption("translate", 2))
    assert torch.equal(torch.stack([part[0], part[1]]), whole[[4, 1]])
    assert len({tuple(image.nonzero()[0].tolist()) for image in whole}) > 1
