"""What turns a language model's hidden states into logits."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from osmose.errors import UserError


@dataclass(frozen=True)
class Head:
    """logits = cap * tanh(scale * (x W^T + b) / cap), or without the tanh where there is no cap.

    Attributes:
        weight: W [vocabulary, width]; where the model ties it to its embeddings, the very same parameter.
        bias: b [vocabulary], or None.
        scale: a factor of the logits.
        cap: the soft bound of the logits (Gemma 2); None for none.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def to(self, dtype: torch.dtype) -> "Head":
        """The same with weights of another type, without gradients."""
        return replace(self, weight=self.weight.detach().to(dtype))

    def logits(self, x: Tensor, vocabulary: int, out: Tensor) -> Tensor:
        """Logits of hidden states x [n, width] for the first `vocabulary` tokens, written into `out` [n, vocabulary]."""
        weight = self.weight.detach()[:vocabulary]
        if weight.dtype == out.dtype:
            torch.mm(x.to(weight.dtype), weight.t(), out=out)
        else:
            out.copy_(x.to(weight.dtype) @ weight.t())
        if self.bias is not None:
            out.add_(self.bias.detach()[:vocabulary])
        if self.scale != 1:
            out.mul_(self.scale)
        if self.cap is not None:
            out.div_(self.cap).tanh_().mul_(self.cap)
        return out

    def back(self, gradient: Tensor, logits: Tensor | None) -> Tensor:
        """From the gradient in the logits the one in x W^T + b, in place; a cap asks for the logits."""
        if self.cap is not None:
            assert logits is not None
            gradient.mul_(logits.div_(self.cap).square_().neg_().add_(1))
        return gradient if self.scale == 1 else gradient.mul_(self.scale)


def check_widths(x: Tensor, head: Head, who: str) -> None:
    """Raise `UserError` where hidden states and head do not fit."""
    if head.weight.dim() != 2 or x.shape[-1] != head.weight.shape[1]:
        raise UserError(
            f"the {who}'s head has weights {list(head.weight.shape)} for hidden states of {x.shape[-1]}: its logits must be "
            "hidden states times a matrix"
        )
