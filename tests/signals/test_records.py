"""Records on disk: what is whole is read, and nothing else."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from osmose.signals.encoding import Dense
from osmose.signals.records import Records, health

VALUES = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.tensor([7, 3, 11, 4, 5])


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "logits", Dense((6,), "float32"), 20)


def encoded(values):
    """As the records' encoding gives them."""
    return Dense((6,), "float32").encode(values, None)


def again(records):
    """The same records as another process sees them."""
    return Records(records.folder, records.encoding, records.samples)


def test_what_was_written_is_read_in_any_order(records):
    records.write(2, NUMBERS, encoded(VALUES[NUMBERS]))
    asked = torch.tensor([4, 11, 7])
    assert torch.equal(again(records).read(2, asked), VALUES[asked])


def test_what_was_not_written_is_not_there(records):
    assert records.read(0, NUMBERS) is None
    records.write(0, NUMBERS, encoded(VALUES[NUMBERS]))
    assert records.read(0, torch.tensor([7, 8])) is None  # a hole in the file
    assert records.read(1, NUMBERS) is None
    assert records.read(0, torch.tensor([7, 25])) is None  # beyond its end
    assert health(records.path(0), 24) == (5, 0)


def test_a_smaller_part_of_the_data_writes_a_shorter_file_that_grows(records):
    few = Records(records.folder, records.encoding, 8)
    few.write(0, torch.tensor([7]), encoded(VALUES[[7]]))
    assert records.read(0, NUMBERS) is None
    records.write(0, NUMBERS, encoded(VALUES[NUMBERS]))
    assert torch.equal(again(records).read(0, NUMBERS), VALUES[NUMBERS])


@pytest.mark.parametrize("place", range(0, 32, 3))
def test_a_flipped_byte_anywhere_in_a_record_hides_it_until_it_is_written_again(records, place):
    records.write(0, NUMBERS, encoded(VALUES[NUMBERS]))
    with records.path(0).open("r+b") as file:
        file.seek(4 * records.record + place)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 64]))
    fresh = again(records)
    assert fresh.read(0, torch.tensor([3, 4])) is None
    assert torch.equal(fresh.read(0, torch.tensor([3, 5])), VALUES[[3, 5]])
    assert health(fresh.path(0), 24) == (4, 1)
    fresh.write(0, torch.tensor([4]), encoded(VALUES[[4]]))
    assert torch.equal(fresh.read(0, torch.tensor([3, 4])), VALUES[[3, 4]])
    assert health(fresh.path(0), 24) == (5, 0)


@pytest.mark.parametrize("length", [0, 1, 100, 150])
def test_a_truncated_file_loses_what_was_cut_off(records, length):
    records.write(0, NUMBERS, encoded(VALUES[NUMBERS]))
    os.truncate(records.path(0), length)
    fresh = again(records)
    assert fresh.read(0, NUMBERS) is None
    if length == 150:
        assert torch.equal(fresh.read(0, torch.tensor([3])), VALUES[[3]])
    fresh.write(0, NUMBERS, encoded(VALUES[NUMBERS]))
    assert torch.equal(again(records).read(0, NUMBERS), VALUES[NUMBERS])


def test_a_record_in_a_wrong_place_is_none(records):
    """A copy of another sample's record, and another view's file under this view's name."""
    records.write(0, NUMBERS, encoded(VALUES[NUMBERS]))
    whole = records.path(0).read_bytes()
    size = records.record
    moved = whole[: 4 * size] + whole[3 * size : 4 * size] + whole[5 * size :]
    records.path(0).write_bytes(moved)
    assert again(records).read(0, torch.tensor([4])) is None
    records.path(1).write_bytes(whole)
    assert again(records).read(1, torch.tensor([3])) is None


def write_for_ever(records, values):
    while True:
        for start in range(0, 20, 4):
            numbers = torch.arange(start, start + 4)
            records.write(0, numbers, encoded(values[numbers]))


def test_two_writers_of_the_same_and_a_kill_leave_whole_records_or_none(records):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_for_ever, args=(again(records), VALUES)) for _ in range(2)]
    for writer in writers:
        writer.start()
    deadline, found = time.monotonic() + 20, 0
    while found < 200 and time.monotonic() < deadline:
        said = again(records).read(0, NUMBERS)
        if said is not None:
            assert torch.equal(said, VALUES[NUMBERS])
            found += 1
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert found == 200
    for number in range(20):
        said = again(records).read(0, torch.tensor([number]))
        assert said is None or torch.equal(said, VALUES[[number]])
