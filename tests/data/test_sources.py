"""Files as sources: what is read, and one line for what cannot be."""

import gzip
import io
import json
import sys

import numpy as np
import pytest
import torch

from osmose.data import load_data
from osmose.data.sources import fashion_mnist
from osmose.errors import UserError

Image = pytest.importorskip("PIL.Image", reason="needs the extra 'vision'")
pa = pytest.importorskip("pyarrow", reason="needs the extra 'vision'")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'vision'")


def fails(name, line, **settings):
    """Loading `name` raises one line that matches."""
    with pytest.raises(UserError, match=line) as caught:
        load_data(name, **settings)
    assert "\n" not in str(caught.value)


# names


def test_unknown_names(tmp_path):
    fails("fashion-mnist-mni", "unknown data set 'fashion-mnist-mni': did you mean 'fashion-mnist-mini'")
    fails("parqet:x", "did you mean 'parquet'")
    fails("parquet", "lacks its folder: write parquet:DIR")
    fails("fashion-mnist-mini:x", "takes no folder")
    fails(f"parquet:{tmp_path}/nowhere", "nowhere is not a folder")
    fails(str(tmp_path), "is a path: say what it holds")


# idx


def test_fashion_mnist_has_its_classes_and_says_how_to_get_it(folder, monkeypatch, tmp_path):
    assert load_data(f"fashion-mnist:{folder}").classes[9] == "Ankle boot"
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    fails("fashion-mnist", "apt install dataset-fashion-mnist, or .* fashion-mnist:DIR, or use fashion-mnist-mini")
    monkeypatch.setattr(fashion_mnist, "DEBIAN", folder)
    assert len(load_data("fashion-mnist", heldout=0).train) == 100


def test_what_mini_holds_out_is_held_out_of_the_whole_set(tmp_path, write_idx):
    """Wherever these images stand among the others."""
    mini = load_data("fashion-mnist-mini")
    held, train = (split.inputs.read(torch.arange(30)) for split in (mini.heldout, mini.train))
    images = torch.cat([train[:20], held, train[20:]])[:, 0].numpy()
    labels = torch.cat([mini.train.labels[:20], mini.heldout.labels[:30], mini.train.labels[20:30]]).numpy()
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    data = load_data(f"fashion-mnist:{tmp_path}")
    assert data.heldout.index.tolist() == list(range(20, 50))
    assert data.train.index.tolist() == [*range(20), *range(50, 60)]
    assert data.heldout.labels.tolist() == mini.heldout.labels[:30].tolist()


@pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_all_of_fashion_mnist():
    data = load_data("fashion-mnist")
    assert (len(data.train), len(data.heldout)) == (54_000, 6_000)
    assert data.heldout.labels.bincount().tolist() == [600] * 10


