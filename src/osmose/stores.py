"""Stores of signals: filled beforehand, listed, verified and removed."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from osmose.data.feed import LoaderFeed
from osmose.engine.fabric import make_fabric, torch_settings
from osmose.engine.folder import RunFolder
from osmose.engine.progress import Progress
from osmose.errors import UserError
from osmose.execution import gather, prepare
from osmose.files import folder_name
from osmose.recipe import Recipe
from osmose.signals.kept import ABOUT
from osmose.signals.records import health

_TELL_EVERY = 15.0
"""Seconds between two lines of progress."""


def build(recipe: Recipe, *, quiet: bool = False) -> dict[str, Any]:
    """Compute and keep every signal that a run of the recipe will ask for; what is there already stays.

    Returns:
        {"store", "views", "samples": for each view, "computed": samples that were shown to networks, "seconds"}, of this process.

    Raises:
        UserError: when the recipe has no store or its method asks for no signals; and as `execute`.
    """
    if recipe.signals.store is None:
        raise UserError("signals.store is empty: give --signals.store DIR, a folder for the signals")
    with torch_settings(recipe):
        fabric = make_fabric(recipe)
        recipe = replace(recipe, devices=fabric.world_size)
        progress = Progress(quiet=quiet or not fabric.is_global_zero)
        folder = RunFolder(Path(), recipe.plain(), owner=False)
        engine = prepare(recipe, gather(recipe, {}, {}), folder, fabric, progress)
        networks = [one for one in engine.frozen.values() if one.kept]
        if not networks:
            raise UserError(
                "a run of this recipe keeps no signals: its method asks for none, or blend mixes its images"
            )
        assert isinstance(engine.feed, LoaderFeed)
        started = told = time.monotonic()
        samples, computed = len(engine.feed.loader.split), 0
        for view in range(recipe.views):
            done = 0
            for batch in engine.feed.in_order(view, fabric.global_rank, fabric.world_size):
                done += len(batch.x)
                missing = False
                for one in networks:
                    assert one.kept is not None
                    there = batch.signals[one.kept.role]
                    for field in one.kept.fields:
                        missing |= field not in there
                        one.signal(batch, field)
                computed += len(batch.x) if missing else 0
                if not all(one.kept and one.kept.writes for one in networks):
                    raise UserError(
                        f"signals.store is '{recipe.signals.store}', where no more can be written: free space there"
                    )
                now = time.monotonic()
                if now - told > _TELL_EVERY:
                    told = now
                    progress.message(f"view {view + 1}/{recipe.views}: {done}/{samples} samples")
    return {
        "store": recipe.signals.store,
        "views": recipe.views,
        "samples": samples,
        "computed": computed,
        "seconds": round(time.monotonic() - started, 1),
    }


def listed(store: Path) -> list[dict[str, Any]]:
    """One row for each network's signals under each key: what they are of, and the disk they take.

    Raises:
        UserError: when there is no store.
    """
    return [
        {
            "key": folder.name,
            "model": about["model"],
            "data": about["data"],
            "fields": ", ".join(sorted(field.name.rpartition("-")[0] for field in _fields(folder))),
            "views": len({path.stem for path in folder.glob("*/*.view")}),
            "mib": round(sum(path.stat().st_blocks * 512 for path in folder.rglob("*")) / 2**20, 1),
        }
        for folder, about in _networks(store)
    ]


def verify(store: Path) -> list[dict[str, Any]]:
    """Read every record: how many are whole and how many damaged, which runs will compute again.

    Raises:
        UserError: when there is no store.
    """
    rows = []
    for folder, about in _networks(store):
        for field in _fields(folder):
            found = [health(path, int(field.name.rpartition("-")[2])) for path in sorted(field.glob("*.view"))]
            rows.append({
                "key": folder.name, "model": about["model"], "field": field.name.rpartition("-")[0], "views": len(found),
                "whole": sum(one.whole for one in found), "damaged": sum(one.damaged for one in found),
            })  # fmt: skip
    return rows


def remove(store: Path, keys: Iterable[str]) -> list[str]:
    """Delete the signals under some keys, and nothing else; "all" stands for every one.

    Raises:
        UserError: when there is no store or no such key.
    """
    there = {folder.name: folder for folder, _ in _networks(store)}
    wanted = list(there) if "all" in (asked := list(dict.fromkeys(keys))) else asked
    for key in wanted:
        if key not in there:
            raise UserError(f"there are no signals '{key}' in {store}: osmose signals list {store} shows the keys")
    for key in wanted:
        shutil.rmtree(there[key])
    return wanted


def _networks(store: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if not store.is_dir():
        raise UserError(f"there is no store of signals '{store}': check the path")
    for path in sorted(store.glob(f"*/{ABOUT}")):
        try:
            about = json.loads(path.read_text())
        except ValueError:
            continue
        if (
            isinstance(about, dict)
            and isinstance(about.get("key"), dict)
            and folder_name(about["key"]) == path.parent.name
        ):
            yield path.parent, about


def _fields(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())
