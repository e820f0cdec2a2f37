"""Loading by name: the embedded set, parts and shares, fingerprints, and the test part's laziness."""

import gzip
import hashlib
import importlib.resources

import numpy as np
import pytest
import torch

from osmose.data import load_data, show_data
from osmose.errors import UserError

# sha256 of the published t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte behind their headers
TEST_IMAGES = "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"
TEST_LABELS = "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"


def test_the_embedded_set_is_complete_and_stratified():
    data = load_data("fashion-mnist-mini")
    assert (data.channels, data.image_size, data.num_classes, data.task) == (1, (28, 28), 10, "classification")
    assert len(data.classes) == 10
    assert data.train.labels.bincount().tolist() == [1200] * 10
    assert data.heldout.labels.bincount().tolist() == [600] * 10
    test = data.test()
    assert test.labels.bincount().tolist() == [1000] * 10
    images = [split.inputs.read(torch.arange(len(split))) for split in (data.train, data.heldout, test)]
    assert all(x.dtype == torch.uint8 and x.shape[1:] == (1, 28, 28) for x in images)
    assert len({image.numpy().tobytes() for part in images for image in part}) == 28_000  # no image in two parts
    assert hashlib.sha256(images[2].numpy().tobytes()).hexdigest() == TEST_IMAGES
    assert hashlib.sha256(test.labels.to(torch.uint8).numpy().tobytes()).hexdigest() == TEST_LABELS


def test_sample_numbers_are_unique_over_training_and_heldout_part():
    data = load_data("fashion-mnist-mini", fraction=0.1)
    assert data.train.index.max() < 12_000
    assert data.heldout.index.tolist() == list(range(12_000, 18_000))


def test_no_file_of_the_embedded_set_is_over_10_mb():
    files = list(importlib.resources.files("osmose.data").joinpath("fashion_mnist_mini").iterdir())
    assert {f.name for f in files} == {"train.npz", "heldout.npz", "test.npz", "LICENSE"}
    assert all(f.stat().st_size < 10e6 for f in files)


def test_the_embedded_test_file_is_opened_by_test_alone(monkeypatch):
    opened = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda file, **kw: opened.append(file.name.rsplit("/", 1)[-1]) or load(file, **kw))
    data = load_data("fashion-mnist-mini")
    assert set(opened) == {"train.npz", "heldout.npz"}
    data.test()
    assert opened[-1] == "test.npz"


def test_idx_parts(folder):
    data = load_data(f"idx:{folder}", heldout=0.2)
    assert (data.classes, data.num_classes, data.channels, data.image_size) == (None, 2, 1, (4, 5))
    assert data.train.labels.bincount().tolist() == [56, 24]
    assert data.heldout.labels.bincount().tolist() == [14, 6]
    assert sorted(torch.cat([data.train.index, data.heldout.index]).tolist()) == list(range(100))
    assert data.test().labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_pixels_belong_to_their_numbers(folder):
    raw = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    data = load_data(f"idx:{folder}", fraction=0.5)
    read = data.train.inputs.read(torch.arange(len(data.train)))
    assert np.array_equal(read.numpy()[:, 0], raw.reshape(100, 4, 5)[data.train.index.numpy()])


def test_fraction_keeps_class_shares_and_numbers(folder):
    whole = load_data(f"idx:{folder}", heldout=0)
    assert whole.heldout is None
    assert len(whole.train) == 100
    half = load_data(f"idx:{folder}", heldout=0, fraction=0.5)
    assert half.train.labels.bincount().tolist() == [35, 15]
    assert torch.equal(whole.train.labels[half.train.index], half.train.labels)
    again, other = (load_data(f"idx:{folder}", heldout=0, fraction=0.5, split_seed=s) for s in (0, 1))
    assert torch.equal(again.train.index, half.train.index)
    assert not torch.equal(other.train.index, half.train.index)


def test_fraction_leaves_the_heldout_part_alone(folder):
    assert torch.equal(load_data(f"idx:{folder}", fraction=0.3).heldout.index, load_data(f"idx:{folder}").heldout.index)


def test_unlabelled_drops_the_training_labels_alone(folder):
    data, labelled = load_data(f"idx:{folder}", labelled=False), load_data(f"idx:{folder}")
    assert data.train.labels is None
    assert data.heldout.labels is not None
    assert data.test().labels is not None
    assert torch.equal(data.train.index, labelled.train.index)
    assert data.num_classes == 2


def test_fingerprint_is_of_the_content(folder, write_idx):
    name = f"idx:{folder}"
    fingerprint = load_data(name).fingerprint
    for same in ({"fraction": 0.2}, {"labelled": False}, {"heldout": 0.3}, {"split_seed": 4}):
        assert load_data(name, **same).fingerprint == fingerprint
    write_idx(folder / "t10k-images-idx3-ubyte", np.zeros((6, 4, 5)))
    assert load_data(name).fingerprint == fingerprint  # the test part has no say
    labels = [0] * 70 + [1] * 30
    write_idx(folder / "train-labels-idx1-ubyte", [*labels[:-1], 0])
    assert load_data(name).fingerprint != fingerprint
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    assert load_data(name).fingerprint == fingerprint
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 5))
    images[99, 3, 4] ^= 1
    write_idx(folder / "train-images-idx3-ubyte.gz", images)
    assert load_data(name).fingerprint != fingerprint


def test_nothing_of_the_test_part_is_read_before_it_is_asked_for(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"rubbish")
    data = load_data(f"idx:{folder}")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        data.test()


@pytest.mark.parametrize(
    ("setting", "line"),
    [({"fraction": 0.0}, "data.fraction"), ({"fraction": 1.2}, "data.fraction"), ({"heldout": 1.0}, "data.heldout"),
     ({"crop_ratio": 0.0}, "data.crop_ratio"), ({"image_size": 0}, "data.image_size")],
)  # fmt: skip
def test_settings_out_of_range(setting, line):
    with pytest.raises(UserError, match=line):
        load_data("fashion-mnist-mini", **setting)


def test_show_data_lists_every_source_as_it_is_written():
    rows = {row["name"]: row for row in show_data()}
    assert set(rows) == {
        "fashion-mnist-mini",
        "fashion-mnist[:DIR]",
        "idx:DIR",
        "parquet:DIR",
        "imagefolder:DIR",
        "cosine",
    }
    assert rows["fashion-mnist-mini"]["available"] is True
    assert all(set(row) == {"name", "description", "licence", "available"} for row in rows.values())
