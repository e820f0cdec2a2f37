"""An engine around a method and given batches."""

from contextlib import ExitStack

import pytest
import torch

from osmose.data.batch import Batch
from osmose.engine.fabric import make_fabric
from osmose.engine.folder import RunFolder
from osmose.engine.loop import Engine
from osmose.engine.progress import Progress
from osmose.engine.settings import Training


class GivenBatches:
    """A feed of `steps` global batches an epoch, the same every epoch, cut into `shards`."""

    def __init__(self, x, y, shards=1):
        self.x, self.y, self.shards = x, y, shards

    def __len__(self):
        return len(self.x)

    def epoch(self, epoch, first_step, mine):
        for step in range(first_step, len(self)):
            x, y = self.x[step].chunk(self.shards), self.y[step].chunk(self.shards)
            for shard in mine:
                yield Batch(torch.arange(len(x[shard])), epoch, x[shard], y[shard])


@pytest.fixture
def given_batches():
    return GivenBatches


@pytest.fixture
def engine(tmp_path):
    """Builds an engine; its run folder is the test's, and locked until the test ends."""
    with ExitStack() as stack:

        def build(method, feed, *, folder="run", evaluate=None, frozen=None, recipe=None, **settings):
            settings = Training(**{"epochs": 1, "threads": 1, "accelerator": "cpu", **settings})
            run = stack.enter_context(RunFolder(tmp_path / folder, recipe or {"a": 1}))
            run.begin()
            return Engine(
                make_fabric(settings), method, feed, settings, run,
                evaluate=evaluate, frozen=frozen, progress=Progress(quiet=True),
            )  # fmt: skip

        yield build
