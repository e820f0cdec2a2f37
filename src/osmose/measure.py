"""What a run did and ran on, for its result."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import lightning_fabric
import torch

import osmose


def shares(metrics: Path) -> dict[str, float]:
    """Share of the training samples given to each target over the whole run, from the logged means."""
    totals: dict[str, float] = {}
    last = 0
    for line in map(json.loads, metrics.read_text().splitlines()):
        for name in (key for key in line if key.startswith("share/")):
            totals[name] = totals.get(name, 0.0) + line[name] * (line["step"] - last)
        last = line["step"]
    return {name.removeprefix("share/"): total / last for name, total in totals.items()}


def environment(fabric: lightning_fabric.Fabric) -> dict[str, Any]:
    """What a run ran on."""
    device = (
        torch.cuda.get_device_name(fabric.device)
        if fabric.device.type == "cuda"
        else f"cpu with {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        "osmose": osmose.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": device,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
