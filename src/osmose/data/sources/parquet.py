"""Images in parquet files, as the Hugging Face hub keeps them."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from osmose.data.images import DecodedImages, Decoding, settle, vision_extra
from osmose.data.sources.source import Parts, Source, check_labels, installed
from osmose.data.split import Split
from osmose.errors import UserError


class ParquetImages:
    """The encoded images of a pyarrow column of bytes; the compressed bytes stay in memory."""

    def __init__(self, column: Any, folder: Path) -> None:
        self.column, self.folder = column, folder

    def __len__(self) -> int:
        return len(self.column)

    def open(self, row: int) -> BinaryIO:
        """The image at `row`."""
        return io.BytesIO(self.column[row].as_py() or b"")

    def name(self, row: int) -> str:
        """Folder and row."""
        return f"{self.folder}: image {row}"

    def digest(self) -> bytes:
        """Of every image's bytes."""
        content = hashlib.sha256()
        for image in self.column:
            content.update(hashlib.sha256(image.as_py() or b"").digest())
        return content.digest()


def open_parquet(folder: Path | None, decoding: Decoding) -> Parts:
    """Parts train-*.parquet and test-*.parquet (or validation-*.parquet) of a folder, columns `image` and `label`.

    `image` holds PNG or JPEG bytes, or a struct with the field `bytes`; `label` is an integer class, or a float for
    regression. Class names come from the hub's metadata where the files have them.
    """
    assert folder is not None
    train_files = sorted(folder.glob("train-*.parquet"))
    test_files = sorted(folder.glob("test-*.parquet")) or sorted(folder.glob("validation-*.parquet"))
    if not train_files:
        raise UserError(f"{folder} has no file train-*.parquet: give a folder that has")
    column, labels, classes = _read(train_files)
    images = DecodedImages(ParquetImages(column, folder), decoding)
    train = Split(images, labels, torch.arange(len(labels)))
    num_classes = 0 if labels.is_floating_point() else len(classes or ()) or int(labels.max()) + 1
    if num_classes:
        check_labels(labels, num_classes, train_files[0])
    for path in test_files:
        with _opened(path):
            pass
    return Parts(train, classes, test=partial(_test, test_files, images, num_classes) if test_files else None)


def _test(test_files: list[Path], train: DecodedImages, num_classes: int) -> Split:
    column, labels, _ = _read(test_files)
    if num_classes:
        check_labels(labels, num_classes, test_files[0])
    images = DecodedImages(ParquetImages(column, test_files[0].parent), train.decoding, train.shape)
    return Split(settle(images), labels, torch.arange(len(labels)))


def _read(paths: list[Path]) -> tuple[Any, torch.Tensor, tuple[str, ...] | None]:
    """The column of image bytes, the labels and the class names of some files that follow one another."""
    with vision_extra():
        import pyarrow as pa
        import pyarrow.compute as pc
    tables = []
    for path in paths:
        with _opened(path) as file:
            tables.append(file.read(columns=["image", "label"]))
    schema, label_type = tables[0].schema, tables[0].schema.field("label").type
    try:
        table = pa.concat_tables(tables)
        column, label = table["image"], table["label"]
        for name in ("image", "label"):
            if table[name].null_count:
                row = table[name].is_null().index(True).as_py()
                raise UserError(f"{paths[0].parent}: the {name} of row {row} is empty: fill or remove that row")
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        column = column.cast(pa.large_binary())
        number = torch.float32 if pa.types.is_floating(label_type) else torch.int64
        labels = torch.tensor(label.to_pylist(), dtype=number)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(f"{paths[0]}: the columns are image ({schema.field('image').type}) and label ({label_type}): "
                        "give image bytes and a number in every row, alike in all files") from error  # fmt: skip
    if labels.is_floating_point() and not labels.isfinite().all():
        row = int((~labels.isfinite()).nonzero()[0])
        raise UserError(
            f"{paths[0].parent}: the label of image {row} is {labels[row]}: give a finite number in every row"
        )
    if not len(labels):
        raise UserError(f"{paths[0]} has no rows: give a file that has")
    return column, labels, _class_names(schema.metadata or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A parquet file that has the columns image and label."""
    with vision_extra():
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(path) as file:
            missing = {"image", "label"} - set(file.schema_arrow.names)
            if missing:
                raise UserError(f"{path} lacks the column {min(missing)}: give a file with columns image and label")
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable parquet file: give one with columns image and label") from error


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...] | None:
    """The label's ClassLabel names in the hub's metadata; None where there are none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names))


SOURCE = Source(
    name="parquet",
    folder="needed",
    description="train-*.parquet and test-*.parquet with columns image (PNG or JPEG bytes) and label",
    licence="that of the files",
    available=lambda: installed("pyarrow", "PIL"),
    open=open_parquet,
)
