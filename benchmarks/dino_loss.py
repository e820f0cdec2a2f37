"""DINO's loss beside lightly's on the same scores, centre and temperatures: value, gradient, the centre afterwards, and CPU time.

    pip install lightly==1.6.0
    python benchmarks/dino_loss.py [--pairs 40]

Two global and eight local crops, the twin's answers to the global ones; float32, one thread, seed 0. Values are compared with the
double sum of the paper in float64, gradients and centre with lightly's; differences are relative to the largest number.
"""

import argparse
import json
import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from osmose import recipe, torchvision_ops
from osmose.engine.fabric import make_fabric
from osmose.losses import view_pairs
from osmose.measure import environment
from paired import in_turn, ratio

SIZES = ((16, 65_536), (64, 4096))
STUDENT, TEACHER, MOMENTUM = 0.1, 0.05, 0.9


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, over the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare(samples: int, outputs: int, pairs: int) -> dict[str, Any]:
    """One row of the table."""
    from lightly.loss import DINOLoss  # type: ignore[import-not-found]

    torch.manual_seed(0)
    said = F.normalize(torch.randn(10, samples, 64), dim=-1) @ F.normalize(torch.randn(64, outputs), dim=0)
    heard = said[:2] + 0.1 * torch.randn(2, samples, outputs)
    centre = 0.1 * torch.randn(outputs)
    peer = DINOLoss(output_dim=outputs, student_temp=STUDENT, center_momentum=MOMENTUM)

    def ours(scores: Tensor) -> Tensor:
        target = ((heard - centre) / TEACHER).softmax(-1)
        return view_pairs(scores, [target], temperature=STUDENT)[0]

    def theirs(scores: Tensor) -> Tensor:
        peer.center.copy_(centre)
        loss: Tensor = peer(list(heard), list(scores), teacher_temp=TEACHER)
        return loss

    def both(loss: Any) -> tuple[Tensor, Tensor]:
        scores = said.clone().requires_grad_()
        value = loss(scores)
        return value.detach(), torch.autograd.grad(value, scores)[0]

    (value, gradient), (its_value, its_gradient) = both(ours), both(theirs)
    taught, learned = ((heard.double() - centre) / TEACHER).softmax(-1), (said.double() / STUDENT).log_softmax(-1)
    pairs_of_crops = [(g, v) for g in range(2) for v in range(10) if g != v]
    exact = -torch.stack([(taught[g] * learned[v]).sum(-1).mean() for g, v in pairs_of_crops]).mean()
    times = in_turn((lambda: both(theirs), lambda: both(ours)), pairs)
    return {
        "samples": samples, "outputs": outputs, "value": largest(value, exact), "lightly's value": largest(its_value, exact),
        "gradient": largest(gradient, its_gradient),
        "centre": largest(centre.lerp(heard.mean((0, 1)), 1 - MOMENTUM), peer.center.flatten()),
        "lightly_ms": round(1000 * statistics.median(one for one, _ in times), 2), **ratio(times),
    }  # fmt: skip


def main() -> None:
    """Print the rows and the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torchvision_ops.install()
    rows = [compare(*size, options.pairs) for size in SIZES]
    made_on = environment(make_fabric(recipe.Recipe(student="fresh:zoo:mlp-xs", threads=1)))
    print(json.dumps({"rows": rows, "environment": made_on}, indent=2))


if __name__ == "__main__":
    main()
