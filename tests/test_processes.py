"""Two processes: the losses of one that accumulates the same two shards, one voice, and no one left waiting."""

import json
import os
import signal
import time

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from osmose.errors import UserError
from osmose.processes import is_first, together

DEVICES = ("-m", "osmose")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "osmose")
PLAIN_NET = {"student": "fresh:zoo:cnn-xs", "teacher": "fresh:zoo:vit-xs"}
BATCH_NORM = {"student": "fresh:zoo:cnn-s", "teacher": "fresh:zoo:vit-xs"}
DROPOUT = {"student": "fresh:zoo:vit-m", "teacher": "fresh:zoo:cnn-xs"}


def test_alone_nothing_is_different():
    fabric = Fabric(accelerator="cpu", devices=1)
    with together(fabric):
        pass
    with pytest.raises(UserError, match=r"^a mistake$"), together(fabric):
        raise UserError("a mistake")
    assert is_first()


def flags(grey, networks, **more):
    values = {
        **networks, "data": grey, "epochs": 2, "batch-size": 40, "threads": 1, "log-every": 3, "target": "partition",
        "lr": 2.0, "seed": 1, **more,
    }  # fmt: skip
    return ["transfer", *(text for key, value in values.items() for text in (f"--{key}", value)), "--method", "distill"]


def ends(process, timeout=240):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_for(path, lines=1, timeout=120):
    """Wait until a file has so many lines."""
    end = time.monotonic() + timeout
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < end, f"{path} has not come"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("networks", "launcher"),
    [(DROPOUT, DEVICES), (BATCH_NORM, DEVICES), (PLAIN_NET, TORCHRUN)],
    ids=["devices-dropout", "devices-batch-norm", "torchrun-plain"],
)
def test_two_processes_give_the_losses_of_one_that_accumulates(
    start, grey, metrics, left, tmp_path, networks, launcher
):
    """The shards are the same and so is dropout; only the order of float32 sums differs, some 1e-7, over 12 steps."""
    count = {"devices": 2} if launcher is DEVICES else {}
    two = start(*flags(grey, networks, **count), "--output", "two", "--json", launcher=launcher)
    code, out, err = ends(two)
    assert code == 0, err
    (line,) = out.splitlines()  # one process speaks
    assert json.loads(line)["environment"]["processes"] == 2
    code, _, err = ends(start(*flags(grey, networks, accumulate=2), "--output", "one"))
    assert code == 0, err

    assert "devices: 2\n" in (tmp_path / "two" / "recipe.yaml").read_text()
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == 6
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert a["step"] == b["step"]
        if "loss" in a:
            assert a == pytest.approx(b, rel=1e-6)
        elif networks is not BATCH_NORM:  # running statistics average the shards, one process takes them one by one
            assert a == b
    weights = [load_file(tmp_path / run / "student.safetensors") for run in ("one", "two")]
    for name in weights[0]:
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=1e-5)
    if networks is not BATCH_NORM:
        accuracies = [
            json.loads((tmp_path / run / "result.json").read_text())["accuracy_after"] for run in ("one", "two")
        ]
        assert accuracies[0] == accuracies[1]


def run_both(start, metrics, tmp_path, settings):
    """The metrics of one process that accumulates two shards, and of two; equal up to the order of float32 sums."""
    for output, more in (("two", {"devices": 2}), ("one", {"accumulate": 2})):
        common = {
            "student": "fresh:zoo:mlp-xs",
            "teacher": "fresh:zoo:cnn-xs",
            "batch-size": 40,
            "threads": 1,
            "log-every": 1,
        }
        arguments = [text for key, value in {**common, **settings, **more}.items() for text in (f"--{key}", value)]
        code, _, err = ends(start("transfer", *arguments, "--output", output))
        assert code == 0, err
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    return one


@pytest.mark.slow
def test_hard_in_two_processes(start, grey, metrics, tmp_path):
    """Both switch at the same step, decided by the error of the whole batch."""
    hard = {
        "data": grey, "method": "hard", "target": "teacher", "method.l_min": 0.74, "method.l_max": 0.75,
        "method.consecutive": 1, "method.augmentor_batch": 20, "method.optimiser.schedule": "constant", "lr": 0.1, "epochs": 4,
    }  # fmt: skip
    lines = run_both(start, metrics, tmp_path, hard)
    assert {"kl" in line for line in lines if "loss" in line} == {True, False}


@pytest.mark.slow
def test_crds_banks_are_the_same_in_two_processes(start, grey, metrics, tmp_path):
    """What each has seen is kept by both: later losses, against the banks, agree with one process that accumulates."""
    crd = {
        "data": grey, "method": "contrastive", "method.loss": "crd", "method.bank.negatives": 100, "method.bank.size": 100,
        "method.optimiser.schedule": "constant", "lr": 0.1, "epochs": 3,
    }  # fmt: skip
    assert run_both(start, metrics, tmp_path, crd)[-2]["contrast"] > 0


