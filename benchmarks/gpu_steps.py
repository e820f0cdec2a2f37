"""Steps of the papers' recipes on a GPU, at their sizes: milliseconds, samples a second, GiB at the peak.

    python benchmarks/gpu_steps.py [--steps 20]

Networks have new weights, images are 448 x 448 JPEGs of smooth noise, made here. Each case is a recipe in the engine. Five
steps are thrown away, then --steps are timed in four parts, of which the median, the least and the most are told. Images are read
once and shown again, but in the case that says so; views, copies and the optimiser are in the time. Text is read. Seed 0.
"""

import argparse
import gc
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from osmose import recipe
from osmose.data import images
from osmose.data.batch import Batch
from osmose.data.feed import LoaderFeed
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.measure import environment
from paired import make_engine

BF16 = {"precision": "bf16-mixed", "frozen_precision": "bf16-mixed"}
VIT = "dynamic_img_size=true,drop_path_rate=0.1,global_pool=avg,fc_norm=false"


def photos(folder: Path, count: int, side: int, links: int) -> str:
    """The name of a folder of `count` images in 16 classes, each `links` times in the training part, some in the test part."""
    from PIL import Image

    draw = torch.Generator().manual_seed(0)
    for number in range(count):
        coarse = torch.rand(1, 3, 12, 12, generator=draw) + 0.1 * torch.rand(1, 3, 1, 1, generator=draw)
        fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
        pixels = (fine[0] * 220 + 10 * torch.randn(3, side, side, generator=draw)).clamp(0, 255).byte()
        places = [folder / part / f"class{number % 16:02}" for part in ("train", "val")]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(places[0] / f"{number}.jpg", quality=90)
        for link in range(1, links):
            os.link(places[0] / f"{number}.jpg", places[0] / f"{number}-{link}.jpg")
        if number < 32:
            os.link(places[0] / f"{number}.jpg", places[1] / f"{number}.jpg")
    return f"imagefolder:{folder}"


def cases(folder: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Names, recipes, and whether images are read anew; the first of a group is what the others are compared with."""
    seen = {"data": {"name": folder, "image_size": 224, "crop_ratio": 0.9}, "epochs": 1000}
    kd = {
        **seen, "teacher": "fresh:timm:resnext101_32x8d", "student": "fresh:timm:pit_b_224", "batch_size": 256,
        "method": {"name": "distill", "target": "partition", "temperature": 1.0, "optimiser": {"lr": 1e-4}},
    }  # fmt: skip
    yield "transfer / float32", kd, False
    yield "transfer / bfloat16", {**kd, **BF16}, False
    yield "transfer / bfloat16, images read by 14 processes", {**kd, **BF16, "workers": 14}, True
    blocks = {
        **seen, **BF16, "teacher": "fresh:timm:vit_base_patch16_224", "student": "fresh:timm:vit_base_patch16_224,depth=4",
        "batch_size": 256, "view": {"crop": "resized", "flip": 0.5, "colour": 0.0, "grayscale": 0.0},
    }  # fmt: skip
    yield "interactive / plain distillation", {**blocks, "method": {"name": "distill"}}, False
    for rounds in (0, 1, 2):
        method = {"name": "interactive", "rounds": rounds, "message": {"width": 256}}
        yield f"interactive / {rounds} rounds", {**blocks, "method": method}, False
    for names in (("resnet50", "vit_small_patch16_224"), ("resnet50", "resnet50")):
        pair = {
            **BF16, "student": [f"fresh:timm:{name}{',' + VIT if 'vit' in name else ''}" for name in names], "epochs": 100,
            "data": {"name": folder, "image_size": 320}, "batch_size": 64, "view": {"global_size": 224, "local_size": 96},
        }  # fmt: skip
        both = " and ".join(names)
        yield f"{both} / dino", {**pair, "method": {"name": "dino"}}, False
        yield f"{both} / mokd", {**pair, "method": {"name": "mokd", "t_head": {"width": 384}}}, False
    sizes = "hidden_size=2048,intermediate_size=5632,num_attention_heads=16,num_key_value_heads=16,head_dim=128"
    shape = f"fresh:zoo:llama-mini,{sizes},vocab_size=32000,max_position_embeddings=1024"
    tokens = {
        "teacher": f"{shape},layers=18", "student": f"{shape},layers=5", "epochs": 1000, "batch_size": 16,
        "data": {"name": "text:comedies", "length": 1024},
    }  # fmt: skip
    yield "language / float32", {**tokens, "method": {"name": "language"}}, True
    yield "language / bfloat16", {**tokens, **BF16, "method": {"name": "language"}}, True


def shown_again(feed: LoaderFeed) -> Iterator[Batch]:
    """Micro-batches of images that were read once."""
    raw = next(feed.loader.epoch(0))
    if torch.cuda.is_available():
        raw = raw._replace(inputs=raw.inputs.pin_memory())
    while True:
        yield feed.finish(feed.seen(raw, feed.view(0)), 0, 0, 0)


def read_anew(feed: LoaderFeed) -> Iterator[Batch]:
    """Micro-batches as a run reads them."""
    return itertools.chain.from_iterable(feed.epoch(epoch, 0, (0,)) for epoch in itertools.count())


def measure(values: Mapping[str, Any], steps: int, reads: bool) -> dict[str, Any]:
    """The numbers of one recipe."""
    settings = recipe.resolve({**values, "log_every": 10**6})
    gpu, part = torch.cuda.is_available(), max(1, steps // 4)
    with tempfile.TemporaryDirectory() as folder, torch_settings(settings):
        engine = make_engine(settings, Path(folder))
        assert isinstance(engine.feed, LoaderFeed)
        batches = read_anew(engine.feed) if reads else shown_again(engine.feed)
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(5):
            engine.train_step(batches)
        parts = []
        for _ in range(4):
            if gpu:
                torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(part):
                engine.train_step(batches)
            if gpu:
                torch.cuda.synchronize()
            parts.append((time.perf_counter() - began) / part)
        middle = statistics.median(parts)
        return {
            "ms": round(1000 * middle, 1), "ms_least": round(1000 * min(parts), 1), "ms_most": round(1000 * max(parts), 1),
            "samples_per_second": round(engine.settings.batch_size / middle),
            "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if gpu else None,
        }  # fmt: skip


def main() -> None:
    """Print the rows and the machine as JSON, each row as it comes on the error stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    images.IN_MEMORY = 0  # as of a data set of the papers' size
    rows: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        name_of_images = photos(Path(folder), 512, 448, 40)
        for name, values, reads in cases(name_of_images):
            group = name.split(" / ")[0]
            try:
                found = measure(values, options.steps, reads)
                first.setdefault(group, found["ms"])
                found["ratio"] = round(found["ms"] / first[group], 3)
            except torch.OutOfMemoryError:
                found = {"error": "out of memory"}
            rows.append({"case": name, "batch_size": values["batch_size"], **found})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            gc.collect()
            torch.cuda.empty_cache()
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs")))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))


if __name__ == "__main__":
    main()
