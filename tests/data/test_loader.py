"""Order, shards, workers and restarts of the loader."""

from itertools import chain

import pytest
import torch

from osmose.data.inputs import Inputs, MemoryInputs
from osmose.data.loader import Loader
from osmose.data.split import Split
from osmose.errors import UserError


def a_split(size=50, labelled=True):
    pixels = torch.arange(size, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 2, 2)
    return Split(MemoryInputs(pixels), torch.arange(size) * 2 if labelled else None, torch.arange(size) + 1000)


def numbers(batches):
    return [index.tolist() for index, *_ in batches]


def test_an_epoch_is_a_permutation_without_the_remainder():
    loader = Loader(a_split(), batch_size=8, seed=0)
    seen = list(chain(*numbers(loader.epoch(0))))
    assert len(loader) == 6
    assert len(seen) == len(set(seen)) == 48
    assert set(seen) <= set(range(1000, 1050))


def test_images_and_labels_belong_to_their_numbers():
    for index, images, labels, _ in Loader(a_split(), batch_size=8, seed=0).epoch(0):
        assert images.dtype == torch.uint8
        assert images.shape == (8, 1, 2, 2)
        assert (images[:, 0, 0, 0].long() + 1000).tolist() == index.tolist()
        assert (labels // 2 + 1000).tolist() == index.tolist()
    assert all(labels is None for _, _, labels, _ in Loader(a_split(labelled=False), batch_size=8, seed=0).epoch(0))


def test_order_depends_on_seed_and_epoch_alone():
    order = lambda seed, epoch: numbers(Loader(a_split(), batch_size=8, seed=seed).epoch(epoch))  # noqa: E731
    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)
    assert order(0, 0) == first
    assert order(1, 0) != first
    assert order(0, 1) != first


def test_shards_cut_the_global_batch_into_consecutive_parts():
    whole = numbers(Loader(a_split(), batch_size=12, seed=0).epoch(3))
    for shards in (2, 3, 4):
        loader = Loader(a_split(), batch_size=12, seed=0, shards=shards)
        parts = numbers(loader.epoch(3, mine=range(shards)))
        assert [list(chain(*parts[i : i + shards])) for i in range(0, len(parts), shards)] == whole


def test_ranks_with_accumulation_share_the_batch_of_one_process():
    world, accumulation = 2, 3
    loader = Loader(a_split(), batch_size=12, seed=0, shards=world * accumulation)
    everything = numbers(loader.epoch(0, mine=range(6)))
    for rank in range(world):
        own = numbers(loader.epoch(0, mine=[m * world + rank for m in range(accumulation)]))
        assert own == everything[rank::world]


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_later_gives_the_tail(workers):
    loader = Loader(a_split(), batch_size=8, seed=0, shards=2, workers=workers)
    full = numbers(loader.epoch(1, mine=(1, 0)))
    assert numbers(loader.epoch(1, first_step=4, mine=(1, 0))) == full[8:]
    assert numbers(loader.epoch(1, first_step=6, mine=(1, 0))) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    state = torch.get_rng_state()
    alone = list(Loader(a_split(), batch_size=8, seed=0).epoch(2))
    helped = list(Loader(a_split(), batch_size=8, seed=0, workers=workers).epoch(2))
    assert len(alone) == len(helped) == 6
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    unlabelled = Loader(a_split(labelled=False), batch_size=8, seed=0, workers=workers)
    assert next(iter(unlabelled.epoch(0)))[2] is None


def test_a_small_split_is_one_batch():
    loader = Loader(a_split(7), batch_size=16, seed=0)
    assert len(loader) == 1
    assert sorted(numbers(loader.epoch(0))[0]) == list(range(1000, 1007))
    halves = numbers(Loader(a_split(7), batch_size=16, seed=0, shards=2).epoch(0, mine=(0, 1)))
    assert [len(half) for half in halves] == [3, 3]


def test_shards_that_cannot_be_equal_are_refused():
    with pytest.raises(UserError, match=r"batch size 10 does not divide into 4 equal shards.*multiple of 4"):
        Loader(a_split(), batch_size=10, seed=0, shards=4)
    with pytest.raises(UserError, match="3 training samples are too few for 4 shards"):
        Loader(a_split(3), batch_size=8, seed=0, shards=4)


class BadImages(Inputs):
    shape = (1, 2, 2)

    def __len__(self):
        return 8

    def read(self, rows):
        raise UserError("photo.png is not a readable image: replace or remove it")

    def digest(self):
        return b""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_stays_one_line(workers):
    split = Split(BadImages(), None, torch.arange(8))
    with pytest.raises(UserError) as caught:
        next(iter(Loader(split, batch_size=4, seed=0, workers=workers).epoch(0)))
    assert str(caught.value) == "photo.png is not a readable image: replace or remove it"