def test_bad_idx_files_are_named(folder, write_idx):
    name, images = f"idx:{folder}", folder / "train-images-idx3-ubyte.gz"
    good = images.read_bytes()
    images.write_bytes(good[: len(good) // 2])
    fails(name, "train-images-idx3-ubyte.gz cannot be read")
    images.write_bytes(gzip.compress(gzip.decompress(good)[:-1]))
    fails(name, r"train-images-idx3-ubyte.gz holds 1999 bytes where its header promises \[100, 4, 5\]")
    images.write_bytes(gzip.compress(b"PK\3\4 something else"))
    fails(name, "train-images-idx3-ubyte.gz is not an idx file")
    images.write_bytes(b"not gzip")
    fails(name, "train-images-idx3-ubyte.gz cannot be read")
    write_idx(images, np.zeros((99, 4, 5)))
    fails(name, "has 99 images and train-labels-idx1-ubyte 100 labels")
    images.unlink()
    fails(name, "has no file train-images-idx3-ubyte")
    images.write_bytes(good)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    fails(name, "has no file t10k-labels-idx1-ubyte")


def test_labels_beyond_the_classes_are_named(folder, write_idx):
    write_idx(folder / "train-labels-idx1-ubyte", [0] * 99 + [10])
    fails(f"fashion-mnist:{folder}", "train-labels-idx1-ubyte has the label 10, outside 0 to 9")


# parquet


def png(array):
    file = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(file, "png")
    return file.getvalue()


def write_parquet(path, images, labels, names=None, raw=False):
    encoded = [image if isinstance(image, bytes) else png(image) for image in images]
    table = pa.table({"image": encoded if raw else [{"bytes": e, "path": None} for e in encoded], "label": labels})
    if names:
        feature = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    pq.write_table(table, path)


@pytest.fixture
def colour():
    return np.random.default_rng(0).integers(0, 256, (20, 6, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize("raw", [False, True])
def test_parquet_shards_in_order(tmp_path, colour, raw):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", colour[:12], [0, 1] * 6, ["cat", "dog"], raw)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", colour[12:], [1, 0] * 4, ["cat", "dog"], raw)
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", colour[:3], [1, 1, 0], raw=raw)
    data = load_data(f"parquet:{tmp_path}", heldout=0)
    assert (data.classes, data.num_classes, data.channels, data.image_size) == (("cat", "dog"), 2, 3, (6, 8))
    assert np.array_equal(data.train.inputs.read(torch.arange(20)).numpy(), colour.transpose(0, 3, 1, 2))
    assert data.train.labels.tolist() == [0, 1] * 6 + [1, 0] * 4
    test = data.test()
    assert np.array_equal(test.inputs.read(torch.arange(3)).numpy(), colour[:3].transpose(0, 3, 1, 2))
    assert test.labels.tolist() == [1, 1, 0]


def test_large_sets_are_decoded_on_read(tmp_path, colour, monkeypatch):
    write_parquet(tmp_path / "train-0.parquet", colour, [0, 1] * 10)
    write_parquet(tmp_path / "test-0.parquet", colour[:4], [0, 1] * 2)
    small = load_data(f"parquet:{tmp_path}")
    monkeypatch.setattr("osmose.data.images.IN_MEMORY", 1)
    large = load_data(f"parquet:{tmp_path}")
    rows = torch.tensor([5, 0, 11])
    assert torch.equal(large.train.inputs.read(rows), small.train.inputs.read(rows))
    assert torch.equal(large.test().inputs.read(rows[1:2]), small.test().inputs.read(rows[1:2]))
    changed = colour.copy()
    changed[19, 0, 0, 0] ^= 1
    write_parquet(tmp_path / "train-0.parquet", changed, [0, 1] * 10)
    assert load_data(f"parquet:{tmp_path}").fingerprint != large.fingerprint


def test_parquet_float_labels_are_regression(tmp_path, colour):
    write_parquet(tmp_path / "train-0.parquet", colour[..., 0], [i / 4 for i in range(20)])
    data = load_data(f"parquet:{tmp_path}", fraction=0.5)
    assert (data.task, data.num_classes, data.channels) == ("regression", None, 1)
    assert data.train.labels.dtype == torch.float32
    assert torch.equal(data.train.labels, data.train.index / 4)
    assert len(data.test()) == 4  # no test file: a fifth is held out


def test_bad_parquet_files_are_named(tmp_path, colour):
    name, train = f"parquet:{tmp_path}", tmp_path / "train-0.parquet"
    fails(name, "has no file train-")
    write_parquet(tmp_path / "test-0.parquet", colour, [0] * 20)
    train.write_bytes(b"rubbish")
    fails(name, "train-0.parquet is not a readable parquet file")
    write_parquet(train, colour, [0] * 20)
    whole = train.read_bytes()
    train.write_bytes(whole[:-30])
    fails(name, "train-0.parquet is not a readable parquet file")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), train)
    fails(name, "train-0.parquet lacks the column image")
    pq.write_table(pa.table({"image": [1, 2], "label": [1, 0]}), train)
    fails(name, "give image bytes and a number in every row")
    write_parquet(train, colour[:2], ["cat", "dog"])
    fails(name, "give image bytes and a number in every row")
    write_parquet(train, colour[:2], [1, None])
    fails(name, "the label of row 1 is empty: fill or remove that row")
    write_parquet(train, [], pa.array([], pa.int64()))
    fails(name, "train-0.parquet")
    write_parquet(train, colour[:2], [0, -1])
    fails(name, "has the label -1, outside 0 to 0")
    write_parquet(train, colour[:2], [0.5, float("nan")])
    fails(name, "the label of image 1 is nan: give a finite number in every row")
    write_parquet(train, [colour[0], colour[1], png(colour[2])[:60]], [0, 1, 0])
    fails(name, "image 2 is not a readable image: replace or remove it")
    write_parquet(train, [colour[0], colour[1], colour[2][:3]], [0, 1, 0])
    fails(name, "image 2 is 8x3 pixels, others are 8x6: set data.image_size")
    write_parquet(train, colour, [0] * 20)
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "test-0.parquet")
    fails(name, "test-0.parquet lacks the column image")


def test_test_labels_are_checked_when_read(tmp_path, colour):
    write_parquet(tmp_path / "train-0.parquet", colour, [0, 1] * 10)
    write_parquet(tmp_path / "test-0.parquet", colour[:2], [0, -1])
    data = load_data(f"parquet:{tmp_path}")
    with pytest.raises(UserError, match=r"test-0\.parquet has the label -1"):
        data.test()


# image folders


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path, colour):
    """Ten images of each of two classes, in train/; two in val/."""
    for i in range(20):
        save(tmp_path / "train" / ("dog" if i % 2 else "cat") / f"{i:02}.png", colour[i])
    save(tmp_path / "val/cat/a.png", colour[0])
    save(tmp_path / "val/dog/b.png", colour[1])
    return tmp_path


