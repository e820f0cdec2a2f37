"""What a distillation loss from hidden states costs, forward and backward, beside peers that are installed.

    pip install trl==1.16.0 liger-kernel==0.8.5 nvidia-modelopt==0.47.0 \
        torchtune==0.6.1 torchao==0.9.0 torchdata sentencepiece tiktoken blobfile
    python benchmarks/language_losses.py [--rounds 7]

Gradients go to the student's hidden states and head; half of the rows are masked; float32, one thread. Each round takes every
way once, in turn; CPU time is the median over rounds, the ratio to the fastest peer is of the same round. Memory is the
allocator's peak over what was there before, of which the two gradients are unavoidable. All ways must give the same gradients up
to a factor, to 1e-3 of the largest.
"""

import argparse
import contextlib
import gc
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from osmose import recipe, torchvision_ops
from osmose.engine.fabric import make_fabric
from osmose.losses.heads import Head
from osmose.losses.language import Objective, States, distil_tokens
from osmose.measure import environment

SIZES = ((32_000, 1024), (151_936, 512))
STUDENT, TEACHER = 512, 1024
BETAS = {"forward": 0.0, "jensen-shannon": 0.5}
Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Hidden states and head of student and teacher, labels."""
Way = Callable[[Given, str], Tensor]


def ours(given: Given, name: str) -> Tensor:
    """Divided by beta (1 - beta) as all are here, so times that again."""
    student, head, teacher, teacher_head, labels = given
    objective = Objective(alpha=0.0, divergence=name, beta=0.5)
    loss = distil_tokens(student, Head(head), labels, teacher=States(teacher, Head(teacher_head)), objective=objective)[
        0
    ]
    return loss * (0.25 if name == "jensen-shannon" else 1.0)


def plain(given: Given, name: str) -> Tensor:
    """What one writes first: logits of the rows that count, log-softmax, kl_div."""
    student, head, teacher, teacher_head, labels = given
    rows = labels != -100
    learned, taught = F.log_softmax(student[rows] @ head.t(), -1), F.log_softmax(teacher[rows] @ teacher_head.t(), -1)
    if name == "forward":
        return F.kl_div(learned, taught, reduction="batchmean", log_target=True)
    mixture = torch.logaddexp(learned, taught) - 0.6931471805599453
    both = (F.kl_div(mixture, one, reduction="batchmean", log_target=True) for one in (learned, taught))
    return 0.5 * sum(both, start=torch.zeros(()))


def trl_gkd(given: Given, name: str) -> Tensor:
    """The GKD trainer's loss."""
    from trl.experimental.gkd import GKDTrainer  # type: ignore[import-not-found]

    student, head, teacher, teacher_head, labels = given
    logits, taught = (student @ head.t()).unsqueeze(0), (teacher @ teacher_head.t()).unsqueeze(0)
    loss: Tensor = GKDTrainer.generalized_jsd_loss(logits, taught, labels.unsqueeze(0), beta=BETAS[name])
    return loss


def trl_chunked(given: Given, name: str) -> Tensor:
    """The distillation trainer's, from hidden states."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # type: ignore[import-not-found]

    student, head, teacher, teacher_head, labels = given
    mask = (labels != -100).long().unsqueeze(0)
    loss: Tensor = _chunked_divergence_loss(
        student.unsqueeze(0), teacher.unsqueeze(0), head, teacher_head, mask, BETAS[name]
    )[0]
    return loss


def liger(chunk: int) -> Way:
    """Liger's chunked loss."""

    def loss(given: Given, name: str) -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # type: ignore[import-not-found]

        student, head, teacher, teacher_head, labels = given
        fused = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=BETAS[name], compiled=False, chunk_size=chunk
        )
        value: Tensor = fused(student, head, teacher, teacher_head, labels)
        return value

    return loss


def torchtune(given: Given, name: str) -> Tensor:
    """torchtune's forward KL on chunks of logits; it has no Jensen-Shannon divergence."""
    if name != "forward":
        raise ImportError("no such divergence")
    from torchtune.modules.loss import ForwardKLWithChunkedOutputLoss  # type: ignore[import-not-found]

    student, head, teacher, teacher_head, labels = given
    logits = [part @ head.t() for part in student.unsqueeze(0).chunk(8, dim=1)]
    taught = [part @ teacher_head.t() for part in teacher.unsqueeze(0).chunk(8, dim=1)]
    cross: Tensor = ForwardKLWithChunkedOutputLoss()(logits, taught, labels.unsqueeze(0))
    return cross  # the cross-entropy with the teacher: the same gradients