@pytest.mark.slow
def test_momentum_in_two_processes(start, grey, metrics, tmp_path):
    """The slow weights, which are what is saved, follow the same averaged steps."""
    momentum = {"data": grey, "method": "momentum", "method.decay": 0.9, "lr": 0.5, "epochs": 2}
    run_both(start, metrics, tmp_path, momentum)
    one, two = (load_file(tmp_path / run / "student.safetensors") for run in ("one", "two"))
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_interactive_in_two_processes(start, grey, metrics, tmp_path):
    """The student alone, the communicators alone, then both, by the clock."""
    interactive = {
        "data": grey, "method": "interactive", "method.warmup.student": 3, "method.warmup.communicators": 3, "lr": 0.05,
        "method.noise": 0.1, "student": "fresh:zoo:vit-xs", "epochs": 2,
    }  # fmt: skip
    lines = run_both(start, metrics, tmp_path, interactive)
    assert {"interact" in line for line in lines if "loss" in line} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "search"),
    [
        (["fresh:zoo:vit-m,patch=4", "fresh:zoo:cnn-xs"], "paper"),
        (["fresh:zoo:vit-m,patch=4", "fresh:zoo:cnn-xs"], "code"),
        (["fresh:zoo:vit-xs"], None),
    ],
)
def test_mokd_in_two_processes(start, grey, metrics, tmp_path, student, search):
    """Centres see the whole batch, and each shard has its own dropout; without batch normalisation all is the same, to the last
    bit."""
    values = {
        "data": grey, "method": "mokd" if len(student) > 1 else "dino", "method.outputs": 32, "method.mlp_head.hidden": 24,
        "method.mlp_head.bottleneck": 12, "method.cnn_optimiser.lr": 0.01, "view.locals": 2, "view.local_size": 8,
        "batch-size": 40, "threads": 1, "log-every": 1, "epochs": 2,
    }  # fmt: skip
    common = [*(text for key, value in values.items() for text in (f"--{key}", value)), "--student", *student]
    if len(student) > 1:
        common += ["--method.t_head.heads", 2, "--method.t_head.width", 8, "--method.search", search]
    for output, more in (("two", ["--devices", 2]), ("one", ["--accumulate", 2])):
        code, _, err = ends(start("transfer", *common, *more, "--output", output))
        assert code == 0, err
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) > 12
    assert one == two
    for file in (tmp_path / "one").glob("student*.safetensors"):
        weights, others = load_file(file), load_file(tmp_path / "two" / file.name)
        assert weights.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


@pytest.mark.slow
def test_seeds_queue_is_the_same_in_two_processes(start, grey, metrics, tmp_path):
    """What both have seen is kept in the order of the samples' numbers."""
    seed = {"data": grey, "method": "seed", "student": "fresh:zoo:vit-xs", "method.queue": 100, "lr": 0.5, "epochs": 2}
    assert run_both(start, metrics, tmp_path, seed)[-1]["heldout_neighbours"] > 0


@pytest.mark.slow
def test_head_warmup_in_two_processes(start, grey, metrics, tmp_path):
    """Who moves changes after the first epoch: DistributedDataParallel has to follow."""
    warm = {"method.head_warmup_epochs": 1}
    code, _, err = ends(start(*flags(grey, PLAIN_NET, devices=2, **warm), "--output", "two"))
    assert code == 0, err
    code, _, err = ends(start(*flags(grey, PLAIN_NET, accumulate=2, **warm), "--output", "one"))
    assert code == 0, err
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-6)


SEEN = """
import torch

from osmose.engine.method import Step
from osmose.engine.optimiser import Optimiser
from osmose.methods import METHODS
from osmose.methods.supervised import Supervised
from osmose.processes import all_reduce


class Seen(Supervised):
    \"""Keeps a mark for every sample that any process has seen.\"""

    def __init__(self, student, frozen, *, lr: float = 0.5):
        super().__init__(student, frozen, optimiser=Optimiser(lr=lr))
        self.register_buffer("seen", torch.zeros(300))

    def forward(self, batch, clock):
        step = super().forward(batch, clock)
        known = self.seen.sum()
        self.seen[batch.index] = 1.0
        return Step(step.loss, {"known": known})

    def after_step(self, clock):
        self.seen.copy_(all_reduce(self.seen, "max"))


METHODS["seen"] = Seen
"""


