"""Memory of MOKD's heads with the paper's sizes: 65,536 scores, two global crops of 224 pixels and eight local ones of 96.

    python benchmarks/mokd_memory.py [--samples 16]

For the MLP-Head and the T-Head of a ViT-Small in MiB: weights; what the forward pass and the loss keep for the backward pass; the
allocator's peak of both passes over what was there before, gradients of the weights among it. Seed 0.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from language_losses import peak
from osmose.losses import view_pairs
from osmose.methods.heads import MLPHead, MLPOutputs, THead, TOutputs
from osmose.models.layout import Layout

SCORES, WIDTH = 65_536, 384


def kept(head: nn.Module, loss: Callable[[], Tensor]) -> float:
    """What autograd saves of a loss, but for the head's own weights, in MiB."""
    own = {parameter.untyped_storage().data_ptr() for parameter in head.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = loss()
    assert held.requires_grad
    return sum(size for place, size in saved.items() if place not in own) / 2**20


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    samples = parser.parse_args().samples
    torch.manual_seed(0)
    large, small = torch.randn(2 * samples, 196, WIDTH), torch.randn(8 * samples, 36, WIDTH)
    features, targets = torch.randn(10 * samples, WIDTH), torch.rand(2, samples, SCORES).softmax(-1)
    mlp = MLPOutputs(MLPHead(), WIDTH, SCORES, fixed=False)
    t_head = TOutputs(THead(), Layout.of(large), WIDTH, SCORES, project=True)

    def of_tokens() -> Tensor:
        return t_head.last(torch.cat([t_head.pooled(one, Layout.of(one)) for one in (large, small)]))

    rows: dict[str, Any] = {}
    heads: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "mlp-head": (mlp, lambda: mlp(features)),
        "t-head": (t_head, of_tokens),
    }
    for name, (head, scores) in heads.items():

        def loss(scores: Callable[[], Tensor] = scores) -> Tensor:
            return view_pairs(scores().unflatten(0, (10, -1)), [targets], temperature=0.1)[0]

        weights = sum(parameter.numel() * parameter.element_size() for parameter in head.parameters()) / 2**20
        numbers = {"weights": weights, "kept": kept(head, loss), "peak": peak(lambda loss=loss: loss().backward())}  # type: ignore[misc]
        rows[name] = {key: round(number) for key, number in numbers.items()}
    print(json.dumps({"samples": samples, "mib": rows}, indent=2))


if __name__ == "__main__":
    main()
