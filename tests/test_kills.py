"""Runs that are killed at random moments, by a signal that no process can catch."""

import os
import random
import signal
import subprocess
import time

import pytest
import yaml


def ends(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(0, 10), (1, 4)])
def test_kills_leave_no_trace(start, plain, left, tmp_path, workers, kills):
    """The delays are drawn so that all of them together cannot add up to the whole run's training."""
    recipe = plain(
        student="fresh:zoo:vit-m", epochs=100 if workers == 0 else 30, checkpoint_every=3, log_every=2, workers=workers,
        method={"target": "partition", "optimiser": {"schedule": "cosine"}},
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    began = time.monotonic()
    whole = start("run", "recipe.yaml", "--output", "whole")
    while not (tmp_path / "whole" / "metrics.jsonl").exists():
        time.sleep(0.02)
    startup = time.monotonic() - began
    ends(whole)
    training = time.monotonic() - began - startup

    seed = random.randrange(10**6)
    draw = random.Random(seed)
    killed = 0
    for _ in range(kills):
        process = start("run", "recipe.yaml", "--output", "run")
        try:
            process.wait(draw.uniform(0.3, 1) * startup + draw.uniform(0, training / kills / 2))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed == kills, f"seed {seed}"
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    ends(start("run", "recipe.yaml", "--output", "run"))
    assert left(tmp_path / "run") == left(tmp_path / "whole"), f"seed {seed}"
    assert not list((tmp_path / "run").glob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_asked_to_stop_says_where_it_stands(start, plain, left, tmp_path, number):
    recipe = plain(student="fresh:zoo:cnn-s", epochs=40, log_every=2, workers=1)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ends(start("run", "recipe.yaml", "--output", "whole"))
    process = start("run", "recipe.yaml", "--output", "run", start_new_session=True)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: the loader processes get it too
    else:
        process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("osmose: interrupted at step ")
    ends(start("run", "recipe.yaml", "--output", "run"))
    assert left(tmp_path / "run") == left(tmp_path / "whole")