def modelopt(given: Given, name: str) -> Tensor:
    """ModelOpt's loss of logits, for the rows that count; it has no Jensen-Shannon divergence."""
    if name != "forward":
        raise ImportError("no such divergence")
    from modelopt.torch.distill.losses import LogitsDistillationLoss  # type: ignore[import-not-found]

    student, head, teacher, teacher_head, labels = given
    values: Tensor = LogitsDistillationLoss(temperature=1.0, reduction="none")(
        student @ head.t(), teacher @ teacher_head.t()
    )
    rows = labels != -100
    return (values.sum(-1) if values.dim() > 1 else values)[rows].mean()


WAYS: Mapping[str, Way] = {
    "osmose": ours, "plain torch": plain, "TRL GKD": trl_gkd, "TRL chunked": trl_chunked, "Liger, 1024": liger(1024),
    "Liger, 128": liger(128), "torchtune": torchtune, "ModelOpt": modelopt,
}  # fmt: skip


def given(vocabulary: int, rows: int) -> Given:
    """Random states and heads whose logits have a deviation of about 1.5."""
    torch.manual_seed(0)
    student = torch.randn(rows, STUDENT, requires_grad=True)
    head = (torch.randn(vocabulary, STUDENT) * 1.5 / STUDENT**0.5).requires_grad_()
    teacher, teacher_head = torch.randn(rows, TEACHER), torch.randn(vocabulary, TEACHER) * 1.5 / TEACHER**0.5
    labels = torch.randint(vocabulary, (rows,))
    labels[torch.randperm(rows)[: rows // 2]] = -100
    return student, head, teacher, teacher_head, labels


def step(way: Way, numbers: Given, name: str) -> tuple[Tensor, Tensor]:
    """The two gradients."""
    way(numbers, name).backward()
    found = []
    for one in numbers[:2]:
        assert one.grad is not None
        found.append(one.grad)
        one.grad = None
    return found[0], found[1]


def peak(run: Callable[[], Any]) -> float:
    """The allocator's peak over what was allocated before, in MiB."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = top = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        top = max(top, level)
    return top / 2**20


def table(vocabulary: int, rows: int, name: str, rounds: int) -> dict[str, Any]:
    """Time and memory of every way that is installed."""
    numbers = given(vocabulary, rows)
    expected = step(plain, numbers, name)
    times: dict[str, list[float]] = {}
    for way in WAYS:
        try:
            found = step(WAYS[way], numbers, name)
        except ImportError:
            continue
        for one, other in zip(expected, found, strict=True):
            scale = float((one * other).sum() / one.square().sum())  # TRL and Liger may count differently
            if not torch.allclose(other, scale * one, rtol=0, atol=1e-3 * float(other.abs().max())):
                raise RuntimeError(f"{way} gives other gradients than plain torch")
        times[way] = []
    for _ in range(rounds):
        for way, taken in times.items():
            started = time.process_time()
            step(WAYS[way], numbers, name)
            taken.append(time.process_time() - started)
    peers = [way for way in times if way not in ("osmose", "plain torch")]
    fastest = min(peers, key=lambda way: statistics.median(times[way])) if peers else "plain torch"
    ratios = sorted(ours / theirs for ours, theirs in zip(times["osmose"], times[fastest], strict=True))
    return {
        "vocabulary": vocabulary, "rows": rows, "divergence": name,
        "gradients_mib": round(STUDENT * (vocabulary + rows) * 4 / 2**20, 1),
        "ways": {
            way: {
                "seconds": round(statistics.median(taken), 3),
                "peak_mib": round(peak(lambda way=way: step(WAYS[way], numbers, name)), 1),  # type: ignore[misc]
            }
            for way, taken in times.items()
        },
        "fastest": fastest, "osmose over it": [round(ratios[0], 3), round(statistics.median(ratios), 3), round(ratios[-1], 3)],
    }  # fmt: skip


def main() -> None:
    """Print the tables and the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torchvision_ops.install()
    rows = []
    for size, name in itertools.product(SIZES, BETAS):
        with contextlib.redirect_stdout(sys.stderr):  # peers say what they miss
            rows.append(table(*size, name, options.rounds))
        print(json.dumps(rows[-1]), file=sys.stderr)
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs", threads=1)))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))


if __name__ == "__main__":
    main()
