"""A step of distillation here, with stored signals and live, over the same step in torchdistill (KL, live teacher).

    pip install --no-deps torchdistill==1.1.5
    python benchmarks/against_torchdistill.py [--pairs 100]

The same networks, samples, batch size, optimiser and views (centre and flip), step by step in turn, in one process; CPU time, one
thread. Ours have the metrics of a run; torchdistill's box has what its own examples do in a step.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, RandomSampler

from osmose import recipe, stores, torchvision_ops
from osmose.data import load_data
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.measure import environment
from osmose.models import load_model
from paired import engine_step, in_turn, ratio

CASES = (("zoo:resnet-s", "zoo:cnn-s", 128), ("zoo:vit-m", "zoo:resnet-s", 128), ("zoo:cnn-s", "zoo:mixer-s", 128))
LR = 0.001


class Logits(nn.Module):
    """A network that returns its logits alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = load_model(name)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        logits: Tensor = self.network(x).logits
        return logits


class Images(Dataset[tuple[Tensor, Tensor]]):
    """The training part with a random flip."""

    def __init__(self) -> None:
        self.split = load_data("fashion-mnist-mini").train
        self.inputs = self.split.inputs.read(torch.arange(len(self.split)))

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = self.inputs[row].float() / 255
        assert self.split.labels is not None
        return (image.flip(-1) if torch.rand(()) < 0.5 else image), self.split.labels[row]


def theirs(student: str, teacher: str, batch_size: int) -> Callable[[], None]:
    """A step of torchdistill, as in the loop of its examples."""
    torchvision_ops.install()
    from torchdistill.core.distillation import get_distillation_box  # type: ignore[import-not-found]

    criterion = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".",
            "teacher_module_io": "output", "temperature": 1.0, "alpha": 0.0, "reduction": "batchmean",
        },
    }  # fmt: skip
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train", "sampler": {"class_or_func": RandomSampler}, "kwargs": {"batch_size": batch_size},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": {"lr": LR, "momentum": 0.9, "weight_decay": 1e-3}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"model_term": {"weight": 0}, "sub_terms": {"kd": {"criterion": criterion, "weight": 1.0}}},
        },
    }  # fmt: skip
    box = get_distillation_box(
        Logits(teacher), Logits(student), {"train": Images()}, config, torch.device("cpu"), None, False, 1
    )
    box.pre_epoch_process(epoch=0)
    batches = iter(box.train_data_loader)

    def step() -> None:
        nonlocal batches
        try:
            batch = next(batches)
        except StopIteration:
            batches = iter(box.train_data_loader)
            batch = next(batches)
        images, targets, extra = batch
        box.pre_forward_process()
        loss = box.forward_process(images, targets, extra)
        box.post_forward_process(loss)

    return step


def ours(student: str, teacher: str, batch_size: int, *, stored: bool) -> Callable[[], None]:
    """A step of Osmose."""
    values: dict[str, Any] = {
        "student": student, "teacher": teacher, "batch_size": batch_size, "epochs": 1000, "threads": 1,
        "view": {"colour": 0.0, "grayscale": 0.0, "count": 2},
        "method": {"name": "distill", "target": "teacher", "optimiser": {"name": "sgd", "lr": LR}},
    }  # fmt: skip
    if stored:
        values["signals"] = {"store": tempfile.mkdtemp(prefix="osmose-signals-")}
        stores.build(recipe.resolve(values), quiet=True)
    return engine_step(values, Path(tempfile.mkdtemp(prefix="osmose-run-")))


def main() -> None:
    """Print the rows and the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    options = parser.parse_args()
    rows = []
    with torch_settings(recipe.resolve({"student": "zoo:mlp-xs", "threads": 1})):
        for case in CASES:
            for stored in (True, False):
                times = in_turn((theirs(*case), ours(*case, stored=stored)), options.pairs)
                names = dict(zip(("student", "teacher", "batch_size"), case, strict=True))
                first = round(1000 * statistics.median(one for one, _ in times), 2)
                rows.append({**names, "ours": "stored" if stored else "live", "torchdistill_ms": first, **ratio(times)})
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs")))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))


if __name__ == "__main__":
    main()