@pytest.mark.slow
def test_buffers_of_a_method_are_its_own_to_reduce(start, grey, metrics, tmp_path):
    """Each process marks other samples; only a mark that nobody averaged is a whole one in all of them."""
    (tmp_path / "seen.py").write_text(SEEN)
    for output, count in (("two", {"devices": 2}), ("one", {"accumulate": 2})):
        values = {"student": "fresh:zoo:cnn-s", "data": grey, "method": "seen", "import": "seen.py", "output": output}
        values |= {"epochs": 1, "batch-size": 40, "threads": 1, "log-every": 1, **count}
        code, _, err = ends(start("transfer", *(text for key, value in values.items() for text in (f"--{key}", value))))
        assert code == 0, err
    known = {run: [line["known"] for line in metrics(tmp_path / run) if "known" in line] for run in ("one", "two")}
    assert known["two"] == [40.0 * step for step in range(len(known["two"]))]
    assert [a + 10 for a in known["two"]] == known["one"]  # the second of two accumulated shards knows the first


@pytest.mark.slow
def test_a_script_goes_on_with_the_processes_that_its_first_run_started(start, grey, tmp_path):
    (tmp_path / "script.py").write_text(
        "import osmose\n"
        "arguments = dict(student='fresh:zoo:mlp-xs', teacher='fresh:zoo:cnn-xs', epochs=1, batch_size=40, threads=1)\n"
        f"for output, devices in (('one', 2), ('two', 1)):\n"
        f"    osmose.transfer(data={grey!r}, output=output, devices=devices, **arguments)\n"
    )
    code, _, err = ends(start("script.py", launcher=()))
    assert code == 0, err
    for run in ("one", "two"):
        assert json.loads((tmp_path / run / "result.json").read_text())["environment"]["processes"] == 2


@pytest.mark.slow
def test_an_error_of_the_first_process_stops_both_with_one_line(start, grey, tmp_path):
    arguments = flags(grey, PLAIN_NET, devices=2)
    assert ends(start(*arguments, "--output", "run"))[0] == 0
    for more, said in (
        (["--seed", "9"], "holds a run of another recipe (seed: 1 there, 9 now)"),
        (["--fresh", "--teacher", "zoo:nothing"], "unknown zoo model 'nothing'"),
        (["--fresh", "--lr", "1e30"], "no longer finite at step"),
    ):
        code, out, err = ends(start(*arguments, *more, "--output", "run"))
        assert code == 2, err
        assert out == ""
        assert [line for line in err.splitlines() if line.startswith("osmose: ")] == [
            line for line in err.splitlines() if said in line
        ]
        assert err.count("osmose: ") == 1
        assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["UserError", "ZeroDivisionError"])
@pytest.mark.parametrize("mistaken", [(0,), (1,), (0, 1)])
def test_a_mistake_in_any_process_stops_all_and_one_tells(start, tmp_path, mistaken, kind):
    """What nobody expected is told by each process that met it."""
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "from lightning_fabric import Fabric\n"
        "from osmose.errors import UserError\n"
        "from osmose.processes import together\n"
        "fabric = Fabric(accelerator='cpu', devices=2)\n"
        "fabric.launch()\n"
        "try:\n"
        "    with together(fabric):\n"
        f"        if fabric.global_rank in {mistaken}:\n"
        f"            raise {kind}('a mistake')\n"
        "    print('went on')\n"
        "except (UserError, ZeroDivisionError, SystemExit) as stopped:\n"
        "    print(f'{fabric.global_rank} {type(stopped).__name__}\\n', end='', flush=True)\n"
        "fabric.barrier()\n"
    )
    code, out, err = ends(start("script.py", launcher=TORCHRUN[:-2]))
    assert code == 0, err
    tell = mistaken[:1] if kind == "UserError" else mistaken
    told = [f"{rank} {kind if rank in tell else 'SystemExit'}" for rank in (0, 1)]
    assert sorted(out.splitlines()) == told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [(DEVICES, signal.SIGTERM), (DEVICES, signal.SIGKILL), (TORCHRUN, signal.SIGTERM)],
    ids=["devices-sigterm", "devices-sigkill", "torchrun-sigterm"],
)
def test_two_processes_killed_and_resumed(start, grey, left, tmp_path, launcher, number):
    """Undisturbed and interrupted runs of two processes end alike to the last bit, metrics of half a log window included."""
    count = {"devices": 2} if launcher is DEVICES else {}
    arguments = flags(grey, BATCH_NORM, epochs=40, **{"checkpoint-every": 5, "log-every": 7}, **count)
    code, _, err = ends(start(*arguments, "--output", "whole", launcher=launcher))
    assert code == 0, err
    process = start(*arguments, "--output", "run", launcher=launcher, start_new_session=True)
    wait_for(tmp_path / "run" / "metrics.jsonl", 12)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.terminate()
    code, _, err = ends(process)
    assert code != 0
    if (launcher, number) == (DEVICES, signal.SIGTERM):
        assert code == 128 + signal.SIGTERM
        assert err.count("osmose: interrupted at step ") == 1
        assert "Traceback" not in err
    code, _, err = ends(start(*arguments, "--output", "run", launcher=launcher))
    assert code == 0, err
    assert "resumed at step" in err
    assert left(tmp_path / "run") == left(tmp_path / "whole")
