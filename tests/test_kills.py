"""Runs that are killed at random moments, by a signal that no process can catch."""

import os
import random
import signal
import time

import pytest
import yaml


def ends(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def lines(path):
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(0, 10), (1, 4)])
def test_kills_leave_no_trace(start, plain, left, tmp_path, workers, kills):
    """Every other kill comes at a random time of the start-up, the others soon after a random line of the metrics."""
    recipe = plain(
        student="fresh:zoo:vit-m", epochs=100 if workers == 0 else 30, checkpoint_every=3, log_every=2, workers=workers,
        method={"target": "partition", "optimiser": {"schedule": "cosine"}},
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    began = time.monotonic()
    whole = start("run", "recipe.yaml", "--output", "whole")
    metrics = tmp_path / "whole" / "metrics.jsonl"
    while not metrics.exists():
        time.sleep(0.02)
    startup = time.monotonic() - began
    ends(whole)

    seed = random.randrange(10**6)
    draw = random.Random(seed)
    moments = sorted(draw.sample(range(lines(metrics) * 3 // 4), kills - kills // 2))
    for kill in range(kills):
        process = start("run", "recipe.yaml", "--output", "run")
        if kill % 2:
            time.sleep(draw.uniform(0.3, 1) * startup)
        else:
            while lines(tmp_path / "run" / "metrics.jsonl") <= moments[kill // 2] and process.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.1))
        assert process.poll() is None, f"seed {seed}, kill {kill}: {process.communicate()}"
        process.kill()
        process.wait()  # not communicate: a loader's worker that was being forked may outlive it and hold the pipes
    ends(start("run", "recipe.yaml", "--output", "run"))
    assert left(tmp_path / "run") == left(tmp_path / "whole"), f"seed {seed}"
    assert not list((tmp_path / "run").rglob("*.part"))


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