def test_imagefolder_classes_are_the_sorted_folders(tree, colour):
    (tree / "train/cat/.DS_Store").write_bytes(b"hidden")
    data = load_data(f"imagefolder:{tree}", heldout=0)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0] * 10 + [1] * 10
    in_order = np.concatenate([colour[::2], colour[1::2]]).transpose(0, 3, 1, 2)
    assert np.array_equal(data.train.inputs.read(torch.arange(20)).numpy(), in_order)
    assert data.test().labels.tolist() == [0, 1]


def test_imagefolder_without_a_test_part_holds_out_a_fifth(tree):
    data = load_data(f"imagefolder:{tree}/train", heldout=0.25)
    test = data.test()
    assert test.labels.bincount().tolist() == [2, 2]
    assert data.heldout.labels.bincount().tolist() == [2, 2]
    assert data.train.labels.bincount().tolist() == [6, 6]
    numbers = torch.cat([data.train.index, data.heldout.index, test.index])
    assert sorted(numbers.tolist()) == list(range(20))
    other = load_data(f"imagefolder:{tree}/train", split_seed=1).test()
    assert not torch.equal(other.index, test.index)


def test_the_held_out_test_images_are_decoded_when_asked_for(tmp_path, colour):
    for i in range(200):
        save(tmp_path / f"{i % 2}/{i:03}.png", colour[i % 20])
    number = int(load_data(f"imagefolder:{tmp_path}").test().index[1])
    file = sorted(tmp_path.glob("*/*"))[number]
    file.write_bytes(file.read_bytes()[:80])  # the header is whole
    data = load_data(f"imagefolder:{tmp_path}")
    with pytest.raises(UserError, match=f"{file.name} is not a readable image"):
        data.test()


def test_resize_and_centre_crop(tmp_path):
    # a horizontal and a vertical ramp: bicubic keeps ramps, so the crop's values follow from its place
    ramp = np.zeros((40, 80, 3))
    ramp[..., 0], ramp[..., 1] = 3 * np.arange(80), 6 * np.arange(40)[:, None]
    for i in range(2):
        save(tmp_path / f"train/{i}/a.png", ramp)
        save(tmp_path / f"test/{i}/a.png", ramp)
    data = load_data(f"imagefolder:{tmp_path}", image_size=16, crop_ratio=0.8, heldout=0)
    assert data.image_size == (16, 16)
    image = data.train.inputs.read(torch.tensor([0]))[0].double()
    columns, rows = (torch.arange(16) + 12 + 0.5) * 2 - 0.5, (torch.arange(16) + 2 + 0.5) * 2 - 0.5  # 40x80 -> 20x40
    assert (image[0] - 3 * columns).abs().max() <= 1.01
    assert (image[1] - 6 * rows[:, None]).abs().max() <= 1.01
    whole = load_data(f"imagefolder:{tmp_path}", image_size=40, heldout=0).train.inputs.read(torch.tensor([0]))[0]
    assert torch.equal(whole[0], torch.tensor(3 * np.arange(20, 60), dtype=torch.uint8).expand(40, 40))


def test_size_is_part_of_the_fingerprint(tree):
    sizes = [load_data(f"imagefolder:{tree}", image_size=size).fingerprint for size in (None, 4, 6)]
    assert len(set(sizes)) == 3


def test_palette_and_grey_images_join_colour_ones(tree, colour):
    Image.fromarray(colour[0]).convert("P").save(tree / "train/cat/00.png")
    save(tree / "train/cat/02.png", colour[2, ..., 0])
    data = load_data(f"imagefolder:{tree}", heldout=0)
    assert data.channels == 3
    grey = data.train.inputs.read(torch.tensor([1]))[0]
    assert torch.equal(grey, torch.from_numpy(colour[2, ..., 0]).expand(3, 6, 8))


def test_bad_image_folders_are_named(tree, colour):
    name = f"imagefolder:{tree}"
    (tree / "train/cat/08.txt").write_text("a note")
    fails(name, "08.txt is not a readable image: replace or remove it")
    (tree / "train/cat/08.txt").unlink()
    Image.fromarray((np.arange(48).reshape(6, 8) * 999).astype(np.uint16)).save(tree / "train/cat/08.png")
    fails(name, "08.png has mode I;16, the others are 8-bit colour")
    save(tree / "train/cat/08.png", colour[8])
    (tree / "train/mouse").mkdir()
    fails(name, "class 'mouse' is not in both")
    (tree / "val/mouse").mkdir()
    fails(name, "train/mouse holds no images")
    save(tree / "train/mouse/a.png", colour[0])
    fails(name, "val/mouse holds no images")
    (tree / "empty").mkdir()
    fails(f"imagefolder:{tree}/empty", "empty has no class folders")


def test_a_missing_extra_is_one_line(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    fails(f"imagefolder:{tree}", r"need the extra 'vision': pip install 'osmose\[vision\]'")
